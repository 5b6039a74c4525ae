//! Bytes by their SHA-256, in a folder behind `object_store`.
//!
//! A blob is received under a name of its own, flushed to disk, and only then linked to the
//! name of its digest, if nobody was there before. So a name of a digest always holds the whole
//! of its bytes, and what a killed process leaves are nameless leftovers.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, MultipartUpload as _, ObjectStore as _, ObjectStoreExt as _, PutPayload,
};
use sha2::Digest as _;
use sluice_protocol::Digest;

use super::store::Artifact;
use crate::domain::unique_id;
use crate::{RegistryError, Result};

/// How much is gathered before it is written.
const PART: usize = 1 << 20;
/// How long a sender may stay silent.
const SILENCE: Duration = Duration::from_secs(30);
const INCOMING: &str = "incoming";
const KEPT: &str = "sha256";

/// The blobs of a registry.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    store: Arc<LocalFileSystem>,
}

impl Blobs {
    /// Opens or creates the folder. What was being received when the last process ended is
    /// deleted.
    pub(crate) async fn open(folder: PathBuf) -> Result<Self> {
        let incoming = folder.join(INCOMING);
        match tokio::fs::remove_dir_all(&incoming).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("clear", &incoming, &error));
            }
            _ => {}
        }
        for needed in [&incoming, &folder.join(KEPT)] {
            tokio::fs::create_dir_all(needed)
                .await
                .map_err(|error| io_error("create", needed, &error))?;
        }
        let store = Arc::new(LocalFileSystem::new_with_prefix(&folder)?);
        Ok(Self { folder, store })
    }

    /// Deletes all blobs whose digest is not in `known`: bytes of uploads that never got a name.
    /// Only for a moment when nothing is being received.
    pub(crate) async fn sweep(&self, known: &HashSet<String>) -> Result<usize> {
        let mut orphans = Vec::new();
        let mut kept = self.store.list(Some(&Path::from(KEPT)));
        while let Some(meta) = kept.try_next().await? {
            if !meta.location.filename().is_some_and(|name| known.contains(name)) {
                orphans.push(meta.location);
            }
        }
        for orphan in &orphans {
            self.store.delete(orphan).await?;
        }
        Ok(orphans.len())
    }

    /// Receives a body of at most `limit` bytes. When this returns, the bytes are on disk under
    /// their digest.
    pub(crate) async fn receive<S, E>(&self, mut body: S, limit: u64) -> Result<Artifact>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let incoming = Path::from_iter([INCOMING, &unique_id()?]);
        // Dropped before it is complete, the upload removes what it wrote.
        let mut upload = self.store.put_multipart(&incoming).await?;
        let mut hasher = sha2::Sha256::new();
        let mut size = 0_u64;
        let mut part = BytesMut::new();
        while let Some(chunk) = next_chunk(&mut body).await? {
            size += chunk.len() as u64;
            if size > limit {
                return Err(too_large(limit));
            }
            hasher.update(&chunk);
            part.extend_from_slice(&chunk);
            if part.len() >= PART {
                upload.put_part(PutPayload::from_bytes(part.split().freeze())).await?;
            }
        }
        if !part.is_empty() {
            upload.put_part(PutPayload::from_bytes(part.freeze())).await?;
        }
        upload.complete().await?;
        let digest = Digest::from_bytes(hasher.finalize().into());
        let adopted = self.adopt(&incoming, digest, size).await;
        let cleared = self.store.delete(&incoming).await;
        adopted?;
        cleared?;
        Ok(Artifact { digest, size })
    }

    /// The bytes of a digest, or a part of them.
    pub(crate) async fn read(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        match self.store.get_opts(&location(digest), options).await {
            Ok(found) => Ok(found.into_stream()),
            Err(error) => Err(missing(digest, &error)),
        }
    }

    /// The length of the bytes of a digest.
    pub(crate) async fn size(&self, digest: Digest) -> Result<u64> {
        match self.store.head(&location(digest)).await {
            Ok(meta) => Ok(meta.size),
            Err(error) => Err(missing(digest, &error)),
        }
    }

    /// Links received bytes to the name of their digest, unless they are there already.
    async fn adopt(&self, incoming: &Path, digest: Digest, size: u64) -> Result<()> {
        flush(self.store.path_to_filesystem(incoming)?).await?;
        let kept = location(digest);
        match self.store.copy_if_not_exists(incoming, &kept).await {
            Ok(()) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.store.head(&kept).await?.size == size {
                    return Ok(());
                }
                // The bytes there were damaged from outside; the name must hold the right ones.
                self.store.copy(incoming, &kept).await?;
            }
            Err(error) => return Err(error.into()),
        }
        let folder = self.folder.join(KEPT);
        flush(folder.join(&digest.to_string()[..2])).await?;
        flush(folder).await
    }
}

async fn next_chunk<S, E>(body: &mut S) -> Result<Option<Bytes>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    match tokio::time::timeout(SILENCE, body.next()).await {
        Ok(chunk) => chunk
            .transpose()
            .map_err(|error| RegistryError::InvalidArgument(format!("upload broke off: {error}"))),
        Err(_) => Err(RegistryError::InvalidArgument(format!(
            "upload broke off: nothing came for {} s",
            SILENCE.as_secs()
        ))),
    }
}

/// Forces a file or directory to disk.
async fn flush(path: PathBuf) -> Result<()> {
    let flushed = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || std::fs::File::open(path)?.sync_all()).await
    };
    flushed
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| io_error("flush", &path, &error))
}

fn location(digest: Digest) -> Path {
    let digest = digest.to_string();
    Path::from_iter([KEPT, &digest[..2], &digest])
}

pub(super) fn too_large(limit: u64) -> RegistryError {
    RegistryError::TooLarge(format!(
        "upload is longer than {limit} bytes, the most that this registry accepts"
    ))
}

fn missing(digest: Digest, error: &object_store::Error) -> RegistryError {
    match error {
        object_store::Error::NotFound { .. } => {
            RegistryError::Corrupt(format!("blob {digest} is missing from the data folder"))
        }
        error => RegistryError::Unavailable(format!("blob {digest}: {error}")),
    }
}

fn io_error(verb: &str, path: &FilePath, error: &std::io::Error) -> RegistryError {
    RegistryError::Unavailable(format!("cannot {verb} {}: {error}", path.display()))
}

impl From<object_store::Error> for RegistryError {
    fn from(error: object_store::Error) -> Self {
        Self::Unavailable(format!("blob storage: {error}"))
    }
}
