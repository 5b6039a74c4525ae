//! A batch: rows of several jobs that run together, and how the answers find back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::Engine;
use sluice_protocol::{Code, Tensor};

use super::{Answer, Job, RunError};
use crate::counters::Shard;

/// Runs `jobs` in as few batches as `max_rows` and their shapes allow, and answers them. Jobs
/// that nobody waits for any more are dropped before they cost a run.
pub(crate) fn run_all(engine: &mut dyn Engine, mut jobs: Vec<Job>, max_rows: usize, shard: &Shard) {
    let now = Instant::now();
    jobs.retain(|job| job.is_wanted(now));
    while !jobs.is_empty() {
        let batch = take_batch(&mut jobs, max_rows);
        run_batch(engine, batch, shard);
    }
}

/// Takes the first job and every later one that can share its run: the same shapes but for the
/// rows, and room for them. The others keep their order.
fn take_batch(jobs: &mut Vec<Job>, max_rows: usize) -> Vec<Job> {
    // All of one shape and fitting is the usual case.
    let fits_whole = jobs.iter().map(|job| job.rows).sum::<usize>() <= max_rows;
    if jobs.len() == 1 || (fits_whole && jobs[1..].iter().all(|job| same_bucket(&jobs[0], job))) {
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

fn run_batch(engine: &mut dyn Engine, jobs: Vec<Job>, shard: &Shard) {
    let rows = jobs.iter().map(|job| job.rows).sum();
    let (inputs, waiting) = assemble(jobs);
    match run_counted(engine, &inputs, rows, shard) {
        Ok(outputs) => answer(&outputs, waiting, rows),
        Err(error) if waiting.len() == 1 => {
            for (reply, _) in waiting {
                let _caller_may_have_left = reply.send(Err(error.clone()));
            }
        }
        // One request's values must not fail the others', so each runs alone.
        Err(_) => {
            let mut at = 0;
            for (reply, share) in waiting {
                let alone: Answer =
                    inputs.iter().map(|tensor| rows_of(tensor, rows, at..at + share)).collect();
                at += share;
                let own = alone.and_then(|inputs| run_counted(engine, &inputs, share, shard));
                let _caller_may_have_left = reply.send(own);
            }
        }
    }
}

/// One run. A panicking engine costs its batch, not the process.
fn run_counted(engine: &mut dyn Engine, inputs: &[Tensor], rows: usize, shard: &Shard) -> Answer {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(inputs)));
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
    let alone = waiting.len() == 1;
    let mut at = 0;
    for (reply, share) in waiting {
        let own = if alone {
            Ok(outputs.to_vec())
        } else {
            outputs.iter().map(|tensor| rows_of(tensor, rows, at..at + share)).collect()
        };
        at += share;
        let _caller_may_have_left = reply.send(own);
    }
}

/// Rows `range` of a tensor that must have `rows` of them.
fn rows_of(
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_engine::EngineError;
    use sluice_protocol::{TensorData, TensorSpec};
    use tokio::sync::oneshot;

    use super::*;

    /// Doubles its input and notes how many rows each run had.
    #[derive(Debug, Default)]
    struct Doubler {
        runs: Vec<usize>,
    }

    impl Engine for Doubler {
        fn inputs(&self) -> &[TensorSpec] {
            &[]
        }

        fn outputs(&self) -> &[TensorSpec] {
            &[]
        }

        fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
            self.runs.push(inputs[0].rows().unwrap());
            let TensorData::Fp32(values) = inputs[0].data() else { panic!("FP32 only") };
            assert!(!values.contains(&-1.0), "poisoned");
            let doubled = values.iter().map(|value| value * 2.0).collect();
            Ok(vec![Tensor::new(inputs[0].shape().to_vec(), TensorData::Fp32(doubled)).unwrap()])
        }
    }

    fn job(values: &[f32], width: usize) -> (Job, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let rows = values.len() / width;
        let shape = vec![i64::try_from(rows).unwrap(), i64::try_from(width).unwrap()];
        let tensor = Tensor::new(shape, TensorData::Fp32(values.to_vec())).unwrap();
        (Job { inputs: vec![tensor], rows, deadline: None, reply }, answer)
    }

    proptest! {
        #[test]
        fn every_job_gets_its_own_rows_and_no_batch_is_too_large(
            jobs in prop::collection::vec((1usize..5, 1usize..3), 1..20), max_rows in 1usize..12,
        ) {
            let mut engine = Doubler::default();
            let mut next = 0u16;
            let (jobs, expected): (Vec<_>, Vec<_>) = jobs
                .into_iter()
                .map(|(rows, width)| {
                    let values: Vec<f32> =
                        (0..rows * width).map(|_| { next += 1; f32::from(next) }).collect();
                    let (job, answer) = job(&values, width);
                    (job, (answer, values))
                })
                .unzip();
            run_all(&mut engine, jobs, max_rows, &Shard::default());
            for (mut answer, values) in expected {
                let outputs = answer.try_recv().unwrap().unwrap();
                let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
                prop_assert_eq!(outputs[0].data(), &TensorData::Fp32(doubled));
            }
            // A single job may exceed the bound, since a request is never split.
            prop_assert!(engine.runs.iter().all(|&rows| rows <= max_rows.max(4)));
        }
    }

    #[test]
    fn a_job_that_nobody_waits_for_costs_no_run() {
        let mut engine = Doubler::default();
        let (left, answer) = job(&[1.0], 1);
        drop(answer);
        let (mut late, _answer) = job(&[2.0], 1);
        late.deadline = Some(Instant::now());
        run_all(&mut engine, vec![left, late], 8, &Shard::default());
        assert!(engine.runs.is_empty());
    }

    #[test]
    fn a_panic_fails_the_batch_and_nothing_else() {
        let mut engine = Doubler::default();
        let (bad, mut bad_answer) = job(&[-1.0], 1);
        run_all(&mut engine, vec![bad], 8, &Shard::default());
        assert_eq!(bad_answer.try_recv().unwrap().unwrap_err().code, Code::Internal);
        let (good, mut good_answer) = job(&[3.0], 1);
        run_all(&mut engine, vec![good], 8, &Shard::default());
        assert!(good_answer.try_recv().unwrap().is_ok());
    }
}
