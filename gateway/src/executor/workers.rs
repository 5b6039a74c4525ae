//! A bounded queue and worker threads, for graphs that would hold up a core.
//!
//! A worker that frees takes a batch of what is waiting at that moment, up to the size where the
//! measured cost curve stops paying. Of jobs too large for one run it takes one at a time, and
//! runs its pieces by turns with batches of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sluice_engine::Engine;

use super::pace::{Busy, Pace};
use super::queue::{News, NotQueued, Queue, Wanted};
use super::schedule::Schedule;
use super::waiting::{Rows, WaitingRows};
use super::work::Work;
use super::{Job, Limits, Patience, Refusal, Terms};
use crate::counters::{Counters, Shard};
use crate::tenant::Tenant;

/// What operators may ask of the workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerSettings {
    /// How long an incomplete batch may wait for more rows. Zero unless somebody asks for it.
    pub(crate) max_queue_delay: Duration,
}

/// The queue's end where jobs go in. Dropping it ends the workers once the queue is empty.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Arc<Queue>,
    waiting: Arc<WaitingRows>,
    limits: Limits,
    /// How fast rows leave the queue by one worker.
    pace: Arc<Pace>,
    schedule: Schedule,
    counters: Arc<Counters>,
    workers: AtomicU32,
}

impl Workers {
    pub(super) fn start(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        schedule: Schedule,
        settings: WorkerSettings,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let queue = Queue::new(limits.max_rows, settings.max_queue_delay);
        let (queue, waiting) = (Arc::new(queue), Arc::default());
        let (pace, workers) =
            (Arc::new(Pace::new(limits.row_cost, limits.max_rows)), AtomicU32::new(0));
        let started = Self { queue, waiting, limits, pace, schedule, counters, workers };
        engines.into_iter().try_for_each(|engine| started.add(engine))?;
        Ok(started)
    }

    /// Starts one more worker.
    pub(super) fn add(&self, engine: Box<dyn Engine>) -> std::io::Result<()> {
        let index = self.workers.fetch_add(1, Ordering::Relaxed);
        // From now on it counts, and says so when it leaves: when its thread does not start, too.
        self.queue.join();
        let worker = Worker {
            engine,
            queue: self.queue.clone(),
            work: Work::new(self.limits.max_rows),
            pace: self.pace.clone(),
            busy: Busy::default(),
            counters: self.counters.clone(),
            index: index as usize,
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        thread.spawn(move || worker.run()).map(drop)
    }

    /// Takes a job over that waited elsewhere.
    pub(super) fn take_over(&self, job: Job) {
        // One that finds no room is dropped, which its caller is told of.
        let _queued = self.queue.push(job);
    }

    pub(super) fn submit(
        &self,
        mut job: Job,
        terms: Terms,
        shard: &Shard,
    ) -> Result<Option<Patience>, Refusal> {
        job.leave_time_for(self.limits.least_run);
        let patience = self.enter(&mut job, terms).or_else(|_| {
            // Jobs that nobody waits for take nobody's room.
            shard.count_unqueued(self.queue.sweep());
            self.enter(&mut job, terms)
        })?;
        self.queue.push(job).map_err(|error| match error {
            NotQueued::Full => Refusal::Overloaded(self.limits.max_waiting.get()),
            NotQueued::Closed => Refusal::Stopped,
        })?;
        shard.count_queued();
        Ok(patience)
    }

    /// Why one row that comes now would be refused, if it would, as a job of this size.
    pub(super) fn refusal(
        &self,
        (tenant, time): (Tenant, Duration),
        own: Rows,
        shard: &Shard,
    ) -> Option<Refusal> {
        let row = self.row_time();
        let admit = |ahead| self.limits.admit_row(own, ahead, Some(time), row);
        admit(self.waiting.now()).err()?;
        let foremost = self.schedule.foremost(tenant, time);
        let before = || self.waiting.now().without(self.queue.rows_behind(foremost));
        admit(before()).err()?;
        shard.count_unqueued(self.queue.sweep());
        admit(before()).err()
    }

    /// Lets a job wait, or refuses it.
    fn enter(&self, job: &mut Job, terms: Terms) -> Result<Option<Patience>, Refusal> {
        let max_rows = self.limits.max_rows;
        let own = job.own_rows(max_rows);
        self.schedule.rank(job, terms);
        let (all, row) = (self.waiting.now(), self.row_time());
        let admit = |ahead: Rows| {
            self.limits.admit(ahead.ahead_of(own, max_rows), job.rows, job.time_left(), row)
        };
        // Behind all of them is more than what goes before it, and costs no look into the queue.
        admit(all).or_else(|_| admit(all.without(self.queue.rows_behind(job.entrant()))))?;
        let patience = self.schedule.enter(job, terms)?;
        job.waiting = Some(self.waiting.enter(own));
        Ok(patience)
    }

    /// How long a row takes to leave the queue.
    fn row_time(&self) -> Duration {
        self.pace.row() / self.workers.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Worker {
    engine: Box<dyn Engine>,
    queue: Arc<Queue>,
    /// What runs next, and a large job of which pieces are left.
    work: Work,
    pace: Arc<Pace>,
    busy: Busy,
    counters: Arc<Counters>,
    index: usize,
}

impl Worker {
    fn run(mut self) {
        while self.has_work() {
            let more = self.take_next();
            let shard = self.counters.worker_shard(self.index);
            let rows = self.work.run_next(&mut *self.engine, shard);
            self.busy.ran(rows, more || !self.work.is_empty(), &self.pace);
        }
    }

    /// Waits until there is something to run; false when there will be nothing any more.
    fn has_work(&mut self) -> bool {
        if !self.work.is_empty() {
            return true;
        }
        let news = self.queue.wait();
        if news == News::AfterSleep {
            self.busy.idle();
        }
        news != News::End
    }

    /// Takes what runs next, unless that is a piece of the large job that is here. Whether others wait
    /// on.
    fn take_next(&mut self) -> bool {
        let wanted = match (self.work.is_large_turn(), self.work.has_large()) {
            (true, true) => return true,
            (true, false) => Wanted::LargeFirst,
            (false, true) => Wanted::Batch,
            (false, false) => Wanted::BatchFirst,
        };
        let taken = self.queue.take(wanted);
        self.counters.worker_shard(self.index).count_unqueued(taken.unwanted.len());
        taken.jobs.into_iter().for_each(|job| self.work.push(job));
        taken.more
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.leave();
    }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
