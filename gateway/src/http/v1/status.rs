//! A model's status: KServe's keys and TensorFlow Serving's in one object.

use http::Response;
use serde_json::{Value, json};
use sluice_protocol::ModelVersion;

use super::super::{Body, reply};
use super::resolve;
use super::route::{Pick, Target};
use crate::catalog::{Catalog, Model, VersionState};
use crate::error::GatewayError;

/// `GET /v1/models/{model}`, of all its versions or of the one that is named. 503 when what is
/// asked about cannot answer.
pub(super) fn answer(
    catalog: &Catalog,
    target: &Target<'_>,
) -> Result<Response<Body>, GatewayError> {
    let resolved = resolve(catalog, target);
    let versions = match (catalog.model(&target.model), &target.pick) {
        (None, _) => Vec::new(),
        (Some(model), Pick::Default) => all(model),
        (Some(model), Pick::Version(version)) => one(model, version).into_iter().collect(),
        (Some(_), Pick::Label(_)) => Vec::new(),
    };
    let name = &*target.model;
    match resolved {
        Ok(deployment) => {
            let versions = match target.pick {
                Pick::Default => versions,
                Pick::Version(_) | Pick::Label(_) => {
                    vec![status(deployment.version, &VersionState::Ready { refused: None })]
                }
            };
            let body = json!({"name": name, "ready": true, "model_version_status": versions});
            Ok(reply::json(200, &body))
        }
        Err(error) if versions.is_empty() => Err(error),
        Err(error) => Ok(reply::json(
            503,
            &json!({
                "name": name,
                "ready": false,
                "model_version_status": versions,
                "error": error.message(),
            }),
        )),
    }
}

fn all(model: &Model) -> Vec<Value> {
    model.states().into_iter().map(|(version, state)| status(version, &state)).collect()
}

/// The status of one version, if it is known.
fn one(model: &Model, version: &str) -> Option<Value> {
    let version = version.parse::<ModelVersion>().ok()?;
    model.states().get(&version).map(|state| status(version, state))
}

fn status(version: ModelVersion, state: &VersionState<'_>) -> Value {
    let (state, code, message) = match state {
        VersionState::Ready { .. } => ("AVAILABLE", "OK", ""),
        VersionState::Loading => ("LOADING", "OK", ""),
        VersionState::Unloaded => ("END", "OK", "unloaded"),
        VersionState::Refused(reason) => ("END", "FAILED_PRECONDITION", *reason),
    };
    json!({
        "version": version.to_string(),
        "state": state,
        "status": {"error_code": code, "error_message": message},
    })
}
