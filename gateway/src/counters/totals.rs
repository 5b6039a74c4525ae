//! Shards merged, as statistics and metrics tell of them.

use sluice_protocol::Code;

use super::Shard;
use super::count::{BUCKETS, Count, Durations};

/// How often something was done, and how long that took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.nanoseconds = self.nanoseconds.wrapping_add(more.nanoseconds);
    }
}

/// Requests and runs, and where their time went. In all but the first the times of a run count
/// once for each request that had a part in it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tallies {
    /// Those that were answered out of the cache included.
    pub(crate) success: Tally,
    pub(crate) fail: Tally,
    /// Those that were answered out of the cache included, at no time.
    pub(crate) queue: Tally,
    pub(crate) input: Tally,
    pub(crate) infer: Tally,
    pub(crate) output: Tally,
    pub(crate) cache_hit: Tally,
    pub(crate) cache_miss: Tally,
    /// Rows of requests that were answered by a run.
    pub(crate) inferences: u64,
    /// Runs whose outputs were of use.
    pub(crate) executions: u64,
}

impl Tallies {
    pub(super) fn add(&mut self, shard: &Shard) {
        let tally = |count: u64, time: &Count| Tally { count, nanoseconds: time.get() };
        // Parts before the whole: see where they are written.
        let ran = shard.ran.get();
        self.inferences += shard.ran_rows.get();
        self.output += tally(ran, &shard.output_time);
        self.infer += tally(ran, &shard.infer_time);
        self.input += tally(ran, &shard.input_time);
        let queue_time = shard.queue_time.get();
        self.cache_hit += tally(shard.cache_hits.get(), &shard.cache_hit_time);
        self.cache_miss += tally(shard.cache_misses.get(), &shard.cache_miss_time);
        let answered_time = shard.answered_time.get();
        let count = shard.answered.get();
        self.success += Tally { count, nanoseconds: answered_time };
        self.queue += Tally { count, nanoseconds: queue_time };
        let failed: u64 = shard.failed.iter().map(Count::get).sum();
        self.fail += tally(failed, &shard.failed_time);
        self.executions += shard.executions.get();
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
    /// Runs that were ended.
    pub(crate) terminated: u64,
    pub(crate) stages: StageTotals,
    pub(crate) tallies: Tallies,
    /// How many requests wait for their run to begin.
    pub(crate) pending: i64,
}

/// The steps of requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct StageTotals {
    pub(crate) preprocess: BucketTotals,
    pub(crate) predict: BucketTotals,
    pub(crate) postprocess: BucketTotals,
}

/// (count, nanoseconds) of each bucket.
pub(crate) type BucketTotals = [(u64, u64); BUCKETS.len() + 1];

impl Totals {
    pub(super) fn add(&mut self, shard: &Shard) {
        self.answered += shard.answered.get();
        for (total, count) in self.failed.iter_mut().zip(&shard.failed) {
            *total += count.get();
        }
        self.degraded += shard.degraded.get();
        self.terminated += shard.terminated.get();
        add_buckets(&mut self.request_time, &shard.request_time);
        self.batches += shard.batches.get();
        self.rows += shard.rows.get();
        add_buckets(&mut self.run_time, &shard.run_time);
        if let Some(stages) = &shard.stages {
            add_buckets(&mut self.stages.preprocess, &stages.preprocess);
            add_buckets(&mut self.stages.predict, &stages.predict);
            add_buckets(&mut self.stages.postprocess, &stages.postprocess);
        }
        self.tallies.add(shard);
        self.pending = self.pending.wrapping_add_unsigned(shard.queued.get());
        self.pending = self.pending.wrapping_sub_unsigned(shard.unqueued.get());
    }

    /// What came since an earlier moment; of tallies and of those that wait it is what there is.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut failed = self.failed;
        for (now, before) in failed.iter_mut().zip(&earlier.failed) {
            *now -= before;
        }
        Self {
            answered: self.answered - earlier.answered,
            failed,
            degraded: self.degraded - earlier.degraded,
            terminated: self.terminated - earlier.terminated,
            request_time: buckets_since(&self.request_time, &earlier.request_time),
            batches: self.batches - earlier.batches,
            rows: self.rows - earlier.rows,
            run_time: buckets_since(&self.run_time, &earlier.run_time),
            stages: StageTotals {
                preprocess: buckets_since(&self.stages.preprocess, &earlier.stages.preprocess),
                predict: buckets_since(&self.stages.predict, &earlier.stages.predict),
                postprocess: buckets_since(&self.stages.postprocess, &earlier.stages.postprocess),
            },
            tallies: self.tallies,
            pending: self.pending,
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
