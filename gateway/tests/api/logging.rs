//! The log's settings over both protocols. They are the process's, so only what changes no line of
//! other tests is changed.

use serde_json::json;
use sluice_gateway::ControlGroup;
use sluice_protocol::grpc::LogSettingsRequest;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;

use crate::support::{answer, serve, serve_with};

#[tokio::test]
async fn settings_are_read_and_changed() {
    let running =
        serve_with(&[], |settings| settings.serve_control = vec![ControlGroup::Logging]).await;
    let all = json!({
        "log_file": "", "log_info": true, "log_warning": true, "log_error": true,
        "log_verbose_level": 0, "log_format": "default",
    });
    assert_eq!(running.get("/v2/logging").await, (200, all.clone()));
    let same = r#"{"log_info": true, "log_format": "default", "unknown": [1]}"#;
    assert_eq!(running.post("/v2/logging", same).await, (200, all));
    for (body, status, says) in [
        (r#"{"log_info": 1}"#, 400, "log_info must be true or false, got 1"),
        (r#"{"log_error": null}"#, 400, "log_error must be true or false"),
        (r#"{"log_verbose_level": -1}"#, 400, "whole number"),
        (r#"{"log_format": "xml"}"#, 400, "neither \"default\" nor \"ISO8601\""),
        (r#"{"log_file": "/tmp/x"}"#, 501, "can not be updated through network protocol"),
        ("[]", 400, "JSON object"),
        ("", 400, "JSON object"),
    ] {
        let (found, answered) = running.post("/v2/logging", body).await;
        assert_eq!(found, status, "{body}: {answered}");
        assert!(answered["error"].as_str().unwrap().contains(says), "{body}: {answered}");
    }
    let url = format!("http://{}", running.addresses.grpc);
    let mut client = GrpcInferenceServiceClient::connect(url).await.unwrap();
    let told = client.log_settings(LogSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.settings.len(), 6);
}

#[tokio::test]
async fn settings_are_for_operators() {
    let running = serve(&[]).await;
    assert_eq!(running.get("/v2/logging").await.0, 403);
    assert_eq!(running.post("/v2/logging", "{}").await.0, 403);
    let (status, told) = answer(running.client.get(running.admin("/v2/logging"))).await;
    assert_eq!((status, &told["log_info"]), (200, &json!(true)));
    let url = format!("http://{}", running.addresses.grpc);
    let mut client = GrpcInferenceServiceClient::connect(url).await.unwrap();
    let refused = client.log_settings(LogSettingsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
}
