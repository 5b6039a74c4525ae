//! A predict answer's body: by rows or by columns, as the request came.

use std::ops::Range;

use http::{HeaderName, HeaderValue, Response};
use serde::Serialize;
use sluice_protocol::{InferResponse, NamedTensor, Parameter, TensorData};

use super::super::Body;
use super::super::base64::AsBase64;
use super::super::cloud_events::Envelope;
use super::super::elements;
use crate::dialect::{ColumnReply, NanForm};
use crate::error::GatewayError;
use crate::pipeline::{DEGRADED_VIEWS, FEATURES_AS_OF};
use crate::shared::Shared;

/// As many empty lists as an answer writes beside each other. A few bytes of a request can ask a
/// graph for far more.
const MOST_EMPTY: i64 = 100_000;

/// How an answer goes back.
#[derive(Debug)]
pub(super) struct ReplyForm {
    pub(super) shape: Shape,
    pub(super) envelope: Envelope,
}

/// Whether the caller sent rows (and how many) or columns, and so gets them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Rows(usize),
    Columns,
}

/// Writes an answer. What V1 has no place for in the body goes into headers.
pub(super) fn encode(
    response: &InferResponse,
    form: &ReplyForm,
    shared: &Shared,
) -> Result<Response<Body>, GatewayError> {
    let hint = response.outputs.iter().map(|output| elements::size_hint(output.tensor.data()));
    let mut json = Vec::with_capacity(64 + hint.sum::<usize>());
    let nan = shared.dialect().nan;
    write(&mut json, &response.outputs, form.shape, shared.dialect().column_reply, nan)?;
    let mut reply = form.envelope.close(json, &response.model, &shared.http.cloud_events);
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
    Ok(reply)
}

/// The object of one key that is answered.
///
/// Rows are answered by rows where every output has a row for each of them. A graph that does
/// not batch need not give that; then `predictions` holds the outputs whole, the bare value of
/// a single one or an object of several, as columns are answered.
fn write(
    json: &mut Vec<u8>,
    outputs: &[NamedTensor],
    shape: Shape,
    columns: ColumnReply,
    nan: NanForm,
) -> Result<(), GatewayError> {
    outputs.iter().try_for_each(check_lists)?;
    let key: &[u8] = match (shape, columns) {
        (Shape::Columns, ColumnReply::Outputs) => b"outputs",
        (Shape::Columns, ColumnReply::Predictions) | (Shape::Rows(_), _) => b"predictions",
    };
    json.extend_from_slice(&[b"{\"", key, b"\":"].concat());
    match shape {
        Shape::Rows(rows) if outputs.iter().all(|output| output.tensor.rows() == Some(rows)) => {
            list(json, rows, |json, row| {
                by_name(json, outputs, |json, output| {
                    let (shape, data) = (output.tensor.shape(), output.tensor.data());
                    let width = data.len() / rows;
                    nested(json, output, shape.get(1..).unwrap_or_default(), row * width, nan)
                })
            })?;
        }
        Shape::Rows(_) | Shape::Columns => by_name(json, outputs, |json, output| {
            nested(json, output, output.tensor.shape(), 0, nan)
        })?,
    }
    json.push(b'}');
    Ok(())
}

/// Refuses an output that has no elements and would be no end of lists all the same.
fn check_lists(output: &NamedTensor) -> Result<(), GatewayError> {
    let shape = output.tensor.shape();
    let outer = shape.iter().take_while(|&&size| size > 0);
    let lists = outer.fold(1i64, |lists, &size| lists.saturating_mul(size));
    if output.tensor.data().is_empty() && lists > MOST_EMPTY {
        return Err(refuse(output, format!("has the shape {shape:?}, of too many empty lists")));
    }
    Ok(())
}

/// The bare value of a single output, or an object of several.
fn by_name(
    json: &mut Vec<u8>,
    outputs: &[NamedTensor],
    value: impl Fn(&mut Vec<u8>, &NamedTensor) -> Result<(), GatewayError>,
) -> Result<(), GatewayError> {
    if let [only] = outputs {
        return value(json, only);
    }
    json.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        plain(json, &output.name);
        json.push(b':');
        value(json, output)?;
    }
    json.push(b'}');
    Ok(())
}

fn list(
    json: &mut Vec<u8>,
    length: usize,
    item: impl Fn(&mut Vec<u8>, usize) -> Result<(), GatewayError>,
) -> Result<(), GatewayError> {
    json.push(b'[');
    for index in 0..length {
        if index > 0 {
            json.push(b',');
        }
        item(json, index)?;
    }
    json.push(b']');
    Ok(())
}

/// The output's elements as nested lists of `shape`, beginning at `start`.
fn nested(
    json: &mut Vec<u8>,
    output: &NamedTensor,
    shape: &[i64],
    start: usize,
    nan: NanForm,
) -> Result<(), GatewayError> {
    let size = |size: &i64| usize::try_from(*size).unwrap_or(0);
    match shape {
        [] => leaves(json, output, start..start + 1, nan),
        [length] => {
            json.push(b'[');
            leaves(json, output, start..start + size(length), nan)?;
            json.push(b']');
            Ok(())
        }
        [length, inner @ ..] => {
            let width: usize = inner.iter().map(size).product();
            list(json, size(length), |json, index| {
                nested(json, output, inner, start + index * width, nan)
            })
        }
    }
}

/// Elements with commas between them. Bytes are texts if they can be and are not said to be none.
fn leaves(
    json: &mut Vec<u8>,
    output: &NamedTensor,
    range: Range<usize>,
    nan: NanForm,
) -> Result<(), GatewayError> {
    let TensorData::Bytes(values) = output.tensor.data() else {
        let written = elements::write(json, output.tensor.data(), range, nan);
        return written.map_err(|reason| refuse(output, reason));
    };
    let is_said = output.name.ends_with("_bytes");
    for (index, value) in values[range].iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        match std::str::from_utf8(value) {
            Ok(text) if !is_said => plain(json, &text),
            Ok(_) | Err(_) => plain(json, &AsBase64(value)),
        }
    }
    Ok(())
}

fn plain(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value).expect("a text is JSON, and memory takes it");
}

fn refuse(output: &NamedTensor, reason: String) -> GatewayError {
    GatewayError::Invalid(format!("output {:?}: {reason}", output.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_protocol::{NamedTensor, Tensor, TensorData};

    use super::{Shape, write};
    use crate::dialect::{ColumnReply, NanForm};

    fn output(name: &str, shape: &[i64], data: TensorData) -> NamedTensor {
        let tensor = Tensor::new(shape.to_vec(), data).unwrap();
        NamedTensor { name: name.to_owned(), tensor }
    }

    fn floats(name: &str, shape: &[i64], data: &[f32]) -> NamedTensor {
        output(name, shape, TensorData::Fp32(data.to_vec()))
    }

    fn bytes(name: &str, shape: &[i64], data: &[&'static [u8]]) -> NamedTensor {
        let data = data.iter().map(|&value| bytes::Bytes::from_static(value)).collect();
        output(name, shape, TensorData::Bytes(data))
    }

    fn check(outputs: &[NamedTensor], shape: Shape, columns: ColumnReply, expected: &Value) {
        let mut json = Vec::new();
        write(&mut json, outputs, shape, columns, NanForm::Null).unwrap();
        // No space anywhere.
        assert_eq!(String::from_utf8(json).unwrap(), expected.to_string());
    }

    fn check_rows(outputs: &[NamedTensor], rows: usize, expected: &Value) {
        let expected = json!({ "predictions": expected });
        check(outputs, Shape::Rows(rows), ColumnReply::Outputs, &expected);
    }

    #[test]
    fn outputs_with_a_row_for_each_instance_are_split() {
        let a = || floats("a", &[2], &[1.0, 2.0]);
        let b = || floats("b", &[2, 1], &[3.0, f32::NAN]);
        check_rows(&[a()], 2, &json!([1.0, 2.0]));
        check_rows(&[a(), b()], 2, &json!([{"a": 1.0, "b": [3.0]}, {"a": 2.0, "b": [null]}]));
        check_rows(&[], 1, &json!([{}]));
        check_rows(&[floats("n", &[0, 4], &[])], 0, &json!([]));
    }

    #[test]
    fn other_outputs_are_answered_whole() {
        let scalar = || floats("s", &[], &[7.0]);
        let three = || floats("t", &[3], &[1.0, 2.0, 3.0]);
        let none = || floats("n", &[0, 4], &[]);
        check_rows(&[scalar()], 1, &json!(7.0));
        check_rows(&[none()], 1, &json!([]));
        check_rows(&[scalar(), three()], 3, &json!({"s": 7.0, "t": [1.0, 2.0, 3.0]}));
        check_rows(&[none(), three()], 3, &json!({"n": [], "t": [1.0, 2.0, 3.0]}));
    }

    #[test]
    fn columns_are_answered_under_the_key_that_is_set() {
        let a = || floats("a", &[1, 2], &[1.0, 2.0]);
        for (columns, key) in
            [(ColumnReply::Outputs, "outputs"), (ColumnReply::Predictions, "predictions")]
        {
            check(&[a()], Shape::Columns, columns, &json!({ key: [[1.0, 2.0]] }));
            let both = json!({"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]});
            let outputs = [a(), NamedTensor { name: "b".to_owned(), ..a() }];
            check(&outputs, Shape::Columns, columns, &json!({ key: both }));
        }
    }

    #[test]
    fn what_json_has_no_number_for_are_words_where_that_is_set() {
        let mut json = Vec::new();
        let outputs = [floats("y", &[1, 2], &[f32::NAN, f32::NEG_INFINITY])];
        write(&mut json, &outputs, Shape::Rows(1), ColumnReply::Outputs, NanForm::Words).unwrap();
        assert_eq!(json, br#"{"predictions":[[NaN,-Infinity]]}"#);
    }

    #[test]
    fn empty_lists_are_bounded() {
        let check = |shape: &[i64]| {
            let outputs = [floats("y", shape, &[])];
            let mut json = Vec::new();
            let written =
                write(&mut json, &outputs, Shape::Columns, ColumnReply::Outputs, NanForm::Null);
            written.map(|()| json.len()).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[3, 0]), Ok(r#"{"outputs":[[],[],[]]}"#.len()));
        assert_eq!(
            check(&[1 << 40, 0]).unwrap_err(),
            "output \"y\": has the shape [1099511627776, 0], of too many empty lists"
        );
        assert!(check(&[1, 1 << 40, 0, 3]).unwrap_err().contains("too many empty lists"));
        assert!(check(&[400, 400, 0]).unwrap_err().contains("too many empty lists"));
    }

    #[test]
    fn bytes_that_are_no_text_are_in_base64() {
        let values: &[&[u8]] = &[b"hi", b"\xff"];
        check_rows(&[bytes("text", &[2], values)], 2, &json!(["hi", {"b64": "/w=="}]));
        let both = json!([{"b64": "aGk="}, {"b64": "/w=="}]);
        check_rows(&[bytes("raw_bytes", &[2], values)], 2, &both);
        let one = json!([[{"b64": "aGk="}, {"b64": "/w=="}]]);
        check_rows(&[bytes("raw_bytes", &[1, 2], values)], 1, &one);
    }
}
