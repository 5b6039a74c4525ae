//! `sluice model`: what a gateway would make of a folder of models, before it is served.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use sluice_gateway::{CheckOptions, CheckedVersion, check_repository};

use crate::output::print;

/// Look at models without serving them.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Check(CheckArgs),
}

/// Load every model of a repository as a gateway would, and say how each version would run, or why
/// it would be refused.
///
/// Configuration, graph, parity rows and warm-up are all checked, and the cost of a run is
/// measured. Nothing is served and nothing is written. Ends with status 1 when a version would be
/// refused, or a folder or a label leads to nothing that would be served, 2 when the check itself
/// cannot be made.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
struct CheckArgs {
    /// Folder of models in Triton's layout: MODEL/VERSION/model.onnx
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// Check only this model; may be given several times
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Feature definitions that the models' feature services are looked up in
    #[arg(long, value_name = "FILE|DIR", env = "SLUICE_FEATURES")]
    features: Option<PathBuf>,
    /// Serving cores that the gateway would have [default: as many as this machine has]
    #[arg(long, value_name = "N", env = "SLUICE_CORES")]
    cores: Option<usize>,
    /// ONNX Runtime's shared library, version 1.23 or newer
    #[arg(long, value_name = "FILE", env = "SLUICE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// Print one JSON array instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:\n  \
    sluice model check ./models\n  \
    sluice model check ./models --model fraud --json";

/// What the process ends with.
pub(crate) fn run(args: ModelArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ModelCommand::Check(args) => check(args),
    }
}

fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs { repository, model, features, cores, onnxruntime, json } = args;
    let options = CheckOptions { models: model, features, cores, onnxruntime };
    let checked = check_repository(&repository, options)?;
    if checked.is_empty() {
        let folder = repository.display();
        bail!("{folder} has no version of a model; its layout is MODEL/VERSION/model.onnx");
    }
    if json {
        let text = serde_json::to_string_pretty(&checked).context("write the result as JSON")?;
        print(&format!("{text}\n"))?;
    } else {
        for version in &checked {
            print(&format!("{}\n", describe(version)))?;
        }
    }
    let is_fine = checked.iter().all(|version| version.refused.is_none());
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn describe(checked: &CheckedVersion) -> String {
    let name = match checked.version {
        Some(version) => format!("{} version {version}", checked.model),
        None => checked.model.clone(),
    };
    let Some(plan) = &checked.plan else {
        let reason = checked.refused.as_deref().unwrap_or_default();
        let what = if checked.version.is_some() { "refused" } else { "at fault" };
        return format!("{name}: {what}\n  {reason}");
    };
    let mut lines = vec![format!("{name}: ready")];
    let sessions = if plan.instances == 1 { "session" } else { "sessions" };
    lines.push(match &plan.apart {
        None => format!(
            "  runs on {} with {} {sessions}, up to {} rows together",
            plan.executor, plan.instances, plan.max_rows
        ),
        Some(reason) => format!(
            "  runs on {} with {} {sessions}, each request alone: {reason}",
            plan.executor, plan.instances
        ),
    });
    let memory = plan.session_memory.map(|bytes| format!(", {} MiB a session", bytes >> 20));
    lines.push(format!("  on {}{}", plan.providers.join(", "), memory.unwrap_or_default()));
    lines.push(format!("  takes, by rows: {}", plan.costs));
    lines.extend(plan.inputs.iter().map(|input| format!("  input  {input}")));
    lines.extend(plan.outputs.iter().map(|output| format!("  output {output}")));
    lines.join("\n")
}
