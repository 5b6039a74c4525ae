//! The numbers in an answer, whatever its form, so that servers can be held against each other.

use bytes::Bytes;
use serde_json::Value;
use sluice_protocol::{Datatype, TensorData, grpc};

use crate::connection::Answer;
use crate::question::{Protocol, unframed};

/// How far two servers' floats may lie apart, of their size: one graph's runs differ in the last
/// digits by how its rows were batched.
const TOLERANCE: f64 = 1e-4;

/// The numbers of all outputs, in the answer's order.
pub(super) fn numbers(protocol: Protocol, answer: &Answer) -> Result<Vec<f64>, String> {
    match protocol {
        Protocol::Grpc => of_message(&answer.body),
        Protocol::V1 => {
            let answer = json(&answer.body)?;
            flat(answer.get("predictions").ok_or("it has no predictions")?)
        }
        Protocol::V2 | Protocol::V2Binary => of_json(answer),
    }
}

/// Why two servers' numbers are not the same; none if they are.
pub(super) fn difference(own: &[f64], theirs: &[f64]) -> Option<String> {
    if own.len() != theirs.len() {
        return Some(format!("{} numbers where there are {}", theirs.len(), own.len()));
    }
    let far =
        |(own, theirs): &(&f64, &f64)| (*own - *theirs).abs() > TOLERANCE * own.abs().max(1.0);
    let (own, theirs) = own.iter().zip(theirs).find(far)?;
    Some(format!("{theirs} where it is {own}"))
}

fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn flat(value: &Value) -> Result<Vec<f64>, String> {
    match value {
        Value::Array(values) => {
            let values = values.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
            Ok(values.concat())
        }
        Value::Object(fields) => {
            let values = fields.values().map(flat).collect::<Result<Vec<_>, _>>()?;
            Ok(values.concat())
        }
        Value::Bool(is) => Ok(vec![f64::from(u8::from(*is))]),
        Value::Number(number) => Ok(number.as_f64().into_iter().collect()),
        other => Err(format!("{other} is no number")),
    }
}

/// V2's outputs: in JSON, or as bytes behind it.
fn of_json(answer: &Answer) -> Result<Vec<f64>, String> {
    let body = &answer.body;
    let length = answer.headers.get("inference-header-content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(body.len());
    let (head, mut raw) = body.split_at_checked(length).ok_or("it is shorter than its JSON")?;
    let head = json(head)?;
    let outputs = head.get("outputs").and_then(Value::as_array).ok_or("it has no outputs")?;
    let mut numbers = Vec::new();
    for output in outputs {
        if let Some(data) = output.get("data") {
            numbers.extend(flat(data)?);
            continue;
        }
        let size = output.pointer("/parameters/binary_data_size").and_then(Value::as_u64);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let (own, rest) =
            size.and_then(|size| raw.split_at_checked(size)).ok_or("an output has no data")?;
        let datatype = output.get("datatype").and_then(Value::as_str).unwrap_or_default();
        numbers.extend(of_raw(datatype, own)?);
        raw = rest;
    }
    Ok(numbers)
}

fn of_message(body: &[u8]) -> Result<Vec<f64>, String> {
    let answer: grpc::ModelInferResponse = unframed(body)?;
    let mut numbers = Vec::new();
    for (index, output) in answer.outputs.iter().enumerate() {
        match (answer.raw_output_contents.get(index), &output.contents) {
            (Some(raw), _) => numbers.extend(of_raw(&output.datatype, raw)?),
            (None, Some(contents)) => {
                numbers.extend(contents.fp32_contents.iter().copied().map(f64::from));
                numbers.extend(&contents.fp64_contents);
                numbers.extend(contents.int64_contents.iter().map(|number| *number as f64));
                numbers.extend(contents.int_contents.iter().copied().map(f64::from));
            }
            (None, None) => return Err(format!("output {:?} has no data", output.name)),
        }
    }
    Ok(numbers)
}

fn of_raw(datatype: &str, raw: &[u8]) -> Result<Vec<f64>, String> {
    let known = Datatype::parse(datatype).ok_or_else(|| format!("{datatype} is not known"))?;
    let data = TensorData::from_raw(known, &Bytes::copy_from_slice(raw));
    Ok(match data.map_err(|error| error.to_string())? {
        TensorData::Fp32(values) => values.into_iter().map(f64::from).collect(),
        TensorData::Fp64(values) => values,
        TensorData::Int64(values) => values.into_iter().map(|number| number as f64).collect(),
        TensorData::Int32(values) => values.into_iter().map(f64::from).collect(),
        _ => return Err(format!("outputs of {datatype} are not compared")),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use sluice_protocol::grpc;

    use super::{difference, numbers};
    use crate::connection::Answer;
    use crate::question::{Protocol, framed};

    fn answer(body: impl Into<Bytes>) -> Answer {
        Answer { body: body.into(), ..Answer::default() }
    }

    #[test]
    fn all_forms_hold_the_same_numbers() {
        let v1 = answer(r#"{"predictions": [[1.5], [-2]]}"#);
        assert_eq!(numbers(Protocol::V1, &v1).unwrap(), [1.5, -2.0]);
        let v2 = r#"{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [1.5, -2.0]}]}"#;
        assert_eq!(numbers(Protocol::V2, &answer(v2)).unwrap(), [1.5, -2.0]);
        let raw: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let head = r#"{"outputs": [{"datatype": "FP32", "parameters": {"binary_data_size": 8}}]}"#;
        let mut binary = answer([head.as_bytes(), &raw].concat());
        binary.headers.insert("inference-header-content-length", head.len().into());
        assert_eq!(numbers(Protocol::V2Binary, &binary).unwrap(), [1.5, -2.0]);
        let output = grpc::model_infer_response::InferOutputTensor {
            datatype: "FP32".to_owned(),
            ..Default::default()
        };
        let message = grpc::ModelInferResponse {
            outputs: vec![output],
            raw_output_contents: vec![raw.into()],
            ..Default::default()
        };
        let message = answer(framed(&message));
        assert_eq!(numbers(Protocol::Grpc, &message).unwrap(), [1.5, -2.0]);
    }

    #[test]
    fn what_is_no_answer_says_why() {
        for (protocol, body) in [
            (Protocol::V1, "{}"),
            (Protocol::V2, "[]"),
            (Protocol::V2, r#"{"outputs": [{"datatype": "FP32"}]}"#),
            (Protocol::V2, r#"{"outputs": [{"data": ["a"]}]}"#),
            (Protocol::Grpc, "x"),
        ] {
            assert!(numbers(protocol, &answer(body)).is_err(), "{body}");
        }
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("inference-header-content-length"),
            http::HeaderValue::from_static("99"),
        )]);
        assert!(numbers(Protocol::V2, &Answer { headers, ..answer("{}") }).is_err());
    }

    #[test]
    fn numbers_are_the_same_within_their_last_digits() {
        assert_eq!(difference(&[1000.0, 0.0], &[1000.05, 0.00005]), None);
        assert_eq!(difference(&[1.0], &[1.01]).unwrap(), "1.01 where it is 1");
        assert_eq!(difference(&[1.0], &[]).unwrap(), "0 numbers where there are 1");
    }
}
