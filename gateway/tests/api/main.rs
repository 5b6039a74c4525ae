//! The gateway from outside: real ports, real ONNX Runtime, models from a folder.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod configuration;
mod content_coding;
mod drain;
mod framing;
mod http_v2;
mod inference;
mod lifecycle;
mod metadata;
mod overload;
mod settings;
mod support;
