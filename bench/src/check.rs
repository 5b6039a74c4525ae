//! What counts as a good answer, and the kinds of failure.

use std::fmt;

use http::HeaderMap;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};
use tonic::Code;

use crate::connection::Answer;

/// What makes an answer a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Status 2xx.
    Status,
    /// Status 2xx, and the body is a JSON object without an `error`.
    Json,
    /// Status 200 and gRPC's status OK.
    Grpc,
}

/// How a request failed. It is written as text: `status 503`, `grpc Unavailable`, `timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// An answer with a status other than 2xx.
    Status(u16),
    /// A call over gRPC that ended with the status of this number.
    Grpc(i32),
    /// No connection could be opened.
    Connect,
    /// No whole answer in time.
    Timeout,
    /// The server closed the connection instead of answering.
    Closed,
    /// What came back is not HTTP, or is too large to be kept.
    Protocol,
    /// Status 2xx, but the body did not pass the check.
    Body,
}

/// A failure and what was seen of it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    pub(crate) detail: String,
}

impl Check {
    /// Judges a whole answer.
    pub(crate) fn judge(self, answer: &Answer) -> Result<(), Fault> {
        let Answer { status, body, trailers, .. } = answer;
        let fault = |failure| Err(Fault { failure, detail: excerpt(body) });
        if !status.is_success() {
            return fault(Failure::Status(status.as_u16()));
        }
        match self {
            Self::Json if !is_json_without_error(body) => fault(Failure::Body),
            Self::Status | Self::Json => Ok(()),
            Self::Grpc => ended_well(trailers),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Grpc(number) => write!(f, "grpc {:?}", Code::from_i32(*number)),
            Self::Connect => f.write_str("connect"),
            Self::Timeout => f.write_str("timeout"),
            Self::Closed => f.write_str("closed"),
            Self::Protocol => f.write_str("protocol"),
            Self::Body => f.write_str("body"),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Deserialize)]
struct Object {
    error: Option<IgnoredAny>,
}

/// What a call's last headers say of it.
fn ended_well(trailers: &HeaderMap) -> Result<(), Fault> {
    let number = trailers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    match number {
        Some(0) => Ok(()),
        Some(number) => {
            let message = trailers.get("grpc-message").map_or(&b""[..], |text| text.as_bytes());
            Err(Fault { failure: Failure::Grpc(number), detail: excerpt(message) })
        }
        None => {
            let detail = "the answer has no grpc-status".to_owned();
            Err(Fault { failure: Failure::Protocol, detail })
        }
    }
}

fn is_json_without_error(body: &[u8]) -> bool {
    // A derived struct would also be read from an array, so the brace is asked for.
    body.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Object>(body).is_ok_and(|answer| answer.error.is_none())
}

/// The start of a body, fit for a terminal.
fn excerpt(body: &[u8]) -> String {
    let head = &body[..body.len().min(800)];
    let text = String::from_utf8_lossy(head);
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderValue, StatusCode};

    use super::{Check, Failure};
    use crate::connection::Answer;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { status, body, ..Answer::default() }
    }

    #[test]
    fn answers_are_judged_by_status_and_body() {
        let json = |status: u16, body: &str| {
            Check::Json.judge(&answer(status, body)).map_err(|fault| fault.failure)
        };
        for good in [r#"{"predictions":[1]}"#, " {}", r#"{"error":null}"#] {
            assert_eq!(json(200, good), Ok(()), "{good}");
        }
        for bad in ["", "[]", "7", "{", r#"{"error":"no"}"#, r#"{"error":{}}"#, "{} {}"] {
            assert_eq!(json(200, bad), Err(Failure::Body), "{bad}");
        }
        assert_eq!(json(503, "{}"), Err(Failure::Status(503)));
        assert_eq!(json(302, "{}"), Err(Failure::Status(302)));
        assert!(Check::Status.judge(&answer(204, "")).is_ok());
    }

    #[test]
    fn calls_are_judged_by_their_trailers() {
        let judged = |status: Option<&'static str>| {
            let mut answer = answer(200, "");
            let status = status.map(|status| ("grpc-status", status));
            for (name, value) in status.into_iter().chain([("grpc-message", "busy")]) {
                answer.trailers.insert(name, HeaderValue::from_static(value));
            }
            Check::Grpc.judge(&answer).map_err(|fault| (fault.failure.to_string(), fault.detail))
        };
        assert_eq!(judged(Some("0")), Ok(()));
        let busy = ("grpc ResourceExhausted".to_owned(), "busy".to_owned());
        assert_eq!(judged(Some("8")), Err(busy));
        assert_eq!(judged(None).unwrap_err().0, "protocol");
        assert_eq!(judged(Some("many")).unwrap_err().0, "protocol");
    }

    #[test]
    fn what_was_seen_is_short_and_harmless() {
        let body = format!("\u{1b}[2J{}", "ä".repeat(1_000));
        let fault = Check::Status.judge(&answer(400, &body)).unwrap_err();
        assert_eq!(fault.detail.chars().count(), 200);
        assert!(fault.detail.starts_with(" [2Jä"));
    }
}
