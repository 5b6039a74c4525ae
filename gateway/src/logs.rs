//! Structured logs on standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Levels to log: `info`, or by part as in `warn,sluice_gateway=debug`
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", global = true)]
    pub log: Option<String>,
    /// Form of a log line
    #[arg(
        long,
        value_name = "FORM",
        env = "SLUICE_LOG_FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process, at `default` where nobody says otherwise. A second call
/// changes nothing.
pub fn start(settings: &LogSettings, default: &str) -> Result<(), String> {
    let filter = settings.log.as_deref().unwrap_or(default);
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("--log {filter:?}: {error}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = match settings.log_format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
