//! Who goes first in a deployment's queue, how long a request waits there, and how many may.

use std::collections::BTreeMap;
use std::time::Duration;

/// The order and the bounds of a deployment's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SchedulePolicy {
    /// How many levels there are, of which 1 goes first. 0: all requests are of one level.
    pub(crate) priority_levels: u64,
    /// The level of a request that names none. 0 when there are no levels.
    pub(crate) default_priority: u64,
    /// What holds in levels that have no policy of their own.
    pub(crate) queue: QueuePolicy,
    /// Policies by level.
    pub(crate) by_priority: BTreeMap<u64, QueuePolicy>,
}

/// What holds for the requests that wait in one level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueuePolicy {
    /// How long a request may wait before its run begins. None: as long as it takes.
    pub(crate) timeout: Option<Duration>,
    /// Whether a request may shorten its time by a `timeout` of its own.
    pub(crate) allow_override: bool,
    /// What becomes of a request whose time is up.
    pub(crate) action: TimeoutAction,
    /// How many requests may wait. None: no bound but the gateway's own.
    pub(crate) max_queue: Option<usize>,
}

/// What becomes of a request that has waited for too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TimeoutAction {
    /// It is answered that it waited for too long.
    #[default]
    Reject,
    /// It runs after all requests whose time is not up.
    Delay,
}
