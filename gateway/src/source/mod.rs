//! Where models come from. A source loads what is new, puts it into the catalog by one swap,
//! and takes out what is gone; a version that is refused changes nothing for the others.

mod package_cache;
mod registry;
mod repository;
mod saved;
mod served;
mod settings_file;

use std::sync::Arc;

use sluice_protocol::{ModelName, ModelVersion};

use crate::deployment::Deployment;
use crate::load::{Candidate, load};
use crate::shared::Shared;

pub(crate) use registry::Follower;
pub(crate) use repository::Repository;

/// Loads a candidate. A refusal is logged, counted and kept for whoever asks why.
fn install(shared: &Shared, candidate: &Candidate) -> Option<Arc<Deployment>> {
    let (model, version) = (&candidate.model, candidate.version);
    match load(shared, candidate) {
        Ok(deployment) => {
            let published = deployment.clone();
            shared.catalog.update(model, |known| {
                known.refused.remove(&version);
                known.versions.insert(version, published.clone());
            });
            Some(deployment)
        }
        Err(error) => {
            refuse(shared, model, version, &error.to_string());
            None
        }
    }
}

/// Notes that a version is not served, and why.
fn refuse(shared: &Shared, model: &ModelName, version: ModelVersion, reason: &str) {
    tracing::warn!(%model, %version, reason, "refused model version");
    shared.metrics.count_refused_load(model);
    shared.catalog.update(model, |known| {
        known.refused.insert(version, reason.to_owned());
    });
}
