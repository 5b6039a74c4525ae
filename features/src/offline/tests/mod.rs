//! The offline half: against DataFusion's own results, against a naive join, against the
//! online half, and on broken sources.

mod engine;
mod frames;
mod same_bits;
mod sources;

use std::path::Path;

use tempfile::TempDir;

use crate::Definitions;

/// A folder with files, of which `features.toml` is loaded.
pub(super) fn definitions(files: &[(&str, &str)]) -> (TempDir, Definitions) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let definitions = load(folder.path());
    (folder, definitions)
}

pub(super) fn load(folder: &Path) -> Definitions {
    Definitions::load(&folder.join("features.toml")).unwrap()
}

pub(super) fn day(text: &str) -> chrono::NaiveDate {
    text.parse().unwrap()
}
