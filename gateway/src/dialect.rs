//! What is answered where KServe, Triton and TensorFlow Serving contradict each other. The
//! defaults suit the stock clients of all three; each can be set to what one of them does.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// The choices in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) grpc_output: GrpcOutput,
    pub(crate) overload: OverloadStatus,
    pub(crate) column_reply: ColumnReply,
    pub(crate) nan: NanForm,
    pub(crate) unknown_ready: UnknownReady,
}

/// The choices as written: what is absent has a default.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct DialectSettings {
    /// Form of gRPC outputs: as the inputs came (mirror), always raw as Triton does it, or both [default: mirror]
    #[arg(long, value_name = "FORM", env = "SLUICE_GRPC_OUTPUT")]
    pub grpc_output: Option<GrpcOutput>,
    /// How overload is refused: 429 and RESOURCE_EXHAUSTED, or 503 and UNAVAILABLE as Triton does it [default: exhausted]
    #[arg(long, value_name = "STATUS", env = "SLUICE_OVERLOAD_STATUS")]
    pub overload_status: Option<OverloadStatus>,
    /// Key of V1's answer to columns: `outputs` as TensorFlow Serving has it, `predictions` as KServe [default: outputs]
    #[arg(long, value_name = "KEY", env = "SLUICE_COLUMN_REPLY")]
    pub column_reply: Option<ColumnReply>,
    /// NaN and the infinities in JSON: null, or the bare words of Triton and TensorFlow Serving, which then are read too [default: null]
    #[arg(long, value_name = "FORM", env = "SLUICE_NAN")]
    pub nan: Option<NanForm>,
    /// What gRPC's ModelReady says of an unknown model: false, or NOT_FOUND as KServe does it [default: false]
    #[arg(long, value_name = "ANSWER", env = "SLUICE_UNKNOWN_READY")]
    pub unknown_ready: Option<UnknownReady>,
}

/// How gRPC answers carry their tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GrpcOutput {
    /// Typed where all inputs came typed, else raw.
    #[default]
    Mirror,
    /// Always raw.
    Raw,
    /// Raw and typed, against the letter of the protocol.
    Both,
}

/// The status of a refusal for overload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverloadStatus {
    /// 429, RESOURCE_EXHAUSTED.
    #[default]
    Exhausted,
    /// 503, UNAVAILABLE.
    Unavailable,
}

/// The key of V1's answer to columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the keys themselves")]
pub enum ColumnReply {
    #[default]
    Outputs,
    Predictions,
}

/// Numbers that JSON has no form for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NanForm {
    /// Written as null.
    #[default]
    Null,
    /// `NaN`, `Infinity` and `-Infinity`, written and read.
    Words,
}

/// What ModelReady says of a model that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownReady {
    /// It is not ready.
    #[default]
    False,
    /// There is no such model.
    NotFound,
}

impl DialectSettings {
    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            grpc_output: self.grpc_output.or(file.grpc_output),
            overload_status: self.overload_status.or(file.overload_status),
            column_reply: self.column_reply.or(file.column_reply),
            nan: self.nan.or(file.nan),
            unknown_ready: self.unknown_ready.or(file.unknown_ready),
        }
    }

    /// With the defaults for what nobody said.
    pub(crate) fn resolve(&self) -> Dialect {
        Dialect {
            grpc_output: self.grpc_output.unwrap_or_default(),
            overload: self.overload_status.unwrap_or_default(),
            column_reply: self.column_reply.unwrap_or_default(),
            nan: self.nan.unwrap_or_default(),
            unknown_ready: self.unknown_ready.unwrap_or_default(),
        }
    }
}
