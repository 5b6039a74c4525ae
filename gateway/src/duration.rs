//! Spans of time as people write them: `500us`, `30s`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads a span that a settings file gives as text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}
