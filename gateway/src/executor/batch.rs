//! A batch: rows of several jobs that run together, and how the answers find back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::Engine;
use sluice_protocol::{Code, NamedTensor, Tensor};

use super::{Answer, Job, RunError};
use crate::counters::Shard;

/// Takes the first job and every later one that can share its run: the same shapes but for the
/// rows, and room for them. The others keep their order.
pub(super) fn take_batch(jobs: &mut Vec<Job>, max_rows: usize) -> Vec<Job> {
    // All of one shape and fitting is the usual case.
    let fits_whole = jobs.iter().map(|job| job.rows).sum::<usize>() <= max_rows;
    if fits_whole && jobs.iter().all(|job| same_bucket(&jobs[0], job)) {
        return std::mem::take(jobs);
    }
    let mut batch = Vec::new();
    let mut rest = Vec::new();
    let mut rows = 0;
    for job in jobs.drain(..) {
        let joins = match batch.first() {
            None => true,
            Some(first) => rows + job.rows <= max_rows && same_bucket(first, &job),
        };
        if joins {
            rows += job.rows;
            batch.push(job);
        } else {
            rest.push(job);
        }
    }
    *jobs = rest;
    batch
}

/// Whether two jobs differ in nothing but the number of rows.
fn same_bucket(a: &Job, b: &Job) -> bool {
    a.inputs
        .iter()
        .zip(&b.inputs)
        .all(|(x, y)| x.datatype() == y.datatype() && x.shape().get(1..) == y.shape().get(1..))
}

/// Runs `jobs`, which differ in nothing but the number of rows, and answers them.
pub(super) fn run_batch(engine: &mut dyn Engine, jobs: Vec<Job>, shard: &Shard) {
    let rows = jobs.iter().map(|job| job.rows).sum();
    let (inputs, mut waiting) = assemble(jobs);
    let outcome = run_counted(engine, &inputs, &[], rows, shard);
    if waiting.len() == 1
        && let Some((reply, _)) = waiting.pop()
    {
        let _caller_may_have_left = reply.send(outcome);
        return;
    }
    match outcome {
        Ok(outputs) if have_rows(&outputs, rows) => answer(&outputs, waiting, rows),
        // One request's values must not fail the others', and outputs that are not the batch's
        // rows cannot be told apart: each runs alone.
        _ => {
            let mut at = 0;
            for (reply, share) in waiting {
                let alone: Answer =
                    inputs.iter().map(|tensor| rows_of(tensor, rows, at..at + share)).collect();
                at += share;
                let own = alone.and_then(|inputs| run_counted(engine, &inputs, &[], share, shard));
                let _caller_may_have_left = reply.send(own);
            }
        }
    }
}

/// Whether every output has one row for each of `rows`.
pub(super) fn have_rows(outputs: &[Tensor], rows: usize) -> bool {
    outputs.iter().all(|tensor| tensor.rows() == Some(rows))
}

/// One run. A panicking engine costs its batch, not the process.
pub(super) fn run_counted(
    engine: &mut dyn Engine,
    inputs: &[Tensor],
    optional: &[NamedTensor],
    rows: usize,
    shard: &Shard,
) -> Answer {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run_with(inputs, optional)));
    shard.count_batch(rows, started.elapsed());
    match outcome {
        Ok(result) => result.map_err(RunError::from),
        Err(_) => Err(RunError { code: Code::Internal, message: "engine panicked".into() }),
    }
}

/// A job's reply and its share of the rows.
type Waiting = Vec<(tokio::sync::oneshot::Sender<Answer>, usize)>;

/// One tensor an input over the rows of all jobs. A single job's tensors are used as they are.
fn assemble(jobs: Vec<Job>) -> (Vec<Tensor>, Waiting) {
    let mut waiting = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter();
    let Some(first) = jobs.next() else { return (Vec::new(), waiting) };
    waiting.push((first.reply, first.rows));
    if jobs.len() == 0 {
        return (first.inputs, waiting);
    }
    let mut parts: Vec<_> = first.inputs.into_iter().map(Tensor::into_parts).collect();
    for job in jobs {
        for ((shape, data), tensor) in parts.iter_mut().zip(&job.inputs) {
            if let (Some(rows), Some(more)) = (shape.first_mut(), tensor.shape().first()) {
                *rows += more;
            }
            data.extend_from(tensor.data()).expect("jobs of a batch share datatypes");
        }
        waiting.push((job.reply, job.rows));
    }
    let inputs = parts
        .into_iter()
        .map(|(shape, data)| Tensor::new(shape, data).expect("rows add up"))
        .collect();
    (inputs, waiting)
}

/// Gives every job its rows of every output.
fn answer(outputs: &[Tensor], waiting: Waiting, rows: usize) {
    let mut at = 0;
    for (reply, share) in waiting {
        let own = outputs.iter().map(|tensor| rows_of(tensor, rows, at..at + share)).collect();
        at += share;
        let _caller_may_have_left = reply.send(own);
    }
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
