//! How long a row takes to leave a queue, as things are at this moment.
//!
//! What a run costs was measured when nothing else ran. Under load a row takes longer: requests are
//! read and answered by the same cores, other models have their turns, workers wait for a core. What
//! a queue lets in by the time that it takes to get out again follows that, up and down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many runs are looked back on. One that others held up tells little by itself: the time of a
/// burst's requests being read is not that of the rows before them.
const RUNS: f64 = 64.0;

/// The time between rows that leave while others wait: measured at warm-up, learned from then on.
#[derive(Debug)]
pub(super) struct Pace {
    /// What as many full runs take that nothing holds up.
    measured: Sums,
    time: Sum,
    rows: Sum,
    /// The one by the other, in nanoseconds a row.
    row: AtomicU64,
}

/// Nanoseconds and rows of the runs that are looked back on, the later ones the more.
#[derive(Debug, Clone, Copy)]
struct Sums {
    time: f64,
    rows: f64,
}

/// A number that one thread writes; of several that do so at once, some are not heard.
#[derive(Debug)]
struct Sum(AtomicU64);

impl Sum {
    const fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Pace {
    /// Of runs of so many rows, each of which takes so long.
    pub(super) fn new(row: Duration, max_rows: usize) -> Self {
        let rows = RUNS * count(max_rows.max(1));
        let measured = Sums { time: rows * nanoseconds(row), rows };
        let pace = Self {
            measured,
            time: Sum::new(measured.time),
            rows: Sum::new(rows),
            row: AtomicU64::new(0),
        };
        pace.set(measured);
        pace
    }

    /// How long a row takes.
    pub(super) fn row(&self) -> Duration {
        Duration::from_nanos(self.row.load(Ordering::Relaxed))
    }

    /// So many rows took so long, and others waited all the while.
    fn learn(&self, took: Duration, rows: usize) {
        let left = 1.0 - 1.0 / RUNS;
        self.set(Sums {
            time: self.time.get() * left + nanoseconds(took),
            rows: self.rows.get() * left + count(rows),
        });
    }

    /// Nobody waits: what was learned is of another time.
    fn forget(&self) {
        let (Sums { time, rows }, own) = (self.measured, self.time.get());
        // Exactly that, unless something was learned.
        if own.to_bits() == time.to_bits() {
            return;
        }
        let time = own + (time - own) / RUNS;
        let rows = self.rows.get() + (rows - self.rows.get()) / RUNS;
        let is_near = (time - self.measured.time).abs() * 100.0 < self.measured.time;
        self.set(if is_near { self.measured } else { Sums { time, rows } });
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn set(&self, Sums { time, rows }: Sums) {
        self.time.set(time);
        self.rows.set(rows);
        self.row.store((time / rows) as u64, Ordering::Relaxed);
    }
}

/// Looks at the clock between runs as long as work waits behind each.
#[derive(Debug, Default)]
pub(super) struct Busy {
    since: Option<Instant>,
}

impl Busy {
    /// A run of `rows` is over, and there is more to be run or there is not.
    pub(super) fn ran(&mut self, rows: usize, more: bool, pace: &Pace) {
        let now = (more || self.since.is_some()).then(Instant::now);
        match (self.since, now) {
            (Some(since), Some(now)) if rows > 0 => pace.learn(now.duration_since(since), rows),
            (None, _) if !more => pace.forget(),
            _ => {}
        }
        self.since = now.filter(|_| more);
    }

    /// There was nothing to run for a while.
    pub(super) fn idle(&mut self) {
        self.since = None;
    }
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[allow(clippy::cast_precision_loss)]
const fn count(rows: usize) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Busy, Pace};

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_pace_follows_what_it_is_told_and_comes_back() {
        let pace = Pace::new(MILLISECOND, 8);
        let is = |expected: Duration| {
            let off = pace.row().abs_diff(expected);
            assert!(off < expected / 100, "{:?} for {expected:?}", pace.row());
        };
        is(MILLISECOND);
        for _ in 0..1000 {
            pace.learn(40 * MILLISECOND, 10);
        }
        is(4 * MILLISECOND);
        for _ in 0..1000 {
            pace.learn(MILLISECOND, 4);
        }
        is(MILLISECOND / 4);
        for _ in 0..1000 {
            pace.forget();
        }
        assert_eq!(pace.row(), MILLISECOND);
    }

    #[test]
    fn one_run_that_was_held_up_tells_little() {
        let pace = Pace::new(MILLISECOND / 100, 8);
        pace.learn(400 * MILLISECOND, 1);
        assert!(pace.row() < MILLISECOND, "{:?}", pace.row());
    }

    #[test]
    fn only_runs_that_others_waited_behind_are_learned_from() {
        let (mut busy, pace) = (Busy::default(), Pace::new(Duration::ZERO, 1));
        let mut run = |more, rows| {
            std::thread::sleep(MILLISECOND);
            busy.ran(rows, more, &pace);
            pace.row()
        };
        assert_eq!(run(false, 1), Duration::ZERO, "nobody waited");
        assert_eq!(run(true, 1), Duration::ZERO, "nobody knows since when");
        assert_eq!(run(true, 0), Duration::ZERO, "none of those was wanted any more");
        let slow = run(true, 1);
        assert!(slow >= MILLISECOND / 100, "{slow:?}");
        assert!(run(false, 1) > slow, "it was waited for, though nothing is behind it");
        let before = pace.row();
        busy.ran(1, false, &pace);
        assert!(pace.row() < before);
        busy.ran(1, true, &pace);
        busy.idle();
        let before = pace.row();
        busy.ran(1, true, &pace);
        assert_eq!(pace.row(), before, "it was idle meanwhile");
    }
}
