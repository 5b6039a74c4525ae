//! A request's body, with a bound on the time that it may take to come.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use sluice_protocol::Code;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::error::GatewayError;
use crate::shared::Shared;

/// What comes of a request. All of it must be there within the time that an answer may take.
pub(super) struct Body {
    incoming: Incoming,
    shared: Arc<Shared>,
    /// Runs from the first moment that there was nothing to read. Most requests come whole and
    /// need no timer.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) const fn new(incoming: Incoming, shared: Arc<Shared>) -> Self {
        Self { incoming, shared, patience: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { incoming, shared, patience } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timeout = shared.limits().request_timeout;
        let patience = patience.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(patience.as_mut().poll(context));
        shared.metrics.count_unrouted(Code::DeadlineExceeded);
        Poll::Ready(Some(Err(Status::from(GatewayError::BodyTimeout(timeout)).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
