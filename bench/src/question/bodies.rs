//! The bodies of questions, by protocol.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluice_protocol::{Tensor, TensorData, TensorSpec, grpc};

use super::Protocol;
use crate::error::BenchError;
use crate::values::Values;

/// The header that says how long the JSON before binary tensors is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Headers and bodies that ask `model` for answers to `rows` made-up rows, one body a seed.
pub(super) fn questions<'a>(
    model: &str,
    inputs: &[TensorSpec],
    protocol: Protocol,
    rows: usize,
    values: impl Iterator<Item = Values<'a>>,
) -> Result<(HeaderMap, Vec<Bytes>), BenchError> {
    let (mut headers, mut bodies) = (HeaderMap::new(), Vec::new());
    for mut values in values {
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
            Protocol::Grpc => framed(&infer_request(model, &tensors)),
        });
    }
    match protocol {
        Protocol::V1 | Protocol::V2 => {}
        Protocol::V2Binary => {
            let binary = HeaderValue::from_static("application/octet-stream");
            headers.insert(CONTENT_TYPE, binary);
        }
        Protocol::Grpc => headers.extend(grpc_headers()),
    }
    Ok((headers, bodies))
}

/// What every call over gRPC says of itself.
pub(super) fn grpc_headers() -> HeaderMap {
    let said = [("content-type", "application/grpc"), ("te", "trailers")];
    said.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

/// A message as gRPC frames it: a byte for compression, here none, and its length.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

/// The first message of an answer.
pub(crate) fn unframed<M: prost::Message + Default>(body: &[u8]) -> Result<M, String> {
    let message = body.get(5..).ok_or_else(|| format!("a frame of {} bytes", body.len()))?;
    M::decode(message).map_err(|error| error.to_string())
}

/// Its tensors as bytes behind the message, as clients that mind their time send them.
fn infer_request(model: &str, tensors: &[(&str, Tensor)]) -> grpc::ModelInferRequest {
    let input = |(name, tensor): &(&str, Tensor)| grpc::model_infer_request::InferInputTensor {
        name: (*name).to_owned(),
        datatype: tensor.datatype().as_str().to_owned(),
        shape: tensor.shape().to_vec(),
        ..Default::default()
    };
    let raw = |(_, tensor): &(&str, Tensor)| {
        let mut raw = Vec::with_capacity(tensor.data().raw_len());
        tensor.data().write_raw(&mut raw);
        raw.into()
    };
    grpc::ModelInferRequest {
        model_name: model.to_owned(),
        inputs: tensors.iter().map(input).collect(),
        raw_input_contents: tensors.iter().map(raw).collect(),
        ..Default::default()
    }
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
                "input {name:?} has 16-bit floats, which JSON has no form for; take --protocol v2-binary or grpc"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::{Value, json};
    use sluice_protocol::{Datatype, TensorSpec, grpc};

    use super::{JSON_LENGTH, Protocol, unframed};
    use crate::error::BenchError;
    use crate::values::Values;

    fn questions(
        inputs: &[TensorSpec],
        protocol: Protocol,
        rows: usize,
    ) -> Result<(HeaderMap, Vec<Bytes>), BenchError> {
        super::questions("m", inputs, protocol, rows, (0..8).map(|seed| Values::new(seed, &[])))
    }

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
    fn grpc_has_its_tensors_raw_in_one_frame() {
        let inputs = [spec("x", Datatype::Fp32, &[-1, 3]), spec("h", Datatype::Fp16, &[-1])];
        let (headers, bodies) = questions(&inputs, Protocol::Grpc, 2).unwrap();
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["content-type"], "application/grpc");
        let length = u32::from_be_bytes(bodies[3][1..5].try_into().unwrap());
        assert_eq!((bodies[3][0], bodies[3].len()), (0, 5 + length as usize));
        let request: grpc::ModelInferRequest = unframed(&bodies[3]).unwrap();
        assert_eq!((request.model_name.as_str(), &request.inputs[0].shape[..]), ("m", &[2, 3][..]));
        assert_eq!(
            request.raw_input_contents.iter().map(|raw| raw.len()).collect::<Vec<_>>(),
            [24, 4]
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let error = questions(&[spec("h", Datatype::Fp16, &[-1])], Protocol::V2, 1).unwrap_err();
        assert!(error.to_string().contains("v2-binary"), "{error}");
    }
}
