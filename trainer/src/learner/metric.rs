//! How far predictions are from labels, as one number to be made small.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A loss averaged over rows. All take predictions on the labels' own scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean squared error.
    SquaredError,
    /// Mean absolute error.
    AbsoluteError,
    /// Mean Poisson deviance.
    PoissonDeviance,
    /// Mean Tweedie deviance.
    TweedieDeviance {
        /// The variance power, strictly between 1 and 2.
        power: f64,
    },
}

/// Predictions below this count as this in a deviance, which has a logarithm or a pole at 0.
const SMALLEST_MEAN: f64 = 1e-9;

impl Metric {
    /// The metric's name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SquaredError => "squared_error",
            Self::AbsoluteError => "absolute_error",
            Self::PoissonDeviance => "poisson_deviance",
            Self::TweedieDeviance { .. } => "tweedie_deviance",
        }
    }

    /// The mean loss. Both slices have the same length; the mean over no rows is 0.
    pub fn evaluate(self, predictions: &[f32], labels: &[f32]) -> f64 {
        let rows = predictions.iter().zip(labels);
        let sum: f64 = rows.map(|(&p, &y)| self.loss(f64::from(p), f64::from(y))).sum();
        let count = labels.len().max(1) as f64;
        sum / count
    }

    /// Whether the metric itself makes sense.
    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Self::TweedieDeviance { power } if !(power > 1.0 && power < 2.0) => {
                let problem = format!("the Tweedie power {power} must be between 1 and 2");
                Err(Error::Parameter { name: "metric", problem })
            }
            _ => Ok(()),
        }
    }

    fn loss(self, prediction: f64, label: f64) -> f64 {
        let mean = prediction.max(SMALLEST_MEAN);
        match self {
            Self::SquaredError => (prediction - label) * (prediction - label),
            Self::AbsoluteError => (prediction - label).abs(),
            Self::PoissonDeviance => {
                let log_ratio = if label > 0.0 { label * (label / mean).ln() } else { 0.0 };
                2.0 * (log_ratio - label + mean)
            }
            Self::TweedieDeviance { power: p } => {
                2.0 * (label.max(0.0).powf(2.0 - p) / ((1.0 - p) * (2.0 - p))
                    - label * mean.powf(1.0 - p) / (1.0 - p)
                    + mean.powf(2.0 - p) / (2.0 - p))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metric;

    #[test]
    fn losses_of_known_rows() {
        let check = |metric: Metric, prediction: f32, label: f32, expected: f64| {
            let loss = metric.evaluate(&[prediction], &[label]);
            assert!((loss - expected).abs() < 1e-6, "{metric:?}: {loss} is not {expected}");
        };
        check(Metric::SquaredError, 3.0, 1.0, 4.0);
        check(Metric::AbsoluteError, 3.0, 1.0, 2.0);
        check(Metric::PoissonDeviance, 2.0, 2.0, 0.0);
        check(Metric::PoissonDeviance, 2.0, 0.0, 4.0);
        check(Metric::PoissonDeviance, 1.0, std::f32::consts::E, 2.0);
        check(Metric::TweedieDeviance { power: 1.5 }, 4.0, 4.0, 0.0);
        check(Metric::TweedieDeviance { power: 1.5 }, 4.0, 0.0, 8.0);
        assert!(Metric::PoissonDeviance.evaluate(&[0.0], &[1.0]).is_finite());
        assert_eq!(Metric::SquaredError.evaluate(&[], &[]), 0.0);
    }
}
