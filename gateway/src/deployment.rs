//! A loaded model version: its signature, its features, and what runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_features::ServicePlan;
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::{Code, Datatype, ModelName, ModelVersion, Tensor};

use crate::counters::Counters;
use crate::error::GatewayError;
use crate::executor::{CostCurve, Executor};
use crate::metrics::DeploymentInfo;
pub(crate) use crate::model_config::PLATFORM;
use crate::model_config::{Labels, Reshape};

/// A version in service. It lives until its last request is answered.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) model: ModelName,
    pub(crate) version: ModelVersion,
    /// Its own, whatever else is or was loaded under the same name and version.
    pub(crate) number: DeploymentNumber,
    /// The graph's inputs in its order, then those that need not be brought.
    pub(crate) inputs: Vec<Input>,
    /// The outputs that are answered, in the graph's order.
    pub(crate) outputs: Vec<Output>,
    /// Whether requests can share a run: the first dimension of everything is rows that were
    /// found not to touch each other.
    pub(crate) batches: bool,
    /// How many rows a request may have, where the first dimension of everything is its rows.
    pub(crate) max_batch_size: Option<usize>,
    /// What the model's configuration comes to, completed from the graph.
    pub(crate) config: ModelConfig,
    /// Whether an answer may be given again to the same question, where the gateway has a cache.
    pub(crate) cached: bool,
    pub(crate) features: Option<FeatureInput>,
    /// What was found out when it was loaded, for who wants to know.
    pub(crate) running: Running,
    pub(crate) executor: Arc<Executor>,
    pub(crate) counters: Arc<Counters>,
    /// Tells of it in the metrics, as long as it is there.
    pub(crate) _info: Option<DeploymentInfo>,
}

/// A deployment's number among all that the process has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeploymentNumber(pub(crate) u64);

impl DeploymentNumber {
    /// One that no deployment has had.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An input as requests bring it.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// The shape on the wire, the batch included; -1 where it is free.
    pub(crate) shape: Vec<i64>,
    /// From there to the graph's, where that is another.
    pub(crate) reshape: Option<Reshape>,
    /// Whether the graph has a value of its own for it.
    pub(crate) optional: bool,
}

/// An output as it is answered.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// The shape on the wire, the batch included; -1 where it is free.
    pub(crate) shape: Vec<i64>,
    /// From the graph's shape to that, where they differ.
    pub(crate) reshape: Option<Reshape>,
    /// Which of the graph's outputs it is.
    pub(crate) index: usize,
    /// What the elements of a row are called, by their place in it.
    pub(crate) labels: Option<Labels>,
}

/// How a version is run, and why.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Sessions of the graph.
    pub(crate) instances: usize,
    /// Rows that a run has at most.
    pub(crate) max_rows: usize,
    /// Why no two requests may share a run, if so.
    pub(crate) apart: Option<String>,
    pub(crate) costs: CostCurve,
    /// The execution providers that run the graph, the preferred one first.
    pub(crate) providers: Vec<String>,
    /// By how many bytes the process grew with each session, if that is known. Another load at the
    /// same time is in it.
    pub(crate) session_memory: Option<u64>,
}

/// The graph input that features fill, and what computes them.
#[derive(Debug)]
pub(crate) struct FeatureInput {
    /// The index of the input.
    pub(crate) index: usize,
    pub(crate) plan: ServicePlan,
}

/// An input or output as metadata lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedTensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    /// An input that features fill, or the graph itself, when the request does not bring it.
    pub(crate) optional: bool,
}

impl Deployment {
    /// What a caller may send: the raw fields first, when there are features, then the graph's
    /// own inputs.
    pub(crate) fn listed_inputs(&self) -> Vec<ListedTensor> {
        let raw = self.features.iter().flat_map(|features| {
            let plan = &features.plan;
            std::iter::once(plan.entity_key()).chain(plan.request_fields()).map(|field| {
                ListedTensor {
                    name: field.name.clone(),
                    datatype: wire_datatype(field.data_type),
                    shape: vec![-1],
                    optional: !field.required,
                }
            })
        });
        let filled = self.features.as_ref().map(|features| features.index);
        let own = self.inputs.iter().enumerate().map(|(index, spec)| ListedTensor {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape: spec.shape.clone(),
            optional: spec.optional || filled == Some(index),
        });
        raw.chain(own).collect()
    }

    /// How many rows a request of so many bytes may have, each of them in its bytes.
    pub(crate) fn most_rows(&self, bytes: usize) -> usize {
        // It would run alone and whole.
        if self.inputs.iter().any(|input| input.optional) {
            return usize::MAX;
        }
        if self.max_batch_size.is_none() {
            return 1;
        }
        let elements = |input: &Input| -> usize {
            let row = input.shape.iter().skip(1);
            row.map(|&size| usize::try_from(size).unwrap_or(0)).product()
        };
        // An element takes a byte at the least; with features, a key does.
        let row: usize =
            if self.features.is_some() { 1 } else { self.inputs.iter().map(elements).sum() };
        bytes.checked_div(row).unwrap_or(usize::MAX)
    }

    /// The outputs that are answered, with their shapes on the wire, out of all that the graph
    /// gave. Outputs that do not have the graph's shapes are a fault of its own.
    pub(crate) fn answered(&self, given: Vec<Tensor>) -> Result<Vec<Tensor>, GatewayError> {
        if given.len() == self.outputs.len()
            && self.outputs.iter().all(|output| output.reshape.is_none())
        {
            return Ok(given);
        }
        let mut given: Vec<_> = given.into_iter().map(Some).collect();
        let wire = self.outputs.iter().map(|output| {
            let tensor = given.get_mut(output.index).and_then(Option::take);
            let tensor = tensor.ok_or_else(|| "the graph did not answer it".to_owned());
            match &output.reshape {
                None => tensor,
                Some(reshape) => tensor.and_then(|tensor| reshape.apply(tensor)),
            }
            .map_err(|reason| self.fault(format!("output {:?}: {reason}", output.name)))
        });
        wire.collect()
    }

    fn fault(&self, message: String) -> GatewayError {
        let (model, version) = (self.model.clone(), self.version);
        GatewayError::Engine { model, version, message, code: Code::Internal }
    }
}

/// How a raw field of a feature type crosses the wire: days and moments as text.
const fn wire_datatype(data_type: sluice_features::DataType) -> Datatype {
    use sluice_features::DataType;
    match data_type {
        DataType::Bool => Datatype::Bool,
        DataType::Int64 => Datatype::Int64,
        DataType::Float64 => Datatype::Fp64,
        DataType::String | DataType::Date | DataType::Timestamp => Datatype::Bytes,
    }
}

/// Deployments that run nothing, for tests of what is around them.
#[cfg(any(test, fuzzing))]
pub(crate) mod idle {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use sluice_protocol::grpc::ModelConfig;
    use sluice_protocol::{Datatype, ModelName, ModelVersion};

    use super::{Deployment, DeploymentNumber, Input, Running};
    use crate::counters::Counters;
    use crate::executor::{CostCurve, Executor, Limits, Refuge, SchedulePolicy};
    use crate::live::MaxWaiting;
    use crate::metrics::Metrics;
    use crate::watchdog::Watchdog;

    /// Nothing that runs.
    pub(crate) fn running() -> Running {
        Running {
            instances: 0,
            max_rows: 1,
            apart: None,
            costs: CostCurve::unknown(),
            providers: Vec::new(),
            session_memory: None,
        }
    }

    /// Version 1 of a model with these inputs: names, datatypes and shapes.
    pub(crate) fn deployment(model: &ModelName, inputs: &[(&str, Datatype, &[i64])]) -> Deployment {
        let max_waiting = MaxWaiting::new(Duration::ZERO);
        let zero = Duration::ZERO;
        let limits = Limits { max_rows: 1, row_cost: zero, least_run: zero, max_waiting };
        let metrics = Metrics::new(&[]).deployment(model, ModelVersion(1), &HashMap::new());
        let bound = Watchdog::default().bound(Duration::from_secs(1));
        let refuge = Refuge { bound, on_workers: Duration::from_secs(1), name: model.to_string() };
        let input = |&(name, datatype, shape): &(&str, Datatype, &[i64])| Input {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            reshape: None,
            optional: false,
        };
        Deployment {
            model: model.clone(),
            version: ModelVersion(1),
            number: DeploymentNumber::next(),
            inputs: inputs.iter().map(input).collect(),
            outputs: Vec::new(),
            batches: true,
            max_batch_size: None,
            config: ModelConfig::default(),
            cached: false,
            features: None,
            running: running(),
            executor: Executor::ticks(Vec::new(), limits, SchedulePolicy::default(), refuge),
            counters: Arc::new(Counters::new(1, 0, true, metrics)),
            _info: None,
        }
    }
}
