//! Loads that bring a configuration and files with them, and folders whose configuration changes.

use serde_json::{Value, json};
use sluice_protocol::grpc::model_repository_parameter::ParameterChoice;
use sluice_protocol::grpc::{ModelRepositoryParameter, RepositoryModelLoadRequest};

use crate::repository::{
    base64, centred, connect, explicit, index, load, loaded, predict, says, scaled, unload,
    unloaded, write,
};
use crate::support::{graph_bytes, place, serve, serve_with, wait_until};

#[tokio::test]
async fn a_load_may_bring_the_files_and_is_undone_by_the_next_one() {
    let models = [("m", 1, "scale.onnx"), ("m", 7, "scale.onnx")];
    let running = serve_with(&models, explicit(&["m"])).await;
    let center = graph_bytes("center.onnx");
    let given = json!({"config": "{}", "file:3/model.onnx": base64(&center)});
    assert_eq!(load(&running, "m", given.clone()).await, loaded("m"));
    assert_eq!(predict(&running, "m").await, centred());
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["3"]));
    // A configuration alone leaves the files where they are.
    let latest = r#"{"version_policy": {"latest": {"num_versions": 1}}}"#;
    assert_eq!(load(&running, "m", json!({"config": latest})).await, loaded("m"));
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["7"]));
    assert_eq!(predict(&running, "m").await, scaled());
    assert_eq!(load(&running, "m", json!({})).await, loaded("m"));
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["1", "7"]));

    // A model that the folder does not know, over gRPC.
    let mut client = connect(&running).await;
    let parameter = |choice| ModelRepositoryParameter { parameter_choice: Some(choice) };
    let request = RepositoryModelLoadRequest {
        model_name: "fresh".to_owned(),
        parameters: [
            ("config".to_owned(), parameter(ParameterChoice::StringParam("{}".to_owned()))),
            (
                "file:12/model.onnx".to_owned(),
                parameter(ParameterChoice::BytesParam(center.into())),
            ),
            ("file:labels.txt".to_owned(), parameter(ParameterChoice::BytesParam("a".into()))),
        ]
        .into(),
        ..Default::default()
    };
    client.repository_model_load(request).await.unwrap();
    assert_eq!(predict(&running, "fresh").await, centred());
    let (status, body) = load(&running, "fresh", json!({})).await;
    assert_eq!(status, 404, "its folder is asked for: {body}");
    assert_eq!(predict(&running, "fresh").await, centred(), "and it goes on");
    assert_eq!(unload(&running, "fresh").await, unloaded("fresh"));
}

/// How a model is run is its operator's to say, whatever it is that is run.
#[tokio::test]
async fn files_that_are_given_are_run_and_called_as_the_folder_says() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    write(&running, "m/deployment.toml", "format = 1\nexecutor = \"workers\"\n[labels]\nnew = 7\n");
    let parameters = json!({
        "config": r#"{"output": [{"name": "y", "label_filename": "sub/labels.txt"}]}"#,
        "file:7/model.onnx": base64(&graph_bytes("center.onnx")),
        "file:sub/labels.txt": base64(b"a\nb"),
    });
    assert_eq!(load(&running, "m", parameters).await, loaded("m"));
    assert_eq!(running.version("m", 7).await["executor"], "workers");
    assert_eq!(predict(&running, "m/labels/new").await, centred());
}

/// What a policy names, or the newest version, must come; another one is refused for itself.
#[tokio::test]
async fn a_version_that_was_not_asked_for_does_not_fail_the_load() {
    let running = serve_with(&[("m", 2, "scale.onnx")], explicit(&[])).await;
    place(running.folder.path(), "m", 1, b"no graph");
    assert_eq!(load(&running, "m", json!({})).await, loaded("m"));
    assert_eq!(index(&running, "").await[0]["state"], "UNAVAILABLE");
    assert_eq!(predict(&running, "m").await, scaled());
    for (policy, expected) in [
        ("version_policy { all {} }", (400, "version 1 is at UNAVAILABLE state")),
        ("version_policy { specific { versions: [1, 2] } }", (400, "version 1 is at UNAVAILABLE")),
        ("version_policy { specific { versions: [8] } }", (400, "at least one version must be")),
        ("version_policy { latest { num_versions: 1 } }", (200, "")),
        ("version_policy { specific { versions: [2, 8] } }", (200, "")),
    ] {
        write(&running, "m/config.pbtxt", policy);
        let (status, body) = load(&running, "m", json!({})).await;
        assert_eq!(status, expected.0, "{policy}: {body}");
        if status == 400 {
            says(&body, expected.1);
        } else {
            assert_eq!(index(&running, "").await.as_array().unwrap().len(), 1, "{policy}");
        }
        assert_eq!(predict(&running, "m").await, scaled());
    }
}

#[tokio::test]
async fn config_pbtxt_is_followed_as_it_changes() {
    let running = serve(&[("m", 1, "scale.onnx"), ("m", 2, "center.onnx")]).await;
    let versions = async |expected: Value| {
        wait_until("the versions", async || {
            running.get("/v2/models/m").await.1["versions"] == expected
        })
        .await;
    };
    versions(json!(["1", "2"])).await;
    write(&running, "m/config.pbtxt", "name: 'm'\nversion_policy { latest { num_versions: 1 } }");
    versions(json!(["2"])).await;
    write(&running, "m/config.pbtxt", "name: 'm'\nversion_policy { specific { versions: 1 } }");
    versions(json!(["1"])).await;
    assert_eq!(predict(&running, "m").await, scaled());
    // A broken one changes nothing and says where.
    write(&running, "m/config.pbtxt", "name: 'm'\n\nversion_policy { nonsense }");
    wait_until("the refusal", async || {
        let indexed = index(&running, "").await;
        indexed[0]["reason"].as_str().is_some_and(|reason| reason.contains("config.pbtxt: line 3:"))
    })
    .await;
    assert_eq!(predict(&running, "m").await, scaled());
    write(&running, "m/config.pbtxt", "name: 'other'");
    wait_until("the other name", async || {
        let reason = index(&running, "").await[1]["reason"].to_string();
        reason.contains("config.pbtxt: name is \\\"other\\\"")
    })
    .await;
    std::fs::remove_file(running.folder.path().join("m/config.pbtxt")).unwrap();
    versions(json!(["1", "2"])).await;
    assert_eq!(predict(&running, "m").await, centred());
}
