//! `sluice bench floor`: what no gateway can go below on this machine.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;
use sluice_bench::{RunCost, run_costs};
use sluice_engine::OnnxRuntime;

use crate::output::print;

/// Measure what no gateway can go below: a graph's runs alone, by batch size.
///
/// The session is opened as the gateway opens it, with one thread, and run on this thread. The
/// columns are the fastest run, which no noise lengthens, and the processor time of a run and of
/// one of its rows.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct FloorArgs {
    /// The graph
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Rows a batch
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2,4,8,16,32,64")]
    rows: Vec<usize>,
    /// ONNX Runtime's shared library, version 1.23 or newer
    #[arg(long, value_name = "FILE", env = "SLUICE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  sluice bench floor --model models/fraud/1/model.onnx
  sluice bench floor --model models/fraud/1/model.onnx --rows 1,16,64 --json
";

#[derive(Debug, Serialize)]
struct Floor {
    format: u32,
    runs: Vec<RunCost>,
}

pub(super) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    ensure!(args.rows.iter().all(|&rows| rows > 0), "--rows must be at least 1");
    let graph = std::fs::read(&args.model)
        .with_context(|| format!("read graph {}", args.model.display()))?;
    let runtime = OnnxRuntime::load(args.onnxruntime.as_deref())?;
    let opened = runtime.open(&graph, 1);
    let mut engine = opened.with_context(|| format!("open {}", args.model.display()))?;
    let runs = run_costs(&mut engine, &args.rows)
        .with_context(|| format!("run {}", args.model.display()))?;
    if args.json {
        let floor = Floor { format: 1, runs };
        return print(&format!("{}\n", serde_json::to_string_pretty(&floor)?));
    }
    print(&table(&runs)?)
}

fn table(runs: &[RunCost]) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "{:>6} {:>12} {:>12} {:>12}", "rows", "fastest us", "CPU us", "CPU us/row")?;
    for cost in runs {
        let (rows, row) = (cost.rows, cost.cpu_per_row());
        let [fastest, cpu] = [cost.fastest, cost.cpu].map(|time| time.as_secs_f64() * 1e6);
        writeln!(text, "{rows:>6} {fastest:>12.1} {cpu:>12.1} {row:>12.2}")?;
    }
    Ok(text)
}
