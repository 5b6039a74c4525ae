//! How requests are spread over time: each when the one before is answered, or at a rate that
//! may change, evenly or by chance.

use std::fmt;
use std::time::Duration;

use crate::error::BenchError;

/// How requests are spread over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    /// Every connection sends its next request when the last one has been answered. It shows the
    /// most that a server gives, and hides what its stalls do to callers who do not wait for it.
    Closed,
    /// At a rate, whether or not earlier requests have been answered.
    Open {
        /// Rates in order; each lasts for the load's duration.
        stages: Vec<Stage>,
        /// Whether gaps are equal.
        arrivals: Arrivals,
    },
}

/// A rate in requests per second, which grows or shrinks evenly to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// At the beginning.
    pub from: f64,
    /// At the end.
    pub to: f64,
}

/// How requests of a rate follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Even,
    /// As those of many independent callers: a Poisson process, the same at every load.
    Poisson,
}

impl Stage {
    /// A rate that stays.
    pub const fn flat(rate: f64) -> Self {
        Self { from: rate, to: rate }
    }

    /// How many requests are due after `seconds` of a stage that lasts `length` seconds.
    fn due(self, seconds: f64, length: f64) -> f64 {
        self.from * seconds + (self.to - self.from) * seconds * seconds / (2.0 * length)
    }

    /// When in a stage of `length` seconds its request number `count` is due.
    fn time_of(self, count: f64, length: f64) -> f64 {
        let growth = (self.to - self.from) / length;
        // The solution of growth / 2 t^2 + from t = count that keeps its digits where growth is
        // small.
        let root = (self.from * self.from + 2.0 * growth * count).max(0.0).sqrt();
        2.0 * count / (self.from + root)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        if from == to { write!(f, "{from}/s") } else { write!(f, "{from}/s to {to}/s") }
    }
}

impl Pace {
    /// Evenly at one rate, in requests per second.
    pub fn even(rate: f64) -> Self {
        Self::Open { stages: vec![Stage::flat(rate)], arrivals: Arrivals::Even }
    }

    /// The stages; none of a closed loop.
    pub fn stages(&self) -> &[Stage] {
        match self {
            Self::Closed => &[],
            Self::Open { stages, .. } => stages,
        }
    }

    /// Refuses rates that make no load.
    pub(crate) fn check(&self, duration: Option<Duration>) -> Result<(), BenchError> {
        let Self::Open { stages, .. } = self else { return Ok(()) };
        let complaint = |text: String| Err(BenchError::Options(text));
        for rate in stages.iter().flat_map(|stage| [stage.from, stage.to]) {
            if !(0.001..=1e6).contains(&rate) {
                return complaint(format!(
                    "rate {rate} must be between 0.001 and 1000000 requests a second"
                ));
            }
        }
        let changes = stages.len() > 1 || stages.iter().any(|stage| stage.from != stage.to);
        if stages.is_empty() {
            complaint("there is no rate".into())
        } else if changes && duration.is_none() {
            complaint("a rate that changes needs a duration".into())
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Open { stages, arrivals } = self else {
            return f.write_str("closed loop");
        };
        for (index, stage) in stages.iter().enumerate() {
            write!(f, "{}{stage}", if index == 0 { "" } else { ", " })?;
        }
        match arrivals {
            Arrivals::Even => Ok(()),
            Arrivals::Poisson => f.write_str(", by chance"),
        }
    }
}

/// The moments of an open pace's requests.
#[derive(Debug)]
pub(crate) struct Timetable {
    stages: Vec<Stage>,
    /// How long each stage lasts, in seconds. None is for ever, of a rate that stays.
    length: Option<f64>,
}

impl Timetable {
    pub(crate) fn new(stages: Vec<Stage>, duration: Option<Duration>) -> Self {
        Self { stages, length: duration.map(|duration| duration.as_secs_f64()) }
    }

    /// When request number `count` is due, from the start; numbers between whole ones lie in
    /// between. Behind the last stage its rate goes on, so that there is a request that is not due
    /// any more. None past the end of time.
    pub(crate) fn time_of(&self, count: f64) -> Option<Duration> {
        let Some(length) = self.length else {
            let rate = self.stages.first()?.from;
            return Duration::try_from_secs_f64(count / rate).ok();
        };
        let (mut begins, mut earlier) = (0.0, 0.0);
        for stage in &self.stages {
            let due = stage.due(length, length);
            if count < earlier + due {
                let within = stage.time_of(count - earlier, length);
                return Duration::try_from_secs_f64(begins + within.min(length)).ok();
            }
            earlier += due;
            begins += length;
        }
        let rate = self.stages.last()?.to;
        Duration::try_from_secs_f64(begins + (count - earlier) / rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Arrivals, Pace, Stage, Timetable};

    proptest! {
        #[test]
        fn a_stage_holds_its_mean_rate_times_its_length(
            from in 0.5..5_000.0f64, to in 0.5..5_000.0f64, millis in 100u64..3_000,
        ) {
            let stages = vec![Stage { from, to }];
            let table = Timetable::new(stages, Some(Duration::from_millis(millis)));
            let end = Duration::from_millis(millis);
            let times = (0..).map(|n| table.time_of(f64::from(n)).unwrap());
            let times: Vec<_> = times.take_while(|time| *time < end).collect();
            let expected = (from + to) / 2.0 * millis as f64 / 1e3;
            prop_assert!((times.len() as f64 - expected).abs() <= 1.0, "{} {expected}", times.len());
            prop_assert!(times.is_sorted());
        }
    }

    #[test]
    fn stages_follow_each_other() {
        let stages = [10.0, 40.0].map(Stage::flat).to_vec();
        let table = Timetable::new(stages, Some(Duration::from_secs(1)));
        let millis = |count| table.time_of(count).map(|time| time.as_millis());
        let due = [0, 900, 1000, 1025, 1975, 2000, 2025].map(Some);
        assert_eq!([0.0, 9.0, 10.0, 11.0, 49.0, 50.0, 51.0].map(millis), due);
    }

    #[test]
    fn a_ramp_gets_denser() {
        let table =
            Timetable::new(vec![Stage { from: 10.0, to: 30.0 }], Some(Duration::from_secs(1)));
        let seconds = |count: f64| table.time_of(count).unwrap().as_secs_f64();
        // Twenty requests in the second: half of them in the first 0.618 s.
        assert!((seconds(10.0) - 0.618_034).abs() < 1e-6, "{}", seconds(10.0));
    }

    #[test]
    fn rates_that_make_no_load_are_named() {
        let open = |stages: &[f64]| Pace::Open {
            stages: stages.iter().copied().map(Stage::flat).collect(),
            arrivals: Arrivals::Even,
        };
        for (stages, duration, says) in [
            (&[0.0][..], None, "rate 0"),
            (&[f64::NAN], None, "rate NaN"),
            (&[1.0, f64::INFINITY], Some(1), "rate inf"),
            (&[], None, "no rate"),
            (&[1.0, 2.0], None, "needs a duration"),
        ] {
            let error = open(stages).check(duration.map(Duration::from_secs)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(Pace::Closed.check(None).is_ok());
        assert!(Pace::even(5.0).check(None).is_ok());
    }
}
