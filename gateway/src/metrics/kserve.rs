//! A model's series under the names of KServe's model server: histograms of the steps of a request,
//! over all versions. Buckets are those of our own histograms, finer than that server's.

use metrics::{Histogram, describe_histogram, histogram};
use sluice_protocol::ModelName;

use super::record_durations;
use crate::counters::StageTotals;

/// What the names begin with.
pub(super) const PREFIX: &str = "request_";
const PREPROCESS: &str = "request_preprocess_seconds";
const PREDICT: &str = "request_predict_seconds";
const POSTPROCESS: &str = "request_postprocess_seconds";
const EXPLAIN: &str = "request_explain_seconds";

/// Gives the series their help.
pub(super) fn describe() {
    describe_histogram!(PREPROCESS, "pre-process request latency");
    describe_histogram!(POSTPROCESS, "post-process request latency");
    describe_histogram!(PREDICT, "predict request latency");
    describe_histogram!(EXPLAIN, "explain request latency");
}

/// Handles of one model's series.
pub(super) struct KserveMetrics {
    preprocess: Histogram,
    predict: Histogram,
    postprocess: Histogram,
    /// No model explains itself; the series is there for dashboards that ask for it.
    _explain: Histogram,
}

impl KserveMetrics {
    pub(super) fn new(model: &ModelName) -> Self {
        let of = |name: &'static str| histogram!(name, "model_name" => model.to_string());
        Self {
            preprocess: of(PREPROCESS),
            predict: of(PREDICT),
            postprocess: of(POSTPROCESS),
            _explain: of(EXPLAIN),
        }
    }

    /// Adds what was counted since the last time.
    pub(super) fn record(&self, new: &StageTotals) {
        record_durations(&self.preprocess, &new.preprocess);
        record_durations(&self.predict, &new.predict);
        record_durations(&self.postprocess, &new.postprocess);
    }
}
