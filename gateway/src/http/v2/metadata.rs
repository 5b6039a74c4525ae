//! What the server and its models are, and whether a model can answer.

use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::deployment::{ListedTensor, PLATFORM};
use crate::error::GatewayError;

/// `GET /v2`.
pub(in crate::http) fn server_metadata(extensions: &[&str]) -> Value {
    json!({"name": "sluice", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions})
}

/// `GET /v2/models/{model}`.
pub(in crate::http) fn model_metadata(
    catalog: &Catalog,
    model: &str,
    version: Option<&str>,
) -> Result<Value, GatewayError> {
    let deployment = catalog.resolve(model, version)?;
    let inputs: Vec<_> = deployment.listed_inputs().iter().map(listed).collect();
    let outputs: Vec<_> = deployment
        .outputs
        .iter()
        .map(|spec| json!({"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}))
        .collect();
    Ok(json!({
        "name": deployment.model,
        "versions": crate::catalog::listed_versions(catalog, deployment, version),
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }))
}

fn listed(input: &ListedTensor) -> Value {
    let mut value = json!({"name": input.name, "datatype": input.datatype, "shape": input.shape});
    if input.optional {
        value["optional"] = Value::Bool(true);
    }
    value
}

/// `GET /v2/models/{model}/ready`: the status and the body. A model that is known and cannot
/// answer is not ready; one that is not known is an error.
pub(in crate::http) fn model_ready(
    catalog: &Catalog,
    model: &str,
    version: Option<&str>,
) -> Result<(u16, Value), GatewayError> {
    let error = match catalog.resolve(model, version) {
        Ok(deployment) => return Ok((200, json!({"name": deployment.model, "ready": true}))),
        Err(error) => error,
    };
    let is_known = |known: &crate::catalog::Model| match version {
        None => true,
        Some(text) => text.parse().is_ok_and(|version| known.states().contains_key(&version)),
    };
    match catalog.model(model) {
        Some(known) if is_known(known) => {
            Ok((503, json!({"name": model, "ready": false, "error": error.message()})))
        }
        _ => Err(error),
    }
}
