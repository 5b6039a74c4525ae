//! Turns waiting requests into batches and runs them.
//!
//! Which way is decided by what the graph costs, measured at warm-up: a cheap one runs on the
//! core that read the request ([`tick`]), a costly one on threads of its own ([`workers`]).
//! Both wait for nothing while there is work and somebody to do it, and both run a job that is
//! too large for one run in pieces, by turns with the others ([`work`]).

mod batch;
mod cost;
mod lanes;
mod line;
mod pace;
mod policy;
mod queue;
mod schedule;
mod split;
mod tick;
mod waiting;
mod work;
mod workers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError};
use sluice_protocol::{Code, NamedTensor, Tensor};
use tokio::sync::oneshot;

pub(crate) use cost::{CostCurve, Limits, measure};
pub(crate) use policy::{QueuePolicy, SchedulePolicy, TimeoutAction};
use schedule::{Expiry, Place, Schedule};
pub(crate) use schedule::{Patience, Terms};
pub(crate) use tick::Core;
pub(crate) use tick::Refuge;
use tick::Ticks;
use waiting::{Rows, WaitingGuard};
pub(crate) use workers::WorkerSettings;
use workers::Workers;

use crate::counters::{Counters, Nanoseconds};
use crate::tenant::Tenant;

/// What a job is told: its share of the outputs, or why there is none.
pub(crate) type Answer = Result<Ran, RunError>;

/// A job that was run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its own rows of the outputs.
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) times: Times,
}

/// Where a job's time went. All but the first are those of the whole batch that it ran in, or of
/// all its pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// From its coming until its run began.
    pub(crate) queue: Nanoseconds,
    /// Making one input of those of several jobs.
    pub(crate) input: Nanoseconds,
    /// The run itself.
    pub(crate) infer: Nanoseconds,
    /// Taking the outputs out of the session, and giving each job its rows of them.
    pub(crate) output: Nanoseconds,
}

/// A run that failed, told to every request of the batch.
#[derive(Debug, Clone)]
pub(crate) struct RunError {
    pub(crate) code: Code,
    pub(crate) message: Arc<str>,
}

impl RunError {
    /// Whether the run was ended, since it took too long: others of its kind would, too.
    fn is_termination(&self) -> bool {
        self.code == Code::DeadlineExceeded
    }
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
    /// When it came.
    pub(crate) submitted: Instant,
    /// When the answer stops being of use.
    pub(crate) deadline: Option<Instant>,
    /// When a run would begin too late to answer by then.
    begins_by: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// Jobs of a lower one go first.
    level: u64,
    /// Whose it is: tenants share the runs.
    tenant: Tenant,
    expiry: Expiry,
    /// Whether its time was up and it went behind the others.
    is_delayed: bool,
    /// Its part of the number that may wait.
    place: Option<Place>,
    /// Its part of the rows that wait for workers.
    waiting: Option<WaitingGuard>,
}

impl Job {
    /// A job that comes now and must be answered within `time`, if that is bounded.
    pub(crate) fn new(
        inputs: Vec<Tensor>,
        rows: usize,
        time: Option<Duration>,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        let submitted = Instant::now();
        let deadline = time.and_then(|time| submitted.checked_add(time));
        Self {
            inputs,
            optional: Vec::new(),
            rows,
            submitted,
            deadline,
            begins_by: deadline,
            reply,
            level: 0,
            tenant: Tenant::default(),
            expiry: Expiry::Never,
            is_delayed: false,
            place: None,
            waiting: None,
        }
    }

    /// How long its answer is of use, from its coming on.
    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(self.submitted))
    }

    /// Until when its run is to begin: who is due first goes first.
    fn due(&self) -> Option<Instant> {
        let expiry = match self.expiry {
            Expiry::Reject(until, _) => Some(until),
            Expiry::Never | Expiry::Delay(_) => None,
        };
        self.begins_by.into_iter().chain(expiry).min()
    }

    /// How it would stand among those that wait.
    fn entrant(&self) -> Entrant {
        Entrant { level: self.level, tenant: self.tenant, due: self.due(), rows: self.rows }
    }

    /// Whether it cannot share runs of `max_rows`.
    fn is_large(&self, max_rows: usize) -> bool {
        self.rows > max_rows || !self.optional.is_empty()
    }

    /// Its rows, by the kind of run that it gets.
    fn own_rows(&self, max_rows: usize) -> Rows {
        if self.is_large(max_rows) {
            Rows { small: 0, large: self.rows }
        } else {
            Rows { small: self.rows, large: 0 }
        }
    }

    /// Until when it may wait for others to share its run, where they all wait for `delay` at
    /// most: half of its own time, so that it is not over before a run begins.
    fn waits_until(&self, delay: Duration) -> Instant {
        let own = self.due().map(|end| end.saturating_duration_since(self.submitted) / 2);
        let time = own.map_or(delay, |own| own.min(delay));
        // One that the clock cannot tell is for nobody to wait.
        self.submitted.checked_add(time).unwrap_or(self.submitted)
    }

    /// Takes into account how long a run takes at the least.
    fn leave_time_for(&mut self, run: Duration) {
        self.begins_by =
            self.deadline.map(|deadline| deadline.checked_sub(run).unwrap_or(deadline));
    }

    /// Whether somebody still waits for the answer, and may get it.
    fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed()
            && self.begins_by.is_none_or(|last| now < last)
            && !matches!(self.expiry, Expiry::Reject(until, _) if until <= now)
    }

    /// Whether it differs from `other` in nothing but the number of rows.
    fn shares_bucket(&self, other: &Self) -> bool {
        self.inputs.iter().zip(&other.inputs).all(|(own, other)| {
            own.datatype() == other.datatype() && own.shape().get(1..) == other.shape().get(1..)
        })
    }
}

/// A new job as those that wait see it.
#[derive(Debug, Clone, Copy)]
struct Entrant {
    level: u64,
    tenant: Tenant,
    due: Option<Instant>,
    rows: usize,
}

/// Why a job was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The work already waiting is predicted to take this long.
    Overloaded(Duration),
    /// As many requests wait as the model's policy lets.
    QueueFull(usize),
    /// The deployment is being taken down.
    Stopped,
}

/// How a deployment runs its batches.
#[derive(Debug)]
pub(crate) enum Executor {
    /// On the core that read the request.
    Ticks(Box<Ticks>),
    /// On threads of its own.
    Workers(Workers),
}

impl Executor {
    /// Batches on the serving cores: one engine a core. `refuge` is what happens after a run that
    /// outlasted its bound.
    pub(crate) fn ticks(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        policy: SchedulePolicy,
        refuge: Refuge,
    ) -> Arc<Self> {
        Arc::new(Self::Ticks(Box::new(Ticks::new(engines, limits, policy, refuge))))
    }

    /// Batches on worker threads: one engine a worker.
    pub(crate) fn workers(
        engines: Vec<Box<dyn Engine>>,
        limits: Limits,
        policy: SchedulePolicy,
        settings: WorkerSettings,
        counters: Arc<Counters>,
    ) -> std::io::Result<Arc<Self>> {
        let schedule = Schedule::new(policy);
        Ok(Arc::new(Self::Workers(Workers::start(engines, limits, schedule, settings, counters)?)))
    }

    /// Queues a job on a request's terms; its reply comes through the job's channel. Never waits.
    /// What comes back says until when the caller does.
    pub(crate) fn submit(
        self: &Arc<Self>,
        core: &Core,
        counters: &Arc<Counters>,
        job: Job,
        terms: Terms,
    ) -> Result<Option<Patience>, Refusal> {
        match &**self {
            Self::Ticks(ticks) => ticks.submit(self, core, counters, job, terms),
            Self::Workers(workers) => workers.submit(job, terms, counters.shard(core.index)),
        }
    }

    /// Why a request that comes now would be refused however few rows it had, if it would: it need
    /// not be read then. `time` is how long its answer would be of use. One that `fits` has no more
    /// rows than a run; of others that is not known.
    pub(crate) fn refusal(
        self: &Arc<Self>,
        core: &Core,
        counters: &Counters,
        tenant: Tenant,
        time: Duration,
        fits: impl FnOnce() -> bool,
    ) -> Option<Refusal> {
        let (shard, terms) = (counters.shard(core.index), (tenant, time));
        let refusal = |own| match &**self {
            Self::Ticks(ticks) => ticks.refusal(self, core, terms, own, shard),
            Self::Workers(workers) => workers.refusal(terms, own, shard),
        };
        let of_small = refusal(Rows { small: 1, large: 0 })?;
        if fits() { Some(of_small) } else { refusal(Rows { small: 0, large: 1 }) }
    }

    /// The way's name, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ticks(ticks) if !ticks.has_moved() => "tick",
            Self::Ticks(_) => "workers",
            Self::Workers(_) => "workers",
        }
    }
}
