//! One keep-alive connection: sends a request, reads the whole answer, opens itself anew when
//! the server has closed it.

mod http1;
mod http2;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::check::{Check, Failure, Fault};
use crate::options::Transport;

/// The largest answer that is read; anything larger is a fault of protocol.
const LARGEST_ANSWER: usize = 64 << 20;

/// A connection to one of some addresses, closed at first.
#[derive(Debug)]
pub(crate) struct Connection {
    addresses: Arc<[SocketAddr]>,
    transport: Transport,
    open: Option<Open>,
    was_open: bool,
    reconnects: u64,
}

/// What a server said, whole.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What came behind the body; of an answer of headers alone, these.
    pub(crate) trailers: HeaderMap,
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

/// Why there is no answer.
#[derive(Debug)]
enum Unanswered {
    /// The server has seen nothing of it: it had closed the idle connection, as it may, and any
    /// client would use a fresh one.
    Unseen(Box<Request<Bytes>>),
    Failed(Fault),
}

impl Connection {
    pub(crate) fn new(addresses: Arc<[SocketAddr]>, transport: Transport) -> Self {
        Self { addresses, transport, open: None, was_open: false, reconnects: 0 }
    }

    /// Opens the connection, closing an old one.
    pub(crate) async fn connect(&mut self) -> io::Result<()> {
        self.open = None;
        let open = Open::new(&self.addresses, self.transport).await?;
        self.reconnects += u64::from(self.was_open);
        self.was_open = true;
        self.open = Some(open);
        Ok(())
    }

    /// Sends `request` and reads the answer. A request that failed closes the connection, since
    /// what is left of its answer must not be taken for the next one's.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Bytes>,
        timeout: Duration,
        check: Check,
    ) -> Exchange {
        let answer = tokio::time::timeout(timeout, self.ask(request)).await;
        let done = Instant::now();
        let late = Fault { failure: Failure::Timeout, detail: format!("no answer in {timeout:?}") };
        let (outcome, bytes_received) = match answer.unwrap_or(Err(late)) {
            Ok(answer) => (check.judge(&answer), answer.body.len() as u64),
            Err(fault) => {
                self.open = None;
                (Err(fault), 0)
            }
        };
        Exchange { done, outcome, bytes_received, reconnects: std::mem::take(&mut self.reconnects) }
    }

    /// The same without judging the answer or a bound of its time.
    pub(crate) async fn ask(&mut self, mut request: Request<Bytes>) -> Result<Answer, Fault> {
        let mut sent_twice = false;
        loop {
            match self.usable().await?.ask(request).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Unseen(unseen)) if !sent_twice => {
                    self.open = None;
                    request = *unseen;
                    sent_twice = true;
                }
                Err(Unanswered::Unseen(_)) => {
                    let detail = "the server closed the connection twice".to_owned();
                    return Err(Fault { failure: Failure::Closed, detail });
                }
                Err(Unanswered::Failed(fault)) => return Err(fault),
            }
        }
    }

    async fn usable(&mut self) -> Result<&mut Sender, Fault> {
        let usable = match &mut self.open {
            Some(open) => open.sender.is_usable().await,
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
    sender: Sender,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::Sender),
    Http2(http2::Sender),
}

impl Open {
    async fn new(addresses: &[SocketAddr], transport: Transport) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = match transport {
            Transport::Http1 => {
                let (sender, driver) = http1::open(stream).await?;
                (Sender::Http1(sender), driver)
            }
            Transport::Http2 => {
                let (sender, driver) = http2::open(stream).await?;
                (Sender::Http2(sender), driver)
            }
        };
        Ok(Self { sender, driver })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Sender {
    /// Waits until a request can be sent; false if none can any more.
    async fn is_usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_usable().await,
            Self::Http2(sender) => sender.is_usable().await,
        }
    }

    async fn ask(&mut self, request: Request<Bytes>) -> Result<Answer, Unanswered> {
        match self {
            Self::Http1(sender) => sender.ask(request).await,
            Self::Http2(sender) => sender.ask(request).await,
        }
    }
}
