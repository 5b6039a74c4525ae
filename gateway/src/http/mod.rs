//! HTTP: V1 and V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod base64;
mod body;
mod cloud_events;
mod coding;
mod elements;
mod generate;
mod reply;
mod route;
mod rows;
mod v1;
mod v2;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use crate::error::GatewayError;
use crate::pipeline;
use crate::settings::CloudEvents;
use crate::shared::Shared;
pub(crate) use reply::Body;
use route::Route;
pub(crate) use v2::EXTENSIONS;

/// How HTTP is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpOptions {
    /// A path under which everything is answered as well: empty, or `/` and more.
    pub(crate) base_path: String,
    /// Answers of at least so many bytes are compressed for those who ask for it.
    pub(crate) compress_replies: Option<usize>,
    pub(crate) cloud_events: CloudEvents,
    /// Whether /metrics is answered too.
    pub(crate) serve_metrics: bool,
}

/// Answers one request. It never fails: an error is an answer too.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let path = route::below(&shared.http.base_path, head.uri.path());
    let answered = match receive(&shared, &head, path, incoming).await {
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
        Route::Metrics if !shared.http.serve_metrics => {
            let reason = "/metrics; it is on the admin port, and here with --serve-metrics";
            return Err(GatewayError::NoRoute(reason.to_owned()));
        }
        Route::Infer { .. } => body::read(&head.headers, incoming, shared.limits).await?,
        Route::V1(ref route) if route.has_body() => {
            body::read(&head.headers, incoming, shared.limits).await?
        }
        Route::Generate { .. } => {
            generate::check_encoding(&head.headers)?;
            body::read(&head.headers, incoming, shared.limits).await?
        }
        _ => Bytes::new(),
    };
    Ok((route, body))
}

async fn dispatch(
    shared: &Arc<Shared>,
    route: Route<'_>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, GatewayError> {
    match route {
        Route::Infer { model, version } => {
            let mut form = v2::ReplyForm::default();
            let response = pipeline::infer(shared, &model, version.as_deref(), |deployment| {
                let body = v2::Split::new(headers, &body)?;
                let (request, wanted) = v2::decode(deployment, body, shared.dialect.nan)?;
                form = wanted;
                Ok(request)
            })
            .await?;
            let reply = v2::encode(&response, &form, shared.dialect.nan)?;
            Ok(compressed(shared, headers, reply).await)
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
        Route::ModelReady { model, version } => {
            let catalog = shared.catalog.snapshot();
            let (status, body) = v2::model_ready(&catalog, &model, version.as_deref())?;
            Ok(reply::json(status, &body))
        }
        Route::V1(route) => v1::handle(shared, route, headers, &body).await,
        Route::Generate { model, version, stream } => {
            generate::handle(shared, &model, version.as_deref(), &body, stream).await
        }
        Route::Metrics => Ok(metrics(shared.clone()).await),
    }
}

/// A prediction as its caller wants it, where answers are compressed at all.
async fn compressed(shared: &Shared, headers: &HeaderMap, reply: Response<Body>) -> Response<Body> {
    match shared.http.compress_replies {
        Some(least) => reply::compressed(reply, headers, least).await,
        None => reply,
    }
}

fn ready(shared: &Shared) -> Response<Body> {
    let ready = shared.is_ready();
    reply::json(if ready { 200 } else { 503 }, &json!({"ready": ready, "live": true}))
}

/// Rendered elsewhere, since it takes its time and frees what has ended.
async fn metrics(shared: Arc<Shared>) -> Response<Body> {
    let rendered = tokio::task::spawn_blocking(move || shared.render_metrics()).await;
    let text = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    reply::with_body(200, text, rendered.expect("rendering does not panic").into())
}
