//! A small HTTP server on loopback that answers as a test wants it to, on a thread of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A future answer.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Gives the answer to the request with this number, which had this body.
pub(crate) type Handler = Arc<dyn Fn(u64, Request<Bytes>) -> Answer + Send + Sync>;

/// A running server. Dropping it closes its listener and every connection.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server on a free port.
    pub(crate) fn start<F, A>(handler: F) -> Self
    where
        F: Fn(u64, Request<Bytes>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0".parse().unwrap(), handler)
    }

    /// A server on a known port.
    pub(crate) fn start_at<F, A>(address: SocketAddr, handler: F) -> Self
    where
        F: Fn(u64, Request<Bytes>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |n, request| Box::pin(handler(n, request)));
        let (stop, stopped) = oneshot::channel();
        // Bound here, so that it is there when this returns, inside a runtime or not.
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(TcpListener::from_std(listener).unwrap(), handler) => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// The address with a path, as a URL.
    pub(crate) fn url(&self) -> http::Uri {
        format!("http://{}/infer", self.address).parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A JSON answer with this status.
pub(crate) fn answer(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

async fn accept(listener: TcpListener, handler: Handler) {
    let requests = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (handler, requests) = (Arc::clone(&handler), Arc::clone(&requests));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (handler, requests) = (Arc::clone(&handler), Arc::clone(&requests));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let number = requests.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(handler(number, Request::from_parts(head, body)).await)
                }
            });
            // A client that goes away in the middle is part of the tests.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
