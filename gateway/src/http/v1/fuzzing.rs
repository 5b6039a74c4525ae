//! Predict requests, as fuzzing has them: from the body to the graph's inputs.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::request::decode;
use crate::dialect::NanForm;
use crate::fuzzing::{BODY_LIMIT, deployments};
use crate::inputs;
use crate::room::Room;
use crate::settings::CloudEvents;

/// A predict request of V1: by itself, and as a CloudEvent in both modes.
pub(crate) fn v1_body(body: &Bytes) {
    let mut events = CloudEvents::default();
    events.merge = true;
    let mut structured = HeaderMap::new();
    structured.insert("content-type", HeaderValue::from_static("application/cloudevents+json"));
    let mut binary = HeaderMap::new();
    for name in ["ce-id", "ce-source", "ce-type", "ce-subject"] {
        binary.insert(name, HeaderValue::from_static("a"));
    }
    binary.insert("ce-specversion", HeaderValue::from_static("1.0"));
    for headers in [HeaderMap::new(), structured, binary] {
        for deployment in deployments() {
            let room = Room::new(BODY_LIMIT);
            let read = decode(deployment, &headers, body, NanForm::Words, &events, &room);
            if let Ok((Some(request), _)) = read {
                drop(inputs::prepare(deployment, None, request.inputs));
            }
        }
    }
}
