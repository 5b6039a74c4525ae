//! Calls of the model repository that cannot be followed: what is said, and that nothing changes.

use base64::Engine;
use serde_json::{Value, json};
use sluice_protocol::grpc::model_repository_parameter::ParameterChoice;
use sluice_protocol::grpc::{
    ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use tonic::Code;

use crate::repository::{connect, explicit, load, loaded, predict, says, scaled, unload};
use crate::support::{answer, serve_with};

/// A load's parameter over gRPC, as clients send what they would send so in JSON.
fn parameter(name: &str, value: &Value) -> ModelRepositoryParameter {
    let choice = match value {
        Value::Bool(value) => ParameterChoice::BoolParam(*value),
        Value::String(text) if name.starts_with("file:") => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            ParameterChoice::BytesParam(bytes.into())
        }
        Value::String(text) => ParameterChoice::StringParam(text.clone()),
        number => ParameterChoice::Int64Param(number.as_i64().unwrap()),
    };
    ModelRepositoryParameter { parameter_choice: Some(choice) }
}

/// The same mistake over both protocols: status, code and words.
#[tokio::test]
async fn mistakes_of_loads_are_told_in_the_words_that_clients_look_for() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    std::fs::create_dir(running.folder.path().join("empty")).unwrap();
    let mut client = connect(&running).await;
    let other_name = "{\"name\": \"x\"}";
    let nothing = "failed to load 'other', failed to poll from model repository: ";
    let unread = "failed to load 'm', failed to poll from model repository";
    let misnamed = "name is \"x\", but the model is called \"m\"";
    let graph = "file:1/model.onnx";
    for (model, given, status, words) in [
        ("other", None, 404, nothing),
        (".m", None, 404, "must not start with '.'"),
        ("empty", None, 400, "at least one version must be available"),
        ("m", Some(("config", json!(5))), 400, "parameter \"config\": must be a text"),
        ("m", Some(("config", json!("{"))), 400, "parameter \"config\": "),
        ("m", Some(("config", json!(other_name))), 400, misnamed),
        ("m", Some(("configs", json!("{}"))), 400, "unexpected parameter \"configs\""),
        ("m", Some(("unload_dependents", json!(true))), 400, "unexpected parameter \"unload_dep"),
        ("m", Some((graph, json!("AAAA"))), 400, unread),
        ("m", Some((graph, json!(true))), 400, "must hold the file's bytes"),
    ] {
        let parameters = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let parameters: serde_json::Map<_, _> = parameters.collect();
        let (found, body) = load(&running, model, json!(parameters)).await;
        assert_eq!(found, status, "{model} {given:?}: {body}");
        says(&body, words);
        let parameters =
            parameters.iter().map(|(name, value)| (name.clone(), parameter(name, value)));
        let request = RepositoryModelLoadRequest {
            model_name: model.to_owned(),
            parameters: parameters.collect(),
            ..Default::default()
        };
        let refused = client.repository_model_load(request).await.unwrap_err();
        let code = if status == 404 { Code::NotFound } else { Code::InvalidArgument };
        assert_eq!(refused.code(), code, "{model} {given:?}: {refused:?}");
        assert!(refused.message().contains(words), "{words:?}: {refused:?}");
    }
    assert_eq!(predict(&running, "m").await, scaled());
}

#[tokio::test]
async fn an_unload_of_what_is_unknown_and_a_load_without_a_name_are_refused() {
    let running = serve_with(&[("m", 1, "scale.onnx")], explicit(&["m"])).await;
    let mut client = connect(&running).await;
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
