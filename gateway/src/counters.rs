//! What a deployment counts while it serves.
//!
//! Every core and every worker writes a shard of its own: no lock, no locked instruction, no
//! allocation. Shards are merged when somebody scrapes, and handed on as what has come since.

mod count;
mod retries;
mod sizes;
mod totals;

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sluice_protocol::Code;

use crate::error::RetryHint;
use crate::executor::Times;
use crate::metrics::DeploymentMetrics;
pub(crate) use count::{BUCKETS, Nanoseconds};
use count::{Count, Durations, Stages};
use retries::Retries;
pub(crate) use sizes::SizeTotals;
use sizes::Sizes;
pub(crate) use totals::{BucketTotals, StageTotals, Tallies, Tally, Totals};

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
    /// For so many serving cores, and so many workers. `cores_run` says whether the cores run
    /// batches, too.
    pub(crate) fn new(
        cores: usize,
        workers: usize,
        cores_run: bool,
        metrics: DeploymentMetrics,
    ) -> Self {
        let stages = metrics.tell_stages();
        Self {
            cores: (0..cores).map(|_| Shard::new(cores_run, stages)).collect(),
            workers: (0..workers).map(|_| Shard::new(true, false)).collect(),
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

    /// What was counted up to this moment. It only ever grows.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = Statistics::default();
        let mut last = 0;
        for shard in self.shards() {
            statistics.tallies.add(shard);
            shard.sizes.add_to(&mut statistics.sizes);
            last = last.max(shard.last_execution.get());
        }
        let (_, start) = *START;
        statistics.last_execution = (last > 0).then(|| start + Duration::from_nanos(last));
        statistics
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.cores.iter().chain(&self.workers)
    }

    /// Hands on what was counted since the last call.
    pub(crate) fn export(&self) {
        let mut exported = self.exported();
        let mut totals = Totals::default();
        self.shards().for_each(|shard| totals.add(shard));
        exported.metrics.record(&exported.totals, &totals);
        exported.totals = totals;
    }

    /// How long the version took to load.
    pub(crate) fn set_load_time(&self, took: Duration) {
        self.exported().metrics.set_load_time(took);
    }

    fn exported(&self) -> std::sync::MutexGuard<'_, Exported> {
        self.exported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counters {
    /// What was counted after the last scrape is not lost with the version.
    fn drop(&mut self) {
        self.export();
        let exported = self.exported();
        exported.metrics.end(&exported.totals);
    }
}

/// A moment by the clock that never steps back, and the time of day then. Moments are counted from
/// it, so that none comes before an earlier one and none needs a look at the time of day.
static START: LazyLock<(Instant, SystemTime)> =
    LazyLock::new(|| (Instant::now(), SystemTime::now()));

/// One thread's counters. Of a request all is written by its serving core, when it is over; of
/// runs by whoever runs them.
#[derive(Debug)]
pub(crate) struct Shard {
    answered: Count,
    answered_time: Count,
    failed: [Count; Code::ALL.len()],
    failed_time: Count,
    degraded: Count,
    request_time: Durations,
    /// The steps of a request, where they are told apart.
    stages: Option<Box<Stages>>,
    /// Jobs that came to wait.
    queued: Count,
    /// Jobs that no longer wait, counted by whoever took them.
    unqueued: Count,
    /// Answered requests that ran, their rows, and where their time went.
    ran: Count,
    ran_rows: Count,
    queue_time: Count,
    input_time: Count,
    infer_time: Count,
    output_time: Count,
    cache_hits: Count,
    cache_hit_time: Count,
    cache_misses: Count,
    cache_miss_time: Count,
    batches: Count,
    rows: Count,
    run_time: Durations,
    terminated: Count,
    executions: Count,
    /// Nanoseconds since [`START`]; 0 as long as there was none.
    last_execution: Count,
    sizes: Sizes,
    retries: Retries,
}

impl Default for Shard {
    fn default() -> Self {
        Self::new(true, false)
    }
}

impl Shard {
    /// For a thread that runs batches, or for one that does not; with the steps of a request told
    /// apart, or not.
    fn new(runs: bool, stages: bool) -> Self {
        LazyLock::force(&START);
        Self {
            answered: Count::default(),
            answered_time: Count::default(),
            failed: Default::default(),
            failed_time: Count::default(),
            degraded: Count::default(),
            request_time: Durations::default(),
            stages: stages.then(Box::default),
            queued: Count::default(),
            unqueued: Count::default(),
            ran: Count::default(),
            ran_rows: Count::default(),
            queue_time: Count::default(),
            input_time: Count::default(),
            infer_time: Count::default(),
            output_time: Count::default(),
            cache_hits: Count::default(),
            cache_hit_time: Count::default(),
            cache_misses: Count::default(),
            cache_miss_time: Count::default(),
            batches: Count::default(),
            rows: Count::default(),
            run_time: Durations::default(),
            terminated: Count::default(),
            executions: Count::default(),
            last_execution: Count::default(),
            sizes: Sizes::new(runs),
            retries: Retries::default(),
        }
    }

    /// A request that was answered, by a run of so many of its rows or out of the cache.
    pub(crate) fn count_answered(&self, took: Duration, ran: Option<(usize, &Times)>) {
        // The whole before its parts: they are read the other way round, so that no reader finds
        // parts that are more than the whole.
        self.answered.add(1);
        let took = Nanoseconds::from(took);
        self.answered_time.add(took.0);
        self.request_time.add(took);
        if let Some((rows, times)) = ran {
            self.queue_time.add(times.queue.0);
            self.input_time.add(times.input.0);
            self.infer_time.add(times.infer.0);
            self.output_time.add(times.output.0);
            self.ran_rows.add(rows as u64);
            self.ran.add(1);
        }
    }

    /// What a caller is told who is refused since work of so long waits.
    pub(crate) fn retry_hint(&self, waiting: Duration) -> RetryHint {
        self.retries.hint(self.answered.get(), waiting)
    }

    /// Whether somebody wants to know of the steps of a request.
    pub(crate) const fn tells_stages(&self) -> bool {
        self.stages.is_some()
    }

    /// The steps of an answered request, if they are told apart: reading it and looking its
    /// features up, waiting and running, choosing what is answered.
    pub(crate) fn count_stages(&self, [preprocess, predict, postprocess]: [Nanoseconds; 3]) {
        if let Some(stages) = &self.stages {
            stages.preprocess.add(preprocess);
            stages.predict.add(predict);
            stages.postprocess.add(postprocess);
        }
    }

    /// A job that waits from now on.
    pub(crate) fn count_queued(&self) {
        self.queued.add(1);
    }

    /// Jobs that wait no longer: they run, or nobody wants them any more.
    pub(crate) fn count_unqueued(&self, jobs: usize) {
        self.unqueued.add(jobs as u64);
    }

    /// A request that failed.
    pub(crate) fn count_failed(&self, code: Code, took: Duration) {
        self.failed[code as usize].add(1);
        let took = Nanoseconds::from(took);
        self.failed_time.add(took.0);
        self.request_time.add(took);
    }

    /// A look into the cache that found the answer.
    pub(crate) fn count_cache_hit(&self, took: Duration) {
        self.cache_hits.add(1);
        self.cache_hit_time.add(Nanoseconds::from(took).0);
    }

    /// A look into the cache that found nothing, and the time to put the answer there.
    pub(crate) fn count_cache_miss(&self, took: Duration) {
        self.cache_misses.add(1);
        self.cache_miss_time.add(Nanoseconds::from(took).0);
    }

    /// A request whose features were stale or defaulted.
    pub(crate) fn count_degraded(&self) {
        self.degraded.add(1);
    }

    /// A run, whatever came of it.
    pub(crate) fn count_batch(&self, rows: usize, took: Nanoseconds) {
        self.batches.add(1);
        self.rows.add(rows as u64);
        self.run_time.add(took);
    }

    /// A run that was ended, since it outlasted its bound.
    pub(crate) fn count_terminated(&self) {
        self.terminated.add(1);
    }

    /// How many such runs there were.
    pub(crate) fn terminated(&self) -> u64 {
        self.terminated.get()
    }

    /// A run whose outputs were of use, and that was over at `ended`.
    pub(crate) fn count_execution(&self, rows: usize, times: &Times, ended: Instant) {
        self.executions.add(1);
        self.sizes.add(rows, times);
        let (start, _) = *START;
        self.last_execution.set(Nanoseconds::between(start, ended).0.max(1));
    }
}

/// What Triton's statistics tell of a model version.
#[derive(Debug, Default, Clone)]
pub(crate) struct Statistics {
    pub(crate) tallies: Tallies,
    /// When the last run was over.
    pub(crate) last_execution: Option<SystemTime>,
    /// By the number of rows of a run.
    pub(crate) sizes: BTreeMap<u64, SizeTotals>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant, SystemTime};

    use sluice_protocol::{Code, ModelName, ModelVersion};

    use super::{Counters, Nanoseconds, Tally};
    use crate::executor::Times;
    use crate::metrics::Metrics;

    fn counters(cores: usize, workers: usize) -> Counters {
        let name = "m".parse::<ModelName>().unwrap();
        let metrics = Metrics::new(&[]).deployment(&name, ModelVersion(1), &HashMap::new());
        Counters::new(cores, workers, workers == 0, metrics)
    }

    fn times(nanoseconds: u64) -> Times {
        let time = Nanoseconds(nanoseconds);
        Times { queue: time, input: time, infer: time, output: time }
    }

    #[test]
    fn all_shards_count_together() {
        let counters = counters(2, 1);
        let tally = |count, nanoseconds| Tally { count, nanoseconds };
        counters.shard(0).count_answered(Duration::from_nanos(100), Some((3, &times(10))));
        counters.shard(1).count_answered(Duration::from_nanos(50), Some((4, &times(5))));
        counters.shard(1).count_answered(Duration::from_nanos(7), None);
        counters.shard(1).count_cache_hit(Duration::from_nanos(6));
        counters.shard(0).count_cache_miss(Duration::from_nanos(9));
        counters.shard(0).count_failed(Code::Internal, Duration::from_nanos(1000));
        counters.worker_shard(0).count_execution(7, &times(15), Instant::now());
        let statistics = counters.statistics();
        let tallies = statistics.tallies;
        assert_eq!(tallies.success, tally(3, 157));
        assert_eq!(tallies.fail, tally(1, 1000));
        assert_eq!(tallies.queue, tally(3, 15), "the one of the cache included");
        for part in [tallies.input, tallies.infer, tallies.output] {
            assert_eq!(part, tally(2, 15));
        }
        assert_eq!((tallies.cache_hit, tallies.cache_miss), (tally(1, 6), tally(1, 9)));
        assert_eq!((tallies.inferences, tallies.executions), (7, 1));
        assert_eq!(statistics.sizes[&7].infer, tally(1, 15));
        let age = SystemTime::now().duration_since(statistics.last_execution.unwrap()).unwrap();
        assert!(age < Duration::from_secs(10), "{age:?}");
    }

    /// Whenever it is read, the whole is no less than its parts, and nothing shrinks.
    #[test]
    fn a_reader_never_finds_parts_that_are_more_than_the_whole() {
        let counters = Arc::new(counters(1, 0));
        let over = Arc::new(AtomicBool::new(false));
        let (written, end) = (counters.clone(), over.clone());
        let writer = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                written.shard(0).count_answered(Duration::from_nanos(40), Some((1, &times(10))));
            }
        });
        let mut before = counters.statistics().tallies;
        for _ in 0..10_000 {
            let now = counters.statistics().tallies;
            let parts = [now.queue, now.input, now.infer, now.output];
            let sum: u64 = parts.iter().map(|part| part.nanoseconds).sum();
            assert!(sum <= now.success.nanoseconds, "{now:?}");
            assert!(now.success.nanoseconds >= before.success.nanoseconds);
            assert!(now.infer.count >= before.infer.count && now.infer.count <= now.success.count);
            before = now;
        }
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}
