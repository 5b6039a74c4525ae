//! The model repository over HTTP: Triton's routes and bodies, KServe's answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::Response;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Body, reply};
use crate::control::repository::{self, LoadParameter, LoadParameters};
use crate::error::{GatewayError, clip};
use crate::shared::Shared;

/// Base64 with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IndexRequest {
    ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadRequest<'b> {
    // Kept as they came: a file's text may be most of a large body.
    #[serde(borrow)]
    parameters: Option<BTreeMap<String, &'b RawValue>>,
}

/// A JSON text, of which only one with escapes is copied.
#[derive(Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

/// `POST /v2/repository/index`: an array, not an object.
pub(super) async fn index(shared: &Shared, body: &[u8]) -> Result<Response<Body>, GatewayError> {
    let IndexRequest { ready } = parse(body)?;
    Ok(reply::json(200, &repository::index(shared, ready.unwrap_or(false)).await))
}

/// `POST /v2/repository/models/{model}/load`.
pub(super) async fn load(
    shared: &Shared,
    model: &str,
    body: Bytes,
) -> Result<Response<Body>, GatewayError> {
    let parameters = parameters(&body)?;
    // What was read out of it is enough to hold while others load.
    drop(body);
    let model = repository::load(shared, model, parameters).await?;
    Ok(reply::json(200, &json!({"name": model, "load": true})))
}

/// `POST /v2/repository/models/{model}/unload`.
pub(super) async fn unload(
    shared: &Shared,
    model: &str,
    body: &[u8],
) -> Result<Response<Body>, GatewayError> {
    let model = repository::unload(shared, model, parameters(body)?).await?;
    Ok(reply::json(200, &json!({"name": model, "unload": true})))
}

/// The refusal of a repository's name, in Triton's words.
pub(super) fn named() -> GatewayError {
    repository::named()
}

fn parameters(body: &[u8]) -> Result<LoadParameters, GatewayError> {
    let LoadRequest { parameters } = parse(body)?;
    let parameters = parameters.unwrap_or_default().into_iter();
    parameters.map(|(name, value)| Ok((name.clone(), parameter(&name, value)?))).collect()
}

fn parameter(name: &str, value: &RawValue) -> Result<LoadParameter, GatewayError> {
    let refuse = |reason: &dyn std::fmt::Display| {
        GatewayError::Invalid(format!("parameter {:?} {reason}", clip(name)))
    };
    let value = value.get();
    if let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(value) {
        if !repository::is_file(name) {
            return Ok(LoadParameter::Text(text.into_owned()));
        }
        let bytes = BASE64.decode(text.as_bytes());
        let bytes = bytes.map_err(|error| refuse(&format_args!("is no base64: {error}")))?;
        return Ok(LoadParameter::Bytes(bytes.into()));
    }
    if let Ok(value) = serde_json::from_str::<bool>(value) {
        return Ok(LoadParameter::Bool(value));
    }
    let number = serde_json::from_str::<i64>(value).map(LoadParameter::Int64);
    number.map_err(|_| refuse(&"must be a text, a whole number, true or false"))
}

/// A body that may be left out.
fn parse<'b, T: Default + Deserialize<'b>>(body: &'b [u8]) -> Result<T, GatewayError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let refuse = |reason: String| GatewayError::Invalid(format!("request body {reason}"));
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(refuse("must be a JSON object, or left out".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| refuse(format!("is not understood: {error}")))
}
