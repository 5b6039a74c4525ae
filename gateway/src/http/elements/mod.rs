//! Elements of tensors as JSON: parsed into tensor memory, and written out of it.

use crate::deployment::Deployment;
use crate::error::GatewayError;

mod parse;
mod write;

pub(super) use parse::{Bounds, INFINITY, parse, parse_or_base64, take_room, text_length};
pub(super) use write::{has_json_form, no_json_form, size_hint, write};

/// Refuses a model of which an output has no JSON form, before it is run, where an answer has no
/// other form.
pub(super) fn check_outputs(deployment: &Deployment) -> Result<(), GatewayError> {
    match deployment.outputs.iter().find(|output| !has_json_form(output.datatype)) {
        None => Ok(()),
        Some(output) => Err(GatewayError::Invalid(format!(
            "output {:?} of model {}: {} over V2",
            output.name,
            deployment.model,
            no_json_form(output.datatype)
        ))),
    }
}
