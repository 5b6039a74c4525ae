//! A forecast's errors as numbers. Several, always together, since each hides something: the
//! mean absolute error likes medians, and the bias shows it.

use serde::Serialize;

use crate::learner::Metric;

/// Errors of predictions over rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measures {
    /// How many rows.
    pub rows: usize,
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Sum of absolute errors over the sum of labels.
    pub wape: f64,
    /// Mean of prediction minus label.
    pub bias: f64,
    /// Mean Poisson deviance; predictions below 0 count as almost 0.
    pub poisson_deviance: f64,
    /// Mean label, to hold the others against.
    pub mean_label: f64,
}

impl Measures {
    /// Measures `predictions` against `labels`, which have the same length.
    pub fn of(predictions: &[f32], labels: &[f32]) -> Self {
        let sum = |each: fn(f64, f64) -> f64| -> f64 {
            let pairs = predictions.iter().zip(labels);
            pairs.map(|(&prediction, &label)| each(prediction.into(), label.into())).sum()
        };
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 rows")]
        let rows = labels.len().max(1) as f64;
        let absolute = sum(|prediction, label| (prediction - label).abs());
        let total = sum(|_, label| label);
        Self {
            rows: labels.len(),
            mae: absolute / rows,
            rmse: (sum(|prediction, label| (prediction - label).powi(2)) / rows).sqrt(),
            wape: if total > 0.0 { absolute / total } else { f64::NAN },
            bias: sum(|prediction, label| prediction - label) / rows,
            poisson_deviance: Metric::PoissonDeviance.evaluate(predictions, labels),
            mean_label: total / rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Measures;

    #[test]
    fn errors_of_two_rows() {
        let measures = Measures::of(&[3.0, 1.0], &[1.0, 2.0]);
        assert_eq!((measures.mae, measures.bias, measures.mean_label), (1.5, 0.5, 1.5));
        assert!((measures.rmse - 2.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(measures.wape, 1.0);
    }
}
