//! Following the registry: a snapshot, then the changes after it.

use std::time::Duration;

use super::Client;
use crate::Result;
use crate::domain::{Changes, Snapshot};

/// The longest wait that the server grants.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What a call may take on top of the wait that it asked for.
const SLACK: Duration = Duration::from_secs(15);

impl Client {
    /// All models, versions and aliases at one moment, and the cursor to follow them from.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.json(self.http.get(self.sluice(&["snapshot"]))).await
    }

    /// The changes after cursor `after`, in order. When there are none yet, waits for one up to
    /// `wait` (at most a minute) and may answer with none. A cursor that the feed no longer
    /// holds, or never gave, is [`RegistryError::SnapshotRequired`](crate::RegistryError).
    pub async fn changes(&self, after: u64, wait: Duration) -> Result<Changes> {
        let wait = wait.min(LONGEST_WAIT);
        let query = [("after", after.to_string()), ("wait", format!("{}ms", wait.as_millis()))];
        let request = self.http.get(self.sluice(&["changes"])).query(&query);
        self.json_within(request, wait + SLACK).await
    }
}
