//! A file of deployment settings: how it is read, and how a change of it is noticed.

use std::path::Path;
use std::time::SystemTime;

use crate::error::LoadError;
use crate::load::DeploymentSettings;

/// What a file looks like from outside: its length and time of change. None when there is none.
pub(super) type Stamp = Option<(u64, Option<SystemTime>)>;

/// How the file at `path` looks now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

/// The settings in the file at `path`; the defaults when there is none.
pub(super) fn read(path: &Path) -> Result<DeploymentSettings, LoadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => DeploymentSettings::parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(DeploymentSettings::default())
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// A file or folder that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::Read { path: path.display().to_string(), reason: error.to_string() }
}
