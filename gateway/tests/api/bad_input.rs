//! Bad input gets the right status and an error that names the thing.

use serde_json::{Value, json};

use crate::support::{answer, serve, serve_with};

fn v2(change: impl FnOnce(&mut Value)) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let mut request = json!({"inputs": [input]});
    change(&mut request);
    request.to_string()
}

#[tokio::test]
async fn infer_requests_that_do_not_fit() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let set = |key: &'static str, value: Value| v2(move |r| r["inputs"][0][key] = value);
    for (request, says) in [
        ("{".to_owned(), "infer request"),
        ("[]".to_owned(), "infer request"),
        ("{}".to_owned(), "inputs"),
        (v2(|r| r["inputs"] = json!([])), "\"x\": is missing"),
        (set("name", json!("z")), "\"x\": is missing"),
        (v2(|r| r["inputs"] = json!([r["inputs"][0], r["inputs"][0]])), "given twice"),
        (
            v2(|r| {
                let mut extra = r["inputs"][0].clone();
                extra["name"] = json!("z");
                r["inputs"] = json!([r["inputs"][0], extra]);
            }),
            "\"z\": is no input",
        ),
        (set("datatype", json!("FP64")), "FP64, expected FP32"),
        (set("datatype", json!("FLOAT")), "unknown datatype \"FLOAT\""),
        (set("shape", json!([2, 1])), "expected [-1, 2], got [2, 1]"),
        (set("shape", json!([1, 3])), "needs 3 elements, got 2"),
        (set("shape", json!([-1, 2])), "negative dimension"),
        (set("shape", json!([4294967296u64, 4294967296u64])), "more elements than"),
        (set("shape", json!([0, 2])), "needs 0 elements"),
        (set("data", json!([1, "a"])), "element \"a\" is no FP32"),
        (set("data", json!([1, null])), "element null is no FP32"),
        (
            v2(|r| {
                r["inputs"][0].as_object_mut().unwrap().remove("data");
            }),
            "neither data nor",
        ),
        (v2(|r| r["inputs"][0]["parameters"] = json!({"binary_data_size": 8})), "both data and"),
        (v2(|r| r["outputs"] = json!([{"name": "z"}])), "\"z\" is no output"),
        (v2(|r| r["outputs"] = json!([{"name": "y"}, {"name": "y"}])), "asked twice"),
        (v2(|r| r["parameters"] = json!({"p": [1]})), "parameter \"p\""),
    ] {
        let (status, body) = running.post("/v2/models/scale/infer", request.clone()).await;
        assert_eq!(status, 400, "{request}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{request}: {body}");
    }
    // After all that it still answers.
    assert_eq!(running.post("/v2/models/scale/infer", v2(|_| {})).await.0, 200);
}

#[tokio::test]
async fn predict_requests_that_do_not_fit() {
    let running = serve(&[("scale", 1, "scale.onnx"), ("mixed", 1, "mixed.onnx")]).await;
    for (model, request, says) in [
        ("scale", "{}", "neither"),
        ("scale", r#"{"instances": [[1, 2]], "inputs": [[1, 2]]}"#, "both"),
        ("scale", r#"{"instances": 7}"#, "must be a list"),
        ("scale", r#"{"instances": [[1, 2], [3]]}"#, "different shapes"),
        ("scale", r#"{"instances": [[1, "a"]]}"#, "element \"a\" is no FP32"),
        ("scale", r#"{"instances": []}"#, "unexpected shape"),
        ("mixed", r#"{"instances": [1]}"#, "several inputs"),
        ("mixed", r#"{"instances": [{"id": 1, "name": "a"}]}"#, "\"on\": is missing"),
        (
            "mixed",
            r#"{"instances": [{"id": 1.5, "name": "a", "on": true}]}"#,
            "element 1.5 is no INT64",
        ),
        (
            "mixed",
            r#"{"instances": [{"id": 1, "name": "a", "on": true}, {"id": 2}]}"#,
            "is missing in instance 1",
        ),
    ] {
        let (status, body) = running.post(&format!("/v1/models/{model}:predict"), request).await;
        assert_eq!(status, 400, "{request}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{request}: {body}");
    }
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let running = serve(&[("scale", 2, "scale.onnx")]).await;
    for (path, says) in [
        ("/v2/models/other/infer", "\"other\" is not found"),
        ("/v2/models/scale/versions/9/infer", "version 9 is not found; available: 2"),
        ("/v2/models/scale/versions/x/infer", "version x is not found"),
        ("/v1/models/other:predict", "\"other\" is not found"),
        ("/v2/models/..%2f..%2fetc/infer", "is not found"),
        ("/v2/nothing", "Not Found: /v2/nothing"),
        ("/v1/models/scale:explain", "Not Found"),
    ] {
        let (status, body) = running.post(path, v2(|_| {})).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{path}: {body}");
    }
    let response = running.client.get(running.url("/v2/models/scale/infer")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
}

#[tokio::test]
async fn binary_lengths_must_be_exact() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    for (size, sent, length_off_by, says) in [
        (8, 4, 0, "needs 8 bytes of binary data, 4 are left"),
        (8, 12, 0, "4 bytes of binary data are left over"),
        (7, 7, 0, "no whole number of FP32"),
        (4, 4, 0, "needs 2 elements, got 1"),
        (8, 8, 9000, "Inference-Header-Content-Length"),
        (u64::MAX, 8, 0, "are left"),
    ] {
        let header = v2(|r| {
            r["inputs"][0].as_object_mut().unwrap().remove("data");
            r["inputs"][0]["parameters"] = json!({"binary_data_size": size});
        });
        let body = [header.as_bytes(), &vec![0; sent]].concat();
        let request = running
            .client
            .post(running.url("/v2/models/scale/infer"))
            .header("Inference-Header-Content-Length", header.len() + length_off_by);
        let (status, body) = answer(request.body(body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{body}");
    }
}

#[tokio::test]
async fn bodies_past_the_limit_or_encoded_are_refused() {
    let running =
        serve_with(&[("scale", 1, "scale.onnx")], |settings| settings.max_body = Some(1000)).await;
    let (status, body) = running.post("/v2/models/scale/infer", vec![b' '; 1001]).await;
    assert_eq!(status, 413, "{body}");
    assert!(body["error"].as_str().unwrap().contains("limit of 1000 bytes"), "{body}");
    let request = running.client.post(running.url("/v2/models/scale/infer"));
    let (status, body) = answer(request.header("Content-Encoding", "br").body("x")).await;
    assert_eq!(status, 415, "{body}");
}
