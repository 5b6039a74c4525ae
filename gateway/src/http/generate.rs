//! Triton's generate extension, for models that answer once: a JSON object whose keys are inputs
//! and parameters in, one whose keys are outputs back, by itself or as an event of a stream.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderValue};
use http::{HeaderMap, Response};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_protocol::{InferRequest, InferResponse, NamedTensor, Tensor};

use super::brief::text_instead;
use super::v2::{WireParameters, wire_parameters};
use super::{Body, elements, forward, reply, words};
use crate::caller::Caller;
use crate::deployment::{Deployment, ListedTensor};
use crate::dialect::NanForm;
use crate::error::GatewayError;
use crate::pipeline;
use crate::room::Room;
use crate::shared::Shared;
use crate::trace::Trace;

/// The type of a stream of events.
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Refuses a body that is not sent as it is.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), GatewayError> {
    let is_plain = |value: &HeaderValue| {
        value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity")
    };
    match headers.get_all(CONTENT_ENCODING).iter().find(|value| !is_plain(value)) {
        None => Ok(()),
        Some(encoding) => Err(GatewayError::Invalid(format!(
            "content encoding {encoding:?} is not taken by generate; send the body as it is"
        ))),
    }
}

/// Answers a request, as one event if a `stream` is asked for. An error of the run is an event
/// too; one that is found before is a reply like that of every other route.
pub(super) async fn handle(
    shared: &Shared,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
    stream: bool,
    trace: &mut Trace,
) -> Result<Response<Body>, GatewayError> {
    let caller = Caller::of_headers(shared, headers, body.len())?;
    let nan = shared.dialect().nan;
    let decode = |deployment: &Deployment| {
        let room = Room::new(shared.limits().max_body);
        let mut request = decode(deployment, body, nan, &room)?;
        forward(shared, headers, &mut request)?;
        Ok(request)
    };
    let answered = pipeline::infer(shared, model, version, caller, trace, decode).await;
    let run_failed = |error: &GatewayError| {
        matches!(error, GatewayError::Engine { .. } | GatewayError::DeadlineExceeded(_))
    };
    match answered {
        Ok(response) if stream => Ok(event(200, &encode(&response, nan)?)),
        Ok(response) => Ok(reply::with_body(200, reply::JSON, encode(&response, nan)?.into())),
        Err(error) if stream && run_failed(&error) => {
            error.log();
            let text = json!({"error": error.message()}).to_string();
            Ok(event(error.code().http_status(), text.as_bytes()))
        }
        Err(error) => Err(error),
    }
}

/// A stream of one event. The JSON has no line breaks in it.
fn event(status: u16, json: &[u8]) -> Response<Body> {
    reply::with_body(status, EVENTS, [b"data: ", json, b"\n\n"].concat().into())
}

fn decode(
    deployment: &Deployment,
    body: &Bytes,
    nan: NanForm,
    room: &Room,
) -> Result<InferRequest, GatewayError> {
    elements::check_outputs(deployment)?;
    let listed = deployment.listed_inputs();
    let replaced = match nan {
        NanForm::Null => None,
        NanForm::Words => words::replaced(body, room)?,
    };
    let text = std::str::from_utf8(replaced.as_deref().unwrap_or(body))
        .map_err(|error| invalid(&error.to_string()))?;
    let mut asked =
        Asked { listed: &listed, id: None, inputs: Vec::new(), parameters: <_>::default() };
    let mut json = serde_json::Deserializer::from_str(text);
    Entries { asked: &mut asked, nested: false }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| invalid(&error.to_string()))?;
    let inputs = asked.inputs.iter().map(|(input, value)| {
        let is_own = deployment.inputs.iter().any(|spec| spec.name == input.name);
        let bounds = elements::take_room(room, input.datatype, value.get())?;
        let tensor = one_row(input, deployment.batches || !is_own, value.get(), bounds)
            .map_err(|reason| GatewayError::input(&input.name, reason))?;
        Ok(NamedTensor { name: input.name.clone(), tensor })
    });
    Ok(InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        inputs: inputs.collect::<Result<_, GatewayError>>()?,
        id: asked.id.unwrap_or_default(),
        parameters: WireParameters::of_request(Some(asked.parameters))?,
        outputs: Vec::new(),
    })
}

fn invalid(reason: &str) -> GatewayError {
    GatewayError::Invalid(format!("request body is no generate request: {reason}"))
}

/// What a body asks, as its keys are read.
struct Asked<'l, 'j> {
    listed: &'l [ListedTensor],
    id: Option<String>,
    inputs: Vec<(&'l ListedTensor, &'j RawValue)>,
    parameters: WireParameters,
}

/// An object of inputs and parameters; the outer one also has the id and a nested one.
struct Entries<'a, 'l, 'j> {
    asked: &'a mut Asked<'l, 'j>,
    nested: bool,
}

impl<'j> DeserializeSeed<'j> for Entries<'_, '_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Entries<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(text_instead(&self))
    }

    /// Parameters that are null are none.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.nested { Ok(()) } else { Err(E::invalid_type(Unexpected::Unit, &self)) }
    }

    fn visit_map<A: MapAccess<'j>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { asked, nested } = self;
        while let Some(name) = entries.next_key::<String>()? {
            if let Some(input) = asked.listed.iter().find(|input| input.name == name) {
                if asked.inputs.iter().any(|(given, _)| given.name == name) {
                    let text = format!("input '{name}' already exists in request");
                    return Err(A::Error::custom(text));
                }
                asked.inputs.push((input, entries.next_value()?));
                continue;
            }
            match name.as_str() {
                "id" if !nested => asked.id = entries.next_value()?,
                "parameters" if !nested => {
                    entries.next_value_seed(Entries { asked: &mut *asked, nested: true })?;
                }
                _ => asked.parameters.add(name, &mut entries)?,
            }
        }
        Ok(())
    }
}

/// The value of an input for one row. Its list need not be nested as the input is; if it is, it
/// must be nested in the same way. `by_row` says that the input's first dimension is rows.
fn one_row(
    input: &ListedTensor,
    by_row: bool,
    text: &str,
    bounds: elements::Bounds,
) -> Result<Tensor, String> {
    let parsed = elements::parse(text, input.datatype, bounds)?;
    let found = parsed.shape.ok_or("has lists of different shapes")?;
    let found: Vec<i64> = found.into_iter().map(|n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
    let count = i64::try_from(parsed.data.len()).unwrap_or(i64::MAX);
    let shape = match found.len() {
        0 | 1 => spread(&input.shape, by_row, count),
        _ => fitted(&input.shape, by_row, &found),
    };
    let shape = shape.ok_or_else(|| {
        format!("has a value of shape {found:?}, which is no row of {:?}", input.shape)
    })?;
    Tensor::new(shape, parsed.data).map_err(|error| error.to_string())
}

/// The shape of one row with `count` elements: the first free dimension takes what the fixed ones
/// leave, and the other free ones are 1.
fn spread(wanted: &[i64], by_row: bool, count: i64) -> Option<Vec<i64>> {
    let mut shape = wanted.to_vec();
    if by_row && let Some(rows) = shape.first_mut() {
        *rows = 1;
    }
    let mut fixed = shape.iter().copied().filter(|&size| size >= 0);
    let fixed = fixed.try_fold(1i64, i64::checked_mul)?;
    let mut left = if fixed == 0 { 0 } else { count / fixed };
    for size in shape.iter_mut().filter(|size| **size < 0) {
        *size = std::mem::replace(&mut left, 1);
    }
    Some(shape)
}

/// `found`, or one row of it, if it is of the shape that is wanted.
fn fitted(wanted: &[i64], by_row: bool, found: &[i64]) -> Option<Vec<i64>> {
    let mut shape = found.to_vec();
    if by_row && found.len() + 1 == wanted.len() {
        shape.insert(0, 1);
    }
    let is_one_row = !by_row || shape.first() == Some(&1);
    let fits = shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(size, wanted)| *wanted < 0 || size == wanted);
    (fits && is_one_row).then_some(shape)
}

/// The answer's object: outputs of one element as they are, others as lists, and what there is to
/// say about the answer.
fn encode(response: &InferResponse, nan: NanForm) -> Result<Vec<u8>, GatewayError> {
    let is_output = |name: &str| response.outputs.iter().any(|output| output.name == name);
    let mut facts = serde_json::Map::new();
    facts.insert("model_name".to_owned(), json!(response.model));
    facts.insert("model_version".to_owned(), json!(response.version.to_string()));
    if !response.id.is_empty() {
        facts.insert("id".to_owned(), json!(response.id));
    }
    facts.extend(wire_parameters(&response.parameters));
    facts.retain(|name, _| !is_output(name));
    let mut json = Vec::new();
    for (name, value) in &facts {
        key(&mut json, name);
        json.extend_from_slice(value.to_string().as_bytes());
    }
    for NamedTensor { name, tensor } in &response.outputs {
        key(&mut json, name);
        let data = tensor.data();
        let is_list = data.len() != 1;
        json.extend(is_list.then_some(b'['));
        elements::write(&mut json, data, 0..data.len(), nan)
            .map_err(|reason| GatewayError::Invalid(format!("output {name:?}: {reason}")))?;
        json.extend(is_list.then_some(b']'));
    }
    json.push(b'}');
    Ok(json)
}

/// Writes a name and what stands before and behind it.
fn key(json: &mut Vec<u8>, name: &str) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(Value::from(name).to_string().as_bytes());
    json.push(b':');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_protocol::Datatype;

    use super::{decode, fitted, spread};
    use crate::deployment::{Deployment, idle};
    use crate::dialect::NanForm;
    use crate::inputs;
    use crate::room::Room;

    #[test]
    fn a_model_may_be_asked_without_an_input() {
        let inputs: [(&str, _, &[i64]); 1] = [("a", Datatype::Fp32, &[-1, 2])];
        let mut deployment = idle::deployment(&"m".parse().unwrap(), &inputs);
        let ask = |deployment: &Deployment| {
            let body = Bytes::from_static(b"{\"id\": \"q\", \"other\": 1}");
            let asked = decode(deployment, &body, NanForm::Null, &Room::new(1000)).unwrap();
            assert!(asked.inputs.is_empty() && asked.parameters.len() == 1, "{asked:?}");
            inputs::prepare(deployment, None, asked.inputs)
        };
        assert!(ask(&deployment).unwrap_err().to_string().contains("is missing"));
        deployment.inputs[0].optional = true;
        assert_eq!(ask(&deployment).unwrap().rows, 1);
    }

    #[test]
    fn a_row_takes_the_shape_of_the_input() {
        for (wanted, by_row, count, shape) in [
            (&[-1i64][..], true, 1, &[1i64][..]),
            (&[-1, 2], true, 2, &[1, 2]),
            (&[-1, -1], true, 7, &[1, 7]),
            (&[-1, -1, 3, -1], true, 6, &[1, 2, 3, 1]),
            (&[1, 2], false, 2, &[1, 2]),
            (&[-1], false, 5, &[5]),
            (&[-1, -1], false, 5, &[5, 1]),
            (&[], false, 1, &[]),
            (&[-1, -1], true, 0, &[1, 0]),
        ] {
            assert_eq!(spread(wanted, by_row, count).as_deref(), Some(shape), "{wanted:?} {count}");
        }
        assert_eq!(spread(&[i64::MAX, i64::MAX], false, 1), None);
    }

    #[test]
    fn nested_lists_must_be_nested_as_the_input_is() {
        for (wanted, by_row, found, shape) in [
            (&[-1i64, -1, -1][..], true, &[2i64, 3][..], Some(&[1i64, 2, 3][..])),
            (&[-1, -1, -1], true, &[1, 2, 3], Some(&[1, 2, 3])),
            (&[-1, -1, -1], true, &[2, 2, 3], None),
            (&[-1, 2, -1], true, &[3, 3], None),
            (&[-1, -1], false, &[2, 3], Some(&[2, 3])),
            (&[-1, 2], true, &[1, 2], Some(&[1, 2])),
            (&[-1, 2], true, &[2, 1], None),
        ] {
            assert_eq!(fitted(wanted, by_row, found).as_deref(), shape, "{wanted:?} {found:?}");
        }
    }
}
