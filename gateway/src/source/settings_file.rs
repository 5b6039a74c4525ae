//! A file of deployment settings, and how it is read.

use std::path::Path;

use crate::error::LoadError;
use crate::load::DeploymentSettings;

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
