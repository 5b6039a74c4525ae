//! V1, in the style of TensorFlow Serving, as its clients and KServe's speak it.

use serde_json::{Value, json};
use sluice_gateway::{ColumnReply, MetricNames, NanForm};

use crate::support::{Caller, answer, place, serve, serve_as, serve_with, wait_until};

const LABELS: &str = "format = 1\n[labels]\nstable = 1\nnext = 2\ngone = 9\n";

async fn predict(caller: &Caller, model: &str, body: &str) -> (u16, Value) {
    caller.post(&format!("/v1/models/{model}:predict"), body.to_owned()).await
}

/// The bytes of an answer.
async fn exactly(caller: &Caller, path: &str, body: &str) -> String {
    let request = caller.client.post(caller.url(path)).body(body.to_owned());
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    response.text().await.unwrap()
}

#[tokio::test]
async fn every_path_of_a_model() {
    let versions = [("scale", 1, "scale.onnx"), ("scale", 2, "scale.onnx")];
    let running = serve_as(&versions, LABELS, |_| {}).await;
    let status = |version: &str| json!({"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}});
    let answered =
        |versions: Value| json!({"name": "scale", "ready": true, "model_version_status": versions});
    for (path, expected) in [
        ("/", json!({"status": "alive"})),
        ("/v1/models", json!({"models": ["scale"]})),
        ("/v1/models/scale", answered(json!([status("1"), status("2")]))),
        ("/V1/Models/scale/Versions/1", answered(json!([status("1")]))),
        ("/v1/models/scale/labels/next", answered(json!([status("2")]))),
    ] {
        assert_eq!(running.get(path).await, (200, expected), "{path}");
    }
    let body = r#"{"instances": [[1, 2]]}"#;
    for path in [
        "/v1/models/scale:predict",
        "/v1/models/scale%3Apredict",
        "/v1/models/scale:Predict?x=1",
        "/v1/models/scale/versions/1:predict",
        "/v1/models/scale/labels/stable:predict",
        "/v1/models/scale/labels/next%3apredict",
    ] {
        let answered = running.post(path, body).await;
        assert_eq!(answered, (200, json!({"predictions": [[3.0, 5.0]]})), "{path}");
    }
    let served = |version: u64| {
        format!("sluice_requests_total{{model=\"scale\",version=\"{version}\",code=\"ok\"}}")
    };
    let metrics = running.metrics().await;
    assert!(metrics.contains(&format!("{} 2\n", served(1))), "{metrics}");
    assert!(metrics.contains(&format!("{} 4\n", served(2))), "{metrics}");
}

#[tokio::test]
async fn what_is_not_there_or_not_done() {
    let versions = [("scale", 1, "scale.onnx"), ("scale", 2, "scale.onnx")];
    let running = serve_as(&versions, LABELS, |_| {}).await;
    let labels = "Unrecognized servable version label";
    let usable = "available: next, stable";
    for (path, status, says) in [
        ("/v1/models/other:predict", 404, "unknown model"),
        ("/v1/models/scale/versions/7:predict", 404, "version 7 is not found; available: 1, 2"),
        ("/v1/models/scale/versions/x:predict", 404, "Not Found"),
        ("/v1/models/scale/labels/none:predict", 404, labels),
        ("/v1/models/scale/labels/gone:predict", 404, usable),
        ("/v1/models/other/labels/stable:predict", 404, "unknown model"),
        ("/v1/models/scale:other", 404, "Not Found"),
        ("/v1/models/scale:explain", 501, "declares no explainer"),
        ("/v1/models/scale/versions/1:explain", 501, "use :predict"),
        ("/v1/models/other:explain", 404, "unknown model"),
        ("/v1/models/scale:classify", 501, "takes tensors and no tf.Example"),
        ("/v1/models/scale:regress", 501, ":regress is not implemented"),
        ("/v1/models/scale", 405, "use GET"),
    ] {
        let (found, body) = running.post(path, r#"{"instances": [[1, 2]]}"#).await;
        assert_eq!(found, status, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{path}: {body}");
        assert_eq!(body.as_object().unwrap().len(), 1, "{path}: {body}");
    }
    for (path, status, says) in [
        ("/v1/models/other", 404, "unknown model"),
        ("/v1/models/scale/versions/7", 404, "is not found"),
        ("/v1/models/scale/labels/none", 404, labels),
        ("/v1/models/scale/labels/none/metadata", 404, usable),
        ("/v1/models/scale:predict", 405, "use POST"),
        ("/metrics", 404, "--serve-metrics"),
    ] {
        let (found, body) = running.get(path).await;
        assert_eq!(found, status, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{path}: {body}");
    }
}

/// A version that is refused has a status; a model that has no other is not ready.
#[tokio::test]
async fn a_model_that_is_not_ready_is_unavailable() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    let path = "/v1/models/broken/versions/3";
    wait_until("the refusal", async || running.get(path).await.0 == 503).await;
    let (_, body) = running.get(path).await;
    assert_eq!(body["ready"], false);
    assert_eq!(body["model_version_status"][0]["state"], "END");
    for path in ["/v1/models/broken:predict", "/v1/models/broken:explain"] {
        let (status, body) = running.post(path, "{}").await;
        assert_eq!(status, 503, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains("no available versions"), "{body}");
    }
}

#[tokio::test]
async fn labels_move_with_their_file() {
    let versions = [("scale", 1, "scale.onnx"), ("scale", 2, "fixed.onnx")];
    let running = serve_as(&versions, LABELS, |_| {}).await;
    let asked = async || {
        let body = r#"{"instances": [[1, 2]]}"#;
        running.post("/v1/models/scale/labels/stable:predict", body).await.1["predictions"].clone()
    };
    assert_eq!(asked().await, json!([[3.0, 5.0]]));
    let file = running.folder.path().join("scale/deployment.toml");
    std::fs::write(&file, "format = 1\n[labels]\nstable = 2\n").unwrap();
    wait_until("the label's move", async || asked().await == json!([[-1.0, -2.0]])).await;
}

#[tokio::test]
async fn the_signature_is_in_tensorflow_servings_form() {
    let running = serve(&[("mixed", 4, "mixed.onnx")]).await;
    let info = |name: &str, dtype: &str| {
        let shape = json!({"dim": [{"size": "-1", "name": ""}], "unknown_rank": false});
        json!({"dtype": dtype, "tensor_shape": shape, "name": format!("{name}:0")})
    };
    let tensors = |end: &str| {
        let name = |name: &str| format!("{name}{end}");
        json!({
            name("id"): info(&name("id"), "DT_INT64"),
            name("name"): info(&name("name"), "DT_STRING"),
            name("on"): info(&name("on"), "DT_BOOL"),
        })
    };
    let signature = json!({"inputs": tensors(""), "outputs": tensors("_out"), "method_name": "tensorflow/serving/predict"});
    let expected = json!({
        "model_spec": {"name": "mixed", "signature_name": "", "version": "4"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    });
    for path in ["/v1/models/mixed/metadata", "/v1/models/mixed/versions/4/metadata"] {
        assert_eq!(running.get(path).await, (200, expected.clone()), "{path}");
    }
}

#[tokio::test]
async fn requests_as_clients_write_them() {
    let models = [("scale", 1, "scale.onnx"), ("look", 1, "look.onnx"), ("mixed", 1, "mixed.onnx")];
    let running = serve(&models).await;
    for (model, body, expected) in [
        // The signature's name, other keys, and white space.
        (
            "scale",
            r#" {"signature_name": "serving_default", "x": {"y": []}, "instances": [[1, 2]]} "#,
            json!({"predictions": [[3.0, 5.0]]}),
        ),
        (
            "scale",
            r#"{"signature_name": "", "instances": [[1, 2]]}"#,
            json!({"predictions": [[3.0, 5.0]]}),
        ),
        (
            "scale",
            r#"{"signature_name": null, "inputs": [[1, 2]]}"#,
            json!({"outputs": [[3.0, 5.0]]}),
        ),
        // Columns of different lengths, where the graph takes them so.
        (
            "look",
            r#"{"inputs": {"table": [5, 6, 7], "index": [2, 0]}}"#,
            json!({"outputs": [7.0, 5.0]}),
        ),
        // Keys in any order, and escaped.
        (
            "mixed",
            r#"{"instances": [{"\u0069d": 1, "name": "a", "on": true}, {"on": false, "name": "b", "id": 2}]}"#,
            json!({"predictions": [
                {"id_out": 1, "name_out": "a", "on_out": true},
                {"id_out": 2, "name_out": "b", "on_out": false},
            ]}),
        ),
        // No rows, no answers.
        ("scale", r#"{"instances": []}"#, json!({"predictions": []})),
        ("mixed", r#"{"instances": [ ]}"#, json!({"predictions": []})),
    ] {
        assert_eq!(predict(&running, model, body).await, (200, expected), "{body}");
    }
    // KServe compares the bytes.
    let body = r#"{"instances":[[1,2]]}"#;
    let bytes = exactly(&running, "/v1/models/scale:predict", body).await;
    assert_eq!(bytes, r#"{"predictions":[[3.0,5.0]]}"#);
    for content_type in ["application/x-www-form-urlencoded", "text/plain", "application/ld+json"] {
        let request = running.client.post(running.url("/v1/models/scale:predict")).body(body);
        let (status, body) = answer(request.header("content-type", content_type)).await;
        assert_eq!(status, 200, "{content_type}: {body}");
    }
}

#[tokio::test]
async fn requests_that_do_not_fit() {
    let models = [
        ("scale", 1, "scale.onnx"),
        ("look", 1, "look.onnx"),
        ("mixed", 1, "mixed.onnx"),
        ("half", 1, "half.onnx"),
        ("blob", 1, "blob.onnx"),
    ];
    let running = serve(&models).await;
    let plain = "instances is a plain list, but model mixed has several inputs";
    for (model, body, says) in [
        ("scale", "", "predict request"),
        ("scale", "[[1, 2]]", "Is not object"),
        ("scale", "7", "predict request"),
        ("scale", r#"{"instances": [[1, 2]}"#, "predict request"),
        ("scale", "{}", "Missing 'inputs' or 'instances' key"),
        ("scale", r#"{"instances": null}"#, "Missing 'inputs' or 'instances' key"),
        (
            "scale",
            r#"{"instances": [[1, 2]], "inputs": [[1, 2]]}"#,
            "expecting only one of 'inputs' or 'instances' keys to exist",
        ),
        ("scale", r#"{"instances": {}}"#, "Expecting 'instances' to be an list/array"),
        ("scale", r#"{"signature_name": 1, "instances": []}"#, "must be a string value"),
        (
            "scale",
            r#"{"signature_name": "other", "instances": []}"#,
            "Serving signature key \"other\" not found",
        ),
        ("scale", r#"{"instances": [[NaN, 1]]}"#, "predict request"),
        ("scale", r#"{"instances": [{"b64": "AA=="}]}"#, "is no FP32"),
        ("mixed", r#"{"instances": [[1]]}"#, plain),
        ("mixed", r#"{"inputs": [1]}"#, "inputs is a plain value/list"),
        ("mixed", r#"{"instances": [{"id": 1.0, "name": "", "on": true}]}"#, "1.0 is no INT64"),
        (
            "mixed",
            r#"{"inputs": {"id": [1, 2], "name": ["a"], "on": [true]}}"#,
            "batch size does not match other inputs",
        ),
        ("mixed", r#"{"inputs": {"id": [1], "id": [1]}}"#, "\"id\": is given twice"),
        ("scale", r#"{"inputs": {"x": []}}"#, "unexpected shape"),
        ("mixed", r#"{"inputs": {"id": [], "name": [], "on": []}}"#, "has no rows"),
        ("look", r#"{"inputs": {"table": 5, "index": [0]}}"#, "unexpected shape"),
        ("half", r#"{"instances": [{"half": [1, 2], "brain": [1, 2]}]}"#, "no JSON form"),
        ("blob", r#"{"instances": [[{"b64": "a*"}]]}"#, "Unable to base64 decode"),
        ("blob", r#"{"instances": [[{"b64": 1}]]}"#, "not of the one key \"b64\""),
        ("blob", r#"{"instances": [["a"], ["a", "b"]]}"#, "different shapes"),
    ] {
        let (status, answered) = predict(&running, model, body).await;
        assert_eq!(status, 400, "{body}: {answered}");
        assert!(answered["error"].as_str().unwrap().contains(says), "{body}: {answered}");
        assert_eq!(answered.as_object().unwrap().len(), 1, "{body}: {answered}");
    }
}

#[tokio::test]
async fn bytes_travel_in_base64() {
    let running = serve(&[("blob", 1, "blob.onnx"), ("mixed", 1, "mixed.onnx")]).await;
    let one = json!({"b64": "w6kK"});
    for (request, expected) in [
        (json!({"instances": [[one, "hi"]]}), json!({"predictions": [[one, {"b64": "aGk="}]]})),
        (json!({"instances": [{"blob": [one]}]}), json!({"predictions": [[one]]})),
        (json!({"inputs": [[one]]}), json!({"outputs": [[one]]})),
        (json!({"inputs": {"blob": [[one]]}}), json!({"outputs": [[one]]})),
    ] {
        let answered = predict(&running, "blob", &request.to_string()).await;
        assert_eq!(answered, (200, expected), "{request}");
    }
    // Beside other inputs, and back as the text that it is.
    let request = json!({"instances": [{"id": 1, "name": one, "on": true}]});
    let (status, answered) = predict(&running, "mixed", &request.to_string()).await;
    assert_eq!((status, &answered["predictions"][0]["name_out"]), (200, &json!("é\n")));
    // ONNX Runtime's strings are texts.
    let request = json!({"instances": [[{"b64": "/wA="}]]});
    let (status, answered) = predict(&running, "blob", &request.to_string()).await;
    assert_eq!(status, 400, "{answered}");
    assert!(answered["error"].as_str().unwrap().contains("is not UTF-8"), "{answered}");
}

#[tokio::test]
async fn the_dialect_is_as_it_is_set() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.dialect.column_reply = Some(ColumnReply::Predictions);
        settings.dialect.nan = Some(NanForm::Words);
        settings.serve_metrics = Some(true);
    })
    .await;
    let body = r#"{"inputs": [[NaN, -Infinity]]}"#;
    let answered = exactly(&running, "/v1/models/scale:predict", body).await;
    assert_eq!(answered, r#"{"predictions":[[NaN,-Infinity]]}"#);
    let response = running.client.get(running.url("/metrics")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(
        text.contains(r#"sluice_requests_total{model="scale",version="1",code="ok"} 1"#),
        "{text}"
    );
}

/// A1.10: the same series, by the same names, in the form that is accepted.
#[tokio::test]
async fn metrics_come_in_the_form_that_is_accepted() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.serve_metrics = Some(true);
        settings.metric_names = Some(vec![MetricNames::Sluice, MetricNames::Triton]);
    })
    .await;
    assert_eq!(predict(&running, "scale", r#"{"instances": [[1, 2]]}"#).await.0, 200);
    for url in [running.url("/metrics"), running.admin("/metrics")] {
        let asked = running.client.get(&url).header("accept", "application/openmetrics-text");
        let response = asked.send().await.unwrap();
        let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(response.headers()["content-type"], form);
        let text = response.text().await.unwrap();
        assert!(text.ends_with("\n# EOF\n") && !text.contains("\n\n"), "{text}");
        for line in [
            "# TYPE sluice_requests counter",
            r#"sluice_requests_total{model="scale",version="1",code="ok"} 1"#,
            "# TYPE nv_inference_request_success unknown",
            r#"nv_inference_request_success{model="scale",version="1"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let asked = running.client.get(&url).header("accept", "text/plain, */*;q=0.1");
        let response = asked.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(!response.text().await.unwrap().contains("# EOF"));
    }
}
