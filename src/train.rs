//! `sluice train`: from data to a judged, registered model version.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use sluice_registry::Client;
use sluice_trainer::pipeline::{self, Pipeline, RunOptions, Step};

use crate::output::print;

/// Train a model version from a pipeline file.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    command: TrainCommand,
}

#[derive(Debug, Subcommand)]
enum TrainCommand {
    Run(RunArgs),
    Validate(ValidateArgs),
}

/// Train, check, judge and register the next version of a model.
///
/// The frame is built by the same expressions that serving uses, and held against what the
/// file expects. The candidate is exported, its graph compared with the learner row by row,
/// and judged on rows that it never saw: against forecasts that cost nothing and, with a
/// registry, against the version in production. It is registered whole; the alias moves only
/// when the verdict is "promote". Killed at any moment, a run leaves everything as it was, but
/// for a folder .sluice-run-... beside --out.
#[derive(Debug, Args)]
#[command(after_long_help = RUN_EXAMPLES)]
struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Registry that keeps the versions; without one nothing is registered
    #[arg(long, env = "SLUICE_REGISTRY", value_name = "URL")]
    registry: Option<String>,
    /// ONNX Runtime's shared library, version 1.23 or newer
    #[arg(long, env = "SLUICE_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// New folder for the package and report.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the examples as CSV: split, label, columns
    #[arg(long, value_name = "FILE")]
    frame_out: Option<PathBuf>,
    /// Register, but leave the alias where it is
    #[arg(long)]
    no_promote: bool,
}

const RUN_EXAMPLES: &str = "Examples:\n  \
    sluice train run demo/train.toml --out runs/1\n  \
    sluice train run demo/train.toml --registry http://127.0.0.1:5000\n  \
    sluice train run demo/train.toml --set learner.objective=absolute --set data.until=2011-06-30";

/// Build the examples and hold them against what the pipeline file expects.
#[derive(Debug, Args)]
struct ValidateArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

#[derive(Debug, Args)]
struct PipelineArgs {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a value of the file, as in learner.seed=7; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(crate) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    match args.command {
        TrainCommand::Run(args) => train(args).await,
        TrainCommand::Validate(args) => validate(args).await,
    }
}

async fn train(args: RunArgs) -> anyhow::Result<()> {
    let pipeline = Pipeline::load(&args.pipeline.file, &args.pipeline.set)?;
    let options = RunOptions {
        registry: args.registry.as_deref().map(Client::new).transpose()?,
        onnxruntime: args.onnxruntime,
        out: args.out,
        frame_out: args.frame_out,
        no_promote: args.no_promote,
    };
    let mut progress = Progress::new("");
    pipeline::run(&pipeline, &options, &mut |step| progress.show(&step)).await?;
    Ok(())
}

async fn validate(args: ValidateArgs) -> anyhow::Result<()> {
    let pipeline = Pipeline::load(&args.pipeline.file, &args.pipeline.set)?;
    let examples = pipeline::validate(&pipeline).await?;
    let mut text = String::from("the data is as expected:");
    for (name, part) in examples.parts() {
        text.push_str(&format!(" {name} {},", part.labels.len()));
    }
    let columns = examples.train.features.names().len();
    print(&format!("{text} {columns} columns\n"))
}

/// Shows a run's steps: a line a stage on standard output and, on a terminal, the rounds of
/// training as they go by.
pub(crate) struct Progress {
    prefix: &'static str,
    live: bool,
}

impl Progress {
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, live: std::io::stderr().is_terminal() }
    }

    /// Printing is for people; a reader that has gone away must not end the run.
    pub(crate) fn show(&mut self, step: &Step) {
        let _reader_may_be_gone = match step {
            Step::Began(_) => Ok(()),
            Step::Trained(progress) if self.live && progress.round % 10 == 0 => {
                let loss = progress.validation_loss.unwrap_or(f64::NAN);
                let mut out = std::io::stderr();
                write!(out, "\r  round {}, validation {loss:.4}  \r", progress.round)
                    .and_then(|()| out.flush())
            }
            Step::Trained(_) => Ok(()),
            Step::Ended { stage, outcome, took } => {
                let (prefix, stage, took) = (self.prefix, stage.as_str(), took.as_secs_f64());
                writeln!(std::io::stdout(), "{prefix}{stage:<9} {took:>6.2} s  {outcome}")
            }
        };
    }
}
