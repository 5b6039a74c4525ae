//! Classes in the place of outputs, over every protocol.

use serde_json::{Value, json};
use sluice_protocol::grpc::ModelInferRequest;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferRequestedOutputTensor;
use sluice_protocol::grpc::{InferParameter, grpc_inference_service_client};

use crate::support::{Running, serve};

const PATH: &str = "/v2/models/scale/infer";

fn asked(classes: &Value) -> Value {
    json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 5, 7, 3]}],
        "outputs": [{"name": "y", "parameters": classes}],
    })
}

async fn answer(running: &Running, classes: Value) -> (u16, Value) {
    running.post(PATH, asked(&classes).to_string()).await
}

/// Scores of so many rows, of which the model makes as many outputs.
fn rows(model: &str, count: usize) -> (String, Vec<u8>) {
    let width = if model == "scale" { 2 } else { 1 };
    let bytes = count * width * 4;
    let input = if model == "scale" { "x" } else { "INPUT0" };
    let output = if model == "scale" { "y" } else { "OUTPUT0" };
    let request = json!({
        "inputs": [{
            "name": input, "datatype": "FP32", "shape": [count, width],
            "parameters": {"binary_data_size": bytes},
        }],
        "outputs": [{"name": output, "parameters": {"classification": 4, "binary_data": true}}],
    });
    (request.to_string(), vec![0; bytes])
}

/// D6: as many classes in all, each of them a text in the place of a number. Who asks for more is
/// told before the graph runs where its shape says so, and the core answers others meanwhile.
#[tokio::test]
async fn classes_are_bounded_over_all_rows() {
    let models = [("scale", 1, "scale.onnx"), ("any", 1, "identity/FP32.onnx")];
    let running = serve(&models).await;
    for (model, count, status) in
        [("scale", 500_001, 400), ("scale", 100_000, 200), ("any", 1_000_001, 400)]
    {
        let (json, binary) = rows(model, count);
        let header = json.len();
        let body = [json.into_bytes(), binary].concat();
        let request = running.client.post(running.url(&format!("/v2/models/{model}/infer")));
        let request = request.header("inference-header-content-length", header).body(body);
        let response = request.send().await.unwrap();
        let found = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
        assert_eq!(found, status, "{model} {count}: {text}");
        if status == 400 {
            assert!(text.contains("at most 1000000 are answered in all"), "{text}");
        }
    }
    let (_, statistics) = running.get("/v2/models/scale/stats").await;
    let executions = &statistics["model_stats"][0]["inference_stats"]["success"]["count"];
    assert_eq!(executions, 1, "the one that was answered: {statistics}");
}

/// `y` is 2 x + 1.
#[tokio::test]
async fn the_largest_values_come_in_the_place_of_the_output() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let (_, plain) = answer(&running, json!({})).await;
    let values: Vec<f64> = serde_json::from_value(plain["outputs"][0]["data"].clone()).unwrap();
    let text = |index: usize| format!("{:.6}:{}", values[index], index % 2);
    let (status, body) = answer(&running, json!({"classification": 1})).await;
    assert_eq!(status, 200, "{body}");
    let larger = |row: usize| usize::from(values[2 * row + 1] > values[2 * row]) + 2 * row;
    let expected = json!({
        "name": "y", "datatype": "BYTES", "shape": [2, 1],
        "data": [text(larger(0)), text(larger(1))],
    });
    assert_eq!(body["outputs"][0], expected);
    let (_, body) = answer(&running, json!({"classification": 9})).await;
    assert_eq!(body["outputs"][0]["shape"], json!([2, 2]), "a row has two values");
    for (parameters, says) in [
        (json!({"classification": -1}), "not negative"),
        (json!({"classification": "2"}), "not negative"),
        (
            json!({
                "classification": 1, "shared_memory_region": "r", "shared_memory_byte_size": 8,
            }),
            "neither as classes",
        ),
    ] {
        let (status, body) = answer(&running, parameters.clone()).await;
        assert_eq!(status, 400, "{parameters}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{parameters}: {body}");
    }
}

#[tokio::test]
async fn outputs_that_have_no_order_are_refused() {
    let models = [("text", 1, "identity/BYTES.onnx"), ("truth", 1, "identity/BOOL.onnx")];
    let running = serve(&models).await;
    for (model, datatype, data) in
        [("text", "BYTES", json!(["a"])), ("truth", "BOOL", json!([true]))]
    {
        let request = json!({
            "inputs": [{"name": "INPUT0", "datatype": datatype, "shape": [1, 1], "data": data}],
            "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 1}}],
        });
        let (status, body) =
            running.post(&format!("/v2/models/{model}/infer"), request.to_string()).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains("cannot be classified"), "{body}");
    }
}

#[tokio::test]
async fn grpc_answers_classes_raw_and_typed() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let url = format!("http://{}", running.addresses.grpc);
    let mut client =
        grpc_inference_service_client::GrpcInferenceServiceClient::connect(url).await.unwrap();
    let choice = Some(ParameterChoice::Int64Param(1));
    let classes = InferParameter { parameter_choice: choice };
    let output = InferRequestedOutputTensor {
        name: "y".to_owned(),
        parameters: [("classification".to_owned(), classes)].into(),
    };
    let request = ModelInferRequest { outputs: vec![output], ..crate::grpc_v2::ones("scale", 1) };
    let answered = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(
        (answered.outputs[0].datatype.as_str(), &answered.outputs[0].shape[..]),
        ("BYTES", &[1, 1][..])
    );
    let raw = &answered.raw_output_contents[0];
    assert!(std::str::from_utf8(&raw[4..]).unwrap().ends_with(":0"), "{raw:?}");
}
