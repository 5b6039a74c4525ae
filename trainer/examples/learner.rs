//! Trains on a frame that `sluice train run --frame-out` wrote, once for each objective, and
//! writes how well and at what cost, for `bench/lightgbm/compare.py` to hold against LightGBM:
//!
//! `learner FRAME.csv SEED RESULTS.json`

use std::io::BufRead;
use std::ops::ControlFlow;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sluice_trainer::learner::{Labelled, Matrix, Metric, Objective, Parameters, train};

const OBJECTIVES: [Objective; 4] = [
    Objective::Squared,
    Objective::Poisson,
    Objective::Tweedie { power: 1.3 },
    Objective::Absolute,
];
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// One split's columns and labels.
#[derive(Debug, Default)]
struct Part {
    columns: Vec<Vec<f32>>,
    labels: Vec<f32>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [frame, seed, results] = arguments.as_slice() else {
        bail!("usage: learner FRAME.csv SEED RESULTS.json");
    };
    let seed = seed.parse().context("parse the seed")?;
    let (names, parts) = read(frame).with_context(|| format!("read {frame}"))?;
    let matrices: Vec<Matrix> = parts
        .iter()
        .map(|part| Matrix::new(names.clone(), part.columns.clone()))
        .collect::<Result<_, _>>()?;
    let rows: Vec<Labelled<'_>> = matrices
        .iter()
        .zip(&parts)
        .map(|(features, part)| Labelled { features, labels: &part.labels })
        .collect();
    let outcomes: Vec<Value> = OBJECTIVES
        .iter()
        .map(|&objective| measure(objective, seed, &rows))
        .collect::<anyhow::Result<_>>()?;
    let report = json!({ "format": 1, "results": outcomes });
    std::fs::write(results, report.to_string()).with_context(|| format!("write {results}"))
}

/// Trains with the settings of the comparison and judges on the test rows.
fn measure(objective: Objective, seed: u64, rows: &[Labelled<'_>]) -> anyhow::Result<Value> {
    let [training, validation, test] = *rows else { bail!("a split is missing") };
    let parameters = Parameters {
        objective,
        row_fraction: 0.8,
        column_fraction: 0.8,
        seed,
        ..Parameters::default()
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let trained = train(&parameters, training, Some(validation), go_on)?;
    let predictions = trained.booster.predict(test.features)?;
    let cpu_time = trained.cpu_time.context("read this thread's CPU time from /proc")?;
    Ok(json!({
        "objective": objective.as_str(),
        "mae": Metric::AbsoluteError.evaluate(&predictions, test.labels),
        "rmse": Metric::SquaredError.evaluate(&predictions, test.labels).sqrt(),
        "cpu_seconds": cpu_time.as_secs_f64(),
        "rounds": trained.booster.trees().len(),
    }))
}

/// The columns' names, and the rows of each of [`SPLITS`].
fn read(path: &str) -> anyhow::Result<(Vec<String>, [Part; 3])> {
    let mut lines = std::io::BufReader::new(std::fs::File::open(path)?).lines();
    let header = lines.next().context("the file is empty")??;
    let Some(names) = header.strip_prefix("split,label,") else {
        bail!("the header must be split,label,<columns...>");
    };
    let names: Vec<String> = names.split(',').map(Into::into).collect();
    let mut parts: [Part; 3] = Default::default();
    parts.iter_mut().for_each(|part| part.columns.resize(names.len(), Vec::new()));
    for (number, line) in lines.enumerate() {
        let line = line?;
        let mut cells = line.split(',');
        let split = cells.next().and_then(|name| SPLITS.iter().position(|&split| split == name));
        let part = &mut parts[split.with_context(|| format!("row {number}: unknown split"))?];
        let parsed: Vec<f32> = cells
            .map(|cell| if cell.is_empty() { Ok(f32::NAN) } else { cell.parse() })
            .collect::<Result<_, _>>()
            .with_context(|| format!("row {number}"))?;
        ensure!(parsed.len() == names.len() + 1, "row {number}: {} cells", parsed.len() + 1);
        part.labels.push(parsed[0]);
        part.columns.iter_mut().zip(&parsed[1..]).for_each(|(column, &value)| column.push(value));
    }
    Ok((names, parts))
}
