//! Replies: JSON bodies, and errors as an object with the one key `error`.

use bytes::Bytes;
use futures::FutureExt;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::json;

use super::coding;
use crate::error::{GatewayError, RetryHint};

/// When to try again, to the millisecond: several client libraries look at it before the standard's
/// own header, which has whole seconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Keeps Envoy from trying again by itself, whatever its value.
const DO_NOT_RETRY: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

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

/// The reply compressed, if it has at least `least` bytes and `asked` asks for it.
pub(super) async fn compressed(
    reply: Response<Body>,
    asked: &HeaderMap,
    least: usize,
) -> Response<Body> {
    let Some(coding) = coding::asked(asked) else { return reply };
    let (mut head, body) = reply.into_parts();
    // It is there already, whole.
    let Some(Ok(body)) = body.collect().now_or_never() else {
        return Response::from_parts(head, Full::default());
    };
    let body = body.to_bytes();
    let smaller = if body.len() < least { None } else { coding::compress(coding, &body).await };
    if smaller.is_some() {
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    Response::from_parts(head, Full::new(smaller.unwrap_or(body)))
}

/// The status that an error is told with.
pub(super) fn status(error: &GatewayError) -> u16 {
    match error {
        GatewayError::MethodNotAllowed { .. } => 405,
        other => other.code().http_status(),
    }
}

/// An error's reply: its code's status and its text.
pub(crate) fn error(error: &GatewayError) -> Response<Body> {
    error.log();
    let mut response = json(status(error), &json!({"error": error.message()}));
    let headers = response.headers_mut();
    match error {
        GatewayError::MethodNotAllowed { allowed, .. } => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        GatewayError::Unauthenticated { unknown } => {
            headers.insert(WWW_AUTHENTICATE, challenge(*unknown));
        }
        GatewayError::Overloaded { retry, .. } => add_retry_hint(headers, *retry),
        GatewayError::QueueFull { .. } | GatewayError::TenantFull { .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(1));
        }
        GatewayError::UnsupportedEncoding(_) => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding::CODINGS));
        }
        // The rest of the body may still come; nobody will read it.
        GatewayError::BodyTimeout(_)
        | GatewayError::TooLarge { .. }
        | GatewayError::SmallChunks { .. } => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

/// Says when to try again, in the seconds of the standard and to the millisecond; or, where retries
/// are not welcome, in the way that keeps Envoy from trying by itself.
fn add_retry_hint(headers: &mut HeaderMap, retry: RetryHint) {
    let seconds = retry.after.as_millis().div_ceil(1000).max(1);
    headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
    if retry.welcome {
        let milliseconds = u64::try_from(retry.after.as_millis().max(1)).unwrap_or(u64::MAX);
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
    } else {
        headers.insert(DO_NOT_RETRY, HeaderValue::from_static("true"));
    }
}

/// What a request without a token that is good is asked for, as RFC 6750 has it.
const fn challenge(unknown: bool) -> HeaderValue {
    HeaderValue::from_static(if unknown { "Bearer error=\"invalid_token\"" } else { "Bearer" })
}
