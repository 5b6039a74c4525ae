//! Elements of tensors as JSON: parsed into tensor memory, and written out of it.

mod parse;
mod write;

pub(super) use parse::parse;
pub(super) use write::{has_json_form, no_json_form, size_hint, write};
