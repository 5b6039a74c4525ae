//! HTTP/2 without TLS, one request at a time: by h2 itself, since hyper's client has a task and a
//! channel between the caller and it, which cost as much as the rest.

use std::io;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Answer, LARGEST_ANSWER, Unanswered};
use crate::check::{Failure, Fault};

/// How much a server may send ahead, of one answer and of all; the largest that HTTP/2 knows is
/// 2 GiB.
const WINDOW: u32 = 16 << 20;

#[derive(Debug)]
pub(super) struct Sender(SendRequest<Bytes>);

/// What sends over `stream`, and what moves its bytes.
pub(super) async fn open(stream: TcpStream) -> io::Result<(Sender, JoinHandle<()>)> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    // Its errors reach the request under way through its stream.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((Sender(sender), driver))
}

impl Sender {
    pub(super) async fn is_usable(&mut self) -> bool {
        std::future::poll_fn(|context| self.0.poll_ready(context)).await.is_ok()
    }

    pub(super) async fn ask(&mut self, request: Request<Bytes>) -> Result<Answer, Unanswered> {
        let (head, body) = request.into_parts();
        let again = || Box::new(Request::from_parts(head.clone(), body.clone()));
        let failed = |error: h2::Error| {
            // What came too late for a server that leaves is named so in its farewell.
            let unseen = error.reason() == Some(Reason::REFUSED_STREAM)
                || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
            if unseen { Unanswered::Unseen(again()) } else { Unanswered::Failed(broken(&error)) }
        };
        let ended = body.is_empty();
        let (response, mut sending) =
            self.0.send_request(Request::from_parts(head.clone(), ()), ended).map_err(failed)?;
        if !ended {
            sending.send_data(body.clone(), true).map_err(failed)?;
        }
        let response = response.await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let (body, trailers) = read(body).await.map_err(Unanswered::Failed)?;
        let (status, headers) = (head.status, head.headers);
        let trailers = trailers.unwrap_or_else(|| headers.clone());
        Ok(Answer { status, headers, body, trailers })
    }
}

async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), Fault> {
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if first.len() + rest.len() + chunk.len() > LARGEST_ANSWER {
            let detail = format!("an answer of more than {LARGEST_ANSWER} bytes");
            return Err(Fault { failure: Failure::Protocol, detail });
        }
        body.flow_control().release_capacity(chunk.len()).map_err(|error| broken(&error))?;
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
    let whole = if rest.is_empty() { first } else { [&first[..], &rest].concat().into() };
    Ok((whole, trailers))
}

/// Tells a connection that went away from one that talks nonsense.
fn broken(error: &h2::Error) -> Fault {
    let closed = error.is_io() || error.is_go_away() || error.is_remote();
    let failure = if closed { Failure::Closed } else { Failure::Protocol };
    Fault { failure, detail: error.to_string() }
}
