//! `sluice bench compare`: Sluice beside other servers, under the same load.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use sluice_bench::{CompareOptions, Comparison, Peers, Protocol, compare};

use crate::output::print;

/// Compare with other servers: the same model, bodies and load, by turns.
///
/// Starts Sluice, the floor (an echo on the same runtimes) and every peer that is set up, checks
/// that all give the same answer, and drives them one after the other in rounds. What counts are
/// ratios within a round, which this prints with their spread: single timings on a busy machine
/// do not. A peer that cannot be started or answers something else is reported and left out, with
/// the command that sets it up.
///
/// Ctrl-C ends it with what has been measured so far.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct CompareArgs {
    /// The graph that all of them serve
    #[arg(long, env = "SLUICE_BENCH_GRAPH", value_name = "FILE.onnx")]
    model: PathBuf,
    /// The list of peers
    #[arg(long, value_name = "FILE", default_value = "bench/peers/peers.toml")]
    peers: PathBuf,
    /// Only these peers
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    only: Vec<String>,
    /// How the model is asked
    #[arg(
        long,
        value_name = "NAME[,NAME]",
        value_delimiter = ',',
        default_value = "v1,v2,v2-binary,grpc"
    )]
    protocol: Vec<Protocol>,
    /// Numbers of connections
    #[arg(long, value_name = "N[,N]", value_delimiter = ',', default_value = "1,16,64")]
    connections: Vec<usize>,
    /// How often every server has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long each turn is
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Rows of each question
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write tables and plots to this file as a page of HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the tables to this file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write plots into this folder, which lies beside the file of --markdown
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  Set the peers up, and compare over all protocols at 1, 16 and 64 connections:
    scripts/setup-peers.sh
    sluice bench compare --model mlp.onnx --html compare.html

  Only Triton and the floor, over gRPC:
    sluice bench compare --model mlp.onnx --only triton --protocol grpc --connections 16
";

/// Runs the subcommand.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let options = CompareOptions {
        model: args.model.clone(),
        sluice: std::env::current_exe().context("find this program")?,
        peers: Peers::read(&args.peers)?.only(&args.only)?,
        protocols: args.protocol.clone(),
        connections: args.connections.clone(),
        rounds: args.rounds,
        duration: args.duration,
        rows: args.rows,
    };
    if cfg!(debug_assertions) {
        say("this is a debug build: what it finds says nothing of Sluice; build with --release");
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_signals(stop.clone())?;
    let comparison = compare(&options, &mut say, &stop)?;
    print(&comparison.to_string())?;
    write(args, &comparison)
}

fn write(args: &CompareArgs, comparison: &Comparison) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        comparison.write_json(path)?;
    }
    if let Some(path) = &args.html {
        comparison.write_html(path)?;
    }
    if let Some(folder) = &args.plots {
        comparison.write_plots(folder)?;
    }
    if let Some(path) = &args.markdown {
        let folder = args.plots.as_ref().and_then(|folder| folder.file_name());
        let text = comparison.to_markdown(folder.and_then(|folder| folder.to_str()));
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Progress, which is not the result.
fn say(text: &str) {
    #[expect(clippy::print_stderr, reason = "a person waits for minutes")]
    {
        eprintln!("{text}");
    }
}

/// The servers are ended by this program, so it must not end before them.
fn stop_at_signals(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.store(true, Ordering::Relaxed);
        say("stopping; the servers are ended first");
    })?;
    Ok(())
}
