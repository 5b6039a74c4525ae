//! Errors in short where serde would make a text of a caller's whole one, and each odd character of
//! it six times as long.

use serde::de::{Error, Expected, Unexpected};

/// The error for a text where something else belongs. What can meet one asks for anything, and
/// answers a text with this: whoever asks serde for a map or a number gets its long error.
pub(super) fn text_instead<E: Error>(expected: &dyn Expected) -> E {
    E::invalid_type(Unexpected::Other("string"), expected)
}

/// Whether JSON is a list, which serde would take for an object of its values, or a text, which it
/// would put into an error.
pub(super) fn is_list_or_text(json: &[u8]) -> bool {
    matches!(json.trim_ascii_start().first(), Some(b'[' | b'"'))
}
