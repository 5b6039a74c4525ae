//! The gateway from outside: real ports, real ONNX Runtime, models from a folder.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod bad_input;
mod cache;
mod certificates;
mod cloud_events;
mod configuration;
mod content_coding;
mod drain;
mod framing;
mod generate;
mod grpc_stream;
mod grpc_v2;
mod h2_faults;
mod http_v2;
mod inference;
mod lifecycle;
mod metadata;
mod openapi;
mod overload;
mod raw_call;
mod reload;
mod repository;
mod schedule;
mod settings;
mod statistics;
mod support;
mod tls;
mod v1;
