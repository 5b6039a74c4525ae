//! From an answer to the one buffer that is sent: JSON first, binary data behind it.

use http::Response;
use http::header::HeaderValue;
use serde::Serialize;
use sluice_protocol::{InferResponse, NamedTensor};

use super::parameters::wire_parameters;
use super::{HEADER_LENGTH, ReplyForm};
use crate::dialect::NanForm;
use crate::error::GatewayError;
use crate::http::{Body, elements, reply};

/// JSON that every answer has, and every output, names and elements apart: more than it takes.
const ENVELOPE: usize = 160;
/// Digits of a dimension, and a comma.
const DIMENSION: usize = 21;

/// Writes an answer in the form that the request asked for. The buffer is made once, as large as
/// the names and elements can make it.
pub(in crate::http) fn encode(
    response: &InferResponse,
    form: &ReplyForm,
    nan: NanForm,
) -> Result<Response<Body>, GatewayError> {
    let mut out = Vec::with_capacity(size(response, form));
    write_json(&mut out, response, form, nan)?;
    let length = out.len();
    for NamedTensor { name, tensor } in &response.outputs {
        if form.is_binary(name) && response.region(name).is_none() {
            tensor.data().write_raw(&mut out);
        }
    }
    if out.len() == length {
        return Ok(reply::with_body(200, reply::JSON, out.into()));
    }
    let octets = HeaderValue::from_static("application/octet-stream");
    let mut reply = reply::with_body(200, octets, out.into());
    reply.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    Ok(reply)
}

/// How many bytes the answer takes at most, or a little more where texts need escapes.
fn size(response: &InferResponse, form: &ReplyForm) -> usize {
    let outputs = response.outputs.iter().map(|NamedTensor { name, tensor }| {
        let data = match response.region(name) {
            Some(region) => ENVELOPE + region.region.len(),
            None if form.is_binary(name) => tensor.data().raw_len(),
            None => elements::size_hint(tensor.data()),
        };
        ENVELOPE + name.len() + tensor.shape().len() * DIMENSION + data
    });
    let parameters = response.parameters.len() * ENVELOPE;
    let names = response.model.as_str().len() + response.id.len();
    ENVELOPE + names + parameters + outputs.sum::<usize>()
}

fn write_json(
    out: &mut Vec<u8>,
    response: &InferResponse,
    form: &ReplyForm,
    nan: NanForm,
) -> Result<(), GatewayError> {
    put(out, "{\"model_name\":", response.model.as_str());
    put(out, ",\"model_version\":", &response.version.to_string());
    if !response.id.is_empty() {
        put(out, ",\"id\":", &response.id);
    }
    if !response.parameters.is_empty() {
        put(out, ",\"parameters\":", &wire_parameters(&response.parameters));
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (index, NamedTensor { name, tensor }) in response.outputs.iter().enumerate() {
        put(out, if index == 0 { "{\"name\":" } else { ",{\"name\":" }, name);
        put(out, ",\"datatype\":", tensor.datatype().as_str());
        put(out, ",\"shape\":", tensor.shape());
        let data = tensor.data();
        if let Some(region) = response.region(name) {
            put(out, ",\"parameters\":{\"shared_memory_region\":", &region.region);
            put(out, ",\"shared_memory_byte_size\":", &region.byte_size);
            put(out, ",\"shared_memory_offset\":", &region.offset);
            out.extend_from_slice(b"}}");
        } else if form.is_binary(name) {
            put(out, ",\"parameters\":{\"binary_data_size\":", &data.raw_len());
            out.extend_from_slice(b"}}");
        } else {
            out.extend_from_slice(b",\"data\":[");
            elements::write(out, data, 0..data.len(), nan)
                .map_err(|reason| GatewayError::Invalid(format!("output {name:?}: {reason}")))?;
            out.extend_from_slice(b"]}");
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, before: &str, value: &T) {
    out.extend_from_slice(before.as_bytes());
    serde_json::to_writer(out, value).expect("replies have text keys");
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use sluice_protocol::{
        InferResponse, ModelVersion, NamedTensor, Parameter, Parameters, Tensor, TensorData,
    };

    use super::{HEADER_LENGTH, ReplyForm, encode, size};
    use crate::dialect::NanForm;

    fn answer(outputs: Vec<(&str, Vec<i64>, TensorData)>) -> InferResponse {
        let outputs = outputs.into_iter().map(|(name, shape, data)| NamedTensor {
            name: name.to_owned(),
            tensor: Tensor::new(shape, data).unwrap(),
        });
        InferResponse {
            model: "m".parse().unwrap(),
            version: ModelVersion(7),
            id: "q\"1".to_owned(),
            parameters: Parameters::from([("p".to_owned(), Parameter::Bool(true))]),
            outputs: outputs.collect(),
            regions: Vec::new(),
        }
    }

    fn sent(response: &InferResponse, form: &ReplyForm) -> (Option<usize>, Vec<u8>) {
        let reply = encode(response, form, NanForm::Words).unwrap();
        let length = reply.headers().get(HEADER_LENGTH);
        let length = length.map(|length| length.to_str().unwrap().parse().unwrap());
        let body = reply.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        (length, body.to_vec())
    }

    #[test]
    fn json_and_binary_outputs_in_one_answer() {
        let floats = || TensorData::Fp32(vec![1.0, f32::NAN]);
        let texts = || TensorData::Bytes(vec!["ab".into(), "".into()]);
        let response = answer(vec![
            ("a", vec![1, 2], floats()),
            ("b", vec![2], texts()),
            ("c", vec![0, 3], TensorData::Int8(vec![])),
        ]);
        let head = r#"{"model_name":"m","model_version":"7","id":"q\"1","parameters":{"p":true},"outputs":["#;
        let json = [
            head,
            r#"{"name":"a","datatype":"FP32","shape":[1,2],"data":[1.0,NaN]},"#,
            r#"{"name":"b","datatype":"BYTES","shape":[2],"data":["ab",""]},"#,
            r#"{"name":"c","datatype":"INT8","shape":[0,3],"data":[]}]}"#,
        ]
        .concat();
        assert_eq!(sent(&response, &ReplyForm::default()), (None, json.into_bytes()));
        let json = [
            head,
            r#"{"name":"a","datatype":"FP32","shape":[1,2],"data":[1.0,NaN]},"#,
            r#"{"name":"b","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":10}},"#,
            r#"{"name":"c","datatype":"INT8","shape":[0,3],"parameters":{"binary_data_size":0}}]}"#,
        ]
        .concat();
        let form = ReplyForm { all_binary: false, binary: vec!["b".to_owned(), "c".to_owned()] };
        let body = [json.as_bytes(), b"\x02\0\0\0ab\0\0\0\0"].concat();
        assert_eq!(sent(&response, &form), (Some(json.len()), body));
        let empty = answer(vec![("c", vec![0], TensorData::Int8(vec![]))]);
        let all = ReplyForm { all_binary: true, binary: Vec::new() };
        assert_eq!(sent(&empty, &all).0, None, "no bytes follow");
    }

    #[test]
    fn the_buffer_is_large_enough_from_the_start() {
        for all_binary in [true, false] {
            let form = ReplyForm { all_binary, binary: Vec::new() };
            for data in [
                TensorData::Fp64(vec![-f64::MIN_POSITIVE; 1000]),
                TensorData::Int32(vec![i32::MIN; 1000]),
                TensorData::Bool(vec![false; 1000]),
                TensorData::Bytes(vec!["no escape".into(); 1000]),
            ] {
                let response = answer(vec![("y", vec![1000], data)]);
                let (_, body) = sent(&response, &form);
                assert!(body.len() <= size(&response, &form), "{:?}", response.outputs[0].name);
            }
        }
    }
}
