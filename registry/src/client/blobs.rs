//! Files by their digest.

use bytes::Bytes;
use sluice_protocol::Digest;

use super::Client;
use crate::domain::FileEntry;
use crate::{RegistryError, Result};

/// The largest file that is read into memory.
const MAX_BLOB: u64 = 8 << 30;

impl Client {
    /// The bytes of this digest, checked. Other bytes are [`RegistryError::Corrupt`].
    pub async fn fetch_blob(&self, digest: Digest) -> Result<Bytes> {
        self.fetch(digest, MAX_BLOB).await
    }

    /// The bytes of one file of a version, checked.
    pub(super) async fn fetch_entry(&self, entry: &FileEntry) -> Result<Bytes> {
        if entry.size > MAX_BLOB {
            return Err(RegistryError::TooLarge(format!(
                "file {:?} of {} bytes is larger than {MAX_BLOB}",
                entry.path, entry.size
            )));
        }
        let bytes = self.fetch(entry.digest, entry.size).await?;
        if bytes.len() as u64 != entry.size {
            return Err(RegistryError::Corrupt(format!(
                "file {:?} has {} bytes instead of {}",
                entry.path,
                bytes.len(),
                entry.size
            )));
        }
        Ok(bytes)
    }

    async fn fetch(&self, digest: Digest, limit: u64) -> Result<Bytes> {
        let url = self.sluice(&["blobs", &digest.to_string()]);
        let response = self.send(self.http.get(url)).await?;
        let bytes = self.body(response, limit).await?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(RegistryError::Corrupt(format!("blob {digest} arrived as {found}")));
        }
        Ok(bytes)
    }
}
