//! Tick batching: rows wait in a plain list of the core that read them.
//!
//! The drainer task goes to the back of its runtime's run queue, so it runs after every
//! connection that was ready in this tick has parsed and pushed its rows. Batches form by
//! themselves: no added delay, no lock that anybody contends for, no wake of another thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_engine::Engine;
use tokio::sync::Notify;

use super::batch::run_all;
use super::{Executor, Job, Limits, Refusal};
use crate::counters::Counters;

/// One engine a core. The mutex is for the compiler: a core only ever takes its own.
pub(crate) struct Ticks {
    engines: Vec<Mutex<Box<dyn Engine>>>,
    limits: Limits,
}

impl std::fmt::Debug for Ticks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticks").field("cores", &self.engines.len()).finish_non_exhaustive()
    }
}

/// What a serving core keeps between ticks. It never leaves its thread.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    index: usize,
    waiting: Rc<RefCell<Vec<Queue>>>,
    /// Wakes the drainer.
    wake: Rc<Notify>,
    awake: Rc<Cell<bool>>,
}

#[derive(Debug)]
struct Queue {
    executor: Arc<Executor>,
    counters: Arc<Counters>,
    jobs: Vec<Job>,
    rows: usize,
}

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
}

impl Core {
    /// Makes this thread serving core `index` and starts its drainer. Call inside a `LocalSet`.
    pub(crate) fn start(index: usize) -> Self {
        let core = Self {
            index,
            waiting: Rc::default(),
            wake: Rc::new(Notify::new()),
            awake: Rc::default(),
        };
        CORE.set(Some(core.clone()));
        tokio::task::spawn_local(core.clone().drain());
        core
    }

    /// The core that this thread is.
    pub(crate) fn current() -> Self {
        CORE.with_borrow(|core| core.clone().expect("requests are only handled on serving cores"))
    }

    /// Which of the serving cores this is, from 0.
    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    async fn drain(self) {
        loop {
            self.wake.notified().await;
            self.awake.set(false);
            let queues = self.waiting.take();
            for queue in queues {
                queue.run(self.index);
                // Answers go out, and new requests come in, between two models' batches.
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Queue {
    fn run(self, core: usize) {
        let Executor::Ticks(ticks) = &*self.executor else { return };
        let mut engine = ticks.engines[core].lock().unwrap_or_else(PoisonError::into_inner);
        run_all(&mut **engine, self.jobs, ticks.limits.max_rows, self.counters.shard(core));
    }
}

impl Ticks {
    pub(super) fn new(engines: Vec<Box<dyn Engine>>, limits: Limits) -> Self {
        Self { engines: engines.into_iter().map(Mutex::new).collect(), limits }
    }

    pub(super) fn submit(
        &self,
        executor: &Arc<Executor>,
        core: &Core,
        counters: &Arc<Counters>,
        job: Job,
    ) -> Result<(), Refusal> {
        let mut waiting = core.waiting.borrow_mut();
        let position = waiting.iter().position(|queue| Arc::ptr_eq(&queue.executor, executor));
        let queue = match position {
            Some(position) => &mut waiting[position],
            None => {
                waiting.push(Queue {
                    executor: executor.clone(),
                    counters: counters.clone(),
                    jobs: Vec::new(),
                    rows: 0,
                });
                waiting.last_mut().expect("one was just pushed")
            }
        };
        let predicted = self.limits.predicted(queue.rows);
        if predicted > self.limits.max_waiting {
            return Err(Refusal::Overloaded(predicted));
        }
        queue.rows += job.rows;
        queue.jobs.push(job);
        if !core.awake.replace(true) {
            core.wake.notify_one();
        }
        Ok(())
    }
}
