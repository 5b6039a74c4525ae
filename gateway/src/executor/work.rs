//! What waits for one engine, and what of it runs next.

use std::time::Instant;

use sluice_engine::Engine;

use super::batch::run_batch;
use super::lanes::Lanes;
use super::split::Split;
use super::waiting::Rows;
use super::{Entrant, Job};
use crate::counters::Shard;

/// Waiting jobs. Those that fit into a run share runs; larger ones are run in pieces, by turns
/// with the others, so that no run is longer than a full batch and nobody waits for a whole
/// large job. Levels order the jobs of one kind; the turns stay.
#[derive(Debug)]
pub(super) struct Work {
    small: Lanes,
    large: Lanes,
    /// The large job that is under way.
    split: Option<Split>,
    /// Whether it is the large jobs' turn.
    large_turn: bool,
    max_rows: usize,
}

impl Work {
    /// Nothing yet. Runs will have at most `max_rows` rows, unless the graph needs a job whole.
    pub(super) const fn new(max_rows: usize) -> Self {
        Self { small: Lanes::new(), large: Lanes::new(), split: None, large_turn: false, max_rows }
    }

    /// Work that is done, for runs of another size: its memory is kept.
    pub(super) fn renew(self, max_rows: usize) -> Self {
        Self { large_turn: false, max_rows, ..self }
    }

    pub(super) fn push(&mut self, job: Job) {
        if job.is_large(self.max_rows) {
            self.large.push(job);
        } else {
            self.small.push(job);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && !self.has_large()
    }

    /// The rows that wait here, but for those behind a new job.
    pub(super) fn rows_before(&self, new: Entrant) -> Rows {
        let large = self.split_rows() + self.large.rows_before(new);
        Rows { small: self.small.rows_before(new), large }
    }

    /// All rows that wait here.
    pub(super) fn rows(&self) -> Rows {
        Rows { small: self.small.rows(), large: self.split_rows() + self.large.rows() }
    }

    fn split_rows(&self) -> usize {
        self.split.as_ref().map_or(0, Split::rows_left)
    }

    /// Whether it is the large jobs' turn, if there is one.
    pub(super) const fn is_large_turn(&self) -> bool {
        self.large_turn
    }

    /// Whether a large job waits here, or has pieces left.
    pub(super) fn has_large(&self) -> bool {
        self.split.is_some() || !self.large.is_empty()
    }

    /// All jobs, for somebody else to run: the one that is under way from its beginning.
    pub(super) fn take_all(&mut self) -> Vec<Job> {
        let under_way = self.split.take().map(Split::restart).into_iter();
        let jobs = self.small.take_all().into_iter().chain(under_way);
        jobs.chain(self.large.take_all()).collect()
    }

    /// Drops the jobs that nobody waits for any more.
    pub(super) fn sweep(&mut self, shard: &Shard) {
        let (now, mut unwanted) = (Instant::now(), Vec::new());
        self.small.sweep(now, &mut unwanted);
        self.large.sweep(now, &mut unwanted);
        shard.count_unqueued(unwanted.len());
    }

    /// Runs the next batch or piece, of so many rows. Jobs that nobody waits for any more are dropped
    /// before they cost a run.
    pub(super) fn run_next(&mut self, engine: &mut dyn Engine, shard: &Shard) -> usize {
        let (now, mut unwanted) = (Instant::now(), Vec::new());
        let large = self.small.is_empty() || self.large_turn && self.has_large();
        self.large_turn = !large;
        if large {
            let begins = self.split.is_none();
            let waiting = &mut self.large;
            let begin = || waiting.pop(now, &mut unwanted).map(|job| Split::new(job, now));
            let next = self.split.take().or_else(begin);
            shard.count_unqueued(usize::from(begins && next.is_some()) + unwanted.len());
            let next = next.filter(|split| split.is_wanted(now));
            let before = next.as_ref().map_or(0, Split::rows_left);
            self.split = next.and_then(|split| split.run(engine, self.max_rows, shard));
            return before - self.split_rows();
        }
        let batch = self.small.take_batch(self.max_rows, now, &mut unwanted);
        shard.count_unqueued(batch.len() + unwanted.len());
        let rows = batch.iter().map(|job| job.rows).sum();
        if !batch.is_empty() {
            run_batch(engine, batch, now, shard);
        }
        rows
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
