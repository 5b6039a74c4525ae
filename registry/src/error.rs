//! What can go wrong with the registry, on either side of the wire.

use sluice_protocol::Code;

/// A refusal or a fault of the registry. The text names the thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The named model, version, alias or file is not there.
    #[error("{0}")]
    NotFound(String),
    /// The request is wrong; sending it again cannot help.
    #[error("{0}")]
    InvalidArgument(String),
    /// The model to be created is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The state forbids it, above all a write to the files of a version.
    #[error("{0}")]
    Conflict(String),
    /// More bytes than the server accepts.
    #[error("{0}")]
    TooLarge(String),
    /// The cursor cannot be resumed: take a snapshot and follow the feed from there.
    #[error("{0}")]
    SnapshotRequired(String),
    /// The server does not have this call.
    #[error("{0}")]
    Unimplemented(String),
    /// The server is away, stopping or out of space; try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Bytes that are not what their digest says.
    #[error("{0}")]
    Corrupt(String),
    /// The data folder was written by a newer Sluice.
    #[error("{0}")]
    NewerFormat(String),
    /// A fault of the registry itself.
    #[error("{0}")]
    Internal(String),
}

impl RegistryError {
    /// The code of the closed list that all of Sluice uses.
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::Conflict(_) | Self::SnapshotRequired(_) | Self::NewerFormat(_) => {
                Code::FailedPrecondition
            }
            Self::TooLarge(_) => Code::TooLarge,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Corrupt(_) | Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<sluice_protocol::InvalidName> for RegistryError {
    fn from(error: sluice_protocol::InvalidName) -> Self {
        Self::InvalidArgument(error.to_string())
    }
}
