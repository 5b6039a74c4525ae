//! What waits for one engine, and what of it runs next.

use std::collections::VecDeque;
use std::time::Instant;

use sluice_engine::Engine;

use super::Job;
use super::batch::{run_batch, take_batch};
use super::split::Split;
use crate::counters::Shard;

/// Waiting jobs. Those that fit into a run share runs; larger ones are run in pieces, by turns
/// with the others, so that no run is longer than a full batch and nobody waits for a whole
/// large job.
#[derive(Debug)]
pub(super) struct Work {
    jobs: Vec<Job>,
    /// The rows of `jobs`.
    rows: usize,
    large: VecDeque<Split>,
    /// Whether it is the large jobs' turn.
    large_next: bool,
    max_rows: usize,
}

impl Work {
    /// Nothing yet. Runs will have at most `max_rows` rows, unless the graph needs a job whole.
    pub(super) const fn new(max_rows: usize) -> Self {
        Self { jobs: Vec::new(), rows: 0, large: VecDeque::new(), large_next: false, max_rows }
    }

    pub(super) fn push(&mut self, job: Job) {
        if job.rows > self.max_rows {
            self.large.push_back(Split::new(job));
        } else {
            self.rows += job.rows;
            self.jobs.push(job);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.large.is_empty()
    }

    /// How many rows would run before a new job of `rows` is done, without its own.
    pub(super) fn rows_ahead(&self, rows: usize) -> usize {
        let large = self.large.iter().map(Split::rows_left).sum::<usize>();
        if rows > self.max_rows {
            return self.rows + large;
        }
        // Large jobs get every other run, so a small job sees no more of them than of its own.
        self.rows + large.min(self.rows + self.max_rows)
    }

    /// Runs the next batch or piece. Jobs that nobody waits for any more are dropped before
    /// they cost a run.
    pub(super) fn run_next(&mut self, engine: &mut dyn Engine, shard: &Shard) {
        let large = self.jobs.is_empty() || (self.large_next && !self.large.is_empty());
        self.large_next = !large;
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
        self.rows = self.jobs.iter().map(|job| job.rows).sum();
        if !batch.is_empty() {
            run_batch(engine, batch, shard);
        }
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
