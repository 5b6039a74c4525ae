//! The V1 protocol, in the style of TensorFlow Serving's REST: rows (`instances`) or columns
//! (`inputs`) in, `predictions` or `outputs` back.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_protocol::{
    InferRequest, InferResponse, NamedTensor, Parameter, Parameters, Tensor, TensorData,
};

use super::rows::{columns_to_tensors, rows_to_tensors};
use super::v2::Element;
use super::{Body, reply};
use crate::catalog::Catalog;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::pipeline::{DEGRADED_VIEWS, FEATURES_AS_OF};

/// Whether the caller sent rows (and how many) or columns, and so gets them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyForm {
    Rows(usize),
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
        (Some(rows), None) => {
            let inputs = rows_to_tensors(deployment, rows.get())?;
            let rows = inputs.first().and_then(|input| input.tensor.rows()).unwrap_or(0);
            (inputs, ReplyForm::Rows(rows))
        }
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

/// Writes an answer. What V1 has no place for in the body goes into headers.
///
/// Rows are answered by rows where every output has a row for each of them. A graph that does
/// not batch need not give that; then `predictions` holds the outputs whole, the bare value of
/// a single one or an object of several, as columns are answered.
pub(super) fn encode(response: &InferResponse, form: ReplyForm) -> Response<Body> {
    let outputs = response.outputs.as_slice();
    let by_row = |rows| outputs.iter().all(|output| output.tensor.rows() == Some(rows));
    let mut reply = match form {
        ReplyForm::Rows(rows) if by_row(rows) => {
            reply::json(200, &json_object("predictions", &Rows(outputs, rows)))
        }
        ReplyForm::Rows(_) => reply::json(200, &json_object("predictions", &Columns(outputs))),
        ReplyForm::Columns => reply::json(200, &json_object("outputs", &Columns(outputs))),
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

/// Outputs by row: bare values of a single output, objects of several. All have so many rows.
struct Rows<'r>(&'r [NamedTensor], usize);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(outputs, rows) = *self;
        let mut list = serializer.serialize_seq(Some(rows))?;
        for row in 0..rows {
            match outputs {
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
    let mut body = json!({"name": name, "ready": true, "model_version_status": versions});
    let Err(error) = catalog.resolve(name, None) else { return Ok(reply::json(200, &body)) };
    body["ready"] = false.into();
    body["error"] = error.message().into();
    Ok(reply::json(503, &body))
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use sluice_protocol::{
        InferResponse, ModelName, ModelVersion, NamedTensor, Parameters, Tensor, TensorData,
    };

    use super::{ReplyForm, encode};

    fn output(name: &str, shape: &[i64], data: Vec<f32>) -> NamedTensor {
        let tensor = Tensor::new(shape.to_vec(), TensorData::Fp32(data)).unwrap();
        NamedTensor { name: name.to_owned(), tensor }
    }

    fn check(outputs: Vec<NamedTensor>, rows: usize, expected: &Value) {
        let response = InferResponse {
            model: "m".parse::<ModelName>().unwrap(),
            version: ModelVersion(1),
            id: String::new(),
            parameters: Parameters::new(),
            outputs,
        };
        let body = encode(&response, ReplyForm::Rows(rows)).into_body();
        let body = collected(body);
        assert_eq!(&serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    fn collected(body: crate::http::Body) -> bytes::Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(body.collect()).unwrap().to_bytes()
    }

    #[test]
    fn outputs_with_a_row_for_each_instance_are_split() {
        let a = || output("a", &[2], vec![1.0, 2.0]);
        let b = || output("b", &[2, 1], vec![3.0, f32::NAN]);
        check(vec![a()], 2, &json!({"predictions": [1.0, 2.0]}));
        let rows = json!([{"a": 1.0, "b": [3.0]}, {"a": 2.0, "b": [null]}]);
        check(vec![a(), b()], 2, &json!({"predictions": rows}));
        check(vec![], 1, &json!({"predictions": [{}]}));
    }

    #[test]
    fn other_outputs_are_answered_whole() {
        let scalar = || output("s", &[], vec![7.0]);
        let three = || output("t", &[3], vec![1.0, 2.0, 3.0]);
        let none = || output("n", &[0, 4], vec![]);
        check(vec![scalar()], 1, &json!({"predictions": 7.0}));
        check(vec![none()], 1, &json!({"predictions": []}));
        for (outputs, expected) in [
            (vec![three(), scalar()], json!({"t": [1.0, 2.0, 3.0], "s": 7.0})),
            (vec![three(), none()], json!({"t": [1.0, 2.0, 3.0], "n": []})),
        ] {
            check(outputs, 3, &json!({"predictions": expected}));
        }
    }
}
