//! A model-repository folder in Triton's layout. It is looked through now and again, or models
//! are loaded out of it when a call asks for them. The highest version answers when none is named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sluice_protocol::{ModelName, ModelVersion};

use super::files::is_gone;
use super::folder::{Faults, ModelFolder, misnamed_model, name_of, settings};
use super::given::Given;
use super::{install, prepare, refuse, settle};
use crate::catalog::Model;
use crate::error::{GatewayError, LoadError};
use crate::load::Candidate;
use crate::shared::Shared;

/// A folder of models, and what is served out of it.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
    /// How each model's folder was when its versions were last tried.
    seen: BTreeMap<ModelName, ModelFolder>,
    /// What was not served the last time.
    faults: Faults,
}

/// What a load call loads a model from.
enum Origin {
    Folder(Box<ModelFolder>),
    Given(Box<Given>),
}

impl Repository {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root, seen: BTreeMap::new(), faults: BTreeMap::new() }
    }

    /// Loads what is new or changed among `models`, or among all that are there, and takes out
    /// what is gone. Blocks while it loads; between versions it ends when `stopped` says so.
    pub(crate) fn sync(
        &mut self,
        shared: &Shared,
        models: Option<&BTreeSet<ModelName>>,
        stopped: impl Fn() -> bool,
    ) {
        let found = match self.scan(models) {
            Ok((found, faults)) => {
                self.tell(faults);
                found
            }
            // A folder that cannot be read for a moment is no reason to stop serving.
            Err(error) => {
                tracing::warn!(folder = %self.root.display(), %error, "cannot read model repository");
                return;
            }
        };
        for (model, folder) in &found {
            sync_model(shared, self.seen.get(model), folder, &stopped);
            if stopped() {
                return;
            }
        }
        for model in self.seen.keys().filter(|model| !found.contains_key(*model)) {
            tracing::info!(%model, "model is gone from the repository");
            shared.catalog.remove(model);
            shared.metrics.set_default_version(model, None);
        }
        for model in models.into_iter().flatten().filter(|model| !found.contains_key(*model)) {
            tracing::warn!(%model, "nothing to load: the repository has no version of this model");
        }
        self.seen = found;
    }

    /// Loads one model as a call asks for it. What is loaded already and has not changed stays.
    /// When a version that is wanted is refused, nothing changes. An older version that nobody
    /// named is refused for itself.
    pub(crate) fn load(
        &mut self,
        shared: &Shared,
        model: &ModelName,
        given: Option<Box<Given>>,
        stopped: impl Fn() -> bool,
    ) -> Result<(), GatewayError> {
        let is_given = given.is_some();
        let origin = self.origin(model, given)?;
        let wanted = origin.versions();
        let Some(&newest) = wanted.last() else {
            let reason = "at least one version must be available under its version policy";
            return Err(refused(model, reason.to_owned()));
        };
        let mut prepared = Vec::new();
        for &version in &wanted {
            if stopped() {
                abandon(shared, model);
                return Err(GatewayError::Unavailable("shutting down"));
            }
            if !is_given && self.is_served(shared, &origin, version) {
                continue;
            }
            match prepare(shared, model, version, || self.candidate(model, &origin, version)) {
                Ok(deployment) => prepared.push(deployment),
                Err(error) => {
                    let reason = error.to_string();
                    refuse(shared, model, version, &reason);
                    if version == newest || origin.names_versions() {
                        abandon(shared, model);
                        let reason = format!("version {version} is at UNAVAILABLE state: {reason}");
                        return Err(refused(model, reason));
                    }
                }
            }
        }
        let labels = match &origin {
            Origin::Folder(folder) => folder.labels.clone(),
            // Whoever runs the model says how, whatever it is that is run.
            Origin::Given(_) => {
                let settings = settings(&self.root.join(model.as_str()));
                settings.ok().map(|settings| settings.labels)
            }
        };
        settle(shared, model, &prepared, labels.as_ref(), |version| wanted.contains(version));
        match origin {
            Origin::Folder(folder) if !is_given => drop(self.seen.insert(model.clone(), *folder)),
            // The next load without anything given must load the folder's own.
            Origin::Folder(_) | Origin::Given(_) => drop(self.seen.remove(model)),
        }
        Ok(())
    }

    /// Takes one model out as a call asks for it. The requests that it is answering end first.
    pub(crate) fn unload(
        &mut self,
        shared: &Shared,
        model: &ModelName,
    ) -> Result<(), GatewayError> {
        let is_known = shared.catalog.snapshot().model(model.as_str()).is_some();
        if !is_known && !self.root.join(model.as_str()).is_dir() {
            return Err(GatewayError::UnknownModel { model: model.to_string(), reason: None });
        }
        if is_known {
            shared.catalog.update(model, Model::unload);
            shared.metrics.set_default_version(model, None);
            tracing::info!(%model, "unloaded model");
        }
        // Of one that never answered there is nothing left to tell.
        let catalog = shared.catalog.snapshot();
        if catalog.model(model.as_str()).is_some_and(|known| known.states().is_empty()) {
            shared.catalog.remove(model);
        }
        self.seen.remove(model);
        Ok(())
    }

    /// The folders of `models`, or of all that are there, as far as there is a version in them. A
    /// folder that cannot be read stays as it was seen: only when the root itself fails, there is
    /// nothing to go by. Beside them what is there and not served.
    pub(crate) fn scan(
        &self,
        models: Option<&BTreeSet<ModelName>>,
    ) -> std::io::Result<(BTreeMap<ModelName, ModelFolder>, Faults)> {
        let mut faults = Faults::new();
        let mut found = BTreeMap::new();
        for path in folders(&self.root)? {
            let Some(model) = name_of::<ModelName>(&path) else {
                faults.extend(misnamed_model(path).filter(|_| models.is_none()));
                continue;
            };
            if models.is_some_and(|models| !models.contains(&model)) {
                continue;
            }
            let seen = self.seen.get(&model);
            match ModelFolder::scan(&model, path.clone(), seen, None, &mut faults) {
                Ok(folder) => drop(found.insert(model, folder)),
                Err(_) if is_gone(&path) => {}
                Err(error) => {
                    faults.insert(path, error.to_string());
                    found.extend(seen.map(|seen| (model, seen.clone())));
                }
            }
        }
        found.retain(|_, folder| !folder.versions.is_empty());
        Ok((found, faults))
    }

    /// Writes down what is not served, once as long as it lasts.
    fn tell(&mut self, faults: Faults) {
        for (path, error) in faults.iter().filter(|(path, _)| !self.faults.contains_key(*path)) {
            let path = path.display();
            tracing::warn!(%path, error, "a part of the model repository is not served");
        }
        self.faults = faults;
    }

    fn origin(
        &mut self,
        model: &ModelName,
        given: Option<Box<Given>>,
    ) -> Result<Origin, GatewayError> {
        let config = match given {
            Some(given) if given.has_files() => return Ok(Origin::Given(given)),
            Some(given) => Some(given.config),
            None => None,
        };
        let path = self.root.join(model.as_str());
        let nothing = |reason| GatewayError::NothingToLoad { model: model.to_string(), reason };
        if !path.is_dir() {
            let reason = "it has no folder of this name".to_owned();
            return Err(nothing(reason));
        }
        let mut faults = Faults::new();
        let folder = ModelFolder::scan(model, path, self.seen.get(model), config, &mut faults);
        let folder = folder.map_err(|error| nothing(error.to_string()))?;
        for (path, error) in &faults {
            tracing::warn!(path = %path.display(), error, "a part of the model repository is not served");
        }
        Ok(Origin::Folder(folder.into()))
    }

    /// Whether a version is loaded as the folder has it now.
    fn is_served(&self, shared: &Shared, origin: &Origin, version: ModelVersion) -> bool {
        let Origin::Folder(folder) = origin else { return false };
        let seen = self.seen.get(&folder.model).and_then(|seen| seen.versions.get(&version));
        let catalog = shared.catalog.snapshot();
        let known = catalog.model(folder.model.as_str());
        seen.is_some()
            && seen == folder.versions.get(&version)
            && known.is_some_and(|known| {
                known.versions.contains_key(&version) && !known.refused.contains_key(&version)
            })
    }

    fn candidate(
        &self,
        model: &ModelName,
        origin: &Origin,
        version: ModelVersion,
    ) -> Result<Candidate, LoadError> {
        match origin {
            Origin::Folder(folder) => folder.candidate(version),
            Origin::Given(given) => {
                given.candidate(model, version, settings(&self.root.join(model.as_str()))?)
            }
        }
    }
}

impl Origin {
    /// The versions that are wanted, in order.
    fn versions(&self) -> BTreeSet<ModelVersion> {
        match self {
            Self::Folder(folder) => folder.versions.keys().copied().collect(),
            Self::Given(given) => given.wanted().collect(),
        }
    }

    /// Whether somebody named the versions, so that each of them must come.
    fn names_versions(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.names_versions(),
            Self::Given(_) => true,
        }
    }
}

/// Every folder that is called as a model may be, with its model.
pub(crate) fn model_folders(root: &Path) -> std::io::Result<Vec<(ModelName, PathBuf)>> {
    let named = |path: PathBuf| Some((name_of(&path)?, path));
    Ok(folders(root)?.into_iter().filter_map(named).collect())
}

/// What lies in the root and is no file. A link that leads nowhere is told of when it is looked
/// through.
fn folders(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root)? {
        folders.extend(Some(entry?.path()).filter(|path| !path.is_file()));
    }
    Ok(folders)
}

fn sync_model(
    shared: &Shared,
    before: Option<&ModelFolder>,
    folder: &ModelFolder,
    stopped: impl Fn() -> bool,
) {
    let mut is_same = before.is_some_and(|seen| {
        seen.labels == folder.labels && seen.versions.keys().eq(folder.versions.keys())
    });
    for (&version, fingerprint) in &folder.versions {
        if stopped() {
            return;
        }
        if before.and_then(|seen| seen.versions.get(&version)) == Some(fingerprint) {
            continue;
        }
        is_same = false;
        let _refused = !install(shared, &folder.model, version, || folder.candidate(version));
    }
    // A new catalog names every model, and each of them is looked at.
    if is_same {
        return;
    }
    let wanted = |version: &ModelVersion| folder.versions.contains_key(version);
    settle(shared, &folder.model, &[], folder.labels.as_ref(), wanted);
}

/// Says that nothing of a model is being loaded any more.
fn abandon(shared: &Shared, model: &ModelName) {
    shared.catalog.update(model, |known| known.loading.clear());
}

fn refused(model: &ModelName, reason: String) -> GatewayError {
    GatewayError::LoadRefused { model: model.clone(), reason }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use sluice_engine::OnnxRuntime;

    use super::Repository;
    use crate::catalog::Catalog;
    use crate::shared::{Options, Shared};

    /// A look at what is as it was: the catalog stays, and with it every version and its counters.
    #[test]
    fn what_has_not_changed_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (folder, backup) = (root.path().join("m"), root.path().join("backup"));
        std::fs::create_dir_all(folder.join("1")).unwrap();
        let scale = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/scale.onnx");
        std::fs::copy(scale, folder.join("1/model.onnx")).unwrap();
        let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
        let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
        let shared = Shared::new(runtime, None, None, Options { cores: 1, ..Options::default() });
        let mut repository = Repository::new(root.path().to_owned());
        let mut look = || -> Arc<Catalog> {
            repository.sync(&shared, None, || false);
            shared.catalog.snapshot().clone()
        };
        let number = |catalog: &Catalog| catalog.resolve("m", None).unwrap().number;
        let first = look();
        assert!(Arc::ptr_eq(&first, &look()), "nothing happened");
        std::fs::hard_link(folder.join("1/model.onnx"), &backup).unwrap();
        assert!(Arc::ptr_eq(&first, &look()), "somebody made a backup");
        std::fs::remove_file(backup).unwrap();
        assert!(Arc::ptr_eq(&first, &look()), "and removed it");
        std::fs::write(folder.join("deployment.toml"), "format = 1\n[labels]\nstable = 1\n")
            .unwrap();
        let labelled = look();
        assert_ne!(number(&labelled), number(&first), "its settings changed");
        assert!(labelled.resolve_label("m", "stable").is_ok());
        assert!(Arc::ptr_eq(&labelled, &look()));
    }
}
