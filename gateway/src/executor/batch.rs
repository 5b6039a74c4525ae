//! A batch: rows of several jobs that run together, and how the answers find back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::{Engine, EngineError};
use sluice_protocol::{Code, NamedTensor, Tensor};

use super::{Answer, Job, Ran, RunError, Times};
use crate::counters::{Nanoseconds, Shard};

/// Runs `jobs`, which differ in nothing but the number of rows, and answers them. Their waiting
/// ended at `begun`.
pub(super) fn run_batch(engine: &mut dyn Engine, jobs: Vec<Job>, begun: Instant, shard: &Shard) {
    let rows = jobs.iter().map(|job| job.rows).sum();
    let (inputs, mut waiting) = assemble(jobs, begun);
    let Run { outcome, mut times, ended } = run_counted(engine, &inputs, &[], rows, begun, shard);
    if waiting.len() == 1
        && let Some(caller) = waiting.pop()
    {
        if outcome.is_ok() {
            shard.count_execution(rows, &times, ended);
        }
        caller.answer(outcome, times);
        return;
    }
    match outcome {
        Ok(outputs) if have_rows(&outputs, rows) => {
            let shares = split(&outputs, &waiting, rows);
            let done = Instant::now();
            times.output += Nanoseconds::between(ended, done);
            // Counted before anybody hears of it: who asks after an answer finds its run.
            shard.count_execution(rows, &times, done);
            waiting.into_iter().zip(shares).for_each(|(caller, own)| caller.answer(own, times));
        }
        // Alone they would take as long, one after the other.
        Err(error) if error.is_termination() => {
            waiting.into_iter().for_each(|caller| caller.answer(Err(error.clone()), times));
        }
        // One request's values must not fail the others', and outputs that are not the batch's
        // rows cannot be told apart: each runs alone.
        _ => run_alone(engine, &inputs, rows, waiting, shard),
    }
}

/// Runs each caller's rows of `inputs` by themselves.
fn run_alone(
    engine: &mut dyn Engine,
    inputs: &[Tensor],
    rows: usize,
    waiting: Vec<Caller>,
    shard: &Shard,
) {
    let mut at = 0;
    for caller in waiting {
        let (begun, share) = (Instant::now(), caller.rows);
        let own = at..at + share;
        at = own.end;
        let cut = inputs.iter().map(|tensor| rows_of(tensor, rows, own.clone()));
        match cut.collect::<Result<Vec<_>, _>>() {
            Ok(own) => {
                let Run { outcome, times, ended } =
                    run_counted(engine, &own, &[], share, begun, shard);
                if outcome.is_ok() {
                    shard.count_execution(share, &times, ended);
                }
                caller.answer(outcome, times);
            }
            Err(error) => caller.answer(Err(error), Times::default()),
        }
    }
}

/// Whether every output has one row for each of `rows`.
pub(super) fn have_rows(outputs: &[Tensor], rows: usize) -> bool {
    outputs.iter().all(|tensor| tensor.rows() == Some(rows))
}

/// What came of a run.
pub(super) struct Run {
    pub(super) outcome: Result<Vec<Tensor>, RunError>,
    /// Those of making the input, of the run and of taking its outputs out.
    pub(super) times: Times,
    pub(super) ended: Instant,
}

/// One run, of inputs that were made since `begun`. A panicking engine costs its batch, not the
/// process.
pub(super) fn run_counted(
    engine: &mut dyn Engine,
    inputs: &[Tensor],
    optional: &[NamedTensor],
    rows: usize,
    begun: Instant,
    shard: &Shard,
) -> Run {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run_timed(inputs, optional)));
    let ended = Instant::now();
    shard.count_batch(rows, Nanoseconds::between(started, ended));
    let (outcome, ran) = match outcome {
        Ok(Ok((outputs, ran))) => (Ok(outputs), ran),
        Ok(Err(error)) => {
            if matches!(error, EngineError::Terminated) {
                shard.count_terminated();
            }
            (Err(RunError::from(error)), ended)
        }
        Err(_) => {
            let message = "engine panicked".into();
            (Err(RunError { code: Code::Internal, message }), ended)
        }
    };
    let times = Times {
        input: Nanoseconds::between(begun, started),
        infer: Nanoseconds::between(started, ran),
        output: Nanoseconds::between(ran, ended),
        ..Times::default()
    };
    Run { outcome, times, ended }
}

/// Who waits for a part of a batch.
struct Caller {
    reply: tokio::sync::oneshot::Sender<Answer>,
    rows: usize,
    queued: Nanoseconds,
}

impl Caller {
    fn of(job: Job, begun: Instant) -> (Self, Vec<Tensor>) {
        let Job { inputs, rows, submitted, reply, .. } = job;
        (Self { reply, rows, queued: Nanoseconds::between(submitted, begun) }, inputs)
    }

    fn answer(self, outcome: Result<Vec<Tensor>, RunError>, times: Times) {
        let times = Times { queue: self.queued, ..times };
        let _caller_may_have_left = self.reply.send(outcome.map(|outputs| Ran { outputs, times }));
    }
}

/// One tensor an input over the rows of all jobs. A single job's tensors are used as they are.
fn assemble(jobs: Vec<Job>, begun: Instant) -> (Vec<Tensor>, Vec<Caller>) {
    let mut waiting = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter().map(|job| Caller::of(job, begun));
    let Some((first, inputs)) = jobs.next() else { return (Vec::new(), waiting) };
    waiting.push(first);
    if jobs.len() == 0 {
        return (inputs, waiting);
    }
    let mut parts: Vec<_> = inputs.into_iter().map(Tensor::into_parts).collect();
    for (caller, inputs) in jobs {
        for ((shape, data), tensor) in parts.iter_mut().zip(&inputs) {
            if let (Some(rows), Some(more)) = (shape.first_mut(), tensor.shape().first()) {
                *rows += more;
            }
            data.extend_from(tensor.data()).expect("jobs of a batch share datatypes");
        }
        waiting.push(caller);
    }
    let inputs = parts
        .into_iter()
        .map(|(shape, data)| Tensor::new(shape, data).expect("rows add up"))
        .collect();
    (inputs, waiting)
}

/// Each caller's rows of every output.
fn split(
    outputs: &[Tensor],
    waiting: &[Caller],
    rows: usize,
) -> Vec<Result<Vec<Tensor>, RunError>> {
    let mut at = 0;
    let shares = waiting.iter().map(|caller| {
        let own = at..at + caller.rows;
        at = own.end;
        outputs.iter().map(|tensor| rows_of(tensor, rows, own.clone())).collect()
    });
    shares.collect()
}

/// Rows `range` of a tensor that must have `rows` of them.
pub(super) fn rows_of(
    tensor: &Tensor,
    rows: usize,
    range: std::ops::Range<usize>,
) -> Result<Tensor, RunError> {
    let wrong = || RunError {
        code: Code::Internal,
        message: Arc::from(format!(
            "graph answered {rows} rows with an output of shape {:?}",
            tensor.shape()
        )),
    };
    if tensor.rows() != Some(rows) || rows == 0 {
        return Err(wrong());
    }
    let width = tensor.data().len() / rows;
    let data = tensor.data().slice(range.start * width..range.end * width);
    let mut shape = tensor.shape().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = i64::try_from(range.len()).map_err(|_| wrong())?;
    }
    Tensor::new(shape, data).map_err(|_| wrong())
}
