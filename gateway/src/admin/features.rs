//! Feature rows in, an entity's vector out. The process that serves owns the online store, so
//! this is how the command line reaches it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sluice_features::{Definitions, EmbeddedStore, FeatureError, ViewRows};

use super::{error, refusal};
use crate::http::body;
use crate::shared::{RequestLimits, Shared};

/// The largest batch of feature rows in bytes.
const MAX_ROWS: usize = 1 << 30;

/// `POST /features/rows`: batches of one view or several, all stored or none.
pub(super) async fn write(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (Some(store), Some(definitions)) = (shared.store.clone(), shared.definitions.as_ref())
    else {
        return without_features();
    };
    let (head, body) = request.into_parts();
    let limits = RequestLimits { max_body: MAX_ROWS, ..shared.limits() };
    let body = match body::read(&head.headers, body, limits).await {
        Ok(body) => body,
        Err(failed) => return refusal(&failed),
    };
    let batches = match ViewRows::decode_all(&body) {
        Ok(batches) => batches,
        Err(failed) => return refused(&failed),
    };
    if let Some(reason) =
        batches.iter().find_map(|batch| check_definition(definitions, batch).err())
    {
        return error(StatusCode::BAD_REQUEST, &reason);
    }
    // A commit waits for the disk, which no task of a runtime should.
    match tokio::task::spawn_blocking(move || store.write_all(&batches)).await {
        Ok(Ok(views)) => {
            let written: usize = views.iter().map(|view| view.written).sum();
            let stale: usize = views.iter().map(|view| view.stale).sum();
            axum::Json(json!({"written": written, "stale": stale, "views": views})).into_response()
        }
        Ok(Err(failed)) => refused(&failed),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "writing feature rows failed"),
    }
}

/// Rows computed from other definitions than the ones served would be read wrongly.
fn check_definition(definitions: &Definitions, batch: &ViewRows) -> Result<(), String> {
    let header = batch.header();
    let Some(view) = definitions.views().find(|view| view.id == header.view) else {
        return Err(format!("feature view {} is not defined here", header.view));
    };
    if view.definition() != header.definition {
        return Err(format!(
            "feature view {} is defined otherwise here; restart the gateway with the new definitions",
            header.view
        ));
    }
    Ok(())
}

/// `GET /features/{service}?key=42&promo=1`: what the store holds for one entity and, when the
/// request fields are given, the model's inputs.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(service): Path<String>,
    Query(mut fields): Query<Vec<(String, String)>>,
) -> Response {
    let (Some(store), Some(definitions)) = (shared.store.as_deref(), shared.definitions.as_ref())
    else {
        return without_features();
    };
    let Some(position) = fields.iter().position(|(name, _)| name == "key") else {
        return error(StatusCode::BAD_REQUEST, "query parameter key is missing");
    };
    let (_, key) = fields.swap_remove(position);
    match vector(definitions, store, &service, &key, &fields) {
        Ok(vector) => axum::Json(vector).into_response(),
        Err(failed) => refused(&failed),
    }
}

fn vector(
    definitions: &Definitions,
    store: &EmbeddedStore,
    service: &str,
    key: &str,
    fields: &[(String, String)],
) -> Result<sluice_features::ServiceVector, FeatureError> {
    definitions.plan(service)?.vector(store, key, fields, SystemTime::now())
}

fn without_features() -> Response {
    error(StatusCode::BAD_REQUEST, "the gateway was started without --features")
}

fn refused(failed: &FeatureError) -> Response {
    let status = StatusCode::from_u16(failed.code().http_status());
    error(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &failed.to_string())
}
