//! What a model's configuration (Triton's `config.pbtxt`, or what came with a load) means here:
//! which keys are honoured, how it is checked against the graph and completed from it.
//! `docs/model-configuration.md` has every key. Reading its text is `sluice_protocol`'s, finding
//! the file a source's.

mod complete;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod reshape;
mod scheduling;
mod signature;
mod warmup;

use sluice_protocol::ModelName;
use sluice_protocol::grpc::ModelConfig;

pub(crate) use complete::complete;
pub(crate) use files::{Labels, attach_labels, named_paths};
pub(crate) use keys::check_name;
pub(crate) use reshape::{Reshape, fits};
pub(crate) use scheduling::Scheduling;
pub(crate) use signature::{Batching, Signature};
pub(crate) use warmup::warm_up;

use crate::error::LoadError;

/// The name under which metadata lists graphs of this kind, as Triton spells it.
pub(crate) const PLATFORM: &str = "onnxruntime_onnx";
/// What Triton calls that which runs them.
const BACKEND: &str = "onnxruntime";

/// Refuses what cannot be served, and says in one warning what has no effect.
pub(crate) fn accept(config: &ModelConfig, model: &ModelName) -> Result<(), LoadError> {
    keys::check(config, model)?;
    let ignored = keys::ignored(config);
    if !ignored.is_empty() {
        let keys = ignored.join(", ");
        tracing::warn!(%model, keys, "keys of the model's configuration have no effect here");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
