//! The server half: one process that owns a data folder and answers MLflow's API and our own.
//!
//! `routes` is the table of all calls; the modules beside it decode and encode them; `store`
//! holds names and the feed, `blobs` holds bytes.

mod answer;
mod artifacts;
mod blobs;
mod body;
mod connections;
mod download;
mod feed;
mod models;
mod params;
mod routes;
mod store;
mod tags;
mod versions;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{RegistryError, Result};
use blobs::Blobs;
use store::Store;

/// After this time an upload that became no version is taken for given up.
const UPLOAD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait for another process to let go of the data folder.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Where a registry keeps its data and what it accepts.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The folder of the database and the blobs; created if it is missing.
    pub data: PathBuf,
    /// The longest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
}

/// An opened registry, ready to serve. Its data folder belongs to it until it is dropped.
#[derive(Debug)]
pub struct Server {
    registry: Arc<Registry>,
    /// Held for as long as the folder is in use; the system releases it with the process.
    _lock: File,
}

/// What every call works on.
#[derive(Debug)]
struct Registry {
    store: Store,
    blobs: Blobs,
    max_upload_bytes: u64,
    /// Changes that were begun; they run to their end although their caller leaves.
    changes: TaskTracker,
    stopping: CancellationToken,
}

impl Server {
    /// Opens or creates a registry, brings its schema up to date and clears what a killed
    /// process left behind. A folder in use by another process, or written by a newer Sluice,
    /// is refused.
    pub async fn open(config: ServerConfig) -> Result<Self> {
        let data = config.data;
        tokio::fs::create_dir_all(&data).await.map_err(|error| {
            RegistryError::Unavailable(format!(
                "cannot create data folder {}: {error}",
                data.display()
            ))
        })?;
        let lock = lock(&data).await?;
        let store = Store::open(&data.join("registry.db")).await?;
        let blobs = Blobs::open(data.join("blobs")).await?;
        clear(&store, &blobs).await?;
        let registry = Registry {
            store,
            blobs,
            max_upload_bytes: config.max_upload_bytes,
            changes: TaskTracker::new(),
            stopping: CancellationToken::new(),
        };
        Ok(Self { registry: Arc::new(registry), _lock: lock })
    }

    /// Serves `listener` until `shutdown` resolves. Then it accepts no more, lets running
    /// requests finish for a while, answers those that wait for a change at once, and closes
    /// the database.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let stopping = self.registry.stopping.clone();
        let routes = routes::routes(Arc::clone(&self.registry));
        let stop = async move {
            shutdown.await;
            stopping.cancel();
        };
        connections::serve(listener, routes, stop).await;
        self.registry.changes.close();
        self.registry.changes.wait().await;
        self.registry.store.close().await;
        Ok(())
    }
}

/// Takes the folder's lock, waiting a moment for a predecessor that is just ending.
async fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let unavailable = |error: std::io::Error| {
        RegistryError::Unavailable(format!("cannot lock {}: {error}", path.display()))
    };
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(unavailable)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_WAIT / 20).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(RegistryError::Conflict(format!(
                    "data folder {} is in use by another registry",
                    data.display()
                )));
            }
        }
    }
}

async fn clear(store: &Store, blobs: &Blobs) -> Result<()> {
    let before = SystemTime::now() - UPLOAD_LIFE;
    let before = before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let uploads = store.forget_uploads(i64::try_from(before).unwrap_or(0)).await?;
    let orphans = blobs.sweep(&store.known_digests().await?).await?;
    if uploads + orphans as u64 > 0 {
        tracing::info!(uploads, orphans, "cleared files that belong to no version");
    }
    Ok(())
}
