//! `profile.json`: how features and predictions were distributed in the training data. Drift
//! is measured against it.

use serde::{Deserialize, Serialize};

use crate::format::{Format, read_json};

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

impl ReferenceProfile {
    /// Reads and checks a profile.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let profile: Self = read_json(bytes)?;
        for feature in profile.features.iter().chain([&profile.prediction]) {
            let (bins, edges) = (feature.counts.len(), &feature.edges);
            if bins != edges.len() + 1 {
                return Err(format!("{}: {} edges make no {bins} bins", feature.name, edges.len()));
            }
            if !edges.windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(format!("{}: edges do not ascend", feature.name));
            }
        }
        Ok(profile)
    }
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
    /// Rows with an infinity, which no bin counts.
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

#[cfg(test)]
mod tests {
    use super::ReferenceProfile;

    #[test]
    fn bins_must_fit_their_edges() {
        let feature = |edges: &str, counts: &str| {
            format!(
                r#"{{"name": "x", "edges": {edges}, "counts": {counts}, "missing": 0, "infinite": 0,
                    "min": null, "max": null, "mean": null, "standard_deviation": null}}"#
            )
        };
        let parse = |feature: &str| {
            let text = format!(
                r#"{{"format": 1, "rows": 3, "features": [{feature}], "prediction": {feature}}}"#
            );
            ReferenceProfile::parse(text.as_bytes())
        };
        assert!(parse(&feature("[1.5]", "[2, 1]")).is_ok());
        assert!(parse(&feature("[1.5]", "[3]")).unwrap_err().contains("1 edges make no 1 bins"));
        assert!(parse(&feature("[2, 1]", "[1, 1, 1]")).unwrap_err().contains("ascend"));
    }
}
