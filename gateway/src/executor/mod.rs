//! Turns waiting requests into batches and runs them.
//!
//! Which way is decided by what the graph costs, measured at warm-up: a cheap one runs on the
//! core that read the request ([`tick`]), a costly one on threads of its own ([`workers`]).
//! Both wait for nothing while there is work and somebody to do it, and both run a job that is
//! too large for one run in pieces, by turns with the others ([`work`]).

mod batch;
mod cost;
mod policy;
mod queue;
mod split;
mod tick;
mod waiting;
mod work;
mod workers;

use std::sync::Arc;
use std::time::Instant;

use sluice_engine::{Engine, EngineError};
use sluice_protocol::{Code, NamedTensor, Tensor};
use tokio::sync::oneshot;

pub(crate) use cost::{CostCurve, Limits, measure};
pub(crate) use policy::{QueuePolicy, SchedulePolicy, TimeoutAction};
pub(crate) use tick::Core;
use tick::Ticks;
use waiting::WaitingGuard;
pub(crate) use workers::WorkerSettings;
use workers::Workers;

use crate::counters::Counters;

/// What a job is told: its share of the outputs, or why there is none.
pub(crate) type Answer = Result<Vec<Tensor>, RunError>;

/// A run that failed, told to every request of the batch.
#[derive(Debug, Clone)]
pub(crate) struct RunError {
    pub(crate) code: Code,
    pub(crate) message: Arc<str>,
}

impl From<EngineError> for RunError {
    fn from(error: EngineError) -> Self {
        Self { code: error.code(), message: error.to_string().into() }
    }
}

/// The rows of one request, waiting to run.
#[derive(Debug)]
pub(crate) struct Job {
    /// One tensor an input, in the graph's order.
    pub(crate) inputs: Vec<Tensor>,
    /// What goes in the place of values that the graph has itself. A job that brings some runs
    /// alone and whole, since they would hold for the others too, and need not be rows.
    pub(crate) optional: Vec<NamedTensor>,
    /// The first dimension of every input; 1 when the graph does not batch.
    pub(crate) rows: usize,
    /// When the answer stops being of use.
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// Its part of the rows that wait for workers.
    waiting: Option<WaitingGuard>,
}

impl Job {
    pub(crate) const fn new(
        inputs: Vec<Tensor>,
        rows: usize,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        Self { inputs, optional: Vec::new(), rows, deadline, reply, waiting: None }
    }

    /// Whether it cannot share runs of `max_rows`.
    fn is_large(&self, max_rows: usize) -> bool {
        self.rows > max_rows || !self.optional.is_empty()
    }

    /// Whether somebody still waits for the answer.
    fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && self.deadline.is_none_or(|deadline| now < deadline)
    }
}

/// Why a job was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The work already waiting is predicted to take this long.
    Overloaded(std::time::Duration),
    /// The deployment is being taken down.
    Stopped,
}

/// How a deployment runs its batches.
#[derive(Debug)]
pub(crate) enum Executor {
    /// On the core that read the request.
    Ticks(Ticks),
    /// On threads of its own.
    Workers(Workers),
}

impl Executor {
    /// Batches on the serving cores: one engine a core.
    pub(crate) fn ticks(engines: Vec<Box<dyn Engine>>, limits: Limits) -> Arc<Self> {
        Arc::new(Self::Ticks(Ticks::new(engines, limits)))
    }

    /// Batches on worker threads: one engine a worker.
    pub(crate) fn workers(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        settings: WorkerSettings,
        counters: Arc<Counters>,
    ) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self::Workers(Workers::start(engines, limits, settings, counters)?)))
    }

    /// Queues a job; its reply comes through the job's channel. Never waits.
    pub(crate) fn submit(
        self: &Arc<Self>,
        core: &Core,
        counters: &Arc<Counters>,
        job: Job,
    ) -> Result<(), Refusal> {
        match &**self {
            Self::Ticks(ticks) => ticks.submit(self, core, counters, job),
            Self::Workers(workers) => workers.submit(job),
        }
    }

    /// The way's name, for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ticks(_) => "tick",
            Self::Workers(_) => "workers",
        }
    }
}
