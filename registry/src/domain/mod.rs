//! What both halves agree on: names and paths, messages of the wire, events of the feed.

mod alias;
mod artifact_path;
mod change;
mod error_name;
#[cfg(feature = "server")]
mod filter;
mod message;
#[cfg(feature = "server")]
mod source;
#[cfg(feature = "server")]
mod tag;
mod unique;

pub(crate) use alias::check_alias;
pub(crate) use artifact_path::ArtifactPath;
pub use change::{Change, ChangeKind, Changes, FileEntry, Snapshot, SnapshotModel};
pub(crate) use error_name::ErrorMessage;
#[cfg(feature = "server")]
pub(crate) use filter::{Clause, Comparison, Direction, Field, Operand, parse_filter, parse_order};
#[cfg(feature = "server")]
pub(crate) use message::{AliasMessage, VersionMessage};
pub(crate) use message::{FilesMessage, ModelMessage, TagMessage, VersionReply};
#[cfg(feature = "server")]
pub(crate) use source::Source;
#[cfg(feature = "server")]
pub(crate) use tag::check_tag;
pub(crate) use unique::unique_id;

/// The scheme of artifact addresses that this registry keeps itself.
pub(crate) const ARTIFACT_SCHEME: &str = "mlflow-artifacts:";

/// Where the client puts the files of versions to come. What lies there without becoming part
/// of a version is an upload that was given up.
pub(crate) const UPLOADS: &str = "sluice-uploads";
