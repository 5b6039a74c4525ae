//! The format version that every file written by Sluice carries.

use serde::{Deserialize, Deserializer, Serialize};

/// A file's format version, the newest understood being `NEWEST`. Reading a newer one fails,
/// so that a file is never half-understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Format<const NEWEST: u32>(u32);

/// A file that a newer Sluice wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "format {found} is newer than {newest}, the newest that this version of Sluice reads; upgrade it"
)]
pub struct UnknownFormat {
    /// The version that the file carries.
    pub found: u32,
    /// The newest version that this binary reads.
    pub newest: u32,
}

impl<const NEWEST: u32> Format<NEWEST> {
    /// The version that this binary writes.
    pub const CURRENT: Self = Self(NEWEST);

    /// Checks a version read from a file.
    pub const fn new(found: u32) -> Result<Self, UnknownFormat> {
        if found > NEWEST || found == 0 {
            return Err(UnknownFormat { found, newest: NEWEST });
        }
        Ok(Self(found))
    }
}

impl<'de, const NEWEST: u32> Deserialize<'de> for Format<NEWEST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_newer_format_is_refused() {
        assert!(Format::<2>::new(1).is_ok());
        assert!(Format::<2>::new(2).is_ok());
        assert!(Format::<2>::new(3).unwrap_err().to_string().contains("newer than 2"));
        assert!(serde_json::from_str::<Format<1>>("2").is_err());
    }
}
