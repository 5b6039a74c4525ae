//! HTTP: V1 and V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod body;
mod elements;
mod reply;
mod route;
mod rows;
mod statistics;
mod v1;
mod v2;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use crate::error::GatewayError;
use crate::pipeline;
use crate::shared::Shared;
pub(crate) use reply::Body;
use route::Route;
pub(crate) use v2::EXTENSIONS;

/// Answers one request. It never fails: an error is an answer too.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let path = head.uri.path().to_owned();
    let answered = match receive(&shared, &head, &path, incoming).await {
        Ok((route, body)) => dispatch(&shared, route, &head.headers, body).await,
        // The pipeline counts what gets as far as that.
        Err(error) => {
            shared.metrics.count_unrouted(error.code());
            Err(error)
        }
    };
    answered.unwrap_or_else(|error| reply::error(&error))
}

/// What is asked, and the body where the route has one.
async fn receive<'p>(
    shared: &Shared,
    head: &Parts,
    path: &'p str,
    incoming: Incoming,
) -> Result<(Route<'p>, Bytes), GatewayError> {
    let route = Route::parse(&head.method, path)?;
    let body = match route {
        Route::Infer { .. } | Route::Predict { .. } => {
            body::read(&head.headers, incoming, shared.limits).await?
        }
        _ => Bytes::new(),
    };
    Ok((route, body))
}

async fn dispatch(
    shared: &Shared,
    route: Route<'_>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, GatewayError> {
    match route {
        Route::Infer { model, version } => {
            let mut form = v2::ReplyForm::default();
            let response = pipeline::infer(shared, &model, version.as_deref(), |deployment| {
                let header_length = v2::header_length(headers, body.len())?;
                let (request, wanted) = v2::decode(deployment, &body, header_length)?;
                form = wanted;
                Ok(request)
            })
            .await?;
            Ok(v2::encode(&response, &form))
        }
        Route::Predict { model, version } => {
            let mut form = v1::ReplyForm::Columns;
            let response = pipeline::infer(shared, &model, version.as_deref(), |deployment| {
                let (request, wanted) = v1::decode(deployment, &body)?;
                form = wanted;
                Ok(request)
            })
            .await?;
            Ok(v1::encode(&response, form))
        }
        Route::Alive => Ok(reply::json(200, &json!({"status": "alive"}))),
        Route::Live => Ok(reply::json(200, &json!({"live": true}))),
        Route::Ready => Ok(ready(shared)),
        Route::Server => Ok(reply::json(200, &v2::server_metadata())),
        Route::Models => {
            let catalog = shared.catalog.snapshot();
            let names: Vec<_> = catalog.models().into_keys().collect();
            Ok(reply::json(200, &json!({"models": names})))
        }
        Route::Metadata { model, version } => {
            let catalog = shared.catalog.snapshot();
            Ok(reply::json(200, &v2::model_metadata(&catalog, &model, version.as_deref())?))
        }
        Route::Statistics { model, version } => {
            let catalog = shared.catalog.snapshot();
            let (model, version) = (model.as_deref(), version.as_deref());
            Ok(reply::json(200, &statistics::model_statistics(&catalog, model, version)?))
        }
        Route::ModelReady { model, version } => {
            let catalog = shared.catalog.snapshot();
            let deployment = catalog.resolve(&model, version.as_deref())?;
            Ok(reply::json(200, &json!({"name": deployment.model, "ready": true})))
        }
        Route::ModelStatus { model } => {
            let catalog = shared.catalog.snapshot();
            v1::model_status(&catalog, &model)
        }
    }
}

fn ready(shared: &Shared) -> Response<Body> {
    let ready = shared.is_ready();
    reply::json(if ready { 200 } else { 503 }, &json!({"ready": ready, "live": true}))
}
