//! `sluice-gateway`: the data plane alone, for sidecars and containers.

use std::process::ExitCode;

use clap::Parser;
use sluice_gateway::logs::{self, LogSettings};
use sluice_gateway::{Settings, run_until_stopped};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inference and feature-serving gateway
#[derive(Debug, Parser)]
#[command(
    name = "sluice-gateway",
    version,
    after_help = "Examples:\n  \
        sluice-gateway --model-repository ./models\n  \
        sluice-gateway --registry http://registry:5000 --features features.toml --state /var/lib/sluice"
)]
struct Command {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    logs: LogSettings,
}

fn main() -> ExitCode {
    let command = Command::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging may be what failed")]
            {
                eprintln!("sluice-gateway: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    // The file says how to log, too.
    let settings = command.settings.with_file()?;
    let logs = command.logs.over(&settings);
    let _logs = logs::start(&logs, logs::SERVING).map_err(anyhow::Error::msg)?;
    let check_only = settings.check;
    let config = settings.resolve()?;
    if check_only {
        return Ok(());
    }
    Ok(run_until_stopped(config)?)
}
