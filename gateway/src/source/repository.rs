//! A model-repository folder in Triton's layout: `<model>/<version>/model.onnx`, with an
//! optional `<model>/deployment.toml`. The highest version answers when none is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_protocol::{ModelName, ModelVersion};

use super::settings_file::{self, Stamp, unreadable};
use super::{install, refuse};
use crate::error::LoadError;
use crate::load::Candidate;
use crate::shared::Shared;

const DEPLOYMENT_FILE: &str = "deployment.toml";

/// A folder that is looked through now and again.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
    /// What each version's files were when they were last tried.
    seen: BTreeMap<ModelName, Versions>,
    /// What could not be read the last time.
    faults: Faults,
}

/// One model's versions by what their files look like from outside.
type Versions = BTreeMap<ModelVersion, Fingerprint>;

/// Every file that decides how a version is served, and what it looks like from outside.
type Fingerprint = Vec<(PathBuf, Stamp)>;

/// Files and folders that cannot be read, and why.
type Faults = BTreeMap<PathBuf, String>;

impl Repository {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root, seen: BTreeMap::new(), faults: BTreeMap::new() }
    }

    /// Loads what is new or changed, and takes out what is gone. Blocks while it loads; between
    /// versions it ends when `stopped` says so.
    pub(crate) fn sync(&mut self, shared: &Shared, stopped: impl Fn() -> bool) {
        let found = match self.scan() {
            Ok(found) => found,
            // A folder that cannot be read for a moment is no reason to stop serving.
            Err(error) => {
                tracing::warn!(folder = %self.root.display(), %error, "cannot read model repository");
                return;
            }
        };
        for (model, versions) in &found {
            self.sync_model(shared, model, versions, &stopped);
            if stopped() {
                return;
            }
        }
        for model in self.seen.keys().filter(|model| !found.contains_key(*model)) {
            tracing::info!(%model, "model is gone from the repository");
            shared.catalog.remove(model);
            shared.metrics.set_default_version(model, None);
        }
        self.seen = found;
    }

    fn sync_model(
        &self,
        shared: &Shared,
        model: &ModelName,
        versions: &Versions,
        stopped: impl Fn() -> bool,
    ) {
        let before = self.seen.get(model);
        for (&version, fingerprint) in versions {
            if stopped() {
                return;
            }
            if before.and_then(|seen| seen.get(&version)) != Some(fingerprint) {
                self.load_version(shared, model, version);
            }
        }
        // Settings that cannot be read leave the labels as they were.
        let settings = self.root.join(model.as_str()).join(DEPLOYMENT_FILE);
        let labels = settings_file::read(&settings).ok().map(|settings| settings.labels);
        shared.catalog.update(model, |known| {
            if let Some(labels) = &labels {
                known.labels.clone_from(labels);
            }
            known.versions.retain(|version, _| versions.contains_key(version));
            known.refused.retain(|version, _| versions.contains_key(version));
            known.set_default_version(known.versions.keys().next_back().copied());
        });
        let default =
            shared.catalog.snapshot().model(model.as_str()).and_then(|m| m.default_version());
        shared.metrics.set_default_version(model, default);
    }

    /// Every version of every model. A folder that cannot be read stays as it was seen, and is
    /// told of once: only when the root itself fails, there is nothing to go by.
    fn scan(&mut self) -> std::io::Result<BTreeMap<ModelName, Versions>> {
        let mut faults = Faults::new();
        let mut models = BTreeMap::new();
        for entry in std::fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let Some(model) = name_of::<ModelName>(&folder).filter(|_| !folder.is_file()) else {
                continue;
            };
            let seen = self.seen.get(&model);
            let versions = match scan_model(&folder, seen, &mut faults) {
                Ok(versions) => versions,
                Err(_) if is_gone(&folder) => continue,
                Err(error) => {
                    faults.insert(folder, error.to_string());
                    seen.cloned().unwrap_or_default()
                }
            };
            if !versions.is_empty() {
                models.insert(model, versions);
            }
        }
        for (path, error) in faults.iter().filter(|(path, _)| !self.faults.contains_key(*path)) {
            let path = path.display();
            tracing::warn!(%path, error, "cannot read a part of the model repository");
        }
        self.faults = faults;
        Ok(models)
    }

    fn load_version(&self, shared: &Shared, model: &ModelName, version: ModelVersion) {
        let folder = self.root.join(model.as_str());
        let read = settings_file::read(&folder.join(DEPLOYMENT_FILE))
            .and_then(|settings| Ok((settings, read_files(&folder.join(version.to_string()))?)));
        match read {
            Ok((settings, files)) => {
                let candidate =
                    Candidate { model: model.clone(), version, files, settings, config: None };
                drop(install(shared, &candidate));
            }
            Err(error) => refuse(shared, model, version, &error.to_string()),
        }
    }
}

/// Every version in a model's folder. One that cannot be read stays as it was `seen`; if it
/// never was, loading it will say why it is refused.
fn scan_model(
    folder: &Path,
    seen: Option<&Versions>,
    faults: &mut Faults,
) -> std::io::Result<Versions> {
    let settings = fingerprint_file(folder.join(DEPLOYMENT_FILE));
    let mut versions = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(version) = name_of::<ModelVersion>(&path) else { continue };
        let fingerprint = match files_below(&path) {
            Ok(files) => {
                let files = files.into_iter().map(fingerprint_file);
                std::iter::once(settings.clone()).chain(files).collect()
            }
            Err(_) if is_gone(&path) => continue,
            Err(error) => {
                faults.insert(path, error.to_string());
                let seen = seen.and_then(|seen| seen.get(&version)).cloned();
                seen.unwrap_or_else(|| vec![settings.clone()])
            }
        };
        versions.insert(version, fingerprint);
    }
    Ok(versions)
}

/// What a file or folder is called, if its name is a `T`.
fn name_of<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Whether nothing has this name any more, not even a link that leads nowhere.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn fingerprint_file(path: PathBuf) -> (PathBuf, Stamp) {
    let stamp = settings_file::stamp(&path);
    (path, stamp)
}

/// All files below `folder`, sorted, without hidden ones.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A version's files by their path inside it, joined by `/`.
pub(super) fn read_files(folder: &Path) -> Result<BTreeMap<String, Bytes>, LoadError> {
    let mut files = BTreeMap::new();
    for path in files_below(folder).map_err(|error| unreadable(folder, &error))? {
        let inside = path.strip_prefix(folder).unwrap_or(&path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        files.insert(parts.join("/"), bytes.into());
    }
    Ok(files)
}
