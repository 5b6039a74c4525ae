//! The gateway's metrics: every name once, handles made once, rendered when scraped.

mod exposition;
mod kserve;
mod names;
mod triton;

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use sluice_protocol::{Code, ModelName, ModelVersion};

use crate::counters::{BUCKETS, BucketTotals, Totals};
use crate::trace::SpanCounts;
pub(crate) use exposition::Exposition;
use kserve::KserveMetrics;
use names::Chosen;
pub use names::MetricNames;
use triton::TritonMetrics;

/// Labels of a deployment's series.
const MODEL: &str = "model";
const VERSION: &str = "version";
const CODE: &str = "code";
const REASON: &str = "reason";
/// Labels that are taken: those of a deployment's series, and those that histograms and summaries
/// have.
pub(crate) const OWN_LABELS: [&str; 6] = [MODEL, VERSION, CODE, REASON, "le", "quantile"];

/// One gateway's recorder. It is not the process's global one, so that a process can hold
/// several gateways, as the tests do.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    unrouted: [Counter; Code::ALL.len()],
    ready: Gauge,
    failed_handshakes: Counter,
    refused_connections: Counter,
    chosen: Chosen,
}

impl Metrics {
    /// Models are told of by these names, or by our own when there are none. The gateway's other
    /// metrics always have our own.
    pub(crate) fn new(names: &[MetricNames]) -> Self {
        let chosen = Chosen::new(names);
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &BUCKETS)
            .and_then(|builder| {
                let prefix = Matcher::Prefix(kserve::PREFIX.to_owned());
                builder.set_buckets_for_metric(prefix, &BUCKETS)
            })
            .expect("the buckets are not empty")
            .build_recorder();
        with_local_recorder(&recorder, || {
            if chosen.triton {
                triton::describe();
            }
            if chosen.kserve {
                kserve::describe();
            }
        });
        let handle = recorder.handle();
        let (unrouted, ready, failed_handshakes, refused_connections) =
            with_local_recorder(&recorder, || {
                let unrouted = Code::ALL.map(
                    |code| counter!("sluice_unrouted_requests_total", "code" => code.as_str()),
                );
                let failed_handshakes = counter!("sluice_failed_handshakes_total");
                let refused_connections = counter!("sluice_refused_connections_total");
                (unrouted, gauge!("sluice_ready"), failed_handshakes, refused_connections)
            });
        Self { recorder, handle, unrouted, ready, failed_handshakes, refused_connections, chosen }
    }

    /// The handles of one deployment, with labels of its operator's own.
    pub(crate) fn deployment(
        &self,
        model: &ModelName,
        version: ModelVersion,
        tags: &HashMap<String, String>,
    ) -> DeploymentMetrics {
        let own = [(MODEL, model.to_string()), (VERSION, version.to_string())];
        let mut labels = own.map(|(key, value)| Label::new(key, value)).to_vec();
        labels.extend(tags.iter().map(|(key, value)| Label::new(key.clone(), value.clone())));
        let Chosen { sluice, triton, kserve } = self.chosen;
        with_local_recorder(&self.recorder, || DeploymentMetrics {
            sluice: sluice.then(|| SluiceMetrics::new(&labels)),
            triton: triton.then(|| TritonMetrics::new(&labels)),
            kserve: kserve.then(|| KserveMetrics::new(model)),
        })
    }

    /// That a version runs on these execution providers, as long as what is given back is kept.
    pub(crate) fn deployment_info(
        &self,
        model: &ModelName,
        version: ModelVersion,
        providers: &[String],
    ) -> DeploymentInfo {
        let own = [(MODEL, model.to_string()), (VERSION, version.to_string())];
        let mut labels = own.map(|(key, value)| Label::new(key, value)).to_vec();
        labels.push(Label::new("provider", providers.join(",")));
        with_local_recorder(&self.recorder, || {
            let info = gauge!("sluice_deployment_info", labels);
            info.increment(1);
            DeploymentInfo(info)
        })
    }

    /// A version that was refused.
    pub(crate) fn count_refused_load(&self, model: &ModelName) {
        with_local_recorder(&self.recorder, || {
            counter!("sluice_refused_versions_total", "model" => model.as_str().to_owned())
                .increment(1);
        });
    }

    /// Which version answers for `model` when none is named.
    pub(crate) fn set_default_version(&self, model: &ModelName, version: Option<ModelVersion>) {
        #[expect(clippy::cast_precision_loss, reason = "versions stay far below 2^53")]
        let number = version.map_or(0.0, |version| version.0 as f64);
        with_local_recorder(&self.recorder, || {
            gauge!("sluice_default_version", "model" => model.as_str().to_owned()).set(number);
        });
    }

    /// A request that reached no deployment.
    pub(crate) fn count_unrouted(&self, code: Code) {
        self.unrouted[code as usize].increment(1);
    }

    /// A TLS connection that did not come about.
    pub(crate) fn count_failed_handshake(&self) {
        self.failed_handshakes.increment(1);
    }

    /// A connection that was closed at once, since there were as many as there may be and none idle.
    pub(crate) fn count_refused_connection(&self) {
        self.refused_connections.increment(1);
    }

    /// When the first certificate in use expires, in seconds since 1970.
    pub(crate) fn set_certificate_expiry(&self, at: i64) {
        #[expect(clippy::cast_precision_loss, reason = "dates stay far below 2^53 seconds")]
        let at = at as f64;
        with_local_recorder(&self.recorder, || {
            gauge!("sluice_certificate_expiry_timestamp_seconds").set(at);
        });
    }

    /// Counters of spans, by what became of them.
    pub(crate) fn spans(&self) -> SpanCounts {
        let dropped = |reason| counter!("sluice_dropped_spans_total", "reason" => reason);
        with_local_recorder(&self.recorder, || SpanCounts {
            exported: counter!("sluice_exported_spans_total"),
            queue_full: dropped("queue_full"),
            export_failed: dropped("export_failed"),
        })
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.set(f64::from(u8::from(ready)));
    }

    /// Sorts recorded durations into their buckets, so that they do not pile up.
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The exposition, as Prometheus' text.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A deployment in the metrics. While one takes the place of another of its version, both count.
pub(crate) struct DeploymentInfo(Gauge);

impl std::fmt::Debug for DeploymentInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeploymentInfo").finish_non_exhaustive()
    }
}

impl Drop for DeploymentInfo {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Handles of one model version's series, under the names that were chosen.
pub(crate) struct DeploymentMetrics {
    sluice: Option<SluiceMetrics>,
    triton: Option<TritonMetrics>,
    kserve: Option<KserveMetrics>,
}

impl DeploymentMetrics {
    /// Whether the steps of a request are told apart.
    pub(crate) const fn tell_stages(&self) -> bool {
        self.kserve.is_some()
    }

    /// Adds what was counted between two moments.
    pub(crate) fn record(&self, before: &Totals, now: &Totals) {
        let new = now.since(before);
        if let Some(sluice) = &self.sluice {
            sluice.record(&new);
        }
        if let Some(triton) = &self.triton {
            triton.record(&before.tallies, &now.tallies, &new.failed);
            triton.change_pending(now.pending - before.pending);
        }
        if let Some(kserve) = &self.kserve {
            kserve.record(&new.stages);
        }
    }

    /// Those that waited at last are gone with their version.
    pub(crate) fn end(&self, last: &Totals) {
        if let Some(triton) = &self.triton {
            triton.change_pending(-last.pending);
        }
    }

    /// How long the version took to load.
    pub(crate) fn set_load_time(&self, took: Duration) {
        if let Some(triton) = &self.triton {
            triton.set_load_time(took);
        }
    }
}

/// The same under our own names.
struct SluiceMetrics {
    answered: Counter,
    failed: [Counter; Code::ALL.len()],
    degraded: Counter,
    request_time: Histogram,
    batches: Counter,
    rows: Counter,
    run_time: Histogram,
    terminated: Counter,
}

impl SluiceMetrics {
    fn new(labels: &[Label]) -> Self {
        let with_code = |code: &'static str| {
            let mut labels = labels.to_vec();
            labels.push(Label::from_static_parts(CODE, code));
            labels
        };
        Self {
            answered: counter!("sluice_requests_total", with_code("ok")),
            failed: Code::ALL
                .map(|code| counter!("sluice_requests_total", with_code(code.as_str()))),
            degraded: counter!("sluice_degraded_requests_total", labels.iter()),
            request_time: histogram!("sluice_request_duration_seconds", labels.iter()),
            batches: counter!("sluice_batches_total", labels.iter()),
            rows: counter!("sluice_rows_total", labels.iter()),
            run_time: histogram!("sluice_run_duration_seconds", labels.iter()),
            terminated: counter!("sluice_terminated_runs_total", labels.iter()),
        }
    }

    fn record(&self, new: &Totals) {
        self.answered.increment(new.answered);
        for (counter, &count) in self.failed.iter().zip(&new.failed) {
            counter.increment(count);
        }
        self.degraded.increment(new.degraded);
        self.batches.increment(new.batches);
        self.rows.increment(new.rows);
        self.terminated.increment(new.terminated);
        record_durations(&self.request_time, &new.request_time);
        record_durations(&self.run_time, &new.run_time);
    }
}

impl std::fmt::Debug for DeploymentMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeploymentMetrics").finish_non_exhaustive()
    }
}

/// Records each bucket's durations at their mean, which lies in the bucket: counts and sum
/// come out as they were.
fn record_durations(histogram: &Histogram, buckets: &BucketTotals) {
    for (bucket, &(count, nanoseconds)) in buckets.iter().enumerate() {
        let Ok(times) = usize::try_from(count) else { continue };
        if times == 0 {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean of nanoseconds")]
        let mean = nanoseconds as f64 / count as f64 / 1e9;
        let bound = BUCKETS.get(bucket).copied().unwrap_or(f64::INFINITY);
        histogram.record_many(mean.min(bound), times);
    }
}
