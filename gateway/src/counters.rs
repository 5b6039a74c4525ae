//! What a deployment counts while it serves.
//!
//! Every core and every worker writes a shard of its own: no lock, no locked instruction, no
//! allocation. Shards are merged when somebody scrapes, and handed on as what has come since.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sluice_protocol::Code;

use crate::metrics::DeploymentMetrics;

/// Upper bounds of the duration buckets in seconds: 25 us to 10 s, doubling about.
pub(crate) const BUCKETS: [f64; 18] = [
    25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.5e-3, 25e-3, 50e-3,
    0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// All shards of a deployment.
#[derive(Debug)]
pub(crate) struct Counters {
    cores: Vec<Shard>,
    workers: Vec<Shard>,
    exported: Mutex<Exported>,
}

#[derive(Debug)]
struct Exported {
    totals: Totals,
    metrics: DeploymentMetrics,
}

impl Counters {
    pub(crate) fn new(cores: usize, workers: usize, metrics: DeploymentMetrics) -> Self {
        Self {
            cores: (0..cores).map(|_| Shard::default()).collect(),
            workers: (0..workers).map(|_| Shard::default()).collect(),
            exported: Mutex::new(Exported { totals: Totals::default(), metrics }),
        }
    }

    /// The shard of serving core `index`; only that core's thread may write it.
    pub(crate) fn shard(&self, index: usize) -> &Shard {
        &self.cores[index]
    }

    /// The shard of worker `index`; only that worker's thread may write it.
    pub(crate) fn worker_shard(&self, index: usize) -> &Shard {
        &self.workers[index]
    }

    /// Hands on what was counted since the last call.
    pub(crate) fn export(&self) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::default();
        for shard in self.cores.iter().chain(&self.workers) {
            totals.add(shard);
        }
        exported.metrics.record(&totals.since(&exported.totals));
        exported.totals = totals;
    }
}

impl Drop for Counters {
    /// What was counted after the last scrape is not lost with the version.
    fn drop(&mut self) {
        self.export();
    }
}

/// One thread's counters.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    answered: Count,
    failed: [Count; Code::ALL.len()],
    degraded: Count,
    request_time: Durations,
    batches: Count,
    rows: Count,
    run_time: Durations,
}

impl Shard {
    /// A request that was answered (no code) or failed.
    pub(crate) fn count_request(&self, code: Option<Code>, took: Duration) {
        match code {
            None => self.answered.add(1),
            Some(code) => self.failed[code as usize].add(1),
        }
        self.request_time.add(took);
    }

    /// A request whose features were stale or defaulted.
    pub(crate) fn count_degraded(&self) {
        self.degraded.add(1);
    }

    /// A run.
    pub(crate) fn count_batch(&self, rows: usize, took: Duration) {
        self.batches.add(1);
        self.rows.add(rows as u64);
        self.run_time.add(took);
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, n: u64) {
        // One writer, so load and store lose nothing and cost no locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by bucket, with each bucket's sum so that the whole sum stays exact.
#[derive(Debug, Default)]
struct Durations {
    counts: [Count; BUCKETS.len() + 1],
    nanoseconds: [Count; BUCKETS.len() + 1],
}

impl Durations {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|&bound| bound < seconds);
        self.counts[bucket].add(1);
        self.nanoseconds[bucket].add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Merged shards at one moment, or the difference of two such.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) answered: u64,
    pub(crate) failed: [u64; Code::ALL.len()],
    pub(crate) degraded: u64,
    pub(crate) request_time: BucketTotals,
    pub(crate) batches: u64,
    pub(crate) rows: u64,
    pub(crate) run_time: BucketTotals,
}

/// (count, nanoseconds) of each bucket.
pub(crate) type BucketTotals = [(u64, u64); BUCKETS.len() + 1];

impl Totals {
    fn add(&mut self, shard: &Shard) {
        self.answered += shard.answered.get();
        for (total, count) in self.failed.iter_mut().zip(&shard.failed) {
            *total += count.get();
        }
        self.degraded += shard.degraded.get();
        add_buckets(&mut self.request_time, &shard.request_time);
        self.batches += shard.batches.get();
        self.rows += shard.rows.get();
        add_buckets(&mut self.run_time, &shard.run_time);
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut failed = self.failed;
        for (now, before) in failed.iter_mut().zip(&earlier.failed) {
            *now -= before;
        }
        Self {
            answered: self.answered - earlier.answered,
            failed,
            degraded: self.degraded - earlier.degraded,
            request_time: buckets_since(&self.request_time, &earlier.request_time),
            batches: self.batches - earlier.batches,
            rows: self.rows - earlier.rows,
            run_time: buckets_since(&self.run_time, &earlier.run_time),
        }
    }
}

fn add_buckets(totals: &mut BucketTotals, durations: &Durations) {
    for (bucket, total) in totals.iter_mut().enumerate() {
        total.0 += durations.counts[bucket].get();
        total.1 += durations.nanoseconds[bucket].get();
    }
}

fn buckets_since(now: &BucketTotals, earlier: &BucketTotals) -> BucketTotals {
    std::array::from_fn(|bucket| {
        // A shard's count and sum are two stores; a scrape between them may see only one.
        (
            now[bucket].0.saturating_sub(earlier[bucket].0),
            now[bucket].1.saturating_sub(earlier[bucket].1),
        )
    })
}
