//! Requests for a model, made from what its server says of its inputs.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_protocol::{Datatype, Tensor, TensorData, TensorSpec};

use crate::check::Check;
use crate::connection::Connection;
use crate::error::BenchError;
use crate::options::{LoadOptions, Template};
use crate::target::Target;
use crate::values::Values;

/// Different bodies, so that no server knows an answer by heart.
const BODIES: u64 = 64;
/// How long a server may take to say what its model is.
const PATIENCE: Duration = Duration::from_secs(5);
/// The header that says how long the JSON before binary tensors is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// How a model is asked over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `/v1/models/NAME:predict`.
    V1,
    /// `/v2/models/NAME/infer`, all of it JSON.
    V2,
    /// The same with tensors as bytes behind the JSON, there and back.
    V2Binary,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            "v2-binary" => Ok(Self::V2Binary),
            _ => Err("a protocol is v1, v2 or v2-binary".to_owned()),
        }
    }
}

/// What `GET /v2/models/NAME` answers, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Metadata {
    inputs: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// A load that asks `model` of the server at `url` with made-up rows, the same in every load. The
/// server is asked for its inputs, which blocks for some seconds at most.
///
/// # Errors
/// A server that does not answer or does not have the model, inputs that the protocol has no form
/// for, and a target on another machine without leave.
pub fn ask_model(
    url: &Uri,
    model: &str,
    protocol: Protocol,
    rows: usize,
    allow_remote: bool,
) -> Result<LoadOptions, BenchError> {
    let base = url.to_string();
    let base = base.trim_end_matches('/');
    let at = |path: String| {
        let whole = format!("{base}{path}");
        whole.parse::<Uri>().map_err(|error| BenchError::Options(format!("{whole}: {error}")))
    };
    let inputs = inputs(&at(format!("/v2/models/{model}"))?, model, allow_remote)?;
    let path = match protocol {
        Protocol::V1 => format!("/v1/models/{model}:predict"),
        Protocol::V2 | Protocol::V2Binary => format!("/v2/models/{model}/infer"),
    };
    let (headers, bodies) = questions(&inputs, protocol, rows)?;
    let check = if protocol == Protocol::V2Binary { Check::Status } else { Check::Json };
    Ok(LoadOptions { headers, bodies, check, allow_remote, ..LoadOptions::new(at(path)?) })
}

/// A model's inputs, as its server tells them.
fn inputs(url: &Uri, model: &str, allow_remote: bool) -> Result<Vec<TensorSpec>, BenchError> {
    let failed = |reason: String| BenchError::Model { model: model.to_owned(), reason };
    let target = Target::resolve(url, allow_remote)?;
    let request = Template::new(LoadOptions::new(url.clone()), &target).request(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut connection = Connection::new(target.addresses.as_slice().into());
    let answer = runtime.map_err(BenchError::Start)?.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, connection.ask(request)).await;
        // Closed in here, by the runtime that drives it.
        drop(connection);
        asked
    });
    let answer = answer.map_err(|_| failed(format!("no answer in {PATIENCE:?}")))?;
    let (status, body) = answer.map_err(|fault| failed(format!("{url}: {}", fault.detail)))?;
    Check::Status
        .judge(status, &body)
        .map_err(|fault| failed(format!("{url} answered {}: {}", status.as_u16(), fault.detail)))?;
    let metadata: Metadata = serde_json::from_slice(&body)
        .map_err(|error| failed(format!("{url} answered no metadata: {error}")))?;
    let spec = |Listed { name, datatype, shape }| match Datatype::parse(&datatype) {
        Some(datatype) => Ok(TensorSpec { name, datatype, shape }),
        None => Err(failed(format!("input {name:?} is {datatype}, which is not known here"))),
    };
    metadata.inputs.into_iter().map(spec).collect()
}

/// Headers and bodies that ask for answers to `rows` made-up rows.
fn questions(
    inputs: &[TensorSpec],
    protocol: Protocol,
    rows: usize,
) -> Result<(HeaderMap, Vec<Bytes>), BenchError> {
    let (mut headers, mut bodies) = (HeaderMap::new(), Vec::new());
    for seed in 0..BODIES {
        let mut values = Values::new(seed);
        let mut tensors = Vec::with_capacity(inputs.len());
        for spec in inputs {
            let made = values.tensor(spec, rows);
            let named = |error| BenchError::Options(format!("input {:?}: {error}", spec.name));
            tensors.push((spec.name.as_str(), made.map_err(named)?));
        }
        bodies.push(match protocol {
            Protocol::V1 => text(&v1(&tensors, rows)?),
            Protocol::V2 => text(&v2(&tensors)?),
            Protocol::V2Binary => {
                let (length, body) = v2_binary(&tensors);
                // The same for all, since only values differ.
                headers.insert(JSON_LENGTH, HeaderValue::from(length));
                body
            }
        });
    }
    if protocol == Protocol::V2Binary {
        let binary = HeaderValue::from_static("application/octet-stream");
        headers.insert(http::header::CONTENT_TYPE, binary);
    }
    Ok((headers, bodies))
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

/// A list of instances: of a model with one input its rows, of others objects by input.
fn v1(tensors: &[(&str, Tensor)], rows: usize) -> Result<Value, BenchError> {
    let nested = tensors.iter().map(|(name, tensor)| Ok((*name, instances(name, tensor)?)));
    let nested = nested.collect::<Result<Vec<_>, BenchError>>()?;
    let of_row = |row: usize| match nested.as_slice() {
        [(_, only)] => only.get(row).cloned().unwrap_or_default(),
        several => several
            .iter()
            .map(|(name, values)| {
                ((*name).to_owned(), values.get(row).cloned().unwrap_or_default())
            })
            .collect(),
    };
    Ok(json!({"instances": (0..rows).map(of_row).collect::<Vec<_>>()}))
}

/// The rows of a tensor, each nested as the rest of its shape is.
fn instances(name: &str, tensor: &Tensor) -> Result<Vec<Value>, BenchError> {
    let mut values = elements(name, tensor.data())?;
    for &size in tensor.shape().iter().skip(1).rev() {
        let size = usize::try_from(size).unwrap_or(0).max(1);
        values = values.chunks(size).map(|chunk| Value::from(chunk.to_vec())).collect();
    }
    Ok(values)
}

fn v2(tensors: &[(&str, Tensor)]) -> Result<Value, BenchError> {
    let input = |(name, tensor): &(&str, Tensor)| {
        let (shape, datatype) = (tensor.shape(), tensor.datatype().as_str());
        let data = elements(name, tensor.data())?;
        Ok(json!({"name": name, "datatype": datatype, "shape": shape, "data": data}))
    };
    let inputs = tensors.iter().map(input).collect::<Result<Vec<_>, BenchError>>()?;
    Ok(json!({"inputs": inputs}))
}

/// The length of the JSON, and all of the body.
fn v2_binary(tensors: &[(&str, Tensor)]) -> (usize, Bytes) {
    let mut raw = Vec::new();
    let mut inputs = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (shape, datatype) = (tensor.shape(), tensor.datatype().as_str());
        let parameters = json!({"binary_data_size": tensor.data().raw_len()});
        inputs.push(
            json!({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}),
        );
        tensor.data().write_raw(&mut raw);
    }
    let head = json!({"inputs": inputs, "parameters": {"binary_data_output": true}}).to_string();
    (head.len(), [head.as_bytes(), &raw].concat().into())
}

/// Elements in JSON.
fn elements(name: &str, data: &TensorData) -> Result<Vec<Value>, BenchError> {
    Ok(match data {
        TensorData::Bool(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Uint8(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Uint16(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Uint32(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Uint64(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Int8(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Int16(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Int32(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Int64(v) => v.iter().map(|x| json!(x)).collect(),
        // As a float of 32 bits is written, not with the digits that it has as one of 64.
        TensorData::Fp32(v) => {
            v.iter().map(|x| json!(f64::from((x * 1e4).round()) / 1e4)).collect()
        }
        TensorData::Fp64(v) => v.iter().map(|x| json!(x)).collect(),
        TensorData::Bytes(v) => v.iter().map(|x| json!(String::from_utf8_lossy(x))).collect(),
        TensorData::Fp16(_) | TensorData::Bf16(_) => {
            return Err(BenchError::Options(format!(
                "input {name:?} has 16-bit floats, which JSON has no form for; take --protocol v2-binary"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_protocol::{Datatype, TensorSpec};

    use super::{JSON_LENGTH, Protocol, questions};

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn first(inputs: &[TensorSpec], protocol: Protocol, rows: usize) -> Value {
        let (_, bodies) = questions(inputs, protocol, rows).unwrap();
        assert_ne!(bodies[0], bodies[1]);
        serde_json::from_slice(&bodies[0]).unwrap()
    }

    #[test]
    fn v1_nests_rows_by_their_shape() {
        let one = first(&[spec("x", Datatype::Fp32, &[-1, 2, 3])], Protocol::V1, 4);
        let rows = one["instances"].as_array().unwrap();
        assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (4, 2));
        assert_eq!(rows[3][1].as_array().unwrap().len(), 3);
        let flat = first(&[spec("x", Datatype::Int64, &[-1])], Protocol::V1, 2);
        assert!(flat["instances"][1].is_u64(), "{flat}");
        let both = [spec("a", Datatype::Bytes, &[-1, 1]), spec("b", Datatype::Bool, &[-1])];
        let both = first(&both, Protocol::V1, 2);
        assert!(both["instances"][1]["a"][0].is_string(), "{both}");
        assert!(both["instances"][1]["b"].is_boolean(), "{both}");
    }

    #[test]
    fn v2_says_what_its_data_is() {
        let body = first(&[spec("x", Datatype::Fp32, &[-1, 3])], Protocol::V2, 2);
        let input = &body["inputs"][0];
        assert_eq!((&input["datatype"], &input["shape"]), (&json!("FP32"), &json!([2, 3])));
        assert_eq!(input["data"].as_array().unwrap().len(), 6);
    }

    #[test]
    fn v2_binary_has_its_tensors_behind_the_json() {
        let inputs = [spec("x", Datatype::Fp32, &[-1, 3]), spec("h", Datatype::Fp16, &[-1])];
        let (headers, bodies) = questions(&inputs, Protocol::V2Binary, 2).unwrap();
        let length: usize = headers[JSON_LENGTH].to_str().unwrap().parse().unwrap();
        let head: Value = serde_json::from_slice(&bodies[5][..length]).unwrap();
        assert_eq!(head["inputs"][0]["parameters"]["binary_data_size"], 24);
        assert_eq!(bodies[5].len(), length + 24 + 4);
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let error = questions(&[spec("h", Datatype::Fp16, &[-1])], Protocol::V2, 1).unwrap_err();
        assert!(error.to_string().contains("v2-binary"), "{error}");
    }
}
