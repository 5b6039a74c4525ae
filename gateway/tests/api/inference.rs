//! The same question in every form gives the same answer.

use serde_json::json;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use crate::support::{Caller, answer, serve};

#[tokio::test]
async fn v1_rows_and_columns() {
    let running = serve(&[("scale", 1, "scale.onnx"), ("mixed", 1, "mixed.onnx")]).await;
    for (path, request, expected) in [
        (
            "scale",
            json!({"instances": [[1, 2.5], [3, -4]]}),
            json!({"predictions": [[3.0, 6.0], [7.0, -7.0]]}),
        ),
        ("scale", json!({"instances": [{"x": [1, 2.5]}]}), json!({"predictions": [[3.0, 6.0]]})),
        ("scale", json!({"inputs": [[1, 2.5]]}), json!({"outputs": [[3.0, 6.0]]})),
        ("scale", json!({"inputs": {"x": [[1, 2.5]]}}), json!({"outputs": [[3.0, 6.0]]})),
        (
            "mixed",
            json!({"instances": [{"id": 7, "name": "é", "on": true}, {"id": 8, "name": "", "on": false}]}),
            json!({"predictions": [
                {"id_out": 7, "name_out": "é", "on_out": true},
                {"id_out": 8, "name_out": "", "on_out": false},
            ]}),
        ),
        (
            "mixed",
            json!({"inputs": {"id": [7], "name": ["a"], "on": [true]}}),
            json!({"outputs": {"id_out": [7], "name_out": ["a"], "on_out": [true]}}),
        ),
    ] {
        let answered =
            running.post(&format!("/v1/models/{path}:predict"), request.to_string()).await;
        assert_eq!(answered, (200, expected), "{request}");
    }
}

#[tokio::test]
async fn v2_json_echoes_the_id_and_names_the_version() {
    let running = serve(&[("scale", 1, "scale.onnx"), ("scale", 3, "scale.onnx")]).await;
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]});
    let request = json!({"id": "q-1", "inputs": [input], "outputs": [{"name": "y"}]}).to_string();
    let output = json!([{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 6.0]}]);
    for (path, version) in [("", "3"), ("/versions/1", "1")] {
        let answered =
            running.post(&format!("/v2/models/scale{path}/infer"), request.clone()).await;
        let expected = json!({"model_name": "scale", "model_version": version, "id": "q-1", "outputs": output});
        assert_eq!(answered, (200, expected));
    }
}

/// JSON has no NaN: null is one, in and out.
#[tokio::test]
async fn missing_values_and_absent_keys_are_null() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, null], "parameters": null});
    let request = json!({"id": null, "parameters": null, "outputs": null, "inputs": [input]});
    let (status, body) = running.post("/v2/models/scale/infer", request.to_string()).await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([3.0, null])), "{body}");
    for request in [json!({"instances": [[1, null]]}), json!({"instances": [{"x": [1, null]}]})] {
        let answered = running.post("/v1/models/scale:predict", request.to_string()).await;
        assert_eq!(answered, (200, json!({"predictions": [[3.0, null]]})));
    }
}

#[tokio::test]
async fn v2_binary_in_and_out() {
    let running = serve(&[("mixed", 1, "mixed.onnx")]).await;
    let header = json!({
        "inputs": [
            {"name": "id", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
            {"name": "name", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
            {"name": "on", "datatype": "BOOL", "shape": [2], "data": [true, false]},
        ],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    let mut body = header.clone().into_bytes();
    body.extend([7i64.to_le_bytes(), (-8i64).to_le_bytes()].concat());
    body.extend(b"\x03\0\0\0abc\0\0\0\0");
    let response = running
        .client
        .post(running.url("/v2/models/mixed/infer"))
        .header("Inference-Header-Content-Length", header.len())
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let length: usize =
        response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let body = response.bytes().await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body[..length]).unwrap();
    assert_eq!(answer["outputs"][1]["parameters"]["binary_data_size"], 11);
    let raw =
        [&7i64.to_le_bytes()[..], &(-8i64).to_le_bytes(), b"\x03\0\0\0abc\0\0\0\0", b"\x01\0"];
    assert_eq!(body[length..], raw.concat());
}

/// A gRPC client of the gateway.
pub(crate) async fn connect(caller: &Caller) -> GrpcInferenceServiceClient<Channel> {
    let address = format!("http://{}", caller.addresses.grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    GrpcInferenceServiceClient::new(channel)
}

#[tokio::test]
async fn grpc_typed_and_raw() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut client = connect(&running).await;
    let mut input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 2],
        contents: Some(InferTensorContents { fp32_contents: vec![1.0, 2.5], ..Default::default() }),
        ..Default::default()
    };
    let mut request = ModelInferRequest {
        model_name: "scale".to_owned(),
        id: "q".to_owned(),
        inputs: vec![input.clone()],
        ..Default::default()
    };
    let typed = client.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!((typed.id.as_str(), typed.model_version.as_str()), ("q", "1"));
    assert_eq!(typed.outputs[0].contents.as_ref().unwrap().fp32_contents, [3.0, 6.0]);
    input.contents = None;
    request.inputs = vec![input];
    request.raw_input_contents = vec![[1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat().into()];
    let raw = client.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!(raw.raw_output_contents[0], [3f32.to_le_bytes(), 6f32.to_le_bytes()].concat());
    let mut zipped = client.clone().send_compressed(CompressionEncoding::Gzip);
    assert_eq!(zipped.model_infer(request.clone()).await.unwrap().into_inner(), raw);
    request.model_version = "9".to_owned();
    assert_eq!(client.model_infer(request).await.unwrap_err().code(), tonic::Code::NotFound);
}

/// Requests that come together share runs, and each gets its own rows back.
#[tokio::test]
async fn many_at_once_get_their_own_answers_from_fewer_runs() {
    for graph in ["scale.onnx", "slow.onnx"] {
        let running = serve(&[("m", 1, graph)]).await;
        let requests = (0..200u16).map(|number| {
            let body = json!({"instances": [[number, -f32::from(number)]]}).to_string();
            let request = running.client.post(running.url("/v1/models/m:predict")).body(body);
            tokio::spawn(async move { (number, answer(request).await) })
        });
        for request in requests.collect::<Vec<_>>() {
            let (number, answered) = request.await.unwrap();
            let twice = 2.0 * f32::from(number);
            let expected = json!({"predictions": [[twice + 1.0, 1.0 - twice]]});
            assert_eq!(answered, (200, expected), "{graph}");
        }
        let metrics = running.metrics().await;
        assert!(metrics.contains(r#"sluice_rows_total{model="m",version="1"} 200"#), "{metrics}");
        running.gateway.drain().await;
    }
}

#[tokio::test]
async fn one_request_that_fails_does_not_fail_the_others() {
    let running = serve(&[("pick", 1, "pick.onnx")]).await;
    let requests = (0..60u16).map(|number| {
        let body = json!({"instances": [number % 6]}).to_string();
        let request = running.client.post(running.url("/v1/models/pick:predict")).body(body);
        tokio::spawn(async move { (number % 6, answer(request).await) })
    });
    for request in requests.collect::<Vec<_>>() {
        let (index, (status, body)) = request.await.unwrap();
        if index < 4 {
            assert_eq!(
                (status, body),
                (200, json!({"predictions": [10.0 * f32::from(index + 1)]}))
            );
        } else {
            assert_eq!(status, 400, "index {index} is outside the table: {body}");
            assert!(body["error"].as_str().unwrap().contains("pick"), "{body}");
        }
    }
}

#[tokio::test]
async fn a_graph_of_fixed_shape_is_served_one_request_a_run() {
    let running = serve(&[("fixed", 1, "fixed.onnx")]).await;
    let answered = running.post("/v1/models/fixed:predict", r#"{"instances": [[1, 2]]}"#).await;
    assert_eq!(answered, (200, json!({"predictions": [[-1.0, -2.0]]})));
    let (status, body) =
        running.post("/v1/models/fixed:predict", r#"{"instances": [[1, 2], [3, 4]]}"#).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("Expected [1,2], got [2,2]"), "{body}");
}
