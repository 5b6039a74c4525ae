//! Model configurations, as fuzzing has them: from the text to what a graph makes of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_engine::{Engine, EngineError};
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::{Datatype, Tensor, TensorSpec};

use super::{Scheduling, Signature, accept, attach_labels, complete};
use crate::deployment::idle;
use crate::error::LoadError;

/// A graph that is described and never run.
struct Graph {
    inputs: Vec<TensorSpec>,
    optional: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Engine for Graph {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn optional_inputs(&self) -> &[TensorSpec] {
        &self.optional
    }

    fn run(&mut self, _inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        Err(EngineError::Run("it is only described".to_owned()))
    }
}

/// A configuration, as `config.pbtxt` has it and as a load call has it.
pub(crate) fn config_pbtxt(text: &Bytes) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    for config in [ModelConfig::parse_text(text), ModelConfig::parse_json(text)] {
        let Ok(config) = config else { continue };
        for graph in graphs() {
            let Ok(completed) = complete_from(&config, &graph) else { continue };
            // What clients are told is a configuration, too.
            let told = completed.to_json().to_string();
            assert_eq!(ModelConfig::parse_json(&told).as_ref(), Ok(&completed), "{told}");
        }
    }
}

fn complete_from(config: &ModelConfig, graph: &Graph) -> Result<ModelConfig, LoadError> {
    let model = "m".parse().expect("a model's name");
    accept(config, &model)?;
    let scheduling = Scheduling::read(config)?;
    let mut signature = Signature::agree(config, graph)?;
    let labels = BTreeMap::from([("labels.txt".to_owned(), Bytes::from_static(b"a\nb\n"))]);
    attach_labels(config, &labels, &mut signature.outputs)?;
    let mut deployment = idle::deployment(&model, &[]);
    deployment.max_batch_size = signature.batching.max_batch_size(true);
    deployment.inputs = signature.inputs;
    deployment.outputs = signature.outputs;
    Ok(complete(config, &deployment, scheduling.instances.unwrap_or(1)))
}

/// One with a batch and an input that it has a value for, and one without.
fn graphs() -> [Graph; 2] {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    let batched = Graph {
        inputs: vec![
            spec("x", Datatype::Fp32, &[-1, 16, -1]),
            spec("t", Datatype::Bytes, &[-1, 1]),
        ],
        optional: vec![spec("scale", Datatype::Int64, &[-1, 1])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1, 4]), spec("z", Datatype::Int64, &[-1])],
    };
    let fixed = Graph {
        inputs: vec![spec("x", Datatype::Fp32, &[2, 3])],
        optional: Vec::new(),
        outputs: vec![spec("y", Datatype::Fp32, &[2, 3])],
    };
    [batched, fixed]
}
