//! Signals: SIGHUP reads the settings again; the first SIGTERM or Ctrl-C drains, a second one ends at
//! once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::error::StartError;
use crate::gateway::Gateway;

/// How long work that nobody can break off may go on after the drain: a model that is being
/// loaded, a batch of features on its way to disk.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Serves until the process is told to stop, then drains. Makes a runtime of its own, and when
/// this returns nothing that still runs on it keeps the process from ending.
pub fn run_until_stopped(config: Config) -> Result<(), StartError> {
    let system = |source| StartError::System { what: "start a runtime".to_owned(), source };
    // Requests run on threads of their own; this runtime carries the administration.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(system)?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_timeout(LEFT_BEHIND);
    served
}

async fn serve(config: Config) -> Result<(), StartError> {
    let system = |source| StartError::System { what: "listen for signals".to_owned(), source };
    // Listening before starting: a stop that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(system)?;
    let gateway = Gateway::start(config).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            interrupted = tokio::signal::ctrl_c() => break interrupted.map_err(system)?,
            _ = hang_up.recv() => gateway.reload(),
        }
    }
    tokio::select! {
        () = gateway.drain() => {}
        _ = terminate.recv() => tracing::warn!("stopped while draining"),
        _ = tokio::signal::ctrl_c() => tracing::warn!("stopped while draining"),
    }
    Ok(())
}
