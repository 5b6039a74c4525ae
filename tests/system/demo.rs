//! `sluice demo` goes round the whole loop and loses no request.

use crate::support::{sluice, source_tree};

#[test]
fn the_demo_swaps_without_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let nowhere = "127.0.0.1:0";
    let output = sluice(&[
        "demo",
        "--source",
        source_tree().to_str().unwrap(),
        "--work",
        work.to_str().unwrap(),
        "--http",
        nowhere,
        "--grpc",
        nowhere,
        "--admin",
        nowhere,
        "--registry",
        nowhere,
    ])
    .env("DEMO_EXIT", "1")
    .output()
    .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
    assert!(text.contains(" 0 failed"), "{text}");
    assert!(text.contains("demand-forecast version 2"), "{text}");
    assert_eq!(error, "", "nothing went wrong on the way");
}
