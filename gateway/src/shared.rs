//! What every core, listener and source of models shares.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use sluice_engine::OnnxRuntime;
use sluice_features::{Definitions, EmbeddedStore};
use tokio::sync::watch;

use crate::cache::ResponseCache;
use crate::catalog::Published;
use crate::control::exposure::Exposure;
use crate::control::repository::Loader;
use crate::control::shared_memory::Regions;
use crate::dialect::Dialect;
use crate::grpc::Transport;
use crate::http::HttpOptions;
use crate::live::{Live, MaxWaiting};
use crate::metrics::{Exposition, MetricNames, Metrics};
use crate::tenant::UnderWay;
use crate::trace::{TraceOptions, Tracer};
use crate::watchdog::Watchdog;

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
    /// Answers of models whose deployment says so.
    pub(crate) cache: Option<ResponseCache>,
    pub(crate) http: HttpOptions,
    pub(crate) regions: Regions,
    pub(crate) tracer: Tracer,
    pub(crate) transport: Transport,
    /// Who loads models from a folder; nobody where they come from a registry.
    pub(crate) loader: OnceLock<Loader>,
    pub(crate) state: Option<PathBuf>,
    /// The bound on predicted waiting, for every deployment.
    pub(crate) max_waiting: MaxWaiting,
    /// Ends runs that take too long.
    pub(crate) watchdog: Watchdog,
    /// The requests of tenants that are bounded.
    pub(crate) under_way: UnderWay,
    live: ArcSwap<Live>,
    started: AtomicBool,
    /// When the end was announced.
    draining: OnceLock<Instant>,
    /// Tells what only waits that the end has been announced.
    drain: watch::Sender<bool>,
}

/// How a gateway is to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Serving cores.
    pub(crate) cores: usize,
    /// Bytes of answers to keep; 0 keeps none.
    pub(crate) response_cache: usize,
    /// By whose names models' metrics are told; ours when none is named.
    pub(crate) metric_names: Vec<MetricNames>,
    pub(crate) transport: Transport,
    pub(crate) http: HttpOptions,
    /// Whether clients may register shared memory.
    pub(crate) shared_memory: bool,
    /// Which requests are traced from the start, and where that goes.
    pub(crate) trace: TraceOptions,
    /// What can change meanwhile.
    pub(crate) live: Live,
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
        let Options {
            cores,
            response_cache,
            metric_names,
            transport,
            http,
            shared_memory,
            trace,
            live,
            state,
        } = options;
        let metrics = Metrics::new(&metric_names);
        Self {
            catalog: Published::default(),
            tracer: Tracer::new(&trace, &metrics),
            metrics,
            runtime,
            cores,
            definitions,
            store,
            cache: ResponseCache::new(response_cache),
            http,
            regions: Regions::new(shared_memory),
            transport,
            loader: OnceLock::new(),
            state,
            max_waiting: MaxWaiting::new(live.limits.max_waiting),
            watchdog: Watchdog::default(),
            under_way: UnderWay::default(),
            live: ArcSwap::from_pointee(live),
            started: AtomicBool::new(false),
            draining: OnceLock::new(),
            drain: watch::Sender::new(false),
        }
    }

    /// The settings of this moment that can change. Costs a few nanoseconds; not to be kept over
    /// an await.
    pub(crate) fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// The bounds of a request that begins now.
    pub(crate) fn limits(&self) -> RequestLimits {
        self.live().limits
    }

    /// How a request that begins now is answered where protocols differ.
    pub(crate) fn dialect(&self) -> Dialect {
        self.live().dialect
    }

    /// The groups that the serving ports answer at this moment.
    pub(crate) fn exposed(&self) -> Exposure {
        self.live().exposed
    }

    /// Exchanges the settings that can change: requests and connections that begin from now on are
    /// treated by them.
    pub(crate) fn put_in_force(&self, live: Live) {
        self.max_waiting.set(live.limits.max_waiting);
        self.live.store(Arc::new(live));
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
        self.draining.get_or_init(Instant::now);
        self.drain.send_replace(true);
    }

    /// Waits until no new work is wanted.
    pub(crate) fn drain_begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut drain = self.drain.subscribe();
        async move {
            // It fails when there is no gateway any more.
            let _over = drain.wait_for(|&draining| draining).await;
        }
    }

    /// Whether the end has been announced.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// When that was; now, where it was not yet.
    pub(crate) fn draining_since(&self) -> Instant {
        self.draining.get().copied().unwrap_or_else(Instant::now)
    }

    /// Whether models are loaded and unloaded by calls.
    pub(crate) fn takes_loads(&self) -> bool {
        self.loader.get().is_some_and(Loader::takes_loads)
    }

    /// Whether to send requests here: started, not draining, and every model can answer. Without
    /// any model that is so only where calls decide what is loaded: one must find the way here.
    pub(crate) fn is_ready(&self) -> bool {
        let catalog = self.catalog.snapshot();
        self.started.load(Ordering::Acquire)
            && !self.is_draining()
            && catalog.is_complete()
            && (catalog.serves() || self.takes_loads())
    }

    /// Hands on what was counted and frees what has ended. Called every second, so that neither
    /// waits for somebody to scrape.
    pub(crate) fn keep_house(&self) {
        let catalog = self.catalog.snapshot();
        catalog.deployments().for_each(|deployment| deployment.counters.export());
        self.metrics.run_upkeep();
        self.catalog.free_retired();
    }

    /// The metrics, with everything counted up to now.
    pub(crate) fn render_metrics(&self, exposition: Exposition) -> String {
        self.keep_house();
        self.metrics.set_ready(self.is_ready());
        exposition.of(self.metrics.render())
    }
}
