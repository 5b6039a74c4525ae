//! Where models come from. A source loads what is new, puts it into the catalog by one swap,
//! and takes out what is gone; a version that is refused changes nothing for the others.

mod files;
mod fingerprint;
mod folder;
mod given;
mod package_cache;
mod registry;
mod repository;
mod saved;
mod served;
mod settings_file;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_protocol::{ModelName, ModelVersion};

use crate::catalog::Model;
use crate::deployment::Deployment;
use crate::error::LoadError;
use crate::load::{Candidate, load};
use crate::shared::Shared;

pub(crate) use folder::{Faults, ModelFolder};
pub(crate) use given::Given;
pub(crate) use registry::Follower;
pub(crate) use repository::{Repository, model_folders};

/// Reads a version, loads it and lets it answer. False when it was refused.
fn install(
    shared: &Shared,
    model: &ModelName,
    version: ModelVersion,
    read: impl FnOnce() -> Result<Candidate, LoadError> + Send,
) -> bool {
    match prepare(shared, model, version, read) {
        Ok(deployment) => {
            shared.catalog.update(model, |known| {
                known.refused.remove(&version);
                known.loading.remove(&version);
                known.versions.insert(version, deployment.clone());
            });
            true
        }
        Err(error) => {
            refuse(shared, model, version, &error.to_string());
            false
        }
    }
}

/// Reads a version, loads it and leaves it aside. From then on the catalog says that it is being
/// loaded, until somebody takes that back.
fn prepare(
    shared: &Shared,
    model: &ModelName,
    version: ModelVersion,
    read: impl FnOnce() -> Result<Candidate, LoadError> + Send,
) -> Result<Arc<Deployment>, LoadError> {
    shared.catalog.update(model, |known| {
        known.loading.insert(version);
    });
    load(shared, read)
}

/// Notes that a version is not served, and why. It is logged, counted and kept for whoever asks.
fn refuse(shared: &Shared, model: &ModelName, version: ModelVersion, reason: &str) {
    tracing::warn!(%model, %version, reason, "refused model version");
    shared.metrics.count_refused_load(model);
    shared.catalog.update(model, |known| {
        known.loading.remove(&version);
        known.refused.insert(version, reason.to_owned());
    });
}

/// Puts what was prepared into the catalog, forgets the versions that are not wanted, and lets the
/// highest one answer when none is named: all by one swap. Labels stay as they were without `labels`.
fn settle(
    shared: &Shared,
    model: &ModelName,
    prepared: &[Arc<Deployment>],
    labels: Option<&BTreeMap<String, ModelVersion>>,
    wanted: impl Fn(&ModelVersion) -> bool,
) {
    shared.catalog.update(model, |known| {
        for deployment in prepared {
            known.refused.remove(&deployment.version);
            known.versions.insert(deployment.version, deployment.clone());
        }
        if let Some(labels) = labels {
            known.labels.clone_from(labels);
        }
        known.retain(&wanted);
        known.set_default_version(known.versions.keys().next_back().copied());
    });
    let catalog = shared.catalog.snapshot();
    let default = catalog.model(model.as_str()).and_then(Model::default_version);
    shared.metrics.set_default_version(model, default);
}
