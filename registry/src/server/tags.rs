//! `set-tag` and `delete-tag` of models and versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Registry;
use super::answer::Answer;
use super::params::Params;
use super::store::Owner;
use crate::Result;
use crate::domain::{TagMessage, check_tag};

pub(super) async fn set_on_model(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    set(&registry, &model(&params)?, &params).await
}

pub(super) async fn set_on_version(
    State(registry): State<Arc<Registry>>,
    params: Params,
) -> Answer {
    set(&registry, &version(&params)?, &params).await
}

pub(super) async fn delete_on_model(
    State(registry): State<Arc<Registry>>,
    params: Params,
) -> Answer {
    delete(&registry, &model(&params)?, &params).await
}

pub(super) async fn delete_on_version(
    State(registry): State<Arc<Registry>>,
    params: Params,
) -> Answer {
    delete(&registry, &version(&params)?, &params).await
}

async fn set(registry: &Registry, owner: &Owner, params: &Params) -> Answer {
    let key = params.text("key")?;
    let value = params.optional_text("value")?.unwrap_or_default();
    check_tag(key, value)?;
    let tag = TagMessage { key: key.into(), value: value.into() };
    registry.store.set_tag(owner, &tag).await?;
    Ok(Json(json!({})))
}

async fn delete(registry: &Registry, owner: &Owner, params: &Params) -> Answer {
    registry.store.delete_tag(owner, params.text("key")?).await?;
    Ok(Json(json!({})))
}

fn model(params: &Params) -> Result<Owner> {
    Ok(Owner::Model(params.name("name")?))
}

fn version(params: &Params) -> Result<Owner> {
    Ok(Owner::Version(params.name("name")?, params.version()?))
}
