//! The logging extension over HTTP.

use serde_json::{Map, Value};

use crate::control::logging::{LogValue, settings, update};
use crate::error::GatewayError;

/// `GET /v2/logging`.
pub(super) fn read() -> Value {
    let all = settings().into_iter().map(|(name, value)| {
        let value = match value {
            LogValue::Bool(value) => value.into(),
            LogValue::Number(value) => value.into(),
            LogValue::Text(value) => value.into(),
        };
        (name.to_owned(), value)
    });
    Value::Object(all.collect())
}

/// `POST /v2/logging`: changes what the body names, and answers with all settings.
pub(super) fn write(body: &[u8]) -> Result<Value, GatewayError> {
    let changes: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Invalid(format!("log settings are a JSON object: {error}"))
    })?;
    update(changes.into_iter().map(|(name, value)| (name, log_value(&value))))?;
    Ok(read())
}

/// The value, if it is of a type that some setting has.
fn log_value(value: &Value) -> Option<LogValue> {
    match value {
        Value::Bool(value) => Some(LogValue::Bool(*value)),
        Value::String(text) => Some(LogValue::Text(text.clone())),
        Value::Number(number) => {
            number.as_u64().and_then(|n| u32::try_from(n).ok()).map(LogValue::Number)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
