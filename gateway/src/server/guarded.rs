//! An HTTP connection that ambiguous messages and slow senders cannot misuse: hyper has no bound on
//! the time that a started head may take. What is sent must be taken: that is the socket's matter.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::framing::Framing;

/// How long a client that is still sending is listened to after its answer, so that it comes to
/// read the answer, which a reset connection would take from it.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sends meanwhile is thrown away at most, in bytes.
const MOST_LINGERED: usize = 64 << 20;
/// In what pieces that is done, in bytes.
const SCRATCH: usize = 16 << 10;

/// A stream under guard.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    framing: Framing,
    /// How long a head may take from its first wait on, and the first one from the beginning.
    patience: Duration,
    head_wait: Option<Wait>,
    linger: Option<Linger>,
}

/// The wait for the end of a head.
#[derive(Debug)]
struct Wait {
    heads: usize,
    over: Pin<Box<Sleep>>,
}

/// The last words of a client to which nothing more is said.
#[derive(Debug)]
struct Linger {
    over: Pin<Box<Sleep>>,
    /// Bytes that may still come.
    left: usize,
}

impl<S> Guarded<S> {
    /// Guards `stream`.
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        let framing = Framing::default();
        Self { stream, framing, patience, head_wait: None, linger: None }
    }

    /// Ends the wait for a head that does not come to its end, and for the first one, which whoever
    /// connects has come for.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let heads = self.framing.heads();
        if heads > 0 && !self.framing.is_in_head() {
            self.head_wait = None;
            return Poll::Pending;
        }
        self.head_wait.take_if(|wait| wait.heads != heads);
        let patience = self.patience;
        let wait =
            self.head_wait.get_or_insert_with(|| Wait { heads, over: Box::pin(sleep(patience)) });
        wait.over.as_mut().poll(cx).map(|()| Err(timed_out("the request's head does not come")))
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.framing.is_refused() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) else {
            return this.poll_head(cx);
        };
        if let Err(at) = this.framing.follow(&buffer.filled()[before..]) {
            // Hyper answers 400 to a byte that may stand nowhere, and to an end in the middle of a
            // message, after all that came before it.
            buffer.filled_mut()[before + at] = 0;
            buffer.set_filled(before + at + 1);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.framing.is_between_messages() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Linger { over: Box::pin(sleep(LINGER)), left: MOST_LINGERED });
        linger.poll(&mut this.stream, cx)
    }
}

impl Linger {
    /// Reads until the client has ended, the time is over or it was too much.
    fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = [0; SCRATCH];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && self.left > 0 => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                }
                // However it ended, nothing more is to be heard.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.over.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::{Guarded, LINGER};

    const PATIENCE: Duration = Duration::from_millis(400);

    fn pair() -> (DuplexStream, Guarded<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, Guarded::new(server, PATIENCE))
    }

    #[tokio::test]
    async fn a_head_may_not_take_long_however_it_comes() {
        let (mut client, mut server) = pair();
        let sending = async {
            for byte in b"GET / HTTP/1.1\r\nA: ".iter().chain([&b'a'; 1000]) {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(PATIENCE / 8).await;
            }
        };
        let reading = async {
            let begun = Instant::now();
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            drop(server);
            assert!(error.to_string().contains("head does not come"), "{error}");
            begun.elapsed()
        };
        let ((), took) = tokio::join!(sending, reading);
        assert!((PATIENCE..PATIENCE * 20).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn the_time_between_requests_and_in_bodies_is_not_a_heads() {
        let (mut client, mut server) = pair();
        let sending = async {
            for part in
                ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", "a", "b"]
            {
                client.write_all(part.as_bytes()).await.unwrap();
                tokio::time::sleep(PATIENCE * 2).await;
            }
            drop(client);
        };
        let mut read = String::new();
        let (_, count) = tokio::join!(sending, server.read_to_string(&mut read));
        assert!(count.unwrap() > 0 && read.ends_with("ab"), "{read}");
    }

    #[tokio::test]
    async fn who_connects_and_says_nothing_is_cut_off() {
        for said in ["", "\r\n"] {
            let (mut client, mut server) = pair();
            client.write_all(said.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert!(error.to_string().contains("head does not come"), "{error}");
            assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn nothing_is_read_behind_an_ambiguous_byte() {
        let (mut client, mut server) = pair();
        client.write_all(b"GET / HTTP/1.1\nGET /2 HTTP/1.1\r\n\r\n").await.unwrap();
        let mut read = vec![0; 60];
        let count = server.read(&mut read).await.unwrap();
        assert_eq!(&read[..count], b"GET / HTTP/1.1\0");
        assert_eq!(server.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_waits_for_a_client_that_is_still_sending() {
        for (sent, waits) in [("GET / HTTP/1.1\r\n\r\n", false), ("GET / HTTP/1.1\r\n", true)] {
            let (mut client, mut server) = pair();
            client.write_all(sent.as_bytes()).await.unwrap();
            server.read_buf(&mut Vec::new()).await.unwrap();
            let begun = Instant::now();
            server.shutdown().await.unwrap();
            assert_eq!(begun.elapsed() >= LINGER, waits, "{sent:?}: {:?}", begun.elapsed());
        }
    }
}
