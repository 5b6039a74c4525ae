//! The administration: metrics, what is loaded, feature writes, drain. On loopback unless told
//! otherwise, since whoever reaches it may change what is served.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::catalog::VersionState;
use crate::error::GatewayError;
use crate::shared::Shared;

mod features;

/// The largest batch of feature rows in bytes.
const MAX_ROWS: usize = 1 << 30;

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/models", get(models))
        .route("/drain", post(drain))
        .route("/features/rows", post(features::write).layer(DefaultBodyLimit::max(MAX_ROWS)))
        .route("/features/{service}", get(features::read))
        .route("/v2", any(operate))
        .route("/v2/{*rest}", any(operate).layer(DefaultBodyLimit::max(shared.limits.max_body)))
        .with_state(shared.clone())
        .merge(metrics_router(shared))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "Not Found") })
}

/// `/metrics` alone.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(shared)
}

/// Serves until `stop` says so.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        let _sender_is_gone = stop.wait_for(|&stop| stop).await;
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "administration stopped");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], shared.render_metrics()).into_response()
}

/// What is loaded, what answers, and what was refused and why.
async fn models(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    let catalog = shared.catalog.snapshot();
    let models = catalog.models().into_iter().map(|(name, model)| {
        let versions = model.versions.iter().map(|(version, deployment)| {
            json!({"version": version, "state": "ready", "executor": deployment.executor.name()})
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
    let limit = shared.limits.max_body;
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

/// An error as every other port writes it.
fn error(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({"error": text}))).into_response()
}
