//! A job that is too large for one run: run in pieces, its answers joined. One that brings
//! optional inputs shares no run either, and is one piece.

use std::ops::Range;
use std::time::Instant;

use sluice_engine::Engine;
use sluice_protocol::Tensor;

use super::batch::{have_rows, rows_of, run_counted};
use super::{Answer, Job};
use crate::counters::Shard;

/// A job of which the first rows are answered.
#[derive(Debug)]
pub(super) struct Split {
    job: Job,
    /// How many rows have run.
    done: usize,
    /// Their outputs.
    outputs: Vec<Tensor>,
}

impl Split {
    pub(super) const fn new(job: Job) -> Self {
        Self { job, done: 0, outputs: Vec::new() }
    }

    pub(super) const fn rows_left(&self) -> usize {
        self.job.rows - self.done
    }

    /// Runs the next rows, at most `max_rows`, and replies after the last. None when the job is
    /// over: replied to, or dropped because nobody waits for it any more.
    pub(super) fn run(
        mut self,
        engine: &mut dyn Engine,
        max_rows: usize,
        shard: &Shard,
    ) -> Option<Self> {
        if !self.job.is_wanted(Instant::now()) {
            return None;
        }
        let range = self.done..(self.done + max_rows).min(self.job.rows);
        if let Some(waiting) = &mut self.job.waiting {
            waiting.begin(range.len());
        }
        if !self.job.optional.is_empty() {
            let (inputs, optional) = (&self.job.inputs, &self.job.optional);
            let whole = run_counted(engine, inputs, optional, self.job.rows, shard);
            return self.reply(whole);
        }
        let outputs = match self.run_piece(engine, range.clone(), shard) {
            Ok(outputs) => outputs,
            Err(error) => return self.reply(Err(error)),
        };
        if !have_rows(&outputs, range.len()) || !self.append(outputs) {
            // These outputs cannot be joined by rows; whole, they need not be.
            let whole = run_counted(engine, &self.job.inputs, &[], self.job.rows, shard);
            return self.reply(whole);
        }
        self.done = range.end;
        if self.done < self.job.rows {
            return Some(self);
        }
        let outputs = std::mem::take(&mut self.outputs);
        self.reply(Ok(outputs))
    }

    fn run_piece(&self, engine: &mut dyn Engine, range: Range<usize>, shard: &Shard) -> Answer {
        let cut = |tensor| rows_of(tensor, self.job.rows, range.clone());
        let inputs: Vec<_> = self.job.inputs.iter().map(cut).collect::<Result<_, _>>()?;
        run_counted(engine, &inputs, &[], range.len(), shard)
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

    fn reply(self, answer: Answer) -> Option<Self> {
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
