//! Names, versions, aliases and the artifact tree in SQLite.
//!
//! One connection writes, so every change has one place in one order; others read at the same
//! time and each sees one moment. A change and its place in the feed are one transaction, which
//! is on disk before it is answered.

mod aliases;
mod artifacts;
mod changes;
mod error;
mod models;
mod search;
mod tags;
mod versions;

use std::path::Path;
use std::time::{Duration, SystemTime};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

pub(crate) use artifacts::{Artifact, Listed};
pub(crate) use search::{Page, Search};
pub(crate) use tags::Owner;
pub(crate) use versions::NewVersion;

use crate::domain::unique_id;
use crate::{RegistryError, Result};

static MIGRATIONS: Migrator = sqlx::migrate!("src/server/migrations");

/// How many changes the feed keeps; an older cursor has to take a snapshot.
const KEPT_CHANGES: u64 = 100_000;
const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);
const ACQUIRE: Duration = Duration::from_secs(10);

/// The database of a registry.
#[derive(Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    changed: watch::Sender<u64>,
    identity: String,
}

impl Store {
    /// Opens or creates the database at `path` and brings its schema up to date. One that a
    /// newer Sluice wrote is refused.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("case_sensitive_like", "ON");
        let writer = pool(1).connect_with(options.clone()).await?;
        if let Err(error) = MIGRATIONS.run(&writer).await {
            writer.close().await;
            return Err(migration_error(path, error));
        }
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        let identity = identity(&writer).await?;
        let store = Self { writer, readers, changed: watch::Sender::new(0), identity };
        store.prune_changes(KEPT_CHANGES).await?;
        Ok(store)
    }

    /// Which registry this is.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Resolves after the next committed change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Closes all connections; those in use are waited for.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a change. Dropping the transaction undoes it.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Makes a change durable, then tells the followers of the feed.
    async fn commit(&self, change: Transaction<'static, Sqlite>) -> Result<()> {
        change.commit().await?;
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Begins a look at one moment.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await?)
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // When the disk is full, SQLite takes a transaction back by itself, and the connection
        // still counts it as open. Such a connection is replaced. The ping lets a rollback that
        // is on its way happen first.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

async fn identity(writer: &SqlitePool) -> Result<String> {
    sqlx::query("INSERT OR IGNORE INTO registry (id, identity) VALUES (1, ?)")
        .bind(unique_id()?)
        .execute(writer)
        .await?;
    Ok(sqlx::query_scalar("SELECT identity FROM registry").fetch_one(writer).await?)
}

fn migration_error(path: &Path, error: MigrateError) -> RegistryError {
    let path = path.display();
    match error {
        MigrateError::VersionMissing(version) => RegistryError::NewerFormat(format!(
            "database {path} has schema version {version}, which is newer than {}, the newest that this version of Sluice reads; upgrade it",
            MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
        )),
        MigrateError::VersionMismatch(version) => RegistryError::NewerFormat(format!(
            "database {path} has another schema version {version} than this version of Sluice"
        )),
        error => RegistryError::Internal(format!(
            "database {path} cannot be brought up to date: {error}"
        )),
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// A number as SQLite keeps it. What does not fit is larger than any that it holds.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A list of ids as the JSON text that `json_each` takes.
fn json_list<T: serde::Serialize>(ids: &[T]) -> String {
    serde_json::to_string(ids).unwrap_or_else(|_| "[]".into())
}

/// The model's row id.
async fn model_id(connection: &mut SqliteConnection, name: &str) -> Result<i64> {
    sqlx::query_scalar("SELECT id FROM models WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| {
            RegistryError::NotFound(format!("Registered Model with name={name} not found"))
        })
}

#[cfg(test)]
mod tests;
