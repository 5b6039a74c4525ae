//! Parameters that ask for what this server does not do. Ignoring one would give an answer to
//! another question than the one that was asked.

use crate::error::GatewayError;

/// What they are called, on requests, inputs and outputs. (`headers` is a name that Triton keeps
/// for itself.)
const UNSERVED: [&str; 6] = [
    "classification",
    "headers",
    "shared_memory_region",
    "sequence_id",
    "sequence_start",
    "sequence_end",
];
/// What a server's own parameters begin with.
const RESERVED: &str = "triton_";

/// Refuses the first of `names` that asks for what is not done here.
pub(crate) fn check<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), GatewayError> {
    for name in names {
        if UNSERVED.contains(&name.as_str()) || name.starts_with(RESERVED) {
            let name: String = name.chars().take(100).collect();
            return Err(GatewayError::Invalid(format!(
                "parameter {name:?} asks for what this server does not do"
            )));
        }
    }
    Ok(())
}
