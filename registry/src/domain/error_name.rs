//! MLflow's names and statuses for errors, and the way back.

use serde::{Deserialize, Serialize};

use crate::RegistryError;

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorMessage {
    pub(crate) error_code: String,
    #[serde(default)]
    pub(crate) message: String,
}

impl ErrorMessage {
    /// The HTTP status and body that carry `error`. MLflow's client waits and repeats after any
    /// 5xx, so those are kept for what may indeed pass.
    #[cfg(feature = "server")]
    pub(crate) fn of(error: &RegistryError) -> (u16, Self) {
        let (status, name) = match error {
            RegistryError::NotFound(_) => (404, "RESOURCE_DOES_NOT_EXIST"),
            RegistryError::InvalidArgument(_) => (400, "INVALID_PARAMETER_VALUE"),
            RegistryError::AlreadyExists(_) => (400, "RESOURCE_ALREADY_EXISTS"),
            RegistryError::Conflict(_) => (409, "RESOURCE_CONFLICT"),
            RegistryError::TooLarge(_) => (413, "BAD_REQUEST"),
            RegistryError::SnapshotRequired(_) => (410, "SNAPSHOT_REQUIRED"),
            RegistryError::Unimplemented(_) => (404, "ENDPOINT_NOT_FOUND"),
            RegistryError::Unavailable(_) => (503, "TEMPORARILY_UNAVAILABLE"),
            RegistryError::Corrupt(_) => (500, "DATA_LOSS"),
            RegistryError::NewerFormat(_) | RegistryError::Internal(_) => (500, "INTERNAL_ERROR"),
        };
        (status, Self { error_code: name.into(), message: error.to_string() })
    }

    /// The error that an answer of this status and body stands for.
    pub(crate) fn into_error(self, status: u16) -> RegistryError {
        let text = self.message;
        match (self.error_code.as_str(), status) {
            ("RESOURCE_DOES_NOT_EXIST" | "NOT_FOUND", _) => RegistryError::NotFound(text),
            ("RESOURCE_ALREADY_EXISTS" | "ALREADY_EXISTS", _) => RegistryError::AlreadyExists(text),
            ("RESOURCE_CONFLICT" | "ABORTED", _) => RegistryError::Conflict(text),
            ("SNAPSHOT_REQUIRED", _) => RegistryError::SnapshotRequired(text),
            ("ENDPOINT_NOT_FOUND" | "NOT_IMPLEMENTED", _) => RegistryError::Unimplemented(text),
            ("DATA_LOSS", _) => RegistryError::Corrupt(text),
            (_, 413) => RegistryError::TooLarge(text),
            (_, 404) => RegistryError::NotFound(text),
            (_, 408 | 429 | 502 | 503 | 504) => RegistryError::Unavailable(text),
            (_, 400..=499) => RegistryError::InvalidArgument(text),
            _ => RegistryError::Internal(text),
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::ErrorMessage;
    use crate::RegistryError;

    #[test]
    fn errors_survive_the_wire() {
        for error in [
            RegistryError::NotFound("a".into()),
            RegistryError::InvalidArgument("a".into()),
            RegistryError::AlreadyExists("a".into()),
            RegistryError::Conflict("a".into()),
            RegistryError::TooLarge("a".into()),
            RegistryError::SnapshotRequired("a".into()),
            RegistryError::Unimplemented("a".into()),
            RegistryError::Unavailable("a".into()),
            RegistryError::Corrupt("a".into()),
            RegistryError::Internal("a".into()),
        ] {
            let (status, message) = ErrorMessage::of(&error);
            assert_eq!(message.into_error(status), error);
        }
    }
}
