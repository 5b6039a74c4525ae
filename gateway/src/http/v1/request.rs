//! A predict request's body: rows or columns, by itself or as the data of a CloudEvent.

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_protocol::{InferRequest, NamedTensor, Parameters};

use super::super::brief::is_list_or_text;
use super::super::cloud_events::{self, Envelope};
use super::super::rows::{columns_to_tensors, rows_to_tensors};
use super::super::{elements, words};
use super::answer::{ReplyForm, Shape};
use super::metadata::SIGNATURE;
use crate::deployment::Deployment;
use crate::dialect::NanForm;
use crate::error::{GatewayError, clip};
use crate::room::Room;
use crate::settings::CloudEvents;

/// What is read of a body; other keys do not matter.
#[derive(Deserialize)]
struct WireRequest<'b> {
    #[serde(borrow, default)]
    signature_name: Option<&'b RawValue>,
    #[serde(borrow, default)]
    instances: Option<&'b RawValue>,
    #[serde(borrow, default)]
    inputs: Option<&'b RawValue>,
    /// Where a CloudEvent has its payload.
    #[serde(borrow, default)]
    data: Option<&'b RawValue>,
}

/// Reads a request, and the form of its answer. A list of no rows asks nothing.
pub(super) fn decode(
    deployment: &Deployment,
    headers: &HeaderMap,
    body: &Bytes,
    nan: NanForm,
    events: &CloudEvents,
    room: &Room,
) -> Result<(Option<InferRequest>, ReplyForm), GatewayError> {
    let replaced = match nan {
        NanForm::Null => None,
        NanForm::Words => words::replaced(body, room)?.map(Bytes::from),
    };
    let (envelope, payload) =
        cloud_events::open(headers, replaced.as_ref().unwrap_or(body), events, room)?;
    let wire = read(headers, &envelope, &payload)?;
    if matches!(envelope, Envelope::None)
        && wire.data.is_some()
        && let Some((envelope, payload)) = cloud_events::open_undeclared(&payload, events, room)?
    {
        let wire = read(headers, &envelope, &payload)?;
        return to_request(deployment, &wire, envelope, room);
    }
    to_request(deployment, &wire, envelope, room)
}

fn read<'b>(
    headers: &HeaderMap,
    envelope: &Envelope,
    payload: &'b [u8],
) -> Result<WireRequest<'b>, GatewayError> {
    if is_list_or_text(payload) {
        return Err(invalid("request body is no predict request: JSON value Is not object"));
    }
    serde_json::from_slice(payload).map_err(|error| {
        if let Envelope::Binary(_) = envelope
            && (!error.is_data() || std::str::from_utf8(payload).is_err())
        {
            return cloud_events::no_json(headers, &error);
        }
        GatewayError::Invalid(format!("request body is no predict request: {error}"))
    })
}

fn to_request(
    deployment: &Deployment,
    wire: &WireRequest<'_>,
    envelope: Envelope,
    room: &Room,
) -> Result<(Option<InferRequest>, ReplyForm), GatewayError> {
    check_signature(wire.signature_name, room)?;
    elements::check_outputs(deployment)?;
    let (inputs, shape) = tensors(deployment, wire, room)?;
    let request = inputs.map(|inputs| InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: String::new(),
        parameters: Parameters::new(),
        inputs,
        outputs: Vec::new(),
    });
    Ok((request, ReplyForm { shape, envelope }))
}

fn tensors(
    deployment: &Deployment,
    wire: &WireRequest<'_>,
    room: &Room,
) -> Result<(Option<Vec<NamedTensor>>, Shape), GatewayError> {
    match (wire.instances, wire.inputs) {
        (Some(rows), None) => {
            let inputs = rows_to_tensors(deployment, rows.get(), room)?;
            let first = inputs.as_ref().and_then(|inputs| inputs.first());
            let rows = first.and_then(|input| input.tensor.rows()).unwrap_or(0);
            Ok((inputs, Shape::Rows(rows)))
        }
        (None, Some(columns)) => {
            Ok((Some(columns_to_tensors(deployment, columns.get(), room)?), Shape::Columns))
        }
        (Some(_), Some(_)) => Err(invalid(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist; \
             the request has both",
        )),
        (None, None) => {
            Err(invalid("Missing 'inputs' or 'instances' key; the request has neither"))
        }
    }
}

/// A graph has one signature. Nothing, or nothing but quotes, means the default one.
fn check_signature(given: Option<&RawValue>, room: &Room) -> Result<(), GatewayError> {
    let Some(given) = given else { return Ok(()) };
    let _name = room.lend(given.get().len())?;
    let name: String = serde_json::from_str(given.get())
        .map_err(|_| invalid("'signature_name' key must be a string value."))?;
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    let name = clip(&name);
    Err(GatewayError::Invalid(format!(
        "Serving signature key {name:?} not found; a model has the one signature {SIGNATURE:?}"
    )))
}

fn invalid(text: &str) -> GatewayError {
    GatewayError::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;
    use sluice_protocol::Datatype;

    use super::decode;
    use crate::deployment::{Deployment, idle};
    use crate::dialect::NanForm;
    use crate::room::Room;
    use crate::settings::CloudEvents;

    fn deployment(inputs: &[(&str, Datatype, &[i64])]) -> Deployment {
        idle::deployment(&"m".parse().unwrap(), inputs)
    }

    /// Values of every kind, some of them where they do not belong.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("NaN".to_owned()),
            Just("-Infinity".to_owned()),
            Just("{\"b64\":\"AA==\"}".to_owned()),
            Just("{\"b64\":\"*\"}".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            any::<f64>().prop_map(|value| format!("{value:e}")),
            "\\PC{0,4}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let key = prop_oneof![
                Just("a"),
                Just("b"),
                Just("b64"),
                Just("instances"),
                Just("inputs"),
                Just("data"),
                Just("id"),
                Just("type"),
                Just("source"),
                Just("specversion"),
                Just("time"),
            ];
            let entry = (key, inner.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
                prop::collection::vec(entry, 0..7)
                    .prop_map(|list| format!("{{{}}}", list.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(
            value in value(),
            key in "instances|inputs",
            noise in prop::collection::vec(any::<u8>(), 0..40),
            event: bool,
        ) {
            let mut headers = HeaderMap::new();
            if event {
                headers.insert("content-type", "application/cloudevents+json".parse().unwrap());
            }
            let mut events = CloudEvents::default();
            events.merge = true;
            let one = deployment(&[("a", Datatype::Bytes, &[-1, -1])]);
            let two = deployment(&[("a", Datatype::Fp32, &[-1, 2]), ("b", Datatype::Int8, &[-1])]);
            let body = format!("{{\"{key}\":{value}}}");
            for body in [body.into_bytes(), value.into_bytes(), noise] {
                let body = Bytes::from(body);
                for deployment in [&one, &two] {
                    for nan in [NanForm::Null, NanForm::Words] {
                        let room = Room::new(1 << 20);
                        let _either = decode(deployment, &headers, &body, nan, &events, &room);
                    }
                }
            }
        }
    }
}
