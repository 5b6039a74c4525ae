//! Tick batching: rows wait in a plain list of the core that read them.
//!
//! The drainer task goes to the back of its runtime's run queue, so it runs after every
//! connection that was ready in this tick has parsed and pushed its rows. Batches form by
//! themselves: no added delay, no lock that anybody contends for, no wake of another thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sluice_engine::Engine;
use tokio::sync::Notify;

use super::pace::{Busy, Pace};
use super::schedule::Schedule;
use super::waiting::Rows;
use super::work::Work;
use super::workers::Workers;
use super::{Executor, Job, Limits, Patience, Refusal, SchedulePolicy, Terms, WorkerSettings};
use crate::counters::{Counters, Shard};
use crate::tenant::Tenant;
use crate::watchdog::RunBound;

/// How much of a core's time goes to runs next to what goes to reading and answering, while there is
/// not enough of it.
const RUNS_TO_READING: u32 = 2;

/// One engine a core, until one of them outlasts its bound. The mutex is for the compiler: a core
/// only ever takes its own.
pub(crate) struct Ticks {
    engines: Vec<Mutex<Option<Box<dyn Engine>>>>,
    /// How fast rows leave each core's list.
    paces: Vec<Pace>,
    limits: Limits,
    policy: SchedulePolicy,
    schedule: Schedule,
    refuge: Refuge,
    /// Who runs batches since a run was ended: then no core may be held up any more.
    moved: OnceLock<Workers>,
}

/// What becomes of a deployment of which a run outlasted its bound on a core.
#[derive(Debug)]
pub(crate) struct Refuge {
    /// The bound of its runs.
    pub(crate) bound: RunBound,
    /// What that is on workers.
    pub(crate) on_workers: Duration,
    /// The deployment's model and version, for people.
    pub(crate) name: String,
}

impl std::fmt::Debug for Ticks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticks").field("cores", &self.engines.len()).finish_non_exhaustive()
    }
}

/// What a serving core keeps between ticks. It never leaves its thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) index: usize,
    waiting: RefCell<VecDeque<Queue>>,
    /// Work that is done, for its memory. It holds no job and no engine.
    spare: RefCell<Option<Work>>,
    /// Wakes the drainer.
    wake: Notify,
    awake: Cell<bool>,
}

#[derive(Debug)]
struct Queue {
    executor: Arc<Executor>,
    counters: Arc<Counters>,
    work: Work,
    busy: Busy,
}

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

impl Core {
    /// Makes this thread serving core `index` and starts its drainer. Call inside a
    /// runtime that runs local tasks.
    pub(crate) fn start(index: usize) -> Rc<Self> {
        let core = Rc::new(Self {
            index,
            waiting: RefCell::default(),
            spare: RefCell::default(),
            wake: Notify::new(),
            awake: Cell::default(),
        });
        CORE.set(Some(core.clone()));
        tokio::task::spawn_local(core.clone().drain());
        core
    }

    /// Gives `use_it` the core that this thread is.
    pub(crate) fn with<T>(use_it: impl FnOnce(&Self) -> T) -> T {
        CORE.with_borrow(|core| {
            use_it(core.as_ref().expect("requests are only handled on serving cores"))
        })
    }

    /// Which of the serving cores this thread is, from 0.
    pub(crate) fn index() -> usize {
        Self::with(|core| core.index)
    }

    async fn drain(self: Rc<Self>) {
        loop {
            self.wake.notified().await;
            let mut since = None;
            while self.run_turn(since) {
                since = (!self.waiting.borrow().is_empty()).then(Instant::now);
                // Answers go out, and new requests come in, between two turns.
                tokio::task::yield_now().await;
            }
            self.awake.set(false);
        }
    }

    /// A run; and where rows waited on `since` the last turn, runs until those have had their part of
    /// the time that went by. Else a core that is flooded would do little but read what it refuses.
    /// False when nothing waits.
    fn run_turn(&self, since: Option<Instant>) -> bool {
        let turn = since.map(|since| {
            let now = Instant::now();
            (now, now.saturating_duration_since(since) * RUNS_TO_READING)
        });
        if !self.run_next() {
            return false;
        }
        if let Some((begun, part)) = turn {
            while !self.waiting.borrow().is_empty() && begun.elapsed() < part {
                self.run_next();
            }
        }
        true
    }

    /// One run for the deployment whose turn it is; false when nothing waits.
    fn run_next(&self) -> bool {
        let next = self.waiting.borrow_mut().pop_front();
        let Some(mut queue) = next else { return false };
        queue.run_next(self.index);
        if queue.work.is_empty() {
            self.spare.replace(Some(queue.work));
        } else {
            self.waiting.borrow_mut().push_back(queue);
        }
        true
    }
}

impl Queue {
    fn run_next(&mut self, core: usize) {
        let Executor::Ticks(ticks) = &*self.executor else { return };
        let mut slot = ticks.engine(core);
        let shard = self.counters.shard(core);
        if let Some(engine) = slot.as_mut().filter(|_| !ticks.has_moved()) {
            let terminated = shard.terminated();
            let rows = self.work.run_next(&mut **engine, shard);
            drop(slot);
            self.busy.ran(rows, !self.work.is_empty(), &ticks.paces[core]);
            if shard.terminated() == terminated {
                return;
            }
            ticks.leave_cores(core, &self.counters);
        }
        let jobs = self.work.take_all();
        match ticks.moved.get() {
            Some(workers) => jobs.into_iter().for_each(|job| workers.take_over(job)),
            // Nobody runs them; dropping them tells their callers.
            None => shard.count_unqueued(jobs.len()),
        }
    }
}

impl Ticks {
    pub(super) fn new(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        policy: SchedulePolicy,
        refuge: Refuge,
    ) -> Self {
        let paces = engines.iter().map(|_| Pace::new(limits.row_cost, limits.max_rows)).collect();
        let engines = engines.into_iter().map(|engine| Mutex::new(Some(engine))).collect();
        let schedule = Schedule::new(policy.clone());
        Self { engines, paces, limits, policy, schedule, refuge, moved: OnceLock::new() }
    }

    /// Whether workers run the batches now.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.get().is_some()
    }

    fn engine(&self, core: usize) -> MutexGuard<'_, Option<Box<dyn Engine>>> {
        self.engines[core].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the batches to workers from now on, of which this core's engine becomes one. Those of
    /// other cores follow when these have something for them.
    fn leave_cores(&self, core: usize, counters: &Arc<Counters>) {
        let Refuge { bound, on_workers, name } = &self.refuge;
        let (limits, schedule) = (self.limits.clone(), Schedule::new(self.policy.clone()));
        let (settings, counters) = (WorkerSettings::default(), counters.clone());
        let workers = Workers::start(Vec::new(), limits, schedule, settings, counters);
        let moved = workers.map(|workers| self.moved.get_or_init(|| workers));
        match moved.and_then(|workers| self.give(core, workers)) {
            Ok(()) => {
                bound.set(*on_workers);
                tracing::warn!(
                    deployment = name,
                    "its runs are on workers now, off the cores: one outlasted its bound"
                );
            }
            Err(error) => {
                tracing::error!(deployment = name, %error, "its runs cannot be taken off the cores");
            }
        }
    }

    /// Makes this core's engine a worker's, unless it is one.
    fn give(&self, core: usize, workers: &Workers) -> std::io::Result<()> {
        let engine = self.engine(core).take();
        engine.map_or(Ok(()), |engine| workers.add(engine))
    }

    pub(super) fn submit(
        &self,
        executor: &Arc<Executor>,
        core: &Core,
        counters: &Arc<Counters>,
        mut job: Job,
        terms: Terms,
    ) -> Result<Option<Patience>, Refusal> {
        job.leave_time_for(self.limits.least_run);
        if let Some(workers) = self.moved.get() {
            return self.submit_moved(workers, core, counters, job, terms);
        }
        let mut waiting = core.waiting.borrow_mut();
        let position = waiting.iter().position(|queue| Arc::ptr_eq(&queue.executor, executor));
        let patience = if let Some(position) = position {
            let work = &mut waiting[position].work;
            let pace = self.paces[core.index].row();
            let patience = self.enter(work, &mut job, terms, pace).or_else(|_| {
                // Jobs that nobody waits for take nobody's room.
                work.sweep(counters.shard(core.index));
                self.enter(work, &mut job, terms, pace)
            })?;
            work.push(job);
            patience
        } else {
            // Where the places are taken by jobs that nobody waits for, those wait on other cores:
            // nothing can be cleared from here, and they are within their cores' next runs.
            let patience = self.schedule.enter(&mut job, terms)?;
            let max_rows = self.limits.max_rows;
            let spare = core.spare.take().map(|work| work.renew(max_rows));
            let mut work = spare.unwrap_or_else(|| Work::new(max_rows));
            work.push(job);
            let (executor, counters) = (executor.clone(), counters.clone());
            waiting.push_back(Queue { executor, counters, work, busy: Busy::default() });
            patience
        };
        counters.shard(core.index).count_queued();
        if !core.awake.replace(true) {
            core.wake.notify_one();
        }
        Ok(patience)
    }

    /// The same where workers run the batches.
    fn submit_moved(
        &self,
        workers: &Workers,
        core: &Core,
        counters: &Counters,
        job: Job,
        terms: Terms,
    ) -> Result<Option<Patience>, Refusal> {
        // What waits here still may need the engine.
        if core.waiting.borrow().is_empty()
            && let Err(error) = self.give(core.index, workers)
        {
            tracing::error!(deployment = self.refuge.name, %error, "it has one worker less");
        }
        workers.submit(job, terms, counters.shard(core.index))
    }

    /// Why one row that comes now would be refused, if it would, as a job of this size.
    pub(super) fn refusal(
        &self,
        executor: &Arc<Executor>,
        core: &Core,
        (tenant, time): (Tenant, Duration),
        own: Rows,
        shard: &Shard,
    ) -> Option<Refusal> {
        if let Some(workers) = self.moved.get() {
            return workers.refusal((tenant, time), own, shard);
        }
        let mut waiting = core.waiting.borrow_mut();
        let queue = waiting.iter_mut().find(|queue| Arc::ptr_eq(&queue.executor, executor))?;
        let (work, row) = (&mut queue.work, self.paces[core.index].row());
        let admit = |ahead| self.limits.admit_row(own, ahead, Some(time), row);
        // Behind all of them is more than what goes before it.
        admit(work.rows()).err()?;
        let foremost = self.schedule.foremost(tenant, time);
        admit(work.rows_before(foremost)).err()?;
        work.sweep(shard);
        admit(work.rows_before(foremost)).err()
    }

    /// Lets a job wait behind `work`, or refuses it.
    fn enter(
        &self,
        work: &Work,
        job: &mut Job,
        terms: Terms,
        row: Duration,
    ) -> Result<Option<Patience>, Refusal> {
        let max_rows = self.limits.max_rows;
        self.schedule.rank(job, terms);
        let before = work.rows_before(job.entrant());
        let ahead = before.ahead_of(job.own_rows(max_rows), max_rows);
        self.limits.admit(ahead, job.rows, job.time_left(), row)?;
        self.schedule.enter(job, terms)
    }
}

#[cfg(test)]
#[path = "tick_tests.rs"]
mod tests;
