//! HTTP/1.1, by hyper.

use std::error::Error as _;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Answer, LARGEST_ANSWER, Unanswered};
use crate::check::{Failure, Fault};

#[derive(Debug)]
pub(super) struct Sender(SendRequest<Full<Bytes>>);

/// What sends over `stream`, and what moves its bytes.
pub(super) async fn open(stream: TcpStream) -> io::Result<(Sender, JoinHandle<()>)> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its errors reach the request under way through the sender.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((Sender(sender), driver))
}

impl Sender {
    pub(super) async fn is_usable(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    pub(super) async fn ask(&mut self, request: Request<Bytes>) -> Result<Answer, Unanswered> {
        let (head, body) = request.into_parts();
        // One body is kept for another try, without a copy of it.
        let again = body.clone();
        match self.0.try_send_request(Request::from_parts(head, Full::new(body))).await {
            Ok(response) => read(response).await.map_err(Unanswered::Failed),
            Err(mut error) => Err(match error.take_message() {
                Some(unwritten) => Unanswered::Unseen(Box::new(unwritten.map(|_| again))),
                None => Unanswered::Failed(broken(&error.into_error())),
            }),
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, Fault> {
    let (head, body) = response.into_parts();
    match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(body) => {
            let (status, headers, trailers) = (head.status, head.headers, HeaderMap::new());
            Ok(Answer { status, headers, body: body.to_bytes(), trailers })
        }
        Err(error) => Err(match error.downcast_ref::<hyper::Error>() {
            Some(error) => broken(error),
            None => Fault { failure: Failure::Protocol, detail: error.to_string() },
        }),
    }
}

/// Tells a connection that went away from one that talks nonsense.
fn broken(error: &hyper::Error) -> Fault {
    let from_system = std::iter::successors(error.source(), |&source| source.source())
        .any(|source| source.is::<io::Error>());
    let closed = error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.is_body_write_aborted()
        || (from_system && !error.is_parse());
    let failure = if closed { Failure::Closed } else { Failure::Protocol };
    Fault { failure, detail: error.to_string() }
}
