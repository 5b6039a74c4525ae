//! A running gateway: started from a [`Config`], drained at the end.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_engine::OnnxRuntime;
use sluice_features::{Definitions, EmbeddedStore};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::access;
use crate::admin;
use crate::config::{Addresses, Config, ModelControl, Source};
use crate::control::repository::{Action, Command, Loader};
use crate::descriptors;
use crate::error::StartError;
use crate::reload::{self, Reloader};
use crate::server::{Listeners, listen, run_core};
use crate::shared::Shared;
use crate::source::{Follower, Repository};
use crate::tls::Port;

/// The online store's file in the state folder.
const STORE_FILE: &str = "online.redb";
/// How long after the drain timeout a serving core may take to cut its connections, and a run to
/// hear that it is to end. What takes longer is in a node of a graph, which nothing breaks off.
const CUT: Duration = Duration::from_millis(100);
/// How long before its end the callers of a run are told that it is ended.
const TOLD_IN: Duration = Duration::from_millis(200);
/// How often a thread that may not end is looked at. Joining it would hold up a runtime that ends
/// for as long as the thread takes.
const LOOK: Duration = Duration::from_millis(5);

/// How long the thread that loads waits at most before it looks whether it is to stop.
const STEP: Duration = Duration::from_millis(50);

/// Cores that serve, a source of models, and the administration, all of one process.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    cores: Vec<JoinHandle<std::io::Result<()>>>,
    loader: Option<JoinHandle<()>>,
    control: JoinSet<()>,
    drain_timeout: Duration,
    reloader: Arc<Reloader>,
    /// Says when no request is left that could be traced.
    cores_ended: watch::Sender<bool>,
}

impl Gateway {
    /// Loads the library, opens stores and ports and begins to serve. Models are loaded
    /// meanwhile: [`Gateway::ready`] waits for them. Must run inside a tokio runtime, which
    /// carries the administration and the registry's feed.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let shared = Arc::new(open(&config)?);
        let (stop, stopped) = watch::channel(false);
        let (addresses, listeners) = open_ports(&config)?;
        let mut gateway = Self {
            shared: shared.clone(),
            addresses,
            stop,
            cores: Vec::new(),
            loader: None,
            control: JoinSet::new(),
            drain_timeout: config.drain_timeout,
            reloader: Arc::new(Reloader::new(shared.clone(), config.written)),
            cores_ended: watch::Sender::new(false),
        };
        if let Some(exporter) = shared.tracer.take_exporter() {
            gateway.control.spawn(exporter.start(gateway.cores_ended.subscribe())?);
        }
        gateway.start_admin().await?;
        gateway.control.spawn(gateway.reloader.clone().run(stopped.clone()));
        gateway.control.spawn(keep_house(shared.clone(), stopped.clone()));
        let files = descriptors::raise();
        let most = descriptors::connections(listeners.len(), config.max_connections, files);
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (shared, stopped) = (shared.clone(), stopped.clone());
            let run =
                move || run_core(index, shared, listeners, most, stopped, config.drain_timeout);
            gateway.cores.push(thread(format!("core-{index}"), run)?);
        }
        gateway.start_source(config.source, stopped)?;
        let Addresses { http, grpc, admin, .. } = gateway.addresses;
        tracing::info!(%http, %grpc, %admin, cores = gateway.cores.len(), "serving");
        Ok(gateway)
    }

    /// Reads the settings again and puts in force what can change; what comes of it is logged.
    /// Does not wait for that.
    pub fn reload(&self) {
        self.reloader.ask();
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until the models that were there at the start are loaded (or refused).
    pub async fn ready(&self) {
        while !self.shared.is_started() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes no new connections, lets running requests finish within the drain timeout, and
    /// ends. What then still runs is left behind: a run that takes longer, a call to the
    /// administration that does not end, or a model that is being loaded.
    pub async fn drain(mut self) {
        tracing::info!("draining");
        let deadline = Instant::now() + self.drain_timeout;
        self.shared.set_draining();
        self.stop.send_replace(true);
        self.end_cores(deadline - TOLD_IN.min(self.drain_timeout / 4), deadline).await;
        self.cores_ended.send_replace(true);
        let ended = timeout_at(deadline, async {
            while self.control.join_next().await.is_some() {}
            while self.loader.as_ref().is_some_and(|loader| !loader.is_finished()) {
                sleep(LOOK).await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!("drain timeout has passed; leaving what still runs");
        }
        self.control.shutdown().await;
        tracing::info!("drained");
    }

    /// Waits until the serving cores have ended. After `patience` runs are ended, so that their
    /// callers hear of it before `deadline`; a core whose run cannot be ended is left.
    async fn end_cores(&mut self, patience: Instant, deadline: Instant) {
        let ended_by = async |core: &JoinHandle<_>, deadline| {
            let ended = timeout_at(deadline, async {
                while !core.is_finished() {
                    sleep(LOOK).await;
                }
            });
            ended.await.is_ok()
        };
        for core in std::mem::take(&mut self.cores) {
            if !ended_by(&core, patience).await {
                self.shared.watchdog.end_runs();
            }
            if !ended_by(&core, deadline + CUT).await {
                tracing::warn!("drain timeout has passed; leaving a serving core in its run");
                continue;
            }
            match core.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a serving core failed"),
                Err(_) => tracing::error!("a serving core panicked"),
            }
        }
    }

    async fn start_admin(&mut self) -> Result<(), StartError> {
        let (listener, address) = bind("administration", self.addresses.admin).await?;
        self.addresses.admin = address;
        self.reloader.administer(address);
        let routes = admin::router(self.shared.clone());
        let routes = routes.merge(reload::routes(self.reloader.clone()));
        let routes = routes.method_not_allowed_fallback(admin::not_allowed);
        let on_loopback = address.ip().to_canonical().is_loopback();
        let router = access::guarded(routes, self.shared.clone(), on_loopback);
        let (shared, stop) = (self.shared.clone(), self.stop.subscribe());
        self.control.spawn(admin::serve(listener, router, shared, Port::Admin, stop));
        if let Some(metrics) = self.addresses.metrics {
            let (listener, address) = bind("metrics", metrics).await?;
            self.addresses.metrics = Some(address);
            let router = admin::metrics_router(self.shared.clone());
            let (shared, stop) = (self.shared.clone(), self.stop.subscribe());
            self.control.spawn(admin::serve(listener, router, shared, Port::Metrics, stop));
        }
        Ok(())
    }

    fn start_source(
        &mut self,
        source: Source,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), StartError> {
        let shared = self.shared.clone();
        match source {
            Source::Repository { root, control } => {
                let (loader, commands) = match control {
                    ModelControl::Explicit { .. } => {
                        let (loader, commands) =
                            Loader::taking_loads(root.clone(), stopped.clone());
                        (loader, Some(commands))
                    }
                    ModelControl::Poll(_) | ModelControl::Never => {
                        (Loader::of_folder(root.clone(), stopped.clone()), None)
                    }
                };
                let _only_source = shared.loader.set(loader);
                let repository = Repository::new(root);
                let run = move || run_loader(&shared, repository, &control, commands);
                self.loader = Some(thread("loader".to_owned(), run)?);
            }
            Source::Registry(client) => {
                let follower = Follower::new(shared, client).map_err(|source| {
                    StartError::System { what: "open state folder".to_owned(), source }
                })?;
                self.control.spawn(follower.run(stopped));
            }
        }
        Ok(())
    }
}

/// Keeps house every second until the stop.
async fn keep_house(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = stopped.wait_for(|&stop| stop) => return,
            _ = every_second.tick() => shared.keep_house(),
        }
    }
}

/// Loads what is to be loaded at the start, and then what the folder or calls ask for.
fn run_loader(
    shared: &Shared,
    mut repository: Repository,
    control: &ModelControl,
    commands: Option<Receiver<Command>>,
) {
    let is_stopped = || shared.is_draining();
    let models = match control {
        ModelControl::Explicit { models } => models.as_ref(),
        ModelControl::Poll(_) | ModelControl::Never => None,
    };
    repository.sync(shared, models, is_stopped);
    shared.set_started();
    match (control, commands) {
        (ModelControl::Poll(poll), _) => {
            poll_repository(shared, &mut repository, *poll, is_stopped)
        }
        (_, Some(commands)) => obey(shared, &mut repository, &commands, is_stopped),
        (_, None) => {}
    }
}

/// Looks through the repository every `poll`.
fn poll_repository(
    shared: &Shared,
    repository: &mut Repository,
    poll: Duration,
    is_stopped: impl Fn() -> bool,
) {
    let mut waited = Duration::ZERO;
    while !is_stopped() {
        std::thread::sleep(STEP);
        waited += STEP;
        if waited >= poll {
            repository.sync(shared, None, &is_stopped);
            waited = Duration::ZERO;
        }
    }
}

/// Does what calls ask for, one after the other. What is not done at the stop is dropped, which
/// its caller is told of.
fn obey(
    shared: &Shared,
    repository: &mut Repository,
    commands: &Receiver<Command>,
    is_stopped: impl Fn() -> bool,
) {
    while !is_stopped() {
        let Ok(command) = commands.recv_timeout(STEP) else { continue };
        // The bytes count until it is done.
        let Command { model, action, held: _held, done } = command;
        let result = match action {
            Action::Load(given) => repository.load(shared, &model, given, &is_stopped),
            Action::Unload => repository.unload(shared, &model),
        };
        let _caller_may_have_left = done.send(result);
    }
}

fn open(config: &Config) -> Result<Shared, StartError> {
    let runtime = OnnxRuntime::load(config.onnxruntime.as_deref())?;
    let definitions = config.features.as_deref().map(Definitions::load).transpose()?;
    if let Some(state) = &config.options.state {
        std::fs::create_dir_all(state).map_err(|source| StartError::System {
            what: format!("create state folder {}", state.display()),
            source,
        })?;
    }
    let store = match (&definitions, &config.options.state) {
        (None, _) => None,
        (Some(_), Some(state)) => Some(Arc::new(EmbeddedStore::open(&state.join(STORE_FILE))?)),
        (Some(_), None) => {
            tracing::warn!("no --state: features are kept in memory only");
            Some(Arc::new(EmbeddedStore::in_memory()))
        }
    };
    Ok(Shared::new(runtime, definitions, store, config.options.clone()))
}

fn open_ports(config: &Config) -> Result<(Addresses, Vec<Listeners>), StartError> {
    let http = listen("HTTP", config.addresses.http, config.options.cores)?;
    let grpc = listen("gRPC", config.addresses.grpc, config.options.cores)?;
    let mut addresses = config.addresses;
    for (address, sockets) in [(&mut addresses.http, &http), (&mut addresses.grpc, &grpc)] {
        if let Some(bound) = sockets.first().and_then(|socket| socket.local_addr().ok()) {
            *address = bound;
        }
    }
    let pairs = http.into_iter().zip(grpc).map(|(http, grpc)| Listeners { http, grpc });
    Ok((addresses, pairs.collect()))
}

async fn bind(
    what: &'static str,
    address: std::net::SocketAddr,
) -> Result<(TcpListener, std::net::SocketAddr), StartError> {
    let failed = |source| StartError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn thread<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(run)
        .map_err(|source| StartError::System { what: format!("start thread {name}"), source })
}
