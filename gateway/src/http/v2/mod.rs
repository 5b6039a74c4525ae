//! The Open Inference Protocol V2 over HTTP: JSON, and Triton's binary tensor extension.

mod decode;
mod encode;
mod envelope;
mod metadata;
mod parameters;
mod split;

use http::header::HeaderName;

pub(super) use decode::decode;
pub(super) use encode::encode;
pub(super) use metadata::{model_metadata, model_ready, server_metadata};
pub(super) use parameters::{WireParameters, wire_parameters};
pub(super) use split::Split;

/// How long the JSON part of a body is, when binary data follows it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Which outputs the caller wants in binary form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReplyForm {
    all_binary: bool,
    binary: Vec<String>,
}

impl ReplyForm {
    fn is_binary(&self, output: &str) -> bool {
        self.all_binary || self.binary.iter().any(|name| name == output)
    }
}
