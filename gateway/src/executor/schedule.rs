//! A deployment's policy at work: the level of a request, its place and its time in the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::policy::{SchedulePolicy, TimeoutAction};
use super::{Entrant, Job, Refusal};
use crate::tenant::Tenant;

/// Levels whose waiting requests are counted each by itself; those behind share a count.
const COUNTED_LEVELS: u64 = 1024;

/// What a request asks of the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// 1 goes first; 0 asks for nothing.
    pub(crate) priority: u64,
    /// How long it may wait until its run begins.
    pub(crate) timeout: Option<Duration>,
    /// On whose behalf it comes.
    pub(crate) tenant: Tenant,
}

/// Until when a request waits for its run to begin. The caller keeps the time, so that it is
/// told of the end then and not when a worker comes to look.
#[derive(Debug)]
pub(crate) struct Patience {
    /// The end of it.
    pub(crate) until: Instant,
    turn: Arc<Turn>,
}

impl Patience {
    /// Gives up waiting; false when the run has begun, which will be answered.
    pub(crate) fn give_up(&self) -> bool {
        self.turn.take()
    }
}

/// Whether a job runs or its caller has given up: what comes first.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicBool);

impl Turn {
    /// True for the first who asks.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// What becomes of a job that waits for too long.
#[derive(Debug, Default)]
pub(super) enum Expiry {
    /// Nothing: it may wait.
    #[default]
    Never,
    /// Nobody wants it any more.
    Reject(Instant, Arc<Turn>),
    /// It goes behind the others of its level.
    Delay(Instant),
}

impl Expiry {
    /// Ends the waiting; false when the caller has given up.
    pub(super) fn begin(&mut self) -> bool {
        match std::mem::take(self) {
            Self::Reject(_, turn) => turn.take(),
            Self::Never | Self::Delay(_) => true,
        }
    }
}

/// A policy, and how many requests wait where it bounds that.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: SchedulePolicy,
    /// By level; empty where nothing is bounded.
    waiting: Vec<Arc<AtomicUsize>>,
}

impl Schedule {
    pub(super) fn new(policy: SchedulePolicy) -> Self {
        let levels = if policy.bounds_queue() {
            usize::try_from(policy.priority_levels.min(COUNTED_LEVELS)).unwrap_or(0) + 1
        } else {
            0
        };
        Self { policy, waiting: (0..levels).map(|_| Arc::default()).collect() }
    }

    /// Says before whom a job goes.
    pub(super) fn rank(&self, job: &mut Job, terms: Terms) {
        job.level = self.policy.level(terms.priority);
        job.tenant = terms.tenant;
    }

    /// One row that goes first among what its tenant sends now.
    pub(super) fn foremost(&self, tenant: Tenant, time: Duration) -> Entrant {
        let due = Instant::now().checked_add(time);
        Entrant { level: self.policy.level(1), tenant, due, rows: 1 }
    }

    /// Gives a job its rank, its place among those that wait and its time, or refuses it since too
    /// many wait.
    pub(super) fn enter(&self, job: &mut Job, terms: Terms) -> Result<Option<Patience>, Refusal> {
        self.rank(job, terms);
        let queue = self.policy.queue(job.level);
        if let Some(most) = queue.max_queue {
            job.place = Some(self.place(job.level, most).ok_or(Refusal::QueueFull(most))?);
        }
        let time = queue.time(terms.timeout);
        let Some(until) = time.and_then(|time| job.submitted.checked_add(time)) else {
            return Ok(None);
        };
        match queue.action {
            TimeoutAction::Reject => {
                let turn = Arc::new(Turn::default());
                job.expiry = Expiry::Reject(until, turn.clone());
                Ok(Some(Patience { until, turn }))
            }
            TimeoutAction::Delay => {
                job.expiry = Expiry::Delay(until);
                Ok(None)
            }
        }
    }

    /// A place among at most `most` of a level.
    fn place(&self, level: u64, most: usize) -> Option<Place> {
        let index = usize::try_from(level.min(COUNTED_LEVELS)).ok()?;
        let waiting = self.waiting.get(index)?;
        let place = Place(waiting.clone());
        // On the way back from a refusal the place is given up again.
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

/// A job's part of the number that waits in its level.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
