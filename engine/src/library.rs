//! Where ONNX Runtime's shared library is.

use std::path::{Path, PathBuf};

use crate::EngineError;

const FILE: &str = "libonnxruntime.so";

/// The library to load: `named` (a flag or `SLUICE_ONNXRUNTIME`) is taken as it is, then
/// `ORT_DYLIB_PATH`, then the first that exists beside the executable, in `../lib`, or in the
/// folder that `make setup` fills in a source tree around it; last the system's own.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, EngineError> {
    if let Some(path) = named {
        return existing(vec![path.to_owned()]);
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return existing(vec![path.into()]);
    }
    let mut candidates = std::env::current_exe().map(|exe| around(&exe)).unwrap_or_default();
    candidates.extend(
        ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
            .map(|folder| Path::new(folder).join(FILE)),
    );
    existing(candidates)
}

fn around(executable: &Path) -> Vec<PathBuf> {
    let Some(folder) = executable.parent() else { return Vec::new() };
    let installed = [folder.join(FILE), folder.join("../lib").join(FILE)];
    let source_tree = folder.ancestors().map(|up| up.join(".tools/onnxruntime").join(FILE));
    installed.into_iter().chain(source_tree.filter(|path| path.exists())).collect()
}

fn existing(candidates: Vec<PathBuf>) -> Result<PathBuf, EngineError> {
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(EngineError::LibraryMissing { looked: candidates }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::find;

    #[test]
    fn a_named_library_that_is_missing_is_not_replaced_by_another() {
        let error = find(Some(Path::new("/nonexistent/libonnxruntime.so"))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/libonnxruntime.so"), "{text}");
        assert!(text.contains("make setup"), "{text}");
    }
}
