//! Registered models.

use std::collections::HashMap;

use sluice_protocol::ModelName;
use sqlx::SqliteConnection;

use super::changes::Event;
use super::versions::load_versions;
use super::{Store, json_list, model_id, now};
use crate::domain::{AliasMessage, ModelMessage, TagMessage};
use crate::{RegistryError, Result};

impl Store {
    /// Registers a model.
    pub(crate) async fn create_model(
        &self,
        name: &ModelName,
        description: Option<&str>,
        tags: &[TagMessage],
    ) -> Result<ModelMessage> {
        let mut change = self.write().await?;
        let now = now();
        let inserted = sqlx::query(
            "INSERT INTO models (name, description, created, updated) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name.as_str())
        .bind(description)
        .bind(now)
        .bind(now)
        .execute(&mut *change)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(taken(name));
        }
        let id = inserted.last_insert_rowid();
        for tag in tags {
            sqlx::query(
                "INSERT OR REPLACE INTO model_tags (model_id, key, value) VALUES (?, ?, ?)",
            )
            .bind(id)
            .bind(&tag.key)
            .bind(&tag.value)
            .execute(&mut *change)
            .await?;
        }
        Event::ModelCreated(name.as_str()).append(&mut change).await?;
        let message = load_model(&mut change, id).await?;
        self.commit(change).await?;
        Ok(message)
    }

    /// One model.
    pub(crate) async fn model(&self, name: &ModelName) -> Result<ModelMessage> {
        let mut view = self.read().await?;
        let id = model_id(&mut view, name.as_str()).await?;
        load_model(&mut view, id).await
    }

    /// Replaces a model's description.
    pub(crate) async fn update_model(
        &self,
        name: &ModelName,
        description: Option<&str>,
    ) -> Result<ModelMessage> {
        let mut change = self.write().await?;
        let id = model_id(&mut change, name.as_str()).await?;
        sqlx::query("UPDATE models SET description = ?, updated = ? WHERE id = ?")
            .bind(description)
            .bind(now())
            .bind(id)
            .execute(&mut *change)
            .await?;
        let message = load_model(&mut change, id).await?;
        self.commit(change).await?;
        Ok(message)
    }

    /// Gives a model another name. Its versions keep their numbers.
    pub(crate) async fn rename_model(
        &self,
        name: &ModelName,
        new_name: &ModelName,
    ) -> Result<ModelMessage> {
        let mut change = self.write().await?;
        let id = model_id(&mut change, name.as_str()).await?;
        if model_id(&mut change, new_name.as_str()).await.is_ok() {
            return Err(taken(new_name));
        }
        sqlx::query("UPDATE models SET name = ?, updated = ? WHERE id = ?")
            .bind(new_name.as_str())
            .bind(now())
            .bind(id)
            .execute(&mut *change)
            .await?;
        carry_counter(&mut change, name, new_name).await?;
        Event::ModelDeleted(name.as_str()).append(&mut change).await?;
        tell_model(&mut change, id, new_name.as_str()).await?;
        let message = load_model(&mut change, id).await?;
        self.commit(change).await?;
        Ok(message)
    }

    /// Deletes a model with its versions and aliases.
    pub(crate) async fn delete_model(&self, name: &ModelName) -> Result<()> {
        let mut change = self.write().await?;
        let id = model_id(&mut change, name.as_str()).await?;
        sqlx::query("DELETE FROM models WHERE id = ?").bind(id).execute(&mut *change).await?;
        Event::ModelDeleted(name.as_str()).append(&mut change).await?;
        self.commit(change).await
    }
}

/// The models of these row ids, in their order.
pub(super) async fn load_models(
    connection: &mut SqliteConnection,
    ids: &[i64],
) -> Result<Vec<ModelMessage>> {
    let list = json_list(ids);
    let mut tags = by_model(tag_rows(connection, &list).await?);
    let mut aliases = by_model(alias_rows(connection, &list).await?);
    let latest = latest_ids(connection, &list).await?;
    let version_ids: Vec<i64> = latest.values().copied().collect();
    let mut versions: HashMap<String, _> = load_versions(connection, &version_ids)
        .await?
        .into_iter()
        .map(|v| (v.name.clone(), v))
        .collect();
    let rows: Vec<(i64, String, Option<String>, i64, i64)> = sqlx::query_as(
        "SELECT id, name, description, created, updated FROM models WHERE id IN (SELECT value FROM json_each(?))",
    )
    .bind(&list)
    .fetch_all(connection)
    .await?;
    let mut messages = HashMap::new();
    for (id, name, description, created, updated) in rows {
        let message = ModelMessage {
            creation_timestamp: created.cast_unsigned(),
            last_updated_timestamp: updated.cast_unsigned(),
            description,
            latest_versions: versions.remove(&name).into_iter().collect(),
            tags: tags.remove(&id).unwrap_or_default(),
            aliases: aliases.remove(&id).unwrap_or_default(),
            name,
        };
        messages.insert(id, message);
    }
    Ok(ids.iter().filter_map(|id| messages.remove(id)).collect())
}

/// The row id of each model's newest version.
pub(super) async fn latest_ids(
    connection: &mut SqliteConnection,
    models: &str,
) -> Result<HashMap<i64, i64>> {
    // SQLite takes `id` from the row that holds the maximum.
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT model_id, id, MAX(number) FROM versions
         WHERE model_id IN (SELECT value FROM json_each(?)) GROUP BY model_id",
    )
    .bind(models)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(model, id, _)| (model, id)).collect())
}

async fn load_model(connection: &mut SqliteConnection, id: i64) -> Result<ModelMessage> {
    let model = load_models(connection, &[id]).await?.pop();
    model.ok_or_else(|| RegistryError::Internal(format!("model row {id} vanished")))
}

async fn tag_rows(
    connection: &mut SqliteConnection,
    models: &str,
) -> Result<Vec<(i64, TagMessage)>> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT model_id, key, value FROM model_tags
         WHERE model_id IN (SELECT value FROM json_each(?)) ORDER BY model_id, key",
    )
    .bind(models)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, key, value)| (id, TagMessage { key, value })).collect())
}

async fn alias_rows(
    connection: &mut SqliteConnection,
    models: &str,
) -> Result<Vec<(i64, AliasMessage)>> {
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(
        "SELECT model_id, alias, number FROM aliases
         WHERE model_id IN (SELECT value FROM json_each(?)) ORDER BY model_id, alias",
    )
    .bind(models)
    .fetch_all(connection)
    .await?;
    let message = |alias, number: i64| AliasMessage { alias, version: number.to_string() };
    Ok(rows.into_iter().map(|(id, alias, number)| (id, message(alias, number))).collect())
}

fn by_model<T>(rows: Vec<(i64, T)>) -> HashMap<i64, Vec<T>> {
    let mut grouped: HashMap<i64, Vec<T>> = HashMap::new();
    for (id, row) in rows {
        grouped.entry(id).or_default().push(row);
    }
    grouped
}

/// The new name goes on counting from the higher of both names' counters.
async fn carry_counter(
    connection: &mut SqliteConnection,
    name: &ModelName,
    new_name: &ModelName,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO version_counters (name, last_number)
         SELECT ?, last_number FROM version_counters WHERE name = ?
         ON CONFLICT (name) DO UPDATE SET last_number = MAX(last_number, excluded.last_number)",
    )
    .bind(new_name.as_str())
    .bind(name.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// Tells the feed a model as if it were made anew.
async fn tell_model(connection: &mut SqliteConnection, id: i64, name: &str) -> Result<()> {
    Event::ModelCreated(name).append(connection).await?;
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT number FROM versions WHERE model_id = ? ORDER BY number")
            .bind(id)
            .fetch_all(&mut *connection)
            .await?;
    for number in versions {
        Event::VersionCreated(name, number).append(connection).await?;
    }
    let aliases: Vec<(String, i64)> =
        sqlx::query_as("SELECT alias, number FROM aliases WHERE model_id = ? ORDER BY alias")
            .bind(id)
            .fetch_all(&mut *connection)
            .await?;
    for (alias, number) in aliases {
        Event::AliasSet(name, &alias, number).append(connection).await?;
    }
    Ok(())
}

fn taken(name: &ModelName) -> RegistryError {
    RegistryError::AlreadyExists(format!("Registered Model (name={name}) already exists."))
}
