//! The closed list of error codes of the whole system, and its two translations.

use serde::{Deserialize, Serialize};

/// What went wrong, as a caller can act on it. Every error of every crate has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The named thing does not exist.
    NotFound,
    /// The request itself is wrong; sending it again cannot help.
    InvalidArgument,
    /// The request or its parts exceed a stated limit.
    TooLarge,
    /// The body's type or encoding is not understood.
    UnsupportedMediaType,
    /// Nobody said who is asking.
    Unauthenticated,
    /// Whoever is asking may not.
    PermissionDenied,
    /// The thing to be created is there already.
    AlreadyExists,
    /// The state of the system forbids it; another call must come first.
    FailedPrecondition,
    /// Refused to protect the rest; try again later.
    Overloaded,
    /// The caller left.
    Cancelled,
    /// The deadline passed before the answer was there.
    DeadlineExceeded,
    /// Understood, but this server does not do it.
    Unimplemented,
    /// Not ready, draining, or a part that is needed is away.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// All codes, in the order of declaration: for closed metric labels.
    pub const ALL: [Self; 14] = [
        Self::NotFound,
        Self::InvalidArgument,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::Overloaded,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Unimplemented,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The HTTP status that carries this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            // Triton and MLflow answer 400 for what is there already; 409 is TensorFlow Serving's.
            Self::InvalidArgument | Self::FailedPrecondition | Self::AlreadyExists => 400,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::Overloaded => 429,
            Self::Cancelled => 499,
            Self::DeadlineExceeded => 504,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// The gRPC status that carries this code.
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Self::NotFound => tonic::Code::NotFound,
            Self::InvalidArgument | Self::UnsupportedMediaType => tonic::Code::InvalidArgument,
            Self::TooLarge | Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::Unimplemented => tonic::Code::Unimplemented,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The code as a metric label and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::InvalidArgument => "invalid_argument",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::AlreadyExists => "already_exists",
            Self::FailedPrecondition => "failed_precondition",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unimplemented => "unimplemented",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
