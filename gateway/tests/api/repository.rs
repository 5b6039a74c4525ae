//! The model repository: what it holds, what makes it load, and what calls may ask of it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice_gateway::{ControlGroup, ModelControlMode, Settings};
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::model_repository_parameter::ParameterChoice;
use sluice_protocol::grpc::{
    ModelMetadataRequest, ModelReadyRequest, ModelRepositoryParameter, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerMetadataRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Caller, Running, answer, graph_bytes, place, serve_with};

pub(crate) const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// Calls load and unload, on every port. At the start these are loaded.
pub(crate) fn explicit(load: &'static [&str]) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.model_control = Some(ModelControlMode::Explicit);
        settings.load_model = load.iter().map(|&name| name.to_owned()).collect();
        settings.serve_control = vec![ControlGroup::ModelRepository];
    }
}

pub(crate) async fn connect(caller: &Caller) -> GrpcInferenceServiceClient<Channel> {
    let address = format!("http://{}", caller.addresses.grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    GrpcInferenceServiceClient::new(channel)
}

/// Status and body of a load, over the serving port.
pub(crate) async fn load(caller: &Caller, model: &str, parameters: Value) -> (u16, Value) {
    let body = json!({"parameters": parameters}).to_string();
    caller.post(&format!("/v2/repository/models/{model}/load"), body).await
}

pub(crate) async fn unload(caller: &Caller, model: &str) -> (u16, Value) {
    caller.post(&format!("/v2/repository/models/{model}/unload"), "").await
}

pub(crate) async fn index(caller: &Caller, body: &str) -> Value {
    let (status, index) = caller.post("/v2/repository/index", body.to_owned()).await;
    assert_eq!(status, 200, "{index}");
    index
}

/// What a row of `ASK` comes out as: null when it is not answered.
pub(crate) async fn predict(caller: &Caller, model: &str) -> Value {
    let (status, body) = caller.post(&format!("/v1/models/{model}:predict"), ASK).await;
    if status == 200 { body["predictions"][0].clone() } else { Value::Null }
}

pub(crate) fn loaded(model: &str) -> (u16, Value) {
    (200, json!({"name": model, "load": true}))
}

pub(crate) fn unloaded(model: &str) -> (u16, Value) {
    (200, json!({"name": model, "unload": true}))
}

/// What `scale.onnx` and `center.onnx` make of `ASK`.
pub(crate) fn scaled() -> Value {
    json!([3.0, 5.0])
}

pub(crate) fn centred() -> Value {
    json!([0.0, 0.0])
}

pub(crate) fn write(running: &Running, path: &str, text: &str) {
    std::fs::write(running.folder.path().join(path), text).unwrap();
}

pub(crate) fn says(body: &Value, words: &str) {
    assert!(body["error"].as_str().unwrap_or_default().contains(words), "{words:?}: {body}");
}

/// Standard base64, as clients of the protocol send files.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_calls_and_the_index_tells() {
    let models = [("a", 1, "scale.onnx"), ("b", 1, "scale.onnx"), ("b", 2, "center.onnx")];
    let running = serve_with(&models, explicit(&["a"])).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    let ready =
        |name: &str, version: &str| json!({"name": name, "version": version, "state": "READY"});
    let never = |name: &str| json!({"name": name});
    assert_eq!(index(&running, "").await, json!([ready("a", "1"), never("b"), never("broken")]));
    assert_eq!(predict(&running, "b").await, Value::Null);

    assert_eq!(load(&running, "b", json!({})).await, loaded("b"));
    assert_eq!(predict(&running, "b").await, centred());
    let (status, body) = load(&running, "broken", json!({})).await;
    assert_eq!(status, 400, "{body}");
    says(&body, "load failed for model 'broken': version 3 is at UNAVAILABLE state: ");
    let mut indexed = index(&running, "{}").await;
    let reason = indexed[3]["reason"].take();
    let refused = json!({"name": "broken", "version": "3", "state": "UNAVAILABLE", "reason": null});
    assert_eq!(indexed, json!([ready("a", "1"), ready("b", "1"), ready("b", "2"), refused]));
    assert!(reason.as_str().unwrap().contains("graph cannot be opened"), "{reason}");

    assert_eq!(unload(&running, "a").await, unloaded("a"));
    let gone = json!({"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(index(&running, r#"{"ready": false}"#).await[0], gone);
    let (status, body) = running.get("/v1/models/a/versions/1").await;
    let state = json!([{"version": "1", "state": "END",
        "status": {"error_code": "OK", "error_message": "unloaded"}}]);
    assert_eq!((status, &body["model_version_status"]), (503, &state), "{body}");
    let only_ready = index(&running, r#"{"ready": true}"#).await;
    assert_eq!(only_ready, json!([ready("b", "1"), ready("b", "2")]));
    assert_eq!(running.get("/v2/models").await, (200, json!({"models": ["b", "broken"]})));
    assert_eq!(running.get("/v2/health/ready").await.0, 200, "nobody misses what was unloaded");
    assert_eq!(unload(&running, "b").await, unloaded("b"));
    assert_eq!(running.get("/v2/health/ready").await.0, 200, "calls decide what is served");
    assert_eq!(load(&running, "a", json!({})).await, loaded("a"));
    assert_eq!(predict(&running, "a").await, scaled());
}

#[tokio::test]
async fn all_that_is_there_is_loaded_at_the_start_when_a_star_says_so_and_nothing_later() {
    let models = [("a", 1, "scale.onnx"), ("b", 1, "center.onnx")];
    let running = serve_with(&models, explicit(&["*"])).await;
    assert_eq!((predict(&running, "a").await, predict(&running, "b").await), (scaled(), centred()));
    place(running.folder.path(), "c", 1, &graph_bytes("scale.onnx"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(predict(&running, "c").await, Value::Null, "nobody asked for it");
}

#[tokio::test]
async fn without_control_what_is_there_at_the_start_stays() {
    let running = serve_with(&[("a", 1, "scale.onnx")], |settings| {
        settings.model_control = Some(ModelControlMode::None);
    })
    .await;
    place(running.folder.path(), "a", 2, &graph_bytes("center.onnx"));
    place(running.folder.path(), "b", 1, &graph_bytes("scale.onnx"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        (predict(&running, "a").await, predict(&running, "b").await),
        (scaled(), Value::Null)
    );
}

#[tokio::test]
async fn grpc_has_the_same_calls_in_the_messages_of_triton_and_of_kserve() {
    let models = [("a", 1, "scale.onnx"), ("b", 4, "center.onnx")];
    let running = serve_with(&models, explicit(&[])).await;
    let mut client = connect(&running).await;
    let request = |repository: &str, model: &str| RepositoryModelLoadRequest {
        repository_name: repository.to_owned(),
        model_name: model.to_owned(),
        parameters: HashMap::new(),
    };
    // KServe's clients have the model's name where Triton's have the repository's.
    for (repository, model) in [("", "a"), ("b", "")] {
        let answer = client.repository_model_load(request(repository, model)).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!((answer.model_name, answer.is_loaded), (format!("{repository}{model}"), true));
    }
    assert_eq!(predict(&running, "b").await, centred());
    let index = RepositoryIndexRequest::default();
    let index = client.repository_index(index).await.unwrap().into_inner();
    let index = index.models.into_iter().map(|m| [m.name, m.version, m.state, m.reason]);
    let expected = [["a", "1", "READY", ""], ["b", "4", "READY", ""]];
    assert_eq!(index.collect::<Vec<_>>(), expected.map(|one| one.map(str::to_owned)));

    let flag =
        ModelRepositoryParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let unload = RepositoryModelUnloadRequest {
        model_name: "a".to_owned(),
        parameters: [("unload_dependents".to_owned(), flag)].into(),
        ..Default::default()
    };
    let answer = client.repository_model_unload(unload).await.unwrap().into_inner();
    assert_eq!((answer.model_name.as_str(), answer.is_unloaded), ("a", true));
    let unload =
        RepositoryModelUnloadRequest { repository_name: "b".to_owned(), ..Default::default() };
    client.repository_model_unload(unload).await.unwrap();
    let ready = RepositoryIndexRequest { ready: true, ..Default::default() };
    assert!(client.repository_index(ready).await.unwrap().into_inner().models.is_empty());
    let named = RepositoryIndexRequest { repository_name: "r".to_owned(), ready: false };
    for status in [
        client.repository_index(named).await.unwrap_err(),
        client.repository_model_load(request("r", "a")).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert!(status.message().contains("'repository_name' specification is not supported"));
    }
}

#[tokio::test]
async fn the_folder_or_the_registry_decides_unless_control_is_explicit() {
    for mode in [None, Some(ModelControlMode::Poll), Some(ModelControlMode::None)] {
        let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
            settings.model_control = mode;
            settings.serve_control = vec![ControlGroup::ModelRepository];
        })
        .await;
        let words = "explicit model load / unload is not allowed if polling is enabled";
        for (status, body) in [load(&running, "m", json!({})).await, unload(&running, "m").await] {
            assert_eq!(status, 503);
            says(&body, words);
            says(&body, "--model-control explicit");
        }
        let mut client = connect(&running).await;
        let request =
            RepositoryModelLoadRequest { model_name: "m".to_owned(), ..Default::default() };
        let status = client.repository_model_load(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(words));
        let ready = json!([{"name": "m", "version": "1", "state": "READY"}]);
        assert_eq!(index(&running, "").await, ready);
        let (_, server) = running.get("/v2").await;
        let list = server["extensions"].as_array().unwrap();
        assert!(!list.iter().any(|name| name.as_str().unwrap().starts_with("model_repository")));
    }
}

#[tokio::test]
async fn calls_that_change_what_is_served_answer_on_the_administration_port() {
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        explicit(&["m"])(settings);
        settings.serve_control = vec![ControlGroup::Logging];
    })
    .await;
    let mut client = connect(&running).await;
    for (status, body) in [load(&running, "m", json!({})).await, unload(&running, "m").await] {
        assert_eq!(status, 403);
        says(&body, "call the administration port (--admin)");
        says(&body, "--serve-control model-repository");
    }
    let request = RepositoryModelLoadRequest { model_name: "m".to_owned(), ..Default::default() };
    let status = client.repository_model_load(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("--serve-control model-repository"), "{status:?}");
    let request = RepositoryModelUnloadRequest { model_name: "m".to_owned(), ..Default::default() };
    let status = client.repository_model_unload(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    client.repository_index(RepositoryIndexRequest::default()).await.unwrap();

    let post = |path: &str| answer(running.client.post(running.admin(path)));
    assert_eq!(post("/v2/repository/models/m/unload").await, unloaded("m"));
    assert_eq!(post("/v2/repository/models/m/load").await, loaded("m"));
    let (status, indexed) = post("/v2/repository/index").await;
    assert_eq!((status, indexed), (200, index(&running, "").await));
    let get = |path: &str| answer(running.client.get(running.admin(path)));
    assert_eq!(get("/v2/health/live").await, (200, json!({"live": true})));
    assert_eq!(get("/v2/health/ready").await.0, 200);
    assert_eq!(get("/v2/repository/index").await.0, 405);
    let (status, body) = post("/v2/models/m/infer").await;
    assert_eq!(status, 404, "what is not for operators is not on their port: {body}");
    let always = [
        "classification",
        "schedule_policy",
        "model_configuration",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "logging",
    ];
    let (first, rest) = always.split_at(1);
    let repository = ["model_repository", "model_repository(unload_dependents)"];
    let (_, server) = get("/v2").await;
    assert_eq!(server["extensions"], json!([first, &repository[..], rest].concat()));
    assert_eq!(running.get("/v2").await.1["extensions"], json!(always));
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.extensions, always);
}

#[tokio::test]
async fn what_is_known_and_does_not_answer_is_told_from_what_is_unknown() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    place(running.folder.path(), "broken", 3, b"no graph");
    assert_eq!(load(&running, "broken", json!({})).await.0, 400);
    assert_eq!(unload(&running, "m").await, unloaded("m"));
    let mut client = connect(&running).await;
    for (model, version, status, code, words) in [
        ("other", "", 404, Code::NotFound, "Request for unknown model: 'other' is not found"),
        ("m", "", 404, Code::NotFound, "Request for unknown model: 'm' has no available versions"),
        ("m", "1", 503, Code::Unavailable, "'m' version 1 is not at ready state: unloaded"),
        ("m", "2", 404, Code::NotFound, "Request for unknown model: 'm' version 2 is not found"),
        ("broken", "", 404, Code::NotFound, "has no available versions; version 3 was refused"),
        ("broken", "3", 503, Code::Unavailable, "not at ready state: graph cannot be opened"),
    ] {
        let versions =
            if version.is_empty() { String::new() } else { format!("/versions/{version}") };
        for rest in ["", "/ready"] {
            let (found, body) = running.get(&format!("/v2/models/{model}{versions}{rest}")).await;
            let is_known = model != "other" && version != "2";
            let expected = if is_known && rest == "/ready" { 503 } else { status };
            assert_eq!(found, expected, "{model} {version}: {body}");
            says(&body, words);
        }
        let (name, version) = (model.to_owned(), version.to_owned());
        let request = ModelMetadataRequest { name: name.clone(), version: version.clone() };
        let refused = client.model_metadata(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(words), "{refused:?}");
        let ready = client.model_ready(ModelReadyRequest { name, version }).await;
        assert!(!ready.unwrap().into_inner().ready);
    }
}
