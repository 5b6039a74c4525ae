//! A bounded queue and worker threads, for graphs that would hold up a core.
//!
//! A worker that frees takes what is waiting at that moment, up to the size where the measured
//! cost curve stops paying.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sluice_engine::Engine;

use super::work::Work;
use super::{Job, Limits, Refusal};
use crate::counters::Counters;

/// Jobs that may wait, whatever their predicted time: it bounds the queue's own memory.
const MOST_JOBS: usize = 65_536;

/// What operators may ask of the workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerSettings {
    /// How long an incomplete batch may wait for more rows. Zero unless somebody asks for it.
    pub(crate) max_queue_delay: Duration,
}

/// The queue's end where jobs go in. Dropping it ends the workers once the queue is empty.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Sender<Job>,
    waiting_rows: Arc<AtomicUsize>,
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
        let (queue, jobs) = bounded(MOST_JOBS);
        let waiting_rows = Arc::new(AtomicUsize::new(0));
        let workers = u32::try_from(engines.len()).unwrap_or(u32::MAX).max(1);
        for (index, engine) in engines.into_iter().enumerate() {
            let worker = Worker {
                engine,
                jobs: jobs.clone(),
                waiting_rows: waiting_rows.clone(),
                max_rows: limits.max_rows,
                delay: settings.max_queue_delay,
                counters: counters.clone(),
                index,
            };
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run())?;
        }
        Ok(Self { queue, waiting_rows, limits, workers })
    }

    pub(super) fn submit(&self, job: Job) -> Result<(), Refusal> {
        let rows = job.rows;
        self.limits.admit(self.waiting_rows.load(Ordering::Relaxed), rows, self.workers)?;
        self.waiting_rows.fetch_add(rows, Ordering::Relaxed);
        self.queue.try_send(job).map_err(|error| {
            self.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => Refusal::Overloaded(self.limits.max_waiting),
                TrySendError::Disconnected(_) => Refusal::Stopped,
            }
        })
    }
}

struct Worker {
    engine: Box<dyn Engine>,
    jobs: Receiver<Job>,
    waiting_rows: Arc<AtomicUsize>,
    max_rows: usize,
    delay: Duration,
    counters: Arc<Counters>,
    index: usize,
}

impl Worker {
    fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let jobs = self.take_waiting(first);
            let rows = jobs.iter().map(|job| job.rows).sum();
            self.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
            let mut work = Work::new(self.max_rows);
            jobs.into_iter().for_each(|job| work.push(job));
            let shard = self.counters.worker_shard(self.index);
            while !work.is_empty() {
                work.run_next(&mut *self.engine, shard);
            }
        }
    }

    /// `first` and what else is waiting, up to a full batch.
    fn take_waiting(&self, first: Job) -> Vec<Job> {
        let until = Instant::now() + self.delay;
        let mut rows = first.rows;
        let mut jobs = vec![first];
        while rows < self.max_rows {
            let next = if self.delay.is_zero() {
                self.jobs.try_recv().ok()
            } else {
                self.jobs.recv_deadline(until).ok()
            };
            let Some(job) = next else { break };
            rows += job.rows;
            jobs.push(job);
        }
        jobs
    }
}
