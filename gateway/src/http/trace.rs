//! The trace extension over HTTP.

use serde_json::{Map, Value};

use crate::control::trace::{Asked, TraceValue, settings, update};
use crate::error::GatewayError;
use crate::shared::Shared;

/// `GET /v2/trace/setting`, or that of a model.
pub(super) fn read(shared: &Shared, model: Option<&str>) -> Result<Value, GatewayError> {
    let all = settings(shared, model)?.into_iter().map(|(name, value)| {
        let value = match value {
            TraceValue::One(text) => Value::from(text),
            TraceValue::Many(texts) => Value::from(texts),
        };
        (name.to_owned(), value)
    });
    Ok(Value::Object(all.collect()))
}

/// `POST`: changes what the body names, and answers with all settings.
pub(super) fn write(
    shared: &Shared,
    model: Option<&str>,
    body: &[u8],
) -> Result<Value, GatewayError> {
    let changes: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Invalid(format!("trace settings are a JSON object: {error}"))
    })?;
    update(shared, model, changes.into_iter().map(|(name, value)| (name, asked(value))))?;
    read(shared, model)
}

fn asked(value: Value) -> Asked {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Null => Asked::Clear,
        Value::String(text) => Asked::One(text),
        Value::Array(values) => match values.iter().map(text).collect() {
            Some(texts) => Asked::Many(texts),
            None => Asked::Other(Value::Array(values).to_string()),
        },
        other => Asked::Other(other.to_string()),
    }
}
