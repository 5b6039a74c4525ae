//! Answers that are given again, for models whose configuration asks for it.

use serde_json::{Value, json};
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};

use crate::inference::connect;
use crate::support::{Running, graph_bytes, place, serve_with, wait_until};

const PATH: &str = "/v2/models/m/infer";

/// Model "m", whose configuration asks for the cache, and a cache of so many bytes.
async fn serve_cached(bytes: usize) -> Running {
    serve_with(&[("m", 1, "scale.onnx"), ("plain", 1, "scale.onnx")], |settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), "response_cache { enable: true }").unwrap();
        settings.response_cache = Some(bytes);
    })
    .await
}

fn body(values: [f32; 2], parameters: &Value) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": values});
    json!({"inputs": [input], "parameters": parameters}).to_string()
}

/// (executions, successes, hits, misses)
async fn counts(running: &Running, model: &str) -> [u64; 4] {
    let (_, body) = running.get(&format!("/v2/models/{model}/stats")).await;
    let statistics = &body["model_stats"][0];
    let count = |key: &str| statistics["inference_stats"][key]["count"].as_u64().unwrap();
    let executions = statistics["execution_count"].as_u64().unwrap();
    [executions, count("success"), count("cache_hit"), count("cache_miss")]
}

/// Rows that ran, and the requests that count for each part of a run.
async fn computed(running: &Running) -> [u64; 4] {
    let (_, body) = running.get("/v2/models/m/stats").await;
    let statistics = &body["model_stats"][0];
    let parts = ["compute_input", "compute_infer", "compute_output"];
    let [input, infer, output] =
        parts.map(|key| statistics["inference_stats"][key]["count"].as_u64().unwrap());
    [statistics["inference_count"].as_u64().unwrap(), input, infer, output]
}

#[tokio::test]
async fn the_same_question_is_run_once_over_both_protocols() {
    let running = serve_cached(1 << 20).await;
    let first = running.post(PATH, body([1.0, 2.5], &json!({}))).await;
    assert_eq!((first.0, &first.1["outputs"][0]["data"]), (200, &json!([3.0, 6.0])));
    for parameters in [json!({}), json!({"priority": 1, "timeout": 1_000_000})] {
        assert_eq!(running.post(PATH, body([1.0, 2.5], &parameters)).await, first);
    }
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 2],
        contents: Some(InferTensorContents { fp32_contents: vec![1.0, 2.5], ..Default::default() }),
        ..Default::default()
    };
    let request =
        ModelInferRequest { model_name: "m".to_owned(), inputs: vec![input], ..Default::default() };
    let answered = connect(&running).await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answered.outputs[0].contents.as_ref().unwrap().fp32_contents, [3.0, 6.0]);
    assert_eq!(counts(&running, "m").await, [1, 4, 3, 1]);
    assert_eq!(computed(&running).await, [1; 4], "what was found ran no row");
    assert_eq!(running.post(PATH, body([1.0, -2.5], &json!({}))).await.0, 200);
    assert_eq!(counts(&running, "m").await, [2, 5, 3, 2]);
    assert_eq!(computed(&running).await, [2; 4]);
    // Nobody asked for it here.
    for _ in 0..2 {
        let path = "/v2/models/plain/infer";
        assert_eq!(running.post(path, body([1.0, 2.5], &json!({}))).await.0, 200);
    }
    assert_eq!(counts(&running, "plain").await, [2, 2, 0, 0]);
}

#[tokio::test]
async fn without_bytes_there_is_no_cache() {
    let running = serve_cached(0).await;
    for _ in 0..2 {
        assert_eq!(running.post(PATH, body([1.0, 2.5], &json!({}))).await.0, 200);
    }
    assert_eq!(counts(&running, "m").await, [2, 2, 0, 0]);
}

#[tokio::test]
async fn errors_are_found_anew_each_time() {
    let running = serve_with(&[("m", 1, "pick.onnx")], |settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), "response_cache { enable: true }").unwrap();
        settings.response_cache = Some(1 << 20);
    })
    .await;
    for _ in 0..2 {
        let (status, refused) = running.post("/v1/models/m:predict", r#"{"instances": [9]}"#).await;
        assert_eq!(status, 400, "9 is outside the table: {refused}");
    }
    assert_eq!(counts(&running, "m").await, [0, 0, 0, 0]);
}

/// A version whose files are exchanged under its number answers with the new ones.
#[tokio::test]
async fn a_version_that_is_loaded_again_answers_anew() {
    let running = serve_cached(1 << 20).await;
    let ask = async || {
        running.post(PATH, body([1.0, 2.5], &json!({}))).await.1["outputs"][0]["data"].clone()
    };
    assert_eq!(ask().await, json!([3.0, 6.0]));
    assert_eq!(ask().await, json!([3.0, 6.0]));
    std::fs::remove_dir_all(running.folder.path().join("m/1")).unwrap();
    place(running.folder.path(), "m", 1, &graph_bytes("center.onnx"));
    wait_until("the new graph's answer", async || ask().await == json!([0.0, 0.0])).await;
}

/// Many questions at once: each gets its own answer, found or computed.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_their_own_answers() {
    let running = serve_cached(1 << 16).await;
    let requests: Vec<_> = (0..600u16)
        .map(|request| {
            let value = f32::from(request % 150);
            let request = running.client.post(running.url(PATH));
            let request = request.body(body([value, -value], &json!({})));
            tokio::spawn(async move { (value, crate::support::answer(request).await) })
        })
        .collect();
    for request in requests {
        let (value, (status, answered)) = request.await.unwrap();
        let expected = json!([2.0 * value + 1.0, 1.0 - 2.0 * value]);
        assert_eq!((status, &answered["outputs"][0]["data"]), (200, &expected));
    }
    let [executions, successes, hits, misses] = counts(&running, "m").await;
    assert_eq!((successes, hits + misses), (600, 600));
    assert!(executions <= misses, "{executions} {misses}");
}
