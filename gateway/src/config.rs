//! Settings as run: resolved, checked and grouped by who uses them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sluice_engine::OnnxRuntime;
use sluice_features::Definitions;
use sluice_protocol::ModelName;
use sluice_registry::Client;

use crate::control::exposure::Exposure;
use crate::error::StartError;
use crate::http::{HttpOptions, begins_a_route};
use crate::live::Live;
use crate::security::Seen;
use crate::settings::{CloudEvents, ModelControlMode, Settings};
use crate::shared::{Options, RequestLimits};

/// Everything that a gateway runs by.
#[derive(Debug)]
pub struct Config {
    pub(crate) source: Source,
    pub(crate) features: Option<PathBuf>,
    pub(crate) addresses: Addresses,
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Connections that all serving cores hold together; as many as go well, if nobody says.
    pub(crate) max_connections: Option<usize>,
    pub(crate) options: Options,
    pub(crate) drain_timeout: Duration,
    pub(crate) written: Written,
}

/// The settings that a [`Config`] comes from, for reading them again.
#[derive(Debug)]
pub(crate) struct Written {
    /// What flags and the environment said, and the name of the file.
    pub(crate) given: Box<Settings>,
    /// The same with the file's.
    pub(crate) merged: Box<Settings>,
    /// The files of certificates and tokens when they were read.
    pub(crate) seen: Seen,
}

/// Where models come from.
#[derive(Debug)]
pub(crate) enum Source {
    Repository { root: PathBuf, control: ModelControl },
    Registry(Client),
}

/// What makes models of a repository come and go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ModelControl {
    /// The folder, looked through this often.
    Poll(Duration),
    /// Calls. At the start these are loaded; all that are there, if it does not say.
    Explicit { models: Option<BTreeSet<ModelName>> },
    /// Nothing: what is there at the start is loaded.
    Never,
}

/// Where the gateway listens. Ports are real ones once it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// V1, V2 and health over HTTP.
    pub http: SocketAddr,
    /// V2 over gRPC.
    pub grpc: SocketAddr,
    /// Administration and metrics.
    pub admin: SocketAddr,
    /// Metrics alone, if asked for.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    pub(crate) fn new(settings: Settings) -> Result<Self, StartError> {
        for key in &settings.unread {
            tracing::warn!("{key} is left aside");
        }
        let mut complaints = Vec::new();
        let source = source(&settings).map_err(|complaint| complaints.push(complaint)).ok();
        if let Some(path) = settings.features.as_ref().filter(|path| !path.exists()) {
            complaints.push(format!("--features {}: there is no such file", path.display()));
        }
        if settings.cores == Some(0) {
            complaints.push("--cores must be at least 1".to_owned());
        }
        if settings.max_connections == Some(0) {
            complaints.push("--max-connections must be at least 1".to_owned());
        }
        let limits = limits(&settings, &mut complaints);
        let transport =
            settings.transport.resolve().map_err(|complaint| complaints.push(complaint));
        let transport = transport.unwrap_or_default();
        let http = http(&settings, &mut complaints);
        let trace = settings.trace.resolve().map_err(|complaint| complaints.push(complaint));
        let forwarding = settings.forwarding.resolve();
        let forwarding = forwarding.map_err(|found| complaints.extend(found)).unwrap_or_default();
        let tenants = settings.tenants.resolve();
        let tenants = tenants.map_err(|found| complaints.extend(found)).unwrap_or_default();
        let (seen, security) = settings.security.open();
        let security = security.map_err(|found| complaints.extend(found)).ok();
        let (Some(source), Some(security), true) = (source, security, complaints.is_empty()) else {
            return Err(StartError::Settings(complaints));
        };
        let (given, merged) = (Box::new(settings.given()), Box::new(settings.clone()));
        // available_parallelism minds a container's quota.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            source,
            addresses: Addresses::of(&settings),
            features: settings.features,
            onnxruntime: settings.onnxruntime,
            max_connections: settings.max_connections,
            options: Options {
                cores: settings.cores.unwrap_or(cores),
                response_cache: settings.response_cache.unwrap_or(0),
                metric_names: settings.metric_names.unwrap_or_default(),
                transport,
                http,
                shared_memory: settings.shared_memory.unwrap_or_default(),
                trace: trace.unwrap_or_default(),
                live: Live {
                    limits,
                    dialect: settings.dialect.resolve(),
                    exposed: Exposure::new(settings.serve_control),
                    access: security.access,
                    forwarding,
                    tenants,
                    tls: security.tls,
                },
                state: settings.state,
            },
            drain_timeout: settings.drain_timeout.unwrap_or(Duration::from_secs(20)),
            written: Written { given, merged, seen },
        })
    }

    /// Opens what a start opens before anything else, and lets go of it again: ONNX Runtime and the
    /// feature definitions. Gives every complaint.
    pub(crate) fn try_out(&self) -> Result<(), StartError> {
        let runtime = OnnxRuntime::load(self.onnxruntime.as_deref());
        let runtime = runtime.err().map(|error| error.to_string());
        let features = self.features.as_deref().and_then(|path| {
            let failed = Definitions::load(path).err()?;
            Some(format!("--features {}: {failed}", path.display()))
        });
        let complaints: Vec<_> = [runtime, features].into_iter().flatten().collect();
        if complaints.is_empty() { Ok(()) } else { Err(StartError::Settings(complaints)) }
    }
}

impl Addresses {
    fn of(settings: &Settings) -> Self {
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            http: settings.http.unwrap_or(everywhere(8080)),
            grpc: settings.grpc.unwrap_or(everywhere(8081)),
            admin: settings.admin.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8082))),
            metrics: settings.metrics,
        }
    }
}

fn limits(settings: &Settings, complaints: &mut Vec<String>) -> RequestLimits {
    let defaults = RequestLimits::default();
    let limits = RequestLimits {
        max_body: settings.max_body.unwrap_or(defaults.max_body),
        request_timeout: settings.request_timeout.unwrap_or(defaults.request_timeout),
        max_waiting: settings.max_waiting.unwrap_or(defaults.max_waiting),
    };
    if limits.max_body == 0 {
        complaints.push("--max-body must be at least 1: no request could be read".to_owned());
    }
    if limits.request_timeout.is_zero() {
        complaints.push("--request-timeout must be longer than 0".to_owned());
    }
    limits
}

fn http(settings: &Settings, complaints: &mut Vec<String>) -> HttpOptions {
    /// Below this, compressing costs more than it saves.
    const LEAST: usize = 1024;
    let base_path = settings.base_path.as_deref().unwrap_or_default().trim_end_matches('/');
    if !base_path.is_empty() && (!base_path.starts_with('/') || base_path.contains(['?', '#', ' ']))
    {
        complaints
            .push(format!("--base-path {base_path}: must be a path that begins with a slash"));
    }
    let first = base_path.split('/').nth(1).unwrap_or_default();
    if begins_a_route(first) {
        complaints.push(format!("--base-path {base_path}: /{first} is answered already, and would not be reached any more"));
    }
    let compress_replies = settings.compress_replies.filter(|&least| least > 0);
    if compress_replies.is_some_and(|least| least < LEAST) {
        complaints.push(format!("--compress-replies must be 0 or at least {LEAST}"));
    }
    let cloud_events = settings.cloud_events.resolve().unwrap_or_else(|complaint| {
        complaints.push(complaint);
        CloudEvents::default()
    });
    HttpOptions {
        base_path: base_path.to_owned(),
        compress_replies,
        cloud_events,
        serve_metrics: settings.serve_metrics.unwrap_or_default(),
        on_loopback: Addresses::of(settings).http.ip().to_canonical().is_loopback(),
    }
}

fn source(settings: &Settings) -> Result<Source, String> {
    match (&settings.model_repository, &settings.registry) {
        (Some(root), None) if root.is_dir() => {
            Ok(Source::Repository { root: root.clone(), control: control(settings)? })
        }
        (Some(root), None) => {
            Err(format!("--model-repository {}: there is no such folder", root.display()))
        }
        (None, Some(_)) if settings.model_control == Some(ModelControlMode::Explicit) => {
            Err("--model-control explicit: models of a registry come and go as it says".to_owned())
        }
        (None, Some(url)) => Client::new(url)
            .map(Source::Registry)
            .map_err(|error| format!("--registry {url}: {error}")),
        (Some(_), Some(_)) => {
            Err("model_repository and registry are both set; models come from one".to_owned())
        }
        (None, None) => Err("no models: name --model-repository DIR or --registry URL".to_owned()),
    }
}

fn control(settings: &Settings) -> Result<ModelControl, String> {
    let poll = settings.repository_poll.unwrap_or(Duration::from_secs(5));
    let control = match settings.model_control.unwrap_or_default() {
        ModelControlMode::Explicit => {
            let all = settings.load_model.iter().any(|name| name == "*");
            if all {
                return Ok(ModelControl::Explicit { models: None });
            }
            let named = settings.load_model.iter().map(|name| name.parse::<ModelName>());
            let named = named.collect::<Result<_, _>>();
            let models = Some(named.map_err(|error| format!("--load-model: {error}"))?);
            return Ok(ModelControl::Explicit { models });
        }
        ModelControlMode::Poll if !poll.is_zero() => ModelControl::Poll(poll),
        ModelControlMode::Poll | ModelControlMode::None => ModelControl::Never,
    };
    if settings.load_model.is_empty() {
        return Ok(control);
    }
    Err("--load-model goes with --model-control explicit; the others load every model".to_owned())
}
