//! `registered-models/*`: decode, one call of the store, encode.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Registry;
use super::answer::Answer;
use super::params::Params;
use super::store::{Page, Search};
use crate::Result;
use crate::domain::{TagMessage, check_alias, check_tag};

pub(super) async fn create(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let name = params.name("name")?;
    let tags = tags(&params)?;
    let description = params.optional_text("description")?;
    let model = registry.store.create_model(&name, description, &tags).await?;
    Ok(Json(json!({ "registered_model": model })))
}

pub(super) async fn get(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let model = registry.store.model(&params.name("name")?).await?;
    Ok(Json(json!({ "registered_model": model })))
}

pub(super) async fn update(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let name = params.name("name")?;
    let model = registry.store.update_model(&name, params.optional_text("description")?).await?;
    Ok(Json(json!({ "registered_model": model })))
}

pub(super) async fn rename(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let (name, new_name) = (params.name("name")?, params.name("new_name")?);
    let model = registry.store.rename_model(&name, &new_name).await?;
    Ok(Json(json!({ "registered_model": model })))
}

pub(super) async fn delete(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    registry.store.delete_model(&params.name("name")?).await?;
    Ok(Json(json!({})))
}

pub(super) async fn search(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let page = registry.store.search_models(&search_of(&params, 100, 1000)?).await?;
    Ok(Json(page_json("registered_models", page)))
}

pub(super) async fn latest_versions(
    State(registry): State<Arc<Registry>>,
    params: Params,
) -> Answer {
    let name = params.name("name")?;
    let stages: Vec<String> = params.list("stages")?;
    let latest = registry.store.latest_version(&name).await?;
    // No version has a stage here, which MLflow calls the stage None.
    let wanted = stages.is_empty() || stages.iter().any(|stage| stage.eq_ignore_ascii_case("none"));
    let items = latest.into_iter().filter(|_| wanted).collect();
    Ok(Json(page_json("model_versions", Page { items, next_page_token: None })))
}

pub(super) async fn set_alias(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let (name, alias) = (params.name("name")?, params.text("alias")?);
    check_alias(alias)?;
    registry.store.set_alias(&name, alias, params.version()?).await?;
    Ok(Json(json!({})))
}

pub(super) async fn delete_alias(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let (name, alias) = (params.name("name")?, params.text("alias")?);
    registry.store.delete_alias(&name, alias).await?;
    Ok(Json(json!({})))
}

pub(super) async fn get_by_alias(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let (name, alias) = (params.name("name")?, params.text("alias")?);
    let version = registry.store.version_by_alias(&name, alias).await?;
    Ok(Json(json!({ "model_version": version })))
}

/// The tags that a create call brings.
pub(super) fn tags(params: &Params) -> Result<Vec<TagMessage>> {
    let tags: Vec<TagMessage> = params.list("tags")?;
    for tag in &tags {
        check_tag(&tag.key, &tag.value)?;
    }
    Ok(tags)
}

/// The parameters that every search call takes.
pub(super) fn search_of(params: &Params, default: u32, most: u32) -> Result<Search> {
    Ok(Search {
        filter: params.optional_text("filter")?.unwrap_or_default().into(),
        order_by: params.list("order_by")?,
        max_results: params.number("max_results", default, most)?,
        page_token: params.optional_text("page_token")?.map(Into::into),
    })
}

/// A page under `name`; an empty list is left out.
pub(super) fn page_json<T: Serialize>(name: &str, page: Page<T>) -> Value {
    let mut map = Map::new();
    if !page.items.is_empty() {
        map.insert(name.into(), json!(page.items));
    }
    if let Some(token) = page.next_page_token {
        map.insert("next_page_token".into(), token.into());
    }
    Value::Object(map)
}
