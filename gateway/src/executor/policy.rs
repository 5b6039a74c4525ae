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
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Default for QueuePolicy {
    /// The policy of a model for which nobody wrote one. A request's own `timeout` holds: whoever
    /// sends one has no use for a later answer, and without a policy nobody has said otherwise.
    /// (Triton ignores it unless `allow_timeout_override` is set. A policy that is written down
    /// and does not set it is followed here too.)
    fn default() -> Self {
        Self {
            timeout: None,
            allow_override: true,
            action: TimeoutAction::default(),
            max_queue: None,
        }
    }
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

impl SchedulePolicy {
    /// The level in which a request waits that asks for `priority`. As in Triton, 0 and what is
    /// no level here get the default, and where there are no levels all wait in one.
    pub(super) fn level(&self, priority: u64) -> u64 {
        match priority {
            _ if self.priority_levels == 0 => 0,
            1.. if priority <= self.priority_levels => priority,
            _ => self.default_priority.clamp(1, self.priority_levels),
        }
    }

    /// What holds in `level`.
    pub(super) fn queue(&self, level: u64) -> &QueuePolicy {
        self.by_priority.get(&level).unwrap_or(&self.queue)
    }

    /// Whether the number of waiting requests is bounded anywhere.
    pub(super) fn bounds_queue(&self) -> bool {
        let mut all = self.by_priority.values().chain([&self.queue]);
        all.any(|queue| queue.max_queue.is_some())
    }
}

impl QueuePolicy {
    /// How long a request may wait that asks for `own`: it may shorten its time, not lengthen it.
    pub(super) fn time(&self, own: Option<Duration>) -> Option<Duration> {
        let own = own.filter(|_| self.allow_override);
        match (self.timeout, own) {
            (Some(most), Some(own)) => Some(most.min(own)),
            (most, own) => most.or(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{QueuePolicy, SchedulePolicy};

    #[test]
    fn what_is_no_level_gets_the_default() {
        for (levels, default, asked, level) in [
            (0, 0, 0, 0),
            (0, 0, 7, 0),
            (3, 2, 0, 2),
            (3, 2, 1, 1),
            (3, 2, 3, 3),
            (3, 2, 4, 2),
            (3, 2, u64::MAX, 2),
            // A default that is no level is none.
            (3, 0, 0, 1),
            (3, 9, 0, 3),
        ] {
            let policy = SchedulePolicy {
                priority_levels: levels,
                default_priority: default,
                ..SchedulePolicy::default()
            };
            assert_eq!(policy.level(asked), level, "{asked} of {levels}");
        }
    }

    #[test]
    fn a_request_may_shorten_its_time_where_that_is_allowed() {
        for (most, allow_override, own, time) in [
            (None, true, None, None),
            (None, true, Some(5), Some(5)),
            (None, false, Some(5), None),
            (Some(9), true, Some(5), Some(5)),
            (Some(9), true, Some(50), Some(9)),
            (Some(9), false, Some(5), Some(9)),
            (Some(9), true, None, Some(9)),
        ] {
            let [most, own, time] = [most, own, time].map(|ms| ms.map(Duration::from_millis));
            let policy = QueuePolicy { timeout: most, allow_override, ..QueuePolicy::default() };
            assert_eq!(policy.time(own), time, "{own:?} under {policy:?}");
        }
    }
}
