//! V2 over HTTP with binary tensors: whose length fits, and bodies that are nothing else.

use serde_json::json;

use crate::http_v2::{check, infer, parts, post_binary, request};
use crate::support::{Process, answer, serve};

#[tokio::test]
async fn the_binary_parts_length_is_exact() {
    let running = Process::start(&[("FP32", 1, "identity/FP32.onnx")], &[]).await;
    let json = r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":4}}]}"#;
    let length = json.len().to_string();
    let body = [json.as_bytes(), &[0; 4]].concat();
    for (header, says) in [
        ("-1", "is no length within"),
        ("+99", "is no length within"),
        ("x", "is no length within"),
        ("1e2", "is no length within"),
        ("", "is no length within"),
        ("2147483648", "is no length within"),
        ("18446744073709551616", "is no length within"),
        ("1000", "is no length within"),
        ("10", "request body is no infer request"),
    ] {
        let asked = running.client.post(running.url("/v2/models/FP32/infer"));
        let asked = asked.header("Inference-Header-Content-Length", header).body(body.clone());
        check(&answer(asked).await, 400, says, header);
    }
    let asked = running.client.post(running.url("/v2/models/FP32/infer"));
    let twice = asked
        .header("Inference-Header-Content-Length", &length)
        .header("inference-header-content-length", &length);
    check(&answer(twice.body(body.clone())).await, 400, "more than once", "two headers");
    for (binary, says) in [
        (&[0; 3][..], "needs 4 bytes of binary data, 3 are left"),
        (&[0; 5], "1 bytes of binary data are left over"),
    ] {
        let response = post_binary(&running, "FP32", json, binary).await;
        let status = response.status().as_u16();
        check(&(status, response.json().await.unwrap()), 400, says, says);
    }
    check(
        &infer(&running, "FP32", body).await,
        400,
        "request body is no infer request",
        "no header",
    );
    running.end_without_an_error().await;
}

#[tokio::test]
async fn a_binary_output_of_no_bytes_needs_no_header() {
    let running = serve(&[("FP32", 1, "identity/FP32.onnx")]).await;
    let text = request("FP32", "[1,0]", "[]", r#","parameters":{"binary_data_output":true}"#);
    let asked = running.client.post(running.url("/v2/models/FP32/infer")).body(text);
    let (json, binary) = parts(asked.send().await.unwrap()).await;
    let output = json!({"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 0], "parameters": {"binary_data_size": 0}});
    assert_eq!((json["outputs"].clone(), binary), (json!([output]), None));
}

/// A header of 0: the body is the only input.
#[tokio::test]
async fn raw_binary_requests() {
    let models = [
        ("FP32", 1, "identity/FP32.onnx"),
        ("BYTES", 1, "identity/BYTES.onnx"),
        ("patch", 1, "patch.onnx"),
        ("parse", 1, "parse.onnx"),
        ("add_sub", 1, "add_sub.onnx"),
    ];
    let running = serve(&models).await;
    let ask = async |model: &str, body: &[u8]| {
        let asked = running.client.post(running.url(&format!("/v2/models/{model}/infer")));
        asked
            .header("Inference-Header-Content-Length", "0")
            .body(body.to_vec())
            .send()
            .await
            .unwrap()
    };
    let (json, binary) = parts(ask("FP32", &[1; 12]).await).await;
    assert_eq!((&json["outputs"][0]["shape"], binary), (&json!([1, 3]), Some(vec![1; 12])));
    let (json, binary) = parts(ask("parse", b"1.5").await).await;
    assert_eq!(
        (&json["outputs"][0]["shape"], binary),
        (&json!([1]), Some(1.5f32.to_le_bytes().to_vec()))
    );
    let (json, binary) = parts(ask("BYTES", "né".as_bytes()).await).await;
    assert_eq!(
        (&json["outputs"][0]["shape"], binary),
        (&json!([1, 1]), Some(b"\x03\0\0\0n\xc3\xa9".to_vec()))
    );
    for (model, body, says) in [
        ("FP32", &[0; 5][..], "no whole number of FP32"),
        ("patch", &[0; 64], "several variable dimensions"),
        (
            "add_sub",
            &[0; 64],
            "a raw binary request brings one input, and model add_sub takes several",
        ),
    ] {
        let response = ask(model, body).await;
        let status = response.status().as_u16();
        check(&(status, response.json().await.unwrap()), 400, says, says);
    }
}
