//! Sizes as people write them: bytes as a number, or with a unit, as in `64MiB`.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// What a size looks like, for messages.
const FORM: &str = "a number of bytes, or one with a unit such as 64MiB";

/// Reads a size that a flag or a variable gives, in bytes.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let size = number.parse::<usize>().ok().zip(unit);
    let size = size.and_then(|(number, unit)| number.checked_mul(unit));
    size.ok_or_else(|| format!("{text:?} is no size: write {FORM}"))
}

/// Reads a size that a settings file gives as a number or as text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    deserializer.deserialize_any(Size).map(Some)
}

struct Size;

impl Visitor<'_> for Size {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(FORM)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
        usize::try_from(number).map_err(|_| E::custom(format!("{number} is no size: write {FORM}")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
        usize::try_from(number).map_err(|_| E::custom(format!("{number} is no size: write {FORM}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_those_of_ten_and_those_of_two() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1B", 1),
            ("2kB", 2000),
            ("3 MB", 3_000_000),
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "64 mib", "64MiB ", "99999999999999GiB", "1 2"] {
            assert!(parse(text).unwrap_err().contains("no size"), "{text}");
        }
    }
}
