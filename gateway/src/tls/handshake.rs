//! From an accepted connection to one that can be served. Handshakes are bounded in time and in
//! number, and never hold up the one who accepts.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::{Port, Stream};
use crate::shared::Shared;
use crate::socket::Socket;

/// How long a client may take for its part of a handshake.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that may be under way at a time, for each who accepts. Past that, the one that has
/// taken longest is given up: whoever connects and says nothing keeps nobody else out.
const MOST: usize = 1024;

/// The handshakes under way of one who accepts. All are given up when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// Oldest first. Closed where the handshake has ended.
    under_way: VecDeque<oneshot::Sender<()>>,
}

/// A connection before its handshake, if it needs one.
#[derive(Debug)]
pub(crate) struct Arrival {
    stream: Socket,
    handshake: Option<(Arc<ServerConfig>, oneshot::Receiver<()>)>,
}

impl Handshakes {
    /// Takes a connection to `port` on, as the settings of this moment want it.
    pub(crate) fn admit(&mut self, stream: TcpStream, shared: &Shared, port: Port) -> Arrival {
        let config = shared.live().tls.as_ref().map(|tls| tls.config(port).clone());
        let stream = Socket::accepted(stream, shared.limits().request_timeout);
        Arrival { stream, handshake: config.map(|config| (config, self.begin())) }
    }

    fn begin(&mut self) -> oneshot::Receiver<()> {
        if self.under_way.len() >= MOST {
            self.under_way.retain(|handshake| !handshake.is_closed());
        }
        if self.under_way.len() >= MOST {
            self.under_way.pop_front();
        }
        let (give_up, given_up) = oneshot::channel();
        self.under_way.push_back(give_up);
        given_up
    }
}

impl Arrival {
    /// What can be served: at once without TLS, after the handshake with it. None when that
    /// fails, which is counted and nothing that an operator can do something about.
    pub(crate) async fn secure(self, shared: &Shared) -> Option<Stream> {
        let Self { stream, handshake } = self;
        let Some((config, given_up)) = handshake else { return Some(Stream::Plain(stream)) };
        match shake_hands(stream, config, given_up).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                shared.metrics.count_failed_handshake();
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
        }
    }
}

async fn shake_hands(
    stream: Socket,
    config: Arc<ServerConfig>,
    given_up: oneshot::Receiver<()>,
) -> Result<Stream> {
    let handshake = TlsAcceptor::from(config).accept(stream);
    tokio::select! {
        shaken = tokio::time::timeout(TIMEOUT, handshake) => match shaken {
            Ok(shaken) => Ok(Stream::Tls(Box::new(shaken?))),
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "the client took too long")),
        },
        _ = given_up => Err(Error::new(ErrorKind::TimedOut, "given up for newer ones")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::{Handshakes, MOST};

    #[test]
    fn the_oldest_handshake_makes_room_and_ended_ones_take_none() {
        let mut handshakes = Handshakes::default();
        let mut waiting: Vec<_> = (0..MOST).map(|_| handshakes.begin()).collect();
        assert!(waiting.iter_mut().all(|one| one.try_recv() == Err(TryRecvError::Empty)));
        drop(waiting.pop());
        let newer = handshakes.begin();
        assert!(waiting.iter_mut().all(|one| one.try_recv() == Err(TryRecvError::Empty)));
        waiting.push(newer);
        let newest = handshakes.begin();
        assert_eq!(waiting[0].try_recv(), Err(TryRecvError::Closed));
        assert_eq!(waiting[1].try_recv(), Err(TryRecvError::Empty));
        assert_eq!(handshakes.under_way.len(), MOST);
        drop(handshakes);
        assert!(waiting.iter_mut().all(|one| one.try_recv() == Err(TryRecvError::Closed)));
        drop(newest);
    }
}
