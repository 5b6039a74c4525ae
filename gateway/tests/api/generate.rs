//! Triton's generate extension: keys in, keys back, by itself or as an event.

use serde_json::{Value, json};

use crate::support::{Caller, answer, serve};

async fn ask(caller: &Caller, path: &str, body: &str) -> (u16, String, String) {
    let request = caller.client.post(caller.url(path)).body(body.to_owned());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    (status, content_type, response.text().await.unwrap())
}

/// The object of the one event in a stream.
fn event(stream: &str) -> Value {
    let data = stream.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let data = data.filter(|data| !data.contains('\n'));
    serde_json::from_str(data.unwrap_or_else(|| panic!("no event: {stream:?}"))).unwrap()
}

#[tokio::test]
async fn keys_are_inputs_and_outputs() {
    let models =
        [("parse", 3, "parse.onnx"), ("scale", 1, "scale.onnx"), ("mixed", 1, "mixed.onnx")];
    let running = serve(&models).await;
    let answered = |model: &str, version: &str, rest: Value| {
        let mut answer = json!({"model_name": model, "model_version": version});
        answer.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        answer
    };
    for (path, request, expected) in [
        ("parse", json!({"text": "1.5"}), answered("parse", "3", json!({"y": 1.5}))),
        ("parse/versions/3", json!({"text": ["7"]}), answered("parse", "3", json!({"y": 7.0}))),
        (
            "parse",
            json!({"text": "1", "id": "q-1", "other": true, "parameters": {"most": 3}}),
            answered("parse", "3", json!({"id": "q-1", "y": 1.0})),
        ),
        // An input among the parameters, as Triton takes it.
        ("parse", json!({"parameters": {"text": "1"}}), answered("parse", "3", json!({"y": 1.0}))),
        (
            "parse",
            json!({"text": "1", "parameters": null}),
            answered("parse", "3", json!({"y": 1.0})),
        ),
        ("scale", json!({"x": [1, 2]}), answered("scale", "1", json!({"y": [3.0, 5.0]}))),
        ("scale", json!({"x": [[1, 2]]}), answered("scale", "1", json!({"y": [3.0, 5.0]}))),
        // An input is an input, whatever else its name means.
        (
            "mixed",
            json!({"id": 7, "name": "é", "on": [true]}),
            answered("mixed", "1", json!({"id_out": 7, "name_out": "é", "on_out": true})),
        ),
    ] {
        let path = format!("/v2/models/{path}/generate");
        let (status, content_type, body) = ask(&running, &path, &request.to_string()).await;
        assert_eq!((status, content_type.as_str()), (200, "application/json"), "{request}: {body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected, "{request}");
        let path = format!("{path}_stream");
        let (status, content_type, body) = ask(&running, &path, &request.to_string()).await;
        assert_eq!((status, content_type.as_str()), (200, "text/event-stream; charset=utf-8"));
        assert_eq!(event(&body), expected, "{request}");
    }
}

#[tokio::test]
async fn requests_that_do_not_fit() {
    let models = [
        ("parse", 1, "parse.onnx"),
        ("scale", 1, "scale.onnx"),
        ("mixed", 1, "mixed.onnx"),
        ("half", 1, "half.onnx"),
        ("fixed", 1, "fixed.onnx"),
    ];
    let running = serve(&models).await;
    for (model, body, says) in [
        ("parse", "", "generate request"),
        ("parse", "[]", "expected an object"),
        ("parse", "null", "expected an object"),
        ("parse", "\"text\"", "invalid type: string, expected an object"),
        ("parse", "{", "generate request"),
        ("parse", r#"{"text": "1"} {}"#, "trailing characters"),
        ("parse", "{}", "missing required input(s) ['text']"),
        ("parse", r#"{"abc": 123}"#, "expected 1 inputs but got 0 inputs for model 'parse'"),
        ("mixed", r#"{"name": "a", "on": true}"#, "\"id\": is missing"),
        ("parse", r#"{"text": 123}"#, "element 123 is no BYTES"),
        ("mixed", r#"{"id": 1, "name": "a", "on": "false"}"#, "is no BOOL"),
        ("parse", r#"{"text": {"a": "b"}}"#, "is no BYTES"),
        ("parse", r#"{"text": "1", "text": "2"}"#, "input 'text' already exists in request"),
        ("parse", r#"{"text": "1", "parameters": {"text": "2"}}"#, "already exists in request"),
        ("parse", r#"{"text": "1", "parameters": 1}"#, "expected an object"),
        ("parse", r#"{"text": "1", "PARAMS": {"a": 0}}"#, "parameter \"PARAMS\""),
        ("parse", r#"{"text": "1", "p": null}"#, "parameter \"p\""),
        ("parse", r#"{"text": "1", "id": 7}"#, "generate request"),
        ("parse", r#"{"text": ["1", "2"]}"#, "needs 1 elements, got 2"),
        ("scale", r#"{"x": [1, 2, 3]}"#, "needs 2 elements, got 3"),
        ("scale", r#"{"x": [[1, 2], [3, 4]]}"#, "shape [2, 2], which is no row of [-1, 2]"),
        ("scale", r#"{"x": [[1], [2, 3]]}"#, "different shapes"),
        ("fixed", r#"{"x": 1}"#, "needs 2 elements, got 1"),
        ("half", r#"{"half": [1, 2], "brain": [1, 2]}"#, "FP16 has no JSON form"),
    ] {
        for route in ["generate", "generate_stream"] {
            let path = format!("/v2/models/{model}/{route}");
            let (status, content_type, answered) = ask(&running, &path, body).await;
            assert_eq!(
                (status, content_type.as_str()),
                (400, "application/json"),
                "{body}: {answered}"
            );
            let answered: Value = serde_json::from_str(&answered).unwrap();
            assert!(answered["error"].as_str().unwrap().contains(says), "{body}: {answered}");
        }
    }
    let path = "/v2/models/other/generate";
    assert_eq!(running.post(path, "{}").await.0, 404);
    assert_eq!(running.get("/v2/models/parse/generate_stream").await.0, 405);
    let request = running.client.post(running.url("/v2/models/parse/generate")).body("x");
    let (status, body) = answer(request.header("content-encoding", "gzip")).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("send the body as it is"), "{body}");
}

/// The status says it too, since nothing was sent before.
#[tokio::test]
async fn a_run_that_fails_is_an_event() {
    let running = serve(&[("parse", 1, "parse.onnx")]).await;
    let body = r#"{"text": "abc"}"#;
    let (status, content_type, stream) =
        ask(&running, "/v2/models/parse/generate_stream", body).await;
    assert_eq!((status, content_type.as_str()), (400, "text/event-stream; charset=utf-8"));
    let error = event(&stream);
    assert!(error["error"].as_str().unwrap().contains("graph refuses its inputs"), "{error}");
    let (status, answered) = running.post("/v2/models/parse/generate", body).await;
    assert_eq!((status, answered), (400, error));
}
