//! On which execution providers a graph runs, on a machine whose library has none but the CPU.

use serde_json::Value;

use crate::support::{Running, serve_as, start, wait_until};

/// A model with these providers.
async fn serve_on(providers: &str) -> Running {
    let deployment = format!("format = 1\nproviders = {providers}\n");
    serve_as(&[("m", 1, "scale.onnx")], &deployment, |_| {}).await
}

/// Why the model is not served.
async fn refusal(deployment: &str) -> String {
    let folder = crate::support::repository_as(&[("m", 1, "scale.onnx")], deployment);
    let running = start(folder, |_| {}).await;
    let reason = async || {
        let index: Value = running.post("/v2/repository/index", "{}").await.1;
        index[0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("the load", async || !reason().await.is_empty()).await;
    reason().await
}

const QUESTION: &str =
    r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}"#;

#[tokio::test]
async fn one_that_cannot_start_gives_way_to_the_next_and_all_are_told() {
    for providers in [
        r#"[{ name = "cuda", device_id = 0, cuda_graph = true }, { name = "cpu" }]"#,
        r#"[{ name = "tensorrt" }, { name = "cuda" }, { name = "cpu" }]"#,
        r#"[{ name = "cpu" }]"#,
    ] {
        let running = serve_on(providers).await;
        let (status, answer) = running.post("/v2/models/m/infer", QUESTION).await;
        assert_eq!((status, &answer["outputs"][0]["data"]), (200, &serde_json::json!([3.0, 5.0])));
        let (_, config) = running.get("/v2/models/m/config").await;
        assert_eq!(config["parameters"]["execution_providers"]["string_value"], "cpu", "{config}");
        assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
        let metrics = running.metrics().await;
        let told = r#"sluice_deployment_info{model="m",version="1",provider="cpu"} 1"#;
        assert!(metrics.contains(told), "{metrics}");
    }
}

#[tokio::test]
async fn one_that_cannot_start_and_has_none_behind_it_refuses_the_version() {
    let reason = refusal("format = 1\nproviders = [{ name = \"cuda\" }]\n").await;
    for says in ["\"cuda\" cannot start", "CUDA", "--onnxruntime", "cpu"] {
        assert!(reason.contains(says), "{says}: {reason}");
    }
}

#[tokio::test]
async fn what_is_written_wrong_is_named() {
    for (deployment, says) in [
        ("providers = [{ name = \"gpu\" }]", "\"gpu\" is not known; known are cpu, cuda"),
        ("providers = [{ name = \"cpu\", threads = 2 }]", "\"cpu\" has no options"),
        ("providers = [{ name = \"cuda\" }]\nexecutor = \"tick\"", "for the CPU"),
        ("providers = [{ device_id = 0 }]", "name"),
    ] {
        let reason = refusal(&format!("format = 1\n{deployment}\n")).await;
        assert!(reason.contains("deployment.toml") && reason.contains(says), "{reason}");
    }
}
