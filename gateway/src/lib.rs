//! The data plane: from a request's bytes to an answer.
//!
//! One request, in order: a serving core (`server`) reads it, `http` or `grpc` decodes
//! it, `pipeline` routes it to a `deployment` by one snapshot of the `catalog`, looks up
//! and computes its features (`inputs`), hands its rows to the deployment's `executor` and
//! encodes what comes back; `counters` take note. Everything that changes what is served
//! (`source`, `load`) happens aside and is published by one pointer swap.
//!
//! The gateway compiles no SQL engine, no registry server and no trainer.

mod access;
mod admin;
mod background;
mod binary;
mod cache;
mod caller;
mod catalog;
mod check;
mod classification;
mod config;
mod control;
mod counters;
mod deadline;
mod deployment;
mod descriptors;
mod dialect;
mod duration;
mod error;
mod executor;
mod forwarding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gateway;
mod grpc;
mod http;
mod inputs;
mod live;
mod load;
pub mod logs;
mod metrics;
mod model_config;
mod pipeline;
mod reload;
mod resident;
mod room;
mod security;
mod server;
mod settings;
mod shared;
mod shutdown;
mod socket;
mod source;
mod tenant;
mod tensor_parameters;
mod tls;
mod trace;
mod watchdog;

pub use check::{CheckOptions, CheckedPlan, CheckedVersion, check_repository};
pub use config::{Addresses, Config};
pub use control::exposure::ControlGroup;
pub use dialect::{
    ColumnReply, DialectSettings, GrpcOutput, NanForm, OverloadStatus, UnknownReady,
};
pub use error::{GatewayError, LoadError, StartError};
pub use forwarding::ForwardingSettings;
pub use gateway::Gateway;
pub use grpc::TransportSettings;
pub use metrics::MetricNames;
pub use security::SecuritySettings;
pub use settings::{CloudEventSettings, ModelControlMode, Settings};
pub use shutdown::run_until_stopped;
pub use trace::{TraceLevel, TraceSettings};
