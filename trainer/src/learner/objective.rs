//! What training minimises: first and second derivatives by the raw score, the score of the
//! empty model, and the link from raw scores to predictions.

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::error::Error;

/// A loss to minimise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Half the squared error: predicts the mean.
    #[default]
    Squared,
    /// Poisson log-likelihood with a log link: the mean of counts.
    Poisson,
    /// Tweedie log-likelihood with a log link: the mean of amounts with many zeros.
    Tweedie {
        /// The variance power, strictly between 1 (Poisson) and 2 (gamma).
        power: f64,
    },
    /// The absolute error: predicts the median.
    Absolute,
}

/// How a raw score becomes a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The raw score is the prediction.
    Identity,
    /// The prediction is the raw score's exponential.
    Log,
}

impl Link {
    /// The prediction of a raw score.
    pub fn predict(self, raw: f32) -> f32 {
        match self {
            Self::Identity => raw,
            Self::Log => raw.exp(),
        }
    }
}

/// A row's first and second derivative of the loss by its raw score.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Derivatives {
    pub(super) gradient: f32,
    pub(super) hessian: f32,
}

/// Widens the Poisson hessian by e^0.7, which bounds the step of a leaf whose predictions are
/// far too small. It is LightGBM's default `poisson_max_delta_step`.
const POISSON_STEP: f32 = 0.7;
/// Raw scores are held in here before an exponential, so that derivatives stay finite.
const LARGEST_LOG: f32 = 60.0;
/// The mean that the empty model predicts at least, where a logarithm is taken.
const SMALLEST_MEAN: f64 = 1e-6;

impl Objective {
    /// The objective's name in reports and model metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Squared => "squared",
            Self::Poisson => "poisson",
            Self::Tweedie { .. } => "tweedie",
            Self::Absolute => "absolute",
        }
    }

    /// How raw scores become predictions.
    pub const fn link(self) -> Link {
        match self {
            Self::Squared | Self::Absolute => Link::Identity,
            Self::Poisson | Self::Tweedie { .. } => Link::Log,
        }
    }

    /// The metric that falls when the objective does.
    pub const fn deviance(self) -> Metric {
        match self {
            Self::Squared => Metric::SquaredError,
            Self::Poisson => Metric::PoissonDeviance,
            Self::Tweedie { power } => Metric::TweedieDeviance { power },
            Self::Absolute => Metric::AbsoluteError,
        }
    }

    /// The largest label that is taken, so that squares of them stay in f32's range.
    const LARGEST_LABEL: f32 = 1e18;

    /// Refuses labels that the loss is not defined for.
    pub(super) fn check_labels(self, labels: &[f32]) -> Result<(), Error> {
        for (row, &label) in labels.iter().enumerate() {
            if !label.is_finite() || label.abs() > Self::LARGEST_LABEL {
                let problem = format!(
                    "the label of row {row} is {label}, which is not a number of at most 1e18"
                );
                return Err(Error::Data(problem));
            }
            if label < 0.0 && self.link() == Link::Log {
                let name = self.as_str();
                let problem = format!(
                    "the label of row {row} is {label}; objective {name} needs labels of at least 0"
                );
                return Err(Error::Data(problem));
            }
        }
        Ok(())
    }

    /// Whether the objective itself makes sense.
    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Self::Tweedie { power } if !(power > 1.0 && power < 2.0) => {
                let problem = format!("the Tweedie power {power} must be between 1 and 2");
                Err(Error::Parameter { name: "objective", problem })
            }
            _ => Ok(()),
        }
    }

    /// The raw score of the best constant model for `labels`, of which there is at least one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a mean is rounded to f32, the precision of scores"
    )]
    pub(super) fn initial_score(self, labels: &[f32]) -> f32 {
        let mean = || labels.iter().map(|&y| f64::from(y)).sum::<f64>() / labels.len() as f64;
        match self {
            Self::Squared => mean() as f32,
            Self::Poisson | Self::Tweedie { .. } => mean().max(SMALLEST_MEAN).ln() as f32,
            Self::Absolute => median(&mut labels.to_vec()),
        }
    }

    /// Writes each row's derivatives at its raw score, which is `initial` more than its score.
    pub(super) fn derivatives(
        self,
        scores: &[f32],
        initial: f32,
        labels: &[f32],
        out: &mut [Derivatives],
    ) {
        let raw_scores = scores.iter().map(|&score| score + initial);
        let rows = out.iter_mut().zip(raw_scores.zip(labels));
        match self {
            Self::Squared => rows.for_each(|(out, (score, &label))| {
                *out = Derivatives { gradient: score - label, hessian: 1.0 };
            }),
            Self::Poisson => {
                let widened = POISSON_STEP.exp();
                rows.for_each(|(out, (score, &label))| {
                    let mean = bounded(score).exp();
                    *out = Derivatives { gradient: mean - label, hessian: mean * widened };
                });
            }
            Self::Tweedie { power } => {
                #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
                let power = power as f32;
                rows.for_each(|(out, (score, &label))| {
                    let score = bounded(score);
                    let low = label * ((1.0 - power) * score).exp();
                    let high = ((2.0 - power) * score).exp();
                    *out = Derivatives {
                        gradient: high - low,
                        hessian: (2.0 - power) * high - (1.0 - power) * low,
                    };
                });
            }
            Self::Absolute => rows.for_each(|(out, (score, &label))| {
                let gradient = if score > label {
                    1.0
                } else if score < label {
                    -1.0
                } else {
                    0.0
                };
                *out = Derivatives { gradient, hessian: 1.0 };
            }),
        }
    }

    /// Whether a leaf's answer is the median of its residuals and not a Newton step, because
    /// the loss has no curvature to take one by.
    pub(super) const fn renews_leaves(self) -> bool {
        matches!(self, Self::Absolute)
    }
}

/// The median of at least one finite number, which are reordered. The mean of the middle two
/// when their count is even.
pub(super) fn median(numbers: &mut [f32]) -> f32 {
    let middle = numbers.len() / 2;
    let even = numbers.len().is_multiple_of(2);
    let (below, &mut upper, _) = numbers.select_nth_unstable_by(middle, f32::total_cmp);
    if !even {
        return upper;
    }
    let lower = below.iter().copied().max_by(f32::total_cmp).unwrap_or(upper);
    lower / 2.0 + upper / 2.0
}

fn bounded(score: f32) -> f32 {
    score.clamp(-LARGEST_LOG, LARGEST_LOG)
}

#[cfg(test)]
mod tests {
    use super::{Derivatives, LARGEST_LOG, Objective, POISSON_STEP, median};

    const TWEEDIE: Objective = Objective::Tweedie { power: 1.3 };

    /// A row's loss in f64, up to a term without the score.
    fn loss(objective: Objective, score: f64, label: f64) -> f64 {
        match objective {
            Objective::Squared => (score - label).powi(2) / 2.0,
            Objective::Poisson => score.exp() - label * score,
            Objective::Tweedie { power: p } => {
                ((2.0 - p) * score).exp() / (2.0 - p)
                    - label * ((1.0 - p) * score).exp() / (1.0 - p)
            }
            Objective::Absolute => (score - label).abs(),
        }
    }

    #[test]
    fn derivatives_are_those_of_the_loss() {
        let check = |objective: Objective, widened: f64| {
            for (score, label) in [(0.3_f32, 2.0_f32), (-1.5, 0.0), (2.0, 1.0), (0.0, 7.5)] {
                let mut row = [Derivatives::default()];
                objective.derivatives(&[score - 0.25], 0.25, &[label], &mut row);
                let (at, step) = (f64::from(score), 1e-4);
                let [below, here, above] =
                    [at - step, at, at + step].map(|at| loss(objective, at, f64::from(label)));
                let gradient = (above - below) / (2.0 * step);
                let near = |found: f32, expected: f64| {
                    (f64::from(found) - expected).abs() < 1e-3 * (1.0 + expected.abs())
                };
                assert!(near(row[0].gradient, gradient), "{objective:?}: {row:?}, not {gradient}");
                if objective != Objective::Absolute {
                    let hessian = widened * (above - 2.0 * here + below) / (step * step);
                    assert!(near(row[0].hessian, hessian), "{objective:?}: {row:?}, not {hessian}");
                }
            }
        };
        check(Objective::Squared, 1.0);
        check(Objective::Poisson, f64::from(POISSON_STEP).exp());
        check(TWEEDIE, 1.0);
        check(Objective::Absolute, 1.0);
    }

    #[test]
    fn derivatives_stay_finite_at_absurd_scores() {
        for objective in [Objective::Poisson, TWEEDIE] {
            for score in [f32::MAX, f32::MIN, 10.0 * LARGEST_LOG] {
                let mut row = [Derivatives::default()];
                objective.derivatives(&[score], 0.0, &[1e9], &mut row);
                assert!(row[0].gradient.is_finite() && row[0].hessian.is_finite(), "{row:?}");
            }
        }
    }

    #[test]
    fn the_initial_score_is_the_best_constant() {
        let check = |objective: Objective, labels: &[f32], expected: f32| {
            let score = objective.initial_score(labels);
            assert!((score - expected).abs() < 1e-5, "{objective:?}: {score}, not {expected}");
        };
        check(Objective::Squared, &[1.0, 2.0, 6.0], 3.0);
        check(Objective::Poisson, &[1.0, 2.0, 6.0], 3.0_f32.ln());
        check(TWEEDIE, &[0.0, 0.0, 6.0], 2.0_f32.ln());
        check(Objective::Absolute, &[6.0, 1.0, 2.0], 2.0);
        check(Objective::Absolute, &[6.0, 1.0, 2.0, 4.0], 3.0);
        check(Objective::Poisson, &[0.0, 0.0], 1e-6_f32.ln());
    }

    #[test]
    fn labels_are_checked() {
        let check = |objective: Objective, label: f32, expected: &str| {
            let error = objective.check_labels(&[1.0, label]).unwrap_err().to_string();
            assert!(error.contains("row 1") && error.contains(expected), "{error}");
        };
        check(Objective::Squared, f32::NAN, "NaN");
        check(Objective::Absolute, f32::INFINITY, "inf");
        check(Objective::Squared, -1e30, "at most 1e18");
        check(Objective::Poisson, -1.0, "objective poisson");
        check(TWEEDIE, -0.5, "objective tweedie");
        assert!(Objective::Absolute.check_labels(&[-1.0, 0.0]).is_ok());
        assert!(Objective::Poisson.check_labels(&[0.0, -0.0]).is_ok());
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [5.0]), 5.0);
        assert_eq!(median(&mut [5.0, -1.0]), 2.0);
        assert_eq!(median(&mut [3.0, f32::MAX, 1.0]), 3.0);
        assert_eq!(median(&mut [f32::MAX, f32::MAX]), f32::MAX);
    }
}
