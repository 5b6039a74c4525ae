//! What a request asks of the queue by its parameters, over both protocols.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};
use tonic::Code;

use crate::grpc_busy::{LONG, busy, queued, rounds, serve_rounds_with};
use crate::inference::connect;
use crate::support::{Running, serve, serve_as, wait_until};

const PATH: &str = "/v2/models/m/infer";

fn body(rounds: i64, parameters: &Value) -> String {
    let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]});
    json!({"inputs": [input], "parameters": parameters}).to_string()
}

fn grpc_request(rounds: i64, name: &str, value: ParameterChoice) -> ModelInferRequest {
    let contents = InferTensorContents { int64_contents: vec![rounds], ..Default::default() };
    let input = InferInputTensor {
        name: "rounds".to_owned(),
        datatype: "INT64".to_owned(),
        shape: vec![1],
        contents: Some(contents),
        ..Default::default()
    };
    let value = InferParameter { parameter_choice: Some(value) };
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input],
        parameters: HashMap::from([(name.to_owned(), value)]),
        ..Default::default()
    }
}

/// One worker for a model that is configured in this way.
async fn serve_configured(config: &str) -> Running {
    serve_rounds_with(|settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), config).unwrap();
    })
    .await
}

/// Which request was answered what, in the order of the answers. All of them wait while a long run
/// keeps the worker busy.
async fn in_order<const N: usize>(
    running: &Running,
    name: &str,
    values: [u64; N],
) -> Vec<(usize, Code)> {
    let long = busy(running, rounds(LONG)).await;
    let client = connect(running).await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut requests = Vec::new();
    for (at, value) in values.into_iter().enumerate() {
        let (mut client, answered) = (client.clone(), answered.clone());
        let request = grpc_request(LONG / 400, name, ParameterChoice::Uint64Param(value));
        requests.push(tokio::spawn(async move {
            let code = client.model_infer(request).await.map_or_else(|s| s.code(), |_| Code::Ok);
            // They come on one connection, in the order in which they were given.
            answered.lock().unwrap().push((at, code));
        }));
        queued(running, u32::try_from(requests.len()).unwrap()).await;
    }
    assert!(!long.is_finished(), "the worker was busy all the while");
    for request in requests {
        request.await.unwrap();
    }
    assert!(long.await.unwrap().is_ok());
    Arc::into_inner(answered).unwrap().into_inner().unwrap()
}

fn all_ok<const N: usize>(order: [usize; N]) -> [(usize, Code); N] {
    order.map(|at| (at, Code::Ok))
}

#[tokio::test]
async fn what_has_a_higher_priority_is_answered_first() {
    let running =
        serve_configured("dynamic_batching { priority_levels: 3 default_priority_level: 2 }").await;
    // No priority, and one that is none, are the default.
    let answered = in_order(&running, "priority", [3, 0, 1, 7, 1]).await;
    assert_eq!(answered, all_ok([2, 4, 1, 3, 0]));
}

#[tokio::test]
async fn without_levels_all_are_answered_as_they_come() {
    let running = serve_configured("").await;
    assert_eq!(in_order(&running, "priority", [3, 2, 1]).await, all_ok([0, 1, 2]));
}

#[tokio::test]
async fn a_bounded_queue_refuses_over_http_and_grpc() {
    let running =
        serve_configured("dynamic_batching { default_queue_policy { max_queue_size: 1 } }").await;
    let long = busy(&running, rounds(LONG)).await;
    // Of these one may wait while the long one runs.
    let requests: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(running.client.post(running.url(PATH)).body(body(1, &json!({}))).send())
        })
        .collect();
    let are_refused = async || requests.iter().filter(|request| request.is_finished()).count() == 3;
    wait_until("three refusals", are_refused).await;
    let request = grpc_request(1, "priority", ParameterChoice::Uint64Param(0));
    let status = connect(&running).await.model_infer(request).await.unwrap_err();
    assert!(!long.is_finished(), "the worker was busy all the while");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("Exceeds maximum queue size"), "{status:?}");
    let mut refusals = 0;
    for request in requests {
        let answered = request.await.unwrap().unwrap();
        if answered.status() == 200 {
            continue;
        }
        refusals += 1;
        assert_eq!(answered.status(), 503);
        assert_eq!(answered.headers()["retry-after"], "1");
        let body: Value = serde_json::from_slice(&answered.bytes().await.unwrap()).unwrap();
        assert_eq!(body["error"].as_str(), Some(status.message()));
    }
    assert_eq!(refusals, 3);
    assert!(long.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_policy_bounds_the_time_and_may_forbid_another() {
    let policy = "default_timeout_microseconds: 20000";
    for (allowed, own) in [(false, 0), (false, 60_000_000), (true, 1000)] {
        let running = serve_configured(&format!(
            "dynamic_batching {{ default_queue_policy {{ {policy} allow_timeout_override: {allowed} }} }}"
        ))
        .await;
        assert_eq!(in_order(&running, "timeout", [own]).await, [(0, Code::Unavailable)], "{own}");
    }
    // A policy that is written down and does not let requests choose.
    let running =
        serve_configured("dynamic_batching { default_queue_policy { max_queue_size: 9 } }").await;
    assert_eq!(in_order(&running, "timeout", [1000]).await, all_ok([0]));
}

#[tokio::test]
async fn what_is_to_be_delayed_goes_behind_the_others() {
    let policy =
        "timeout_action: DELAY default_timeout_microseconds: 60000000 allow_timeout_override: true";
    let running =
        serve_configured(&format!("dynamic_batching {{ default_queue_policy {{ {policy} }} }}"))
            .await;
    assert_eq!(in_order(&running, "timeout", [1000, 0, 0]).await, all_ok([1, 2, 0]));
}

#[tokio::test]
async fn a_timeout_while_it_waits_is_told_in_time_over_http_and_grpc() {
    let running = serve_configured("").await;
    let mut client = connect(&running).await;
    let own = grpc_request(LONG, "timeout", ParameterChoice::Uint64Param(1_000_000));
    let long = busy(&running, own).await;
    let begun = Instant::now();
    let (status, refused) = running.post(PATH, body(1, &json!({"timeout": 20_000}))).await;
    let of_grpc = grpc_request(1, "timeout", ParameterChoice::Int64Param(20_000));
    let of_grpc = client.model_infer(of_grpc).await.unwrap_err();
    let unsigned = grpc_request(1, "timeout", ParameterChoice::Uint64Param(20_000));
    let unsigned = client.model_infer(unsigned).await.unwrap_err();
    let took = begun.elapsed();
    assert!(!long.is_finished(), "the worker was busy all the while");
    assert!(took >= Duration::from_millis(60), "{took:?}");
    assert_eq!(status, 503, "{refused}");
    let text = refused["error"].as_str().unwrap();
    assert!(text.starts_with("Request timeout expired"), "{refused}");
    for status in [of_grpc, unsigned] {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().starts_with("Request timeout expired"), "{status:?}");
    }
    // Its own run had begun in time.
    assert!(long.await.unwrap().is_ok());
    assert_eq!(running.post(PATH, body(1, &json!({"timeout": 20_000_000}))).await.0, 200);
    let (_, statistics) = running.get("/v2/models/m/stats").await;
    assert_eq!(statistics["model_stats"][0]["execution_count"], 2, "{statistics}");
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["fail"]["count"], 3);
}

/// On a core there is no other request to wait behind: the bound is kept all the same.
#[tokio::test]
async fn priorities_and_timeouts_change_no_answer_and_are_not_echoed() {
    let tick = "format = 1\nexecutor = \"tick\"\n";
    let running = serve_as(&[("m", 1, "rounds.onnx")], tick, |_| {}).await;
    for parameters in [json!({"priority": 1, "timeout": 5_000_000}), json!({"priority": 0})] {
        let (status, answered) = running.post(PATH, body(7, &parameters)).await;
        let output = json!({"name": "y", "datatype": "INT64", "shape": [1], "data": [7]});
        let expected = json!({"model_name": "m", "model_version": "1", "outputs": [output]});
        assert_eq!((status, answered), (200, expected));
    }
    let mut client = connect(&running).await;
    let request = grpc_request(7, "priority", ParameterChoice::Uint64Param(3));
    let answered = client.model_infer(request).await.unwrap().into_inner();
    assert!(answered.parameters.is_empty(), "{answered:?}");
}

#[tokio::test]
async fn parameters_of_other_types_are_refused() {
    let running = serve(&[("m", 1, "rounds.onnx")]).await;
    for name in ["priority", "timeout"] {
        for value in [json!(-1), json!(1.5), json!(true), json!("1")] {
            let (status, refused) = running.post(PATH, body(1, &json!({name: value}))).await;
            assert_eq!(status, 400, "{name} {value}: {refused}");
            let text = refused["error"].as_str().unwrap();
            assert!(text.contains(&format!("parameter {name:?} must be")), "{refused}");
        }
        let mut client = connect(&running).await;
        for value in [
            ParameterChoice::Int64Param(-1),
            ParameterChoice::BoolParam(true),
            ParameterChoice::StringParam("1".to_owned()),
            ParameterChoice::DoubleParam(1.0),
        ] {
            let refused = client.model_infer(grpc_request(1, name, value)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
            assert!(
                refused.message().contains(&format!("parameter {name:?} must be")),
                "{refused:?}"
            );
        }
    }
}
