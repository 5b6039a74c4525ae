//! When each request should leave: number `i` at start + `i` / rate. There is no queue; requests
//! that wait are the numbers that are due and not yet taken, so they wait in order of time and
//! cost no memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Request numbers and their intended times.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    rate: f64,
    next: AtomicU64,
}

impl Schedule {
    pub(crate) const fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate, next: AtomicU64::new(0) }
    }

    /// Takes the next request: its number and intended time. None past the end of time.
    pub(crate) fn take(&self) -> Option<(u64, Instant)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        // Computed from the number, not by adding up: errors do not accumulate.
        let offset = Duration::try_from_secs_f64(index as f64 / self.rate).ok()?;
        Some((index, self.start.checked_add(offset)?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::Schedule;

    proptest! {
        #[test]
        fn a_duration_holds_rate_times_duration(rate in 0.5..5_000.0f64, millis in 1u64..3_000) {
            let start = Instant::now();
            let end = start + Duration::from_millis(millis);
            let schedule = Schedule::new(start, rate);
            let times: Vec<Instant> =
                std::iter::from_fn(|| schedule.take()).map(|(_, at)| at).take_while(|at| *at < end).collect();
            let expected = rate * millis as f64 / 1e3;
            prop_assert!((times.len() as f64 - expected).abs() <= 1.0, "{} {expected}", times.len());
            prop_assert!(times.is_sorted());
        }
    }
}
