//! What a bare run of a graph costs, by batch size.

use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_engine::{Engine, EngineError};
use sluice_protocol::{ShapeError, TensorSpec};

use crate::values::Values;

/// Runs before counting begins.
const WARM_UP: usize = 20;
/// Time that the runs of one size take together, about.
const TIME: Duration = Duration::from_millis(400);
/// Runs of a size, at least.
const LEAST_RUNS: u32 = 30;

/// The cost of one run of a batch.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RunCost {
    /// Rows of the batch.
    pub rows: usize,
    /// The fastest run: noise only ever adds.
    #[serde(rename = "fastest_us", serialize_with = "as_micros")]
    pub fastest: Duration,
    /// Processor time of a run, on average, of the thread that ran it.
    #[serde(rename = "cpu_us", serialize_with = "as_micros")]
    pub cpu: Duration,
}

impl RunCost {
    /// Processor time of one of the rows, in microseconds.
    pub fn cpu_per_row(&self) -> f64 {
        micros(self.cpu) / self.rows as f64
    }
}

/// Runs `engine` alone, on this thread, with batches of each of `sizes` rows of made-up values.
///
/// # Errors
/// A graph that cannot run such values.
pub fn run_costs(engine: &mut dyn Engine, sizes: &[usize]) -> Result<Vec<RunCost>, EngineError> {
    sizes.iter().map(|&rows| run_cost(engine, rows)).collect()
}

fn run_cost(engine: &mut dyn Engine, rows: usize) -> Result<RunCost, EngineError> {
    let mut values = Values::new(rows as u64, &[]);
    let input = |spec: &TensorSpec| {
        let wrong = |error: ShapeError| (spec.name.clone(), error.to_string());
        let made = values.tensor(spec, rows).map_err(wrong);
        made.map_err(|(name, reason)| EngineError::Input { name, reason })
    };
    let inputs = engine.inputs().iter().map(input).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..WARM_UP {
        engine.run(&inputs)?;
    }
    let (mut fastest, mut runs) = (Duration::MAX, 0_u32);
    let (begun, cpu_before) = (Instant::now(), thread_time());
    while runs < LEAST_RUNS || begun.elapsed() < TIME {
        let started = Instant::now();
        engine.run(&inputs)?;
        fastest = fastest.min(started.elapsed());
        runs += 1;
    }
    let cpu = thread_time().saturating_sub(cpu_before) / runs;
    Ok(RunCost { rows, fastest, cpu })
}

/// Processor time that this thread has had.
#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where the system doesn't tell, the time that passed.
#[cfg(not(target_os = "linux"))]
fn thread_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn as_micros<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(micros(*duration))
}
