//! What can be chosen about a training run.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::metric::Metric;
use super::objective::Objective;
use crate::error::Error;

/// The learner's settings, as they stand in a pipeline file. Every field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// What is minimised.
    #[serde(deserialize_with = "named_loss")]
    pub objective: Objective,
    /// What the validation rows are judged by; the objective's own deviance if none is named.
    #[serde(deserialize_with = "named_loss")]
    pub metric: Option<Metric>,
    /// The share of each tree's answer that is used, in (0, 1].
    pub learning_rate: f64,
    /// Trees at most.
    pub max_rounds: usize,
    /// Training ends after this many rounds without a better validation loss, and the best
    /// round's trees are kept. With 0 all rounds are run and kept, else validation rows are
    /// needed.
    pub early_stopping_rounds: usize,
    /// Leaves a tree at most, 2 to 4096.
    pub max_leaves: usize,
    /// Sampled rows that each leaf needs.
    pub min_rows_per_leaf: usize,
    /// Sum of second derivatives that each leaf needs.
    pub min_hessian_per_leaf: f64,
    /// Added to the sum of second derivatives, which draws leaves towards zero.
    pub lambda_l2: f64,
    /// Splits must gain more than this.
    pub min_gain: f64,
    /// Bins a column at most, missing values aside: 2 to 255.
    pub max_bins: usize,
    /// The share of rows that each tree sees, in (0, 1].
    pub row_fraction: f64,
    /// The share of columns that each tree sees, in (0, 1]; at least one column.
    pub column_fraction: f64,
    /// Where the sampling starts.
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            objective: Objective::Squared,
            metric: None,
            learning_rate: 0.05,
            max_rounds: 1000,
            early_stopping_rounds: 50,
            max_leaves: 31,
            min_rows_per_leaf: 20,
            min_hessian_per_leaf: 1e-3,
            lambda_l2: 0.0,
            min_gain: 0.0,
            max_bins: 255,
            row_fraction: 1.0,
            column_fraction: 1.0,
            seed: 0,
        }
    }
}

impl Parameters {
    /// Checks every range; the first parameter outside its own is reported.
    pub fn check(&self) -> Result<(), Error> {
        let share = |share: f64| share > 0.0 && share <= 1.0;
        let size = |size: f64| size >= 0.0 && size.is_finite();
        let refuse = |name, problem: &str| Err(Error::Parameter { name, problem: problem.into() });
        if !share(self.learning_rate) {
            return refuse("learning_rate", "must be above 0 and at most 1");
        }
        if self.max_rounds == 0 || self.max_rounds > 100_000 {
            return refuse("max_rounds", "must be 1 to 100000");
        }
        if !(2..=4096).contains(&self.max_leaves) {
            return refuse("max_leaves", "must be 2 to 4096");
        }
        if self.min_rows_per_leaf == 0 {
            return refuse("min_rows_per_leaf", "must be at least 1");
        }
        if !size(self.min_hessian_per_leaf) {
            return refuse("min_hessian_per_leaf", "must be finite and not negative");
        }
        if !size(self.lambda_l2) {
            return refuse("lambda_l2", "must be finite and not negative");
        }
        if !size(self.min_gain) {
            return refuse("min_gain", "must be finite and not negative");
        }
        if !(2..=255).contains(&self.max_bins) {
            return refuse("max_bins", "must be 2 to 255");
        }
        if !share(self.row_fraction) {
            return refuse("row_fraction", "must be above 0 and at most 1");
        }
        if !share(self.column_fraction) {
            return refuse("column_fraction", "must be above 0 and at most 1");
        }
        self.objective.check()?;
        self.metric.map_or(Ok(()), Metric::check)
    }
}

/// A loss by its name. One whose power is missing is told how to bring it.
fn named_loss<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    if let Some(name @ ("tweedie" | "tweedie_deviance")) = value.as_str() {
        let text = format!("{name} needs its power: {{ {name} = {{ power = 1.5 }} }}");
        return Err(D::Error::custom(text));
    }
    value.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}
