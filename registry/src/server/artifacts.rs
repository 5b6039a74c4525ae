//! `mlflow-artifacts/*` and blobs by digest: files in and out.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use sluice_protocol::Digest;

use super::Registry;
use super::answer::{Answer, Refusal};
use super::blobs::too_large;
use super::body::linger;
use super::download::download;
use super::models::page_json;
use super::params::Params;
use super::store::{Artifact, Listed, Page};
use crate::domain::ArtifactPath;
use crate::{RegistryError, Result};

/// A path out of the address, which axum decoded once.
type Wildcard = Result<Path<String>, PathRejection>;

pub(super) async fn list(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let directory = match params.optional_text("path")? {
        None | Some("" | "/") => None,
        Some(path) => Some(path.strip_suffix('/').unwrap_or(path).parse()?),
    };
    let entries = registry.store.list_artifacts(directory.as_ref()).await?;
    let items: Vec<Value> = entries
        .into_iter()
        .map(|(path, entry)| match entry {
            Listed::File(size) => json!({ "path": path, "is_dir": false, "file_size": size }),
            Listed::Directory => json!({ "path": path, "is_dir": true }),
        })
        .collect();
    Ok(Json(page_json("files", Page { items, next_page_token: None })))
}

pub(super) async fn get(
    State(registry): State<Arc<Registry>>,
    path: Wildcard,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = artifact_path(path)?;
    let artifact = registry.store.artifact(&path).await?;
    Ok(download(&registry.blobs, artifact, path.file_name(), &headers).await?)
}

pub(super) async fn put(
    State(registry): State<Arc<Registry>>,
    path: Wildcard,
    request: Request,
) -> Answer {
    let announced = announced(request.headers());
    let mut body = request.into_body().into_data_stream();
    match receive(&registry, path, announced, &mut body).await {
        Ok(()) => Ok(Json(json!({}))),
        Err(error) => {
            linger(body);
            Err(error.into())
        }
    }
}

pub(super) async fn delete(State(registry): State<Arc<Registry>>, path: Wildcard) -> Answer {
    // MLflow's client names a directory with a slash at its end.
    let path = path.map(|Path(text)| Path(text.strip_suffix('/').unwrap_or(&text).to_owned()));
    registry.store.delete_artifacts(&artifact_path(path)?).await?;
    Ok(Json(json!({})))
}

pub(super) async fn get_blob(
    State(registry): State<Arc<Registry>>,
    path: Wildcard,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(text) = path.map_err(|error| RegistryError::InvalidArgument(error.body_text()))?;
    let digest: Digest = text.parse().map_err(|_| {
        RegistryError::InvalidArgument("a blob is named by the 64 hex digits of its SHA-256".into())
    })?;
    let tag = format!("\"{digest}\"");
    if !registry.store.knows(digest).await? {
        return Err(RegistryError::NotFound(format!("blob {digest} does not exist")).into());
    }
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        let unchanged =
            Response::builder().status(StatusCode::NOT_MODIFIED).header(header::ETAG, tag);
        return Ok(unchanged.body(Body::empty()).expect("a digest is a header value"));
    }
    let size = registry.blobs.size(digest).await?;
    Ok(download(&registry.blobs, Artifact { digest, size }, &text, &headers).await?)
}

async fn receive(
    registry: &Registry,
    path: Wildcard,
    announced: Option<u64>,
    body: &mut BodyDataStream,
) -> Result<()> {
    let path = artifact_path(path)?;
    let limit = registry.max_upload_bytes;
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    registry.store.check_writable(&path).await?;
    let artifact = registry.blobs.receive(body, limit).await?;
    registry.store.put_artifact(&path, artifact).await
}

fn artifact_path(path: Wildcard) -> Result<ArtifactPath> {
    let Path(text) = path.map_err(|error| RegistryError::InvalidArgument(error.body_text()))?;
    text.parse()
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
