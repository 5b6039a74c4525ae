//! The result of a load: figures by phase and in total, as values, JSON, a table and files.

mod files;
mod text;

pub(crate) use files::write_whole;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use sluice_protocol::Format;

use crate::check::Failure;
use crate::latency::{Latency, LatencyHistogram};
use crate::pace::Pace;
use crate::plot::Curve;
use crate::process::Usage;
use crate::question::ModelRuns;
use crate::record::{Counts, Recorder};

/// What a load did and how it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    format: Format<2>,
    /// What was sent, and where.
    #[serde(flatten)]
    pub offered: OfferedLoad,
    /// The phases in which a request was due, in order.
    pub phases: Vec<PhaseReport>,
    /// All phases together.
    pub total: PhaseReport,
    /// The whole load by question, where there are several.
    pub questions: Vec<PhaseReport>,
    /// How the server ran what it was asked, where it tells that.
    pub models: Vec<ModelRuns>,
    /// What the server took of the machine, where its process is known.
    pub server: Option<ServerCost>,
    #[serde(skip)]
    histogram: LatencyHistogram,
    /// The latencies by share of the requests: of the phases, the questions and in total.
    #[serde(skip)]
    curves: Vec<Curve>,
}

/// The options that a report's figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct OfferedLoad {
    /// The target.
    pub url: String,
    /// How requests were spread over time.
    #[serde(serialize_with = "as_text")]
    pub pace: Pace,
    /// Connections.
    pub connections: usize,
    /// Patience with one request.
    #[serde(rename = "timeout_s", serialize_with = "as_seconds")]
    pub timeout: Duration,
}

/// What a load cost its server.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerCost {
    /// Processor time of a request that was sent, in microseconds; none when none was.
    #[serde(rename = "cpu_us_per_request")]
    pub cpu_per_request: Option<f64>,
    /// The processor time of the whole load, and the rest as it is at its end.
    #[serde(flatten)]
    pub usage: Usage,
}

/// One phase's figures. A request belongs to the phase in which it should have been sent.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseReport {
    /// The phase's name.
    pub name: String,
    /// When it began, from the start of the load.
    #[serde(rename = "start_s", serialize_with = "as_seconds")]
    pub start: Duration,
    /// How long it took, up to the last request's intended time.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Requests that were due: those that ended well, failed or were not sent.
    pub requests: u64,
    /// Requests with a good answer.
    pub ok: u64,
    /// Requests that were sent and failed.
    pub failed: u64,
    /// Requests that found no free connection in time.
    pub unsent: u64,
    /// Failures by kind.
    pub failures: BTreeMap<Failure, FailureCount>,
    /// Connections that had to be opened anew.
    pub reconnects: u64,
    /// Bytes of request bodies.
    pub bytes_sent: u64,
    /// Bytes of answer bodies.
    pub bytes_received: u64,
    /// Good answers per second.
    pub ok_per_second: f64,
    /// From the intended time to the end of the answer: good answers, and timeouts and unsent
    /// requests with the time after which they were given up.
    pub latency: Latency,
    /// The same of the failures other than timeouts.
    pub failed_latency: Latency,
    /// From the intended time to the sending: what the callers waited for a free connection
    /// (and what the generator itself was late).
    pub wait: Latency,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// How many.
    pub count: u64,
    /// What was seen of the first: the start of the answer, or the error.
    pub example: String,
}

impl Report {
    pub(crate) fn new(offered: OfferedLoad, recorder: &Recorder, end: Instant) -> Self {
        let phases = recorder.phases();
        let mut total = Counts::new();
        phases.iter().for_each(|phase| total.add(&phase.counts));
        let start = phases.first().map_or(end, |phase| phase.start);
        let since_start = |at: Instant| at.saturating_duration_since(start);
        let ends = phases.iter().skip(1).map(|phase| phase.start.min(end)).chain([end]);
        let phases = phases.iter().zip(ends).map(|(phase, end)| {
            let duration = end.saturating_duration_since(phase.start);
            PhaseReport::new(phase.name.clone(), since_start(phase.start), duration, &phase.counts)
        });
        let whole = since_start(end);
        let question = |(name, counts): &(String, Counts)| {
            PhaseReport::new(name.clone(), Duration::ZERO, whole, counts)
        };
        let phase_curves = recorder.phases().iter().map(|phase| (&phase.name, &phase.counts));
        let question_curves = recorder.questions().iter().map(|(name, counts)| (name, counts));
        let curves = phase_curves
            .chain(question_curves)
            .map(|(name, counts)| Curve { name: name.clone(), points: counts.latency.curve() });
        let curves = curves.filter(|curve| !curve.points.is_empty()).collect();
        Self {
            format: Format::CURRENT,
            offered,
            questions: recorder.questions().iter().map(question).collect(),
            phases: phases.filter(|phase| phase.requests > 0).collect(),
            total: PhaseReport::new("total".into(), Duration::ZERO, whole, &total),
            models: Vec::new(),
            server: None,
            histogram: total.latency,
            curves,
        }
    }

    /// The same, with what the server took `before` and has taken by `now`.
    pub(crate) fn with_server(mut self, before: Usage, now: Usage) -> Self {
        let answered = self.total.ok + self.total.failed;
        let cpu = now.cpu.saturating_sub(before.cpu);
        let cpu_per_request = (answered > 0).then(|| cpu.as_secs_f64() * 1e6 / answered as f64);
        self.server = Some(ServerCost { cpu_per_request, usage: Usage { cpu, ..now } });
        self
    }

    /// The same, with what the server had counted of its models `before` and by `now`.
    #[must_use]
    pub fn with_models(mut self, before: &[ModelRuns], now: &[ModelRuns]) -> Self {
        let since = |now: &ModelRuns| {
            let before = before.iter().find(|before| before.model == now.model)?;
            Some(now.since(before))
        };
        self.models = now.iter().filter_map(since).collect();
        self
    }

    /// All latencies.
    pub(crate) fn histogram(&self) -> &LatencyHistogram {
        &self.histogram
    }

    /// The phase with this name; the first, when several have it. None if no request was due.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// The report as JSON: durations in seconds (`_s`), latencies in microseconds (`_us`).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a report's keys are text")
    }
}

impl PhaseReport {
    fn new(name: String, start: Duration, duration: Duration, counts: &Counts) -> Self {
        let (ok, failed, unsent) = (counts.ok, counts.failed(), counts.unsent);
        let seconds = duration.as_secs_f64();
        Self {
            name,
            start,
            duration,
            requests: ok + failed + unsent,
            ok,
            failed,
            unsent,
            failures: counts.failures.clone(),
            reconnects: counts.reconnects,
            bytes_sent: counts.bytes_sent,
            bytes_received: counts.bytes_received,
            ok_per_second: if seconds > 0.0 { ok as f64 / seconds } else { 0.0 },
            latency: counts.latency.latency(),
            failed_latency: counts.failed_latency.latency(),
            wait: counts.wait.latency(),
        }
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn as_text<S: Serializer>(pace: &Pace, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pace)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{OfferedLoad, Report};
    use crate::check::{Failure, Fault};
    use crate::connection::Exchange;
    use crate::pace::Pace;
    use crate::record::{Recorder, Sending};

    /// Two phases of a second each, one good answer in the first, a failure in the second, and a
    /// phase in between in which nothing was due.
    fn report() -> Report {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut recorder = Recorder::new("before".into(), start);
        recorder.phase("between".into(), at(1_000));
        recorder.phase("after".into(), at(1_000));
        let refused = Fault { failure: Failure::Status(503), detail: "draining".into() };
        for (intended, outcome) in [(at(0), Ok(())), (at(1_500), Err(refused))] {
            let done = intended + Duration::from_millis(7);
            let exchange = Exchange { done, outcome, bytes_received: 1, reconnects: 0 };
            recorder.exchange(
                Sending { question: 0, intended, sent: intended, bytes_sent: 2 },
                &exchange,
            );
        }
        let offered = OfferedLoad {
            url: "http://localhost/".into(),
            pace: Pace::even(1.0),
            connections: 1,
            timeout: Duration::from_secs(5),
        };
        Report::new(offered, &recorder, at(2_000))
    }

    #[test]
    fn phases_are_told_apart_and_summed_up() {
        let report = report();
        let names: Vec<&str> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["before", "after"]);
        let second = Duration::from_secs(1);
        let after = report.phase("after").unwrap();
        assert_eq!((after.start, after.duration, after.failed), (second, second, 1));
        assert_eq!((report.total.requests, report.total.ok, report.total.failed), (2, 1, 1));
        assert!((report.total.ok_per_second - 0.5).abs() < 1e-9);
        assert!(report.phase("between").is_none());
    }

    #[test]
    fn the_table_has_a_row_a_phase_a_total_and_the_failures() {
        let text = report().to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("before")[..6], ["1", "1", "0", "0", "1.0", "7.003"]);
        assert_eq!(row("after")[..4], ["1", "0", "1", "0"]);
        assert_eq!(row("total")[..4], ["2", "1", "1", "0"]);
        assert!(text.contains("failed, status 503: 1 (the first: draining)"), "{text}");
    }

    #[test]
    fn json_names_units_and_kinds() {
        let json = report().to_json();
        assert_eq!((&json["format"], &json["pace"]), (&2.into(), &"1/s".into()));
        assert_eq!(json["timeout_s"], 5.0);
        assert_eq!(json["phases"][1]["start_s"], 1.0);
        assert_eq!(json["total"]["failures"]["status 503"]["count"], 1);
        let expected = json["total"]["latency"]["max_us"].as_u64().unwrap();
        assert!((7_000..7_010).contains(&expected), "{json}");
    }
}
