//! The package's own rows: whether the graph answers what the learner did.

use bytes::Bytes;
use sluice_engine::Engine;
use sluice_protocol::{PARITY_FILE, ParityRows, Tensor, TensorData};

use super::Candidate;
use crate::error::LoadError;

/// The candidate's parity rows, if it has some.
pub(super) fn parity_rows(candidate: &Candidate) -> Result<Option<ParityRows>, LoadError> {
    let Some(bytes): Option<&Bytes> = candidate.files.get(PARITY_FILE) else { return Ok(None) };
    ParityRows::parse(bytes)
        .map(Some)
        .map_err(|error| LoadError::Package(format!("{PARITY_FILE} cannot be read: {error}")))
}

/// Runs the package's own rows and compares with what the learner answered.
pub(super) fn check_parity(engine: &mut dyn Engine, parity: &ParityRows) -> Result<(), LoadError> {
    let failed = |reason: String| LoadError::Parity(reason);
    let only = matches!(engine.inputs(), [only] if only.name == parity.input);
    let output = engine.outputs().iter().position(|spec| spec.name == parity.output);
    let (true, Some(output)) = (only, output) else {
        return Err(failed(format!("rows are for {} -> {}", parity.input, parity.output)));
    };
    let answers = engine.run(&[parity_tensor(&parity.rows).map_err(failed)?])?;
    let TensorData::Fp32(found) = answers[output].data() else {
        return Err(failed(format!("output {} is not FP32", parity.output)));
    };
    if found.len() != parity.expected.len() {
        return Err(failed(format!("{} rows gave {} answers", parity.rows.len(), found.len())));
    }
    let pairs = parity.expected.iter().map(|bits| f32::from_bits(*bits)).zip(found);
    for (row, (expected, answer)) in pairs.enumerate() {
        if !parity.matches(expected, *answer) {
            return Err(failed(format!("row {row} gives {answer}, the learner said {expected}")));
        }
    }
    Ok(())
}

/// Some of the rows as the graph takes them.
pub(super) fn parity_tensor(rows: &[Vec<u32>]) -> Result<Tensor, String> {
    let width = rows.first().map_or(0, Vec::len);
    let elements = rows.iter().flatten().map(|bits| f32::from_bits(*bits)).collect();
    let shape = [rows.len(), width].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
    Tensor::new(shape.to_vec(), TensorData::Fp32(elements)).map_err(|error| error.to_string())
}
