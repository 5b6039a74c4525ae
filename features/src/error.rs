//! What goes wrong with features, by what the caller can do about it.

use std::path::PathBuf;

use sluice_protocol::{Code, UnknownFormat};

/// One complaint about a definition: where it stands and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The file that holds the definition.
    pub file: String,
    /// The definition, such as `feature_view store_sales@1`; empty for the file itself.
    pub name: String,
    /// What is wrong, naming the thing and the way out.
    pub reason: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            write!(f, "{}: {}", self.file, self.reason)
        } else {
            write!(f, "{}: {}: {}", self.file, self.name, self.reason)
        }
    }
}

/// Every complaint about a set of definitions, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaints(pub Vec<Complaint>);

impl std::fmt::Display for Complaints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, complaint) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            complaint.fmt(f)?;
        }
        Ok(())
    }
}

/// Why features could not be defined, computed, stored or looked up.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The definitions are wrong; all complaints at once.
    #[error("{0}")]
    Definitions(Complaints),
    /// No feature service has this name.
    #[error("feature service {service:?} is not defined, known are: {known}")]
    UnknownService {
        /// The name as given.
        service: String,
        /// The names that exist.
        known: String,
    },
    /// No feature view has this name.
    #[error("feature view {view:?} is not defined, known are: {known}")]
    UnknownView {
        /// The name as given.
        view: String,
        /// The names that exist.
        known: String,
    },
    /// Entities that the online store does not hold.
    #[error("{join_key} {keys} is not in the online store (entity {entity})")]
    UnknownEntity {
        /// The entity's name.
        entity: String,
        /// Its join key.
        join_key: String,
        /// The first few unknown keys.
        keys: String,
    },
    /// A field's value that is not of its type.
    #[error("field {field:?}, row {row}: {value} is not {expected}")]
    InvalidField {
        /// The field's name.
        field: String,
        /// The row, counted from 0.
        row: usize,
        /// The value as given.
        value: String,
        /// What a right one looks like.
        expected: String,
    },
    /// A required field that the request does not bring.
    #[error("field {field:?} is missing, it must be {expected}")]
    MissingField {
        /// The field's name.
        field: String,
        /// What it must be.
        expected: String,
    },
    /// A field that the feature service does not take.
    #[error("field {field:?} is unknown, feature service {service} takes: {known}")]
    UnknownField {
        /// The field's name.
        field: String,
        /// The service.
        service: String,
        /// The fields it takes.
        known: String,
    },
    /// Columns of one request with different numbers of rows.
    #[error("field {field:?} has {found} rows, the request has {expected}")]
    RowCount {
        /// The field's name.
        field: String,
        /// Its rows.
        found: usize,
        /// The rows of the fields before it.
        expected: usize,
    },
    /// An expression that could not be computed for a value.
    #[error("{0}")]
    Evaluate(#[from] crate::expression::EvaluateError),
    /// A training frame asked for in a way that contradicts the definitions.
    #[error("training frame: {0}")]
    Request(String),
    /// A source that is missing, lacks a column or holds a wrong value.
    #[error("source {source_name} ({path}): {reason}")]
    Source {
        /// The source's name.
        source_name: String,
        /// Its file.
        path: String,
        /// What is wrong, naming row and column where there is one.
        reason: String,
    },
    /// A view without any row in the online store.
    #[error("view {0} is not in the online store; run `sluice features materialize`")]
    NotMaterialized(String),
    /// A view whose stored rows were computed from another definition.
    #[error(
        "view {0} in the online store was computed from another definition of it; run `sluice features materialize`"
    )]
    OtherDefinition(String),
    /// Another process has the online store open.
    #[error(
        "online store {path} is open in another process; the gateway owns it while it serves: use --admin URL"
    )]
    StoreBusy {
        /// The store's file.
        path: PathBuf,
    },
    /// The online store failed.
    #[error("online store {path}: {reason}")]
    Store {
        /// The store's file.
        path: String,
        /// What failed.
        reason: String,
    },
    /// A file or message that a newer version wrote.
    #[error("{what}: {reason}")]
    Format {
        /// The file or message.
        what: String,
        /// The two versions.
        reason: UnknownFormat,
    },
    /// Bytes that are not what they should be.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// The file or message.
        what: String,
        /// What does not fit.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The offline engine failed.
    #[error("offline engine: {0}")]
    Offline(String),
}

impl FeatureError {
    /// The code of the closed list that tells a caller what to do.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownService { .. } | Self::UnknownView { .. } | Self::UnknownEntity { .. } => {
                Code::NotFound
            }
            Self::Definitions(_)
            | Self::InvalidField { .. }
            | Self::MissingField { .. }
            | Self::UnknownField { .. }
            | Self::RowCount { .. }
            | Self::Evaluate(_)
            | Self::Request(_)
            | Self::Source { .. }
            | Self::Damaged { .. } => Code::InvalidArgument,
            Self::NotMaterialized(_)
            | Self::OtherDefinition(_)
            | Self::StoreBusy { .. }
            | Self::Format { .. } => Code::FailedPrecondition,
            Self::Io { reason, .. } if reason.kind() == std::io::ErrorKind::NotFound => {
                Code::NotFound
            }
            Self::Io { .. } | Self::Store { .. } | Self::Offline(_) => Code::Internal,
        }
    }
}
