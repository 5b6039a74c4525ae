//! `parity.json`: a few rows and what the learner answers to them, so that whoever loads the
//! graph can see that it computes the same.

use serde::{Deserialize, Serialize};

use crate::format::Format;

/// Rows for a graph with one FP32 input [rows, columns] and one FP32 output [rows].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParityRows {
    /// Version 1.
    pub format: Format<1>,
    /// The graph's input.
    pub input: String,
    /// The graph's output.
    pub output: String,
    /// Input rows. JSON has no NaN or infinity, so each value is its f32's bits.
    pub rows: Vec<Vec<u32>>,
    /// Each row's expected answer, as f32 bits.
    pub expected: Vec<u32>,
    /// How far an answer may be off: |answer - expected| <= tolerance * max(1, |expected|).
    pub tolerance: f32,
}

impl ParityRows {
    /// Whether `answer` is close enough to `expected`: NaN matches NaN, an infinity itself.
    pub fn matches(&self, expected: f32, answer: f32) -> bool {
        expected == answer
            || (expected.is_nan() && answer.is_nan())
            || (expected - answer).abs() <= self.tolerance * expected.abs().max(1.0)
    }
}
