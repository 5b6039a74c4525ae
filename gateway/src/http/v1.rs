//! The V1 protocol, in the style of TensorFlow Serving's REST: rows (`instances`) or columns
//! (`inputs`) in, `predictions` or `outputs` back; models' status and signatures.

mod answer;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod metadata;
mod request;
mod route;
mod status;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::{Body, access, compressed, forward, models, reply};
use crate::caller::Caller;
use crate::catalog::Catalog;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::pipeline;
use crate::room::Room;
use crate::shared::Shared;
use crate::trace::Trace;
use route::{Pick, Target};
pub(super) use route::{Route, Verb};

/// Answers a request for a path below `/v1`.
pub(super) async fn handle(
    shared: &Shared,
    route: Route<'_>,
    headers: &HeaderMap,
    body: &Bytes,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    let catalog = || shared.catalog.snapshot();
    match route {
        Route::Models => Ok(models(shared)),
        Route::Status(target) => {
            let answered = status::answer(&catalog(), &target);
            access::readiness(shared, headers, &target.model, answered)
        }
        Route::Metadata(target) => {
            Ok(reply::json(200, &metadata::signature(resolve(&catalog(), &target)?)))
        }
        Route::Call(Verb::Predict, target) => {
            let answered = predict(shared, &target, headers, body, trace).await;
            answered.or_else(unready)
        }
        Route::Call(verb, target) => resolve(&catalog(), &target)
            .and_then(|deployment| refuse(verb, deployment))
            .or_else(unready),
    }
}

/// The deployment that a path means.
fn resolve<'c>(
    catalog: &'c Catalog,
    target: &Target<'_>,
) -> Result<&'c std::sync::Arc<Deployment>, GatewayError> {
    match &target.pick {
        Pick::Default => catalog.resolve(&target.model, None),
        Pick::Version(version) => catalog.resolve(&target.model, Some(version)),
        Pick::Label(label) => catalog.resolve_label(&target.model, label),
    }
}

async fn predict(
    shared: &Shared,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: &Bytes,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    let routed = resolve(&shared.catalog.snapshot(), target).cloned();
    let deployment = routed.inspect_err(|error| shared.metrics.count_unrouted(error.code()))?;
    let caller = Caller::of_headers(shared, headers, body.len())?;
    let (nan, events) = (shared.dialect().nan, &shared.http.cloud_events);
    let mut form = None;
    let response = pipeline::infer_on(shared, &deployment, caller, trace, |deployment| {
        let room = Room::new(shared.limits().max_body);
        let (mut request, wanted) = request::decode(deployment, headers, body, nan, events, &room)?;
        if let Some(request) = &mut request {
            forward(shared, headers, request)?;
        }
        form = Some(wanted);
        Ok(request)
    })
    .await?;
    let form = form.expect("a request that was answered was decoded");
    let reply = answer::encode(&response, &form, shared)?;
    Ok(compressed(shared, headers, reply).await)
}

/// What models here do not do, and what they do instead.
fn refuse(verb: Verb, deployment: &Deployment) -> Result<Response<Body>, GatewayError> {
    let model = &deployment.model;
    let reason = match verb {
        Verb::Explain => format!("model {model} declares no explainer"),
        Verb::Predict | Verb::Classify | Verb::Regress => {
            format!("model {model} takes tensors and no tf.Example")
        }
    };
    let verb = verb.as_str();
    Err(GatewayError::Unsupported(format!("{reason}, so :{verb} is not implemented; use :predict")))
}

/// A model that is known and has nothing to answer with is one that is not ready, as KServe
/// says it; over V2 it is not found, as Triton says it.
fn unready(error: GatewayError) -> Result<Response<Body>, GatewayError> {
    if !matches!(error, GatewayError::UnknownModel { reason: Some(_), .. }) {
        return Err(error);
    }
    let mut response = reply::error(&error);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Ok(response)
}
