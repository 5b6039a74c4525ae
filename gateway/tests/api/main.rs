//! The gateway from outside: real ports, real ONNX Runtime, models from a folder.

mod bad_input;
mod inference;
mod lifecycle;
mod metadata;
mod support;
