//! Standard output, which may be a pipe that somebody has closed.

use std::io::Write as _;

use anyhow::Context as _;

/// Prints at once.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("print")
}
