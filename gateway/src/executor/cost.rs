//! What a graph costs by batch size, measured at warm-up, and the limits that follow.

use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError};
use sluice_protocol::Tensor;

use super::Refusal;
use super::waiting::Rows;
use crate::live::MaxWaiting;

/// A row cheaper than this runs on the core that read it: handing it to another thread costs
/// about as much (a wake-up was measured at 80-170 us on a virtual machine).
const CHEAP_ROW: Duration = Duration::from_micros(75);
/// How long the other connections of a core may wait for one batch.
const TICK_BOUND: Duration = Duration::from_micros(200);
/// The largest batch that is measured.
const LARGEST: usize = 64;
/// A size is worth it when its rows cost at least this much less than the best smaller one's.
const WORTHWHILE: f64 = 0.95;
/// Runs a size, the fastest of which counts: noise only ever adds.
const RUNS: u32 = 5;

/// Run time by batch size.
#[derive(Debug, Clone)]
pub(crate) struct CostCurve {
    /// (rows, fastest run), ascending and never empty.
    points: Vec<(usize, Duration)>,
    /// Whether they come from runs.
    measured: bool,
}

/// How much may run and wait.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Rows a batch.
    pub(crate) max_rows: usize,
    /// The measured cost of a row in a batch of that size.
    pub(crate) row_cost: Duration,
    /// What the shortest run took that was measured.
    pub(crate) least_run: Duration,
    /// Past this much predicted work, requests are refused.
    pub(crate) max_waiting: MaxWaiting,
}

impl Limits {
    /// Whether a job of `rows` may wait behind `ahead` others, of which each takes `row`: not where it
    /// is predicted to be answered past the bound, or past the time that is `left` to it. Behind
    /// nothing every job may: however large, it holds up nobody that was there before.
    pub(crate) fn admit(
        &self,
        ahead: usize,
        rows: usize,
        left: Option<Duration>,
        row: Duration,
    ) -> Result<(), Refusal> {
        if ahead == 0 {
            return Ok(());
        }
        let rows = u32::try_from(ahead.saturating_add(rows)).unwrap_or(u32::MAX);
        let predicted = row.saturating_mul(rows);
        let bound = self.max_waiting.get();
        if predicted > left.map_or(bound, |left| left.min(bound)) {
            return Err(Refusal::Overloaded(predicted));
        }
        Ok(())
    }

    /// The same of a job of one row, behind rows of both kinds.
    pub(super) fn admit_row(
        &self,
        own: Rows,
        ahead: Rows,
        left: Option<Duration>,
        row: Duration,
    ) -> Result<(), Refusal> {
        let ahead = ahead.ahead_of(own, self.max_rows);
        self.admit(ahead, 1, left, row)
    }
}

/// Warms `engine` up and measures it, on batches made by repeating `row` (one tensor an input,
/// one row each) up to `most` times: 1 when the graph does not batch.
pub(crate) fn measure(
    engine: &mut dyn Engine,
    row: &[Tensor],
    most: usize,
) -> Result<CostCurve, EngineError> {
    let mut points = Vec::new();
    let mut size = 1;
    while size <= LARGEST.min(most.max(1)) {
        let inputs = repeat(row, size);
        let fastest = match fastest_run(engine, &inputs) {
            Ok(fastest) => fastest,
            // A graph may have a bound of its own, below which it serves.
            Err(_) if size > 1 => break,
            Err(error) => return Err(error),
        };
        points.push((size, fastest));
        // Slow graphs gain nothing from larger batches that a load should wait for.
        if fastest > Duration::from_millis(50) {
            break;
        }
        size *= 2;
    }
    Ok(CostCurve { points, measured: true })
}

fn fastest_run(engine: &mut dyn Engine, inputs: &[Tensor]) -> Result<Duration, EngineError> {
    engine.run(inputs)?;
    let mut fastest = Duration::MAX;
    for _ in 0..RUNS {
        let started = Instant::now();
        engine.run(inputs)?;
        fastest = fastest.min(started.elapsed());
    }
    Ok(fastest)
}

impl CostCurve {
    /// For a graph that could not be tried: one row a run, and a millisecond for each.
    pub(crate) fn unknown() -> Self {
        Self { points: vec![(1, Duration::from_millis(1))], measured: false }
    }

    /// The time of a run of one row.
    pub(crate) fn single(&self) -> Duration {
        self.points[0].1
    }

    /// How long a run takes at the least, as far as that is known.
    pub(crate) fn least_run(&self) -> Duration {
        if self.measured { self.single() } else { Duration::ZERO }
    }

    /// Whether rows are so cheap that handing them to another thread would cost more.
    pub(crate) fn is_cheap(&self) -> bool {
        self.single() <= CHEAP_ROW
    }

    /// The largest batch that a tick may run, so that it stays short for its core.
    pub(crate) fn tick_rows(&self) -> usize {
        self.points.iter().rev().find(|(_, time)| *time <= TICK_BOUND).map_or(1, |(rows, _)| *rows)
    }

    /// The size past which larger batches stop paying.
    pub(crate) fn worthwhile_rows(&self) -> usize {
        let mut best = self.points[0];
        for &(rows, time) in &self.points[1..] {
            if per_row(rows, time) < per_row(best.0, best.1) * WORTHWHILE {
                best = (rows, time);
            }
        }
        best.0
    }

    /// The cost of a row in a batch of about `rows`.
    pub(crate) fn row_cost(&self, rows: usize) -> Duration {
        let (size, time) =
            self.points.iter().rev().find(|(size, _)| *size <= rows).unwrap_or(&self.points[0]);
        Duration::from_secs_f64(per_row(*size, *time))
    }
}

impl std::fmt::Display for CostCurve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (rows, time)) in self.points.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{rows}: {:.1} us", time.as_secs_f64() * 1e6)?;
        }
        Ok(())
    }
}

fn per_row(rows: usize, time: Duration) -> f64 {
    time.as_secs_f64() / f64::from(u32::try_from(rows).unwrap_or(u32::MAX))
}

/// `row` repeated `times` along the first dimension.
fn repeat(row: &[Tensor], times: usize) -> Vec<Tensor> {
    row.iter()
        .map(|tensor| {
            let (mut shape, mut data) = tensor.clone().into_parts();
            for _ in 1..times {
                data.extend_from(tensor.data()).expect("a tensor's own datatype");
            }
            if times > 1
                && let Some(rows) = shape.first_mut()
            {
                *rows = i64::try_from(times).unwrap_or(i64::MAX);
            }
            Tensor::new(shape, data).expect("rows add up")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CostCurve, Limits};
    use crate::live::MaxWaiting;

    fn curve(points: &[(usize, u64)]) -> CostCurve {
        let points = points.iter().map(|&(n, us)| (n, Duration::from_micros(us))).collect();
        CostCurve { points, measured: true }
    }

    #[test]
    fn only_what_waits_behind_other_work_is_refused() {
        let max_waiting = MaxWaiting::new(Duration::from_millis(10));
        let row_cost = Duration::from_millis(1);
        let limits = Limits { max_rows: 8, row_cost, least_run: Duration::ZERO, max_waiting };
        for (ahead, rows, workers, admitted) in [
            (0, usize::MAX, 1, true),
            (1, 9, 1, true),
            (1, 10, 1, false),
            (10, 1, 1, false),
            (10, 1, 2, true),
            (usize::MAX, 1, 1, false),
        ] {
            let answer = limits.admit(ahead, rows, None, limits.row_cost / workers);
            assert_eq!(answer.is_ok(), admitted, "{rows} behind {ahead}");
        }
        // The bound may change while a deployment serves.
        limits.max_waiting.clone().set(Duration::from_millis(11));
        let row = limits.row_cost;
        assert!(limits.admit(1, 10, None, row).is_ok());
        assert!(limits.admit(1, 11, None, row).is_err());
        // The caller's own time, where it is shorter.
        let left = |ms| Some(Duration::from_millis(ms));
        assert!(limits.admit(1, 4, left(5), row).is_ok());
        assert!(limits.admit(1, 5, left(5), row).is_err());
        assert!(limits.admit(1, 5, left(5), row / 2).is_ok());
        assert!(limits.admit(1, 11, left(1000), row).is_err());
        assert!(limits.admit(0, 11, left(1), row).is_ok());
    }

    /// The three kinds of graph that were measured: batching pays up to 16, up to 4, never.
    #[test]
    fn bigger_is_not_better() {
        let small = curve(&[(1, 11), (2, 12), (4, 13), (8, 17), (16, 28), (32, 55), (64, 110)]);
        assert!(small.is_cheap());
        assert_eq!((small.worthwhile_rows(), small.tick_rows()), (16, 64));
        let large = curve(&[(1, 154), (2, 177), (4, 217), (8, 484), (16, 1077)]);
        assert!(!large.is_cheap());
        assert_eq!(large.worthwhile_rows(), 4);
        let convolution = curve(&[(1, 191), (2, 373), (4, 734)]);
        assert_eq!((convolution.worthwhile_rows(), convolution.tick_rows()), (1, 1));
    }
}
