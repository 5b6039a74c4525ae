//! A loaded model version: its signature, its features, and what runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_features::ServicePlan;
use sluice_protocol::{Datatype, ModelName, ModelVersion, TensorSpec};

use crate::counters::Counters;
use crate::executor::Executor;

/// The name under which metadata lists graphs of this kind, as Triton spells it.
pub(crate) const PLATFORM: &str = "onnxruntime_onnx";

/// A version in service. It lives until its last request is answered.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) model: ModelName,
    pub(crate) version: ModelVersion,
    /// Its own, whatever else is or was loaded under the same name and version.
    pub(crate) number: DeploymentNumber,
    /// The graph's inputs and outputs, in its order.
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    /// Whether requests can share a run: the first dimension of everything is rows that were
    /// found not to touch each other.
    pub(crate) batches: bool,
    /// Whether an answer may be given again to the same question, where the gateway has a cache.
    pub(crate) cached: bool,
    pub(crate) features: Option<FeatureInput>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) counters: Arc<Counters>,
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
    /// An input that features fill when the request does not bring it.
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
            optional: filled == Some(index),
        });
        raw.chain(own).collect()
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
