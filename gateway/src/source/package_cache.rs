//! Packages that were fetched from the registry, kept by digest in the state folder. A file
//! is used only when its bytes have the digest that they should have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_protocol::Digest;

use super::saved::replace;

/// Files under `packages/`, named by their SHA-256.
#[derive(Debug)]
pub(super) struct PackageCache {
    /// None keeps nothing: every start fetches anew.
    folder: Option<PathBuf>,
}

impl PackageCache {
    /// The cache of a state folder.
    pub(super) fn open(state: Option<&Path>) -> std::io::Result<Self> {
        let folder = state.map(|state| state.join("packages"));
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { folder })
    }

    /// The file with this digest, if it is here and whole.
    pub(super) fn get(&self, digest: Digest) -> Option<Bytes> {
        let bytes = std::fs::read(self.path(digest)?).ok()?;
        (Digest::of(&bytes) == digest).then(|| bytes.into())
    }

    /// Keeps a file. Failing to is no reason not to serve it.
    pub(super) fn put(&self, digest: Digest, bytes: &Bytes) {
        let Some(path) = self.path(digest) else { return };
        if let Err(error) = replace(&path, bytes) {
            tracing::warn!(path = %path.display(), %error, "cannot keep package file");
        }
    }

    /// Forgets every file but `wanted`.
    pub(super) fn prune(&self, wanted: &BTreeSet<Digest>) {
        let Some(folder) = &self.folder else { return };
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if !digest.is_some_and(|digest| wanted.contains(&digest)) {
                let _stays_until_next_time = std::fs::remove_file(&path);
            }
        }
    }

    fn path(&self, digest: Digest) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(digest.to_string()))
    }
}
