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
