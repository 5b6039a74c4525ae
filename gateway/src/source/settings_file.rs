//! A file of deployment settings: how it is read, and how a change of it is noticed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::LoadError;
use crate::load::DeploymentSettings;

/// What a file looks like from outside. None when there is none.
pub(crate) type Stamp = Option<Look>;

/// Two files that look alike are one file as it was: what takes its place has another inode, and
/// no program sets the time at which that was changed, as it can set the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    place: (u64, u64),
    length: u64,
    /// Seconds and nanoseconds, of the contents and of the inode.
    changed: [(i64, i64); 2],
}

/// How the file at `path` looks now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some(Look {
        place: (found.dev(), found.ino()),
        length: found.len(),
        changed: [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())],
    })
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::stamp;

    #[test]
    fn a_file_of_the_same_length_and_time_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (path, text) in [(&path, "one"), (&other, "two")] {
            std::fs::write(path, text).unwrap();
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let before = stamp(&path);
        assert_eq!(stamp(&path), before);
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(&path), before);
        assert_eq!(stamp(&other), None);
    }
}
