//! The reference profile: how features and predictions are distributed in the training rows.

use sluice_protocol::{FeatureProfile, Format, ReferenceProfile};

use crate::learner::Matrix;

/// Bins a column at most. More would only add noise to a drift score.
const BINS: usize = 20;

/// The profile of the training rows and the model's answers to them.
pub fn reference_profile(features: &Matrix, predictions: &[f32]) -> ReferenceProfile {
    let columns = features.names().iter().zip(features.columns());
    ReferenceProfile {
        format: Format::CURRENT,
        rows: features.rows() as u64,
        features: columns.map(|(name, values)| feature_profile(name, values)).collect(),
        prediction: feature_profile("prediction", predictions),
    }
}

fn feature_profile(name: &str, values: &[f32]) -> FeatureProfile {
    let mut finite: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    finite.sort_by(f32::total_cmp);
    let edges = edges(&finite);
    let mut counts = vec![0u64; edges.len() + 1];
    for &value in &finite {
        counts[edges.partition_point(|&edge| edge < value)] += 1;
    }
    let count_of = |wanted: fn(&f32) -> bool| values.iter().filter(|value| wanted(value)).count();
    FeatureProfile {
        name: name.to_owned(),
        edges,
        counts,
        missing: count_of(|value| value.is_nan()) as u64,
        infinite: count_of(|value| value.is_infinite()) as u64,
        min: finite.first().copied(),
        max: finite.last().copied(),
        mean: mean(&finite),
        standard_deviation: standard_deviation(&finite),
    }
}

/// Edges between bins of about equal mass; a value that fills several of them makes one bin.
fn edges(sorted: &[f32]) -> Vec<f32> {
    let mut edges: Vec<f32> = (1..BINS)
        .filter_map(|bin| sorted.get((sorted.len() * bin / BINS).checked_sub(1)?).copied())
        .collect();
    edges.dedup();
    // The last bin holds what is above the last edge; an edge at the maximum would leave it empty.
    edges.retain(|edge| Some(edge) != sorted.last());
    edges
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
fn mean(values: &[f32]) -> Option<f64> {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
fn standard_deviation(values: &[f32]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum();
    Some((squares / values.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::feature_profile;

    proptest! {
        #[test]
        fn every_value_is_counted_once(values in prop::collection::vec(any::<f32>(), 0..300)) {
            let profile = feature_profile("x", &values);
            let counted = profile.counts.iter().sum::<u64>() + profile.missing + profile.infinite;
            prop_assert_eq!(counted, values.len() as u64);
            prop_assert_eq!(profile.counts.len(), profile.edges.len() + 1);
            prop_assert!(profile.edges.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn bins_have_about_equal_mass_and_repeated_values_share_one() {
        let values: Vec<f32> = (0..1000u16).map(f32::from).collect();
        let profile = feature_profile("x", &values);
        assert_eq!(profile.counts, [50; 20]);
        let mut zeros = vec![0.0; 900];
        zeros.extend((1..=100u16).map(f32::from));
        let profile = feature_profile("x", &zeros);
        assert_eq!(profile.counts[0], 900);
        assert_eq!(feature_profile("x", &[3.0; 5]).counts, [5]);
    }
}
