//! Which paths and methods HTTP knows, and what health says on them.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::json;

use crate::http_v2::check;
use crate::support::{Caller, Process, place, serve, wait_until};

/// Serves version 2 of "scale" below a path, too.
async fn below_a_path() -> Process {
    Process::start(&[("scale", 2, "scale.onnx")], &["--base-path=/in/ner/"]).await
}

async fn ask(caller: &Caller, method: &str, path: &str) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    caller.client.request(method, caller.url(path)).send().await.unwrap()
}

#[tokio::test]
async fn paths_that_are_none_are_not_found() {
    let running = below_a_path().await;
    for path in [
        "/v2/nothing",
        "/v2/",
        "/v2/models/",
        "//v2",
        "/V2",
        "/v2/models/scale/",
        "/v2/models/scale/versions/x",
        "/v2/models/scale/versions/2a/ready",
        "/v2/models/scale/versions/-2",
        "/v2/models/scale/versions/%32x",
        "/v2/models/scale/%zz",
        "/in/ner2/v2",
        "/in/ner/in/ner/v2",
    ] {
        let response = ask(&running, "GET", path).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let status = response.status().as_u16();
        check(&(status, response.json().await.unwrap()), 404, "Not Found", path);
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn models_and_versions_that_are_unknown_are_not_found() {
    let running = below_a_path().await;
    for path in [
        "/v2/models/..%2f..%2fetc%2fpasswd",
        "/v2/models/%2fetc%2fpasswd/ready",
        "/v2/models/scale%00",
        "/v2/models/sc%D0%B0le",
        "/v2/models/SCALE",
        "/v2/models/scale%20",
        "/v2/models/%2573cale",
    ] {
        let answered = running.get(path).await;
        check(&answered, 404, "Request for unknown model", path);
    }
    for (path, says) in [
        ("/v2/models/scale/versions/9", "version 9 is not found; available: 2"),
        ("/v2/models/scale/versions/02", "version 02 is not found"),
        ("/v2/models/scale/versions/99999999999999999999999", "is not found"),
    ] {
        check(&running.get(path).await, 404, says, path);
    }
    let metrics = running.metrics().await;
    assert!(!metrics.contains("passwd") && !metrics.contains("SCALE"), "{metrics}");
    running.end_without_an_error().await;
}

#[tokio::test]
async fn each_path_has_its_methods() {
    let running = below_a_path().await;
    for (method, path, allowed) in [
        ("GET", "/v2/models/scale/infer", "POST"),
        ("HEAD", "/v2/models/scale/infer", "POST"),
        ("PUT", "/v2/models/scale/infer", "POST"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/models/scale", "GET, HEAD"),
        ("OPTIONS", "/v2", "GET, HEAD"),
        ("get", "/v2", "GET, HEAD"),
    ] {
        let response = ask(&running, method, path).await;
        assert_eq!(response.headers()["allow"], allowed, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        assert_eq!((status, body.is_empty()), (405, method == "HEAD"), "{method} {path}");
        if method != "HEAD" {
            check(&(status, serde_json::from_slice(&body).unwrap()), 405, "is not allowed", path);
        }
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn paths_are_decoded_once_and_may_have_a_base_and_a_query() {
    let running = below_a_path().await;
    for path in
        ["/v2", "/v2/health/live", "/v2/models/scale", "/v2/models/%73cale?a=/b#c", "/in/ner/v2"]
    {
        let got = ask(&running, "GET", path).await;
        let headed = ask(&running, "HEAD", path).await;
        assert_eq!((got.status().as_u16(), headed.status().as_u16()), (200, 200), "{path}");
        assert_eq!(got.headers()["content-length"], headed.headers()["content-length"], "{path}");
        assert!(!got.text().await.unwrap().is_empty(), "{path}");
        assert_eq!(headed.text().await.unwrap(), "", "{path}");
    }
    assert_eq!(running.get("/in/ner").await, (200, json!({"status": "alive"})));
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let text = json!({"inputs": [input]}).to_string();
    for path in ["/v2/models/scale/infer?x=1", "/in/ner/v2/models/scale/versions/2/infer"] {
        assert_eq!(running.post(path, text.clone()).await.0, 200, "{path}");
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn health_tells_what_can_answer() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    wait_until("the refusal", async || running.get("/v2/models/broken/ready").await.0 != 404).await;
    for (path, expected) in [
        ("/v2/health/live", (200, json!({"live": true}))),
        ("/v2/health/ready", (200, json!({"ready": true, "live": true}))),
        ("/v2/models/scale/ready", (200, json!({"name": "scale", "ready": true}))),
        ("/v2/models/scale/versions/1/ready", (200, json!({"name": "scale", "ready": true}))),
    ] {
        assert_eq!(running.get(path).await, expected, "{path}");
    }
    for path in ["/v2/models/broken/ready", "/v2/models/broken/versions/3/ready"] {
        let (status, body) = running.get(path).await;
        assert_eq!((status, &body["name"], &body["ready"]), (503, &json!("broken"), &json!(false)));
        assert!(body["error"].as_str().unwrap().contains("cannot be opened"), "{body}");
    }
    check(&running.get("/v2/models/other/ready").await, 404, "Request for unknown model", "other");
    check(
        &running.get("/v2/models/scale/versions/2/ready").await,
        404,
        "version 2 is not found",
        "version",
    );
    check(&running.get("/v2/models/broken").await, 404, "has no available versions", "broken");
    let fastest = async {
        let mut fastest = Duration::MAX;
        for _ in 0..100 {
            let begun = Instant::now();
            assert_eq!(running.get("/v2/health/ready").await.0, 200);
            fastest = fastest.min(begun.elapsed());
        }
        fastest
    };
    assert!(fastest.await < Duration::from_secs(1), "a kubelet waits a second by default");
}
