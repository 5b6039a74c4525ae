//! Health, metadata and status.

use std::time::Duration;

use serde_json::json;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::{ModelMetadataRequest, ModelReadyRequest, ServerReadyRequest};

use crate::support::{place, serve};

#[tokio::test]
async fn health_and_metadata_over_http() {
    let running = serve(&[("scale", 1, "scale.onnx"), ("scale", 2, "scale.onnx")]).await;
    let x = json!([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]);
    let y = json!([{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]);
    let metadata = |versions: serde_json::Value| json!({"name": "scale", "versions": versions, "platform": "onnxruntime_onnx", "inputs": x, "outputs": y});
    for (path, expected) in [
        ("/", json!({"status": "alive"})),
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready?x=1", json!({"ready": true, "live": true})),
        ("/v2/models/scale/ready", json!({"name": "scale", "ready": true})),
        ("/v1/models", json!({"models": ["scale"]})),
        ("/v2/models", json!({"models": ["scale"]})),
        ("/v2/models/scale", metadata(json!(["1", "2"]))),
        ("/v2/models/scale/versions/1", metadata(json!(["1"]))),
    ] {
        assert_eq!(running.get(path).await, (200, expected), "{path}");
    }
    let (_, server) = running.get("/v2").await;
    assert_eq!(server["name"], "sluice");
    let extensions = json!(["schedule_policy", "binary_tensor_data", "parameters", "statistics"]);
    assert_eq!(server["extensions"], extensions);
    let (_, status) = running.get("/v1/models/scale").await;
    assert_eq!((&status["name"], &status["ready"]), (&json!("scale"), &json!(true)));
    assert_eq!(status["model_version_status"][0]["state"], "AVAILABLE");
    assert_eq!(running.get("/v2/models/other").await.0, 404);
    assert_eq!(running.get("/v1/models/other").await.0, 404);
}

#[tokio::test]
async fn a_model_of_which_nothing_loads_says_why() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    let mut answered = running.get("/v1/models/broken").await;
    while answered.0 == 404 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answered = running.get("/v1/models/broken").await;
    }
    let (status, body) = answered;
    assert_eq!((status, &body["ready"]), (503, &json!(false)), "{body}");
    assert!(body["error"].as_str().unwrap().contains("version 3 was refused"), "{body}");
    assert_eq!(body["model_version_status"][0]["state"], "END");
}

#[tokio::test]
async fn health_and_metadata_over_grpc() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let address = format!("http://{}", running.gateway.addresses().grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for (name, ready) in [("scale", true), ("other", false)] {
        let request = ModelReadyRequest { name: name.to_owned(), version: String::new() };
        assert_eq!(client.model_ready(request).await.unwrap().into_inner().ready, ready);
    }
    let request = ModelMetadataRequest { name: "scale".to_owned(), version: String::new() };
    let metadata = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!(metadata.platform, "onnxruntime_onnx");
    assert_eq!(
        (metadata.inputs[0].name.as_str(), &metadata.inputs[0].shape[..]),
        ("x", &[-1, 2][..])
    );
}
