//! The gateway from outside: real ports, real ONNX Runtime, models from a folder.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod cache;
mod drain;
mod inference;
mod lifecycle;
mod metadata;
mod overload;
mod schedule;
mod settings;
mod statistics;
mod support;
