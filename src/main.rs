//! `sluice`: every command of the house in one program. It only composes the crates.

mod admin;
mod bench;
mod demo;
mod features;
mod model;
mod output;
mod registry;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_gateway::logs::{self, LogSettings};
use sluice_gateway::{Settings, run_until_stopped};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inference and feature-serving gateway, with the companions that close its retraining loop
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
struct Sluice {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: LogSettings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole loop on this machine, on real sales: train, serve, retrain, swap
    Demo(demo::DemoArgs),
    /// Serve models over HTTP and gRPC
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Settings>),
    Model(model::ModelArgs),
    Registry(registry::RegistryArgs),
    Features(features::FeaturesArgs),
    Train(train::TrainArgs),
    Bench(bench::BenchArgs),
}

const SERVE_EXAMPLES: &str = "Examples:\n  \
    sluice serve --model-repository ./models\n  \
    sluice serve --registry http://127.0.0.1:5000 --features demo/features.toml --state state";

fn main() -> ExitCode {
    match run(Sluice::parse()) {
        Ok(status) => status,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging may be what failed")]
            {
                eprintln!("sluice: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(mut sluice: Sluice) -> anyhow::Result<ExitCode> {
    // A gateway's settings file says how to log, too.
    if let Command::Serve(settings) = &mut sluice.command {
        **settings = std::mem::take(&mut **settings).with_file()?;
        sluice.logs = sluice.logs.over(settings);
    }
    // Commands that talk to a person log only what needs attention.
    let quiet = !matches!(sluice.command, Command::Serve(_) | Command::Registry(_));
    let filter = if quiet { "warn,ort=off" } else { logs::SERVING };
    let _logs = logs::start(&sluice.logs, filter).map_err(anyhow::Error::msg)?;
    let done = match sluice.command {
        Command::Model(args) => return model::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Serve(settings) if settings.check => {
            settings.resolve().map(drop).map_err(Into::into)
        }
        Command::Serve(settings) => Ok(run_until_stopped(settings.resolve()?)?),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Registry(args) => runtime()?.block_on(registry::run(args)),
        Command::Features(args) => runtime()?.block_on(features::run(args)),
        Command::Train(args) => runtime()?.block_on(train::run(args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
