//! HTTP: V1 and V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod access;
mod base64;
pub(crate) mod body;
mod brief;
mod cloud_events;
mod coding;
mod elements;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generate;
mod logging;
mod openapi;
mod raw_fields;
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

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sluice_protocol::InferRequest;

use crate::access::Protocol;
use crate::caller::Caller;
use crate::control::exposure::Port;
use crate::control::extensions::extensions;
use crate::deployment::Deployment;
use crate::error::{GatewayError, clip};
use crate::metrics::Exposition;
use crate::pipeline;
use crate::room::Room;
use crate::settings::CloudEvents;
use crate::shared::Shared;
use crate::trace::Trace;
pub(crate) use reply::{Body, error as refusal};
use route::Route;
pub(crate) use route::begins_a_route;

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
    /// Whether only this machine reaches the port.
    pub(crate) on_loopback: bool,
}

/// Answers one request. It never fails: an error is an answer too.
pub(crate) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let mut incoming = body::Tracked::new(incoming);
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
pub(crate) async fn handle_operator<B>(
    shared: &Arc<Shared>,
    head: &Parts,
    incoming: B,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let path = head.uri.path();
    let answering = async {
        let route = Route::parse(&head.method, path)?;
        if !route.is_on(Port::Admin) {
            return Err(GatewayError::NoRoute(clip(path).to_owned()));
        }
        let body = body_of(shared, &route, &head.headers, incoming).await?;
        let (headers, mut trace) = (HeaderMap::new(), Trace::none());
        dispatch(shared, Port::Admin, route, &headers, body, &mut trace).await
    };
    answering.await.unwrap_or_else(|error| reply::error(&error))
}

/// What is asked, and the body where the route has one.
async fn receive<'p>(
    shared: &Shared,
    head: &Parts,
    path: &'p str,
    incoming: &mut body::Tracked,
) -> Result<(Route<'p>, Bytes), GatewayError> {
    let route = Route::parse(&head.method, path)?;
    access::check(shared, &route, &head.method, &head.headers)?;
    if let Some(group) = route.group() {
        shared.exposed().check(group, Port::Serving)?;
    }
    if matches!(route, Route::Metrics) && !shared.http.serve_metrics {
        let reason = "/metrics; it is on the admin port, and here with --serve-metrics";
        return Err(GatewayError::NoRoute(reason.to_owned()));
    }
    let body = body_of(shared, &route, &head.headers, incoming).await?;
    Ok((route, body))
}

/// The body of a request for `route`; empty where the route has none.
async fn body_of<B>(
    shared: &Shared,
    route: &Route<'_>,
    headers: &HeaderMap,
    incoming: B,
) -> Result<Bytes, GatewayError>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    if !has_body(route) {
        return Ok(Bytes::new());
    }
    if matches!(route, Route::Generate { .. }) {
        generate::check_encoding(headers)?;
    }
    body::read(headers, incoming, shared.limits()).await
}

/// Whether the body of a request for `route` is read.
const fn has_body(route: &Route<'_>) -> bool {
    match route {
        Route::Infer { .. }
        | Route::Generate { .. }
        | Route::RepositoryIndex
        | Route::RepositoryLoad { .. }
        | Route::RepositoryUnload { .. }
        | Route::RegionRegister { .. }
        | Route::RegionUnregister { .. }
        | Route::LogUpdate
        | Route::TraceUpdate { .. } => true,
        Route::V1(route) => route.has_body(),
        _ => false,
    }
}

/// Answers what is asked.
async fn dispatch(
    shared: &Arc<Shared>,
    port: Port,
    route: Route<'_>,
    headers: &HeaderMap,
    body: Bytes,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    let catalog = || shared.catalog.snapshot();
    let page = |value: Value| Ok(reply::json(200, &value));
    match route {
        Route::Infer { model, version } => {
            infer(shared, &model, version.as_deref(), headers, &body, trace).await
        }
        Route::Alive => page(json!({"status": "alive"})),
        Route::Live => page(json!({"live": true})),
        Route::Ready => Ok(ready(shared)),
        Route::Server => page(v2::server_metadata(&extensions(shared, port))),
        Route::Models => Ok(models(shared)),
        Route::Metadata { model, version } => {
            page(v2::model_metadata(&catalog(), &model, version.as_deref())?)
        }
        Route::Statistics { model, version } => {
            page(statistics::model_statistics(&catalog(), model.as_deref(), version.as_deref())?)
        }
        Route::ModelReady { model, version } => {
            let answered = v2::model_ready(&catalog(), &model, version.as_deref());
            let answered = answered.map(|(status, body)| reply::json(status, &body));
            access::readiness(shared, headers, &model, answered)
        }
        Route::Config { model, version } => {
            page(catalog().resolve(&model, version.as_deref())?.config.to_json())
        }
        Route::RepositoryIndex => repository::index(shared, &body).await,
        Route::RepositoryLoad { model } => repository::load(shared, &model, body).await,
        Route::RepositoryUnload { model } => repository::unload(shared, &model, &body).await,
        Route::NamedRepository => Err(repository::named()),
        Route::RegionStatus { memory, region } => {
            page(shared_memory::status(&shared.regions, memory, region.as_deref())?)
        }
        Route::RegionRegister { memory, region } => {
            shared_memory::register(&shared.regions, memory, &region, &body)?;
            page(json!({}))
        }
        Route::RegionUnregister { memory, region } => {
            shared_memory::unregister(&shared.regions, memory, region.as_deref());
            page(json!({}))
        }
        Route::LogSettings => page(logging::read()),
        Route::LogUpdate => page(logging::write(&body)?),
        Route::TraceSettings { model } => page(trace::read(shared, model.as_deref())?),
        Route::TraceUpdate { model } => page(trace::write(shared, model.as_deref(), &body)?),
        Route::V1(route) => v1::handle(shared, route, headers, &body, trace).await,
        Route::Generate { model, version, stream } => {
            generate::handle(shared, &model, version.as_deref(), headers, &body, stream, trace)
                .await
        }
        Route::Metrics => Ok(metrics(shared.clone(), Exposition::accepted(headers)).await),
        Route::OpenApi => Ok(openapi::document()),
    }
}

/// Answers a request of V2's for a prediction.
async fn infer(
    shared: &Shared,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    let (nan, mut form) = (shared.dialect().nan, v2::ReplyForm::default());
    let decode = |deployment: &Deployment| {
        let body = v2::Split::new(headers, body)?;
        let room = Room::new(shared.limits().max_body);
        let (mut request, wanted) = v2::decode(deployment, &shared.regions, body, nan, &room)?;
        forward(shared, headers, &mut request)?;
        form = wanted;
        Ok(request)
    };
    let caller = Caller::of_headers(shared, headers, body.len())?;
    let response = pipeline::infer(shared, model, version, caller, trace, decode).await?;
    let reply = v2::encode(&response, &form, shared.dialect().nan)?;
    Ok(compressed(shared, headers, reply).await)
}

/// The names of the models that are there, for V1 and V2.
fn models(shared: &Shared) -> Response<Body> {
    let catalog = shared.catalog.snapshot();
    let models = catalog.models().into_iter();
    let names: Vec<_> =
        models.filter(|(_, model)| !model.is_unloaded()).map(|(name, _)| name).collect();
    reply::json(200, &json!({"models": names}))
}

/// Adds the headers to the request's parameters that the operator wants there.
fn forward(
    shared: &Shared,
    headers: &HeaderMap,
    request: &mut InferRequest,
) -> Result<(), GatewayError> {
    shared.live().forwarded(Protocol::Http, headers).add_to(&mut request.parameters)
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
async fn metrics(shared: Arc<Shared>, exposition: Exposition) -> Response<Body> {
    let rendered = tokio::task::spawn_blocking(move || shared.render_metrics(exposition)).await;
    let form = HeaderValue::from_static(exposition.content_type());
    reply::with_body(200, form, rendered.expect("rendering does not panic").into())
}
