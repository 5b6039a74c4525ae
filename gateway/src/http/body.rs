//! Reads a request's body within its limits of size and time.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::error::GatewayError;
use crate::shared::RequestLimits;

/// The whole body. One that says it is too long is refused unread; one that does not come in
/// the time that an answer may take is given up.
pub(super) async fn read(
    headers: &HeaderMap,
    incoming: Incoming,
    limits: RequestLimits,
) -> Result<Bytes, GatewayError> {
    check_encoding(headers)?;
    let (limit, patience) = (limits.max_body, limits.request_timeout);
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(GatewayError::TooLarge { limit });
    }
    let collected = Limited::new(incoming, limit).collect();
    let Ok(collected) = tokio::time::timeout(patience, collected).await else {
        return Err(GatewayError::BodyTimeout(patience));
    };
    match collected {
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
