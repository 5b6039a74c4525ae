//! Cuts connections off that send HTTP/2 frames which only cost: pings, settings, priorities,
//! resets and window updates in numbers that no use of the protocol needs.
//!
//! The HTTP/2 library bounds what such frames may hold in memory, but answers them for as long as
//! they come, on the core that other connections share. Against calls that are broken off before
//! they are looked at, against endless headers and against frames that only are a mistake it has
//! limits of its own (`server`), by which it says that it is too much (GOAWAY) before it cuts off.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What a client sends before its first frame.
const PREFACE: usize = 24;
/// What stands before a frame: three bytes of length, type, flags, stream.
const HEADER: usize = 9;
/// Frames of no use of their own that a connection may send at any time.
const ALLOWED: u32 = 10_000;
/// How many it may send for one with data. Headers earn nothing, since a reset may follow; every
/// call that is of use has data.
const EARNED_BY_FRAME: u32 = 4;
/// It may send one for so many bytes that it was sent: the windows of answers are opened again.
const BYTES_TO_EARN: usize = 512;
/// How many it may send a second, whatever it does.
const EARNED_A_SECOND: u128 = 1000;

/// A connection that watches what comes on it.
#[derive(Debug)]
pub(crate) struct FloodGuard<I> {
    inner: I,
    frames: Frames,
    /// Until the client has begun to speak: what it must send first, and a frame's header.
    opening: Option<Pin<Box<Sleep>>>,
}

/// Where in the frames the connection is, and what it may still send.
#[derive(Debug)]
struct Frames {
    /// Whether a frame has begun.
    begun: bool,
    /// Bytes that are of no interest.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    left: u32,
    /// When time last earned something.
    since: Instant,
}

impl<I> FloodGuard<I> {
    /// Watches `inner`, whose client must begin to speak within `patience`.
    pub(crate) fn new(inner: I, patience: Duration) -> Self {
        Self { inner, frames: Frames::new(), opening: Some(Box::pin(sleep(patience))) }
    }
}

impl Frames {
    fn new() -> Self {
        let header = [0; HEADER];
        let since = Instant::now();
        Self { begun: false, skip: PREFACE, header, filled: 0, left: ALLOWED, since }
    }

    /// Looks at what has come; false when that is too much.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return true;
            }
            let read = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..][..read].copy_from_slice(&bytes[..read]);
            self.filled += read;
            bytes = &bytes[read..];
            if self.filled == HEADER {
                self.filled = 0;
                self.begun = true;
                let [high, middle, low, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                if !self.take(kind) {
                    return false;
                }
            }
        }
    }

    fn take(&mut self, kind: u8) -> bool {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        match kind {
            DATA if self.skip > 0 => {
                self.earn(EARNED_BY_FRAME);
                return true;
            }
            HEADERS | CONTINUATION => return true,
            _ => {}
        }
        if self.left == 0 {
            let earned = self.since.elapsed().as_millis() * EARNED_A_SECOND / 1000;
            self.since = Instant::now();
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn written(&mut self, bytes: usize) {
        self.earn(u32::try_from(bytes.div_ceil(BYTES_TO_EARN)).unwrap_or(u32::MAX));
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(ALLOWED);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FloodGuard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut connection.inner).poll_read(context, buffer);
        if read.is_pending()
            && let Some(opening) = &mut connection.opening
            && opening.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if !connection.frames.read(&buffer.filled()[before..]) {
            return Poll::Ready(Err(io::Error::other("too many frames that only cost")));
        }
        if connection.frames.begun {
            connection.opening = None;
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FloodGuard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.written(bytes);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.written(bytes);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{ALLOWED, BYTES_TO_EARN, EARNED_BY_FRAME, FloodGuard, Frames, PREFACE};

    const PING: u8 = 6;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(frame.len() + usize::from(length), 7);
        frame
    }

    fn opened() -> Frames {
        let mut frames = Frames::new();
        assert!(frames.read(&[0; PREFACE]));
        frames
    }

    /// How many pings pass until the connection is cut off.
    fn pings(frames: &mut Frames) -> u32 {
        let passed = (0..).find(|_| !frames.read(&frame(PING, 8))).unwrap();
        // Nothing behind the last one's header was looked at.
        frames.skip = 0;
        passed
    }

    #[test]
    fn what_only_costs_is_bounded_and_what_is_of_use_earns() {
        let mut frames = opened();
        // The test takes time too, which earns.
        let check = |passed: u32, expected: u32| {
            assert!((expected..expected + 200).contains(&passed), "{passed} for {expected}");
        };
        check(pings(&mut frames), ALLOWED);
        for _ in 0..100 {
            assert!(frames.read(&frame(DATA, 100)));
        }
        check(pings(&mut frames), 100 * EARNED_BY_FRAME);
        for _ in 0..100 {
            assert!(frames.read(&frame(HEADERS, 30)));
        }
        check(pings(&mut frames), 0);
        frames.written(300 * BYTES_TO_EARN);
        check(pings(&mut frames), 300);
        frames.since -= Duration::from_millis(500);
        check(pings(&mut frames), 500);
        frames.since -= Duration::from_secs(3600);
        check(pings(&mut frames), ALLOWED);
    }

    /// However what it has sent is cut: only who says nothing, or not enough, is given up.
    #[tokio::test]
    async fn a_client_that_has_begun_to_speak_may_be_slow() {
        const PATIENCE: Duration = Duration::from_millis(100);
        let ping = frame(PING, 8);
        for (frames, begun) in [(&[][..], false), (&ping[..5], false), (&ping[..12], true)] {
            let (mut client, server) = duplex(1000);
            let mut server = FloodGuard::new(server, PATIENCE);
            client.write_all(&[&[0; PREFACE], frames].concat()).await.unwrap();
            server.read_buf(&mut Vec::with_capacity(1000)).await.unwrap();
            tokio::time::sleep(2 * PATIENCE).await;
            let more = server.read_u8().now_or_never();
            assert_eq!(more.is_none(), begun, "{more:?}");
        }
    }

    proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn frames_are_found_in_pieces(
            kinds in prop::collection::vec((0u8..12, 0u8..40), 0..30),
            cuts in prop::collection::vec(1usize..20, 1..40),
        ) {
            let frames: Vec<u8> = kinds.iter().flat_map(|&(kind, len)| frame(kind, len)).collect();
            let sent = [vec![0; PREFACE], frames].concat();
            let mut whole = Frames::new();
            prop_assert!(whole.read(&sent));
            let mut cut = Frames::new();
            let (mut rest, mut cuts) = (&sent[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                prop_assert!(cut.read(piece));
                rest = left;
            }
            prop_assert_eq!((cut.left, cut.skip, cut.filled), (whole.left, whole.skip, whole.filled));
        }
    }
}
