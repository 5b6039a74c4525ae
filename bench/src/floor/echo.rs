//! The echo servers: one thread, runtime and pair of listeners a core.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::echo_grpc;
use crate::error::BenchError;

/// Pending connections that the kernel keeps for a core.
const BACKLOG: i32 = 1024;

/// Where an [`Echo`] listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoAddresses {
    /// HTTP/1.1: any path, any method.
    pub http: SocketAddr,
    /// gRPC: any method with one message there and one back.
    pub grpc: SocketAddr,
}

/// Running echo servers. Dropping them closes the ports and every connection.
#[derive(Debug)]
pub struct Echo {
    addresses: EchoAddresses,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Echo {
    /// Opens both ports, 0 being any that is free, and serves them on `cores` threads.
    ///
    /// # Errors
    /// An address that cannot be listened at, or a thread that the system refuses.
    pub fn start(addresses: EchoAddresses, cores: usize) -> Result<Self, BenchError> {
        let (http, grpc) = (listen(addresses.http, cores)?, listen(addresses.grpc, cores)?);
        let bound = |sockets: &[TcpListener]| sockets[0].local_addr().map_err(BenchError::Start);
        let addresses = EchoAddresses { http: bound(&http)?, grpc: bound(&grpc)? };
        let (stop, _) = watch::channel(false);
        let mut threads = Vec::with_capacity(cores);
        for (index, (http, grpc)) in http.into_iter().zip(grpc).enumerate() {
            let stopped = stop.subscribe();
            let thread = std::thread::Builder::new().name(format!("echo-{index}"));
            let thread = thread.spawn(move || serve(http, grpc, stopped));
            threads.push(thread.map_err(BenchError::Start)?);
        }
        Ok(Self { addresses, stop, threads })
    }

    /// Where they listen.
    pub const fn addresses(&self) -> EchoAddresses {
        self.addresses
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// One socket a core for `address`; all get the port that the first one got.
fn listen(address: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, BenchError> {
    let failed = |source| BenchError::Listen { address, source };
    let mut bound = address;
    let mut sockets = Vec::with_capacity(cores);
    for _ in 0..cores.max(1) {
        let socket = open(bound).map_err(failed)?;
        bound = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves one core's listeners until the stop.
fn serve(http: TcpListener, grpc: TcpListener, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let http = tokio::net::TcpListener::from_std(http)?;
        let grpc = tokio::net::TcpListener::from_std(grpc)?;
        loop {
            // One that breaks off while it is accepted is its caller's affair.
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
                accepted = http.accept() => if let Ok((stream, _)) = accepted {
                    spawn_local(echo_http(stream));
                },
                accepted = grpc.accept() => if let Ok((stream, _)) = accepted {
                    spawn_local(echo_grpc::serve(stream));
                },
            }
        }
    })
}

async fn echo_http(stream: TcpStream) {
    let _without_it_slower = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        // A body that breaks off ends the connection by itself.
        Ok::<_, Infallible>(Response::new(Full::new(body.unwrap_or_else(|_| Bytes::new()))))
    });
    // A client that goes away is no fault.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}
