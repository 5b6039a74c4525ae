//! A run: the stages in order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use sluice_engine::OnnxRuntime;
use sluice_features::Definitions;
use sluice_protocol::{FeatureServicePin, Format, ModelName, ModelVersion, ParityRows};
use sluice_registry::Client;

use super::file::Pipeline;
use super::frame::{Examples, Part, write_csv};
use super::output;
use super::register::{Champion, promote, register};
use super::sources::Sources;
use crate::export::{INPUT, to_onnx};
use crate::judge::{Judgement, Production, Verdict, judge};
use crate::learner::{Labelled, Objective, Progress, Trained, train};
use crate::package::{Contents, files};
use crate::{parity, reference_profile};

/// What a run may do beside training.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Where versions are registered; nowhere when absent.
    pub registry: Option<Client>,
    /// ONNX Runtime's library, found by itself when absent.
    pub onnxruntime: Option<PathBuf>,
    /// Where the package and the report are written, if anywhere.
    pub out: Option<PathBuf>,
    /// Where the examples are written as CSV, if anywhere.
    pub frame_out: Option<PathBuf>,
    /// Register, but leave the alias where it is.
    pub no_promote: bool,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The training frame is built and held against expectations.
    Frame,
    /// The model is trained.
    Train,
    /// The graph is written and compared with the learner.
    Export,
    /// The candidate is judged.
    Judge,
    /// The version is registered.
    Register,
}

impl Stage {
    /// The stage as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Train => "train",
            Self::Export => "export",
            Self::Judge => "judge",
            Self::Register => "register",
        }
    }
}

/// What a run tells while it goes on.
#[derive(Debug, Clone)]
pub enum Step {
    /// A stage began.
    Began(Stage),
    /// A round of training ended.
    Trained(Progress),
    /// A stage ended.
    Ended {
        /// The stage.
        stage: Stage,
        /// What came of it, for people.
        outcome: String,
        /// How long it took.
        took: Duration,
    },
}

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

/// Builds and validates the examples, and ends.
pub async fn validate(pipeline: &Pipeline) -> anyhow::Result<Examples> {
    let definitions = Definitions::load(&pipeline.data.features)?;
    Examples::build(pipeline, &definitions).await
}

/// Runs a pipeline. `tell` hears of every step.
pub async fn run(
    pipeline: &Pipeline,
    options: &RunOptions,
    tell: &mut (dyn FnMut(Step) + Send),
) -> anyhow::Result<RunReport> {
    let runtime = OnnxRuntime::load(options.onnxruntime.as_deref())?;
    let definitions = Definitions::load(&pipeline.data.features)?;
    check_destinations(options).await?;
    let mut stages = Stages { tell, began: Instant::now() };

    stages.begin(Stage::Frame);
    let (examples, sources) = build(pipeline, &definitions).await?;
    if let Some(path) = &options.frame_out {
        write_csv(&examples, path)?;
    }
    stages.end(Stage::Frame, describe(&examples));

    stages.begin(Stage::Train);
    // Training is minutes of arithmetic; the runtime's other tasks go on beside it.
    let trained = tokio::task::block_in_place(|| {
        learn(pipeline, &examples, &mut |progress| (stages.tell)(Step::Trained(progress)))
    })?;
    stages.end(Stage::Train, describe_training(&trained));

    stages.begin(Stage::Export);
    let graph = to_onnx(&trained.booster);
    let sample = &examples.train.features;
    let rows = parity::check(&runtime, &trained.booster, &graph, sample, pipeline.learner.seed)?;
    stages.end(Stage::Export, format!("{} bytes of ONNX answer as the learner does", graph.len()));

    stages.begin(Stage::Judge);
    let (production, judged_against) = production(pipeline, options, &examples, &runtime).await?;
    let judgement = judge_candidate(pipeline, &examples, &trained, production)?;
    stages.end(Stage::Judge, describe_judgement(&judgement));

    let training = training_table(pipeline, &sources, &examples, &trained, &judgement)?;
    let package = package(pipeline, &definitions, &examples, &trained, graph, &rows, training)?;
    let mut report = report(pipeline, &examples, &trained, judgement);
    if let Some(client) = &options.registry {
        stages.begin(Stage::Register);
        let version = register(client, pipeline, &package, &report.judgement).await?;
        report.version = Some(version);
        report.not_promoted =
            promote_version(pipeline, options, client, version, judged_against, &report).await?;
        report.promoted = report.not_promoted.is_none();
        stages.end(Stage::Register, describe_registration(pipeline, &report));
    }
    if let Some(folder) = &options.out {
        output::write(folder, &package, &report)?;
    }
    Ok(report)
}

/// Refuses before any work what would refuse its outcome.
async fn check_destinations(options: &RunOptions) -> anyhow::Result<()> {
    if let Some(folder) = &options.out {
        output::check_free(folder)?;
    }
    if let Some(client) = &options.registry {
        client.health().await.context("nothing was trained, since it could not be registered")?;
    }
    Ok(())
}

/// The examples, and what they were built from.
async fn build(
    pipeline: &Pipeline,
    definitions: &Definitions,
) -> anyhow::Result<(Examples, Sources)> {
    let read = || tokio::task::block_in_place(|| Sources::read(definitions, &pipeline.data));
    let sources = read()?;
    let examples = Examples::build(pipeline, definitions).await?;
    read()?.check_unchanged_since(&sources)?;
    Ok((examples, sources))
}

struct Stages<'t> {
    tell: &'t mut (dyn FnMut(Step) + Send),
    began: Instant,
}

impl Stages<'_> {
    fn begin(&mut self, stage: Stage) {
        self.began = Instant::now();
        (self.tell)(Step::Began(stage));
    }

    fn end(&mut self, stage: Stage, outcome: String) {
        (self.tell)(Step::Ended { stage, outcome, took: self.began.elapsed() });
    }
}

fn learn(
    pipeline: &Pipeline,
    examples: &Examples,
    tell: &mut dyn FnMut(Progress),
) -> anyhow::Result<Trained> {
    fn labelled(part: &Part) -> Labelled<'_> {
        Labelled { features: &part.features, labels: &part.labels }
    }
    let (training, stopping) = (labelled(&examples.train), labelled(&examples.validation));
    let trained = train(&pipeline.learner, training, Some(stopping), &mut |progress| {
        tell(progress);
        ControlFlow::Continue(())
    });
    Ok(trained?)
}

/// What is in production, with its answers to the test rows, and the version that the alias names.
async fn production(
    pipeline: &Pipeline,
    options: &RunOptions,
    examples: &Examples,
    runtime: &OnnxRuntime,
) -> anyhow::Result<(Production, Option<ModelVersion>)> {
    let Some(client) = &options.registry else { return Ok((Production::Unknown, None)) };
    let champion = Champion::fetch(client, &pipeline.model, &pipeline.judge.alias).await?;
    let Some(champion) = champion else { return Ok((Production::Empty, None)) };
    let production = champion.predict(runtime, examples.schema_hash, &examples.test.features);
    Ok((production, Some(champion.version)))
}

fn judge_candidate(
    pipeline: &Pipeline,
    examples: &Examples,
    trained: &Trained,
    production: Production,
) -> anyhow::Result<Judgement> {
    let test = &examples.test;
    let predictions = trained.booster.predict(&test.features)?;
    let mut baselines = Vec::new();
    for baseline in &pipeline.judge.baselines {
        let names = test.features.names();
        let Some(column) = names.iter().position(|name| *name == baseline.column) else {
            bail!("baseline {:?}: service has no column {:?}", baseline.name, baseline.column);
        };
        // Where nothing is known yet, the forecast that costs nothing is nothing.
        let values = &test.features.columns()[column];
        let forecast = values.iter().map(|&value| if value.is_nan() { 0.0 } else { value });
        baselines.push((baseline.name.clone(), forecast.collect()));
    }
    let (labels, days) = (&test.labels, &test.days);
    Ok(judge(&pipeline.judge, &predictions, labels, days, baselines, production))
}

fn package(
    pipeline: &Pipeline,
    definitions: &Definitions,
    examples: &Examples,
    trained: &Trained,
    graph: Vec<u8>,
    parity: &ParityRows,
    training: toml::Table,
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let plan = definitions.plan(&pipeline.data.service)?;
    let predictions = trained.booster.predict(&examples.train.features)?;
    let profile = reference_profile(&examples.train.features, &predictions);
    let service = FeatureServicePin {
        name: plan.name().to_owned(),
        views: plan.views(),
        schema_hash: plan.schema_hash(),
        input: INPUT.to_owned(),
        columns: plan.columns().to_vec(),
    };
    let model = &pipeline.model;
    Ok(files(Contents { model, graph, profile: &profile, parity, service, training }))
}

/// How the version came about, for people and audits.
fn training_table(
    pipeline: &Pipeline,
    sources: &Sources,
    examples: &Examples,
    trained: &Trained,
    judgement: &Judgement,
) -> anyhow::Result<toml::Table> {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
    put("learner", toml::Value::try_from(&pipeline.learner)?);
    put("rounds", i64::try_from(trained.booster.trees().len())?.into());
    let days = pipeline.data.horizon.as_secs() / 86_400;
    put("horizon_days", i64::try_from(days)?.into());
    for (name, part) in examples.parts() {
        put(&format!("{name}_rows"), i64::try_from(part.labels.len())?.into());
        if let (Some(first), Some(last)) = part.range() {
            put(&format!("{name}_days"), format!("{first} to {last}").into());
        }
    }
    put("test_mae", judgement.measures.mae.into());
    put("test_rmse", judgement.measures.rmse.into());
    put("verdict", judgement.verdict.as_str().into());
    put("sources", sources.digests().into());
    Ok(table)
}

fn report(
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

/// Moves the alias if all speaks for it; else why it stays.
async fn promote_version(
    pipeline: &Pipeline,
    options: &RunOptions,
    client: &Client,
    version: ModelVersion,
    judged_against: Option<ModelVersion>,
    report: &RunReport,
) -> anyhow::Result<Option<String>> {
    let verdict = report.judgement.verdict;
    if verdict != Verdict::Promote {
        return Ok(Some(format!("the verdict is {}", verdict.as_str())));
    }
    if options.no_promote {
        return Ok(Some("the run was told not to promote".to_owned()));
    }
    // The alias moves last: whoever follows it finds the version whole.
    promote(client, &pipeline.model, &pipeline.judge.alias, version, judged_against).await
}

fn describe(examples: &Examples) -> String {
    let parts = examples.parts().map(|(name, part)| {
        let range = match part.range() {
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "no day".to_owned(),
        };
        format!("{name} {} ({range})", part.labels.len())
    });
    format!("{} columns; {}", examples.train.features.names().len(), parts.join(", "))
}

fn describe_training(trained: &Trained) -> String {
    let best = trained.validation_losses.iter().copied().fold(f64::INFINITY, f64::min);
    let metric = trained.metric.as_str();
    format!("{} trees, validation {metric} {best:.4}", trained.booster.trees().len())
}

fn describe_judgement(judgement: &Judgement) -> String {
    let rivals = judgement.baselines.iter().chain(&judgement.champion);
    let rivals = rivals.map(|rival| format!("{} {:.2}", rival.name, rival.measures.mae));
    format!(
        "MAE {:.2} ({}): {}, {}",
        judgement.measures.mae,
        rivals.collect::<Vec<_>>().join(", "),
        judgement.verdict.as_str(),
        judgement.reason
    )
}

fn describe_registration(pipeline: &Pipeline, report: &RunReport) -> String {
    let version = report.version.map_or_else(String::new, |version| version.to_string());
    let alias = &pipeline.judge.alias;
    let alias = match &report.not_promoted {
        Some(reason) => format!("{alias} stays: {reason}"),
        None => format!("now {alias}"),
    };
    format!("{} version {version}, {alias}", pipeline.model)
}
