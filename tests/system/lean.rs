//! The sidecar stays lean.

use std::process::Command;

use crate::support::source_tree;

#[test]
fn the_gateway_compiles_no_offline_engine_and_no_sql_store() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "sluice-gateway",
            "--edges",
            "normal,build",
            "--locked",
            "--prefix",
            "none",
        ])
        .current_dir(source_tree())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("sluice-features")), "the tree is whole");
    for heavy in ["datafusion", "sqlx", "ballista", "arrow", "sluice-trainer", "libsqlite3"] {
        let found: Vec<_> = tree.lines().filter(|line| line.starts_with(heavy)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
