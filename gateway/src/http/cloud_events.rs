//! CloudEvents around V1's predict requests, in both of their modes over HTTP: the attributes in
//! headers and the data as the body, or all of it as one JSON object. The answer is an event in
//! the same mode.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_protocol::ModelName;
use uuid::Uuid;

use super::base64::Base64;
use super::brief::is_list_or_text;
use super::{Body, reply};
use crate::error::{GatewayError, clip};
use crate::room::Room;
use crate::settings::CloudEvents;

/// The type of a body that is a whole event.
const STRUCTURED: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
/// What an attribute's header begins with.
const PREFIX: &str = "ce-";
/// The header that makes a request an event. Others of the prefix alone do not: proxies add them.
const VERSION_HEADER: &str = "ce-specversion";
/// The specification's version that is written, and those that are read.
const VERSION: &str = "1.0";
const READ_VERSIONS: [&str; 2] = [VERSION, "0.3"];
/// What every event must have.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// Attributes that an answer has of its own, and the data.
const OWN: [&str; 7] = ["specversion", "id", "source", "type", "time", "data", "data_base64"];

/// How a request came, and so how its answer goes back. With it the request's attributes that an
/// answer repeats.
#[derive(Debug)]
pub(super) enum Envelope {
    None,
    Binary(HeaderMap),
    Structured(BTreeMap<String, Box<RawValue>>),
}

/// Takes the data out of a request that says that it is an event.
pub(super) fn open(
    headers: &HeaderMap,
    body: &Bytes,
    settings: &CloudEvents,
    room: &Room,
) -> Result<(Envelope, Bytes), GatewayError> {
    if headers.contains_key(VERSION_HEADER) {
        check(|name| {
            let value = headers.get(format!("{PREFIX}{name}"))?;
            value.to_str().ok().map(Cow::Borrowed)
        })?;
        let repeated = if settings.merge { repeated_headers(headers) } else { HeaderMap::new() };
        return Ok((Envelope::Binary(repeated), body.clone()));
    }
    if !is_structured(headers) {
        return Ok((Envelope::None, body.clone()));
    }
    let event = Event::read(body)?;
    check(|name| event.text(name))?;
    event.open(body, settings, room)
}

/// Takes the data out of a body that is an event without saying so: one that has everything that
/// KServe knows an event by.
pub(super) fn open_undeclared(
    body: &Bytes,
    settings: &CloudEvents,
    room: &Room,
) -> Result<Option<(Envelope, Bytes)>, GatewayError> {
    let event = Event::read(body)?;
    if event.data.is_none() || event.time.is_none() || !REQUIRED.iter().all(|name| event.has(name))
    {
        return Ok(None);
    }
    check(|name| event.text(name))?;
    event.open(body, settings, room).map(Some)
}

/// What is wrong with an event's data that is no JSON, which tensors must be in.
pub(super) fn no_json(headers: &HeaderMap, error: &serde_json::Error) -> GatewayError {
    let declared =
        ["ce-datacontenttype", "ce-contenttype", "ce-content-type", CONTENT_TYPE.as_str()];
    let declared = declared.into_iter().find_map(|name| headers.get(name)?.to_str().ok());
    GatewayError::Invalid(match declared {
        Some(other) if !other.contains("json") => {
            format!(
                "cloudevent data of type {:?} is not understood; send a predict request in JSON",
                clip(other)
            )
        }
        _ => format!("Failed to decode or parse binary json cloudevent: {error}"),
    })
}

fn is_structured(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let name = value.split(|&byte| byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(STRUCTURED.as_bytes())
}

/// Checks the attributes that an event must have; `text` gives one by name.
fn check<'a>(text: impl Fn(&str) -> Option<Cow<'a, str>>) -> Result<(), GatewayError> {
    let invalid = |text| Err(GatewayError::Invalid(text));
    let given = |name: &&&str| text(name).is_none_or(|text| text.is_empty());
    let missing: Vec<&str> = REQUIRED.iter().filter(given).copied().collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return invalid(format!("Cloud Event Exceptions: Missing required fields: {missing}"));
    }
    let version = text("specversion").unwrap_or_default();
    if READ_VERSIONS.contains(&&*version) {
        return Ok(());
    }
    let version = clip(&version);
    invalid(format!(
        "Cloud Event Exceptions: Found invalid specversion {version:?}; send {VERSION}"
    ))
}

/// The attributes of an event in headers that its answer repeats.
fn repeated_headers(headers: &HeaderMap) -> HeaderMap {
    let repeated = headers.iter().filter(|(name, _)| {
        let attribute = name.as_str().strip_prefix(PREFIX);
        attribute.is_some_and(|name| !OWN.contains(&name) && name != "datacontenttype")
    });
    repeated.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An event that is one JSON object.
#[derive(Deserialize)]
struct Event<'b> {
    #[serde(borrow, default)]
    specversion: Option<&'b RawValue>,
    #[serde(borrow, default)]
    id: Option<&'b RawValue>,
    #[serde(borrow, default)]
    source: Option<&'b RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'b RawValue>,
    #[serde(borrow, default)]
    time: Option<&'b RawValue>,
    #[serde(borrow, default)]
    data: Option<&'b RawValue>,
    #[serde(borrow, default)]
    data_base64: Option<&'b RawValue>,
}

impl<'b> Event<'b> {
    fn read(body: &'b Bytes) -> Result<Self, GatewayError> {
        if is_list_or_text(body) {
            let text = "request body is no cloudevent: it is no JSON object";
            return Err(GatewayError::Invalid(text.to_owned()));
        }
        serde_json::from_slice(body).map_err(|error| {
            GatewayError::Invalid(format!("request body is no cloudevent: {error}"))
        })
    }

    fn attribute(&self, name: &str) -> Option<&'b RawValue> {
        match name {
            "specversion" => self.specversion,
            "id" => self.id,
            "source" => self.source,
            "type" => self.kind,
            _ => None,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// A required attribute, if it is a text. What is looked at is whether there is one, and the
    /// version; a long one is not copied for that.
    fn text(&self, name: &str) -> Option<Cow<'b, str>> {
        let json = self.attribute(name)?.get();
        if json.len() > 1000 {
            return json.starts_with('"').then_some(json.into());
        }
        serde_json::from_str::<String>(json).ok().map(Cow::Owned)
    }

    fn open(
        &self,
        body: &Bytes,
        settings: &CloudEvents,
        room: &Room,
    ) -> Result<(Envelope, Bytes), GatewayError> {
        let data = match (self.data, self.data_base64) {
            (Some(data), _) => body.slice_ref(data.get().as_bytes()),
            (None, Some(data)) => binary_data(data, room)?,
            (None, None) => {
                let text = "Cloud Event Exceptions: Missing required fields: data";
                return Err(GatewayError::Invalid(text.to_owned()));
            }
        };
        let repeated =
            if settings.merge { repeated_attributes(body, room)? } else { BTreeMap::new() };
        Ok((Envelope::Structured(repeated), data))
    }
}

fn binary_data(data: &RawValue, room: &Room) -> Result<Bytes, GatewayError> {
    let invalid = |reason: String| GatewayError::Invalid(format!("data_base64: {reason}"));
    let length = data.get().len();
    room.take(length)?;
    // A copy, and where it is not plain, the buffers in which it becomes that.
    let plain = !data.get().contains(['\\', ' ']);
    let _buffers = room.lend(if plain { length } else { length.saturating_mul(5) })?;
    let text = format!("{{\"b64\":{}}}", data.get());
    let object: Base64<'_> =
        serde_json::from_str(&text).map_err(|_| invalid("must be a text".to_owned()))?;
    object.decode().map_err(invalid)
}

fn repeated_attributes(
    body: &Bytes,
    room: &Room,
) -> Result<BTreeMap<String, Box<RawValue>>, GatewayError> {
    Repeated(room).deserialize(&mut serde_json::Deserializer::from_slice(body)).map_err(|error| {
        let text = format!("request body is no cloudevent: {error}");
        room.reason(GatewayError::Invalid(text))
    })
}

/// Reads the attributes that an answer repeats.
struct Repeated<'r>(&'r Room);

impl<'de> DeserializeSeed<'de> for Repeated<'_> {
    type Value = BTreeMap<String, Box<RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Repeated<'_> {
    type Value = BTreeMap<String, Box<RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut repeated = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value: &RawValue = map.next_value()?;
            if OWN.contains(&name.as_str()) {
                continue;
            }
            // A node of a tree is half empty at worst.
            let entry = 2 * size_of::<(String, Box<RawValue>)>() + 32;
            self.0.take(entry + name.len() + value.get().len()).map_err(A::Error::custom)?;
            repeated.insert(name, value.to_owned());
        }
        Ok(repeated)
    }
}

/// The attributes of an answer.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    time: &'a str,
    #[serde(flatten)]
    repeated: &'a BTreeMap<String, Box<RawValue>>,
}

impl Envelope {
    /// The reply that holds `answer`, a JSON object without white space.
    pub(super) fn close(
        &self,
        answer: Vec<u8>,
        model: &ModelName,
        settings: &CloudEvents,
    ) -> Response<Body> {
        match self {
            Self::None => reply::with_body(200, reply::JSON, answer.into()),
            Self::Structured(repeated) => {
                let own = Own::new(model, settings);
                let attributes = Attributes {
                    specversion: VERSION,
                    id: &own.id,
                    source: &own.source,
                    kind: &settings.kind,
                    time: &own.time,
                    repeated,
                };
                let mut event = serde_json::to_vec(&attributes).expect("replies have text keys");
                // The data may hold words that are no JSON, so it is put in as it is.
                event.pop();
                event.extend_from_slice(b",\"data\":");
                event.extend_from_slice(&answer);
                event.push(b'}');
                reply::with_body(200, STRUCTURED, event.into())
            }
            Self::Binary(repeated) => {
                let own = Own::new(model, settings);
                let mut reply = reply::with_body(200, reply::JSON, spaced(&answer).into());
                let headers = reply.headers_mut();
                headers.extend(repeated.clone());
                let attributes = [
                    ("ce-specversion", VERSION),
                    ("ce-id", &own.id),
                    ("ce-source", &own.source),
                    ("ce-type", &settings.kind),
                    ("ce-time", &own.time),
                ];
                for (name, value) in attributes {
                    let value = HeaderValue::from_str(value).expect("checked with the settings");
                    headers.insert(HeaderName::from_static(name), value);
                }
                reply
            }
        }
    }
}

/// What an answer says of itself.
struct Own {
    id: String,
    time: String,
    source: String,
}

impl Own {
    fn new(model: &ModelName, settings: &CloudEvents) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            time: humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
            source: settings.source_of(model),
        }
    }
}

/// JSON with a space behind every comma and colon, as Python's `json.dumps` writes it, and so
/// KServe the answers to events in headers.
fn spaced(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    let (mut in_text, mut escaped) = (false, false);
    for &byte in json {
        out.push(byte);
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        in_text = byte == b'"';
        if matches!(byte, b',' | b':') {
            out.push(b' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn answers_are_spaced_as_python_does_it() {
        for (json, expected) in [
            (r#"{"predictions":[[1,2]]}"#, r#"{"predictions": [[1, 2]]}"#),
            (r#"[{"a":[],"b":{}},NaN]"#, r#"[{"a": [], "b": {}}, NaN]"#),
            (r#"["x,y:z","\\",1]"#, r#"["x,y:z", "\\", 1]"#),
            (r#"["\"",":\\\",",2]"#, r#"["\"", ":\\\",", 2]"#),
        ] {
            assert_eq!(String::from_utf8(spaced(json.as_bytes())).unwrap(), expected);
        }
    }
}
