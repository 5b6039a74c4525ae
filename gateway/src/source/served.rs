//! What is served out of a registry: brings the catalog to what is wanted, under the settings
//! that operators give, and saves it for a restart. When to do so is the follower's business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_protocol::{Digest, ModelName, ModelVersion};
use sluice_registry::{Client, RegistryError, Snapshot, SnapshotModel};

use super::fingerprint::Fingerprint;
use super::package_cache::PackageCache;
use super::saved::{Saved, SavedModel};
use super::settings_file;
use super::{install, refuse};
use crate::catalog::Model;
use crate::error::LoadError;
use crate::load::{Candidate, DeploymentSettings};
use crate::shared::Shared;

/// The alias of the version that answers when none is named.
const CHAMPION: &str = "champion";
/// How often the settings files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why a version is refused whose files nobody but this gateway had.
const INCOMPLETE: &str = "its saved package is incomplete";
/// Why one is not tried whose place is taken.
const IN_PLACE: &str =
    "another registry's version of this number answers in its place until the champion can";

/// A version's files by path, and their digests.
type Package = (BTreeMap<String, Bytes>, BTreeMap<String, Digest>);

/// The models that come from one registry.
#[derive(Debug)]
pub(super) struct Served {
    shared: Arc<Shared>,
    client: Client,
    cache: PackageCache,
    /// What is served, as it is saved.
    serving: Saved,
    /// What is to be served.
    wanted: BTreeMap<ModelName, Wanted>,
    /// The settings file under which a version was last tried, whatever came of it: a version
    /// does not change, so trying it again under the same settings would not help.
    tried: BTreeMap<(ModelName, ModelVersion), Fingerprint>,
    lacks_files: bool,
}

/// What is to be served of one model.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Whether the registry names it. Else it is what was served before.
    named: bool,
    versions: BTreeSet<ModelVersion>,
    champion: Option<ModelVersion>,
    labels: BTreeMap<String, ModelVersion>,
}

impl Served {
    pub(super) fn open(shared: Arc<Shared>, client: Client) -> std::io::Result<Self> {
        let cache = PackageCache::open(shared.state.as_deref())?;
        Ok(Self {
            shared,
            client,
            cache,
            serving: Saved::new(String::new()),
            wanted: BTreeMap::new(),
            tried: BTreeMap::new(),
            lacks_files: false,
        })
    }

    /// Which registry it came from; empty when there was none yet.
    pub(super) fn registry(&self) -> &str {
        &self.serving.registry
    }

    /// Whether a version that is wanted could not be fetched.
    pub(super) const fn lacks_files(&self) -> bool {
        self.lacks_files
    }

    /// Serves the saved state again. False when nothing is saved.
    pub(super) async fn apply_saved(&mut self) -> bool {
        let Some(saved) = self.saved() else { return false };
        for (name, model) in &saved.models {
            for (&version, digests) in &model.versions {
                match self.cached(digests) {
                    Some(files) => drop(self.try_version(name, version, files).await),
                    None => refuse(&self.shared, name, version, INCOMPLETE),
                }
                if model.foreign.contains(&version) {
                    // The registry that is there now may have one of this number.
                    self.tried.remove(&(name.clone(), version));
                }
            }
            let default = model.default.filter(|version| self.is_loaded(name, *version));
            self.shared.catalog.update(name, |known| {
                // It answered before the restart, so it is missed if it does not now.
                known.set_default_version(model.default);
                known.set_default_version(default);
                known.labels.clone_from(&model.labels);
            });
            self.shared.metrics.set_default_version(name, default);
        }
        let models = saved.models.iter();
        self.wanted = models.map(|(name, model)| (name.clone(), Wanted::saved(model))).collect();
        self.serving = saved;
        !self.serving.models.is_empty()
    }

    /// Brings the catalog to `snapshot`. One version that cannot be fetched or served does not
    /// hold up the others: administration says why it is not there.
    pub(super) async fn apply(&mut self, snapshot: &Snapshot) {
        let is_other = self.serving.registry != snapshot.registry;
        let named = snapshot.models.iter().filter(|model| !model.aliases.is_empty());
        self.wanted = named.map(|model| (model.name.clone(), Wanted::named(model))).collect();
        for (name, kept) in &self.serving.models {
            if self.wanted.contains_key(name) {
                continue;
            }
            if !is_other && !kept.is_foreign() {
                tracing::info!(model = %name, "model is gone from the registry");
                self.shared.catalog.remove(name);
                self.shared.metrics.set_default_version(name, None);
                continue;
            }
            // A registry that lost its data must not take the models down with it.
            if is_other {
                tracing::warn!(model = %name, "another registry does not know this model; still serving it");
            }
            self.wanted.insert(name.clone(), Wanted::saved(kept));
        }
        let wanted = &self.wanted;
        self.tried.retain(|(name, version), _| {
            wanted.get(name).is_some_and(|wanted| !(is_other && wanted.names(*version)))
        });
        self.load_wanted(&snapshot.registry).await;
    }

    /// Tries again what was tried under other settings than those of now.
    pub(super) async fn apply_settings(&mut self) {
        let registry = self.serving.registry.clone();
        self.load_wanted(&registry).await;
    }

    /// Waits until a settings file is not the one that a version was tried under.
    pub(super) async fn settings_changed(&self) {
        let changed = || {
            let mut tried = self.tried.iter();
            tried.any(|((name, _), file)| self.settings_file(name, Some(file)) != *file)
        };
        while !changed() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Brings the catalog to what is wanted, and saves what is served then.
    async fn load_wanted(&mut self, registry: &str) {
        self.lacks_files = false;
        let mut next = Saved::new(registry.to_owned());
        for (name, wanted) in self.wanted.clone() {
            let mut before = self.serving.models.get(&name).cloned().unwrap_or_default();
            if self.serving.registry != registry {
                before.foreign = before.versions.keys().copied().collect();
            }
            next.models.insert(name.clone(), self.load_model(&name, &wanted, before).await);
        }
        if next != self.serving {
            self.serving = next;
            self.save();
        }
    }

    /// Loads what is wanted of one model, then swaps, then lets go of what is not. Gives what
    /// is to be served again after a restart: a version that cannot be served at this moment is
    /// kept, with its files, as long as it is wanted or none has taken its place.
    async fn load_model(
        &mut self,
        name: &ModelName,
        wanted: &Wanted,
        before: SavedModel,
    ) -> SavedModel {
        let answering = self.default_version(name);
        let mut next = before.clone();
        self.load_versions(name, wanted, &mut next).await;
        // The version that answers stays until another one can, whatever the aliases say: that
        // version, not another registry's of the same number.
        let is_same = |version: &ModelVersion| {
            before.foreign.contains(version) == next.foreign.contains(version)
        };
        let former = before.default.filter(is_same);
        let loaded = |version: &ModelVersion| self.is_loaded(name, *version);
        let default = self.champion(name, wanted, &next).or(former.filter(loaded));
        let kept = default.or(former);
        let keep =
            |version: &ModelVersion| wanted.versions.contains(version) || kept == Some(*version);
        // Another registry's version of the same number answers for a wanted one only as long as
        // none of this registry can answer at all.
        let foreign = std::mem::take(&mut next.foreign);
        let serve = |version: &ModelVersion| {
            let is_other = foreign.contains(version) && wanted.names(*version);
            keep(version) && (!is_other || kept == Some(*version))
        };
        next.versions.retain(|version, _| serve(version));
        next.foreign = foreign.iter().copied().filter(serve).collect();
        self.tried.retain(|(model, version), _| model != name || keep(version));
        self.shared.catalog.update(name, |known| {
            known.versions.retain(|version, _| serve(version));
            known.refused.retain(|version, _| keep(version));
            known.set_default_version(default);
            known.labels.clone_from(&wanted.labels);
        });
        self.shared.metrics.set_default_version(name, default);
        if default != answering {
            let version = default.map_or_else(|| "none".to_owned(), |version| version.to_string());
            tracing::info!(model = %name, %version, "answering version changed");
        }
        next.default = kept;
        next.labels.clone_from(&wanted.labels);
        next
    }

    /// Loads what is wanted of one model into the catalog. A version that has the number of the one
    /// that answers, which another registry's is, waits until the champion can: whoever names no
    /// version must not get it meanwhile.
    async fn load_versions(&mut self, name: &ModelName, wanted: &Wanted, next: &mut SavedModel) {
        let waits = next.default.filter(|&version| {
            let is_other = next.foreign.contains(&version) && wanted.names(version);
            is_other && wanted.champion != Some(version)
        });
        for &version in wanted.versions.iter().filter(|version| waits != Some(**version)) {
            self.load_version(name, version, wanted, next).await;
        }
        let champion = self.champion(name, wanted, next);
        let former = next.default.filter(|version| !wanted.versions.contains(version));
        if let Some(former) = former.filter(|_| champion.is_none()) {
            self.load_version(name, former, wanted, next).await;
        }
        let Some(waits) = waits else { return };
        if champion.is_none() && self.is_loaded(name, waits) {
            return self.tell(name, waits, IN_PLACE);
        }
        self.shared.catalog.update(name, |known| known.set_default_version(champion));
        self.load_version(name, waits, wanted, next).await;
    }

    /// Loads one version, unless it was tried already under the settings of now, and notes in
    /// `next` what it consists of.
    async fn load_version(
        &mut self,
        name: &ModelName,
        version: ModelVersion,
        wanted: &Wanted,
        next: &mut SavedModel,
    ) {
        let tried = self.tried.get(&(name.clone(), version));
        if tried.is_some_and(|file| *file == self.settings_file(name, tried)) {
            return;
        }
        let known = next.versions.get(&version);
        let package = match (next.foreign.contains(&version), wanted.names(version)) {
            (false, _) => self.package(name, version, known).await,
            // What is known is of another version that has this number elsewhere.
            (true, true) => self.package(name, version, None).await,
            (true, false) => match known.and_then(|digests| Some((self.cached(digests)?, digests)))
            {
                Some((files, digests)) => Ok((files, digests.clone())),
                None => {
                    self.note_tried(name, version);
                    return refuse(&self.shared, name, version, INCOMPLETE);
                }
            },
        };
        match package {
            Ok((files, digests)) => {
                if self.try_version(name, version, files).await {
                    next.versions.insert(version, digests);
                    if wanted.names(version) {
                        next.foreign.remove(&version);
                    }
                }
            }
            Err(error) => self.miss(name, version, &error),
        }
    }

    /// The version that is to answer when none is named, if it can.
    fn champion(
        &self,
        name: &ModelName,
        wanted: &Wanted,
        next: &SavedModel,
    ) -> Option<ModelVersion> {
        wanted.champion.filter(|&champion| {
            let is_other = wanted.names(champion) && next.foreign.contains(&champion);
            self.is_loaded(name, champion) && !is_other
        })
    }

    fn default_version(&self, name: &ModelName) -> Option<ModelVersion> {
        let catalog = self.shared.catalog.snapshot();
        catalog.model(name.as_str()).and_then(Model::default_version)
    }

    fn is_loaded(&self, name: &ModelName, version: ModelVersion) -> bool {
        let catalog = self.shared.catalog.snapshot();
        catalog.model(name.as_str()).is_some_and(|known| known.versions.contains_key(&version))
    }

    /// A version's files: those kept here, and what is missing from the registry. Where the
    /// digests are known and all is here, the registry is not asked.
    async fn package(
        &self,
        name: &ModelName,
        version: ModelVersion,
        known: Option<&BTreeMap<String, Digest>>,
    ) -> Result<Package, RegistryError> {
        if let Some(digests) = known
            && let Some(files) = self.cached(digests)
        {
            return Ok((files, digests.clone()));
        }
        let mut files = BTreeMap::new();
        let mut digests = BTreeMap::new();
        for entry in self.client.version(name, version).await?.files {
            let bytes = match self.cache.get(entry.digest) {
                Some(bytes) => bytes,
                None => {
                    let bytes = self.client.fetch_blob(entry.digest).await?;
                    self.cache.put(entry.digest, &bytes);
                    bytes
                }
            };
            digests.insert(entry.path.clone(), entry.digest);
            files.insert(entry.path, bytes);
        }
        Ok((files, digests))
    }

    fn cached(&self, digests: &BTreeMap<String, Digest>) -> Option<BTreeMap<String, Bytes>> {
        digests
            .iter()
            .map(|(path, digest)| Some((path.clone(), self.cache.get(*digest)?)))
            .collect()
    }

    /// Loads a version on a thread of its own. False when it was refused.
    async fn try_version(
        &mut self,
        name: &ModelName,
        version: ModelVersion,
        files: BTreeMap<String, Bytes>,
    ) -> bool {
        self.note_tried(name, version);
        let (shared, path) = (self.shared.clone(), self.settings_path(name));
        let model = name.clone();
        let loading = tokio::task::spawn_blocking(move || {
            install(&shared, &model, version, || {
                let settings = path.map_or_else(|| Ok(DeploymentSettings::default()), read)?;
                let (config, beside) = (None, BTreeMap::new());
                Ok(Candidate { model: model.clone(), version, files, settings, config, beside })
            })
        });
        loading.await.unwrap_or_else(|error| {
            tracing::error!(model = %name, %version, %error, "loading a model version failed");
            false
        })
    }

    /// Notes that a version cannot be fetched. It stays untried, and is told of once.
    fn miss(&mut self, name: &ModelName, version: ModelVersion, error: &RegistryError) {
        self.lacks_files = true;
        self.tried.remove(&(name.clone(), version));
        self.tell(name, version, &format!("cannot be fetched: {error}"));
    }

    /// Notes why a version is not served, once as long as the reason lasts.
    fn tell(&self, name: &ModelName, version: ModelVersion, reason: &str) {
        let catalog = self.shared.catalog.snapshot();
        let known = catalog.model(name.as_str());
        let noted = known.and_then(|known| known.refused.get(&version));
        if noted.map(String::as_str) != Some(reason) {
            refuse(&self.shared, name, version, reason);
        }
    }

    /// `deployments/<model>.toml` of the state folder, if there is a state folder.
    fn settings_path(&self, name: &ModelName) -> Option<PathBuf> {
        let state = self.shared.state.as_ref()?;
        Some(state.join("deployments").join(format!("{name}.toml")))
    }

    /// The settings file as it is now, compared with that under which a version was tried.
    fn settings_file(&self, name: &ModelName, tried: Option<&Fingerprint>) -> Fingerprint {
        match self.settings_path(name) {
            Some(path) => Fingerprint::of_file(path, tried),
            None => Fingerprint::new(Vec::new(), tried),
        }
    }

    /// Notes that a version is tried under the settings of now, which are read after this: a
    /// change in between is seen the next time.
    fn note_tried(&mut self, name: &ModelName, version: ModelVersion) {
        let file = self.settings_file(name, None);
        file.note_contents();
        self.tried.insert((name.clone(), version), file);
    }

    fn saved(&self) -> Option<Saved> {
        Saved::load(self.shared.state.as_deref()?).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the saved state");
            None
        })
    }

    fn save(&self) {
        let Some(state) = &self.shared.state else { return };
        if let Err(error) = self.serving.store(state) {
            tracing::warn!(%error, "cannot save what is served; a restart will need the registry");
            return;
        }
        let models = self.serving.models.values();
        let digests = models.flat_map(|model| model.versions.values().flat_map(BTreeMap::values));
        self.cache.prune(&digests.copied().collect());
    }
}

impl Wanted {
    /// What aliases name.
    fn named(model: &SnapshotModel) -> Self {
        let versions = model.aliases.values().copied().collect();
        let champion = model.aliases.get(CHAMPION).copied();
        Self { named: true, versions, champion, labels: model.aliases.clone() }
    }

    /// Whether the registry names this version.
    fn names(&self, version: ModelVersion) -> bool {
        self.named && self.versions.contains(&version)
    }

    /// What was served.
    fn saved(model: &SavedModel) -> Self {
        let versions = model.versions.keys().copied().collect();
        Self { named: false, versions, champion: model.default, labels: model.labels.clone() }
    }
}

/// The settings at `path`, which is not called as the error has it.
fn read(path: PathBuf) -> Result<DeploymentSettings, LoadError> {
    let settings = settings_file::read(&path).map_err(|error| match error {
        LoadError::Settings(reason) => LoadError::Package(format!("{}: {reason}", path.display())),
        error => error,
    })?;
    if !settings.labels.is_empty() {
        let path = path.display();
        let reason = "labels of a registered model are its aliases; move those";
        return Err(LoadError::Package(format!("{path}: {reason}")));
    }
    Ok(settings)
}
