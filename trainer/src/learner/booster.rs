//! A trained model: an initial score, trees whose answers are added to it, and a link.

use serde::{Deserialize, Serialize};
use sluice_protocol::Format;

use super::matrix::Matrix;
use super::objective::Objective;
use super::tree::{Tree, bits};
use crate::error::Error;

/// Gradient-boosted trees. Predictions are summed in f32, leaves in the order of the trees and
/// the initial score last, as ONNX Runtime does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booster {
    /// The version of this form: 1.
    format: Format<1>,
    /// What it was trained for; its link turns raw scores into predictions.
    objective: Objective,
    /// The raw score before any tree.
    #[serde(with = "bits::one")]
    initial_score: f32,
    /// The names of the columns, in the order of a row.
    columns: Vec<String>,
    trees: Vec<Tree>,
}

impl Booster {
    pub(super) fn new(
        objective: Objective,
        initial_score: f32,
        columns: Vec<String>,
        trees: Vec<Tree>,
    ) -> Self {
        Self { format: Format::CURRENT, objective, initial_score, columns, trees }
    }

    /// Reads a booster from JSON, and refuses one that could not be walked.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let booster: Self =
            serde_json::from_str(json).map_err(|e| Error::Booster(e.to_string()))?;
        if booster.columns.is_empty() || !booster.initial_score.is_finite() {
            return Err(Error::Booster("it has no columns or no initial score".into()));
        }
        let columns = booster.columns.len();
        match booster.trees.iter().position(|tree| !tree.is_sound(columns)) {
            Some(tree) => {
                Err(Error::Booster(format!("tree {tree} is not a tree over its columns")))
            }
            None => Ok(booster),
        }
    }

    /// The booster as JSON, from which it comes back bit for bit.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, names and lists are always JSON")
    }

    /// What the booster was trained for.
    pub const fn objective(&self) -> Objective {
        self.objective
    }

    /// The raw score before any tree.
    pub const fn initial_score(&self) -> f32 {
        self.initial_score
    }

    /// The names of the columns, in the order of a row.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The trees, in the order of their rounds.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Predictions for rows whose columns are exactly the booster's, in their order.
    pub fn predict(&self, matrix: &Matrix) -> Result<Vec<f32>, Error> {
        if matrix.names() != self.columns {
            let problem =
                format!("columns {:?} where the model has {:?}", matrix.names(), self.columns);
            return Err(Error::Data(problem));
        }
        let mut row = vec![0.0; self.columns.len()];
        Ok((0..matrix.rows())
            .map(|at| {
                for (value, column) in row.iter_mut().zip(matrix.columns()) {
                    *value = column[at];
                }
                self.predict_all_columns(&row)
            })
            .collect())
    }

    /// The prediction for one row, in the order of [`columns`](Self::columns).
    pub fn predict_row(&self, row: &[f32]) -> Result<f32, Error> {
        if row.len() != self.columns.len() {
            let problem = format!(
                "a row of {} columns where the model has {}",
                row.len(),
                self.columns.len()
            );
            return Err(Error::Data(problem));
        }
        Ok(self.predict_all_columns(row))
    }

    /// Each column's share of what all splits took off the training loss: they add up to 1, or
    /// are all 0 where there is no split.
    pub fn importance(&self) -> Vec<f64> {
        let mut gains = vec![0.0; self.columns.len()];
        for split in self.trees.iter().flat_map(|tree| &tree.splits) {
            gains[split.column] += split.gain;
        }
        let total: f64 = gains.iter().sum();
        if total > 0.0 {
            gains.iter_mut().for_each(|gain| *gain /= total);
        }
        gains
    }

    fn predict_all_columns(&self, row: &[f32]) -> f32 {
        let mut sum = 0.0;
        for tree in &self.trees {
            sum += tree.leaves[tree.leaf(row)];
        }
        self.objective.link().predict(sum + self.initial_score)
    }
}
