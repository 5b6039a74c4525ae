//! The serving cores: each has its own thread, runtime and listeners, and shares nothing with
//! the others but the catalog snapshot that a request takes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use crate::error::StartError;
use crate::executor::Core;
use crate::shared::Shared;

/// Pending connections that the kernel keeps for a core.
const BACKLOG: i32 = 1024;
/// Connections that one core holds at most.
const MOST_CONNECTIONS: usize = 20_000;
/// How long clients are asked to leave before the ports close.
const QUIET: Duration = Duration::from_millis(500);
/// How long a request that is on its way may take to be read, once the ports are closed.
const LAST_READ: Duration = Duration::from_millis(50);
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may
/// take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// One core's listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) http: std::net::TcpListener,
    pub(crate) grpc: std::net::TcpListener,
}

/// Opens one socket a core for `address`, so that the kernel spreads connections over them.
/// All get the port that the first one got, when the address leaves it open.
pub(crate) fn listen(
    what: &'static str,
    address: SocketAddr,
    cores: usize,
) -> Result<Vec<std::net::TcpListener>, StartError> {
    let failed = |source| StartError::Listen { what, address, source };
    if address.port() != 0 {
        // Sockets that share a port would silently share it with another gateway as well; one
        // that does not share finds out.
        drop(std::net::TcpListener::bind(address).map_err(failed)?);
    }
    let mut sockets = Vec::with_capacity(cores);
    let mut bound = address;
    for _ in 0..cores {
        let socket = open(bound).map_err(failed)?;
        bound = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs core `index` on this thread until `stop` says so and its connections have ended, or
/// `drain` has passed.
pub(crate) fn run_core(
    index: usize,
    shared: Arc<Shared>,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
    drain: Duration,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let _core = Core::start(index);
        let http = TcpListener::from_std(listeners.http)?;
        let grpc = TcpListener::from_std(listeners.grpc)?;
        let connections = Connections { shared, graceful: GracefulShutdown::new() };
        accept(&http, &grpc, &connections, stop).await;
        wind_down(http, grpc, connections, drain).await;
        Ok(())
    })
}

async fn accept(
    http: &TcpListener,
    grpc: &TcpListener,
    connections: &Connections,
    mut stop: watch::Receiver<bool>,
) {
    let mut stopped = pin!(stop.wait_for(|&stop| stop));
    loop {
        // A core with all the connections that it takes leaves the others to the kernel's queue.
        let room = connections.graceful.count() < MOST_CONNECTIONS;
        tokio::select! {
            _ = &mut stopped => return,
            accepted = http.accept(), if room => match accepted {
                Ok((stream, _)) => connections.serve_http(stream),
                Err(error) => pause_after(&error).await,
            },
            accepted = grpc.accept(), if room => match accepted {
                Ok((stream, _)) => connections.serve_grpc(stream),
                Err(error) => pause_after(&error).await,
            },
            () = tokio::time::sleep(Duration::from_millis(100)), if !room => {}
        }
    }
}

/// Ends a core's connections without losing a request. For a quiet time new connections are
/// still taken, and every HTTP answer asks its client to leave; then the queue of connections
/// is emptied, the ports are closed, and what is still open is told to finish.
async fn wind_down(
    http: TcpListener,
    grpc: TcpListener,
    connections: Connections,
    drain: Duration,
) {
    let quiet = tokio::time::sleep(QUIET.min(drain / 2));
    let mut quiet = pin!(quiet);
    loop {
        tokio::select! {
            () = &mut quiet => break,
            Ok((stream, _)) = http.accept() => connections.serve_http(stream),
            Ok((stream, _)) = grpc.accept() => connections.serve_grpc(stream),
        }
    }
    while let Some(Ok((stream, _))) = http.accept().now_or_never() {
        connections.serve_http(stream);
    }
    while let Some(Ok((stream, _))) = grpc.accept().now_or_never() {
        connections.serve_grpc(stream);
    }
    drop((http, grpc));
    // What the last ones have sent already is read before they are told to finish.
    tokio::time::sleep(LAST_READ).await;
    let _forced = tokio::time::timeout(drain, connections.graceful.shutdown()).await;
}

/// Out of file descriptors, usually: trying again at once would only burn the core.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

struct Connections {
    shared: Arc<Shared>,
    graceful: GracefulShutdown,
}

impl Connections {
    fn serve_http(&self, stream: TcpStream) {
        let _slower_without = stream.set_nodelay(true);
        let shared = self.shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move {
                let mut response = crate::http::handle(shared.clone(), request).await;
                if shared.is_draining() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let watched = self.graceful.watch(connection);
        spawn_local(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "HTTP connection broke off");
            }
        });
    }

    fn serve_grpc(&self, stream: TcpStream) {
        let _slower_without = stream.set_nodelay(true);
        let service = crate::grpc::service(self.shared.clone());
        let connection = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let watched = self.graceful.watch(connection);
        spawn_local(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "gRPC connection broke off");
            }
        });
    }
}

/// Runs a connection's streams on the core that accepted it.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
