//! Health, metadata and status.

use serde_json::json;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::{
    ModelConfigRequest, ModelMetadataRequest, ModelReadyRequest, ServerReadyRequest,
};

use crate::support::{place, serve, wait_until};

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
    let extensions = json!([
        "classification",
        "schedule_policy",
        "model_configuration",
        "binary_tensor_data",
        "parameters",
        "statistics",
    ]);
    assert_eq!(server["extensions"], extensions);
    let (_, status) = running.get("/v1/models/scale").await;
    assert_eq!((&status["name"], &status["ready"]), (&json!("scale"), &json!(true)));
    assert_eq!(status["model_version_status"][0]["state"], "AVAILABLE");
    assert_eq!(running.get("/v2/models/other").await.0, 404);
    assert_eq!(running.get("/v1/models/other").await.0, 404);
}

#[tokio::test]
async fn a_models_configuration_is_answered() {
    let running = serve(&[("scale", 1, "scale.onnx"), ("fixed", 3, "fixed.onnx")]).await;
    let (status, config) = running.get("/v2/models/scale/config").await;
    assert_eq!((status, &config["name"]), (200, &json!("scale")));
    // What perf_analyzer reads.
    assert_eq!(config["platform"], "onnxruntime_onnx");
    assert_eq!(config["max_batch_size"], i32::MAX);
    assert_eq!(config["input"][0]["name"], "x");
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
    assert_eq!(config["input"][0]["dims"], json!([2]));
    assert_eq!(config["input"][0]["optional"], false);
    assert_eq!(config["output"][0]["is_shape_tensor"], false);
    assert!(config["dynamic_batching"].is_object() && config["sequence_batching"].is_null());
    let (status, config) = running.get("/v2/models/fixed/versions/3/config").await;
    assert_eq!((status, &config["max_batch_size"]), (200, &json!(0)));
    assert_eq!(config["input"][0]["dims"], json!([1, 2]));
    for unknown in ["/v2/models/other/config", "/v2/models/scale/versions/2/config"] {
        let (status, body) = running.get(unknown).await;
        assert_eq!(status, 404, "{body}");
        assert!(body["error"].as_str().unwrap().starts_with("Request for unknown model"));
    }
    assert_eq!(running.post("/v2/models/scale/config", "").await.0, 405);

    let address = format!("http://{}", running.gateway.addresses().grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel);
    let mut ask = async |name: &str, version: &str| {
        let (name, version) = (name.to_owned(), version.to_owned());
        client.model_config(ModelConfigRequest { name, version }).await
    };
    let config = ask("fixed", "3").await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.name.as_str(), config.max_batch_size), ("fixed", 0));
    assert_eq!((config.backend.as_str(), &config.output[0].dims[..]), ("onnxruntime", &[1, 2][..]));
    let unknown = ask("scale", "2").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    assert_eq!(ask("scale", "x").await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_model_of_which_nothing_loads_says_why() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    let mut answered = (0, json!(null));
    wait_until("the refusal", async || {
        answered = running.get("/v1/models/broken").await;
        answered.1["model_version_status"][0]["state"] == "END"
    })
    .await;
    let (status, body) = answered;
    assert_eq!((status, &body["ready"]), (503, &json!(false)), "{body}");
    assert!(body["error"].as_str().unwrap().contains("version 3 was refused"), "{body}");
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
