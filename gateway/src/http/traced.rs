//! The trace of a prediction over HTTP: how it came and how it ended.

use http::Response;
use http::request::Parts;

use super::route::Route;
use super::{Body, reply};
use crate::error::GatewayError;
use crate::shared::Shared;
use crate::trace::{Arrival, Call, Context, End, Trace};

/// The trace of a request that came at `arrival`, if it is for a prediction and is traced.
pub(super) fn begin(
    shared: &Shared,
    arrival: Option<Arrival>,
    head: &Parts,
    route: &Route<'_>,
) -> Trace {
    // While nothing is traced, nothing more is done for it.
    let Some((arrival, (model, pattern))) = arrival.zip(predicts(route)) else {
        return Trace::none();
    };
    let call = || Call::Http { route: pattern, path: head.uri.path().to_owned() };
    shared.tracer.begin(Some(arrival), model, call, || Context::of(&head.headers))
}

/// How it ended.
pub(super) fn end(answered: &Result<Response<Body>, GatewayError>) -> End {
    match answered {
        Ok(response) => End::Http { status: response.status().as_u16(), error: None },
        Err(error) => {
            let error_and_text = Some((error.code(), error.message()));
            End::Http { status: reply::status(error), error: error_and_text }
        }
    }
}

/// The model that is asked for a prediction, and the form of the path.
fn predicts<'r>(route: &'r Route<'_>) -> Option<(&'r str, &'static str)> {
    match route {
        Route::Infer { model, version: None } => Some((model, "/v2/models/{model}/infer")),
        Route::Infer { model, version: Some(_) } => {
            Some((model, "/v2/models/{model}/versions/{version}/infer"))
        }
        Route::Generate { model, version, stream } => Some((
            model,
            match (version, stream) {
                (None, false) => "/v2/models/{model}/generate",
                (None, true) => "/v2/models/{model}/generate_stream",
                (Some(_), false) => "/v2/models/{model}/versions/{version}/generate",
                (Some(_), true) => "/v2/models/{model}/versions/{version}/generate_stream",
            },
        )),
        Route::V1(route) => route.predicts(),
        _ => None,
    }
}
