//! Settings as run: resolved, checked and grouped by who uses them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sluice_registry::Client;

use crate::error::StartError;
use crate::settings::Settings;
use crate::shared::{Options, RequestLimits};

/// Everything that a gateway runs by.
#[derive(Debug)]
pub struct Config {
    pub(crate) source: Source,
    pub(crate) features: Option<PathBuf>,
    pub(crate) addresses: Addresses,
    pub(crate) onnxruntime: Option<PathBuf>,
    pub(crate) options: Options,
    pub(crate) drain_timeout: Duration,
}

/// Where models come from.
#[derive(Debug)]
pub(crate) enum Source {
    Repository { root: PathBuf, poll: Duration },
    Registry(Client),
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
        let mut complaints = Vec::new();
        let source = source(&settings).map_err(|complaint| complaints.push(complaint)).ok();
        if let Some(path) = settings.features.as_ref().filter(|path| !path.exists()) {
            complaints.push(format!("--features {}: there is no such file", path.display()));
        }
        if settings.cores == Some(0) {
            complaints.push("--cores must be at least 1".to_owned());
        }
        let defaults = RequestLimits::default();
        let limits = RequestLimits {
            max_body: settings.max_body.unwrap_or(defaults.max_body),
            request_timeout: settings.request_timeout.unwrap_or(defaults.request_timeout),
            max_waiting: settings.max_waiting.unwrap_or(defaults.max_waiting),
        };
        if limits.request_timeout.is_zero() {
            complaints.push("--request-timeout must be longer than 0".to_owned());
        }
        let (Some(source), true) = (source, complaints.is_empty()) else {
            return Err(StartError::Settings(complaints));
        };
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let addresses = Addresses {
            http: settings.http.unwrap_or(everywhere(8080)),
            grpc: settings.grpc.unwrap_or(everywhere(8081)),
            admin: settings.admin.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8082))),
            metrics: settings.metrics,
        };
        // available_parallelism minds a container's quota.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            source,
            features: settings.features,
            addresses,
            onnxruntime: settings.onnxruntime,
            options: Options {
                cores: settings.cores.unwrap_or(cores),
                limits,
                dialect: settings.dialect.resolve(),
                response_cache: settings.response_cache.unwrap_or(0),
                state: settings.state,
            },
            drain_timeout: settings.drain_timeout.unwrap_or(Duration::from_secs(20)),
        })
    }
}

fn source(settings: &Settings) -> Result<Source, String> {
    match (&settings.model_repository, &settings.registry) {
        (Some(root), None) if root.is_dir() => {
            let poll = settings.repository_poll.unwrap_or(Duration::from_secs(5));
            Ok(Source::Repository { root: root.clone(), poll })
        }
        (Some(root), None) => {
            Err(format!("--model-repository {}: there is no such folder", root.display()))
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
