//! A repository looked at without being served.

use std::path::PathBuf;

use sluice_gateway::{CheckOptions, check_repository};

use crate::support::{graph_bytes, place};

fn options() -> CheckOptions {
    let onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    CheckOptions { cores: Some(2), onnxruntime, ..CheckOptions::default() }
}

#[test]
fn every_version_is_told_of_with_how_it_would_run_or_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    place(root, "good", 1, &graph_bytes("scale.onnx"));
    place(root, "good", 2, b"no graph");
    place(root, "mixes", 1, &graph_bytes("center.onnx"));
    place(root, "wrong", 1, &graph_bytes("scale.onnx"));
    std::fs::write(root.join("wrong/config.pbtxt"), "max_batch_size: 4\ninput {").unwrap();
    let checked = check_repository(root, options()).unwrap();
    let names: Vec<_> = checked
        .iter()
        .map(|v| (v.model.as_str(), v.version.unwrap().0, v.plan.is_some()))
        .collect();
    let expected = [("good", 1, true), ("good", 2, false), ("mixes", 1, true), ("wrong", 1, false)];
    assert_eq!(names, expected);
    let good = checked[0].plan.as_ref().unwrap();
    assert_eq!((good.instances, good.apart.as_deref()), (2, None));
    assert!(good.max_rows > 1 && good.costs.starts_with("1: "), "{good:?}");
    assert_eq!(good.inputs, ["x: FP32 [-1, 2]"]);
    assert!(checked[1].refused.as_ref().unwrap().contains("cannot be opened"));
    let apart = checked[2].plan.as_ref().unwrap().apart.clone().unwrap();
    assert!(apart.contains("depends on the rows beside it"), "{apart}");
    assert!(checked[3].refused.as_ref().unwrap().starts_with("config.pbtxt:"), "{checked:?}");
}

#[test]
fn models_may_be_picked_and_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), "a", 1, &graph_bytes("scale.onnx"));
    place(folder.path(), "b", 1, b"no graph");
    let only = |model: &str| CheckOptions { models: vec![model.to_owned()], ..options() };
    assert_eq!(check_repository(folder.path(), only("a")).unwrap().len(), 1);
    place(folder.path(), "none", 1, &graph_bytes("scale.onnx"));
    let policy = "version_policy { specific { versions: 7 } }";
    std::fs::write(folder.path().join("none/config.pbtxt"), policy).unwrap();
    let checked = check_repository(folder.path(), only("none")).unwrap();
    let reasons: Vec<_> = checked.iter().flat_map(|one| one.refused.as_deref()).collect();
    let wants_none = "version_policy wants none of the versions that are there";
    assert_eq!(reasons, [wants_none, "version_policy names it, but it is not there"]);
    let unknown = check_repository(folder.path(), only("c")).unwrap_err().to_string();
    assert!(unknown.contains("has no version of this model"), "{unknown}");
    assert!(check_repository(folder.path(), only("../a")).is_err());
    let gone = folder.path().join("gone");
    let error = check_repository(&gone, options()).unwrap_err().to_string();
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn what_would_not_be_served_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let graph = graph_bytes("scale.onnx");
    for model in ["a", "a b", "v01", ".git"] {
        place(root, model, 1, &graph);
    }
    std::fs::rename(root.join("v01/1"), root.join("v01/01")).unwrap();
    std::fs::create_dir(root.join("raw")).unwrap();
    std::fs::write(root.join("raw/model.onnx"), &graph).unwrap();
    std::fs::create_dir(root.join("lost+found")).unwrap();
    let policy = "version_policy { specific { versions: [1, 7] } }";
    std::fs::write(root.join("a/config.pbtxt"), policy).unwrap();
    let labels = "format = 1\n[labels]\nstable = 1\nnext = 2\n";
    std::fs::write(root.join("a/deployment.toml"), labels).unwrap();
    let checked = check_repository(root, options()).unwrap();
    let told = checked.iter().map(|one| {
        (one.model.as_str(), one.version.map(|v| v.0), one.refused.clone().unwrap_or_default())
    });
    for (found, (model, version, says)) in told.zip([
        ("a", None, "deployment.toml: label \"next\" names version 2, of which nothing is served"),
        ("a", Some(1), ""),
        ("a", Some(7), "version_policy names it, but it is not there"),
        ("a b", None, "model name \"a b\" must be"),
        ("raw", None, "it has no version; its layout is MODEL/VERSION/model.onnx"),
        ("v01", None, "it has no version"),
        ("v01", None, "model version \"01\" must be"),
    ]) {
        assert_eq!((found.0, found.1), (model, version), "{checked:?}");
        assert!(found.2.starts_with(says), "{checked:?}");
    }
    assert_eq!(checked.len(), 7, "{checked:?}");
}
