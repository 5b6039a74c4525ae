//! What waits for one engine, and what of it runs next.

use std::collections::VecDeque;
use std::time::Instant;

use sluice_engine::Engine;

use super::Job;
use super::batch::{run_batch, take_batch};
use super::split::Split;
use super::waiting::Rows;
use crate::counters::Shard;

/// Waiting jobs. Those that fit into a run share runs; larger ones are run in pieces, by turns
/// with the others, so that no run is longer than a full batch and nobody waits for a whole
/// large job.
#[derive(Debug)]
pub(super) struct Work {
    jobs: Vec<Job>,
    /// The rows of `jobs`.
    small_rows: usize,
    large: VecDeque<Split>,
    /// Whether it is the large jobs' turn.
    large_turn: bool,
    max_rows: usize,
}

impl Work {
    /// Nothing yet. Runs will have at most `max_rows` rows, unless the graph needs a job whole.
    pub(super) const fn new(max_rows: usize) -> Self {
        Self {
            jobs: Vec::new(),
            small_rows: 0,
            large: VecDeque::new(),
            large_turn: false,
            max_rows,
        }
    }

    pub(super) fn push(&mut self, job: Job) {
        if job.is_large(self.max_rows) {
            self.large.push_back(Split::new(job));
        } else {
            self.small_rows += job.rows;
            self.jobs.push(job);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.large.is_empty()
    }

    /// The rows that wait here.
    pub(super) fn rows(&self) -> Rows {
        Rows { small: self.small_rows, large: self.large.iter().map(Split::rows_left).sum() }
    }

    /// Whether it is the large jobs' turn, if there is one.
    pub(super) const fn is_large_turn(&self) -> bool {
        self.large_turn
    }

    /// Whether a large job waits here, or has pieces left.
    pub(super) fn has_large(&self) -> bool {
        !self.large.is_empty()
    }

    /// Runs the next batch or piece. Jobs that nobody waits for any more are dropped before
    /// they cost a run.
    pub(super) fn run_next(&mut self, engine: &mut dyn Engine, shard: &Shard) {
        let large = self.jobs.is_empty() || self.large_turn && self.has_large();
        self.large_turn = !large;
        if large {
            if let Some(split) = self.large.pop_front()
                && let Some(unfinished) = split.run(engine, self.max_rows, shard)
            {
                self.large.push_front(unfinished);
            }
            return;
        }
        let now = Instant::now();
        self.jobs.retain(|job| job.is_wanted(now));
        let batch = take_batch(&mut self.jobs, self.max_rows);
        self.small_rows = self.jobs.iter().map(|job| job.rows).sum();
        if !batch.is_empty() {
            run_batch(engine, batch, shard);
        }
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
