//! A model version's series under Triton's names: counters of requests, inferences and runs, and
//! of where the time went in microseconds. What each of them means is said in `counters`.

use metrics::{Counter, Gauge, Label, counter, describe_counter, describe_gauge, gauge};
use sluice_protocol::Code;

use crate::counters::{Tallies, Tally};

/// Why requests fail, in Triton's words.
const REASONS: [&str; 4] = ["REJECTED", "CANCELED", "BACKEND", "OTHER"];

/// Counters and the help that Triton gives with them.
const COUNTERS: [(&str, &str); 13] = [
    (SUCCESS, "Number of successful inference requests, all batch sizes"),
    (FAILURE, "Number of failed inference requests, all batch sizes"),
    (COUNT, "Number of inferences performed (does not include cached requests)"),
    (EXECUTIONS, "Number of model executions performed (does not include cached requests)"),
    (REQUEST, "Cumulative inference request duration in microseconds (includes cached requests)"),
    (QUEUE, "Cumulative inference queuing duration in microseconds (includes cached requests)"),
    (INPUT, "Cumulative compute input duration in microseconds (does not include cached requests)"),
    (
        INFER,
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
    ),
    (
        OUTPUT,
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
    ),
    (HITS, "Number of cache hits per model"),
    (HIT_TIME, "Total cache hit duration per model, in microseconds"),
    (MISSES, "Number of cache misses per model"),
    (MISS_TIME, "Total cache miss (insert+lookup) duration per model, in microseconds"),
];

const SUCCESS: &str = "nv_inference_request_success";
const FAILURE: &str = "nv_inference_request_failure";
const COUNT: &str = "nv_inference_count";
const EXECUTIONS: &str = "nv_inference_exec_count";
const REQUEST: &str = "nv_inference_request_duration_us";
const QUEUE: &str = "nv_inference_queue_duration_us";
const INPUT: &str = "nv_inference_compute_input_duration_us";
const INFER: &str = "nv_inference_compute_infer_duration_us";
const OUTPUT: &str = "nv_inference_compute_output_duration_us";
const HITS: &str = "nv_cache_num_hits_per_model";
const HIT_TIME: &str = "nv_cache_hit_duration_per_model";
const MISSES: &str = "nv_cache_num_misses_per_model";
const MISS_TIME: &str = "nv_cache_miss_duration_per_model";
const PENDING: &str = "nv_inference_pending_request_count";
const LOAD_TIME: &str = "nv_model_load_duration_secs";

/// Gives the series their help.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    let help = "Instantaneous number of pending requests awaiting execution per-model.";
    describe_gauge!(PENDING, help);
    describe_gauge!(LOAD_TIME, "Model load time in seconds");
}

/// Handles of one model version's series.
pub(super) struct TritonMetrics {
    success: Counter,
    failure: [Counter; REASONS.len()],
    count: Counter,
    executions: Counter,
    request: Counter,
    queue: Counter,
    input: Counter,
    infer: Counter,
    output: Counter,
    hits: Counter,
    hit_time: Counter,
    misses: Counter,
    miss_time: Counter,
    pending: Gauge,
    load_time: Gauge,
}

impl TritonMetrics {
    pub(super) fn new(labels: &[Label]) -> Self {
        let counter = |name: &'static str| counter!(name, labels.iter());
        Self {
            success: counter(SUCCESS),
            failure: REASONS.map(|reason| {
                let mut labels = labels.to_vec();
                labels.push(Label::from_static_parts(super::REASON, reason));
                counter!(FAILURE, labels)
            }),
            count: counter(COUNT),
            executions: counter(EXECUTIONS),
            request: counter(REQUEST),
            queue: counter(QUEUE),
            input: counter(INPUT),
            infer: counter(INFER),
            output: counter(OUTPUT),
            hits: counter(HITS),
            hit_time: counter(HIT_TIME),
            misses: counter(MISSES),
            miss_time: counter(MISS_TIME),
            pending: gauge!(PENDING, labels.iter()),
            load_time: gauge!(LOAD_TIME, labels.iter()),
        }
    }

    /// Adds what was counted between two moments, and who failed meanwhile.
    pub(super) fn record(&self, before: &Tallies, now: &Tallies, failed: &[u64; Code::ALL.len()]) {
        for (code, &count) in Code::ALL.iter().zip(failed) {
            self.failure[reason(*code)].increment(count);
        }
        self.success.increment(now.success.count - before.success.count);
        self.count.increment(now.inferences - before.inferences);
        self.executions.increment(now.executions - before.executions);
        self.hits.increment(now.cache_hit.count - before.cache_hit.count);
        self.misses.increment(now.cache_miss.count - before.cache_miss.count);
        for (counter, before, now) in [
            (&self.queue, before.queue, now.queue),
            (&self.input, before.input, now.input),
            (&self.infer, before.infer, now.infer),
            (&self.output, before.output, now.output),
            (&self.hit_time, before.cache_hit, now.cache_hit),
            (&self.miss_time, before.cache_miss, now.cache_miss),
            (&self.request, before.success, now.success),
        ] {
            // Rounded when summed, so that no part of a microsecond is ever lost.
            counter.increment(microseconds(now) - microseconds(before));
        }
    }

    /// So many more requests wait for their run to begin, or fewer.
    pub(super) fn change_pending(&self, by: i64) {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 wait")]
        self.pending.increment(by as f64);
    }

    pub(super) fn set_load_time(&self, took: std::time::Duration) {
        self.load_time.set(took.as_secs_f64());
    }
}

const fn microseconds(tally: Tally) -> u64 {
    tally.nanoseconds / 1000
}

/// The index of the reason: refused before it ran since too much waits, given up by its caller,
/// failed while it ran, and all else, mistakes of the caller's for the most part.
const fn reason(code: Code) -> usize {
    match code {
        Code::Overloaded | Code::Unavailable => 0,
        Code::Cancelled => 1,
        Code::Internal => 2,
        Code::NotFound
        | Code::InvalidArgument
        | Code::TooLarge
        | Code::UnsupportedMediaType
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::DeadlineExceeded
        | Code::Unimplemented => 3,
    }
}
