//! What happened to each request, counted by the phase in which it should have been sent.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::check::{Failure, Fault};
use crate::connection::Exchange;
use crate::latency::LatencyHistogram;
use crate::report::FailureCount;

/// Counts of all phases, in order of their starts.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    phases: Vec<Phase>,
}

/// Counts of one phase.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) start: Instant,
    pub(crate) counts: Counts,
}

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// From the intended time to the end of a good answer, or to the end of patience: leaving out
    /// timeouts and what could not be sent would flatter the slowest server most.
    pub(crate) latency: LatencyHistogram,
    /// The same of all other failures; apart, since quick refusals would flatter the rest.
    pub(crate) failed_latency: LatencyHistogram,
    /// From the intended time to the sending.
    pub(crate) wait: LatencyHistogram,
    pub(crate) ok: u64,
    pub(crate) failures: BTreeMap<Failure, FailureCount>,
    pub(crate) unsent: u64,
    pub(crate) reconnects: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Recorder {
    pub(crate) fn new(name: String, start: Instant) -> Self {
        Self { phases: vec![Phase { name, start, counts: Counts::new() }] }
    }

    /// Starts a phase.
    pub(crate) fn phase(&mut self, name: String, start: Instant) {
        self.phases.push(Phase { name, start, counts: Counts::new() });
    }

    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Counts a request that was sent at `sent` with a body of `bytes_sent`.
    pub(crate) fn exchange(
        &mut self,
        intended: Instant,
        sent: Instant,
        bytes_sent: u64,
        exchange: Exchange,
    ) {
        let counts = self.counts_at(intended);
        counts.wait.record(sent.saturating_duration_since(intended));
        counts.reconnects += exchange.reconnects;
        counts.bytes_sent += bytes_sent;
        counts.bytes_received += exchange.bytes_received;
        let latency = exchange.done.saturating_duration_since(intended);
        match exchange.outcome {
            Ok(()) => {
                counts.ok += 1;
                counts.latency.record(latency);
            }
            Err(Fault { failure, detail }) => {
                let late = failure == Failure::Timeout;
                let histogram = if late { &mut counts.latency } else { &mut counts.failed_latency };
                histogram.record(latency);
                let first = || FailureCount { count: 0, example: detail };
                counts.failures.entry(failure).or_insert_with(first).count += 1;
            }
        }
    }

    /// Counts a request that could not be sent in time and was given up at `given_up`.
    pub(crate) fn unsent(&mut self, intended: Instant, given_up: Instant) {
        let counts = self.counts_at(intended);
        counts.unsent += 1;
        counts.latency.record(given_up.saturating_duration_since(intended));
    }

    fn counts_at(&mut self, intended: Instant) -> &mut Counts {
        let index = self.phases.iter().rposition(|phase| phase.start <= intended).unwrap_or(0);
        &mut self.phases[index].counts
    }
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            latency: LatencyHistogram::new(),
            failed_latency: LatencyHistogram::new(),
            wait: LatencyHistogram::new(),
            ok: 0,
            failures: BTreeMap::new(),
            unsent: 0,
            reconnects: 0,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.failed_latency.add(&other.failed_latency);
        self.wait.add(&other.wait);
        self.ok += other.ok;
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        for (failure, theirs) in &other.failures {
            let first = || FailureCount { count: 0, example: theirs.example.clone() };
            self.failures.entry(*failure).or_insert_with(first).count += theirs.count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counts, Recorder};
    use crate::check::{Failure, Fault};
    use crate::connection::Exchange;

    fn exchange(done: Instant, failure: Option<Failure>) -> Exchange {
        let fault = |failure| Fault { failure, detail: format!("seen {failure}") };
        Exchange {
            done,
            outcome: failure.map_or(Ok(()), |f| Err(fault(f))),
            bytes_received: 3,
            reconnects: 1,
        }
    }

    #[test]
    fn a_request_belongs_to_the_phase_of_its_intended_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut recorder = Recorder::new("a".into(), start);
        recorder.phase("b".into(), at(100));
        // Intended in the first phase, answered in the second.
        recorder.exchange(at(99), at(150), 2, exchange(at(200), None));
        recorder.exchange(at(100), at(100), 2, exchange(at(101), None));
        recorder.unsent(at(50), at(300));
        let [a, b] = recorder.phases() else { panic!("two phases") };
        assert_eq!((a.counts.ok, a.counts.unsent, b.counts.ok, b.counts.unsent), (1, 1, 1, 0));
        assert_eq!(a.counts.latency.latency().count, 2, "the answered and the unsent");
        assert!(a.counts.latency.latency().max >= Duration::from_millis(250));
        assert!(a.counts.wait.latency().max >= Duration::from_millis(51));
    }

    #[test]
    fn timeouts_count_as_latency_and_other_failures_apart() {
        let start = Instant::now();
        let done = start + Duration::from_millis(9);
        let mut recorder = Recorder::new("a".into(), start);
        for failure in
            [None, Some(Failure::Timeout), Some(Failure::Status(503)), Some(Failure::Status(503))]
        {
            recorder.exchange(start, start, 2, exchange(done, failure));
        }
        let mut total = Counts::new();
        total.add(&recorder.phases()[0].counts);
        total.add(&recorder.phases()[0].counts);
        assert_eq!((total.ok, total.failed(), total.reconnects), (2, 6, 8));
        assert_eq!((total.bytes_sent, total.bytes_received), (16, 24));
        assert_eq!(total.failures[&Failure::Status(503)].count, 4);
        assert_eq!(total.failures[&Failure::Status(503)].example, "seen status 503");
        assert_eq!((total.latency.latency().count, total.failed_latency.latency().count), (4, 4));
    }
}
