//! Settings as written: flags, environment variables and `sluice.toml`, in that order.

mod cloud_events;
mod file;
pub(crate) mod list;
mod size;
mod source_flags;
mod unknown;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::control::exposure::ControlGroup;
use crate::dialect::DialectSettings;
use crate::error::StartError;
use crate::forwarding::ForwardingSettings;
use crate::grpc::TransportSettings;
use crate::logs::LogFormat;
use crate::metrics::MetricNames;
use crate::security::SecuritySettings;
use crate::tenant::TenantSettings;
use crate::trace::TraceSettings;
pub use cloud_events::CloudEventSettings;
pub(crate) use cloud_events::CloudEvents;
use source_flags::SourceFlags;

/// Everything that can be set. What is absent has a default.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
#[command(mut_args = unless_empty)]
pub struct Settings {
    // First: what is read after it is taken out of the matches.
    #[command(flatten)]
    #[serde(skip)]
    named: SourceFlags,
    /// Folder of models in Triton's layout: MODEL/VERSION/model.onnx
    #[arg(long, value_name = "DIR", env = "SLUICE_MODEL_REPOSITORY")]
    pub model_repository: Option<PathBuf>,
    /// How often the folder is looked through for changes; 0s never again [default: 5s]
    #[arg(long, value_name = "TIME", env = "SLUICE_REPOSITORY_POLL", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub repository_poll: Option<Duration>,
    /// What makes its models come and go: changes of the folder, calls, or nothing [default: poll]
    #[arg(long, value_name = "MODE", env = "SLUICE_MODEL_CONTROL")]
    pub model_control: Option<ModelControlMode>,
    /// Model to load at the start under explicit control, * for all; may be repeated
    #[arg(long, value_name = "NAME", env = "SLUICE_LOAD_MODEL", value_delimiter = ',')]
    #[serde(deserialize_with = "list::deserialize")]
    pub load_model: Vec<String>,
    /// Registry to follow: versions with an alias are served, `champion` answers
    #[arg(long, value_name = "URL", env = "SLUICE_REGISTRY")]
    pub registry: Option<String>,
    /// Feature definitions: a TOML file or a folder of them
    #[arg(long, value_name = "FILE|DIR", env = "SLUICE_FEATURES")]
    pub features: Option<PathBuf>,
    /// Folder for the online store and for what a restart needs
    #[arg(long, value_name = "DIR", env = "SLUICE_STATE")]
    pub state: Option<PathBuf>,
    /// Address for HTTP: V1, V2 and health [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR", env = "SLUICE_HTTP")]
    pub http: Option<SocketAddr>,
    /// Address for gRPC [default: 0.0.0.0:8081]
    #[arg(long, value_name = "ADDR", env = "SLUICE_GRPC")]
    pub grpc: Option<SocketAddr>,
    /// Address for administration and metrics [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR", env = "SLUICE_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// What operators may ask of the HTTP and gRPC ports too: load and unload, logging, shared memory, trace [default: none of it]
    #[arg(long, value_name = "GROUP", env = "SLUICE_SERVE_CONTROL", value_delimiter = ',')]
    #[serde(deserialize_with = "list::deserialize")]
    pub serve_control: Vec<ControlGroup>,
    /// A second address that answers nothing but /metrics and health, for scrapers and probes
    #[arg(long, value_name = "ADDR", env = "SLUICE_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Answer /metrics on the HTTP port too, as KServe does [default: false]
    #[arg(long, value_name = "BOOL", env = "SLUICE_SERVE_METRICS", num_args = 0..=1, default_missing_value = "true")]
    pub serve_metrics: Option<bool>,
    /// ONNX Runtime's shared library, version 1.23 or newer
    #[arg(long, value_name = "FILE", env = "SLUICE_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
    /// Serving cores [default: as many as the machine or the container has]
    #[arg(long, value_name = "N", env = "SLUICE_CORES")]
    pub cores: Option<usize>,
    /// Connections that HTTP and gRPC hold together at most; idle ones leave for new ones [default: 20000 a core, as far as the limit of open files goes]
    #[arg(long, value_name = "N", env = "SLUICE_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Largest request body or message, in bytes or as in 64MiB [default: 64MiB]
    #[arg(long, value_name = "BYTES", env = "SLUICE_MAX_BODY", value_parser = size::parse)]
    #[serde(deserialize_with = "size::deserialize")]
    pub max_body: Option<usize>,
    /// Path under which HTTP is answered as well, for clients whose URL has one
    #[arg(long, value_name = "PATH", env = "SLUICE_BASE_PATH")]
    pub base_path: Option<String>,
    /// HTTP answers of at least so many bytes are compressed for clients that accept it, 1024 or more; 0 none [default: 0]
    #[arg(long, value_name = "BYTES", env = "SLUICE_COMPRESS_REPLIES", value_parser = size::parse)]
    #[serde(deserialize_with = "size::deserialize")]
    pub compress_replies: Option<usize>,
    /// How long an answer may take [default: 30s]
    #[arg(long, value_name = "TIME", env = "SLUICE_REQUEST_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub request_timeout: Option<Duration>,
    /// Past this much predicted work in a queue, requests are refused [default: 1s]
    #[arg(long, value_name = "TIME", env = "SLUICE_MAX_WAITING", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub max_waiting: Option<Duration>,
    /// By whose names models' metrics are told: sluice, triton, kserve, or several [default: sluice]
    #[arg(long, value_name = "NAMES", env = "SLUICE_METRIC_NAMES", value_delimiter = ',')]
    #[serde(deserialize_with = "list::some")]
    pub metric_names: Option<Vec<MetricNames>>,
    /// Bytes of answers to keep for models whose configuration asks for it [default: 0]
    #[arg(long, value_name = "BYTES", env = "SLUICE_RESPONSE_CACHE", value_parser = size::parse)]
    #[serde(deserialize_with = "size::deserialize")]
    pub response_cache: Option<usize>,
    /// Let clients register shared memory, out of which inputs are read and into which outputs are written [default: false]
    #[arg(long, value_name = "BOOL", env = "SLUICE_SHARED_MEMORY", num_args = 0..=1, default_missing_value = "true")]
    pub shared_memory: Option<bool>,
    /// How long running requests may go on after SIGTERM [default: 20s]
    #[arg(long, value_name = "TIME", env = "SLUICE_DRAIN_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub drain_timeout: Option<Duration>,
    #[command(flatten, next_help_heading = "Where protocols differ")]
    #[serde(flatten)]
    pub dialect: DialectSettings,
    #[command(flatten, next_help_heading = "Headers as parameters")]
    #[serde(flatten)]
    pub forwarding: ForwardingSettings,
    #[command(flatten, next_help_heading = "Tenants")]
    #[serde(flatten)]
    pub tenants: TenantSettings,
    #[command(flatten, next_help_heading = "gRPC")]
    #[serde(flatten)]
    pub transport: TransportSettings,
    #[command(flatten, next_help_heading = "Who may connect and ask")]
    #[serde(flatten)]
    pub security: SecuritySettings,
    #[command(flatten)]
    #[serde(flatten)]
    pub cloud_events: CloudEventSettings,
    #[command(flatten, next_help_heading = "Traces")]
    #[serde(flatten)]
    pub trace: TraceSettings,
    /// Settings file in TOML; its keys are these flags with underscores
    #[arg(long, value_name = "FILE", env = "SLUICE_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Check the settings and the files that they name, open ONNX Runtime, and end
    #[arg(long)]
    #[serde(skip)]
    pub check: bool,
    /// Levels to log, as the file has it; the flag is one of every command.
    #[arg(skip)]
    pub log: Option<String>,
    /// Form of a log line, as the file has it.
    #[arg(skip)]
    pub log_format: Option<LogFormat>,
    /// Keys of the file that nothing reads, each with its place.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) unread: Vec<String>,
    /// These settings before the file was read.
    #[arg(skip)]
    #[serde(skip)]
    given: Option<Box<Settings>>,
}

/// What makes the models of a repository come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelControlMode {
    /// Changes of the folder, which is looked through now and again.
    #[default]
    Poll,
    /// Load and unload calls.
    Explicit,
    /// Nothing: what is there at the start is loaded.
    None,
}

impl Settings {
    /// Fills what neither a flag nor the environment says from the file, if one is named.
    pub fn with_file(mut self) -> Result<Self, StartError> {
        let given = self.given.take().unwrap_or_else(|| Box::new(self.clone()));
        self.named.win(&mut self.model_repository, &mut self.registry);
        self.cloud_events = self.cloud_events.or_kserve(|name| std::env::var(name).ok());
        self.trace = self.trace.or_opentelemetry(|name| std::env::var(name).ok());
        let mut settings = match self.config.take() {
            Some(path) => self.over(file::read(&path).map_err(StartError::Settings)?),
            None => self,
        };
        settings.given = Some(given);
        Ok(settings)
    }

    /// Reads the file, if that was not done yet, then checks all of it and gives every
    /// complaint at once. With `--check` that includes what only a start would find.
    pub fn resolve(self) -> Result<Config, StartError> {
        let config = Config::new(self.with_file()?)?;
        if config.written.merged.check {
            config.try_out()?;
        }
        Ok(config)
    }

    /// What flags and the environment say, before the file was read.
    pub(crate) fn given(&self) -> Self {
        self.given.as_deref().unwrap_or(self).clone()
    }

    fn over(self, file: Self) -> Self {
        // One source of models replaces the other, whichever the file names.
        let has_source = self.model_repository.is_some() || self.registry.is_some();
        let (repository, registry) =
            if has_source { (None, None) } else { (file.model_repository, file.registry) };
        Self {
            model_repository: self.model_repository.or(repository),
            repository_poll: self.repository_poll.or(file.repository_poll),
            model_control: self.model_control.or(file.model_control),
            load_model: or(self.load_model, file.load_model),
            registry: self.registry.or(registry),
            features: self.features.or(file.features),
            state: self.state.or(file.state),
            http: self.http.or(file.http),
            grpc: self.grpc.or(file.grpc),
            admin: self.admin.or(file.admin),
            serve_control: or(self.serve_control, file.serve_control),
            metrics: self.metrics.or(file.metrics),
            serve_metrics: self.serve_metrics.or(file.serve_metrics),
            onnxruntime: self.onnxruntime.or(file.onnxruntime),
            cores: self.cores.or(file.cores),
            max_connections: self.max_connections.or(file.max_connections),
            max_body: self.max_body.or(file.max_body),
            base_path: self.base_path.or(file.base_path),
            compress_replies: self.compress_replies.or(file.compress_replies),
            request_timeout: self.request_timeout.or(file.request_timeout),
            max_waiting: self.max_waiting.or(file.max_waiting),
            metric_names: self.metric_names.or(file.metric_names),
            response_cache: self.response_cache.or(file.response_cache),
            shared_memory: self.shared_memory.or(file.shared_memory),
            drain_timeout: self.drain_timeout.or(file.drain_timeout),
            dialect: self.dialect.over(file.dialect),
            forwarding: self.forwarding.over(file.forwarding),
            tenants: self.tenants.over(file.tenants),
            transport: self.transport.over(file.transport),
            security: self.security.over(file.security),
            cloud_events: self.cloud_events.over(file.cloud_events),
            trace: self.trace.over(file.trace),
            config: self.config,
            check: self.check,
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
            named: self.named,
            unread: file.unread,
            given: None,
        }
    }
}

/// The list that is said first.
fn or<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}

/// `argument` without its environment variable if that is empty, as manifests have one that is to say
/// nothing. One that is to close a door stays, so that nothing is left open by what was forgotten.
pub(crate) fn unless_empty(argument: Arg) -> Arg {
    let variable = argument.get_env().and_then(std::env::var_os);
    let is_unset = variable.is_some_and(|value| value.is_empty())
        && !keys_of(&SecuritySettings::default()).iter().any(|key| argument.get_id() == &**key);
    if is_unset { argument.env(Resettable::Reset) } else { argument }
}

/// The keys of a settings file that `settings` are read from.
fn keys_of(settings: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(table)) => table.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}
