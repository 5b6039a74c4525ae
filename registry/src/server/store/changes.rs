//! The change feed and the snapshot that it continues.

use std::collections::BTreeMap;

use sluice_protocol::{ModelName, ModelVersion};
use sqlx::SqliteConnection;

use super::{Store, now, signed};
use crate::domain::{Change, ChangeKind, Changes, Snapshot, SnapshotModel};
use crate::{RegistryError, Result};

/// A change about to be written, as part of the transaction that makes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    ModelCreated(&'a str),
    ModelDeleted(&'a str),
    VersionCreated(&'a str, i64),
    VersionDeleted(&'a str, i64),
    AliasSet(&'a str, &'a str, i64),
    AliasDeleted(&'a str, &'a str),
}

impl Event<'_> {
    /// Gives the event the next place in the feed.
    pub(super) async fn append(self, connection: &mut SqliteConnection) -> Result<()> {
        let (kind, model, version, alias) = match self {
            Self::ModelCreated(model) => ("model_created", model, None, None),
            Self::ModelDeleted(model) => ("model_deleted", model, None, None),
            Self::VersionCreated(model, number) => ("version_created", model, Some(number), None),
            Self::VersionDeleted(model, number) => ("version_deleted", model, Some(number), None),
            Self::AliasSet(model, alias, number) => ("alias_set", model, Some(number), Some(alias)),
            Self::AliasDeleted(model, alias) => ("alias_deleted", model, None, Some(alias)),
        };
        sqlx::query(
            "INSERT INTO changes (time_ms, kind, model, version, alias) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(now())
        .bind(kind)
        .bind(model)
        .bind(version)
        .bind(alias)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Store {
    /// At most `limit` changes after cursor `after`, in order.
    pub(crate) async fn changes(&self, after: u64, limit: u32) -> Result<Changes> {
        let mut view = self.read().await?;
        let head = head(&mut view).await?;
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT MIN(sequence) FROM changes").fetch_one(&mut *view).await?;
        let oldest = oldest.map_or(head + 1, i64::cast_unsigned);
        check_cursor(after, oldest, head)?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT sequence, time_ms, kind, model, version, alias FROM changes
             WHERE sequence > ? ORDER BY sequence LIMIT ?",
        )
        .bind(signed(after))
        .bind(limit)
        .fetch_all(&mut *view)
        .await?;
        let events = rows.into_iter().map(Row::into_change).collect::<Result<Vec<_>>>()?;
        let next = events.last().map_or(after, |change| change.sequence);
        Ok(Changes { events, next, registry: self.identity().into() })
    }

    /// Everything at one moment.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        let mut view = self.read().await?;
        let sequence = head(&mut view).await?;
        let models: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, name FROM models").fetch_all(&mut *view).await?;
        let mut found = BTreeMap::new();
        for (id, name) in models {
            let name: ModelName = name.parse()?;
            found
                .insert(id, SnapshotModel { name, versions: Vec::new(), aliases: BTreeMap::new() });
        }
        let versions: Vec<(i64, i64)> =
            sqlx::query_as("SELECT model_id, number FROM versions ORDER BY model_id, number")
                .fetch_all(&mut *view)
                .await?;
        for (id, number) in versions {
            let Some(model) = found.get_mut(&id) else { continue };
            model.versions.push(ModelVersion(number.cast_unsigned()));
        }
        let aliases: Vec<(i64, String, i64)> =
            sqlx::query_as("SELECT model_id, alias, number FROM aliases")
                .fetch_all(&mut *view)
                .await?;
        for (id, alias, number) in aliases {
            let Some(model) = found.get_mut(&id) else { continue };
            model.aliases.insert(alias, ModelVersion(number.cast_unsigned()));
        }
        let mut models: Vec<_> = found.into_values().collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Snapshot { sequence, models, registry: self.identity().into() })
    }

    /// Forgets all changes but the newest `kept`.
    pub(super) async fn prune_changes(&self, kept: u64) -> Result<()> {
        let mut change = self.write().await?;
        let head = head(&mut change).await?;
        sqlx::query("DELETE FROM changes WHERE sequence <= ?")
            .bind(signed(head.saturating_sub(kept)))
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(())
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    sequence: i64,
    time_ms: i64,
    kind: String,
    model: String,
    version: Option<i64>,
    alias: Option<String>,
}

impl Row {
    fn into_change(self) -> Result<Change> {
        let model = self.model.parse()?;
        let version = ModelVersion(self.version.unwrap_or_default().cast_unsigned());
        let alias = self.alias.unwrap_or_default();
        let kind = match self.kind.as_str() {
            "model_created" => ChangeKind::ModelCreated { model },
            "model_deleted" => ChangeKind::ModelDeleted { model },
            "version_created" => ChangeKind::VersionCreated { model, version },
            "version_deleted" => ChangeKind::VersionDeleted { model, version },
            "alias_set" => ChangeKind::AliasSet { model, alias, version },
            "alias_deleted" => ChangeKind::AliasDeleted { model, alias },
            _ => ChangeKind::Unknown,
        };
        Ok(Change {
            sequence: self.sequence.cast_unsigned(),
            time_ms: self.time_ms.cast_unsigned(),
            kind,
        })
    }
}

/// The last sequence ever given, also when the change itself was forgotten.
async fn head(connection: &mut SqliteConnection) -> Result<u64> {
    let head: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
            .fetch_optional(connection)
            .await?;
    Ok(head.unwrap_or(0).cast_unsigned())
}

fn check_cursor(after: u64, oldest: u64, head: u64) -> Result<()> {
    if after > head {
        return Err(RegistryError::SnapshotRequired(format!(
            "cursor {after} is newer than {head}, the last change of this registry; take a snapshot and follow from its sequence"
        )));
    }
    if after + 1 < oldest {
        return Err(RegistryError::SnapshotRequired(format!(
            "cursor {after} is older than {oldest}, the oldest change kept; take a snapshot and follow from its sequence"
        )));
    }
    Ok(())
}
