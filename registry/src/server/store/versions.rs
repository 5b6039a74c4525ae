//! Model versions and the files that they froze.

use std::collections::HashMap;

use sluice_protocol::{ModelName, ModelVersion};
use sqlx::SqliteConnection;

use super::changes::Event;
use super::models::latest_ids;
use super::{Store, json_list, model_id, now, signed};
use crate::domain::{ARTIFACT_SCHEME, ArtifactPath, FileEntry, Source, TagMessage, VersionMessage};
use crate::{RegistryError, Result};

/// A version to be made.
#[derive(Debug)]
pub(crate) struct NewVersion {
    pub(crate) name: ModelName,
    /// The source as it was given, and as it was understood.
    pub(crate) source_text: String,
    pub(crate) source: Source,
    pub(crate) description: Option<String>,
    pub(crate) run_id: Option<String>,
    pub(crate) run_link: Option<String>,
    pub(crate) tags: Vec<TagMessage>,
}

impl Store {
    /// Makes a version: gives it the next number, records its files and freezes them, all or
    /// nothing.
    pub(crate) async fn create_version(&self, new: &NewVersion) -> Result<VersionMessage> {
        let mut change = self.write().await?;
        let model = model_id(&mut change, new.name.as_str()).await?;
        let origin = origin(&mut change, &new.source).await?;
        let number = next_number(&mut change, &new.name).await?;
        let id = insert_version(&mut change, model, number, new, &origin).await?;
        copy_files(&mut change, id, &origin).await?;
        for tag in &new.tags {
            sqlx::query(
                "INSERT OR REPLACE INTO version_tags (version_id, key, value) VALUES (?, ?, ?)",
            )
            .bind(id)
            .bind(&tag.key)
            .bind(&tag.value)
            .execute(&mut *change)
            .await?;
        }
        sqlx::query("UPDATE models SET updated = ? WHERE id = ?")
            .bind(now())
            .bind(model)
            .execute(&mut *change)
            .await?;
        Event::VersionCreated(new.name.as_str(), number).append(&mut change).await?;
        let message = load_version(&mut change, id).await?;
        self.commit(change).await?;
        Ok(message)
    }

    /// One version.
    pub(crate) async fn version(
        &self,
        name: &ModelName,
        number: ModelVersion,
    ) -> Result<VersionMessage> {
        let mut view = self.read().await?;
        let id = version_id(&mut view, name, number).await?;
        load_version(&mut view, id).await
    }

    /// The newest version of a model, if it has any.
    pub(crate) async fn latest_version(&self, name: &ModelName) -> Result<Option<VersionMessage>> {
        let mut view = self.read().await?;
        let model = model_id(&mut view, name.as_str()).await?;
        match latest_ids(&mut view, &json_list(&[model])).await?.get(&model) {
            Some(id) => Ok(Some(load_version(&mut view, *id).await?)),
            None => Ok(None),
        }
    }

    /// Replaces a version's description: the one thing about it, with its tags, that changes.
    pub(crate) async fn update_version(
        &self,
        name: &ModelName,
        number: ModelVersion,
        description: Option<&str>,
    ) -> Result<VersionMessage> {
        let mut change = self.write().await?;
        let id = version_id(&mut change, name, number).await?;
        sqlx::query("UPDATE versions SET description = ?, updated = ? WHERE id = ?")
            .bind(description)
            .bind(now())
            .bind(id)
            .execute(&mut *change)
            .await?;
        let message = load_version(&mut change, id).await?;
        self.commit(change).await?;
        Ok(message)
    }

    /// Deletes a version and the aliases that name it. Its number is not given again.
    pub(crate) async fn delete_version(
        &self,
        name: &ModelName,
        number: ModelVersion,
    ) -> Result<()> {
        let mut change = self.write().await?;
        let id = version_id(&mut change, name, number).await?;
        let aliases: Vec<String> = sqlx::query_scalar(
            "SELECT alias FROM aliases JOIN versions USING (model_id, number) WHERE versions.id = ? ORDER BY alias",
        )
        .bind(id)
        .fetch_all(&mut *change)
        .await?;
        sqlx::query("DELETE FROM versions WHERE id = ?").bind(id).execute(&mut *change).await?;
        for alias in aliases {
            Event::AliasDeleted(name.as_str(), &alias).append(&mut change).await?;
        }
        Event::VersionDeleted(name.as_str(), signed(number.0)).append(&mut change).await?;
        self.commit(change).await
    }

    /// Where a version's files can be downloaded from.
    pub(crate) async fn download_uri(
        &self,
        name: &ModelName,
        number: ModelVersion,
    ) -> Result<String> {
        let mut view = self.read().await?;
        let id = version_id(&mut view, name, number).await?;
        let root: String = sqlx::query_scalar("SELECT artifact_root FROM versions WHERE id = ?")
            .bind(id)
            .fetch_one(&mut *view)
            .await?;
        Ok(format!("{ARTIFACT_SCHEME}/{root}"))
    }

    /// A version's files by path.
    pub(crate) async fn version_files(
        &self,
        name: &ModelName,
        number: ModelVersion,
    ) -> Result<Vec<FileEntry>> {
        let mut view = self.read().await?;
        let id = version_id(&mut view, name, number).await?;
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT path, digest, size FROM version_files WHERE version_id = ? ORDER BY path",
        )
        .bind(id)
        .fetch_all(&mut *view)
        .await?;
        let entry = |(path, digest, size): (String, String, i64)| {
            let digest = digest.parse().map_err(|error| {
                RegistryError::Corrupt(format!("digest {digest:?} of file {path:?}: {error}"))
            })?;
            Ok(FileEntry { path, digest, size: size.cast_unsigned() })
        };
        rows.into_iter().map(entry).collect()
    }
}

/// The versions of these row ids, in their order.
pub(super) async fn load_versions(
    connection: &mut SqliteConnection,
    ids: &[i64],
) -> Result<Vec<VersionMessage>> {
    let list = json_list(ids);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT versions.id, models.name, number, versions.description, source, run_id, run_link,
                versions.created, versions.updated
         FROM versions JOIN models ON models.id = model_id
         WHERE versions.id IN (SELECT value FROM json_each(?))",
    )
    .bind(&list)
    .fetch_all(&mut *connection)
    .await?;
    let mut messages: HashMap<i64, _> =
        rows.into_iter().map(|row| (row.id, row.into_message())).collect();
    let tags: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT version_id, key, value FROM version_tags
         WHERE version_id IN (SELECT value FROM json_each(?)) ORDER BY version_id, key",
    )
    .bind(&list)
    .fetch_all(&mut *connection)
    .await?;
    for (id, key, value) in tags {
        messages.entry(id).and_modify(|message| message.tags.push(TagMessage { key, value }));
    }
    let aliases: Vec<(i64, String)> = sqlx::query_as(
        "SELECT versions.id, alias FROM aliases JOIN versions USING (model_id, number)
         WHERE versions.id IN (SELECT value FROM json_each(?)) ORDER BY versions.id, alias",
    )
    .bind(&list)
    .fetch_all(connection)
    .await?;
    for (id, alias) in aliases {
        messages.entry(id).and_modify(|message| message.aliases.push(alias));
    }
    Ok(ids.iter().filter_map(|id| messages.remove(id)).collect())
}

/// The version's row id.
pub(super) async fn version_id(
    connection: &mut SqliteConnection,
    name: &ModelName,
    number: ModelVersion,
) -> Result<i64> {
    sqlx::query_scalar(
        "SELECT versions.id FROM versions JOIN models ON models.id = model_id WHERE name = ? AND number = ?",
    )
    .bind(name.as_str())
    .bind(signed(number.0))
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| {
        RegistryError::NotFound(format!("Model Version (name={name}, version={number}) not found"))
    })
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    number: i64,
    description: Option<String>,
    source: String,
    run_id: Option<String>,
    run_link: Option<String>,
    created: i64,
    updated: i64,
}

impl Row {
    fn into_message(self) -> VersionMessage {
        VersionMessage {
            name: self.name,
            version: self.number.to_string(),
            creation_timestamp: self.created.cast_unsigned(),
            last_updated_timestamp: self.updated.cast_unsigned(),
            current_stage: "None".into(),
            description: self.description,
            source: self.source,
            run_id: self.run_id,
            run_link: self.run_link,
            // A version is visible only once it is complete.
            status: "READY".into(),
            tags: Vec::new(),
            aliases: Vec::new(),
        }
    }
}

/// Where a new version's files come from.
enum Origin {
    Artifacts(ArtifactPath),
    Version { id: i64, artifact_root: String, run_id: Option<String> },
}

async fn origin(connection: &mut SqliteConnection, source: &Source) -> Result<Origin> {
    match source {
        Source::Artifacts(root) => Ok(Origin::Artifacts(root.clone())),
        Source::Version(name, number) => {
            let id = version_id(connection, name, *number).await?;
            let (artifact_root, run_id) =
                sqlx::query_as("SELECT artifact_root, run_id FROM versions WHERE id = ?")
                    .bind(id)
                    .fetch_one(connection)
                    .await?;
            Ok(Origin::Version { id, artifact_root, run_id })
        }
    }
}

async fn next_number(connection: &mut SqliteConnection, name: &ModelName) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "INSERT INTO version_counters (name, last_number) VALUES (?, 1)
         ON CONFLICT (name) DO UPDATE SET last_number = last_number + 1
         RETURNING last_number",
    )
    .bind(name.as_str())
    .fetch_one(connection)
    .await?)
}

async fn insert_version(
    connection: &mut SqliteConnection,
    model: i64,
    number: i64,
    new: &NewVersion,
    origin: &Origin,
) -> Result<i64> {
    let now = now();
    let (root, origin_run) = match origin {
        Origin::Artifacts(root) => (root.as_str(), None),
        Origin::Version { artifact_root, run_id, .. } => (artifact_root.as_str(), run_id.clone()),
    };
    let inserted = sqlx::query(
        "INSERT INTO versions (model_id, number, description, source, artifact_root, run_id, run_link, created, updated)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(model)
    .bind(number)
    .bind(&new.description)
    .bind(&new.source_text)
    .bind(root)
    .bind(new.run_id.clone().or(origin_run))
    .bind(&new.run_link)
    .bind(now)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(inserted.last_insert_rowid())
}

/// Records the files of version `id`. A version without any would be nothing to serve, and
/// would freeze a path before anything is there.
async fn copy_files(connection: &mut SqliteConnection, id: i64, origin: &Origin) -> Result<()> {
    let copied = match origin {
        Origin::Artifacts(root) => {
            let (low, high) = root.keys_below();
            sqlx::query(
                "INSERT INTO version_files (version_id, path, digest, size)
                 SELECT ?1, substr(path, length(?2) + 1), digest, size FROM artifacts
                 WHERE path >= ?2 AND path < ?3",
            )
            .bind(id)
            .bind(low)
            .bind(high)
            .execute(connection)
            .await?
        }
        Origin::Version { id: from, .. } => {
            sqlx::query(
                "INSERT INTO version_files (version_id, path, digest, size)
                 SELECT ?, path, digest, size FROM version_files WHERE version_id = ?",
            )
            .bind(id)
            .bind(from)
            .execute(connection)
            .await?
        }
    };
    match origin {
        Origin::Artifacts(root) if copied.rows_affected() == 0 => {
            Err(RegistryError::InvalidArgument(format!(
                "Invalid model version source: no files lie under {ARTIFACT_SCHEME}/{root}; upload them first"
            )))
        }
        _ => Ok(()),
    }
}

async fn load_version(connection: &mut SqliteConnection, id: i64) -> Result<VersionMessage> {
    let version = load_versions(connection, &[id]).await?.pop();
    version.ok_or_else(|| RegistryError::Internal(format!("version row {id} vanished")))
}
