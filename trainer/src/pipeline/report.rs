//! What came of a run: as data, and in words for people.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_protocol::{Format, ModelName, ModelVersion};

use super::file::Pipeline;
use super::frame::Examples;
use super::run::RunOptions;
use crate::judge::{Judgement, Rival};
use crate::learner::{Objective, Trained};

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Version 1.
    pub format: Format<1>,
    /// The model.
    pub model: ModelName,
    /// What was minimised.
    pub objective: Objective,
    /// Trees that were kept.
    pub rounds: usize,
    /// CPU seconds of training, binning included, where it can be told.
    pub cpu_seconds: Option<f64>,
    /// Examples of each part.
    pub examples: BTreeMap<&'static str, usize>,
    /// The verdict and what it was made from.
    pub judgement: Judgement,
    /// The registered version.
    pub version: Option<ModelVersion>,
    /// Whether the alias was moved to it.
    pub promoted: bool,
    /// Why not, where a version was registered and the alias was not moved to it.
    pub not_promoted: Option<String>,
    /// How much each column contributed to the splits, largest first.
    pub importance: Vec<(String, f64)>,
}

/// The report of a run before anything is registered.
pub(super) fn report(
    pipeline: &Pipeline,
    examples: &Examples,
    trained: &Trained,
    judgement: Judgement,
) -> RunReport {
    let names = trained.booster.columns().iter().cloned();
    let mut importance: Vec<(String, f64)> = names.zip(trained.booster.importance()).collect();
    importance.sort_by(|a, b| b.1.total_cmp(&a.1));
    RunReport {
        format: Format::CURRENT,
        model: pipeline.model.clone(),
        objective: pipeline.learner.objective,
        rounds: trained.booster.trees().len(),
        cpu_seconds: trained.cpu_time.map(|time| time.as_secs_f64()),
        examples: examples.parts().map(|(name, part)| (name, part.labels.len())).into(),
        judgement,
        version: None,
        promoted: false,
        not_promoted: None,
        importance,
    }
}

/// What became of the version in a run that failed at its end.
pub(super) fn what_is_left(options: &RunOptions, report: &RunReport) -> String {
    let Some(version) = report.version else {
        return if options.registry.is_some() {
            "the version was not registered".to_owned()
        } else {
            "the run ended, but its outcome could not be written".to_owned()
        };
    };
    let promoted = if report.promoted { "and promoted" } else { "but not promoted" };
    format!("version {version} is registered {promoted}")
}

pub(super) fn describe(examples: &Examples) -> String {
    let parts = examples.parts().map(|(name, part)| {
        let range = match part.range() {
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "no day".to_owned(),
        };
        format!("{name} {} ({range})", part.labels.len())
    });
    format!("{} columns; {}", examples.train.features.names().len(), parts.join(", "))
}

pub(super) fn describe_training(trained: &Trained) -> String {
    let best = trained.validation_losses.iter().copied().fold(f64::INFINITY, f64::min);
    let metric = trained.metric.as_str();
    format!("{} trees, validation {metric} {best:.4}", trained.booster.trees().len())
}

pub(super) fn describe_judgement(judgement: &Judgement) -> String {
    let rivals = judgement.baselines.iter().chain(&judgement.champion);
    let all = judgement.measures.rows;
    let rivals = rivals.map(|Rival { name, measures, candidate_mae, .. }| match measures.rows {
        rows if rows == all => format!("{name} {:.2}", measures.mae),
        rows => format!("{name} {:.2} to {candidate_mae:.2} on {rows} rows", measures.mae),
    });
    format!(
        "MAE {:.2} ({}): {}, {}",
        judgement.measures.mae,
        rivals.collect::<Vec<_>>().join(", "),
        judgement.verdict.as_str(),
        judgement.reason
    )
}

pub(super) fn describe_registration(pipeline: &Pipeline, report: &RunReport) -> String {
    let version = report.version.map_or_else(String::new, |version| version.to_string());
    let alias = &pipeline.judge.alias;
    let alias = match &report.not_promoted {
        Some(reason) => format!("{alias} stays: {reason}"),
        None => format!("now {alias}"),
    };
    format!("{} version {version}, {alias}", pipeline.model)
}
