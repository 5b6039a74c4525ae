//! A call's parameters: the query of a GET, the JSON object in the body of anything else,
//! DELETE included.

use axum::extract::{FromRequest, Query, Request};
use axum::http::{Method, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sluice_protocol::{ModelName, ModelVersion};

use super::answer::Refusal;
use super::body::collect;
use crate::{RegistryError, Result};

/// The longest JSON body.
const MAX_BODY: usize = 1 << 20;

/// The parameters of one call, by name.
#[derive(Debug, Default)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// A text that must be there and must not be empty.
    pub(super) fn text(&self, name: &str) -> Result<&str> {
        self.optional_text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| missing(name))
    }

    /// A text that may be absent.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(invalid(name, other)),
        }
    }

    /// The model's name.
    pub(super) fn name(&self, name: &str) -> Result<ModelName> {
        Ok(self.text(name)?.parse()?)
    }

    /// The version, as text or number.
    pub(super) fn version(&self) -> Result<ModelVersion> {
        match self.0.get("version") {
            Some(Value::Number(number)) => Ok(number.to_string().parse()?),
            _ => Ok(self.text("version")?.parse()?),
        }
    }

    /// A whole number up to `most`, as text or number.
    pub(super) fn number(&self, name: &str, default: u32, most: u32) -> Result<u32> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(default),
            Some(value @ Value::Number(number)) => {
                number.as_u64().ok_or_else(|| invalid(name, value))?
            }
            Some(value @ Value::String(text)) => text.parse().map_err(|_| invalid(name, value))?,
            Some(other) => return Err(invalid(name, other)),
        };
        match u32::try_from(number) {
            Ok(number) if number <= most => Ok(number),
            _ => Err(RegistryError::InvalidArgument(format!(
                "Invalid value {number} for parameter '{name}' supplied: it must be at most {most}"
            ))),
        }
    }

    /// A list; a single text counts as a list of one, as queries write it.
    pub(super) fn list<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let items = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items.clone(),
            Some(text @ Value::String(_)) => vec![text.clone()],
            Some(other) => return Err(invalid(name, other)),
        };
        items
            .into_iter()
            .map(|item| serde_json::from_value(item.clone()).map_err(|_| invalid(name, &item)))
            .collect()
    }

    fn from_query(pairs: Vec<(String, String)>) -> Self {
        let mut map: Map<String, Value> = Map::new();
        for (key, value) in pairs {
            match map.get_mut(&key) {
                None => drop(map.insert(key, Value::String(value))),
                Some(Value::Array(items)) => items.push(Value::String(value)),
                Some(single) => *single = Value::Array(vec![single.take(), Value::String(value)]),
            }
        }
        Self(map)
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        if request.method() == Method::GET || request.method() == Method::HEAD {
            let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
                .map_err(|error| RegistryError::InvalidArgument(error.body_text()))?;
            return Ok(Self::from_query(query.0));
        }
        let named = content_type(&request);
        let body = collect(request.into_body(), MAX_BODY).await?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        check_type(named.as_deref())?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(RegistryError::InvalidArgument("body is not a JSON object".into()).into()),
            Err(error) => {
                Err(RegistryError::InvalidArgument(format!("body is not JSON: {error}")).into())
            }
        }
    }
}

fn content_type(request: &Request) -> Option<String> {
    let given = request.headers().get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(given.split(';').next().unwrap_or_default().trim().to_owned())
}

/// Refuses bodies that do not say they are JSON. A web page of another site can send those
/// without being asked, and so change the registry in a visitor's name.
fn check_type(given: Option<&str>) -> Result<()> {
    let found = match given {
        Some(given) if given.eq_ignore_ascii_case("application/json") => return Ok(()),
        Some(given) => format!("not {given:?}"),
        None => "and is missing".to_owned(),
    };
    Err(RegistryError::InvalidArgument(format!("Content-Type must be application/json, {found}")))
}

fn missing(name: &str) -> RegistryError {
    RegistryError::InvalidArgument(format!("Missing value for required parameter '{name}'"))
}

fn invalid(name: &str, value: &Value) -> RegistryError {
    let shown: String = value.to_string().chars().take(200).collect();
    RegistryError::InvalidArgument(format!("Invalid value {shown} for parameter '{name}' supplied"))
}
