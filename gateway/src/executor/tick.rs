//! Tick batching: rows wait in a plain list of the core that read them.
//!
//! The drainer task goes to the back of its runtime's run queue, so it runs after every
//! connection that was ready in this tick has parsed and pushed its rows. Batches form by
//! themselves: no added delay, no lock that anybody contends for, no wake of another thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_engine::Engine;
use tokio::sync::Notify;

use super::schedule::Schedule;
use super::work::Work;
use super::{Executor, Job, Limits, Patience, Refusal, Terms};
use crate::counters::Counters;

/// One engine a core. The mutex is for the compiler: a core only ever takes its own.
pub(crate) struct Ticks {
    engines: Vec<Mutex<Box<dyn Engine>>>,
    limits: Limits,
    schedule: Schedule,
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
            while self.run_next() {
                // Answers go out, and new requests come in, between two runs.
                tokio::task::yield_now().await;
            }
            self.awake.set(false);
        }
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
        let mut engine = ticks.engines[core].lock().unwrap_or_else(PoisonError::into_inner);
        self.work.run_next(&mut **engine, self.counters.shard(core));
    }
}

impl Ticks {
    pub(super) fn new(engines: Vec<Box<dyn Engine>>, limits: Limits, schedule: Schedule) -> Self {
        Self { engines: engines.into_iter().map(Mutex::new).collect(), limits, schedule }
    }

    pub(super) fn submit(
        &self,
        executor: &Arc<Executor>,
        core: &Core,
        counters: &Arc<Counters>,
        mut job: Job,
        terms: Terms,
    ) -> Result<Option<Patience>, Refusal> {
        let mut waiting = core.waiting.borrow_mut();
        let position = waiting.iter().position(|queue| Arc::ptr_eq(&queue.executor, executor));
        let patience = if let Some(position) = position {
            let work = &mut waiting[position].work;
            let patience = self.enter(work, &mut job, terms).or_else(|_| {
                // Jobs that nobody waits for take nobody's room.
                work.sweep(counters.shard(core.index));
                self.enter(work, &mut job, terms)
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
            waiting.push_back(Queue { executor, counters, work });
            patience
        };
        counters.shard(core.index).count_queued();
        if !core.awake.replace(true) {
            core.wake.notify_one();
        }
        Ok(patience)
    }

    /// Lets a job wait behind `work`, or refuses it.
    fn enter(&self, work: &Work, job: &mut Job, terms: Terms) -> Result<Option<Patience>, Refusal> {
        let max_rows = self.limits.max_rows;
        let before = work.rows_before(self.schedule.level(terms));
        let ahead = before.ahead_of(job.own_rows(max_rows), max_rows);
        self.limits.admit(ahead, job.rows, 1)?;
        self.schedule.enter(job, terms)
    }
}
