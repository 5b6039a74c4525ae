//! Answers on their way to clients that may not take them, as HTTP/2 lets them do one call at a
//! time: a call whose client takes nothing is given up, and how much waits for one client is
//! bounded.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::try_join;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::error::GatewayError;

/// In what pieces answers are handed to HTTP/2, in bytes. The next one is once the client's windows
/// have room for all of this one, so a client takes one in its time, or is given up.
const PIECE: usize = 32 << 10;
/// What is handed on whole, in bytes, as most answers are: HTTP/2 keeps it for as long as the client's
/// windows are shut, and nobody counts it. Of what is longer, the last byte waits here until there is
/// room for all before it.
const SHORT: usize = 4 << 10;
/// How many of the largest bodies may wait for one client, as answers.
const MOST_BODIES: usize = 8;

thread_local! {
    /// What the answer that was polled last on this thread came to, until its call has looked.
    static LAST: Cell<Option<Polled>> = const { Cell::new(None) };
}

#[derive(Debug, Clone, Copy)]
enum Polled {
    /// A piece was handed on, and no other was asked for yet.
    HandedOn,
    /// There is nothing to hand on at this moment.
    Waits,
    /// All of it is on its way, or the call has ended otherwise.
    Ended,
}

/// A call was given up.
#[derive(Debug)]
pub(crate) struct GivenUp;

/// What waits for one connection's client, beside what is short.
#[derive(Debug, Clone)]
pub(crate) struct Untaken(Arc<Account>);

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    most: usize,
}

/// Bytes that wait for as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    account: Untaken,
    bytes: usize,
}

/// An answer's body, which knows how much of it was taken.
pub(crate) struct Answer {
    body: tonic::body::Body,
    untaken: Untaken,
    /// Whether its messages were counted, or refused, before: those of a stream, one by one.
    let_in: bool,
    /// What is left of a message, and the account of all of it.
    rest: Bytes,
    held: Option<Held>,
}

impl Untaken {
    /// Nothing yet, on a connection whose messages have `max_body` bytes at most.
    pub(crate) fn new(max_body: usize) -> Self {
        let most = max_body.saturating_mul(MOST_BODIES);
        Self(Arc::new(Account { bytes: AtomicUsize::new(0), most }))
    }

    /// Refuses a call that would only add to what waits, where that is as good as the most.
    pub(super) fn check(&self) -> Result<(), GatewayError> {
        let most = self.0.most;
        match self.0.bytes.load(Relaxed) {
            bytes if bytes >= most - most / 64 => Err(self.refusal()),
            _ => Ok(()),
        }
    }

    /// Counts a message of so many bytes. A single one may wait whatever its size.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, GatewayError> {
        let waiting = self.0.bytes.load(Relaxed);
        if waiting > 0 && waiting.saturating_add(bytes) > self.0.most {
            return Err(self.refusal());
        }
        Ok(self.count(bytes))
    }

    /// Counts bytes that were let in already.
    fn count(&self, bytes: usize) -> Held {
        self.0.bytes.fetch_add(bytes, Relaxed);
        Held { account: self.clone(), bytes }
    }

    fn refusal(&self) -> GatewayError {
        GatewayError::AnswersUntaken { most: self.0.most }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.0.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Answer {
    /// The same as `body`, for the client of which `untaken` tells. Where its messages were `let_in`,
    /// none is refused here: it would end those behind it, too.
    pub(super) fn new(body: tonic::body::Body, untaken: Untaken, let_in: bool) -> Self {
        Self { body, untaken, let_in, rest: Bytes::new(), held: None }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        LAST.set(Some(Polled::HandedOn));
        let length = match self.rest.len() {
            short @ ..=SHORT => short,
            long => PIECE.min(long - 1),
        };
        Frame::data(self.rest.split_to(length))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let answer = &mut *self;
        if !answer.rest.is_empty() {
            return Poll::Ready(Some(Ok(answer.next_piece())));
        }
        answer.held = None;
        let Poll::Ready(frame) = Pin::new(&mut answer.body).poll_frame(context) else {
            LAST.set(Some(Polled::Waits));
            return Poll::Pending;
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        let held = match data.len() {
            ..=SHORT => Ok(None),
            long if answer.let_in => Ok(Some(answer.untaken.count(long))),
            long => answer.untaken.hold(long).map(Some),
        };
        match held {
            Ok(held) => {
                answer.held = held;
                answer.rest = data;
                Poll::Ready(Some(Ok(answer.next_piece())))
            }
            Err(error) => {
                answer.body = tonic::body::Body::empty();
                let mut trailers = HeaderMap::new();
                Status::from(error).add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Runs a call to its end, or until its client has taken nothing of its answer for `patience`. Not an
/// `async fn`, which would take the room of the call twice.
pub(crate) fn while_taken<F: Future>(
    call: F,
    patience: Duration,
) -> impl Future<Output = Result<((), ()), GivenUp>> {
    let call = call.map(|_| {
        LAST.set(Some(Polled::Ended));
        Ok(())
    });
    let mut wait: Option<Pin<Box<Sleep>>> = None;
    // It is polled right behind the call.
    let watch = poll_fn(move |context| {
        match (LAST.take(), &mut wait) {
            (Some(Polled::Ended), _) => return Poll::Ready(Ok(())),
            (Some(Polled::HandedOn), Some(wait)) => wait.as_mut().reset(Instant::now() + patience),
            (Some(Polled::HandedOn), None) => wait = Some(Box::pin(sleep(patience))),
            (Some(Polled::Waits), _) => wait = None,
            (None, _) => {}
        }
        let Some(wait) = &mut wait else { return Poll::Pending };
        wait.as_mut().poll(context).map(|()| Err(GivenUp))
    });
    try_join(call, watch)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;

    use bytes::Bytes;
    use http_body::Body;
    use http_body_util::Full;

    use super::{Answer, MOST_BODIES, PIECE, SHORT, Untaken};

    /// Of an answer that is not short, HTTP/2 is handed the last byte when there is room for the rest.
    #[tokio::test]
    async fn a_short_answer_is_one_piece_and_a_long_one_ends_in_a_byte() {
        for (length, expected) in [
            (1, vec![1]),
            (SHORT, vec![SHORT]),
            (SHORT + 1, vec![SHORT, 1]),
            (PIECE, vec![PIECE - 1, 1]),
            (PIECE + 1, vec![PIECE, 1]),
            (2 * PIECE + 5000, vec![PIECE, PIECE, 4999, 1]),
        ] {
            let untaken = Untaken::new(PIECE);
            let whole = tonic::body::Body::new(Full::new(Bytes::from(vec![7; length])));
            let mut answer = Answer::new(whole, untaken.clone(), false);
            let mut pieces = Vec::new();
            while let Some(piece) = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
                pieces.push(piece.unwrap().into_data().unwrap().len());
            }
            assert_eq!(pieces, expected);
            assert_eq!(untaken.0.bytes.load(super::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn what_was_let_in_is_sent_however_much_waits() {
        for (let_in, is_sent) in [(true, true), (false, false)] {
            let untaken = Untaken::new(PIECE);
            let _others = untaken.hold(MOST_BODIES * PIECE).unwrap();
            let whole = tonic::body::Body::new(Full::new(Bytes::from(vec![7; PIECE])));
            let mut answer = Answer::new(whole, untaken, let_in);
            let first = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap();
            assert_eq!(first.unwrap().is_data(), is_sent, "{let_in}");
        }
    }

    #[test]
    fn what_waits_for_one_client_is_bounded_and_one_answer_always_may() {
        let untaken = Untaken::new(PIECE);
        let whole = MOST_BODIES * PIECE;
        let large = untaken.hold(10 * whole).unwrap();
        assert!(untaken.check().is_err());
        assert!(untaken.hold(1).is_err());
        drop(large);
        let half = untaken.hold(whole / 2).unwrap();
        assert!(untaken.check().is_ok());
        assert!(untaken.hold(whole / 2 + 1).is_err());
        let other_half = untaken.hold(whole / 2).unwrap();
        assert!(untaken.check().is_err());
        drop((half, other_half));
        assert!(untaken.check().is_ok());
    }
}
