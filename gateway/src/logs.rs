//! Structured logs on standard error, and what of them can be changed while the process runs.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::settings::Settings;

/// What is logged when nobody says otherwise. ONNX Runtime's own lines are left out: its errors
/// come back as values, and a caller's mistake is no error of ours.
pub const SERVING: &str = "info,ort=off";
/// Lines that may wait to be written.
const BUFFERED_LINES: usize = 8192;

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
#[command(mut_args = crate::settings::unless_empty)]
pub struct LogSettings {
    /// Levels to log: `info`, or by part as in `warn,sluice_gateway=debug`
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", global = true)]
    pub log: Option<String>,
    /// Form of a log line [default: text]
    #[arg(long, value_name = "FORM", env = "SLUICE_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// Whether the levels come from the settings file, or would if it named any.
    #[arg(skip)]
    from_file: bool,
}

impl LogSettings {
    /// These, and where they say nothing, those of the settings file.
    pub fn over(self, settings: &Settings) -> Self {
        let from_file = self.log.is_none();
        Self {
            log: self.log.or_else(|| settings.log.clone()),
            log_format: self.log_format.or(settings.log_format),
            from_file,
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
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

/// What may be changed of a running process's log. The log is the process's: two gateways in one
/// process share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) info: bool,
    pub(crate) warning: bool,
    pub(crate) error: bool,
    /// How much more than the settings say is logged of our own crates: 1 adds debug lines, 2 and
    /// above everything.
    pub(crate) verbose: u32,
}

/// What is logged at this moment beyond the filter.
static LEVELS: Mutex<Levels> =
    Mutex::new(Levels { info: true, warning: true, error: true, verbose: 0 });
/// The same by level, for whoever logs.
static WANTED: [AtomicBool; 3] =
    [AtomicBool::new(true), AtomicBool::new(true), AtomicBool::new(true)];

/// Puts another filter in force.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;
/// The log that was started.
struct Started {
    /// The filter's directives as they were set.
    directives: Mutex<String>,
    /// What they are when nobody says otherwise.
    default: String,
    /// Whether the settings file may change them: not where a flag or the environment says what
    /// they are.
    from_file: bool,
    change: Change,
}

/// Empty before the log is started.
static STARTED: OnceLock<Started> = OnceLock::new();

/// Starts logging for the process, at `default` where nobody says otherwise. A second call
/// changes nothing.
///
/// Lines go through a bounded buffer to a thread that writes them. When nobody reads standard
/// error, lines are lost, never requests.
pub fn start(settings: &LogSettings, default: &str) -> Result<LogGuard, String> {
    let directives = settings.log.as_deref().unwrap_or(default);
    let (filter, handle) = reload::Layer::new(parse(directives)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .finish(std::io::stderr());
    let lines = fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.log_format.unwrap_or_default() {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(dynamic_filter_fn(|event, _| is_wanted(*event.level())));
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let change: Change =
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        let _only_once = STARTED.set(Started {
            directives: Mutex::new(directives.to_owned()),
            default: default.to_owned(),
            from_file: settings.from_file,
            change,
        });
    }
    Ok(LogGuard { _writer: guard })
}

/// What is logged at this moment.
pub(crate) fn levels() -> Levels {
    *LEVELS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes what is logged, from the next line on.
pub(crate) fn set_levels(levels: Levels) -> Result<(), String> {
    let mut current = LEVELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(started) = STARTED.get()
        && levels.verbose != current.verbose
    {
        let directives = started.directives.lock().unwrap_or_else(PoisonError::into_inner);
        (started.change)(parse(&with_verbose(&directives, levels.verbose))?)?;
    }
    *current = levels;
    for (wanted, now) in WANTED.iter().zip([levels.info, levels.warning, levels.error]) {
        wanted.store(now, Ordering::Relaxed);
    }
    Ok(())
}

/// Changes the filter to what the settings file says now, from the next line on. Gives whether that
/// made a difference.
pub(crate) fn set_directives(from_file: Option<&str>) -> Result<bool, String> {
    let Some(started) = STARTED.get().filter(|started| started.from_file) else {
        return Ok(false);
    };
    let new = from_file.unwrap_or(&started.default);
    let verbose = levels().verbose;
    let mut directives = started.directives.lock().unwrap_or_else(PoisonError::into_inner);
    if *directives == new {
        return Ok(false);
    }
    (started.change)(parse(&with_verbose(new, verbose))?)?;
    new.clone_into(&mut directives);
    Ok(true)
}

fn parse(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives).map_err(|error| format!("log {directives:?}: {error}"))
}

/// The directives with more of what our own crates say.
fn with_verbose(directives: &str, verbose: u32) -> String {
    match verbose {
        0 => directives.to_owned(),
        1 => format!("{directives},sluice=debug"),
        _ => format!("{directives},sluice=trace"),
    }
}

fn is_wanted(level: Level) -> bool {
    let [info, warning, error] = &WANTED;
    match level {
        Level::ERROR => error.load(Ordering::Relaxed),
        Level::WARN => warning.load(Ordering::Relaxed),
        Level::INFO => info.load(Ordering::Relaxed),
        _ => true,
    }
}
