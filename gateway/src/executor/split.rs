//! A job that is too large for one run: run in pieces, its answers joined. One that brings
//! optional inputs shares no run either, and is one piece.

use std::ops::Range;
use std::time::Instant;

use sluice_engine::Engine;
use sluice_protocol::Tensor;

use super::batch::{Run, have_rows, rows_of, run_counted};
use super::schedule::Expiry;
use super::{Job, Ran, RunError, Times};
use crate::counters::{Nanoseconds, Shard};

/// A job of which the first rows are answered.
#[derive(Debug)]
pub(super) struct Split {
    job: Job,
    /// How many rows have run.
    done: usize,
    /// Their outputs.
    outputs: Vec<Tensor>,
    /// Where the time went so far.
    times: Times,
}

impl Split {
    /// Of a job whose waiting ends now.
    pub(super) fn new(mut job: Job, now: Instant) -> Self {
        job.place = None;
        let queue = Nanoseconds::between(job.submitted, now);
        Self { job, done: 0, outputs: Vec::new(), times: Times { queue, ..Times::default() } }
    }

    /// The whole job, to be run anew. It waits no longer than it takes: its run had begun.
    pub(super) fn restart(self) -> Job {
        Job { expiry: Expiry::Never, ..self.job }
    }

    pub(super) const fn rows_left(&self) -> usize {
        self.job.rows - self.done
    }

    /// Whether somebody still waits for the answer.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.job.is_wanted(now)
    }

    /// Runs the next rows, at most `max_rows`, and replies after the last. None when the job is over.
    pub(super) fn run(
        mut self,
        engine: &mut dyn Engine,
        max_rows: usize,
        shard: &Shard,
    ) -> Option<Self> {
        let begun = Instant::now();
        if !self.job.optional.is_empty() {
            return self.run_whole(engine, shard);
        }
        let range = self.done..(self.done + max_rows).min(self.job.rows);
        if let Some(waiting) = &mut self.job.waiting {
            waiting.begin(range.len());
        }
        let piece = match self.cut(range.clone()) {
            Ok(inputs) => run_counted(engine, &inputs, &[], range.len(), begun, shard),
            Err(error) => return self.reply(Err(error)),
        };
        let Run { outcome, mut times, ended } = piece;
        let outputs = match outcome {
            Ok(outputs) => outputs,
            Err(error) => return self.reply(Err(error)),
        };
        if !have_rows(&outputs, range.len()) || !self.append(outputs) {
            return self.run_whole(engine, shard);
        }
        let done = Instant::now();
        times.output += Nanoseconds::between(ended, done);
        self.count(range.len(), times, done, shard);
        self.done = range.end;
        if self.done < self.job.rows {
            return Some(self);
        }
        let outputs = std::mem::take(&mut self.outputs);
        self.reply(Ok(outputs))
    }

    /// For a job that cannot be cut into rows, or whose outputs cannot be joined by them; whole,
    /// they need not be.
    fn run_whole(mut self, engine: &mut dyn Engine, shard: &Shard) -> Option<Self> {
        let (begun, rows) = (Instant::now(), self.job.rows);
        // None of them waits any more.
        self.job.waiting = None;
        let Job { inputs, optional, .. } = &self.job;
        let Run { outcome, times, ended } =
            run_counted(engine, inputs, optional, rows, begun, shard);
        if outcome.is_ok() {
            self.count(rows, times, ended, shard);
        }
        self.reply(outcome)
    }

    fn count(&mut self, rows: usize, times: Times, ended: Instant, shard: &Shard) {
        shard.count_execution(rows, &times, ended);
        self.times.input += times.input;
        self.times.infer += times.infer;
        self.times.output += times.output;
    }

    fn cut(&self, range: Range<usize>) -> Result<Vec<Tensor>, RunError> {
        let cut = |tensor| rows_of(tensor, self.job.rows, range.clone());
        self.job.inputs.iter().map(cut).collect()
    }

    /// Joins a piece's outputs to the earlier ones'; false when they do not fit together.
    fn append(&mut self, outputs: Vec<Tensor>) -> bool {
        if self.outputs.is_empty() {
            self.outputs = outputs;
            return true;
        }
        let fits = |(own, piece): (&Tensor, &Tensor)| {
            own.datatype() == piece.datatype() && own.shape().get(1..) == piece.shape().get(1..)
        };
        if !self.outputs.iter().zip(&outputs).all(fits) {
            return false;
        }
        let earlier = std::mem::take(&mut self.outputs);
        let joined = earlier.into_iter().zip(&outputs).map(|(own, piece)| join(own, piece));
        self.outputs = joined.collect();
        true
    }

    fn reply(self, outcome: Result<Vec<Tensor>, RunError>) -> Option<Self> {
        let answer = outcome.map(|outputs| Ran { outputs, times: self.times });
        let _caller_may_have_left = self.job.reply.send(answer);
        None
    }
}

/// `more` behind `tensor`: the same datatype, and the same shape but for the rows.
fn join(tensor: Tensor, more: &Tensor) -> Tensor {
    let (mut shape, mut data) = tensor.into_parts();
    if let (Some(rows), Some(new)) = (shape.first_mut(), more.shape().first()) {
        *rows += new;
    }
    data.extend_from(more.data()).expect("the same datatype");
    Tensor::new(shape, data).expect("rows add up")
}
