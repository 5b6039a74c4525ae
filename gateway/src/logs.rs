//! Structured logs on standard error.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::settings::Settings;

/// What is logged when nobody says otherwise. ONNX Runtime's own lines are left out: its errors
/// come back as values, and a caller's mistake is no error of ours.
pub const SERVING: &str = "info,ort=off";
/// Lines that may wait to be written.
const BUFFERED_LINES: usize = 8192;

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Levels to log: `info`, or by part as in `warn,sluice_gateway=debug`
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", global = true)]
    pub log: Option<String>,
    /// Form of a log line [default: text]
    #[arg(long, value_name = "FORM", env = "SLUICE_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
}

impl LogSettings {
    /// These, and where they say nothing, those of the settings file.
    pub fn over(self, settings: &Settings) -> Self {
        Self {
            log: self.log.or_else(|| settings.log.clone()),
            log_format: self.log_format.or(settings.log_format),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes what is still buffered when it is dropped: keep it until the process ends.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Starts logging for the process, at `default` where nobody says otherwise. A second call
/// changes nothing.
///
/// Lines go through a bounded buffer to a thread that writes them. When nobody reads standard
/// error, lines are lost, never requests.
pub fn start(settings: &LogSettings, default: &str) -> Result<LogGuard, String> {
    let filter = settings.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log {filter:?}: {error}"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .finish(std::io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    let _already_started = match settings.log_format.unwrap_or_default() {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(LogGuard { _writer: guard })
}
