//! A run: the stages in order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sluice_engine::OnnxRuntime;
use sluice_features::Definitions;
use sluice_protocol::{FeatureServicePin, ModelVersion, ParityRows};
use sluice_registry::Client;

use super::file::{Baseline, Pipeline};
use super::frame::{Examples, Part, write_csv};
use super::output::Output;
use super::register::{Champion, register};
use super::report::{
    RunReport, describe, describe_judgement, describe_registration, describe_training, report,
    what_is_left,
};
use super::sources::Sources;
use crate::export::{INPUT, to_onnx};
use crate::judge::{Judgement, Production, judge};
use crate::learner::{Labelled, Progress, Trained, train};
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

/// Builds and validates the examples, and ends.
pub async fn validate(pipeline: &Pipeline) -> anyhow::Result<Examples> {
    let definitions = definitions(pipeline)?;
    Examples::build(pipeline, &definitions).await
}

/// Runs a pipeline. `tell` hears of every step.
pub async fn run(
    pipeline: &Pipeline,
    options: &RunOptions,
    tell: &mut (dyn FnMut(Step) + Send),
) -> anyhow::Result<RunReport> {
    let runtime = OnnxRuntime::load(options.onnxruntime.as_deref())?;
    let definitions = definitions(pipeline)?;
    let output = options.out.as_deref().map(Output::begin).transpose()?;
    let champion = production_version(pipeline, options).await?;
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
    let production = production(options, champion.as_ref(), &examples, &runtime);
    let judgement = judge_candidate(pipeline, &examples, &trained, production)?;
    stages.end(Stage::Judge, describe_judgement(&judgement));

    let training = training_table(pipeline, &sources, &examples, &trained, &judgement)?;
    let package = package(pipeline, &definitions, &examples, &trained, graph, &rows, training)?;
    let report = report(pipeline, &examples, &trained, judgement);
    let judged_against = champion.map(|champion| champion.version);
    deliver(pipeline, options, judged_against, output, &package, report, &mut stages).await
}

/// Writes the package and the report, and registers the version. A registry or a disk that
/// failed meanwhile does not throw the work of minutes away: each is tried whatever came of the
/// other.
async fn deliver(
    pipeline: &Pipeline,
    options: &RunOptions,
    judged_against: Option<ModelVersion>,
    output: Option<Output>,
    package: &BTreeMap<String, Vec<u8>>,
    mut report: RunReport,
    stages: &mut Stages<'_>,
) -> anyhow::Result<RunReport> {
    let written = output.as_ref().map_or(Ok(()), |output| output.write(package));
    let registered = match &options.registry {
        None => Ok(()),
        Some(client) => {
            stages.begin(Stage::Register);
            let done =
                register(pipeline, options, client, package, judged_against, &mut report).await;
            done.map(|()| stages.end(Stage::Register, describe_registration(pipeline, &report)))
        }
    };
    let published = match output {
        Some(output) => written.and_then(|()| output.publish(&report)),
        None => Ok(()),
    };
    match (registered, published) {
        (Ok(()), Ok(())) => Ok(report),
        (Ok(()), Err(unpublished)) => Err(unpublished.context(what_is_left(options, &report))),
        (Err(unregistered), Ok(())) => Err(unregistered.context(what_is_left(options, &report))),
        (Err(unregistered), Err(unpublished)) => {
            let both = format!("{}; {unpublished:#}", what_is_left(options, &report));
            Err(unregistered.context(both))
        }
    }
}

/// The definitions, which must have what the pipeline needs of them.
fn definitions(pipeline: &Pipeline) -> anyhow::Result<Definitions> {
    let definitions = Definitions::load(&pipeline.data.features)?;
    let plan = definitions.plan(&pipeline.data.service)?;
    for Baseline { name, column } in &pipeline.judge.baselines {
        if !plan.columns().contains(column) {
            let service = plan.name();
            bail!("baseline {name:?}: feature service {service:?} has no column {column:?}");
        }
    }
    Ok(definitions)
}

/// What is in production. Asked before any work, since a registry that is away would refuse the
/// outcome.
async fn production_version(
    pipeline: &Pipeline,
    options: &RunOptions,
) -> anyhow::Result<Option<Champion>> {
    let Some(client) = &options.registry else { return Ok(None) };
    client.health().await.context("nothing was trained, since it could not be registered")?;
    Champion::fetch(client, &pipeline.model, &pipeline.judge.alias).await
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

/// What is in production, with its answers to the test rows.
fn production(
    options: &RunOptions,
    champion: Option<&Champion>,
    examples: &Examples,
    runtime: &OnnxRuntime,
) -> Production {
    match (&options.registry, champion) {
        (None, _) => Production::Unknown,
        (Some(_), None) => Production::Empty,
        (Some(_), Some(champion)) => {
            champion.predict(runtime, examples.schema_hash, &examples.test.features)
        }
    }
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
        let mut names = test.features.names().iter();
        let column = names.position(|name| *name == baseline.column);
        let column = column.with_context(|| format!("no column {:?}", baseline.column))?;
        baselines.push((baseline.name.clone(), test.features.columns()[column].clone()));
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
