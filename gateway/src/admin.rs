//! The administration: metrics, what is loaded, feature writes, drain. On loopback unless told
//! otherwise, since whoever reaches it may change what is served.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::CONTENT_TYPE;
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
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.render_metrics()).into_response()
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
        let versions: Vec<Value> = versions.chain(refused).collect();
        json!({"name": name, "default": model.default_version(), "versions": versions})
    });
    axum::Json(json!({"ready": shared.is_ready(), "models": models.collect::<Vec<_>>()}))
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
