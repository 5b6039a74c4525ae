//! `model-versions/*` and a version's files: decode, one call of the store, encode.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::json;

use super::Registry;
use super::answer::Answer;
use super::models::{page_json, search_of, tags};
use super::params::Params;
use super::store::NewVersion;
use crate::RegistryError;
use crate::domain::{FilesMessage, VersionReply};

pub(super) async fn create(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let source = params.text("source")?;
    let optional = |name| params.optional_text(name).map(|text| text.map(str::to_owned));
    let new = NewVersion {
        name: params.name("name")?,
        source_text: source.into(),
        source: source.parse()?,
        description: optional("description")?,
        run_id: optional("run_id")?,
        run_link: optional("run_link")?,
        tags: tags(&params)?,
    };
    let model_version = registry.store.create_version(&new).await?;
    Ok(Json(json!(VersionReply { model_version })))
}

pub(super) async fn get(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let model_version = registry.store.version(&params.name("name")?, params.version()?).await?;
    Ok(Json(json!(VersionReply { model_version })))
}

pub(super) async fn update(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let (name, version) = (params.name("name")?, params.version()?);
    let description = params.optional_text("description")?;
    let model_version = registry.store.update_version(&name, version, description).await?;
    Ok(Json(json!(VersionReply { model_version })))
}

pub(super) async fn delete(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    registry.store.delete_version(&params.name("name")?, params.version()?).await?;
    Ok(Json(json!({})))
}

pub(super) async fn search(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let page = registry.store.search_versions(&search_of(&params, 10_000, 200_000)?).await?;
    Ok(Json(page_json("model_versions", page)))
}

pub(super) async fn download_uri(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let uri = registry.store.download_uri(&params.name("name")?, params.version()?).await?;
    Ok(Json(json!({ "artifact_uri": uri })))
}

pub(super) async fn files(
    State(registry): State<Arc<Registry>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Answer {
    let Path((name, version)) =
        path.map_err(|error| RegistryError::InvalidArgument(error.body_text()))?;
    let (name, version) = (name.parse()?, version.parse()?);
    let files = registry.store.version_files(&name, version).await?;
    Ok(Json(json!(FilesMessage { files })))
}
