//! What happened to each request, counted by the phase in which it should have been sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::check::{Failure, Fault};
use crate::connection::Exchange;
use crate::latency::LatencyHistogram;
use crate::report::FailureCount;

/// Counts of all phases, in order of their starts, and of all questions.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    phases: Vec<Phase>,
    /// By name, where there are several.
    questions: Vec<(String, Counts)>,
}

/// Counts of one phase.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) start: Instant,
    pub(crate) counts: Counts,
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    /// Which of the questions it is.
    pub(crate) question: usize,
    /// When it should have been sent.
    pub(crate) intended: Instant,
    pub(crate) sent: Instant,
    /// The length of its body.
    pub(crate) bytes_sent: u64,
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
        let phases = vec![Phase { name, start, counts: Counts::new() }];
        Self { phases, questions: Vec::new() }
    }

    /// Counts several questions apart as well.
    pub(crate) fn with_questions(mut self, names: impl ExactSizeIterator<Item = String>) -> Self {
        if names.len() > 1 {
            self.questions = names.map(|name| (name, Counts::new())).collect();
        }
        self
    }

    pub(crate) fn questions(&self) -> &[(String, Counts)] {
        &self.questions
    }

    /// Starts a phase.
    pub(crate) fn phase(&mut self, name: String, start: Instant) {
        self.phases.push(Phase { name, start, counts: Counts::new() });
    }

    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Counts a request that was sent and answered, or not.
    pub(crate) fn exchange(&mut self, sending: Sending, exchange: &Exchange) {
        self.counts_at(sending.intended).exchange(sending, exchange);
        if let Some((_, counts)) = self.questions.get_mut(sending.question) {
            counts.exchange(sending, exchange);
        }
    }

    /// Counts a request that could not be sent in time and was given up at `given_up`.
    pub(crate) fn unsent(&mut self, question: usize, intended: Instant, given_up: Instant) {
        let waited = given_up.saturating_duration_since(intended);
        self.counts_at(intended).unsent(waited);
        if let Some((_, counts)) = self.questions.get_mut(question) {
            counts.unsent(waited);
        }
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

    fn exchange(&mut self, sending: Sending, exchange: &Exchange) {
        let Sending { intended, sent, bytes_sent, .. } = sending;
        self.wait.record(sent.saturating_duration_since(intended));
        self.reconnects += exchange.reconnects;
        self.bytes_sent += bytes_sent;
        self.bytes_received += exchange.bytes_received;
        let latency = exchange.done.saturating_duration_since(intended);
        match &exchange.outcome {
            Ok(()) => {
                self.ok += 1;
                self.latency.record(latency);
            }
            Err(Fault { failure, detail }) => {
                let late = *failure == Failure::Timeout;
                let histogram = if late { &mut self.latency } else { &mut self.failed_latency };
                histogram.record(latency);
                let first = || FailureCount { count: 0, example: detail.clone() };
                self.failures.entry(*failure).or_insert_with(first).count += 1;
            }
        }
    }

    fn unsent(&mut self, waited: Duration) {
        self.unsent += 1;
        self.latency.record(waited);
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

    use super::{Counts, Recorder, Sending};
    use crate::check::{Failure, Fault};
    use crate::connection::Exchange;

    fn sending(intended: Instant, sent: Instant) -> Sending {
        Sending { question: 0, intended, sent, bytes_sent: 2 }
    }

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
        recorder.exchange(sending(at(99), at(150)), &exchange(at(200), None));
        recorder.exchange(sending(at(100), at(100)), &exchange(at(101), None));
        recorder.unsent(0, at(50), at(300));
        let [a, b] = recorder.phases() else { panic!("two phases") };
        assert_eq!((a.counts.ok, a.counts.unsent, b.counts.ok, b.counts.unsent), (1, 1, 1, 0));
        assert_eq!(a.counts.latency.latency().count, 2, "the answered and the unsent");
        assert!(a.counts.latency.latency().max >= Duration::from_millis(250));
        assert!(a.counts.wait.latency().max >= Duration::from_millis(51));
    }

    #[test]
    fn several_questions_are_counted_apart() {
        let start = Instant::now();
        let names = ["a", "b"].map(str::to_owned);
        let mut recorder = Recorder::new("all".into(), start).with_questions(names.into_iter());
        let of_b = Sending { question: 1, ..sending(start, start) };
        recorder.exchange(of_b, &exchange(start, None));
        recorder.unsent(0, start, start);
        let [(a, of_a), (b, of_b)] = recorder.questions() else { panic!("two questions") };
        assert_eq!((a.as_str(), of_a.ok, of_a.unsent), ("a", 0, 1));
        assert_eq!((b.as_str(), of_b.ok, of_b.unsent), ("b", 1, 0));
        assert_eq!((recorder.phases()[0].counts.ok, recorder.phases()[0].counts.unsent), (1, 1));
        let alone = Recorder::new("all".into(), start).with_questions(["a".to_owned()].into_iter());
        assert!(alone.questions().is_empty());
    }

    #[test]
    fn timeouts_count_as_latency_and_other_failures_apart() {
        let start = Instant::now();
        let done = start + Duration::from_millis(9);
        let mut recorder = Recorder::new("a".into(), start);
        for failure in
            [None, Some(Failure::Timeout), Some(Failure::Status(503)), Some(Failure::Status(503))]
        {
            recorder.exchange(sending(start, start), &exchange(done, failure));
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
