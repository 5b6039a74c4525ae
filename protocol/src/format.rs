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

/// Reads a TOML file with a `format` key. As with JSON, the format is refused first. The error
/// is one line that names the file's line.
pub fn read_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let fault = |error| toml_fault(text, &error);
    toml::from_str::<Headed>(text).map_err(fault)?;
    toml::from_str(text).map_err(fault)
}

/// What is wrong with a TOML text, as one line that names the text's line where one is known.
pub fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let one_line = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", one_line(error.message()))
        }
        // Without a place in the text, what it says for itself names the key.
        None => one_line(&error.to_string()),
    }
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
    use super::{Format, read_toml};

    #[test]
    fn a_newer_format_is_refused() {
        assert!(Format::<2>::new(1).is_ok());
        assert!(Format::<2>::new(2).is_ok());
        assert!(Format::<2>::new(3).unwrap_err().to_string().contains("newer than 2"));
        assert!(serde_json::from_str::<Format<1>>("2").is_err());
        assert!(Format::<2>::new(0).unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn faults_of_a_toml_text_name_its_line() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(rename = "format")]
            _format: Format<1>,
            #[serde(rename = "rows")]
            _rows: u32,
        }
        let check = |text: &str, start: &str, says: &str| {
            let fault = read_toml::<File>(text).unwrap_err();
            assert!(fault.starts_with(start), "{text:?}: {fault}");
            assert!(fault.contains(says), "{text:?}: {fault}");
            assert!(!fault.contains('\n'), "{text:?}: {fault}");
        };
        check("format = 1\nrows = \"x\"\n\n", "line 2: ", "invalid type");
        check("format = 1\nrows =\n", "line 2: ", "");
        check("format = 1\nrows = 1\nrow = 2\n", "line 3: ", "row");
        check("rows = 1", "line 1: ", "format");
        check("row = 2\nformat = 7\n", "line 2: ", "upgrade");
        assert!(read_toml::<File>("format = 1\nrows = 3\n").is_ok());
    }
}
