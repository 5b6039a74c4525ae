//! Running one of the Python suites.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Gateway;

/// Runs a suite against a gateway. It must have run cases, all of them, and passed them all.
#[track_caller]
pub(crate) fn passes(suite: &str, gateway: Gateway) {
    let script = source_tree().join("tests/python/clients").join(format!("{suite}.py"));
    let output = Command::new(python())
        .arg(script)
        .args([gateway.http.to_string(), gateway.grpc.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with("clients: ")).unwrap_or("no count");
    // Past the capture of the tests' output, so that scripts/test-summary.py sees the count.
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && is_green(suite, line), "{suite}:\n{text}\n{error}");
    gateway.end_without_an_error();
}

/// Whether the line counts cases of this suite, none of them failed or skipped.
fn is_green(suite: &str, line: &str) -> bool {
    let cases = line
        .strip_prefix(&format!("clients: {suite}: "))
        .and_then(|rest| rest.strip_suffix(" cases, 0 failed, 0 skipped"));
    cases.and_then(|cases| cases.parse().ok()).is_some_and(|cases: usize| cases > 0)
}

fn python() -> PathBuf {
    let place = source_tree().join(".tools/python/bin/python");
    let python = std::env::var_os("SLUICE_PYTHON").map_or(place, PathBuf::from);
    assert!(python.exists(), "{} is not there; run `make setup` first", python.display());
    python
}

fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
