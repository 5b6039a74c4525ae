//! The infer request and its answer, as both HTTP and gRPC decode them.

use std::collections::BTreeMap;

use crate::name::{ModelName, ModelVersion};
use crate::tensor::Tensor;

/// A parameter of a request, a tensor or an answer.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "one variant a type")]
pub enum Parameter {
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
}

/// Parameters by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// A tensor with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The model input or output, or the raw field, that it is.
    pub name: String,
    /// Its shape and elements.
    pub tensor: Tensor,
}

/// A part of a shared memory region that the caller has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSlice {
    /// The region's name.
    pub region: String,
    /// Where the part begins, in bytes from the region's beginning.
    pub offset: u64,
    /// How many bytes it has.
    pub byte_size: u64,
}

/// An output that the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// How many of its largest values are wanted, with their labels, in its place.
    pub classes: Option<usize>,
    /// Where its elements are to be put, when not into the answer.
    pub region: Option<RegionSlice>,
}

/// What one caller asks of one model. Rows are the first dimension of every input.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// The model.
    pub model: ModelName,
    /// The version, when the caller names one.
    pub version: Option<ModelVersion>,
    /// The caller's name for the request; empty when there is none.
    pub id: String,
    /// Request parameters.
    pub parameters: Parameters,
    /// Raw fields, or the graph's own inputs.
    pub inputs: Vec<NamedTensor>,
    /// The outputs to answer with; all of them when empty.
    pub outputs: Vec<RequestedOutput>,
}

/// The answer to an [`InferRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    /// The model that answered.
    pub model: ModelName,
    /// The version that answered.
    pub version: ModelVersion,
    /// The caller's name for the request, echoed.
    pub id: String,
    /// Facts about the answer, `degraded_views` for one.
    pub parameters: Parameters,
    /// The outputs, in the model's order.
    pub outputs: Vec<NamedTensor>,
    /// Where the elements of outputs were put, by their names, when not into the answer.
    pub regions: Vec<(String, RegionSlice)>,
}

impl InferResponse {
    /// Where the elements of `output` were put, when not into the answer.
    pub fn region(&self, output: &str) -> Option<&RegionSlice> {
        self.regions.iter().find(|(name, _)| name == output).map(|(_, region)| region)
    }
}
