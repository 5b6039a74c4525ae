//! When each request should leave. There is no queue; requests that wait are the numbers that are
//! due and not yet taken, so they wait in order of time and cost no memory.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::pace::{Arrivals, Pace, Timetable};

/// Request numbers and their intended times.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// None of a closed loop.
    timetable: Option<Timetable>,
    /// Locked for an instant only, by workers of one thread.
    next: Mutex<Next>,
}

#[derive(Debug)]
struct Next {
    index: u64,
    /// Where a Poisson process of rate 1 has come to; the timetable stretches it.
    arrived: Option<(f64, Pcg64Mcg)>,
}

impl Schedule {
    pub(crate) fn new(start: Instant, pace: &Pace, duration: Option<Duration>) -> Self {
        let (timetable, by_chance) = match pace {
            Pace::Closed => (None, false),
            Pace::Open { stages, arrivals } => {
                let timetable = Timetable::new(stages.clone(), duration);
                (Some(timetable), *arrivals == Arrivals::Poisson)
            }
        };
        let arrived = by_chance.then(|| (0.0, Pcg64Mcg::seed_from_u64(1)));
        Self { start, timetable, next: Mutex::new(Next { index: 0, arrived }) }
    }

    /// Takes the next request: its number and intended time, which is now in a closed loop. None
    /// past the end of time.
    pub(crate) fn take(&self) -> Option<(u64, Instant)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let index = next.index;
        next.index += 1;
        let Some(timetable) = &self.timetable else { return Some((index, Instant::now())) };
        // Computed from the number, not by adding up: errors do not accumulate.
        let count = match &mut next.arrived {
            None => index as f64,
            Some((arrived, random)) => {
                // An exponential gap, out of a uniform number that is never 0.
                *arrived -= (1.0 - random.random::<f64>()).ln();
                *arrived
            }
        };
        Some((index, self.start.checked_add(timetable.time_of(count)?)?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Schedule;
    use crate::pace::{Arrivals, Pace, Stage};

    #[test]
    fn chance_keeps_the_rate_and_spreads_the_gaps() {
        let (start, duration) = (Instant::now(), Some(Duration::from_secs(10)));
        let pace = Pace::Open { stages: vec![Stage::flat(1_000.0)], arrivals: Arrivals::Poisson };
        let schedule = Schedule::new(start, &pace, duration);
        let end = start + Duration::from_secs(10);
        let times = std::iter::from_fn(|| schedule.take()).map(|(_, at)| at);
        let times: Vec<_> = times.take_while(|at| *at < end).collect();
        assert!(times.is_sorted());
        // 10,000 on average, with a standard deviation of 100.
        assert!((9_600..10_400).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let long = gaps.iter().filter(|gap| **gap > 2.0 * mean).count() as f64 / gaps.len() as f64;
        // Of exponential gaps exp(-2) are longer than twice the mean; of even ones none.
        assert!((long - 0.135).abs() < 0.02, "{long}");
    }

    #[test]
    fn a_closed_loop_is_due_when_it_is_taken() {
        let schedule = Schedule::new(Instant::now(), &Pace::Closed, None);
        for expected in 0..3 {
            let before = Instant::now();
            let (index, at) = schedule.take().unwrap();
            assert_eq!(index, expected);
            assert!(at >= before && at <= Instant::now());
        }
    }
}
