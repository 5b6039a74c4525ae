//! Reads a request's body within its limits of size and time, and undoes its compression.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::coding;
use crate::error::GatewayError;
use crate::shared::RequestLimits;

/// Room for a body of which nothing has come yet, however long it says that it will be.
const FIRST_ROOM: usize = 256 << 10;
/// As many chunks as a body may come in, however small they are; it is Triton's bound, too. Each
/// costs some processor time, a thousandfold of what its bytes do when it is one byte.
const MOST_SMALL_CHUNKS: usize = 65_536;
/// What is no small chunk, in bytes on average.
const SMALL_CHUNK: usize = 64;

/// As much of a body that nobody reads is thrown away, so that its connection can go on, and for so
/// long it may make its answer wait.
const MOST_SKIPPED: usize = 256 << 10;
const SKIP_TIME: Duration = Duration::from_millis(500);

/// A request's body, which knows whether it was read to its end: one in chunks does not say so of
/// itself.
#[derive(Debug)]
pub(super) struct Tracked {
    incoming: Incoming,
    ended: bool,
}

impl Tracked {
    pub(super) const fn new(incoming: Incoming) -> Self {
        Self { incoming, ended: false }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The whole body, uncompressed. One that says it is too long is refused unread; one that does not
/// come in the time that an answer may take is given up.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    incoming: B,
    limits: RequestLimits,
) -> Result<Bytes, GatewayError>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let coding = coding::of_request(headers)?;
    let (limit, patience) = (limits.max_body, limits.request_timeout);
    let announced = announced(headers);
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(GatewayError::TooLarge { limit });
    }
    let whole = collect(incoming, announced.unwrap_or(0), limit);
    let Ok(whole) = tokio::time::timeout(patience, whole).await else {
        return Err(GatewayError::BodyTimeout(patience));
    };
    match coding {
        None => whole,
        Some(coding) => coding::inflate(coding, &whole?, limit).await,
    }
}

/// Throws away what has not been read of a body, unless it is long, or waits to be asked for. Whether
/// nothing is left of it.
pub(super) async fn skip(headers: &HeaderMap, mut incoming: Tracked) -> bool {
    if incoming.is_end_stream() {
        return true;
    }
    let is_long = announced(headers).is_some_and(|length| length > MOST_SKIPPED);
    if is_long || headers.contains_key(EXPECT) {
        return false;
    }
    let skipping = async {
        let mut skipped = 0;
        while let Some(frame) = incoming.frame().await {
            skipped += frame.ok()?.data_ref().map_or(0, Bytes::len);
            if skipped > MOST_SKIPPED {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(SKIP_TIME, skipping).await.is_ok_and(|skipped| skipped.is_some())
}

/// How long the body is, where its head says so.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body's pieces in one: without a copy when it came in one, else with one copy. Many small
/// pieces take no more memory than one large one.
async fn collect<B>(mut incoming: B, announced: usize, limit: usize) -> Result<Bytes, GatewayError>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    let mut chunks = 0;
    while let Some(frame) = incoming.frame().await {
        let frame = frame
            .map_err(|error| GatewayError::Invalid(format!("request body broke off: {error}")))?;
        // Trailers say nothing here.
        let Ok(piece) = frame.into_data() else { continue };
        let length = only.len() + joined.len() + piece.len();
        if length > limit {
            return Err(GatewayError::TooLarge { limit });
        }
        chunks += 1;
        if chunks > MOST_SMALL_CHUNKS && length / chunks < SMALL_CHUNK {
            return Err(GatewayError::SmallChunks { most: MOST_SMALL_CHUNKS });
        }
        if length == piece.len() {
            only = piece;
            continue;
        }
        if joined.capacity() < length {
            // What has come vouches for more, up to what was announced.
            let vouched = (16 * joined.len()).max(FIRST_ROOM);
            joined.reserve(announced.min(vouched).max(length) - joined.len());
        }
        joined.extend_from_slice(&std::mem::take(&mut only));
        joined.extend_from_slice(&piece);
    }
    Ok(if joined.is_empty() { only } else { joined.freeze() })
}
