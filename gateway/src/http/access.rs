//! Which API a route belongs to, and whether a request may ask for it. The route is what was found
//! in the path, so that no way of writing a path gets around this.

use http::{HeaderMap, Method, Response};
use serde_json::json;

use super::route::Route;
use super::{Body, reply, v1};
use crate::access::{Api, ApiGroup, Demand, Protocol, origin};
use crate::error::GatewayError;
use crate::shared::Shared;
use crate::tls::Tls;

/// Whether whoever sent a request of this method and `headers` may ask for `route`.
pub(super) fn check(
    shared: &Shared,
    route: &Route<'_>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), GatewayError> {
    let live = shared.live();
    let api = api(route);
    live.access.check(api, headers, Protocol::Http)?;
    if live.access.leaves_open(api) {
        let asks_clients = live.tls.as_ref().is_some_and(Tls::asks_clients);
        let of_this_machine = shared.http.on_loopback && !asks_clients;
        origin::check(method, headers, of_this_machine).map_err(GatewayError::PermissionDenied)?;
    }
    Ok(())
}

/// What a model's readiness is answered with. Everybody may ask for it, and is told no more than
/// that; which versions there are and why one is refused is for those who may use models.
pub(super) fn readiness(
    shared: &Shared,
    headers: &HeaderMap,
    model: &str,
    answered: Result<Response<Body>, GatewayError>,
) -> Result<Response<Body>, GatewayError> {
    if shared.live().access.check_use(headers).is_ok() {
        return answered;
    }
    let status = match &answered {
        Ok(response) => response.status().as_u16(),
        Err(error) => reply::status(error),
    };
    match status {
        200 | 503 => Ok(reply::json(status, &json!({"name": model, "ready": status == 200}))),
        _ => {
            let known = "what there is of this model is told to callers with a token";
            Err(GatewayError::NotFound(format!("Request for unknown model; {known}")))
        }
    }
}

/// Every route belongs to one group; a new one must be given its own here.
const fn api(route: &Route<'_>) -> Api {
    let (group, demand) = match route {
        Route::Alive | Route::Live | Route::Ready | Route::ModelReady { .. } => {
            (ApiGroup::Health, Demand::Nothing)
        }
        Route::Server | Route::Models | Route::Metadata { .. } | Route::OpenApi => {
            (ApiGroup::Metadata, Demand::Use)
        }
        Route::RegionStatus { .. }
        | Route::RegionRegister { .. }
        | Route::RegionUnregister { .. } => (ApiGroup::SharedMemory, Demand::Control),
        Route::LogSettings | Route::LogUpdate => (ApiGroup::Logging, Demand::Control),
        Route::TraceSettings { .. } | Route::TraceUpdate { .. } => {
            (ApiGroup::Trace, Demand::Control)
        }
        Route::V1(v1::Route::Status(_)) => (ApiGroup::Health, Demand::Nothing),
        Route::V1(v1::Route::Models | v1::Route::Metadata(_)) => (ApiGroup::Metadata, Demand::Use),
        Route::V1(v1::Route::Call(..)) => (ApiGroup::Inference, Demand::Use),
        Route::Generate { .. } => (ApiGroup::Inference, Demand::Use),
        Route::Metrics => (ApiGroup::Statistics, Demand::Use),
        Route::Config { .. } => (ApiGroup::ModelConfig, Demand::Use),
        Route::Statistics { .. } => (ApiGroup::Statistics, Demand::Use),
        Route::RepositoryIndex => (ApiGroup::ModelRepository, Demand::Use),
        Route::RepositoryLoad { .. } | Route::RepositoryUnload { .. } | Route::NamedRepository => {
            (ApiGroup::ModelRepository, Demand::Control)
        }
        Route::Infer { .. } => (ApiGroup::Inference, Demand::Use),
    };
    Api::new(group, demand)
}
