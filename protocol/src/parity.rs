//! `parity.json`: a few rows and what the learner answers to them, so that whoever loads the
//! graph can see that it computes the same.

use serde::{Deserialize, Serialize};

use crate::format::{Format, read_json};

/// Rows for a graph with one FP32 input `[rows, columns]` and one FP32 output `[rows]`.
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
    /// Reads and checks parity rows.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let parity: Self = read_json(bytes)?;
        if parity.rows.len() != parity.expected.len() {
            let (rows, answers) = (parity.rows.len(), parity.expected.len());
            return Err(format!("{rows} rows have {answers} expected answers"));
        }
        let width = parity.rows.first().map_or(0, Vec::len);
        match parity.rows.iter().position(|row| row.len() != width) {
            Some(odd) => Err(format!("row {odd} is not as wide as row 0")),
            None => Ok(parity),
        }
    }

    /// Whether `answer` is close enough to `expected`: NaN matches NaN, an infinity itself.
    pub fn matches(&self, expected: f32, answer: f32) -> bool {
        let close = (expected - answer).abs() <= self.tolerance * expected.abs().max(1.0);
        expected == answer
            || (expected.is_nan() && answer.is_nan())
            || (expected.is_finite() && answer.is_finite() && close)
    }
}

#[cfg(test)]
mod tests {
    use super::ParityRows;

    const GOOD: &str = r#"{"format": 1, "input": "features", "output": "prediction",
        "rows": [[0, 1]], "expected": [0], "tolerance": 1e-5}"#;

    #[test]
    fn answers_match_within_the_tolerance_and_special_values_only_themselves() {
        let parity = ParityRows::parse(GOOD.as_bytes()).unwrap();
        let (infinity, nan) = (f32::INFINITY, f32::NAN);
        for (expected, answer, matches) in [
            (1.0, 1.000_001, true),
            (1000.0, 1000.005, true),
            (1.0, 1.001, false),
            (0.0, 1e-6, true),
            (nan, nan, true),
            (nan, 0.0, false),
            (0.0, nan, false),
            (infinity, infinity, true),
            (infinity, -infinity, false),
            (infinity, 0.0, false),
            (0.0, infinity, false),
        ] {
            assert_eq!(parity.matches(expected, answer), matches, "{expected} {answer}");
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        for (from, to, says) in [
            ("\"expected\": [0]", "\"expected\": []", "1 rows have 0"),
            ("[[0, 1]]", "[[0, 1], [2]]", "1 expected"),
            ("\"format\": 1", "\"format\": 2, \"later\": 0", "newer"),
        ] {
            let error = ParityRows::parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
