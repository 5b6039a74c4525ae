//! Sends what was noted to a collector, in batches, away from the serving cores. What comes faster
//! than it can be sent is dropped and counted; no request waits for it.

use std::time::Duration;

use http::Uri;
use metrics::Counter;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::SpanExporter as _;
use reqwest::Url;
use sluice_registry::outbound;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::recording::Recording;
use super::spans::{Spans, resource};
use crate::error::StartError;
use crate::metrics::Metrics;

/// Requests that wait to be sent. Further ones are dropped.
const MOST_WAITING: usize = 1024;
/// Requests that are sent together.
const MOST_TOGETHER: usize = 64;
/// How long a request waits at most for others to be sent with.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take once the gateway ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to whoever sends.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    waiting: mpsc::Sender<Recording>,
    dropped: Counter,
}

/// Who sends.
#[derive(Debug)]
pub(crate) struct Exporter {
    endpoint: Uri,
    received: mpsc::Receiver<Recording>,
    counts: SpanCounts,
}

/// What became of spans.
#[derive(Debug, Clone)]
pub(crate) struct SpanCounts {
    pub(crate) exported: Counter,
    /// Dropped since too much waited.
    pub(crate) queue_full: Counter,
    /// Dropped since the collector did not take them.
    pub(crate) export_failed: Counter,
}

/// A way, and who sends what comes by it to `endpoint`.
pub(super) fn channel(endpoint: &Uri, metrics: &Metrics) -> (Sink, Exporter) {
    let (waiting, received) = mpsc::channel(MOST_WAITING);
    let counts = metrics.spans();
    let sink = Sink { waiting, dropped: counts.queue_full.clone() };
    (sink, Exporter { endpoint: endpoint.clone(), received, counts })
}

impl Sink {
    /// Takes what was noted, or drops it where there is no room.
    pub(super) fn offer(&self, recording: Recording) {
        if let Err(refused) = self.waiting.try_send(recording) {
            self.dropped.increment(refused.into_inner().spans() as u64);
        }
    }
}

impl Exporter {
    /// Sends what comes until `ended` says that nothing more will, and then what is left.
    pub(crate) fn start(
        self,
        ended: watch::Receiver<bool>,
    ) -> Result<impl Future<Output = ()> + Send, StartError> {
        let Self { endpoint, received, counts } = self;
        let exporter = build(&endpoint).map_err(|reason| {
            StartError::Settings(vec![format!("--trace-otlp {endpoint}: {reason}")])
        })?;
        let sending = Sending { endpoint, exporter, spans: Spans::new(), counts, is_lost: false };
        Ok(sending.run(received, ended))
    }
}

fn build(endpoint: &Uri) -> Result<SpanExporter, String> {
    let url: Url = endpoint.to_string().parse().map_err(|_| "is no URL".to_owned())?;
    let client = outbound::client(&url).timeout(TIMEOUT).build();
    let client = client.map_err(|error| error.to_string())?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.to_string())
        .build()
        .map_err(|error| error.to_string())?;
    exporter.set_resource(&resource());
    Ok(exporter)
}

/// Waits until somebody says so, or nobody can any more.
async fn until_true(said: &mut watch::Receiver<bool>) {
    let _nobody_is_left = said.wait_for(|&said| said).await;
}

/// An exporter at work.
struct Sending {
    endpoint: Uri,
    exporter: SpanExporter,
    spans: Spans,
    counts: SpanCounts,
    /// Whether the collector did not take the last ones.
    is_lost: bool,
}

impl Sending {
    async fn run(
        mut self,
        mut received: mpsc::Receiver<Recording>,
        mut ended: watch::Receiver<bool>,
    ) {
        let mut together = Vec::with_capacity(MOST_TOGETHER);
        let mut ticks = interval(DELAY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*ended.borrow() {
            let room = MOST_TOGETHER - together.len();
            let is_due = tokio::select! {
                () = until_true(&mut ended) => false,
                _ = ticks.tick() => true,
                _ = received.recv_many(&mut together, room) => together.len() == MOST_TOGETHER,
            };
            if is_due {
                self.send(&mut together, &mut ended).await;
            }
        }
        received.close();
        let mut is_tried = false;
        while !together.is_empty() || received.recv_many(&mut together, MOST_TOGETHER).await > 0 {
            // A collector that is away holds up the end once, not for all that waits.
            if is_tried && self.is_lost {
                let spans = together.drain(..).map(|recording| recording.spans() as u64);
                self.counts.export_failed.increment(spans.sum());
            }
            is_tried = true;
            self.send(&mut together, &mut ended).await;
        }
    }

    /// Sends these together, or drops them.
    async fn send(&mut self, together: &mut Vec<Recording>, ended: &mut watch::Receiver<bool>) {
        if together.is_empty() {
            return;
        }
        let spans: Vec<_> =
            together.drain(..).flat_map(|recording| self.spans.of(&recording)).collect();
        let count = spans.len() as u64;
        let time_is_up = async {
            tokio::select! {
                () = sleep(TIMEOUT) => {}
                () = until_true(ended) => sleep(LAST_TIMEOUT).await,
            }
        };
        let failure = tokio::select! {
            outcome = self.exporter.export(spans) => outcome.err().map(|error| error.to_string()),
            () = time_is_up => Some("it does not answer in time".to_owned()),
        };
        match &failure {
            None => self.counts.exported.increment(count),
            Some(_) => self.counts.export_failed.increment(count),
        }
        self.tell(failure);
    }

    /// Says once that the collector is away, and once that it is back.
    fn tell(&mut self, failure: Option<String>) {
        let was_lost = std::mem::replace(&mut self.is_lost, failure.is_some());
        match failure {
            Some(error) if !was_lost => {
                tracing::warn!(
                    collector = %self.endpoint, error,
                    "traces cannot be sent and are dropped; requests are answered all the same"
                );
            }
            None if was_lost => {
                tracing::info!(collector = %self.endpoint, "traces can be sent again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::Uri;

    use super::super::recording::{Arrival, Call, End, Recording, Trace};
    use super::super::sampler::Levels;
    use super::super::spans::Spans;
    use super::{Exporter, MOST_WAITING, channel};
    use crate::inputs::Freshness;
    use crate::metrics::Metrics;

    const LEVELS: Levels = Levels { timestamps: true, tensors: false };

    fn noted(note: impl Fn(&mut Trace), times: usize) -> (Exporter, Metrics) {
        let metrics = Metrics::new(&[]);
        let (sink, exporter) = channel(&Uri::from_static("http://c/v1/traces"), &metrics);
        for number in 1..=times {
            let (arrival, call) = (Arrival(Instant::now()), Call::Grpc { method: "m" });
            let mut trace =
                Trace::begin(sink.clone(), number as u64, LEVELS, arrival, "m", call, None);
            note(&mut trace);
            trace.end(|| End::Grpc { status: tonic::Code::Ok, error: None });
        }
        (exporter, metrics)
    }

    fn only(mut exporter: Exporter) -> Recording {
        exporter.received.try_recv().unwrap()
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (mut exporter, metrics) = noted(|_| {}, MOST_WAITING + 3);
        let dropped = "sluice_dropped_spans_total{reason=\"queue_full\"} 9";
        assert!(metrics.render().contains(dropped), "{}", metrics.render());
        let mut waiting = 0;
        while let Ok(recording) = exporter.received.try_recv() {
            waiting += 1;
            assert_eq!(recording.number, waiting);
        }
        assert_eq!(waiting, MOST_WAITING as u64);
    }

    #[test]
    fn a_look_up_says_how_old_its_features_are() {
        let freshness = Freshness {
            as_of: Some("2011-10-14".to_owned()),
            degraded_views: vec!["sales".to_owned(), "weather".to_owned()],
        };
        let recording = only(noted(|trace| trace.prepared(Some(&freshness)), 1).0);
        let spans = Spans::new().of(&recording);
        let span = spans.iter().find(|span| span.name == "look up").unwrap();
        let said: Vec<_> =
            span.attributes.iter().map(|pair| pair.value.as_str().into_owned()).collect();
        assert_eq!(said, ["2011-10-14", "sales,weather"]);
        assert_eq!(spans.len(), recording.spans());
        assert_eq!(span.parent_span_id, spans[0].span_context.span_id());
    }

    #[test]
    fn a_request_that_is_given_up_is_cancelled() {
        let (sink, exporter) = channel(&Uri::from_static("http://c/v1/traces"), &Metrics::new(&[]));
        let (arrival, call) = (Arrival(Instant::now()), Call::Grpc { method: "m" });
        drop(Trace::begin(sink, 1, LEVELS, arrival, "m", call, None));
        let recording = only(exporter);
        assert_eq!(recording.ended.as_ref().unwrap().1, End::Cancelled);
        let root = Spans::new().of(&recording).remove(0);
        assert!(matches!(root.status, opentelemetry::trace::Status::Error { .. }));
    }
}
