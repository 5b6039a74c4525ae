//! What a bare run of a graph costs, by batch size.

use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_engine::{Engine, EngineError};
use sluice_protocol::{Datatype, Tensor, TensorData, TensorSpec};

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

/// Runs `engine` alone, on this thread, with batches of each of `sizes` rows. The values are
/// numbers between -1 and 1, or whole ones from 0 to 4, the same at every call.
///
/// # Errors
/// A graph that cannot run such values.
pub fn run_costs(engine: &mut dyn Engine, sizes: &[usize]) -> Result<Vec<RunCost>, EngineError> {
    sizes.iter().map(|&rows| run_cost(engine, rows)).collect()
}

fn run_cost(engine: &mut dyn Engine, rows: usize) -> Result<RunCost, EngineError> {
    let inputs: Vec<_> =
        engine.inputs().iter().map(|spec| batch(spec, rows)).collect::<Result<_, _>>()?;
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

/// `rows` rows for an input. Dimensions other than the first are 1 where they are free.
fn batch(spec: &TensorSpec, rows: usize) -> Result<Tensor, EngineError> {
    let first = i64::try_from(rows).unwrap_or(i64::MAX);
    let mut shape: Vec<i64> = spec.shape.iter().map(|&size| size.max(1)).collect();
    if let (Some(size), true) = (shape.first_mut(), spec.shape.first() == Some(&-1)) {
        *size = first;
    }
    let wrong = |reason: String| EngineError::Input { name: spec.name.clone(), reason };
    let count = sluice_protocol::element_count(&shape).map_err(|error| wrong(error.to_string()))?;
    let whole = (0..count).map(|index| i32::try_from(index * 7 % 5).unwrap_or(0));
    let data = match spec.datatype {
        Datatype::Fp32 => {
            let unit = |index: usize| (index * 37 % 201) as f32 / 100.0 - 1.0;
            TensorData::Fp32((0..count).map(unit).collect())
        }
        Datatype::Fp64 => TensorData::Fp64(whole.map(f64::from).collect()),
        Datatype::Int64 => TensorData::Int64(whole.map(i64::from).collect()),
        Datatype::Int32 => TensorData::Int32(whole.collect()),
        other => {
            let known = "the floor knows values for FP32, FP64, INT32 and INT64";
            return Err(wrong(format!("{} is not measured: {known}", other.as_str())));
        }
    };
    Tensor::new(shape, data).map_err(|error| wrong(error.to_string()))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn as_micros<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(micros(*duration))
}
