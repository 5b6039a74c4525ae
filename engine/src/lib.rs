//! Runs a model's graph.
//!
//! An [`Engine`] is synchronous and belongs to one thread at a time: whoever batches decides
//! when it runs. [`OnnxRuntime`] finds ONNX Runtime's shared library, loads it once a process
//! and opens graphs in it. The gateway serves with it; the trainer checks its exports and
//! judges the production version with it.

mod error;
mod library;
mod onnx;
mod provider;
mod value;

pub use error::EngineError;
pub use onnx::{OnnxEngine, OnnxRuntime};
pub use provider::{CPU, Provider};
use std::sync::Arc;
use std::time::Instant;

use sluice_protocol::{NamedTensor, Tensor, TensorSpec};

/// Breaks off the runs of one engine.
pub trait Terminate: Send + Sync + std::fmt::Debug {
    /// Makes the run that is under way, and every later one, end with
    /// [`EngineError::Terminated`]: in ONNX Runtime between two nodes of the graph, or between
    /// two rounds of a loop in it. A single node is never broken off.
    fn terminate(&self);

    /// Lets later runs go on.
    fn resume(&self);
}

/// A loaded graph.
pub trait Engine: Send {
    /// The graph's inputs, in the order that [`Engine::run`] takes them.
    fn inputs(&self) -> &[TensorSpec];

    /// The graph's outputs, in the order that [`Engine::run`] gives them.
    fn outputs(&self) -> &[TensorSpec];

    /// Inputs beside those, for which the graph has values of its own that a run may replace.
    fn optional_inputs(&self) -> &[TensorSpec] {
        &[]
    }

    /// What breaks a run off, from any thread; none for an engine whose runs cannot be.
    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        None
    }

    /// Runs the graph once, over one tensor an input, in the order of [`Engine::inputs`].
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;

    /// The same, with `optional` in the place of the graph's own values.
    fn run_with(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<Vec<Tensor>, EngineError> {
        match optional.first() {
            None => self.run(inputs),
            Some(NamedTensor { name, .. }) => {
                Err(EngineError::Run(format!("{name:?} is no optional input")))
            }
        }
    }

    /// The same, and the moment at which the graph had run and its outputs began to be taken out.
    fn run_timed(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<(Vec<Tensor>, Instant), EngineError> {
        self.run_with(inputs, optional).map(|outputs| (outputs, Instant::now()))
    }
}
