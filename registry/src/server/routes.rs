//! The table of all calls, and what holds for every one of them.

use std::panic::resume_unwind;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::{Registry, artifacts, feed, models, tags, versions};
use crate::RegistryError;

/// The MLflow version whose API is spoken.
const MLFLOW_VERSION: &str = "3.18.0";

/// All routes of a registry. Each of MLflow's is there twice, for clients and for its web
/// pages, out of one table.
pub(super) fn routes(registry: Arc<Registry>) -> Router {
    let mlflow = mlflow().merge(mlflow_artifacts());
    let about = Router::new().route("/mlflow/server-info", get(server_info));
    Router::new()
        .nest("/api/2.0", mlflow.clone())
        .nest("/ajax-api/2.0", mlflow)
        .nest("/api/3.0", about.clone())
        .nest("/ajax-api/3.0", about)
        .nest("/api/1.0/sluice", sluice())
        .route("/health", get(async || "OK"))
        .route("/version", get(async || MLFLOW_VERSION))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(from_fn_with_state(Arc::clone(&registry), run_to_end))
        .with_state(registry)
}

fn mlflow() -> Router<Arc<Registry>> {
    let registered_models = Router::new()
        .route("/create", post(models::create))
        .route("/get", get(models::get))
        .route("/update", patch(models::update))
        .route("/rename", post(models::rename))
        .route("/delete", delete(models::delete))
        .route("/search", get(models::search))
        .route("/get-latest-versions", post(models::latest_versions).get(models::latest_versions))
        .route("/set-tag", post(tags::set_on_model))
        .route("/delete-tag", delete(tags::delete_on_model))
        .route(
            "/alias",
            post(models::set_alias).delete(models::delete_alias).get(models::get_by_alias),
        );
    let model_versions = Router::new()
        .route("/create", post(versions::create))
        .route("/get", get(versions::get))
        .route("/update", patch(versions::update))
        .route("/delete", delete(versions::delete))
        .route("/search", get(versions::search))
        .route("/get-download-uri", get(versions::download_uri))
        .route("/set-tag", post(tags::set_on_version))
        .route("/delete-tag", delete(tags::delete_on_version));
    Router::new()
        .nest("/mlflow/registered-models", registered_models)
        .nest("/mlflow/model-versions", model_versions)
}

fn mlflow_artifacts() -> Router<Arc<Registry>> {
    Router::new().route("/mlflow-artifacts/artifacts", get(artifacts::list)).route(
        "/mlflow-artifacts/artifacts/{*path}",
        get(artifacts::get).put(artifacts::put).delete(artifacts::delete),
    )
}

fn sluice() -> Router<Arc<Registry>> {
    Router::new()
        .route("/changes", get(feed::changes))
        .route("/snapshot", get(feed::snapshot))
        .route("/models/{name}/versions/{version}/files", get(versions::files))
        .route("/blobs/{digest}", get(artifacts::get_blob))
}

async fn server_info() -> Json<Value> {
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "artifact_serving_enabled": true,
        "artifacts_presigned_only": false,
        "features_enabled": {},
        "tracking_auth": "",
    }))
}

async fn unknown(method: Method, uri: Uri) -> Answer {
    let path: String = uri.path().chars().take(300).collect();
    Err(RegistryError::Unimplemented(format!("this registry has no endpoint {method} {path}"))
        .into())
}

/// Lets a change that was begun run to its end although its caller leaves, so that followers
/// of the feed hear of everything that was committed.
async fn run_to_end(
    State(registry): State<Arc<Registry>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return next.run(request).await;
    }
    match registry.changes.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => {
                Refusal::from(RegistryError::Unavailable(error.to_string())).into_response()
            }
        },
    }
}
