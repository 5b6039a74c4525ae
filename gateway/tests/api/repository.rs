//! The model repository: what it holds, what makes it load, and what calls may ask of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

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

use crate::drain::{place_long, wait_for_loading};
use crate::grpc_v2::BATCHES;
use crate::support::{
    Caller, Process, Running, answer, graph_bytes, place, serve, serve_with, wait_until, within,
};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// Calls load and unload, on every port. At the start these are loaded.
fn explicit(load: &'static [&str]) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.model_control = Some(ModelControlMode::Explicit);
        settings.load_model = load.iter().map(|&name| name.to_owned()).collect();
        settings.serve_control = vec![ControlGroup::ModelRepository];
    }
}

async fn connect(caller: &Caller) -> GrpcInferenceServiceClient<Channel> {
    let address = format!("http://{}", caller.addresses.grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    GrpcInferenceServiceClient::new(channel)
}

/// Status and body of a load, over the serving port.
async fn load(caller: &Caller, model: &str, parameters: Value) -> (u16, Value) {
    let body = json!({"parameters": parameters}).to_string();
    caller.post(&format!("/v2/repository/models/{model}/load"), body).await
}

async fn unload(caller: &Caller, model: &str) -> (u16, Value) {
    caller.post(&format!("/v2/repository/models/{model}/unload"), "").await
}

async fn index(caller: &Caller, body: &str) -> Value {
    let (status, index) = caller.post("/v2/repository/index", body.to_owned()).await;
    assert_eq!(status, 200, "{index}");
    index
}

/// What a row of `ASK` comes out as: null when it is not answered.
async fn predict(caller: &Caller, model: &str) -> Value {
    let (status, body) = caller.post(&format!("/v1/models/{model}:predict"), ASK).await;
    if status == 200 { body["predictions"][0].clone() } else { Value::Null }
}

fn loaded(model: &str) -> (u16, Value) {
    (200, json!({"name": model, "load": true}))
}

fn unloaded(model: &str) -> (u16, Value) {
    (200, json!({"name": model, "unload": true}))
}

/// What `scale.onnx` and `center.onnx` make of `ASK`.
fn scaled() -> Value {
    json!([3.0, 5.0])
}

fn centred() -> Value {
    json!([0.0, 0.0])
}

fn write(running: &Running, path: &str, text: &str) {
    std::fs::write(running.folder.path().join(path), text).unwrap();
}

fn says(body: &Value, words: &str) {
    assert!(body["error"].as_str().unwrap_or_default().contains(words), "{words:?}: {body}");
}

/// Standard base64, as clients of the protocol send files.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= three.len() { DIGITS[index].into() } else { '=' });
        }
    }
    text
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

/// The same mistake over both protocols: status, code and words.
#[tokio::test]
async fn mistakes_are_told_in_the_words_that_clients_look_for() {
    use ParameterChoice::{BoolParam, BytesParam, Int64Param, StringParam};
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    std::fs::create_dir(running.folder.path().join("empty")).unwrap();
    let mut client = connect(&running).await;
    let text = |text: &str| StringParam(text.to_owned());
    let nothing = "failed to load 'other', failed to poll from model repository: ";
    for (model, name, over_http, over_grpc, status, code, words) in [
        ("other", "", json!(0), Int64Param(0), 404, Code::NotFound, nothing),
        (".m", "", json!(0), Int64Param(0), 404, Code::NotFound, "must not start with '.'"),
        (
            "empty",
            "",
            json!(0),
            Int64Param(0),
            400,
            Code::InvalidArgument,
            "at least one version must be available",
        ),
        (
            "m",
            "config",
            json!(5),
            Int64Param(5),
            400,
            Code::InvalidArgument,
            "parameter \"config\": must be a text",
        ),
        (
            "m",
            "config",
            json!("{"),
            text("{"),
            400,
            Code::InvalidArgument,
            "parameter \"config\": ",
        ),
        (
            "m",
            "config",
            json!("{\"name\": \"x\"}"),
            text("{\"name\": \"x\"}"),
            400,
            Code::InvalidArgument,
            "name is \"x\", but the model is called \"m\"",
        ),
        (
            "m",
            "configs",
            json!("{}"),
            text("{}"),
            400,
            Code::InvalidArgument,
            "unexpected parameter \"configs\"",
        ),
        (
            "m",
            "unload_dependents",
            json!(true),
            BoolParam(true),
            400,
            Code::InvalidArgument,
            "unexpected parameter \"unload_dependents\"",
        ),
        (
            "m",
            "file:1/model.onnx",
            json!("AAAA"),
            BytesParam(vec![0; 3].into()),
            400,
            Code::InvalidArgument,
            "failed to load 'm', failed to poll from model repository",
        ),
        (
            "m",
            "file:1/model.onnx",
            json!(true),
            BoolParam(true),
            400,
            Code::InvalidArgument,
            "must hold the file's bytes",
        ),
    ] {
        let parameters = if name.is_empty() { json!({}) } else { json!({name: over_http}) };
        let (found, body) = load(&running, model, parameters).await;
        assert_eq!(found, status, "{model} {name}: {body}");
        says(&body, words);
        let parameter = ModelRepositoryParameter { parameter_choice: Some(over_grpc) };
        let parameters = [(name.to_owned(), parameter)].into_iter().filter(|_| !name.is_empty());
        let request = RepositoryModelLoadRequest {
            model_name: model.to_owned(),
            parameters: parameters.collect(),
            ..Default::default()
        };
        let refused = client.repository_model_load(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{model} {name}: {refused:?}");
        assert!(refused.message().contains(words), "{words:?}: {refused:?}");
    }
    let (status, body) = unload(&running, "other").await;
    assert_eq!(status, 404);
    says(&body, "Request for unknown model: 'other' is not found");
    let request =
        RepositoryModelUnloadRequest { model_name: "other".to_owned(), ..Default::default() };
    assert_eq!(client.repository_model_unload(request).await.unwrap_err().code(), Code::NotFound);
    let nameless = client.repository_model_load(RepositoryModelLoadRequest::default()).await;
    assert_eq!(nameless.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(predict(&running, "m").await, scaled());
}

#[tokio::test]
async fn bodies_that_are_not_understood_change_nothing() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    let load = "/v2/repository/models/m/load";
    let unload = "/v2/repository/models/m/unload";
    let index = "/v2/repository/index";
    let deep = format!("{{\"parameters\": {}", "[".repeat(10_000));
    for (path, body, status, words) in [
        (load, "[]", 400, "must be a JSON object"),
        (load, "{", 400, "is not understood"),
        (load, "{\"parameters\": []}", 400, "is not understood"),
        (load, "{\"parameters\": {\"config\": {}}}", 400, "parameter \"config\" must be a text"),
        (load, "{\"parameters\": {\"config\": \"\\ud800\"}}", 400, "parameter \"config\""),
        (
            load,
            "{\"parameters\": {\"file:1/x\": \"?\"}}",
            400,
            "parameter \"file:1/x\" is no base64",
        ),
        (
            load,
            "{\"parameters\": {\"config\": \"{}\", \"file:../1/x\": \"\"}}",
            400,
            "as in file:1/model.onnx",
        ),
        (load, &deep, 400, "is not understood"),
        (unload, "\"\"", 400, "must be a JSON object"),
        (unload, "{\"parameters\": {\"unload_dependents\": 1}}", 400, "must be true or false"),
        (unload, "{\"parameters\": {\"config\": \"{}\"}}", 400, "unexpected parameter \"config\""),
        (index, "[true]", 400, "must be a JSON object"),
        (index, "{\"ready\": \"yes\"}", 400, "is not understood"),
        ("/v2/repository/r/index", "", 501, "'repository_name' specification is not supported"),
        (
            "/v2/repository/r/models/m/load",
            "",
            501,
            "'repository_name' specification is not supported",
        ),
        ("/v2/repository/models/m", "", 404, "Not Found"),
        ("/v2/repository/models/..%2fm/load", "", 404, "failed to poll from model repository"),
    ] {
        for url in [running.url(path), running.admin(path)] {
            let (found, answered) = answer(running.client.post(url).body(body.to_owned())).await;
            assert_eq!(found, status, "{path} {body:.60}: {answered}");
            says(&answered, words);
        }
    }
    assert_eq!(running.get(index).await.0, 405);
    assert_eq!(running.post(load, "{\"parameters\": null, \"other\": 1}").await, loaded("m"));
    assert_eq!(running.post(load, " \n").await, loaded("m"));
    assert_eq!(predict(&running, "m").await, scaled());
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused_on_both_ports() {
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        explicit(&["m"])(settings);
        settings.max_body = Some(1000);
    })
    .await;
    let path = "/v2/repository/models/m/load";
    for url in [running.url(path), running.admin(path)] {
        let (status, body) = answer(running.client.post(url).body(" ".repeat(1001))).await;
        assert_eq!(status, 413);
        says(&body, "larger than the limit of 1000 bytes");
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

#[tokio::test]
async fn a_reload_that_fails_leaves_the_old_version_answering_every_request() {
    let running = Arc::new(serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (running, stop, answered) = (running.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(predict(&running, "m").await, scaled());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let graph = running.folder.path().join("m/1/model.onnx");
    let config = json!({"config": "{\"name\": \"m\"}"});
    let broken = base64(b"no graph");
    for round in 0..5 {
        std::fs::write(&graph, vec![b'x'; 10 + round]).unwrap();
        let with_file = json!({"config": "{}", "file:1/model.onnx": broken});
        for parameters in [json!({}), config.clone(), with_file] {
            let (status, body) = load(&running, "m", parameters).await;
            assert_eq!(status, 400, "{body}");
            says(
                &body,
                "load failed for model 'm': version 1 is at UNAVAILABLE state: graph cannot",
            );
        }
        let indexed = index(&running, "").await;
        assert_eq!(indexed[0]["state"], "READY");
        assert!(indexed[0]["reason"].as_str().unwrap().contains("was refused: graph"), "{indexed}");
        std::fs::write(&graph, graph_bytes("scale.onnx")).unwrap();
        assert_eq!(load(&running, "m", json!({})).await, loaded("m"));
        assert_eq!(index(&running, "").await[0]["reason"], Value::Null);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 100);
}

#[tokio::test]
async fn requests_in_flight_are_answered_after_an_unload() {
    let running = serve_with(&[("m", 1, "slow.onnx")], explicit(&["m"])).await;
    let body = json!({"instances": vec![[1, 2]; 20_000]}).to_string();
    let request = running.client.post(running.url("/v1/models/m:predict")).body(body);
    let asked = tokio::spawn(answer(request));
    // It has begun when its pieces run.
    wait_until("a run", async || {
        assert!(!asked.is_finished());
        running.count(BATCHES).await > 0.0
    })
    .await;
    assert_eq!(unload(&running, "m").await, unloaded("m"));
    assert_eq!(index(&running, "").await[0]["state"], "UNLOADING");
    assert_eq!(running.get("/v2/models/m/ready").await.0, 503, "no new request finds it");
    assert!(!asked.is_finished());
    let (status, body) = asked.await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(body["predictions"].as_array().unwrap().len(), 20_000);
    wait_until("the end of the unload", async || {
        index(&running, "").await[0]["reason"] == "unloaded"
    })
    .await;
}

#[tokio::test]
async fn a_load_may_bring_the_files_and_is_undone_by_the_next_one() {
    let models = [("m", 1, "scale.onnx"), ("m", 7, "scale.onnx")];
    let running = serve_with(&models, explicit(&["m"])).await;
    let center = graph_bytes("center.onnx");
    let given = json!({"config": "{}", "file:3/model.onnx": base64(&center)});
    assert_eq!(load(&running, "m", given.clone()).await, loaded("m"));
    assert_eq!(predict(&running, "m").await, centred());
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["3"]));
    // A configuration alone leaves the files where they are.
    let latest = r#"{"version_policy": {"latest": {"num_versions": 1}}}"#;
    assert_eq!(load(&running, "m", json!({"config": latest})).await, loaded("m"));
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["7"]));
    assert_eq!(predict(&running, "m").await, scaled());
    assert_eq!(load(&running, "m", json!({})).await, loaded("m"));
    assert_eq!(running.get("/v2/models/m").await.1["versions"], json!(["1", "7"]));

    // A model that the folder does not know, over gRPC.
    let mut client = connect(&running).await;
    let parameter = |choice| ModelRepositoryParameter { parameter_choice: Some(choice) };
    let request = RepositoryModelLoadRequest {
        model_name: "fresh".to_owned(),
        parameters: [
            ("config".to_owned(), parameter(ParameterChoice::StringParam("{}".to_owned()))),
            (
                "file:12/model.onnx".to_owned(),
                parameter(ParameterChoice::BytesParam(center.into())),
            ),
            ("file:labels.txt".to_owned(), parameter(ParameterChoice::BytesParam("a".into()))),
        ]
        .into(),
        ..Default::default()
    };
    client.repository_model_load(request).await.unwrap();
    assert_eq!(predict(&running, "fresh").await, centred());
    let (status, body) = load(&running, "fresh", json!({})).await;
    assert_eq!(status, 404, "its folder is asked for: {body}");
    assert_eq!(predict(&running, "fresh").await, centred(), "and it goes on");
    assert_eq!(unload(&running, "fresh").await, unloaded("fresh"));
}

/// What a policy names, or the newest version, must come; another one is refused for itself.
#[tokio::test]
async fn a_version_that_was_not_asked_for_does_not_fail_the_load() {
    let running = serve_with(&[("m", 2, "scale.onnx")], explicit(&[])).await;
    place(running.folder.path(), "m", 1, b"no graph");
    assert_eq!(load(&running, "m", json!({})).await, loaded("m"));
    assert_eq!(index(&running, "").await[0]["state"], "UNAVAILABLE");
    assert_eq!(predict(&running, "m").await, scaled());
    for (policy, expected) in [
        ("version_policy { all {} }", (400, "version 1 is at UNAVAILABLE state")),
        ("version_policy { specific { versions: [1, 2] } }", (400, "version 1 is at UNAVAILABLE")),
        ("version_policy { specific { versions: [8] } }", (400, "at least one version must be")),
        ("version_policy { latest { num_versions: 1 } }", (200, "")),
        ("version_policy { specific { versions: [2, 8] } }", (200, "")),
    ] {
        write(&running, "m/config.pbtxt", policy);
        let (status, body) = load(&running, "m", json!({})).await;
        assert_eq!(status, expected.0, "{policy}: {body}");
        if status == 400 {
            says(&body, expected.1);
        } else {
            assert_eq!(index(&running, "").await.as_array().unwrap().len(), 1, "{policy}");
        }
        assert_eq!(predict(&running, "m").await, scaled());
    }
}

#[tokio::test]
async fn config_pbtxt_is_followed_as_it_changes() {
    let running = serve(&[("m", 1, "scale.onnx"), ("m", 2, "center.onnx")]).await;
    let versions = async |expected: Value| {
        wait_until("the versions", async || {
            running.get("/v2/models/m").await.1["versions"] == expected
        })
        .await;
    };
    versions(json!(["1", "2"])).await;
    write(&running, "m/config.pbtxt", "name: 'm'\nversion_policy { latest { num_versions: 1 } }");
    versions(json!(["2"])).await;
    write(&running, "m/config.pbtxt", "name: 'm'\nversion_policy { specific { versions: 1 } }");
    versions(json!(["1"])).await;
    assert_eq!(predict(&running, "m").await, scaled());
    // A broken one changes nothing and says where.
    write(&running, "m/config.pbtxt", "name: 'm'\n\nversion_policy { nonsense }");
    wait_until("the refusal", async || {
        let indexed = index(&running, "").await;
        indexed[0]["reason"].as_str().is_some_and(|reason| reason.contains("config.pbtxt: line 3:"))
    })
    .await;
    assert_eq!(predict(&running, "m").await, scaled());
    write(&running, "m/config.pbtxt", "name: 'other'");
    wait_until("the other name", async || {
        let reason = index(&running, "").await[1]["reason"].to_string();
        reason.contains("config.pbtxt: name is \\\"other\\\"")
    })
    .await;
    std::fs::remove_file(running.folder.path().join("m/config.pbtxt")).unwrap();
    versions(json!(["1", "2"])).await;
    assert_eq!(predict(&running, "m").await, centred());
}

/// Loads wait for each other and not for nothing, and no serving core waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_in_progress_holds_up_no_request_and_is_given_up_at_the_end() {
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        explicit(&["m"])(settings);
        settings.cores = Some(1);
    })
    .await;
    // Many short runs, of half an hour together.
    place_long(running.folder.path(), "hanging", 1, 10_000, 200_000);
    let post = |path: &str| tokio::spawn(answer(running.client.post(running.url(path))));
    let hanging = post("/v2/repository/models/hanging/load");
    wait_for_loading(&running, "hanging").await;
    let loading = json!({"name": "hanging", "version": "1", "state": "LOADING"});
    assert_eq!(index(&running, "").await[0], loading);
    let (status, body) = running.get("/v2/models/hanging/versions/1/ready").await;
    assert_eq!(status, 503);
    says(&body, "'hanging' version 1 is not at ready state: it is being loaded");
    assert_eq!(running.get("/v2/models/hanging").await.0, 404);
    let (status, body) = running.get("/v1/models/hanging").await;
    let state = json!([{"version": "1", "state": "LOADING",
        "status": {"error_code": "OK", "error_message": ""}}]);
    assert_eq!((status, &body["model_version_status"]), (503, &state), "{body}");
    assert_eq!(predict(&running, "m").await, scaled());
    let drained = tokio::spawn(running.gateway.drain());
    let (status, body) = within("an answer", hanging).await.unwrap();
    assert_eq!(status, 503, "{body}");
    says(&body, "server is shutting down");
    within("the end", drained).await.unwrap();
}

#[tokio::test]
async fn calls_wait_for_their_turn_however_many_there_are() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    place_long(running.folder.path(), "long", 1, 5, 200_000);
    let url = running.url("/v2/repository/models/long/load");
    let long = tokio::spawn(answer(running.client.post(url)));
    wait_for_loading(&running, "long").await;
    let loads = (0..60).map(|_| load(&running, "m", json!({})));
    for answered in futures::future::join_all(loads).await {
        assert_eq!(answered, loaded("m"));
    }
    assert_eq!(long.await.unwrap(), loaded("long"));
}

/// How a model is run is its operator's to say, whatever it is that is run.
#[tokio::test]
async fn files_that_are_given_are_run_and_called_as_the_folder_says() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    write(&running, "m/deployment.toml", "format = 1\nexecutor = \"workers\"\n[labels]\nnew = 7\n");
    let parameters = json!({
        "config": r#"{"output": [{"name": "y", "label_filename": "sub/labels.txt"}]}"#,
        "file:7/model.onnx": base64(&graph_bytes("center.onnx")),
        "file:sub/labels.txt": base64(b"a\nb"),
    });
    assert_eq!(load(&running, "m", parameters).await, loaded("m"));
    assert_eq!(running.version("m", 7).await["executor"], "workers");
    assert_eq!(predict(&running, "m/labels/new").await, centred());
}

#[tokio::test]
async fn two_loads_of_the_same_at_once_are_one() {
    let flags =
        ["--model-control=explicit", "--serve-control=model-repository", "--load-model=first"];
    let process =
        Process::start(&[("first", 1, "scale.onnx"), ("m", 1, "scale.onnx")], &flags).await;
    let loads = (0..8).map(|_| load(&process, "m", json!({})));
    for answered in futures::future::join_all(loads).await {
        assert_eq!(answered, loaded("m"));
    }
    assert_eq!(predict(&process, "m").await, scaled());
    let log = process.end_without_an_error().await;
    let of_m = |entry: &&Value| {
        let fields = entry.to_string();
        fields.contains("loaded model version") && fields.contains("\"model\":\"m\"")
    };
    assert_eq!(log.iter().filter(of_m).count(), 1, "{log:?}");
}

/// Threads and memory come back, whatever the calls do.
#[tokio::test]
async fn loading_and_unloading_again_and_again_leaves_nothing_behind() {
    let flags = ["--model-control=explicit", "--serve-control=model-repository", "--load-model=m"];
    let process = Process::start(&[("m", 1, "slow.onnx")], &flags).await;
    let settings = "format = 1\nexecutor = \"workers\"\ninstances = 2\n";
    std::fs::write(process.folder.path().join("m/deployment.toml"), settings).unwrap();
    let cycles = async |times: usize| {
        for _ in 0..times {
            assert_eq!(unload(&process, "m").await, unloaded("m"));
            assert_eq!(predict(&process, "m").await, Value::Null);
            assert_eq!(load(&process, "m", json!({})).await, loaded("m"));
            assert_eq!(predict(&process, "m").await, scaled());
        }
        assert_eq!(unload(&process, "m").await, unloaded("m"));
        assert_eq!(unload(&process, "m").await, unloaded("m"), "there is nothing left to do");
        // What was taken out is freed once a second.
        let mut threads = process.status("Threads");
        wait_until("the workers' end", async || {
            let before = std::mem::replace(&mut threads, process.status("Threads"));
            tokio::time::sleep(Duration::from_millis(1500)).await;
            before == threads && threads == process.status("Threads")
        })
        .await;
        (threads, process.status("VmRSS"))
    };
    let (threads, kilobytes) = cycles(5).await;
    let (threads_after, kilobytes_after) = cycles(20).await;
    assert_eq!(threads_after, threads);
    assert!(kilobytes_after < kilobytes + 40_000, "{kilobytes} kB became {kilobytes_after} kB");
    assert_eq!(load(&process, "m", json!({})).await, loaded("m"));
    assert_eq!(predict(&process, "m").await, scaled());
    process.end_without_an_error().await;
}
