//! HTTP: V1 and V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod access;
mod base64;
mod body;
mod cloud_events;
mod coding;
mod elements;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod logging;
mod openapi;
mod reply;
mod repository;
mod route;
mod rows;
mod shared_memory;
mod statistics;
mod trace;
mod traced;
mod v1;
mod v2;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use crate::control::exposure::Port;
use crate::control::extensions::extensions;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::pipeline;
use crate::room::Room;
use crate::settings::CloudEvents;
use crate::shared::Shared;
use crate::trace::Trace;
pub(crate) use reply::{Body, challenge};
use route::Route;

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
    let (head, mut incoming) = request.into_parts();
    let path = route::below(&shared.http.base_path, head.uri.path());
    let arrival = shared.tracer.arrival();
    let answered = match receive(&shared, &head, path, &mut incoming).await {
        Ok((route, body)) => {
            let mut trace = traced::begin(&shared, arrival, &head, &route);
            let headers = &head.headers;
            let answered = dispatch(&shared, Port::Serving, route, headers, body, &mut trace).await;
            trace.end(|| traced::end(&answered));
            answered
        }
        // The pipeline counts what gets as far as that.
        Err(error) => {
            shared.metrics.count_unrouted(error.code());
            Err(error)
        }
    };
    let mut response = answered.unwrap_or_else(|error| reply::error(&error));
    // Hyper would close the connection and not say so.
    if !response.headers().contains_key(CONNECTION) && !body::skip(&head.headers, incoming).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers one request on the administration port, for what both ports know.
pub(crate) async fn handle_operator(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    body: Result<Bytes, GatewayError>,
) -> Response<Body> {
    let answering = async {
        let route = Route::parse(method, path)?;
        if !route.is_on(Port::Admin) {
            return Err(GatewayError::NoRoute(path.chars().take(200).collect()));
        }
        let (headers, mut trace) = (HeaderMap::new(), Trace::none());
        dispatch(shared, Port::Admin, route, &headers, body?, &mut trace).await
    };
    answering.await.unwrap_or_else(|error| reply::error(&error))
}

/// What is asked, and the body where the route has one.
async fn receive<'p>(
    shared: &Shared,
    head: &Parts,
    path: &'p str,
    incoming: &mut Incoming,
) -> Result<(Route<'p>, Bytes), GatewayError> {
    let route = Route::parse(&head.method, path)?;
    access::check(shared, &route, &head.headers)?;
    if let Some(group) = route.group() {
        shared.exposed().check(group, Port::Serving)?;
    }
    let body = match route {
        Route::Metrics if !shared.http.serve_metrics => {
            let reason = "/metrics; it is on the admin port, and here with --serve-metrics";
            return Err(GatewayError::NoRoute(reason.to_owned()));
        }
        Route::Infer { .. }
        | Route::RepositoryIndex
        | Route::RepositoryLoad { .. }
        | Route::RepositoryUnload { .. }
        | Route::RegionRegister { .. }
        | Route::RegionUnregister { .. }
        | Route::LogUpdate
        | Route::TraceUpdate { .. } => body::read(&head.headers, incoming, shared.limits()).await?,
        Route::V1(ref route) if route.has_body() => {
            body::read(&head.headers, incoming, shared.limits()).await?
        }
        Route::Generate { .. } => {
            generate::check_encoding(&head.headers)?;
            body::read(&head.headers, incoming, shared.limits()).await?
        }
        _ => Bytes::new(),
    };
    Ok((route, body))
}

async fn dispatch(
    shared: &Arc<Shared>,
    port: Port,
    route: Route<'_>,
    headers: &HeaderMap,
    body: Bytes,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    match route {
        Route::Infer { model, version } => {
            let (nan, mut form) = (shared.dialect().nan, v2::ReplyForm::default());
            let decode = |deployment: &Deployment| {
                let body = v2::Split::new(headers, &body)?;
                let room = Room::new(shared.limits().max_body);
                let (request, wanted) = v2::decode(deployment, &shared.regions, body, nan, &room)?;
                form = wanted;
                Ok(request)
            };
            let response =
                pipeline::infer(shared, &model, version.as_deref(), trace, decode).await?;
            let reply = v2::encode(&response, &form, shared.dialect().nan)?;
            Ok(compressed(shared, headers, reply).await)
        }
        Route::Alive => Ok(reply::json(200, &json!({"status": "alive"}))),
        Route::Live => Ok(reply::json(200, &json!({"live": true}))),
        Route::Ready => Ok(ready(shared)),
        Route::Server => Ok(reply::json(200, &v2::server_metadata(&extensions(shared, port)))),
        Route::Models => {
            let catalog = shared.catalog.snapshot();
            let models = catalog.models().into_iter();
            let names: Vec<_> =
                models.filter(|(_, model)| !model.is_unloaded()).map(|(name, _)| name).collect();
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
            let (status, body) = v2::model_ready(&catalog, &model, version.as_deref())?;
            Ok(reply::json(status, &body))
        }
        Route::Config { model, version } => {
            let catalog = shared.catalog.snapshot();
            let deployment = catalog.resolve(&model, version.as_deref())?;
            Ok(reply::json(200, &deployment.config.to_json()))
        }
        Route::RepositoryIndex => repository::index(shared, &body).await,
        Route::RepositoryLoad { model } => repository::load(shared, &model, body).await,
        Route::RepositoryUnload { model } => repository::unload(shared, &model, &body).await,
        Route::NamedRepository => Err(repository::named()),
        Route::RegionStatus { memory, region } => Ok(reply::json(
            200,
            &shared_memory::status(&shared.regions, memory, region.as_deref())?,
        )),
        Route::RegionRegister { memory, region } => {
            shared_memory::register(&shared.regions, memory, &region, &body)?;
            Ok(reply::json(200, &json!({})))
        }
        Route::RegionUnregister { memory, region } => {
            shared_memory::unregister(&shared.regions, memory, region.as_deref());
            Ok(reply::json(200, &json!({})))
        }
        Route::LogSettings => Ok(reply::json(200, &logging::read())),
        Route::LogUpdate => Ok(reply::json(200, &logging::write(&body)?)),
        Route::TraceSettings { model } => {
            Ok(reply::json(200, &trace::read(shared, model.as_deref())?))
        }
        Route::TraceUpdate { model } => {
            Ok(reply::json(200, &trace::write(shared, model.as_deref(), &body)?))
        }
        Route::V1(route) => v1::handle(shared, route, headers, &body, trace).await,
        Route::Generate { model, version, stream } => {
            generate::handle(shared, &model, version.as_deref(), &body, stream, trace).await
        }
        Route::Metrics => Ok(metrics(shared.clone()).await),
        Route::OpenApi => Ok(openapi::document()),
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
