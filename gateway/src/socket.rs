//! A socket whose client must take what it is sent. It lies below TLS, which takes bytes in and
//! so hides above it that nobody takes them.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// What a client must take on average once it makes us wait, in bytes a second.
const LEAST_RATE: u64 = 8 << 10;
/// What a client may have taken before it is noticed, at first, in bytes: half of what the system keeps
/// for it here, and the largest packets, of this machine's own network. A client's system that could
/// take no more says that it can again once a packet fits.
const FIRST_LUMP: u64 = 240 << 10;
/// A client's system with much room says so once a sixteenth of that is free. As it gives more room to
/// clients that take more, what was written tells how much that may be.
const SHARE_OF_ROOM: u64 = 16;
/// A sixteenth of the largest room that systems give of their own accord, in bytes.
const MOST_LUMP: u64 = 2 << 20;
/// What the system keeps for a client beside what is on its way, in bytes. It tells that something was
/// taken once half of that is gone; of its own accord it keeps megabytes, and says nothing for as long
/// as a slow client takes a third of them.
const MOST_KEPT: u32 = 128 << 10;

/// A socket, and how long its client may still make us wait.
#[derive(Debug)]
pub(crate) struct Socket<S = TcpStream> {
    stream: S,
    /// What a client may make us wait that has taken enough, if it is not noticed late.
    patience: Duration,
    /// What may go unnoticed at first, in bytes.
    first_lump: u64,
    /// All that was written, in bytes.
    written: u64,
    /// What the client has made us wait: bytes that are taken make up for it.
    waited: Duration,
    wait: Option<Wait>,
}

/// A wait that has not ended.
#[derive(Debug)]
struct Wait {
    since: Instant,
    over: Pin<Box<Sleep>>,
}

impl Socket {
    /// A connection that was accepted: see [`Socket::new`].
    pub(crate) fn accepted(stream: TcpStream, patience: Duration) -> Self {
        let _less_told_without = SockRef::from(&stream).set_tcp_notsent_lowat(MOST_KEPT);
        let _slower_without = stream.set_nodelay(true);
        Self::new(stream, patience, FIRST_LUMP)
    }
}

impl<S> Socket<S> {
    /// One whose client may take nothing for `patience` at most, and must then go on at the least
    /// rate; of what it takes, `first_lump` bytes may go unnoticed before anything was written.
    const fn new(stream: S, patience: Duration, first_lump: u64) -> Self {
        Self { stream, patience, first_lump, written: 0, waited: Duration::ZERO, wait: None }
    }

    /// How long the client may still make us wait. A patience shorter than what goes unnoticed takes
    /// at the least rate would cut off clients that are faster than that.
    fn left(&self) -> Duration {
        let lump = self.first_lump + (self.written / SHARE_OF_ROOM).min(MOST_LUMP);
        self.patience.max(time_at_least_rate(lump)).saturating_sub(self.waited)
    }

    /// What a write comes to: an error when it has made us wait for too long.
    fn poll_taken(
        &mut self,
        written: Poll<Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        let Poll::Ready(written) = written else {
            let left = self.left();
            let begin = || Wait { since: Instant::now(), over: Box::pin(sleep(left)) };
            ready!(self.wait.get_or_insert_with(begin).over.as_mut().poll(cx));
            let reason = "the client does not take what it is sent";
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, reason)));
        };
        if let Some(wait) = self.wait.take() {
            self.waited = self.waited.saturating_add(wait.since.elapsed());
        }
        let taken = u64::try_from(*written.as_ref().unwrap_or(&0)).unwrap_or(u64::MAX);
        self.written = self.written.saturating_add(taken);
        if !self.waited.is_zero() {
            self.waited = self.waited.saturating_sub(time_at_least_rate(taken));
        }
        Poll::Ready(written)
    }
}

fn time_at_least_rate(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / LEAST_RATE)
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_taken(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_taken(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, sleep};

    use super::{LEAST_RATE, Socket};

    const PATIENCE: Duration = Duration::from_secs(1);
    const ANSWER: usize = 64 << 10;

    /// How an answer ends, and after how long, for a client that takes `rate` bytes a second, and
    /// nothing more after `until`.
    async fn answer(rate: u64, until: Duration) -> (std::io::Result<()>, Duration) {
        let (mut client, server) = duplex(1024);
        let mut server = Socket::new(server, PATIENCE, 0);
        let begun = Instant::now();
        let reading = async {
            let mut taken = 0;
            while begun.elapsed() < until {
                sleep(Duration::from_millis(20)).await;
                let due = begun.elapsed().as_millis() * u128::from(rate) / 1000;
                while taken < due {
                    taken += client.read(&mut [0; 64]).await.unwrap() as u128;
                }
            }
            std::future::pending::<()>().await;
        };
        let answer = vec![0; ANSWER];
        tokio::select! {
            written = server.write_all(&answer) => (written, begun.elapsed()),
            () = reading => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_reader_of_nothing_is_cut_off() {
        let (written, took) = answer(0, Duration::ZERO).await;
        assert!(written.unwrap_err().to_string().contains("does not take"));
        assert!(took >= PATIENCE, "{took:?}");
    }

    #[tokio::test]
    async fn a_slow_reader_takes_all_of_it() {
        let (written, took) = answer(2 * LEAST_RATE, Duration::MAX).await;
        written.unwrap();
        assert!(took > PATIENCE * 3, "{took:?}");
    }

    /// However often it takes a little.
    #[tokio::test]
    async fn a_reader_that_trickles_is_cut_off() {
        let (written, took) = answer(LEAST_RATE / 8, Duration::MAX).await;
        assert!(written.unwrap_err().to_string().contains("does not take"));
        assert!(took >= PATIENCE, "{took:?}");
    }

    /// However late its system says that it took something: that waits until there is room for much.
    #[tokio::test]
    async fn a_reader_of_whom_little_is_heard_takes_all_of_it() {
        const AT_ONCE: usize = 1 << 20;
        const RATE: u128 = 300_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let mut server = Socket::accepted(accepted, Duration::from_millis(100));
        let whole = vec![0; 6 << 20];
        let reading = async {
            let (mut buffer, mut taken) = (vec![0; 4096], 0);
            let mut slow_since = None;
            // The rest of it is in the systems' hands.
            while taken < AT_ONCE + (2 << 20) {
                taken += client.read(&mut buffer).await.unwrap();
                if taken > AT_ONCE {
                    let since = slow_since.get_or_insert_with(Instant::now);
                    let due = (taken - AT_ONCE) as u128 * 1000 / RATE;
                    let due = Duration::from_millis(u64::try_from(due).unwrap());
                    sleep(due.saturating_sub(since.elapsed())).await;
                }
            }
            taken += client.read_to_end(&mut Vec::new()).await.unwrap();
            taken
        };
        let writing = async {
            server.write_all(&whole).await.unwrap();
            drop(server);
        };
        let (taken, ()) = tokio::join!(reading, writing);
        assert_eq!(taken, whole.len());
    }

    /// One that stops has what it may wait left, since it took enough before.
    #[tokio::test]
    async fn what_is_taken_earns_patience_again() {
        let (written, took) = answer(2 * LEAST_RATE, PATIENCE * 2).await;
        assert!(written.is_err());
        assert!(took >= PATIENCE * 5 / 2, "{took:?}");
    }
}
