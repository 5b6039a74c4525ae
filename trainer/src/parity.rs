//! Whether an exported graph answers what the learner answers, on rows that would show it if
//! it did not: real ones, ones exactly on thresholds and beside them, and ones with missing,
//! infinite and huge values. A few of these rows are shipped with the model, so that whoever
//! loads it can look too.

mod boundary;

use std::collections::HashSet;

use boundary::{Boundary, boundaries};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sluice_engine::{Engine, OnnxRuntime};
use sluice_protocol::{Format, ParityRows, Tensor, TensorData};

use crate::error::Error;
use crate::export::{INPUT, OUTPUT};
use crate::learner::{Booster, Matrix};

/// How far the graph's answer may be from the learner's, relative to the learner's or to 1.
pub const TOLERANCE: f32 = 1e-5;

/// Real rows that are checked at most.
const REAL_ROWS: usize = 2_000;
/// Rows of values from different real rows.
const MIXED_ROWS: usize = 500;
/// Distinct thresholds at and beside which rows are made at most, evenly spread if there are
/// more.
const THRESHOLDS: usize = 5_000;
/// Rows that are shipped at most.
const SHIPPED_ROWS: usize = 54;
/// Rows in one run of the graph.
const BATCH: usize = 1_024;

/// A row to check.
#[derive(Debug, Clone)]
struct Probe {
    kind: Kind,
    row: Vec<f32>,
}

/// How a row was made, which is what an error message says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Real,
    Mixed,
    AtThreshold { column: usize },
    BelowThreshold { column: usize },
    AboveThreshold { column: usize },
    AllMissing,
    Missing { column: usize },
    Extreme { column: usize },
    AllExtreme,
}

/// Runs `graph` on made and real rows beside the booster, and gives a few dozen of them with
/// the booster's answers. `sample` holds real rows, at least one, with the booster's columns;
/// `seed` decides which of them are used. The first row that differs is an
/// [`Error::Parity`].
pub fn check(
    runtime: &OnnxRuntime,
    booster: &Booster,
    graph: &[u8],
    sample: &Matrix,
    seed: u64,
) -> Result<ParityRows, Error> {
    if sample.rows() == 0 {
        return Err(Error::Data("parity needs at least one real row".into()));
    }
    if sample.names() != booster.columns() {
        return Err(Error::Data("the parity sample has other columns than the model".into()));
    }
    let probes = probes(booster, sample, &mut Pcg64Mcg::seed_from_u64(seed));
    let mut engine = runtime.open(graph, 1)?;
    for (at, batch) in probes.chunks(BATCH).enumerate() {
        let answers = run(&mut engine, batch)?;
        for (row, (probe, answer)) in batch.iter().zip(answers).enumerate() {
            probe.compare(booster, at * BATCH + row, answer)?;
        }
    }
    shipped(booster, &probes)
}

impl Probe {
    fn compare(&self, booster: &Booster, row: usize, answer: f32) -> Result<(), Error> {
        let expected = booster.predict_row(&self.row)?;
        let close = ParityRows {
            format: Format::CURRENT,
            input: INPUT.into(),
            output: OUTPUT.into(),
            rows: Vec::new(),
            expected: Vec::new(),
            tolerance: TOLERANCE,
        };
        if close.matches(expected, answer) {
            return Ok(());
        }
        let description = format!("{}: {:?}", self.kind.describe(booster.columns()), self.row);
        Err(Error::Parity { row, description, expected, answer })
    }
}

impl Kind {
    fn describe(self, columns: &[String]) -> String {
        match self {
            Self::Real => "a real row".into(),
            Self::Mixed => "values of different real rows".into(),
            Self::AtThreshold { column } => format!("{} exactly on a threshold", columns[column]),
            Self::BelowThreshold { column } => {
                format!("{} just below a threshold", columns[column])
            }
            Self::AboveThreshold { column } => {
                format!("{} just above a threshold", columns[column])
            }
            Self::AllMissing => "all columns missing".into(),
            Self::Missing { column } => format!("{} missing", columns[column]),
            Self::Extreme { column } => format!("{} infinite or huge", columns[column]),
            Self::AllExtreme => "all columns infinite or huge".into(),
        }
    }
}

fn probes(booster: &Booster, sample: &Matrix, random: &mut Pcg64Mcg) -> Vec<Probe> {
    let mut any = || random.random_range(0..sample.rows());
    let mut probes = Vec::new();
    for _ in 0..REAL_ROWS.min(sample.rows()) {
        probes.push(Probe { kind: Kind::Real, row: sample.row(any()) });
    }
    for _ in 0..MIXED_ROWS {
        let row = sample.columns().iter().map(|column| column[any()]).collect();
        probes.push(Probe { kind: Kind::Mixed, row });
    }
    for boundary in boundaries(booster, THRESHOLDS) {
        probes.extend(at_boundary(&boundary, || sample.row(any())));
    }
    probes.extend(extremes(booster.columns().len(), || sample.row(any())));
    probes
}

fn at_boundary(boundary: &Boundary, mut row: impl FnMut() -> Vec<f32>) -> [Probe; 3] {
    let Boundary { column, threshold, .. } = *boundary;
    [
        (Kind::AtThreshold { column }, threshold),
        (Kind::BelowThreshold { column }, threshold.next_down()),
        (Kind::AboveThreshold { column }, threshold.next_up()),
    ]
    .map(|(kind, value)| {
        let mut row = row();
        boundary.place(&mut row, value);
        Probe { kind, row }
    })
}

fn extremes(columns: usize, mut row: impl FnMut() -> Vec<f32>) -> Vec<Probe> {
    const VALUES: [f32; 6] =
        [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0];
    let mut probes = vec![Probe { kind: Kind::AllMissing, row: vec![f32::NAN; columns] }];
    probes.extend(VALUES.map(|value| Probe { kind: Kind::AllExtreme, row: vec![value; columns] }));
    for column in 0..columns {
        let mut with = |kind, value| {
            let mut row = row();
            row[column] = value;
            probes.push(Probe { kind, row });
        };
        with(Kind::Missing { column }, f32::NAN);
        VALUES.iter().for_each(|&value| with(Kind::Extreme { column }, value));
    }
    probes
}

fn run(engine: &mut dyn Engine, probes: &[Probe]) -> Result<Vec<f32>, Error> {
    let rows = probes.len();
    let values: Vec<f32> = probes.iter().flat_map(|probe| probe.row.iter().copied()).collect();
    let shape = [rows, probes[0].row.len()].map(|d| i64::try_from(d).expect("it is in memory"));
    let tensor =
        Tensor::new(shape.into(), TensorData::Fp32(values)).expect("rows are equally long");
    let mut outputs = engine.run(&[tensor])?;
    let output = outputs.pop().map(Tensor::into_parts);
    match output {
        Some((shape, TensorData::Fp32(answers))) if shape.len() == 1 && answers.len() == rows => {
            Ok(answers)
        }
        other => Err(Error::Model(format!("{rows} rows are answered by {other:?}"))),
    }
}

/// Some rows of each kind, with different answers where there are such.
fn shipped(booster: &Booster, probes: &[Probe]) -> Result<ParityRows, Error> {
    let mut kinds: Vec<Vec<&Probe>> = Vec::new();
    for probe in probes {
        let same = |kind: &&mut Vec<&Probe>| {
            std::mem::discriminant(&kind[0].kind) == std::mem::discriminant(&probe.kind)
        };
        match kinds.iter_mut().find(same) {
            Some(kind) => kind.push(probe),
            None => kinds.push(vec![probe]),
        }
    }
    let share = SHIPPED_ROWS / kinds.len();
    let (mut rows, mut expected) = (Vec::new(), Vec::new());
    for kind in kinds {
        let mut seen = HashSet::new();
        let step = (kind.len() / (4 * share)).max(1);
        let mut taken = 0;
        for probe in kind.into_iter().step_by(step) {
            let answer = booster.predict_row(&probe.row)?;
            if taken < share && seen.insert(answer.to_bits()) {
                rows.push(probe.row.iter().map(|value| value.to_bits()).collect());
                expected.push(answer.to_bits());
                taken += 1;
            }
        }
    }
    let (input, output) = (INPUT.into(), OUTPUT.into());
    Ok(ParityRows { format: Format::CURRENT, input, output, rows, expected, tolerance: TOLERANCE })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use sluice_engine::OnnxRuntime;

    use super::check;
    use crate::error::Error;
    use crate::export::to_onnx;
    use crate::learner::tests::{fit, frame, matrix, objectives, quick};
    use crate::learner::{Booster, Parameters};

    /// The library that `make setup` installs, or the one that is named.
    fn runtime() -> OnnxRuntime {
        let installed =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/onnxruntime/libonnxruntime.so");
        let named = std::env::var_os("SLUICE_ONNXRUNTIME").unwrap_or_else(|| installed.into());
        OnnxRuntime::load(Some(Path::new(&named))).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_graph_answers_as_the_learner((matrix, labels) in frame(), seed in any::<u64>()) {
            for objective in objectives() {
                let parameters = Parameters { objective, ..quick() };
                let booster = fit(&parameters, &matrix, &labels);
                let shipped = check(&runtime(), &booster, &to_onnx(&booster), &matrix, seed);
                let shipped = shipped.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(!shipped.rows.is_empty() && shipped.rows.len() <= 54);
                prop_assert_eq!(shipped.rows.len(), shipped.expected.len());
                for (row, &expected) in shipped.rows.iter().zip(&shipped.expected) {
                    let row: Vec<f32> = row.iter().map(|&bits| f32::from_bits(bits)).collect();
                    prop_assert_eq!(booster.predict_row(&row).unwrap().to_bits(), expected);
                }
            }
        }
    }

    /// A booster with one threshold, at 2.5.
    fn step() -> Booster {
        let rows = matrix(vec![(0..20_u8).map(|i| f32::from(i % 5)).collect()]);
        let labels: Vec<f32> = (0..20_u8).map(|i| if i % 5 <= 2 { 1.0 } else { 9.0 }).collect();
        fit(&Parameters { max_rounds: 1, row_fraction: 1.0, ..quick() }, &rows, &labels)
    }

    #[test]
    fn a_graph_that_differs_on_one_threshold_is_found() {
        let booster = step();
        let rows = matrix(vec![vec![0.0, 4.0]]);
        let bits = |x: f32| x.to_bits().to_string();
        let moved = booster.to_json().replace(&bits(2.5), &bits(2.5_f32.next_up()));
        let other = Booster::from_json(&moved).unwrap();
        assert_ne!(booster, other);
        match check(&runtime(), &booster, &to_onnx(&other), &rows, 1).unwrap_err() {
            Error::Parity { description, .. } => {
                assert!(description.contains("c0 just above a threshold"), "{description}");
            }
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_graph_that_sends_missing_values_elsewhere_is_found() {
        let booster = step();
        let rows = matrix(vec![vec![0.0, 4.0]]);
        let sides = [("\"missing_left\":true", "false"), ("\"missing_left\":false", "true")];
        let (from, to) = sides.into_iter().find(|side| booster.to_json().contains(side.0)).unwrap();
        let turned = booster.to_json().replace(from, &format!("\"missing_left\":{to}"));
        let other = Booster::from_json(&turned).unwrap();
        let error = check(&runtime(), &booster, &to_onnx(&other), &rows, 1).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn unusable_graphs_and_samples_are_refused() {
        let booster = step();
        let graph = to_onnx(&booster);
        let one = matrix(vec![vec![0.0]]);
        assert!(check(&runtime(), &booster, &graph, &one, 1).is_ok());
        assert!(check(&runtime(), &booster, &graph[..40], &one, 1).is_err());
        assert!(check(&runtime(), &booster, &graph, &matrix(vec![vec![]]), 1).is_err());
        let two = matrix(vec![vec![0.0]; 2]);
        assert!(check(&runtime(), &booster, &graph, &two, 1).is_err());
    }

    #[test]
    fn shipped_rows_are_of_every_kind() {
        let rows = matrix(vec![(0..20_u8).map(f32::from).collect(); 3]);
        let labels: Vec<f32> = (0..20_u8).map(|i| f32::from(i * 7 % 20)).collect();
        let booster = fit(&quick(), &rows, &labels);
        let shipped = check(&runtime(), &booster, &to_onnx(&booster), &rows, 1).unwrap();
        let values = || shipped.rows.iter().flatten().map(|&bits| f32::from_bits(bits));
        assert!(shipped.rows.len() >= 24, "{}", shipped.rows.len());
        assert!(values().any(f32::is_nan) && values().any(f32::is_infinite));
        let mut answers = shipped.expected.clone();
        answers.sort_unstable();
        answers.dedup();
        assert!(answers.len() >= 8, "{answers:?}");
    }
}
