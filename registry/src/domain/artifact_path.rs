//! Where an artifact lies. A path is a key of a table, never of a file system; the checks are
//! for those who download it to one.

use std::fmt;
use std::str::FromStr;

use crate::{RegistryError, Result};

/// The longest path, in bytes.
const MAX_LENGTH: usize = 1024;
/// The most segments that a path has.
const MAX_DEPTH: usize = 64;

/// A relative, normalised path of segments joined by `/`: none empty, `.` or `..`, no backslash,
/// no control character, no drive letter, and nothing that decodes further as percent-encoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ArtifactPath(String);

impl ArtifactPath {
    #[cfg(feature = "server")]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[cfg(feature = "server")]
    pub(crate) fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path itself and every directory above it.
    #[cfg(feature = "server")]
    pub(crate) fn with_ancestors(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at);
        ends.chain([self.0.len()]).map(|end| &self.0[..end])
    }

    /// The half-open range of keys that lie under this path as a directory.
    #[cfg(feature = "server")]
    pub(crate) fn keys_below(&self) -> (String, String) {
        // '0' is the character after '/'.
        (format!("{}/", self.0), format!("{}0", self.0))
    }
}

impl FromStr for ArtifactPath {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        let complaint = complaint(text);
        match complaint {
            None => Ok(Self(text.into())),
            Some(why) => {
                let shown: String = text.chars().take(200).collect();
                Err(RegistryError::InvalidArgument(format!(
                    "Invalid artifact path {shown:?}: {why}"
                )))
            }
        }
    }
}

impl fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn complaint(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    if text.len() > MAX_LENGTH {
        return Some("it is longer than 1024 bytes");
    }
    if text.contains('\\') || text.chars().any(char::is_control) {
        return Some("it holds a backslash or a control character");
    }
    if bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' {
        return Some("it starts with a drive letter");
    }
    if bytes.windows(3).any(|w| w[0] == b'%' && w[1..].iter().all(u8::is_ascii_hexdigit)) {
        return Some("it is percent-encoded twice");
    }
    if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Some("it is not relative and normalised");
    }
    (text.split('/').count() > MAX_DEPTH).then_some("it is deeper than 64 directories")
}

#[cfg(test)]
mod tests {
    use super::ArtifactPath;

    #[test]
    fn paths_that_could_leave_their_directory_are_refused() {
        for good in ["model.onnx", "1/models/m-0/artifacts/a b.txt", "100%", "ü/.hidden", "ab:c"] {
            assert!(good.parse::<ArtifactPath>().is_ok(), "{good}");
        }
        let deep = vec!["a"; 65].join("/");
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a\\b",
            "a\0",
            "a\nb",
            "C:/x",
            "c:",
            "%2e%2e/a",
            "a%2fb",
            "a%5Cb",
            &"x".repeat(1025),
            &deep,
        ] {
            assert!(bad.parse::<ArtifactPath>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn ancestors_end_with_the_path_itself() {
        let path: ArtifactPath = "a/bc/d".parse().unwrap();
        assert_eq!(path.with_ancestors().collect::<Vec<_>>(), ["a", "a/bc", "a/bc/d"]);
        assert_eq!(path.file_name(), "d");
        let (low, high) = path.keys_below();
        for (key, below) in
            [("a/bc/d", false), ("a/bc/d/e", true), ("a/bc/d.x", false), ("a/bc/d0", false)]
        {
            assert_eq!(low.as_str() <= key && key < high.as_str(), below, "{key}");
        }
    }
}
