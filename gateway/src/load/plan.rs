//! How a version is going to be run: where, by how many sessions, in batches of how many rows.

use std::sync::Arc;
use std::time::Duration;

use sluice_engine::{Engine, OnnxEngine};
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::{ModelName, ModelVersion};

use super::costs::Costs;
use super::settings::ExecutorChoice;
use super::{Candidate, open};
use crate::counters::Counters;
use crate::error::LoadError;
use crate::executor::{Executor, Limits, Refuge, SchedulePolicy, WorkerSettings};
use crate::live::MaxWaiting;
use crate::model_config::Scheduling;
use crate::shared::Shared;
use crate::watchdog::{RunBound, Watched};

/// How long it may take that callers are told that their time is over.
const ALL_TOLD: Duration = Duration::from_millis(250);
/// How long a run may take on a serving core, where nobody says otherwise: a thousand times what
/// one was measured to take there. The other connections of the core wait for it.
const TICK_RUN_BOUND: Duration = Duration::from_millis(250);

/// How a version's batches are going to be run: as its operator says, first in
/// `deployment.toml` and then in the model's configuration, and for the rest as was measured.
pub(super) struct Plan {
    pub(super) choice: ExecutorChoice,
    /// Sessions of the graph.
    pub(super) instances: usize,
    pub(super) limits: Limits,
    pub(super) policy: SchedulePolicy,
    pub(super) workers: WorkerSettings,
    /// How long a run may take on workers, and on serving cores.
    pub(super) run_bound: Duration,
    pub(super) bound_on_cores: Duration,
}

impl Plan {
    /// `most_rows` is how many rows requests that share a run may have. None when they may not.
    pub(super) fn new(
        shared: &Shared,
        candidate: &Candidate,
        scheduling: Scheduling,
        costs: &Costs,
        most_rows: Option<usize>,
        on_cpu: bool,
    ) -> Self {
        let settings = &candidate.settings;
        let Costs { curve: costs, vary } = costs;
        let delay = settings.max_queue_delay.or(scheduling.max_queue_delay).unwrap_or_default();
        let fits_a_tick = on_cpu && costs.is_cheap() && !vary && delay.is_zero();
        let choice = settings.executor.unwrap_or(match fits_a_tick {
            true => ExecutorChoice::Tick,
            false => ExecutorChoice::Workers,
        });
        let (instances, found) = match choice {
            ExecutorChoice::Tick => (shared.cores, costs.tick_rows()),
            ExecutorChoice::Workers => {
                let asked = settings.instances.or(scheduling.instances);
                // A device has room for one copy of the weights, and runs one after the other.
                let instances = if on_cpu { shared.cores } else { 1 };
                (asked.unwrap_or(instances), costs.worthwhile_rows())
            }
        };
        let preferred = scheduling.max_rows.map_or(found, |most| most.min(found));
        let max_rows = settings.max_batch_rows.unwrap_or(preferred).min(most_rows.unwrap_or(1));
        let limits = Limits {
            max_rows,
            row_cost: costs.row_cost(max_rows),
            least_run: costs.least_run(),
            max_waiting: settings
                .max_waiting
                .map_or_else(|| shared.max_waiting.clone(), MaxWaiting::new),
        };
        let workers = WorkerSettings { max_queue_delay: delay };
        let run_bound = Self::run_bound(shared, candidate);
        let bound_on_cores = settings.max_run_time.unwrap_or(TICK_RUN_BOUND);
        Self {
            choice,
            instances,
            limits,
            policy: scheduling.policy,
            workers,
            run_bound,
            bound_on_cores,
        }
    }

    /// How long a run may take, but for those on serving cores: as long as a request may and a
    /// little more, when everybody who waited for it has been told so.
    pub(super) fn run_bound(shared: &Shared, candidate: &Candidate) -> Duration {
        let asked = candidate.settings.max_run_time;
        asked.unwrap_or_else(|| shared.limits().request_timeout + ALL_TOLD)
    }

    /// As many sessions as it takes, of which `first` is one.
    pub(super) fn engines(
        &self,
        shared: &Shared,
        candidate: &Candidate,
        first: Watched<OnnxEngine>,
        bound: &RunBound,
    ) -> Result<Vec<Box<dyn Engine>>, LoadError> {
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(first)];
        while engines.len() < self.instances {
            engines.push(Box::new(open(shared, candidate, bound)?));
        }
        Ok(engines)
    }

    pub(super) fn start(
        self,
        shared: &Shared,
        (model, version): (&ModelName, ModelVersion),
        asked: &ModelConfig,
        engines: Vec<Box<dyn Engine>>,
        bound: RunBound,
    ) -> Result<(Arc<Executor>, Arc<Counters>), LoadError> {
        // Those of the cores become workers if one is ended.
        let (workers, on_cores) = (engines.len(), self.choice == ExecutorChoice::Tick);
        let metrics = shared.metrics.deployment(model, version, &asked.metric_tags);
        let counters = Arc::new(Counters::new(shared.cores, workers, on_cores, metrics));
        let executor = match self.choice {
            ExecutorChoice::Tick => {
                let on_workers = self.run_bound;
                bound.set(self.bound_on_cores);
                let name = format!("{model}/{version}");
                let refuge = Refuge { bound, on_workers, name };
                Executor::ticks(engines, self.limits, self.policy, refuge)
            }
            ExecutorChoice::Workers => {
                Executor::workers(engines, self.limits, self.policy, self.workers, counters.clone())
                    .map_err(|error| LoadError::Package(format!("start workers: {error}")))?
            }
        };
        Ok((executor, counters))
    }
}
