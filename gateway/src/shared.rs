//! What every core, listener and source of models shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_engine::OnnxRuntime;
use sluice_features::{Definitions, EmbeddedStore};

use crate::cache::ResponseCache;
use crate::catalog::Published;
use crate::dialect::Dialect;
use crate::metrics::Metrics;

/// The state of one gateway. Nothing in it is locked on the request path.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) catalog: Published,
    pub(crate) metrics: Metrics,
    pub(crate) runtime: OnnxRuntime,
    /// How many serving cores there are.
    pub(crate) cores: usize,
    pub(crate) definitions: Option<Definitions>,
    pub(crate) store: Option<Arc<EmbeddedStore>>,
    pub(crate) limits: RequestLimits,
    pub(crate) dialect: Dialect,
    /// Answers of models whose deployment says so.
    pub(crate) cache: Option<ResponseCache>,
    pub(crate) state: Option<PathBuf>,
    started: AtomicBool,
    draining: AtomicBool,
}

/// How a gateway is to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Serving cores.
    pub(crate) cores: usize,
    pub(crate) limits: RequestLimits,
    pub(crate) dialect: Dialect,
    /// Bytes of answers to keep; 0 keeps none.
    pub(crate) response_cache: usize,
    /// The folder for what a restart needs.
    pub(crate) state: Option<PathBuf>,
}

/// Bounds of a single request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestLimits {
    /// The largest body or message in bytes.
    pub(crate) max_body: usize,
    /// How long an answer may take.
    pub(crate) request_timeout: Duration,
    /// Past this much predicted work waiting, requests are refused.
    pub(crate) max_waiting: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            request_timeout: Duration::from_secs(30),
            max_waiting: Duration::from_secs(1),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        runtime: OnnxRuntime,
        definitions: Option<Definitions>,
        store: Option<Arc<EmbeddedStore>>,
        options: Options,
    ) -> Self {
        let Options { cores, limits, dialect, response_cache, state } = options;
        Self {
            catalog: Published::default(),
            metrics: Metrics::new(),
            runtime,
            cores,
            definitions,
            store,
            limits,
            dialect,
            cache: ResponseCache::new(response_cache),
            state,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// The models that were there at the start are loaded.
    pub(crate) fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the models that were there at the start are loaded or refused.
    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// No new work is wanted.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the end has been announced.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether to send requests here: started, not draining, and every model can answer.
    pub(crate) fn is_ready(&self) -> bool {
        self.started.load(Ordering::Acquire)
            && !self.is_draining()
            && self.catalog.snapshot().is_complete()
    }

    /// Hands on what was counted and frees what has ended. Called every second, so that neither
    /// waits for somebody to scrape.
    pub(crate) fn keep_house(&self) {
        let catalog = self.catalog.snapshot();
        catalog.deployments().for_each(|deployment| deployment.counters.export());
        self.metrics.run_upkeep();
        self.catalog.free_retired();
    }

    /// The metrics' exposition text, with everything counted up to now.
    pub(crate) fn render_metrics(&self) -> String {
        self.keep_house();
        self.metrics.set_ready(self.is_ready());
        self.metrics.render()
    }
}
