//! Bounded queues and worker threads, for graphs that would hold up a core.
//!
//! A worker that frees takes what is waiting at that moment, up to the size where the measured
//! cost curve stops paying. Jobs too large for one run wait in a queue of their own: a worker
//! takes one of them at a time and runs its pieces by turns with batches of the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use sluice_engine::Engine;

use super::waiting::{Rows, WaitingRows};
use super::work::Work;
use super::{Job, Limits, Refusal};
use crate::counters::Counters;

/// Jobs that may wait, whatever their predicted time: it bounds the queues' own memory.
const MOST_JOBS: usize = 65_536;
/// The same for those that are too large for one run.
const MOST_LARGE_JOBS: usize = 1024;

/// What operators may ask of the workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerSettings {
    /// How long an incomplete batch may wait for more rows. Zero unless somebody asks for it.
    pub(crate) max_queue_delay: Duration,
}

/// The queues' ends where jobs go in. Dropping it ends the workers once the queues are empty.
#[derive(Debug)]
pub(crate) struct Workers {
    jobs: Sender<Job>,
    large: Sender<Job>,
    waiting: Arc<WaitingRows>,
    limits: Limits,
    workers: u32,
}

impl Workers {
    pub(super) fn start(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        settings: WorkerSettings,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let (jobs_in, jobs) = bounded(MOST_JOBS);
        let (large_in, large) = bounded(MOST_LARGE_JOBS);
        let workers = u32::try_from(engines.len()).unwrap_or(u32::MAX).max(1);
        for (index, engine) in engines.into_iter().enumerate() {
            let worker = Worker {
                engine,
                jobs: jobs.clone(),
                large: large.clone(),
                work: Work::new(limits.max_rows),
                max_rows: limits.max_rows,
                delay: settings.max_queue_delay,
                counters: counters.clone(),
                index,
            };
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run())?;
        }
        Ok(Self { jobs: jobs_in, large: large_in, waiting: Arc::default(), limits, workers })
    }

    pub(super) fn submit(&self, mut job: Job) -> Result<(), Refusal> {
        let max_rows = self.limits.max_rows;
        let own = Rows::of_job(job.rows, max_rows);
        let ahead = self.waiting.now().ahead_of(own, max_rows);
        self.limits.admit(ahead, job.rows, self.workers)?;
        job.waiting = Some(self.waiting.enter(own));
        let queue = if own.large > 0 { &self.large } else { &self.jobs };
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Overloaded(self.limits.max_waiting),
            TrySendError::Disconnected(_) => Refusal::Stopped,
        })
    }
}

struct Worker {
    engine: Box<dyn Engine>,
    jobs: Receiver<Job>,
    large: Receiver<Job>,
    /// What this worker has taken and not run yet.
    work: Work,
    max_rows: usize,
    delay: Duration,
    counters: Arc<Counters>,
    index: usize,
}

impl Worker {
    fn run(mut self) {
        while !self.work.is_empty() || self.wait() {
            self.take_waiting();
            let shard = self.counters.worker_shard(self.index);
            self.work.run_next(&mut *self.engine, shard);
        }
    }

    /// Sleeps until there is a job and takes it, with others that come within the delay that was
    /// asked for; false when there will be no more.
    fn wait(&mut self) -> bool {
        let first = select! {
            recv(self.jobs) -> job => job,
            recv(self.large) -> job => job,
        };
        // Both queues are closed at the same time, but one may still hold something.
        let first = first.or_else(|_| self.jobs.try_recv()).or_else(|_| self.large.try_recv());
        let Ok(first) = first else { return false };
        self.work.push(first);
        let until = Instant::now() + self.delay;
        while !self.delay.is_zero() && (1..self.max_rows).contains(&self.work.rows().small) {
            let Ok(job) = self.jobs.recv_deadline(until) else { break };
            self.work.push(job);
        }
        true
    }

    /// Takes what is waiting at this moment: jobs up to a full batch, unless a piece of a large
    /// one runs next and they can go to another worker, and a large one if there is none here.
    fn take_waiting(&mut self) {
        if self.work.rows().large == 0
            && let Ok(job) = self.large.try_recv()
        {
            self.work.push(job);
        }
        while !self.work.large_is_next() && self.work.rows().small < self.max_rows {
            let Ok(job) = self.jobs.try_recv() else { break };
            self.work.push(job);
        }
    }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
