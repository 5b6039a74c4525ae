//! What one writer counts: numbers, and durations by bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the duration buckets in seconds: 25 us to 10 s, doubling about.
pub(crate) const BUCKETS: [f64; 18] = [
    25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.5e-3, 25e-3, 50e-3,
    0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The same in nanoseconds.
const BOUNDS: [u64; BUCKETS.len()] = {
    let (mut bounds, mut bucket) = ([0; BUCKETS.len()], 0);
    while bucket < BUCKETS.len() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "10^10 at most"
        )]
        let bound = (BUCKETS[bucket] * 1e9 + 0.5) as u64;
        bounds[bucket] = bound;
        bucket += 1;
    }
    bounds
};

/// A counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        // One writer, so load and store lose nothing and cost no locked instruction. What was
        // written before it is seen by whoever reads this: on x86 such stores are plain ones.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A duration as counters have it: half the size, and added without a thought of seconds. More than
/// 584 years are not told apart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanoseconds(pub(crate) u64);

impl Nanoseconds {
    /// From one moment until a later one.
    pub(crate) fn between(from: Instant, until: Instant) -> Self {
        until.saturating_duration_since(from).into()
    }
}

impl From<Duration> for Nanoseconds {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl std::ops::AddAssign for Nanoseconds {
    fn add_assign(&mut self, more: Self) {
        self.0 = self.0.saturating_add(more.0);
    }
}

/// Durations by bucket, with each bucket's sum so that the whole sum stays exact.
#[derive(Debug, Default)]
pub(super) struct Durations {
    pub(super) counts: [Count; BUCKETS.len() + 1],
    pub(super) nanoseconds: [Count; BUCKETS.len() + 1],
}

impl Durations {
    pub(super) fn add(&self, took: Nanoseconds) {
        let bucket = BOUNDS.partition_point(|&bound| bound < took.0);
        self.counts[bucket].add(1);
        self.nanoseconds[bucket].add(took.0);
    }
}

/// The durations of a request's steps.
#[derive(Debug, Default)]
pub(super) struct Stages {
    pub(super) preprocess: Durations,
    pub(super) predict: Durations,
    pub(super) postprocess: Durations,
}
