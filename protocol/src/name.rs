//! Names of models and their versions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A model's name: 1 to 255 of ASCII letters, digits, `.`, `_` and `-`, not starting with a
/// dot. So it is safe in a path, a URL and a metric label. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

/// A text that is no model name or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a model name.
    #[error(
        "model name {0:?} must be 1 to 255 of letters, digits, '.', '_' and '-', and must not start with '.'"
    )]
    Name(String),
    /// Not a version number.
    #[error("model version {0:?} must be a positive whole number without leading zeros")]
    Version(String),
}

impl ModelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty()
            || text.len() > 255
            || text.starts_with('.')
            || !text.bytes().all(allowed)
        {
            return Err(InvalidName::Name(text.chars().take(300).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ModelName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.as_ref().into()
    }
}

impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A model version's number, counted from 1. On the wire it is decimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct ModelVersion(pub u64);

impl TryFrom<u64> for ModelVersion {
    type Error = InvalidName;

    fn try_from(number: u64) -> Result<Self, InvalidName> {
        if number == 0 { Err(InvalidName::Version("0".to_owned())) } else { Ok(Self(number)) }
    }
}

impl FromStr for ModelVersion {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && !text.starts_with('0') => Ok(Self(number)),
            _ => Err(InvalidName::Version(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{ModelName, ModelVersion};

    #[test]
    fn names_are_safe_in_paths_and_labels() {
        for good in ["demand-forecast", "m", "A.b_c-9"] {
            assert!(good.parse::<ModelName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", "..%2f", &"x".repeat(256)]
        {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_plain_positive_numbers() {
        assert_eq!("12".parse::<ModelVersion>().unwrap(), ModelVersion(12));
        for bad in ["", "0", "01", "+1", "-1", "1.0", "x", "99999999999999999999999"] {
            assert!(bad.parse::<ModelVersion>().is_err(), "{bad}");
        }
    }
}
