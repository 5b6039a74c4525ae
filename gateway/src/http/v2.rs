//! The Open Inference Protocol V2 over HTTP: JSON, and Triton's binary tensor extension.

use bytes::{Buf, Bytes};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sluice_protocol::{
    Datatype, InferRequest, InferResponse, NamedTensor, Parameter, Parameters, RequestedOutput,
    Tensor, TensorData, element_count,
};

use super::{Body, elements, reply};
use crate::catalog::Catalog;
use crate::deployment::{Deployment, ListedTensor, PLATFORM};
use crate::error::GatewayError;
use crate::{inputs, unserved};

/// How long the JSON part of a body is, when binary data follows it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// The extensions that work, in Triton's spelling.
pub(crate) const EXTENSIONS: [&str; 4] =
    ["schedule_policy", "binary_tensor_data", "parameters", "statistics"];

/// Which outputs the caller wants in binary form.
#[derive(Debug, Default)]
pub(super) struct ReplyForm {
    all_binary: bool,
    binary: Vec<String>,
}

impl ReplyForm {
    fn is_binary(&self, output: &str) -> bool {
        self.all_binary || self.binary.iter().any(|name| name == output)
    }
}

#[derive(Deserialize)]
struct WireRequest<'b> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow)]
    inputs: Vec<WireInput<'b>>,
    #[serde(default)]
    outputs: Option<Vec<WireOutput>>,
}

#[derive(Deserialize)]
struct WireInput<'b> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow, default)]
    data: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// The value of the header that splits JSON from binary data; the whole body is JSON without.
pub(super) fn header_length(headers: &HeaderMap, body: usize) -> Result<usize, GatewayError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(body) };
    let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    length.filter(|&length| length <= body).ok_or_else(|| {
        GatewayError::Invalid(format!(
            "Inference-Header-Content-Length {value:?} is no length within the {body} bytes of the body"
        ))
    })
}

/// Reads a request, and how it wants its outputs.
pub(super) fn decode(
    deployment: &Deployment,
    body: &Bytes,
    header_length: usize,
) -> Result<(InferRequest, ReplyForm), GatewayError> {
    let wire: WireRequest<'_> =
        serde_json::from_slice(&body[..header_length]).map_err(|error| {
            GatewayError::Invalid(format!("request body is no infer request: {error}"))
        })?;
    inputs::check_count(deployment, wire.inputs.len())?;
    let mut binary = body.slice(header_length..);
    let inputs = wire
        .inputs
        .into_iter()
        .map(|input| decode_input(input, &mut binary))
        .collect::<Result<_, _>>()?;
    if binary.has_remaining() {
        return Err(GatewayError::Invalid(format!(
            "{} bytes of binary data are left over behind the last input",
            binary.remaining()
        )));
    }
    let parameters = parameters(&wire.parameters.unwrap_or_default())?;
    let wanted = wire.outputs.unwrap_or_default();
    let form = reply_form(&parameters, &wanted)?;
    let request = InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: wire.id.unwrap_or_default(),
        parameters,
        inputs,
        outputs: wanted.into_iter().map(|output| RequestedOutput { name: output.name }).collect(),
    };
    Ok((request, form))
}

fn reply_form(parameters: &Parameters, wanted: &[WireOutput]) -> Result<ReplyForm, GatewayError> {
    let mut binary = Vec::new();
    for output in wanted {
        let Some(parameters) = &output.parameters else { continue };
        unserved::check(parameters.keys())?;
        if parameters.get("binary_data") == Some(&Value::Bool(true)) {
            binary.push(output.name.clone());
        }
    }
    // It only decides where no outputs are listed, as Triton does it.
    let all_binary =
        wanted.is_empty() && parameters.get("binary_data_output") == Some(&Parameter::Bool(true));
    Ok(ReplyForm { all_binary, binary })
}

fn decode_input(input: WireInput<'_>, binary: &mut Bytes) -> Result<NamedTensor, GatewayError> {
    let WireInput { name, datatype, shape, parameters, data } = input;
    let parameters = parameters.unwrap_or_default();
    unserved::check(parameters.keys())?;
    let refuse = |reason: String| GatewayError::input(&name, reason);
    let datatype = Datatype::parse(&datatype)
        .ok_or_else(|| refuse(format!("has the unknown datatype {datatype:?}")))?;
    let expected = element_count(&shape).map_err(|error| GatewayError::shape(&name, &error))?;
    let data = match (data, parameters.get("binary_data_size")) {
        (Some(_), Some(_)) => return Err(refuse("has both data and binary_data_size".to_owned())),
        (None, None) => return Err(refuse("has neither data nor binary_data_size".to_owned())),
        (Some(text), None) => elements::parse(text.get(), datatype, expected).map_err(refuse)?.data,
        (None, Some(size)) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let size = size.ok_or_else(|| refuse("binary_data_size is no length".to_owned()))?;
            if size > binary.len() {
                let left = binary.len();
                return Err(refuse(format!("needs {size} bytes of binary data, {left} are left")));
            }
            let raw = binary.split_to(size);
            TensorData::from_raw(datatype, &raw)
                .map_err(|error| GatewayError::shape(&name, &error))?
        }
    };
    let tensor = Tensor::new(shape, data).map_err(|error| GatewayError::shape(&name, &error))?;
    Ok(NamedTensor { name, tensor })
}

fn parameters(wire: &Map<String, Value>) -> Result<Parameters, GatewayError> {
    unserved::check(wire.keys())?;
    wire.iter()
        .map(|(name, value)| {
            let parameter = match value {
                Value::Bool(value) => Parameter::Bool(*value),
                Value::String(value) => Parameter::String(value.clone()),
                Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                    (Some(value), _) => Parameter::Int64(value),
                    (None, Some(value)) => Parameter::Uint64(value),
                    (None, None) => Parameter::Double(number.as_f64().unwrap_or(f64::NAN)),
                },
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(GatewayError::Invalid(format!(
                        "parameter {name:?} must be a string, number or truth value"
                    )));
                }
            };
            Ok((name.clone(), parameter))
        })
        .collect()
}

#[derive(Serialize)]
struct WireResponse<'r> {
    model_name: &'r str,
    model_version: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'r str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    outputs: Vec<WireOutputTensor<'r>>,
}

#[derive(Serialize)]
struct WireOutputTensor<'r> {
    name: &'r str,
    datatype: Datatype,
    shape: &'r [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'r>>,
}

/// Writes an answer in the form that the request asked for.
pub(super) fn encode(response: &InferResponse, form: &ReplyForm) -> Response<Body> {
    let mut binary = Vec::new();
    let outputs = response.outputs.iter().map(|NamedTensor { name, tensor }| {
        let raw = form.is_binary(name) || !has_json_form(tensor.datatype());
        let parameters = raw.then(|| {
            let before = binary.len();
            tensor.data().write_raw(&mut binary);
            json!({"binary_data_size": binary.len() - before})
        });
        let data = (!raw).then(|| Flat(tensor.data()));
        let (datatype, shape) = (tensor.datatype(), tensor.shape());
        WireOutputTensor { name, datatype, shape, parameters, data }
    });
    let wire = WireResponse {
        outputs: outputs.collect(),
        model_name: response.model.as_str(),
        model_version: response.version.to_string(),
        id: &response.id,
        parameters: wire_parameters(&response.parameters),
    };
    let mut body = serde_json::to_vec(&wire).expect("replies have text keys");
    if binary.is_empty() {
        return reply::with_body(200, reply::JSON, body.into());
    }
    let length = body.len();
    body.append(&mut binary);
    let octets = HeaderValue::from_static("application/octet-stream");
    let mut reply = reply::with_body(200, octets, body.into());
    reply.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    reply
}

const fn has_json_form(datatype: Datatype) -> bool {
    !matches!(datatype, Datatype::Fp16 | Datatype::Bf16)
}

pub(super) fn wire_parameters(parameters: &Parameters) -> Map<String, Value> {
    let wire = parameters.iter().map(|(name, parameter)| {
        let value = match parameter {
            Parameter::Bool(value) => json!(value),
            Parameter::Int64(value) => json!(value),
            Parameter::Uint64(value) => json!(value),
            Parameter::Double(value) => json!(value),
            Parameter::String(value) => json!(value),
        };
        (name.clone(), value)
    });
    wire.collect()
}

/// Elements as one flat JSON array. NaN and the infinities have no JSON form and become null.
pub(super) struct Flat<'r>(pub(super) &'r TensorData);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for index in 0..self.0.len() {
            sequence.serialize_element(&Element(self.0, index))?;
        }
        sequence.end()
    }
}

/// One element in JSON.
pub(super) struct Element<'r>(pub(super) &'r TensorData, pub(super) usize);

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(data, index) = *self;
        match data {
            TensorData::Bool(v) => serializer.serialize_bool(v[index]),
            TensorData::Uint8(v) => serializer.serialize_u8(v[index]),
            TensorData::Uint16(v) => serializer.serialize_u16(v[index]),
            TensorData::Uint32(v) => serializer.serialize_u32(v[index]),
            TensorData::Uint64(v) => serializer.serialize_u64(v[index]),
            TensorData::Int8(v) => serializer.serialize_i8(v[index]),
            TensorData::Int16(v) => serializer.serialize_i16(v[index]),
            TensorData::Int32(v) => serializer.serialize_i32(v[index]),
            TensorData::Int64(v) => serializer.serialize_i64(v[index]),
            TensorData::Fp16(_) | TensorData::Bf16(_) => serializer.serialize_none(),
            TensorData::Fp32(v) => serializer.serialize_f32(v[index]),
            TensorData::Fp64(v) => serializer.serialize_f64(v[index]),
            TensorData::Bytes(v) => serializer.serialize_str(&String::from_utf8_lossy(&v[index])),
        }
    }
}

/// `GET /v2`.
pub(super) fn server_metadata() -> Value {
    json!({"name": "sluice", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// `GET /v2/models/{model}`.
pub(super) fn model_metadata(
    catalog: &Catalog,
    model: &str,
    version: Option<&str>,
) -> Result<Value, GatewayError> {
    let deployment = catalog.resolve(model, version)?;
    let inputs: Vec<_> = deployment.listed_inputs().iter().map(listed).collect();
    let outputs: Vec<_> = deployment
        .outputs
        .iter()
        .map(|spec| json!({"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}))
        .collect();
    Ok(json!({
        "name": deployment.model,
        "versions": crate::catalog::listed_versions(catalog, deployment, version),
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }))
}

fn listed(input: &ListedTensor) -> Value {
    let mut value = json!({"name": input.name, "datatype": input.datatype, "shape": input.shape});
    if input.optional {
        value["optional"] = Value::Bool(true);
    }
    value
}
