//! What a graph costs by the rows of a run, and whether requests can make it cost more.

use bytes::Bytes;
use sluice_engine::Engine;
use sluice_protocol::TensorSpec;

use super::graph::varies_by_values;
use super::trial::Trial;
use crate::error::LoadError;
use crate::executor::{CostCurve, measure};
use crate::model_config::Signature;

/// What runs were measured to take.
pub(super) struct Costs {
    pub(super) curve: CostCurve,
    /// Whether requests can make a run take longer than that: by shapes that were not measured, by
    /// values, or by optional inputs, with which a request runs whole.
    pub(super) vary: bool,
}

impl Costs {
    /// Measures an engine with the row that its trial found.
    pub(super) fn measure(
        engine: &mut dyn Engine,
        graph: &Bytes,
        signature: &Signature,
        trial: &Trial,
        has_parity: bool,
    ) -> Result<Self, LoadError> {
        let Some(row) = &trial.row else {
            return Ok(Self { curve: CostCurve::unknown(), vary: true });
        };
        let batches = trial.apart.is_none();
        let bound = signature.batching.max_batch_size(batches).unwrap_or(1);
        let most = if batches { trial.most_rows.min(bound) } else { 1 };
        // Batches are cut to size, and parity rows have the width of all rows.
        let first_fixed = usize::from(batches);
        let is_free = |spec: &TensorSpec| spec.shape.iter().skip(first_fixed).any(|&n| n < 0);
        let by_shapes = signature.graph_inputs.iter().any(is_free) && !(batches && has_parity);
        let has_optional = signature.inputs.iter().any(|input| input.optional);
        let vary = by_shapes || has_optional || varies_by_values(graph);
        Ok(Self { curve: measure(engine, row, most)?, vary })
    }
}
