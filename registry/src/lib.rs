//! The registry: which versions of which models exist, what files they are made of, and which
//! of them an alias such as `champion` names.
//!
//! [`Client`] is what gateway and trainer use. The server half, behind the feature `server`,
//! keeps names, versions and aliases in SQLite and files by their SHA-256 in a folder, and
//! speaks MLflow's REST API for both, so that MLflow's own client works unchanged. On top of
//! that API come a snapshot and an ordered change feed under `/api/1.0/sluice`.
//!
//! A version is immutable: creating it freezes the files that it was made from.
#![warn(missing_docs)]

mod client;
mod domain;
mod error;
pub mod outbound;
#[cfg(feature = "server")]
mod server;

pub use client::{Client, PackageFile, RegisteredModel, VersionInfo};
pub use domain::{Change, ChangeKind, Changes, FileEntry, Snapshot, SnapshotModel};
pub use error::RegistryError;
#[cfg(feature = "server")]
pub use server::{Server, ServerConfig};

/// What every fallible call of this crate returns.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;
