//! `sluice bench echo`: the servers that the floor is measured with.

use std::net::SocketAddr;

use clap::Args;
use sluice_bench::{Echo, EchoAddresses};

use crate::output::print;

/// Answer every request with its own body, until Ctrl-C.
///
/// The servers have the gateway's set-up, a thread, a runtime and a listener a core, and do
/// nothing else: what they cost is what HTTP and gRPC cost. Standard output's first line says
/// where they listen.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct EchoArgs {
    /// Where HTTP listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where gRPC listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    grpc: SocketAddr,
    /// Serving cores [default: as many as this machine has]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
}

const EXAMPLES: &str = "Examples:
  Any path, any body:
    sluice bench echo --http 127.0.0.1:9090
    curl -d '{\"a\": 1}' http://127.0.0.1:9090/anything
";

pub(super) fn run(args: &EchoArgs) -> anyhow::Result<()> {
    let cores = args.cores.unwrap_or_else(super::cores);
    let echo = Echo::start(EchoAddresses { http: args.http, grpc: args.grpc }, cores)?;
    let EchoAddresses { http, grpc } = echo.addresses();
    print(&format!("http {http} grpc {grpc}\n"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(tokio::signal::ctrl_c())?)
}
