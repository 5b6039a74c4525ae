//! Follows the registry: every version that an alias names is loaded, and `champion` is the
//! one that answers when none is named. When the registry is away, what is served goes on.

use std::sync::Arc;
use std::time::Duration;

use sluice_registry::{Client, RegistryError, Snapshot};
use tokio::sync::watch;

use super::served::Served;
use crate::shared::Shared;

/// How long one look at the feed waits for a change.
const WAIT: Duration = Duration::from_secs(30);
/// How long the start waits for a registry's answer before it says that there is none.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Brings the catalog to where the registry is, again and again.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    client: Client,
    served: Served,
    /// The last change that is served; none before the first snapshot.
    cursor: Option<u64>,
    /// Whether the last call found no registry.
    away: bool,
    /// How long to wait before what failed is tried again.
    pause: Duration,
}

/// What the feed says.
enum News {
    /// Nothing up to this change.
    None(u64),
    /// There is another state.
    Changed,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, client: Client) -> std::io::Result<Self> {
        let served = Served::open(shared.clone(), client.clone())?;
        Ok(Self { shared, client, served, cursor: None, away: false, pause: PAUSES.0 })
    }

    /// Runs until `stop` says so.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn follow(&mut self) {
        self.start().await;
        loop {
            // Only the waiting is broken off: what is being loaded is loaded once.
            tokio::select! {
                news = self.news() => self.act_on(news).await,
                () = self.served.settings_changed() => self.served.apply_settings().await,
            }
        }
    }

    /// The first state: what was served last, if it is saved, and then what the registry says.
    /// The saved state comes first so that a refused or unreachable new version finds it there.
    async fn start(&mut self) {
        if self.served.apply_saved().await {
            self.shared.set_started();
        }
        let answer = tokio::time::timeout(START_TIMEOUT, self.client.snapshot()).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(RegistryError::Unavailable("registry does not answer".to_owned()))
        });
        match answer {
            Ok(snapshot) => self.apply(&snapshot).await,
            Err(error) => self.miss(&error),
        }
    }

    /// Waits for a reason to look at the registry again. May be dropped at any moment.
    async fn news(&self) -> Result<News, RegistryError> {
        if self.away {
            tokio::time::sleep(self.pause).await;
        }
        let Some(after) = self.cursor else { return Ok(News::Changed) };
        // What could not be fetched is asked for again, although nothing changes.
        let lacks_files = self.served.lacks_files();
        let wait = if lacks_files { self.pause } else { WAIT };
        match self.client.changes(after, wait).await {
            Ok(changes) if changes.registry != self.served.registry() => Ok(News::Changed),
            Ok(changes) if changes.events.is_empty() && !lacks_files => {
                Ok(News::None(changes.next))
            }
            Ok(_) | Err(RegistryError::SnapshotRequired(_)) => Ok(News::Changed),
            Err(error) => Err(error),
        }
    }

    /// Any change is answered by a new snapshot, so that a burst of them costs one.
    async fn act_on(&mut self, news: Result<News, RegistryError>) {
        let snapshot = match news {
            Ok(News::None(cursor)) => {
                self.cursor = Some(cursor);
                return self.reached();
            }
            Ok(News::Changed) => self.client.snapshot().await,
            Err(error) => Err(error),
        };
        match snapshot {
            Ok(snapshot) => self.apply(&snapshot).await,
            Err(error) => self.miss(&error),
        }
    }

    async fn apply(&mut self, snapshot: &Snapshot) {
        self.served.apply(snapshot).await;
        self.cursor = Some(snapshot.sequence);
        self.shared.set_started();
        self.reached();
    }

    fn reached(&mut self) {
        self.away = false;
        self.pause = if self.served.lacks_files() { self.longer_pause() } else { PAUSES.0 };
    }

    /// Notes that there is no registry, and says so once.
    fn miss(&mut self, error: &RegistryError) {
        if !self.away {
            tracing::warn!(%error, "cannot follow the registry; serving what is loaded");
        }
        self.away = true;
        self.pause = self.longer_pause();
    }

    fn longer_pause(&self) -> Duration {
        (self.pause * 2).min(PAUSES.1)
    }
}
