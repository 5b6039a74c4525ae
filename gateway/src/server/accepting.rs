//! How connections come in, also where descriptors run out, and the last ones of a port that closes.

use std::io;
use std::pin::pin;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::Connections;

/// Accepts connections until `stop`.
pub(super) async fn accept(
    http: &TcpListener,
    grpc: &TcpListener,
    connections: &mut Connections,
    stop: impl Future,
) {
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = http.accept() => accepted.map(|(stream, _)| connections.serve_http(stream)),
            accepted = grpc.accept() => accepted.map(|(stream, _)| connections.serve_grpc(stream)),
        };
        match accepted {
            Err(error) if !is_of_one_connection(&error) => connections.make_room(&error).await,
            _ => {}
        }
    }
}

/// Closes a port and takes in the connections in its queue, until `late` where descriptors must come
/// free for them. The system resets those that are in the queue when it goes, so first nobody more is
/// let in.
pub(super) async fn accept_last(
    listener: TcpListener,
    late: Instant,
    connections: &mut Connections,
    serve: impl Fn(&mut Connections, TcpStream),
) -> io::Result<()> {
    /// A program for the system's packet filter: return, and of the packet nothing.
    const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    // Asked directly: the runtime would only tell of those that it has noticed.
    let listener = listener.into_std()?;
    if let Err(error) = SockRef::from(&listener).attach_filter(&[NOTHING]) {
        tracing::debug!(%error, "connections may come in while the port is closed");
    }
    loop {
        let accepted = listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        match accepted {
            Ok(stream) => serve(connections, stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) if Instant::now() >= late => return Ok(()),
            Err(error) => connections.make_room(&error).await,
        }
    }
}

/// Out of file descriptors, usually: trying again at once would only burn the core.
pub(crate) async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Whether only the connection that was to be accepted is lost, and the next one can be at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::is_of_one_connection;

    #[test]
    fn a_connection_that_is_gone_already_is_no_lack_of_descriptors() {
        const EINTR: i32 = 4;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENETUNREACH: i32 = 101;
        const ECONNABORTED: i32 = 103;
        let is = |code| is_of_one_connection(&std::io::Error::from_raw_os_error(code));
        assert!([EINTR, ENETUNREACH, ECONNABORTED].into_iter().all(is));
        assert!(![ENFILE, EMFILE].into_iter().any(is));
    }
}
