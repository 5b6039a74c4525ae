//! Replies: JSON bodies, and errors as an object with the one key `error`.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use crate::error::GatewayError;

/// The body of every reply: known whole.
pub(crate) type Body = Full<Bytes>;

/// Exactly this, since KServe's client reads errors only behind a bare type.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON reply.
pub(super) fn json(status: u16, value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("replies have text keys");
    with_body(status, JSON, body.into())
}

/// A reply with `body` of type `content_type`.
pub(super) fn with_body(status: u16, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("our statuses are valid");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// An error's reply: its code's status and its text.
pub(super) fn error(error: &GatewayError) -> Response<Body> {
    let status = match error {
        GatewayError::MethodNotAllowed { .. } => 405,
        other => other.code().http_status(),
    };
    error.log();
    let mut response = json(status, &json!({"error": error.message()}));
    let headers = response.headers_mut();
    match error {
        GatewayError::MethodNotAllowed { allowed, .. } => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        GatewayError::Overloaded { waiting, .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(waiting.as_secs().max(1)));
        }
        GatewayError::QueueFull { .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(1));
        }
        // The rest of the body may still come; nobody will read it.
        GatewayError::BodyTimeout(_) => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}
