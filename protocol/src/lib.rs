//! What processes and files must agree on.
//!
//! A thing belongs here only if two processes, or a process and a file, would disagree if it
//! changed: tensors, model names, infer messages, the model package (manifest, reference
//! profile, parity rows), error codes and the protobuf of the Open Inference Protocol.
//! Behaviour (retries, configuration, statistics) lives with whoever behaves.
#![warn(missing_docs)]

mod code;
pub mod codec;
mod datatype;
mod digest;
mod format;
mod infer;
mod manifest;
mod model_config;
mod name;
mod parity;
mod profile;
mod shape;
mod tensor;

/// The Open Inference Protocol's gRPC messages and service with Triton's additions, generated
/// from `proto/`.
#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all)]
pub mod grpc {
    tonic::include_proto!("inference");

    /// The messages and services as descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use code::Code;
pub use datatype::Datatype;
pub use digest::Digest;
pub use format::{Format, UnknownFormat, read_toml, toml_fault};
pub use infer::{
    InferRequest, InferResponse, NamedTensor, Parameter, Parameters, RegionSlice, RequestedOutput,
};
pub use manifest::{
    FeatureServicePin, MANIFEST_FILE, MODEL_FILE, Manifest, ManifestError, PARITY_FILE,
    PROFILE_FILE, TensorSpec,
};
pub use model_config::ModelConfigError;
pub use name::{InvalidName, ModelName, ModelVersion};
pub use parity::ParityRows;
pub use profile::{FeatureProfile, ReferenceProfile};
pub use shape::{MAX_RANK, ShapeError, element_count};
pub use tensor::{Tensor, TensorData};
