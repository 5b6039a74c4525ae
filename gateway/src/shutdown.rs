//! SIGTERM and Ctrl-C: the first drains, a second one ends at once.

use crate::config::Config;
use crate::error::StartError;
use crate::gateway::Gateway;

/// Serves until the process is told to stop, then drains.
pub async fn run_until_stopped(config: Config) -> Result<(), StartError> {
    let system = |source| StartError::System { what: "listen for signals".to_owned(), source };
    // Listening before starting: a stop that comes early must not be lost.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(system)?;
    let gateway = Gateway::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(system)?,
    }
    tokio::select! {
        () = gateway.drain() => {}
        _ = terminate.recv() => tracing::warn!("stopped while draining"),
        _ = tokio::signal::ctrl_c() => tracing::warn!("stopped while draining"),
    }
    Ok(())
}
