//! The administration: metrics, what is loaded, feature writes, drain. On loopback unless told
//! otherwise, since whoever reaches it may change what is served.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::HEALTH_PATHS;
use crate::catalog::VersionState;
use crate::error::{GatewayError, clip};
use crate::http::challenge;
use crate::metrics::Exposition;
use crate::server::{IDLE_TIMEOUT, pause_after};
use crate::shared::Shared;
use crate::tls::{Arrival, Handshakes, Port};

mod features;

/// The largest batch of feature rows in bytes.
const MAX_ROWS: usize = 1 << 30;
/// Connections that a port for operators holds at most.
const MOST_CONNECTIONS: usize = 1000;

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/models", get(models))
        .route("/drain", post(drain))
        .route("/features/rows", post(features::write).layer(DefaultBodyLimit::max(MAX_ROWS)))
        .route("/features/{service}", get(features::read))
        .route("/openapi.json", any(operate))
        .route("/v2", any(operate))
        .route("/v2/{*rest}", any(operate).layer(DefaultBodyLimit::max(shared.limits().max_body)))
        .with_state(shared.clone())
        .merge(metrics_router(shared))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "Not Found") })
}

/// `/metrics` and health alone.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    let [live_path, ready_path] = HEALTH_PATHS;
    Router::new()
        .route("/metrics", get(metrics))
        .route(live_path, get(live))
        .route(ready_path, get(ready))
        .with_state(shared)
}

/// For probes that have no certificate, where the serving ports want one.
async fn live() -> axum::Json<Value> {
    axum::Json(json!({"live": true}))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let ready = shared.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({"ready": ready, "live": true}))).into_response()
}

/// Serves `router` on `port` until `stop` says so and the calls under way are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    port: Port,
    mut stop: watch::Receiver<bool>,
) {
    let mut stopped = pin!(async move { stop.wait_for(|&stop| stop).await.is_ok() });
    let graceful = GracefulShutdown::new();
    // With this future, its connections end too.
    let mut connections = JoinSet::new();
    let mut handshakes = Handshakes::default();
    loop {
        let room = connections.len() < MOST_CONNECTIONS;
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    let arrival = handshakes.admit(stream, &shared, port);
                    let (router, shared) = (router.clone(), shared.clone());
                    let watcher = graceful.watcher();
                    connections.spawn(serve_connection(arrival, router, shared, watcher));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, handshakes));
    graceful.shutdown().await;
}

async fn serve_connection(arrival: Arrival, router: Router, shared: Arc<Shared>, watcher: Watcher) {
    let Some(stream) = arrival.secure(&shared).await else { return };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection to the administration broke off");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let exposition = Exposition::accepted(&headers);
    let form = [(header::CONTENT_TYPE, exposition.content_type())];
    (form, shared.render_metrics(exposition)).into_response()
}

/// What is loaded, what answers, and what was refused and why.
async fn models(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    let catalog = shared.catalog.snapshot();
    let models = catalog.models().into_iter().map(|(name, model)| {
        let versions = model.versions.iter().map(|(version, deployment)| {
            let running = &deployment.running;
            json!({
                "version": version,
                "state": "ready",
                "executor": deployment.executor.name(),
                "instances": running.instances,
                "max_rows": running.max_rows,
                "apart": running.apart,
            })
        });
        let refused = model.refused.iter().map(
            |(version, reason)| json!({"version": version, "state": "refused", "reason": reason}),
        );
        let others = model.states().into_iter().filter_map(|(version, state)| match state {
            VersionState::Loading => Some(json!({"version": version, "state": "loading"})),
            VersionState::Unloaded => Some(json!({"version": version, "state": "unloaded"})),
            VersionState::Ready { .. } | VersionState::Refused(_) => None,
        });
        let versions: Vec<Value> = versions.chain(refused).chain(others).collect();
        json!({"name": name, "default": model.default_version(), "versions": versions})
    });
    axum::Json(json!({"ready": shared.is_ready(), "models": models.collect::<Vec<_>>()}))
}

/// What the protocol has for operators: the same answers as on the serving ports.
async fn operate(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let limit = shared.limits().max_body;
    let body = body.map_err(|rejected| match rejected.status() {
        StatusCode::PAYLOAD_TOO_LARGE => GatewayError::TooLarge { limit },
        _ => GatewayError::Invalid(format!("request body broke off: {}", rejected.body_text())),
    });
    let answer = crate::http::handle_operator(&shared, &method, uri.path(), body).await;
    answer.map(Body::new)
}

/// Says "not ready" from now on, so that balancers send requests elsewhere; the ones that
/// come are still answered. SIGTERM then ends the process.
async fn drain(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.set_draining();
    StatusCode::NO_CONTENT
}

/// The answer to a method that a path does not have; those that it has are put into a header.
pub(crate) async fn not_allowed(method: Method, uri: Uri) -> Response {
    let path = clip(uri.path());
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("method {method} is not allowed for {path}"))
}

/// What is told to somebody who may not ask.
pub(crate) fn refusal(refused: &GatewayError) -> Response {
    let status = StatusCode::from_u16(refused.code().http_status());
    let mut response =
        error(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &refused.message());
    if let GatewayError::Unauthenticated { unknown } = refused {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge(*unknown));
    }
    response
}

/// An error as every other port writes it.
fn error(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({"error": text}))).into_response()
}
