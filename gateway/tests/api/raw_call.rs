//! gRPC calls byte by byte: what no client library sends.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{Caller, within};

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>;

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: tonic::Code,
    pub(crate) message: String,
    /// Headers and trailers.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection for calls that are written by hand.
pub(crate) struct RawCaller(http2::SendRequest<StreamBody<Pieces>>);

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

impl RawCaller {
    pub(crate) async fn connect(caller: &Caller) -> Self {
        let stream = TcpStream::connect(caller.addresses.grpc).await.unwrap();
        let (send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// One call of these bytes, and what comes of it.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        bytes: impl Into<Bytes>,
    ) -> Ended {
        let pieces = stream::iter([bytes.into()]);
        within(path, self.send(path, headers, pieces)).await
    }

    /// The same with bytes in pieces, which may be slow to come.
    pub(crate) async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Ended {
        let response = self.begin(path, headers, pieces).await;
        let (head, body) = response.into_parts();
        let mut headers = head.headers;
        let collected = body.collect().await.unwrap();
        headers.extend(collected.trailers().cloned().unwrap_or_default());
        let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
        let code = match text("grpc-status") {
            "" => tonic::Code::Unknown,
            code => tonic::Code::from_bytes(code.as_bytes()),
        };
        let message = percent_decoded(text("grpc-message"));
        Ended { code, message, headers, body: collected.to_bytes() }
    }

    /// Sends a call whose answer somebody else reads.
    pub(crate) async fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl Stream<Item = Bytes> + Send + 'static,
    ) -> http::Response<Incoming> {
        let mut request = http::Request::post(format!("http://gateway{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let pieces: Pieces = Box::pin(pieces.map(|bytes| Ok(Frame::data(bytes))));
        self.0.send_request(request.body(StreamBody::new(pieces)).unwrap()).await.unwrap()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at(2);
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Bytes, and then nothing for as long as anybody waits.
pub(crate) fn and_then_silence(bytes: Bytes) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::iter([bytes]).chain(stream::pending())
}

/// A short while, for what must not happen meanwhile.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
