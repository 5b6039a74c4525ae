//! The boosting loop: rounds of trees until the validation loss stops falling.

use std::ops::ControlFlow;
use std::time::Duration;

use super::bins::{Binned, Edges};
use super::booster::Booster;
use super::cpu_time;
use super::gradient::{Fixed, MAX_ROWS, Scale};
use super::grow::{Grower, Grown, Sample};
use super::matrix::Matrix;
use super::metric::Metric;
use super::objective::{Derivatives, median};
use super::parameters::Parameters;
use super::sampling::Sampler;
use crate::error::Error;

/// No leaf answers more than this, so that no sum of leaves is infinite; labels are far smaller.
const LARGEST_ANSWER: f64 = 1e20;

/// Rows and their labels.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// The rows.
    pub features: &'a Matrix,
    /// A label for each row.
    pub labels: &'a [f32],
}

/// How far training has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The finished round, counted from 1.
    pub round: usize,
    /// The loss of the validation rows after it, where there are any.
    pub validation_loss: Option<f64>,
    /// The round with the lowest validation loss; the finished one without validation rows.
    pub best_round: usize,
}

/// What training came to.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model of the best round.
    pub booster: Booster,
    /// What the validation rows were judged by.
    pub metric: Metric,
    /// The validation loss after each round that was run, the ones after the best included.
    pub validation_losses: Vec<f64>,
    /// User and system time of training, binning included; none where it cannot be told.
    pub cpu_time: Option<Duration>,
}

/// Trains on one thread. `progress` is told of every round and may break training off, which
/// is an [`Error::Cancelled`]. Validation rows only decide when to stop.
pub fn train(
    parameters: &Parameters,
    training: Labelled<'_>,
    validation: Option<Labelled<'_>>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Trained, Error> {
    let start = cpu_time::of_this_thread();
    check(parameters, training, validation)?;
    let columns = training.features.columns().iter();
    let edges: Vec<Edges> = columns.map(|c| Edges::choose(c, parameters.max_bins)).collect();
    let binned = Binned::new(training.features, &edges);
    let mut boosting = Boosting::new(parameters, training, &binned, &edges);
    let mut watch =
        validation.map(|rows| Watch::new(parameters, rows, &edges, boosting.initial_score));
    let mut trees = Vec::new();
    while trees.len() < parameters.max_rounds {
        let Some((grown, leaves)) = boosting.round() else { break };
        let loss = watch.as_mut().map(|watch| watch.add(&grown, &leaves));
        trees.push(grown.into_tree(leaves));
        let round = trees.len();
        let best_round = watch.as_ref().map_or(round, |watch| watch.best_round);
        if progress(Progress { round, validation_loss: loss, best_round }).is_break() {
            return Err(Error::Cancelled { rounds: round });
        }
        let patience = parameters.early_stopping_rounds;
        if patience > 0 && round - best_round >= patience {
            break;
        }
    }
    let metric = parameters.metric.unwrap_or(parameters.objective.deviance());
    let initial_score = boosting.initial_score;
    let validation_losses = watch.map_or_else(Vec::new, |watch| {
        if parameters.early_stopping_rounds > 0 {
            trees.truncate(watch.best_round);
        }
        watch.losses
    });
    let names = training.features.names().to_vec();
    let booster = Booster::new(parameters.objective, initial_score, names, trees);
    let cpu_time = start.and_then(|start| cpu_time::of_this_thread()?.checked_sub(start));
    Ok(Trained { booster, metric, validation_losses, cpu_time })
}

/// The state that grows from round to round on the training rows.
#[derive(Debug)]
struct Boosting<'a> {
    parameters: &'a Parameters,
    labels: &'a [f32],
    binned: &'a Binned,
    grower: Grower<'a>,
    sampler: Sampler,
    initial_score: f32,
    /// Each row's raw score, less the initial one.
    scores: Vec<f32>,
    derivatives: Vec<Derivatives>,
    fixed: Vec<Fixed>,
    /// The rows that the tree learns from, and the others.
    inside: Vec<u32>,
    outside: Vec<u32>,
}

impl<'a> Boosting<'a> {
    fn new(
        parameters: &'a Parameters,
        training: Labelled<'a>,
        binned: &'a Binned,
        edges: &'a [Edges],
    ) -> Self {
        let rows = training.labels.len();
        let Parameters { seed, row_fraction, column_fraction, .. } = *parameters;
        Self {
            parameters,
            labels: training.labels,
            binned,
            grower: Grower::new(binned, edges, parameters),
            sampler: Sampler::new(seed, row_fraction, column_fraction),
            initial_score: parameters.objective.initial_score(training.labels),
            scores: vec![0.0; rows],
            derivatives: vec![Derivatives::default(); rows],
            fixed: Vec::with_capacity(rows),
            inside: Vec::with_capacity(rows),
            outside: Vec::with_capacity(rows),
        }
    }

    /// Grows a tree and adds it to the scores; none when nothing can be cut any more.
    fn round(&mut self) -> Option<(Grown, Vec<f32>)> {
        let objective = self.parameters.objective;
        objective.derivatives(&self.scores, self.initial_score, self.labels, &mut self.derivatives);
        let scale = Scale::fit(self.labels.len(), &self.derivatives);
        scale.fix(&self.derivatives, &mut self.fixed);
        self.sampler.rows(self.labels.len(), &mut self.inside, &mut self.outside);
        let columns = self.sampler.columns(self.binned.columns());
        let mut sample =
            Sample { rows: &mut self.inside, columns: &columns, fixed: &self.fixed, scale };
        let grown = self.grower.grow(&mut sample);
        if grown.is_stump() {
            return None;
        }
        let leaves = self.answers(&grown, scale);
        for ((rows, _), &answer) in grown.leaves.iter().zip(&leaves) {
            self.inside[rows.clone()].iter().for_each(|&row| self.scores[row as usize] += answer);
        }
        for &row in &self.outside {
            self.scores[row as usize] += leaves[grown.leaf(self.binned.row(row as usize))];
        }
        Some((grown, leaves))
    }

    /// What each leaf adds to a score.
    #[expect(clippy::cast_possible_truncation, reason = "leaves are f32, as in the exported graph")]
    fn answers(&self, grown: &Grown, scale: Scale) -> Vec<f32> {
        let Parameters { objective, lambda_l2, learning_rate, .. } = *self.parameters;
        let residual = |&row: &u32| {
            self.labels[row as usize] - (self.scores[row as usize] + self.initial_score)
        };
        let mut residuals = Vec::new();
        let answer = |(rows, sum): &(std::ops::Range<usize>, _)| {
            let whole = if objective.renews_leaves() {
                residuals.clear();
                residuals.extend(self.inside[rows.clone()].iter().map(residual));
                f64::from(median(&mut residuals))
            } else {
                scale.newton_step(*sum, lambda_l2)
            };
            (whole * learning_rate).clamp(-LARGEST_ANSWER, LARGEST_ANSWER) as f32
        };
        grown.leaves.iter().map(answer).collect()
    }
}

/// The validation rows, and when they were predicted best.
#[derive(Debug)]
struct Watch<'a> {
    parameters: &'a Parameters,
    labels: &'a [f32],
    binned: Binned,
    initial_score: f32,
    scores: Vec<f32>,
    predictions: Vec<f32>,
    losses: Vec<f64>,
    best_round: usize,
    best_loss: f64,
}

impl<'a> Watch<'a> {
    fn new(
        parameters: &'a Parameters,
        rows: Labelled<'a>,
        edges: &[Edges],
        initial_score: f32,
    ) -> Self {
        let mut watch = Self {
            parameters,
            labels: rows.labels,
            binned: Binned::new(rows.features, edges),
            initial_score,
            scores: vec![0.0; rows.labels.len()],
            predictions: vec![0.0; rows.labels.len()],
            losses: Vec::new(),
            best_round: 0,
            best_loss: f64::INFINITY,
        };
        watch.best_loss = watch.loss();
        watch
    }

    /// Adds a tree, and gives the loss with it.
    fn add(&mut self, grown: &Grown, leaves: &[f32]) -> f64 {
        for (row, score) in self.scores.iter_mut().enumerate() {
            *score += leaves[grown.leaf(self.binned.row(row))];
        }
        let loss = self.loss();
        self.losses.push(loss);
        if loss < self.best_loss {
            self.best_loss = loss;
            self.best_round = self.losses.len();
        }
        loss
    }

    fn loss(&mut self) -> f64 {
        let objective = self.parameters.objective;
        for (prediction, &score) in self.predictions.iter_mut().zip(&self.scores) {
            *prediction = objective.link().predict(score + self.initial_score);
        }
        let metric = self.parameters.metric.unwrap_or(objective.deviance());
        metric.evaluate(&self.predictions, self.labels)
    }
}

fn check(
    parameters: &Parameters,
    training: Labelled<'_>,
    validation: Option<Labelled<'_>>,
) -> Result<(), Error> {
    parameters.check()?;
    let named = [("training", Some(training)), ("validation", validation)];
    for (name, rows) in named.into_iter().filter_map(|(name, rows)| Some((name, rows?))) {
        let (rows, labels) = (rows.features.rows(), rows.labels);
        if rows != labels.len() {
            let problem = format!("{rows} {name} rows have {} labels", labels.len());
            return Err(Error::Data(problem));
        }
        if rows == 0 || rows > MAX_ROWS {
            let problem = format!("{rows} {name} rows; there must be 1 to {MAX_ROWS}");
            return Err(Error::Data(problem));
        }
        parameters.objective.check_labels(labels)?;
    }
    if validation.is_some_and(|rows| rows.features.names() != training.features.names()) {
        return Err(Error::Data(
            "the validation rows have other columns than the training rows".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Binned, Boosting, Edges, Labelled};
    use crate::learner::tests::{frame, quick};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The state that training works on is what the finished model will answer, to the bit,
        /// for sampled rows and for the others.
        #[test]
        fn scores_are_the_sums_of_leaves((matrix, labels) in frame(), fraction in 0.3..1.0) {
            let mut parameters = quick();
            parameters.row_fraction = fraction;
            let columns = matrix.columns().iter();
            let edges: Vec<_> = columns.map(|column| Edges::choose(column, 255)).collect();
            let binned = Binned::new(&matrix, &edges);
            let rows = Labelled { features: &matrix, labels: &labels };
            let mut boosting = Boosting::new(&parameters, rows, &binned, &edges);
            let mut sums = vec![0.0; labels.len()];
            for _ in 0..5 {
                let Some((grown, leaves)) = boosting.round() else { break };
                let by_bins: Vec<usize> =
                    (0..labels.len()).map(|row| grown.leaf(binned.row(row))).collect();
                let tree = grown.into_tree(leaves);
                for (row, sum) in sums.iter_mut().enumerate() {
                    let leaf = tree.leaf(&matrix.row(row));
                    prop_assert_eq!(leaf, by_bins[row]);
                    *sum += tree.leaves[leaf];
                }
                prop_assert_eq!(&sums, &boosting.scores);
            }
        }
    }
}
