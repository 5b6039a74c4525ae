//! The learner as a whole: laws over arbitrary small frames, and what it does with odd ones.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::{Booster, Child, Labelled, Matrix, Metric, Objective, Parameters, Trained, train};
use crate::error::Error;

/// Parameters for frames of a few dozen rows.
pub(crate) fn quick() -> Parameters {
    Parameters {
        learning_rate: 0.3,
        max_rounds: 8,
        max_leaves: 6,
        min_rows_per_leaf: 2,
        row_fraction: 0.8,
        column_fraction: 0.8,
        seed: 3,
        ..Parameters::default()
    }
}

/// A small frame: counts, floats, infinities and missing values, and labels that every
/// objective takes.
pub(crate) fn frame() -> impl Strategy<Value = (Matrix, Vec<f32>)> {
    let value = prop_oneof![
        4 => (0..6_u8).prop_map(f32::from),
        3 => -1e4_f32..1e4,
        1 => any::<f32>(),
        1 => Just(f32::NAN),
        1 => prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX]),
    ];
    (1..5_usize, 1..70_usize).prop_flat_map(move |(columns, rows)| {
        let column = prop::collection::vec(value.clone(), rows);
        let label = prop_oneof![(0..20_u8).prop_map(f32::from), 0.0_f32..100.0];
        (prop::collection::vec(column, columns), prop::collection::vec(label, rows))
            .prop_map(|(columns, labels)| (matrix(columns), labels))
    })
}

pub(crate) fn matrix(columns: Vec<Vec<f32>>) -> Matrix {
    let names = (0..columns.len()).map(|at| format!("c{at}")).collect();
    Matrix::new(names, columns).unwrap()
}

pub(crate) fn objectives() -> [Objective; 4] {
    let tweedie = Objective::Tweedie { power: 1.3 };
    [Objective::Squared, Objective::Poisson, tweedie, Objective::Absolute]
}

pub(crate) fn fit(parameters: &Parameters, matrix: &Matrix, labels: &[f32]) -> Booster {
    let rows = Labelled { features: matrix, labels };
    train(parameters, rows, None, &mut |_| ControlFlow::Continue(())).unwrap().booster
}

fn refused(parameters: &Parameters, matrix: &Matrix, labels: &[f32]) -> String {
    let rows = Labelled { features: matrix, labels };
    let outcome = train(parameters, rows, None, &mut |_| ControlFlow::Continue(()));
    outcome.unwrap_err().to_string()
}

/// 400 rows whose label depends on the first column's size and on whether the second is there.
fn steps() -> (Matrix, Vec<f32>) {
    let first: Vec<f32> = (0..400_u16).map(|i| f32::from(i * 37 % 101)).collect();
    let second: Vec<f32> =
        (0..400_u16).map(|i| if i % 3 == 0 { f32::NAN } else { f32::from(i % 7) }).collect();
    let label = |(&a, &b): (&f32, &f32)| {
        (if a <= 50.0 { 1.0 } else { 5.0 }) + (if b.is_nan() { 10.0 } else { 0.0 })
    };
    let labels = first.iter().zip(&second).map(label).collect();
    (matrix(vec![first, second]), labels)
}

/// The order of the values and nothing else: ranks in steps of 3.
fn ranks(column: &[f32]) -> Vec<f32> {
    let mut values: Vec<f32> = column.iter().map(|&v| v + 0.0).filter(|v| !v.is_nan()).collect();
    values.sort_by(f32::total_cmp);
    values.dedup();
    let rank = |value: f32| values.partition_point(|&other| other < value) as f32 * 3.0 - 50.0;
    column.iter().map(|&v| if v.is_nan() { v } else { rank(v) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_the_order_of_values_matters((matrix_, labels) in frame()) {
        for objective in objectives() {
            let parameters = Parameters { objective, ..quick() };
            let ranked = matrix(matrix_.columns().iter().map(|column| ranks(column)).collect());
            let before = fit(&parameters, &matrix_, &labels).predict(&matrix_).unwrap();
            let after = fit(&parameters, &ranked, &labels).predict(&ranked).unwrap();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_booster((matrix, labels) in frame(), seed in any::<u64>()) {
        let parameters = Parameters { seed, ..quick() };
        let booster = fit(&parameters, &matrix, &labels);
        prop_assert_eq!(&booster, &fit(&parameters, &matrix, &labels));
        prop_assert_eq!(&booster, &Booster::from_json(&booster.to_json()).unwrap());
    }

    #[test]
    fn leaves_have_their_rows((matrix, labels) in frame(), min_rows in 1..10_usize) {
        let all = Parameters { row_fraction: 1.0, min_rows_per_leaf: min_rows, ..quick() };
        let booster = fit(&all, &matrix, &labels);
        for tree in booster.trees() {
            let mut rows = vec![0; tree.leaves.len()];
            (0..matrix.rows()).for_each(|row| rows[tree.leaf(&matrix.row(row))] += 1);
            prop_assert!(rows.iter().all(|&rows| rows >= min_rows), "{:?}", rows);
            prop_assert!(tree.leaves.len() <= all.max_leaves);
            prop_assert!(tree.splits.iter().all(|split| split.gain > 0.0));
        }
    }

    #[test]
    fn a_round_lowers_the_squared_error((matrix, labels) in frame()) {
        let error = |max_rounds| {
            let all = Parameters { max_rounds, row_fraction: 1.0, ..quick() };
            let predictions = fit(&all, &matrix, &labels).predict(&matrix).unwrap();
            Metric::SquaredError.evaluate(&predictions, &labels)
        };
        let (one, two) = (error(1), error(2));
        prop_assert!(two <= one * (1.0 + 1e-5), "{} after {}", two, one);
    }
}

/// What the best single cut takes off half the squared error, times two, tried on every value
/// of every column with missing values on either side.
fn best_gain(parameters: &Parameters, matrix: &Matrix, residuals: &[f64]) -> f64 {
    let score = |rows: &[f64]| {
        rows.iter().sum::<f64>().powi(2) / (rows.len() as f64 + parameters.lambda_l2)
    };
    let least = parameters.min_hessian_per_leaf.max(parameters.min_rows_per_leaf as f64);
    let mut best = 0.0_f64;
    for column in matrix.columns() {
        for &threshold in column.iter().filter(|value| !value.is_nan()) {
            for missing_left in [false, true] {
                let goes_left = |x: f32| x <= threshold || (missing_left && x.is_nan());
                let rows = column.iter().zip(residuals);
                let (left, right): (Vec<_>, Vec<_>) = rows.partition(|row| goes_left(*row.0));
                let [left, right] = [left, right]
                    .map(|side| side.into_iter().map(|row| *row.1).collect::<Vec<f64>>());
                if left.len().min(right.len()) as f64 >= least {
                    best = best.max(score(&left) + score(&right) - score(residuals));
                }
            }
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_first_cut_is_the_best_of_all(
        (matrix, labels) in frame(),
        lambda_l2 in prop_oneof![Just(0.0), 0.0..20.0],
        min_hessian_per_leaf in prop_oneof![Just(0.0), 0.0..12.0],
        min_gain in prop_oneof![Just(0.0), 0.0..2000.0],
    ) {
        let parameters = Parameters {
            lambda_l2, min_hessian_per_leaf, min_gain,
            learning_rate: 1.0, max_leaves: 2, max_rounds: 1,
            row_fraction: 1.0, column_fraction: 1.0, ..quick()
        };
        let booster = fit(&parameters, &matrix, &labels);
        let initial = f64::from(booster.initial_score());
        let residuals: Vec<f64> = labels.iter().map(|&y| f64::from(y) - initial).collect();
        let best = best_gain(&parameters, &matrix, &residuals);
        let close = 1e-3 * (1.0 + best);
        let Some(tree) = booster.trees().first() else {
            prop_assert!(best <= min_gain + close, "{} was there", best);
            return Ok(());
        };
        prop_assert!((tree.splits[0].gain - best).abs() <= close, "{:?}, not {}", tree, best);
        prop_assert!(best > min_gain - close);
        let mut leaves = [(0.0, lambda_l2); 2];
        for (row, residual) in residuals.iter().enumerate() {
            let (sum, count) = &mut leaves[tree.leaf(&matrix.row(row))];
            *sum += residual;
            *count += 1.0;
        }
        for (answer, (sum, count)) in tree.leaves.iter().zip(leaves) {
            prop_assert!((f64::from(*answer) - sum / count).abs() < 1e-2, "{:?}", tree);
        }
    }
}

#[test]
fn steps_are_learned() {
    let (matrix, labels) = steps();
    for objective in objectives() {
        let parameters = Parameters { objective, max_rounds: 120, ..quick() };
        let booster = fit(&parameters, &matrix, &labels);
        let predictions = booster.predict(&matrix).unwrap();
        let error = Metric::AbsoluteError.evaluate(&predictions, &labels);
        assert!(error < 0.2, "{objective:?}: {error}");
        let importance = booster.importance();
        assert!((importance.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(importance.iter().all(|&share| share > 0.05), "{importance:?}");
    }
}

#[test]
fn an_absolute_leaf_is_a_median() {
    let labels = vec![1.0, 2.0, 90.0, 11.0, 12.0, 13.0, 500.0];
    let rows = matrix(vec![vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]);
    let objective = Objective::Absolute;
    let one = Parameters {
        objective,
        learning_rate: 1.0,
        max_rounds: 1,
        row_fraction: 1.0,
        column_fraction: 1.0,
        ..quick()
    };
    let predictions = fit(&one, &rows, &labels).predict(&rows).unwrap();
    assert_eq!(predictions, [2.0, 2.0, 2.0, 12.5, 12.5, 12.5, 12.5]);
}

#[test]
fn odd_frames_give_sane_models() {
    let check = |columns: Vec<Vec<f32>>, labels: &[f32], expected: &[f32]| {
        for objective in objectives() {
            let matrix = matrix(columns.clone());
            let booster = fit(&Parameters { objective, ..quick() }, &matrix, labels);
            assert!(booster.trees().is_empty(), "{objective:?}");
            let predictions = booster.predict(&matrix).unwrap();
            let near = |(&p, &y): (&f32, &f32)| (p - y).abs() < 1e-4;
            assert!(predictions.iter().zip(expected).all(near), "{objective:?}: {predictions:?}");
            assert_eq!(booster.importance(), vec![0.0; columns.len()]);
        }
    };
    check(vec![vec![7.0]], &[3.0], &[3.0]);
    check(vec![vec![f32::NAN; 9]; 2], &[4.0; 9], &[4.0; 9]);
    check(vec![vec![5.0; 4]], &[1.0, 1.0, 3.0, 3.0], &[2.0; 4]);
    check(vec![vec![1.0, 2.0, 3.0, 4.0, 5.0]], &[6.0; 5], &[6.0; 5]);
    check(vec![vec![1.0, 2.0, 3.0, 4.0, 5.0]], &[0.0; 5], &[0.0; 5]);
}

#[test]
fn bad_data_is_refused() {
    let one = matrix(vec![vec![1.0, 2.0]]);
    let check = |parameters: Parameters, matrix: &Matrix, labels: &[f32], expected: &str| {
        let message = refused(&parameters, matrix, labels);
        assert!(message.contains(expected), "{message}");
    };
    let poisson = Parameters { objective: Objective::Poisson, ..quick() };
    check(quick(), &matrix(vec![vec![]]), &[], "0 training rows");
    check(quick(), &one, &[1.0], "2 training rows have 1 labels");
    check(quick(), &one, &[1.0, f32::NAN], "the label of row 1 is NaN");
    check(poisson, &one, &[1.0, -1.0], "needs labels of at least 0");
    let (rows, other) = (Labelled { features: &one, labels: &[1.0, 2.0] }, steps());
    let validation = Labelled { features: &other.0, labels: &other.1 };
    let outcome = train(&quick(), rows, Some(validation), &mut |_| ControlFlow::Continue(()));
    assert!(outcome.unwrap_err().to_string().contains("other columns"));
    let booster = fit(&quick(), &one, &[1.0, 2.0]);
    assert!(booster.predict(&other.0).is_err());
    assert!(booster.predict_row(&[1.0, 2.0]).is_err());
}

#[test]
fn parameters_are_checked() {
    let check = |change: fn(&mut Parameters), name: &str| {
        let mut parameters = quick();
        change(&mut parameters);
        let message = refused(&parameters, &steps().0, &steps().1);
        assert!(message.starts_with(&format!("parameter {name}: ")), "{message}");
    };
    check(|p| p.learning_rate = 0.0, "learning_rate");
    check(|p| p.learning_rate = f64::NAN, "learning_rate");
    check(|p| p.max_rounds = 0, "max_rounds");
    check(|p| p.max_leaves = 1, "max_leaves");
    check(|p| p.min_rows_per_leaf = 0, "min_rows_per_leaf");
    check(|p| p.min_hessian_per_leaf = -1.0, "min_hessian_per_leaf");
    check(|p| p.lambda_l2 = f64::INFINITY, "lambda_l2");
    check(|p| p.min_gain = f64::NAN, "min_gain");
    check(|p| p.max_bins = 256, "max_bins");
    check(|p| p.row_fraction = 1.5, "row_fraction");
    check(|p| p.column_fraction = 0.0, "column_fraction");
    check(|p| p.objective = Objective::Tweedie { power: 2.0 }, "objective");
    check(|p| p.metric = Some(Metric::TweedieDeviance { power: 1.0 }), "metric");
}

#[test]
fn parameters_are_read_as_people_write_them() {
    let text = r#"{"objective": {"tweedie": {"power": 1.3}}, "max_leaves": 15}"#;
    let parameters: Parameters = serde_json::from_str(text).unwrap();
    assert_eq!(parameters.objective, Objective::Tweedie { power: 1.3 });
    assert_eq!((parameters.max_leaves, parameters.learning_rate), (15, 0.05));
    let error = serde_json::from_str::<Parameters>(r#"{"num_leaves": 15}"#).unwrap_err();
    assert!(error.to_string().contains("num_leaves"), "{error}");
}

fn validated(patience: usize) -> Trained {
    let (matrix, labels) = steps();
    // The validation labels are the first step only, so the second is over-learned at once.
    let other: Vec<f32> = labels.iter().map(|y| y % 10.0).collect();
    let parameters = Parameters { max_rounds: 40, early_stopping_rounds: patience, ..quick() };
    let rows = Labelled { features: &matrix, labels: &labels };
    let validation = Some(Labelled { features: &matrix, labels: &other });
    train(&parameters, rows, validation, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn training_stops_when_the_validation_loss_does_not_fall() {
    let Trained { booster, validation_losses: losses, metric, .. } = validated(4);
    let best = booster.trees().len();
    assert_eq!(losses.len(), best + 4);
    assert!(best == 0 || losses.iter().all(|&loss| loss >= losses[best - 1]));
    assert_eq!(metric, Metric::SquaredError);
    assert_eq!(validated(0).booster.trees().len(), 40);
}

#[test]
fn training_can_be_cancelled() {
    let (matrix, labels) = steps();
    let rows = Labelled { features: &matrix, labels: &labels };
    let mut seen = Vec::new();
    let outcome = train(&quick(), rows, Some(rows), &mut |progress| {
        seen.push(progress);
        if progress.round == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(outcome, Err(Error::Cancelled { rounds: 3 })));
    assert_eq!(seen.iter().map(|p| p.round).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(seen[2].best_round, 3);
    assert!(seen[2].validation_loss < seen[0].validation_loss);
}

#[test]
fn training_time_is_told() {
    let (matrix, labels) = steps();
    let rows = Labelled { features: &matrix, labels: &labels };
    let parameters = Parameters { max_rounds: 300, ..quick() };
    let trained = train(&parameters, rows, None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(trained.cpu_time.is_some_and(|time| !time.is_zero()));
}

#[test]
fn a_damaged_booster_is_refused() {
    let (matrix, labels) = steps();
    let json = fit(&quick(), &matrix, &labels).to_json();
    let check = |from: &str, to: &str, expected: &str| {
        let damaged = json.replacen(from, to, 1);
        assert_ne!(damaged, json, "{from}");
        let message = Booster::from_json(&damaged).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check("\"format\":1", "\"format\":2", "newer than 1");
    check("\"trees\"", "\"branches\"", "branches");
    check("\"column\":0", "\"column\":2", "tree 0 is not a tree");
    check("{\"leaf\":0}", "{\"split\":0}", "tree 0 is not a tree");
    check("{\"leaf\":0}", "{\"leaf\":1}", "tree 0 is not a tree");
    check("{\"leaf\":0}", "{\"leaf\":99}", "tree 0 is not a tree");
    assert!(Booster::from_json("").is_err());
}

#[test]
fn a_missing_value_goes_with_the_majority_where_none_was_seen() {
    let rows = matrix(vec![(0..10_u8).map(f32::from).collect()]);
    let labels = [0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0];
    let one = Parameters { max_leaves: 2, row_fraction: 1.0, ..quick() };
    let booster = fit(&one, &rows, &labels);
    let split = &booster.trees()[0].splits[0];
    assert_eq!((split.threshold, split.missing_left), (2.5, false));
    assert_eq!((split.left, split.right), (Child::Leaf(0), Child::Leaf(1)));
    assert_eq!(booster.predict_row(&[f32::NAN]).unwrap(), booster.predict_row(&[9.0]).unwrap());
}

#[test]
fn whether_a_value_is_there_can_be_all_that_matters() {
    let rows = matrix(vec![(0..20_u8).map(|i| if i % 3 == 0 { f32::NAN } else { 7.0 }).collect()]);
    let labels: Vec<f32> = (0..20_u8).map(|i| if i % 3 == 0 { 4.0 } else { 1.0 }).collect();
    let one = Parameters { learning_rate: 1.0, max_rounds: 1, row_fraction: 1.0, ..quick() };
    let booster = fit(&one, &rows, &labels);
    assert_eq!(booster.predict_row(&[f32::NAN]).unwrap(), 4.0);
    for there in [7.0, 0.0, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(booster.predict_row(&[there]).unwrap(), 1.0, "{there}");
    }
}
