//! The format version that every file written by Sluice carries.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// A file's format version, the newest understood being `NEWEST`. Reading a newer one fails,
/// so that a file is never half-understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Format<const NEWEST: u32>(u32);

/// A file whose format is not one that this binary reads: a newer Sluice wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFormat {
    /// The version that the file carries.
    pub found: u32,
    /// The newest version that this binary reads.
    pub newest: u32,
}

impl std::fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { found, newest } = self;
        match found {
            0 => write!(f, "format 0 does not exist; this version of Sluice reads 1 to {newest}"),
            _ => write!(
                f,
                "format {found} is newer than {newest}, the newest that this version of Sluice reads; upgrade it"
            ),
        }
    }
}

impl std::error::Error for UnknownFormat {}

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

/// Reads JSON whose format is refused first: a newer file has keys that are unknown here, and
/// "upgrade" is the better answer to them.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice::<Headed>(bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// As [`read_json`], for TOML.
pub(crate) fn read_toml<T: DeserializeOwned>(text: &str) -> Result<T, toml::de::Error> {
    toml::from_str::<Headed>(text)?;
    toml::from_str(text)
}

/// What every file begins with.
#[derive(Deserialize)]
struct Headed {
    #[serde(rename = "format")]
    _format: Format<1>,
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
        assert!(Format::<2>::new(0).unwrap_err().to_string().contains("does not exist"));
    }
}
