//! The administration: metrics, what is loaded, feature writes, drain. On loopback unless told
//! otherwise, since whoever reaches it may change what is served.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::access::HEALTH_PATHS;
use crate::catalog::VersionState;
use crate::error::{GatewayError, clip};
use crate::metrics::Exposition;
use crate::server::{Guarded, IDLE_TIMEOUT, MAX_HEAD, pause_after};
use crate::shared::Shared;
use crate::tls::{Arrival, Handshakes, Port};

mod features;

/// Connections that a port for operators holds at most. Past that, one that asks for nothing makes
/// room: whoever connects and stays silent keeps no probe and no scraper out.
const MOST_CONNECTIONS: usize = 1000;

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/models", get(models))
        .route("/drain", post(drain))
        .route("/features/rows", post(features::write))
        .route("/features/{service}", get(features::read))
        .route("/openapi.json", any(operate))
        .route("/v2", any(operate))
        .route("/v2/{*rest}", any(operate))
        .with_state(shared.clone())
        .merge(for_scrapers(shared))
        .fallback(not_found)
}

/// `/metrics` and health alone.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    let routes = for_scrapers(shared).fallback(not_found);
    routes.method_not_allowed_fallback(not_allowed)
}

fn for_scrapers(shared: Arc<Shared>) -> Router {
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
    let mut connections = Connections::default();
    let mut handshakes = Handshakes::default();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept(), if connections.make_room() => match accepted {
                Ok((stream, _)) => {
                    let arrival = handshakes.admit(stream, &shared, port);
                    let (router, shared) = (router.clone(), shared.clone());
                    let watcher = graceful.watcher();
                    connections.spawn(|asks| serve_connection(arrival, router, shared, watcher, asks));
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.tasks.join_next() => {}
        }
    }
    drop((listener, handshakes));
    graceful.shutdown().await;
}

/// The connections of a port. With this, they end too.
#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Oldest first.
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    task: AbortHandle,
    /// Whether a request of it is being answered.
    asks: Arc<AtomicBool>,
}

impl Connections {
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        serve: impl FnOnce(Arc<AtomicBool>) -> F,
    ) {
        let asks = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(serve(asks.clone()));
        self.open.push_back(Open { task, asks });
    }

    /// Whether one more may be taken. Where there is no room, the oldest that asks for nothing is
    /// given up, if there is one.
    fn make_room(&mut self) -> bool {
        if self.open.len() >= MOST_CONNECTIONS {
            self.open.retain(|open| !open.task.is_finished());
        }
        if self.open.len() < MOST_CONNECTIONS {
            return true;
        }
        let silent = self.open.iter().position(|open| !open.asks.load(Ordering::Relaxed));
        let silent = silent.and_then(|index| self.open.remove(index));
        if let Some(Open { task, .. }) = &silent {
            task.abort();
        }
        silent.is_some()
    }
}

async fn serve_connection(
    arrival: Arrival,
    router: Router,
    shared: Arc<Shared>,
    watcher: Watcher,
    asks: Arc<AtomicBool>,
) {
    let Some(stream) = arrival.secure(&shared).await else { return };
    let stream = Guarded::new(stream, shared.limits().request_timeout);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        asks.store(true, Ordering::Relaxed);
        let (answering, asks) = (router.call(request), asks.clone());
        async move {
            let answer = answering.await;
            asks.store(false, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
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
async fn operate(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    crate::http::handle_operator(&shared, &head, body).await.map(Body::new)
}

/// Says "not ready" from now on, so that balancers send requests elsewhere; the ones that
/// come are still answered. SIGTERM then ends the process.
async fn drain(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.set_draining();
    StatusCode::NO_CONTENT
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "Not Found")
}

/// The answer to a method that a path does not have; those that it has are put into a header.
pub(crate) async fn not_allowed(method: Method, uri: Uri) -> Response {
    let path = clip(uri.path());
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("method {method} is not allowed for {path}"))
}

/// What is told where a request is not answered, as the serving ports tell it.
pub(crate) fn refusal(refused: &GatewayError) -> Response {
    crate::http::refusal(refused).map(Body::new)
}

/// An error as every other port writes it.
fn error(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(json!({"error": text}))).into_response()
}
