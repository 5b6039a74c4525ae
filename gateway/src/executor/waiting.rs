//! How many rows wait, which is what a new job is admitted or refused by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of jobs that fit into a run, and rows of larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) small: usize,
    pub(super) large: usize,
}

impl Rows {
    /// These but for `others`, which are some of them.
    pub(super) const fn without(self, others: Self) -> Self {
        Self {
            small: self.small.saturating_sub(others.small),
            large: self.large.saturating_sub(others.large),
        }
    }

    /// How many of these rows would run before a new job of `own` is done. Each kind of job gets
    /// every other run, so a job sees no more rows of the other kind than of its own. Behind no
    /// other large job a large one counts as first: it holds up nobody for longer than a piece.
    pub(super) fn ahead_of(self, own: Self, max_rows: usize) -> usize {
        if own.large == 0 {
            return self.small + self.large.min(self.small + max_rows);
        }
        if self.large == 0 {
            return 0;
        }
        self.large + self.small.min(self.large.saturating_add(own.large))
    }
}

/// The rows that wait for all workers of a deployment together.
#[derive(Debug, Default)]
pub(super) struct WaitingRows {
    small: AtomicUsize,
    large: AtomicUsize,
}

impl WaitingRows {
    /// How many there are at this moment.
    pub(super) fn now(&self) -> Rows {
        let [small, large] = [&self.small, &self.large].map(|rows| rows.load(Ordering::Relaxed));
        Rows { small, large }
    }

    /// Counts rows until they begin to run, or are dropped.
    pub(super) fn enter(self: &Arc<Self>, rows: Rows) -> WaitingGuard {
        self.small.fetch_add(rows.small, Ordering::Relaxed);
        self.large.fetch_add(rows.large, Ordering::Relaxed);
        WaitingGuard { all: self.clone(), rows }
    }
}

/// A job's own part of [`WaitingRows`].
#[derive(Debug)]
pub(super) struct WaitingGuard {
    all: Arc<WaitingRows>,
    rows: Rows,
}

impl WaitingGuard {
    /// So many rows of a large job begin to run.
    pub(super) fn begin(&mut self, rows: usize) {
        let rows = rows.min(self.rows.large);
        self.rows.large -= rows;
        self.all.large.fetch_sub(rows, Ordering::Relaxed);
    }
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.all.small.fetch_sub(self.rows.small, Ordering::Relaxed);
        self.all.large.fetch_sub(self.rows.large, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Rows, WaitingRows};

    const fn rows(small: usize, large: usize) -> Rows {
        Rows { small, large }
    }

    #[test]
    fn a_job_sees_no_more_of_the_other_kind_than_of_its_own() {
        for (small, large, own, ahead) in [
            (0, 0, 1, 0),
            (6, 0, 1, 6),
            // One batch of its own kind, so one piece of the other.
            (0, 1000, 1, 4),
            (6, 1000, 1, 16),
            (6, 3, 1, 9),
            // A large one.
            (0, 0, 100, 0),
            (1000, 0, 100, 0),
            (1000, 50, 100, 200),
            (10, 50, 100, 60),
        ] {
            let waiting = Rows { small, large };
            let own = if own > 4 { rows(0, own) } else { rows(own, 0) };
            assert_eq!(waiting.ahead_of(own, 4), ahead, "{own:?} behind {waiting:?}");
        }
    }

    #[test]
    fn rows_wait_until_they_begin_to_run() {
        let waiting = Arc::new(WaitingRows::default());
        let small = waiting.enter(rows(3, 0));
        let mut large = waiting.enter(rows(0, 10));
        large.begin(4);
        assert_eq!(waiting.now(), rows(3, 6));
        drop(small);
        large.begin(100);
        assert_eq!(waiting.now(), rows(0, 0));
        drop(large);
        assert_eq!(waiting.now(), rows(0, 0));
    }
}
