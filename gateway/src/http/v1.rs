//! The V1 protocol, in the style of TensorFlow Serving's REST: rows (`instances`) or columns
//! (`inputs`) in, `predictions` or `outputs` back.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_protocol::{
    Datatype, InferRequest, InferResponse, NamedTensor, Parameter, Parameters, Tensor, TensorData,
};

use super::v2::Element;
use super::{Body, elements, reply};
use crate::catalog::Catalog;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::pipeline::{DEGRADED_VIEWS, FEATURES_AS_OF};

/// Whether the caller sent rows or columns, and so gets them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyForm {
    Rows,
    Columns,
}

#[derive(Deserialize)]
struct WireRequest<'b> {
    #[serde(borrow, default)]
    instances: Option<&'b RawValue>,
    #[serde(borrow, default)]
    inputs: Option<&'b RawValue>,
}

/// Reads a request, and the form of its answer.
pub(super) fn decode(
    deployment: &Deployment,
    body: &Bytes,
) -> Result<(InferRequest, ReplyForm), GatewayError> {
    let wire: WireRequest<'_> = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Invalid(format!("request body is no predict request: {error}"))
    })?;
    let (inputs, form) = match (wire.instances, wire.inputs) {
        (Some(rows), None) => (rows_to_tensors(deployment, rows.get())?, ReplyForm::Rows),
        (None, Some(columns)) => {
            (columns_to_tensors(deployment, columns.get())?, ReplyForm::Columns)
        }
        (Some(_), Some(_)) => return Err(invalid("request has both \"instances\" and \"inputs\"")),
        (None, None) => return Err(invalid("request has neither \"instances\" nor \"inputs\"")),
    };
    let request = InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: String::new(),
        parameters: Parameters::new(),
        inputs,
        outputs: Vec::new(),
    };
    Ok((request, form))
}

fn invalid(text: &str) -> GatewayError {
    GatewayError::Invalid(text.to_owned())
}

fn rows_to_tensors(deployment: &Deployment, text: &str) -> Result<Vec<NamedTensor>, GatewayError> {
    let Some(inner) = text.strip_prefix('[') else {
        return Err(invalid("\"instances\" must be a list"));
    };
    if !inner.trim_start().starts_with('{') {
        return Ok(vec![only_input(deployment, text)?]);
    }
    let rows: Vec<serde_json::Map<String, Value>> = serde_json::from_str(text)
        .map_err(|_| invalid("every instance must be an object when the first one is"))?;
    let names: Vec<&String> = rows.first().map(|row| row.keys().collect()).unwrap_or_default();
    for (index, row) in rows.iter().enumerate() {
        if let Some(name) = row.keys().find(|name| !names.contains(name)) {
            let reason = format!("is in instance {index} but not in instance 0");
            return Err(GatewayError::input(name, reason));
        }
    }
    names
        .iter()
        .map(|name| {
            let mut column = Vec::with_capacity(rows.len());
            for (index, row) in rows.iter().enumerate() {
                column.push(row.get(*name).ok_or_else(|| {
                    GatewayError::input(name, format!("is missing in instance {index}"))
                })?);
            }
            column_to_tensor(deployment, name, &column)
        })
        .collect()
}

fn columns_to_tensors(
    deployment: &Deployment,
    text: &str,
) -> Result<Vec<NamedTensor>, GatewayError> {
    if !text.starts_with('{') {
        return Ok(vec![only_input(deployment, text)?]);
    }
    let columns: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|error| GatewayError::Invalid(error.to_string()))?;
    columns
        .iter()
        .map(|(name, column)| match column {
            Value::Array(values) => {
                column_to_tensor(deployment, name, &values.iter().collect::<Vec<_>>())
            }
            _ => Err(GatewayError::input(name, "must be a list of rows")),
        })
        .collect()
}

/// Bare values: those of the graph's only input, parsed straight into its memory.
fn only_input(deployment: &Deployment, text: &str) -> Result<NamedTensor, GatewayError> {
    let [spec] = deployment.inputs.as_slice() else {
        return Err(GatewayError::Invalid(format!(
            "model {} has several inputs, so every instance must be an object of them",
            deployment.model
        )));
    };
    let refuse = |reason: String| GatewayError::input(&spec.name, reason);
    let parsed = elements::parse(text, spec.datatype, 0).map_err(refuse)?;
    let shape = parsed.shape.ok_or_else(|| refuse("has rows of different shapes".to_owned()))?;
    named(&spec.name, &shape, parsed.data)
}

fn named(name: &str, shape: &[usize], data: TensorData) -> Result<NamedTensor, GatewayError> {
    let shape = shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    let tensor = Tensor::new(shape, data).map_err(|error| GatewayError::shape(name, &error))?;
    Ok(NamedTensor { name: name.to_owned(), tensor })
}

/// One value a row, each a scalar or a nested list, as the input's datatype if the graph has
/// such an input, else (a raw field) as what the JSON says.
fn column_to_tensor(
    deployment: &Deployment,
    name: &str,
    column: &[&Value],
) -> Result<NamedTensor, GatewayError> {
    let own = deployment.inputs.iter().find(|spec| spec.name == name).map(|spec| spec.datatype);
    let datatype = match own {
        Some(datatype) => datatype,
        None => json_datatype(name, column)?,
    };
    let text = serde_json::to_string(column).expect("a JSON value is JSON");
    let refuse = |reason: String| GatewayError::input(name, reason);
    let parsed = elements::parse(&text, datatype, column.len()).map_err(refuse)?;
    let shape = parsed.shape.ok_or_else(|| refuse("has rows of different shapes".to_owned()))?;
    named(name, &shape, parsed.data)
}

/// The datatype of a raw field's values.
fn json_datatype(name: &str, column: &[&Value]) -> Result<Datatype, GatewayError> {
    let mut found = None;
    for (index, value) in column.iter().enumerate() {
        let own = match value {
            Value::Bool(_) => Datatype::Bool,
            Value::String(_) => Datatype::Bytes,
            Value::Number(number) if number.is_i64() => Datatype::Int64,
            Value::Number(_) => Datatype::Fp64,
            Value::Null => {
                return Err(GatewayError::input(name, format!("is null in instance {index}")));
            }
            Value::Array(_) | Value::Object(_) => {
                let reason = format!("is no single value in instance {index}");
                return Err(GatewayError::input(name, reason));
            }
        };
        found = match (found, own) {
            (None, own) => Some(own),
            (Some(before), own) if before == own => Some(own),
            (Some(Datatype::Int64), Datatype::Fp64) | (Some(Datatype::Fp64), Datatype::Int64) => {
                Some(Datatype::Fp64)
            }
            (Some(before), own) => {
                let reason = format!("is {before} in instance 0 and {own} in instance {index}");
                return Err(GatewayError::input(name, reason));
            }
        };
    }
    Ok(found.unwrap_or(Datatype::Fp64))
}

/// Writes an answer. What V1 has no place for in the body goes into headers.
pub(super) fn encode(response: &InferResponse, form: ReplyForm) -> Response<Body> {
    let mut reply = match form {
        ReplyForm::Rows => reply::json(200, &json_object("predictions", &Rows(&response.outputs))),
        ReplyForm::Columns => {
            reply::json(200, &json_object("outputs", &Columns(&response.outputs)))
        }
    };
    let facts = [
        (FEATURES_AS_OF, HeaderName::from_static("sluice-features-as-of")),
        (DEGRADED_VIEWS, HeaderName::from_static("sluice-degraded-views")),
    ];
    for (parameter, header) in facts {
        let Some(Parameter::String(text)) = response.parameters.get(parameter) else { continue };
        if let Ok(value) = HeaderValue::from_str(text) {
            reply.headers_mut().insert(header, value);
        }
    }
    reply
}

/// An object of one key.
fn json_object<'v, T: Serialize>(key: &'v str, value: &'v T) -> impl Serialize + 'v {
    std::collections::BTreeMap::from([(key, value)])
}

/// Outputs by row: bare values of a single output, objects of several.
struct Rows<'r>(&'r [NamedTensor]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0.first().and_then(|output| output.tensor.rows()).unwrap_or(0);
        let mut list = serializer.serialize_seq(Some(rows))?;
        for row in 0..rows {
            match self.0 {
                [only] => list.serialize_element(&Nested::row(&only.tensor, row))?,
                several => list.serialize_element(&RowObject(several, row))?,
            }
        }
        list.end()
    }
}

struct RowObject<'r>(&'r [NamedTensor], usize);

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for output in self.0 {
            object.serialize_entry(&output.name, &Nested::row(&output.tensor, self.1))?;
        }
        object.end()
    }
}

/// Outputs by name: the bare value of a single output, an object of several.
struct Columns<'r>(&'r [NamedTensor]);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [only] = self.0 {
            return Nested::whole(&only.tensor).serialize(serializer);
        }
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for output in self.0 {
            object.serialize_entry(&output.name, &Nested::whole(&output.tensor))?;
        }
        object.end()
    }
}

/// Elements as nested lists of `shape`, beginning at `start`.
struct Nested<'r> {
    data: &'r TensorData,
    shape: &'r [i64],
    start: usize,
}

impl<'r> Nested<'r> {
    fn whole(tensor: &'r Tensor) -> Self {
        Self { data: tensor.data(), shape: tensor.shape(), start: 0 }
    }

    fn row(tensor: &'r Tensor, row: usize) -> Self {
        let width = tensor.data().len() / tensor.rows().unwrap_or(1).max(1);
        let shape = tensor.shape().get(1..).unwrap_or_default();
        Self { data: tensor.data(), shape, start: row * width }
    }
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((&length, inner)) = self.shape.split_first() else {
            return Element(self.data, self.start).serialize(serializer);
        };
        let length = usize::try_from(length).unwrap_or(0);
        let width: usize = inner.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product();
        let mut list = serializer.serialize_seq(Some(length))?;
        for index in 0..length {
            let start = self.start + index * width;
            list.serialize_element(&Nested { data: self.data, shape: inner, start })?;
        }
        list.end()
    }
}

/// `GET /v1/models/{model}`: KServe's keys and TensorFlow Serving's in one object.
pub(super) fn model_status(catalog: &Catalog, name: &str) -> Result<Response<Body>, GatewayError> {
    let Some(model) = catalog.model(name) else {
        return Err(catalog.resolve(name, None).map(drop).expect_err("the model is unknown"));
    };
    let loaded = model.versions.keys().map(|version| version_status(*version, None));
    let refused =
        model.refused.iter().map(|(version, reason)| version_status(*version, Some(reason)));
    let versions: Vec<Value> = loaded.chain(refused).collect();
    let ready = model.default.is_some();
    let body = json!({"name": name, "ready": ready, "model_version_status": versions});
    Ok(reply::json(if ready { 200 } else { 503 }, &body))
}

fn version_status(version: sluice_protocol::ModelVersion, refused: Option<&str>) -> Value {
    let (state, code) =
        if refused.is_none() { ("AVAILABLE", "OK") } else { ("END", "FAILED_PRECONDITION") };
    json!({
        "version": version.to_string(),
        "state": state,
        "status": {"error_code": code, "error_message": refused.unwrap_or_default()},
    })
}
