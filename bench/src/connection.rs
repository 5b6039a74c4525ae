//! One keep-alive connection: sends a request, reads the whole answer, opens itself anew when
//! the server has closed it.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::check::{Check, Failure, Fault};

/// The largest answer that is read; anything larger is a fault of protocol.
const LARGEST_ANSWER: usize = 64 << 20;

/// A connection to one of some addresses, closed at first.
#[derive(Debug)]
pub(crate) struct Connection {
    addresses: Arc<[SocketAddr]>,
    open: Option<Open>,
    was_open: bool,
    reconnects: u64,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// When the whole answer was there, or the request had failed.
    pub(crate) done: Instant,
    /// What the answer was worth.
    pub(crate) outcome: Result<(), Fault>,
    /// The length of the answer's body.
    pub(crate) bytes_received: u64,
    /// How often the connection was opened anew for it.
    pub(crate) reconnects: u64,
}

impl Connection {
    pub(crate) fn new(addresses: Arc<[SocketAddr]>) -> Self {
        Self { addresses, open: None, was_open: false, reconnects: 0 }
    }

    /// Opens the connection, closing an old one.
    pub(crate) async fn connect(&mut self) -> io::Result<()> {
        self.open = None;
        let open = Open::new(&self.addresses).await?;
        self.reconnects += u64::from(self.was_open);
        self.was_open = true;
        self.open = Some(open);
        Ok(())
    }

    /// Sends `request` and reads the answer. A request that failed closes the connection, since
    /// what is left of its answer must not be taken for the next one's.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
        check: Check,
    ) -> Exchange {
        let answer = tokio::time::timeout(timeout, self.ask(request)).await;
        let done = Instant::now();
        let late = Fault { failure: Failure::Timeout, detail: format!("no answer in {timeout:?}") };
        let (outcome, bytes_received) = match answer.unwrap_or(Err(late)) {
            Ok((status, body)) => (check.judge(status, &body), body.len() as u64),
            Err(fault) => {
                self.open = None;
                (Err(fault), 0)
            }
        };
        Exchange { done, outcome, bytes_received, reconnects: std::mem::take(&mut self.reconnects) }
    }

    /// The same without judging the answer or a bound of its time.
    pub(crate) async fn ask(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Fault> {
        let mut sent_twice = false;
        loop {
            match self.sender().await?.try_send_request(request).await {
                Ok(response) => return read(response).await,
                Err(mut error) => match error.take_message() {
                    // None of it was written: the server had closed the idle connection, as
                    // it may, and any client would use a fresh one.
                    Some(unwritten) if !sent_twice => {
                        self.open = None;
                        request = unwritten;
                        sent_twice = true;
                    }
                    _ => return Err(broken(&error.into_error())),
                },
            }
        }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Fault> {
        let usable = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let refused =
                |error: io::Error| Fault { failure: Failure::Connect, detail: error.to_string() };
            self.connect().await.map_err(refused)?;
        }
        Ok(&mut self.open.as_mut().expect("it is usable or was just opened").sender)
    }
}

/// An open connection; dropping it closes it at once, an answer under way or not.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Open {
    async fn new(addresses: &[SocketAddr]) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors reach the request under way through the sender.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, Bytes), Fault> {
    let (head, body) = response.into_parts();
    match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(body) => Ok((head.status, body.to_bytes())),
        Err(error) => Err(match error.downcast_ref::<hyper::Error>() {
            Some(error) => broken(error),
            None => Fault { failure: Failure::Protocol, detail: error.to_string() },
        }),
    }
}

/// Tells a connection that went away from one that talks nonsense.
fn broken(error: &hyper::Error) -> Fault {
    let from_system = std::iter::successors(error.source(), |&source| source.source())
        .any(|source| source.is::<io::Error>());
    let closed = error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.is_body_write_aborted()
        || (from_system && !error.is_parse());
    let failure = if closed { Failure::Closed } else { Failure::Protocol };
    Fault { failure, detail: error.to_string() }
}
