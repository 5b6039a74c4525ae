//! Reads a request's body within its limit.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::error::GatewayError;

/// The whole body. One that says it is too long is refused unread.
pub(super) async fn read(
    headers: &HeaderMap,
    incoming: Incoming,
    limit: usize,
) -> Result<Bytes, GatewayError> {
    check_encoding(headers)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(GatewayError::TooLarge { limit });
    }
    match Limited::new(incoming, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(GatewayError::TooLarge { limit }),
        Err(error) => Err(GatewayError::Invalid(format!("request body broke off: {error}"))),
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), GatewayError> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(()) };
    if encoding.is_empty() || encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    Err(GatewayError::UnsupportedEncoding(format!(
        "content encoding {encoding:?} is not understood; send the body as it is"
    )))
}
