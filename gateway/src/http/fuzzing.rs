//! Requests over HTTP, as fuzzing has them: from the body to the graph's inputs.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

pub(crate) use super::v1::fuzzing::v1_body;
use super::v2;
use crate::control::shared_memory::Regions;
use crate::dialect::NanForm;
use crate::fuzzing::{BODY_LIMIT, deployments};
use crate::inputs;
use crate::room::Room;

/// An infer request of V2 that is JSON and nothing else.
pub(crate) fn v2_json(body: &Bytes) {
    for nan in [NanForm::Words, NanForm::Null] {
        infer(&HeaderMap::new(), body, nan);
    }
}

/// An infer request of V2 behind the length of its JSON, which is a line of text and stands for
/// the header.
pub(crate) fn v2_binary(input: &Bytes) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let Ok(length) = HeaderValue::from_bytes(&input[..end]) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("inference-header-content-length", length);
    infer(&headers, &input.slice(end + 1..), NanForm::Words);
}

fn infer(headers: &HeaderMap, body: &Bytes, nan: NanForm) {
    let regions = Regions::new(true);
    for deployment in deployments() {
        let room = Room::new(BODY_LIMIT);
        let Ok(split) = v2::Split::new(headers, body) else { return };
        if let Ok((request, _)) = v2::decode(deployment, &regions, split, nan, &room) {
            drop(inputs::prepare(deployment, None, request.inputs));
        }
    }
}
