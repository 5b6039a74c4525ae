//! The serving cores: each has its own thread, runtime and listeners, and shares nothing with
//! the others but the catalog snapshot that a request takes.

mod accepting;
mod framing;
mod guarded;
mod open;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::rt::Timer;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::error::StartError;
use crate::executor::Core;
use crate::grpc::{Answer, FloodGuard, Untaken, while_taken};
use crate::http::Body;
use crate::shared::Shared;
use crate::tls::{Handshakes, Port, Stream};
pub(crate) use accepting::pause_after;
use accepting::{accept, accept_last};
pub(crate) use guarded::Guarded;
use open::{Counted, Open, Place};

/// Pending connections that the kernel keeps for a core.
const BACKLOG: i32 = 1024;
/// How often a core's runtime wakes up if nothing else wakes it. Where no timer is nearer than the
/// time that a request may take, each request's own would wake the runtime by a write to the kernel.
const PULSE: Duration = Duration::from_secs(1);
/// How long clients are asked to leave before the ports close.
const QUIET: Duration = Duration::from_millis(500);
/// How long a request that is on its way may take to be read, once the ports are closed; and how
/// long the first one of a client that has just connected may.
const LAST_READ: Duration = Duration::from_millis(50);
const LAST_FIRST_READ: Duration = Duration::from_secs(1);
/// How long descriptors may take to come free for those that have connected by then.
const LAST_ACCEPTED: Duration = Duration::from_secs(1);
/// A gRPC call's headers and metadata, in bytes as HTTP/2 counts them.
const MOST_HEADERS: u32 = 16 * 1024;
/// Calls that a client may have broken off before they are looked at. One that breaks off more is
/// told to calm down and cut off.
const MOST_RESETS: usize = 200;
/// What of one call's answer may wait in HTTP/2 for its connection, in bytes.
const MOST_SENT_AHEAD: usize = 128 << 10;
/// How long an HTTP connection may idle. It is longer than pools and balancers keep idle connections
/// (60 s with many, 600 s at the most), since one that is cut just when a request is sent loses it.
/// Where there are as many connections as there may be, idle ones leave sooner. The first
/// head, and one that has begun, must come in the time that an answer may take.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(620);
/// The largest head of an HTTP request, and the largest trailers, in bytes.
pub(crate) const MAX_HEAD: usize = 64 << 10;

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

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs core `index`, which holds `most_connections`, on this thread until `stop` says so and its
/// connections have ended, or `drain` has passed since. Only a run that is on this thread then can
/// make that longer.
pub(crate) fn run_core(
    index: usize,
    shared: Arc<Shared>,
    listeners: Listeners,
    most_connections: usize,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) -> io::Result<()> {
    // Its tasks are the runtime's own: those of a LocalSet would wake it by a write to the kernel
    // for each tick.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let _core = Core::start(index);
        spawn_local(pulse());
        let http = TcpListener::from_std(listeners.http)?;
        let grpc = TcpListener::from_std(listeners.grpc)?;
        let mut connections = Connections::new(shared.clone(), most_connections);
        accept(&http, &grpc, &mut connections, stop.wait_for(|&stop| stop)).await;
        // A core that was in a run hears of it late.
        wind_down(http, grpc, connections, Instant::from_std(shared.draining_since()) + drain).await
    })
}

/// Keeps a timer running that is nearer than those of requests.
async fn pulse() {
    loop {
        tokio::time::sleep(PULSE).await;
    }
}

/// Ends a core's connections without losing a request. For a quiet time new connections are
/// still taken, and every HTTP answer asks its client to leave; then nothing more is let into the
/// queues of connections, they are emptied, the ports are closed, and what is still open is told to
/// finish by `deadline`.
async fn wind_down(
    http: TcpListener,
    grpc: TcpListener,
    mut connections: Connections,
    deadline: Instant,
) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let quiet = tokio::time::sleep(QUIET.min(left / 2));
    accept(&http, &grpc, &mut connections, quiet).await;
    let late = Instant::now() + LAST_ACCEPTED.min(left / 4);
    accept_last(http, late, &mut connections, Connections::serve_http).await?;
    accept_last(grpc, late, &mut connections, Connections::serve_grpc).await?;
    // What the last ones have sent already, or are about to send, is read before they are told to
    // finish.
    tokio::time::sleep(LAST_READ.min(left / 4)).await;
    let first_read = Instant::now() + LAST_FIRST_READ.min(left / 4);
    while connections.open.has_fresh() && Instant::now() < first_read {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Connections { open, handshakes, .. } = connections;
    drop(handshakes);
    let _forced = tokio::time::timeout_at(deadline, open.end()).await;
    Ok(())
}

struct Connections {
    shared: Arc<Shared>,
    /// Counts connections from the moment that they are accepted.
    open: Open,
    handshakes: Handshakes,
}

impl Connections {
    fn new(shared: Arc<Shared>, most: usize) -> Self {
        Self { shared, open: Open::new(most), handshakes: Handshakes::default() }
    }

    /// Lets a descriptor come free after `error`, of which the lack of one is the usual cause.
    async fn make_room(&mut self, error: &io::Error) {
        self.open.ask_an_idle_one_to_leave();
        pause_after(error).await;
    }

    fn serve_http(&mut self, stream: TcpStream) {
        let shared = self.shared.clone();
        self.secure(stream, Port::Http, async move |stream, place: Rc<Place>| {
            let connection = http_connection(stream, shared, place.clone(), TokioTimer::new());
            let ended = place.keep(connection, http1::Connection::graceful_shutdown).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%error, "HTTP connection broke off");
            }
        });
    }

    fn serve_grpc(&mut self, stream: TcpStream) {
        let shared = self.shared.clone();
        self.secure(stream, Port::Grpc, async move |stream, place: Rc<Place>| {
            let connection = grpc_connection(stream, shared, place.clone());
            let ended = place.keep(connection, http2::Connection::graceful_shutdown).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%error, "gRPC connection broke off");
            }
        });
    }

    /// Serves a connection once its handshake is done, if the port speaks TLS. Nobody waits for
    /// that: others are accepted meanwhile. Where there is no place for it, it is closed.
    fn secure(
        &mut self,
        stream: TcpStream,
        port: Port,
        serve: impl AsyncFnOnce(Stream, Rc<Place>) + 'static,
    ) {
        let shared = self.shared.clone();
        let Some(place) = self.open.admit(port) else {
            shared.metrics.count_refused_connection();
            return;
        };
        let arrival = self.handshakes.admit(stream, &shared, port);
        spawn_local(async move {
            let stream = tokio::select! {
                stream = arrival.secure(&shared) => stream,
                _ = place.left() => None,
            };
            if let Some(stream) = stream {
                serve(stream, place).await;
            }
        });
    }
}

/// What a gRPC call is answered.
type CallAnswer = Response<Counted<Answer>>;

fn grpc_connection<I>(
    stream: I,
    shared: Arc<Shared>,
    place: Rc<Place>,
) -> http2::Connection<
    TokioIo<FloodGuard<I>>,
    impl Service<Request<Incoming>, Response = CallAnswer, Error = Infallible>,
    LocalExecutor,
>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let transport = shared.transport;
    let limits = shared.limits();
    let executor = LocalExecutor { patience: limits.request_timeout };
    let untaken = Untaken::new(limits.max_body);
    let stream = FloodGuard::new(stream, limits.request_timeout);
    let service = service_fn(move |request| {
        let (shared, untaken, running) = (shared.clone(), untaken.clone(), place.begin());
        async move {
            let answer = crate::grpc::answer(shared, request, untaken).await;
            Ok(answer.map(|body| Counted::new(body, running)))
        }
    });
    http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .keep_alive_interval(transport.keepalive_time)
        .keep_alive_timeout(transport.keepalive_timeout)
        .max_concurrent_streams(transport.max_streams)
        .max_header_list_size(MOST_HEADERS)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_send_buf_size(MOST_SENT_AHEAD)
        .serve_connection(TokioIo::new(stream), service)
}

fn http_connection<I>(
    stream: I,
    shared: Arc<Shared>,
    place: Rc<Place>,
    timer: impl Timer + Send + Sync + 'static,
) -> http1::Connection<
    TokioIo<Guarded<I>>,
    impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let stream = Guarded::new(stream, shared.limits().request_timeout);
    let service = service_fn(move |request| {
        let (shared, running) = (shared.clone(), place.begin());
        async move {
            let _running = running;
            let mut response = crate::http::handle(shared.clone(), request).await;
            if shared.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    });
    // The protocol spells Inference-Header-Content-Length so.
    http1::Builder::new()
        .timer(timer)
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
}

/// Runs a connection's streams on the core that accepted it, each for as long as its client takes
/// what it is sent.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor {
    patience: Duration,
}

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(while_taken(future, self.patience));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use hyper::rt::{Sleep, Timer};
    use hyper_util::rt::TokioTimer;
    use sluice_engine::OnnxRuntime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::LocalSet;
    use tokio::time::{sleep, timeout};

    use super::http_connection;
    use super::open::Open;
    use crate::shared::{Options, Shared};
    use crate::tls::Port;

    /// A clock that goes so many times faster.
    const FASTER: u32 = 200;

    struct Fast;

    impl Timer for Fast {
        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
            TokioTimer::new().sleep(duration / FASTER)
        }

        fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
            self.sleep(deadline.saturating_duration_since(Instant::now()))
        }
    }

    fn shared() -> Arc<Shared> {
        let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
        let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
        let options = Options { cores: 1, ..Options::default() };
        Arc::new(Shared::new(runtime, None, None, options))
    }

    async fn ask(client: &mut DuplexStream) -> String {
        client.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 1000];
        let read = client.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    /// A connection's client, while `local` serves it by the fast clock.
    fn connect(local: &LocalSet) -> DuplexStream {
        let (client, server) = duplex(4096);
        let place = Open::new(1).admit(Port::Http).unwrap();
        local.spawn_local(http_connection(server, shared(), place, Fast));
        client
    }

    /// Waits until the server closes the connection: how long that takes by the fast clock.
    async fn time_to_close(mut client: DuplexStream) -> Duration {
        let begun = Instant::now();
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
        end.expect("the connection is never closed").unwrap();
        begun.elapsed() * FASTER
    }

    #[tokio::test]
    async fn a_connection_may_idle_for_minutes_but_not_forever() {
        let local = LocalSet::new();
        let mut client = connect(&local);
        let asking = async {
            assert!(ask(&mut client).await.contains("200 OK"));
            sleep(Duration::from_secs(240) / FASTER).await;
            assert!(ask(&mut client).await.contains("200 OK"), "after four minutes");
            let idle = time_to_close(client).await;
            assert!(idle >= Duration::from_secs(500), "closed after {idle:?}");
        };
        local.run_until(asking).await;
    }

    #[tokio::test]
    async fn half_a_head_is_given_up() {
        let local = LocalSet::new();
        let mut client = connect(&local);
        let asking = async {
            client.write_all(b"GET /v2/health/live HTTP/1.1\r\n").await.unwrap();
            time_to_close(client).await;
        };
        local.run_until(asking).await;
    }
}
