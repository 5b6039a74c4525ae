//! The artifact tree: paths as keys, bytes by their digest.

use std::collections::{BTreeMap, HashSet};

use sluice_protocol::Digest;
use sqlx::SqliteConnection;

use super::{Store, json_list, now, signed};
use crate::domain::{ArtifactPath, UPLOADS};
use crate::{RegistryError, Result};

/// The bytes at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    File(u64),
    Directory,
}

impl Store {
    /// Whether a file may be written at `path` now; cheap, to refuse before the bytes come.
    pub(crate) async fn check_writable(&self, path: &ArtifactPath) -> Result<()> {
        let mut view = self.read().await?;
        writable(&mut view, path).await
    }

    /// Lets `path` name these bytes from now on, which must be stored already.
    pub(crate) async fn put_artifact(&self, path: &ArtifactPath, artifact: Artifact) -> Result<()> {
        let mut change = self.write().await?;
        writable(&mut change, path).await?;
        sqlx::query(
            "INSERT OR REPLACE INTO artifacts (path, digest, size, modified) VALUES (?, ?, ?, ?)",
        )
        .bind(path.as_str())
        .bind(artifact.digest.to_string())
        .bind(signed(artifact.size))
        .bind(now())
        .execute(&mut *change)
        .await?;
        self.commit(change).await
    }

    /// The bytes that `path` names.
    pub(crate) async fn artifact(&self, path: &ArtifactPath) -> Result<Artifact> {
        let mut view = self.read().await?;
        let row: Option<(String, i64)> =
            sqlx::query_as("SELECT digest, size FROM artifacts WHERE path = ?")
                .bind(path.as_str())
                .fetch_optional(&mut *view)
                .await?;
        let (digest, size) = row.ok_or_else(|| no_artifact(path))?;
        let digest = digest.parse().map_err(|error| {
            RegistryError::Corrupt(format!("digest {digest:?} of artifact {path}: {error}"))
        })?;
        Ok(Artifact { digest, size: size.cast_unsigned() })
    }

    /// The entries of a directory, or of the root. A file or an absent directory has none.
    pub(crate) async fn list_artifacts(
        &self,
        directory: Option<&ArtifactPath>,
    ) -> Result<BTreeMap<String, Listed>> {
        let (low, high) = match directory {
            Some(directory) => directory.keys_below(),
            None => (String::new(), char::MAX.to_string()),
        };
        let mut view = self.read().await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT substr(path, length(?1) + 1), size FROM artifacts WHERE path >= ?1 AND path < ?2",
        )
        .bind(low)
        .bind(high)
        .fetch_all(&mut *view)
        .await?;
        let mut entries = BTreeMap::new();
        for (rest, size) in rows {
            match rest.split_once('/') {
                Some((name, _)) => entries.insert(name.to_owned(), Listed::Directory),
                None => entries.insert(rest, Listed::File(size.cast_unsigned())),
            };
        }
        Ok(entries)
    }

    /// Deletes a file, or a directory with everything below it, unless a version froze any.
    pub(crate) async fn delete_artifacts(&self, path: &ArtifactPath) -> Result<()> {
        let mut change = self.write().await?;
        refuse_frozen(&mut change, path).await?;
        let (low, high) = path.keys_below();
        let below: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM versions WHERE artifact_root >= ? AND artifact_root < ?)",
        )
        .bind(&low)
        .bind(&high)
        .fetch_one(&mut *change)
        .await?;
        if below {
            return Err(frozen(path));
        }
        let deleted =
            sqlx::query("DELETE FROM artifacts WHERE path = ?1 OR (path >= ?2 AND path < ?3)")
                .bind(path.as_str())
                .bind(&low)
                .bind(&high)
                .execute(&mut *change)
                .await?;
        if deleted.rows_affected() == 0 {
            return Err(no_artifact(path));
        }
        self.commit(change).await
    }

    /// Forgets the client's uploads that became no version before `modified`, in milliseconds
    /// since 1970.
    pub(crate) async fn forget_uploads(&self, modified: i64) -> Result<u64> {
        let mut change = self.write().await?;
        // An upload's files lie three directories deep: uploads, model, unique id.
        let forgotten = sqlx::query(
            "DELETE FROM artifacts
             WHERE path >= ?1 || '/' AND path < ?1 || '0' AND modified < ?2
             AND NOT EXISTS (
                 SELECT 1 FROM versions
                 WHERE artifact_root >= ?1 || '/' AND artifact_root < ?1 || '0'
                 AND substr(path, 1, length(artifact_root) + 1) = artifact_root || '/'
             )",
        )
        .bind(UPLOADS)
        .bind(modified)
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        Ok(forgotten.rows_affected())
    }

    /// The digests of all bytes that a version or a path names.
    pub(crate) async fn known_digests(&self) -> Result<HashSet<String>> {
        let mut view = self.read().await?;
        let digests: Vec<String> = sqlx::query_scalar(
            "SELECT digest FROM artifacts UNION SELECT digest FROM version_files",
        )
        .fetch_all(&mut *view)
        .await?;
        Ok(digests.into_iter().collect())
    }

    /// Whether a version or a path names the bytes of this digest.
    pub(crate) async fn knows(&self, digest: Digest) -> Result<bool> {
        let mut view = self.read().await?;
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM version_files WHERE digest = ?1)
                 OR EXISTS (SELECT 1 FROM artifacts WHERE digest = ?1)",
        )
        .bind(digest.to_string())
        .fetch_one(&mut *view)
        .await?)
    }
}

/// Refuses a path inside a version's files, and one that is both a file and a directory.
async fn writable(connection: &mut SqliteConnection, path: &ArtifactPath) -> Result<()> {
    refuse_frozen(connection, path).await?;
    let (low, high) = path.keys_below();
    let ancestors: Vec<&str> =
        path.with_ancestors().filter(|each| *each != path.as_str()).collect();
    let clashes: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM artifacts WHERE path IN (SELECT value FROM json_each(?1)))
             OR EXISTS (SELECT 1 FROM artifacts WHERE path >= ?2 AND path < ?3)",
    )
    .bind(json_list(&ancestors))
    .bind(low)
    .bind(high)
    .fetch_one(connection)
    .await?;
    if clashes {
        return Err(RegistryError::Conflict(format!(
            "artifact {path} would be a file and a directory at once"
        )));
    }
    Ok(())
}

async fn refuse_frozen(connection: &mut SqliteConnection, path: &ArtifactPath) -> Result<()> {
    let roots: Vec<&str> = path.with_ancestors().collect();
    let is_frozen: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM versions WHERE artifact_root IN (SELECT value FROM json_each(?)))",
    )
    .bind(json_list(&roots))
    .fetch_one(connection)
    .await?;
    if is_frozen { Err(frozen(path)) } else { Ok(()) }
}

fn frozen(path: &ArtifactPath) -> RegistryError {
    RegistryError::Conflict(format!(
        "artifact {path} belongs to a model version, and versions are immutable"
    ))
}

fn no_artifact(path: &ArtifactPath) -> RegistryError {
    RegistryError::NotFound(format!("artifact {path} does not exist"))
}
