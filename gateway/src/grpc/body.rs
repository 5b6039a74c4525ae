//! A request's body, message by message: each is handed on when all of it is here.
//!
//! A message that says that it is long so takes no memory before its bytes have come, one past the
//! limit is refused by its first five bytes, and one that does not come is given up.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::codec::BUFFER;
use crate::error::GatewayError;
use crate::shared::Shared;

/// What stands before a message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;
/// Pieces below this are copied together, so that a message in many of them takes little more
/// memory than one in a few.
const SMALL_PIECE: usize = 4096;

/// When a body may make its reader wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// All of it must be there within the time that an answer may take.
    Body,
    /// A message that has begun must; between two of them is no hurry.
    Message,
}

/// The messages of a request as they come.
pub(super) struct Body<B> {
    incoming: B,
    shared: Arc<Shared>,
    patience: Patience,
    /// The longest message that is taken, in bytes.
    limit: usize,
    /// Runs from the first moment that there was nothing to read. Most requests come whole and
    /// need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    prefix: Prefix,
    /// How much of the message has not come yet, as far as its length is known.
    missing: usize,
    /// Whether a message has come.
    handed_on: bool,
    /// The message as far as it has come.
    pieces: Vec<Bytes>,
    small: BytesMut,
    /// Frames that can be handed on.
    ready: VecDeque<Frame<Bytes>>,
    /// There is nothing more to read, and perhaps why.
    ended: bool,
    failed: Option<Box<dyn Error + Send + Sync>>,
}

/// The first bytes of a message, as far as they have come.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    filled: usize,
}

impl<B> Body<B> {
    pub(super) fn new(incoming: B, shared: Arc<Shared>, patience: Patience, limit: usize) -> Self {
        Self {
            incoming,
            shared,
            patience,
            limit,
            timer: None,
            prefix: Prefix::default(),
            missing: PREFIX,
            handed_on: false,
            pieces: Vec::new(),
            small: BytesMut::new(),
            ready: VecDeque::new(),
            ended: false,
            failed: None,
        }
    }

    /// Takes in what has come.
    fn take(&mut self, mut data: Bytes) -> Result<(), GatewayError> {
        while !data.is_empty() {
            if self.handed_on && self.patience == Patience::Body {
                return Err(GatewayError::Invalid("more than one message for one answer".into()));
            }
            if let Some(length) = self.prefix.read(&data) {
                let limit = self.limit;
                if length > limit {
                    return Err(GatewayError::MessageTooLarge { length, limit });
                }
                self.missing += length;
            }
            let piece = data.split_to(self.missing.min(data.len()));
            self.missing -= piece.len();
            self.keep(piece);
            if self.missing == 0 {
                self.hand_on();
            }
        }
        Ok(())
    }

    /// Whether `data` is exactly one message, the body's next, as nearly all are: it need not be
    /// kept then.
    fn is_next(&mut self, data: &[u8]) -> bool {
        let is_between = self.prefix.filled == 0 && self.ready.is_empty();
        if !is_between || self.handed_on && self.patience == Patience::Body {
            return false;
        }
        let length = Prefix::default().read(data);
        let fits = |length| length <= self.limit && data.len() == PREFIX + length;
        let is_next = length.is_some_and(fits);
        self.handed_on |= is_next;
        is_next
    }

    fn keep(&mut self, piece: Bytes) {
        let is_whole = self.missing == 0 && self.pieces.is_empty() && self.small.is_empty();
        if is_whole || piece.len() >= SMALL_PIECE {
            self.close_small();
            self.pieces.push(piece);
        } else {
            self.small.extend_from_slice(&piece);
        }
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    /// Gives out what there is: a whole message, or as much of it as there will be.
    fn hand_on(&mut self) {
        self.close_small();
        for (at, mut piece) in self.pieces.drain(..).enumerate() {
            if at == 0
                && let Some(prefix) = split_prefix(&mut piece)
            {
                self.ready.push_back(Frame::data(prefix));
            }
            self.ready.push_back(Frame::data(piece));
        }
        self.prefix = Prefix::default();
        self.missing = PREFIX;
        self.handed_on = true;
        if self.patience == Patience::Message {
            self.timer = None;
        }
    }

    const fn is_waited_for(&self) -> bool {
        match self.patience {
            Patience::Body => true,
            Patience::Message => self.prefix.filled > 0,
        }
    }

    /// Ends the body, behind what can still be handed on.
    fn fail(&mut self, error: GatewayError) {
        self.shared.metrics.count_unrouted(error.code());
        self.ended = true;
        self.failed = Some(Status::from(error).into());
    }
}

/// Takes the prefix off a message's first piece, unless that fits into the buffer that tonic has
/// anyway. tonic makes room for a whole message when it knows the length, behind what it has: with
/// more than the prefix there it would move that, and take twice the room.
fn split_prefix(piece: &mut Bytes) -> Option<Bytes> {
    (piece.len() > BUFFER).then(|| piece.split_to(PREFIX))
}

impl Prefix {
    /// Copies what is missing from `data`, which follows what came before. The message's length,
    /// when it becomes known by this.
    fn read(&mut self, data: &[u8]) -> Option<usize> {
        let read = data.len().min(PREFIX - self.filled);
        self.bytes[self.filled..][..read].copy_from_slice(&data[..read]);
        self.filled += read;
        let [_, length @ ..] = self.bytes;
        (read > 0 && self.filled == PREFIX).then(|| u32::from_be_bytes(length) as usize)
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = &mut *self;
        loop {
            if let Some(frame) = body.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if body.ended {
                return Poll::Ready(body.failed.take().map(Err));
            }
            match Pin::new(&mut body.incoming).poll_frame(context) {
                Poll::Ready(None) => {
                    body.ended = true;
                    body.hand_on();
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(mut data) if body.is_next(&data) => {
                        if let Some(prefix) = split_prefix(&mut data) {
                            body.ready.push_back(Frame::data(data));
                            data = prefix;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(data) => body.take(data).unwrap_or_else(|error| body.fail(error)),
                    Err(trailers) => {
                        body.hand_on();
                        body.ready.push_back(trailers);
                    }
                },
                Poll::Pending if body.is_waited_for() => {
                    let timeout = body.shared.limits().request_timeout;
                    let timer = body.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                    ready!(timer.as_mut().poll(context));
                    body.fail(GatewayError::BodyTimeout(timeout));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty()
            && self.pieces.is_empty()
            && self.small.is_empty()
            && self.failed.is_none()
            && (self.ended || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
