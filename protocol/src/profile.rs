//! `profile.json`: how features and predictions were distributed in the training data. Drift
//! is measured against it.

use serde::{Deserialize, Serialize};

use crate::format::Format;

/// The distributions that a model version was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceProfile {
    /// Version 1.
    pub format: Format<1>,
    /// How many rows were counted.
    pub rows: u64,
    /// One a feature, in the order of the manifest's columns.
    pub features: Vec<FeatureProfile>,
    /// The model's own answers on those rows.
    pub prediction: FeatureProfile,
}

/// One column's distribution over frozen bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureProfile {
    /// The column's name.
    pub name: String,
    /// Ascending bin edges: bin `i` counts `edges[i-1] < x <= edges[i]`, the outer bins being
    /// open-ended. So there is one bin more than edges.
    pub edges: Vec<f32>,
    /// Rows per bin. Counts, not shares: the noise floor of a drift score needs them.
    pub counts: Vec<u64>,
    /// Rows without a value (NaN).
    pub missing: u64,
    /// Rows with an infinity.
    pub infinite: u64,
    /// The smallest finite value, if any.
    pub min: Option<f32>,
    /// The largest finite value, if any.
    pub max: Option<f32>,
    /// The mean of the finite values, if any.
    pub mean: Option<f64>,
    /// The population standard deviation of the finite values, if any.
    pub standard_deviation: Option<f64>,
}
