//! What a request asks of the queue by its parameters, over both protocols.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_gateway::MetricNames;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};

use crate::inference::connect;
use crate::support::{Running, answer, serve, serve_as, value, wait_until};

const PATH: &str = "/v2/models/m/infer";
/// Seconds of work, where a round takes a microsecond or less.
const LONG: i64 = 2_000_000;

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

/// One worker, and a run that takes as long as its request says.
async fn serve_rounds(config: &str) -> Running {
    let settings = "format = 1\nexecutor = \"workers\"\ninstances = 1\n";
    serve_as(&[("m", 1, "rounds.onnx")], settings, |settings| {
        settings.max_waiting = Some(Duration::from_secs(3600));
        settings.metric_names = Some(vec![MetricNames::Triton]);
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), config).unwrap();
    })
    .await
}

/// Sends a request, and says when it was answered with what.
fn ask(
    running: &Running,
    rounds: i64,
    parameters: &Value,
) -> tokio::task::JoinHandle<(Instant, u16, Value)> {
    let request = running.client.post(running.url(PATH)).body(body(rounds, parameters));
    tokio::spawn(async move {
        let (status, answered) = answer(request).await;
        (Instant::now(), status, answered)
    })
}

/// Waits until so many requests wait for the worker.
async fn queued(running: &Running, requests: usize) {
    let series = "nv_inference_pending_request_count{model=\"m\",version=\"1\"}";
    let expected = Some(requests as f64);
    let are_queued = async || value(&running.metrics().await, series) == expected;
    wait_until(&format!("{requests} to wait"), are_queued).await;
}

/// A run that keeps the worker busy, and nothing else yet.
async fn keep_busy(running: &Running) -> tokio::task::JoinHandle<(Instant, u16, Value)> {
    let long = ask(running, LONG, &json!({}));
    tokio::time::sleep(Duration::from_millis(200)).await;
    queued(running, 0).await;
    long
}

/// What comes first is first answered, while a long run keeps the worker busy meanwhile.
async fn in_order<const N: usize>(
    running: &Running,
    parameters: [Value; N],
) -> Vec<(usize, u16, Value)> {
    let long = keep_busy(running).await;
    let mut requests = Vec::new();
    for parameters in &parameters {
        requests.push(ask(running, LONG / 40, parameters));
        queued(running, requests.len()).await;
    }
    assert!(!long.is_finished(), "the worker was busy all the while");
    let mut answered = Vec::new();
    for (at, request) in requests.into_iter().enumerate() {
        let (when, status, body) = request.await.unwrap();
        answered.push((when, at, status, body));
    }
    assert_eq!(long.await.unwrap().1, 200);
    answered.sort_by_key(|(when, ..)| *when);
    answered.into_iter().map(|(_, at, status, body)| (at, status, body)).collect()
}

#[tokio::test]
async fn what_has_a_higher_priority_is_answered_first() {
    let running =
        serve_rounds("dynamic_batching { priority_levels: 3 default_priority_level: 2 }").await;
    // No priority, and one that is none, are the default.
    let priorities = [json!(3), json!(0), json!(1), json!(7), json!(1)];
    let parameters = priorities.map(|priority| json!({"priority": priority}));
    let answered = in_order(&running, parameters).await;
    assert!(answered.iter().all(|(_, status, _)| *status == 200), "{answered:?}");
    let order: Vec<_> = answered.iter().map(|(at, ..)| *at).collect();
    assert_eq!(order, [2, 4, 1, 3, 0]);
}

#[tokio::test]
async fn without_levels_all_are_answered_as_they_come() {
    let running = serve_rounds("").await;
    let parameters = [json!(3), json!(2), json!(1)].map(|priority| json!({"priority": priority}));
    let order: Vec<_> = in_order(&running, parameters).await.iter().map(|(at, ..)| *at).collect();
    assert_eq!(order, [0, 1, 2]);
}

#[tokio::test]
async fn a_bounded_queue_refuses_over_http_and_grpc() {
    let running =
        serve_rounds("dynamic_batching { default_queue_policy { max_queue_size: 1 } }").await;
    let long = keep_busy(&running).await;
    // Of these one may wait while the long one runs.
    let requests: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(running.client.post(running.url(PATH)).body(body(1, &json!({}))).send())
        })
        .collect();
    let request = grpc_request(1, "priority", ParameterChoice::Uint64Param(0));
    queued(&running, 1).await;
    let status = connect(&running).await.model_infer(request).await.unwrap_err();
    assert!(!long.is_finished(), "the worker was busy all the while");
    assert_eq!(status.code(), tonic::Code::Unavailable);
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
    assert_eq!(long.await.unwrap().1, 200);
}

#[tokio::test]
async fn a_policy_bounds_the_time_and_may_forbid_another() {
    let policy = "default_timeout_microseconds: 20000";
    for (allowed, own, expires) in [(false, 0, true), (false, 60_000_000, true), (true, 1000, true)]
    {
        let running = serve_rounds(&format!(
            "dynamic_batching {{ default_queue_policy {{ {policy} allow_timeout_override: {allowed} }} }}"
        ))
        .await;
        let answered = in_order(&running, [json!({"timeout": own})]).await;
        let (_, status, body) = &answered[0];
        assert_eq!(*status == 503, expires, "{body}");
    }
    // A policy that is written down and does not let requests choose.
    let running =
        serve_rounds("dynamic_batching { default_queue_policy { max_queue_size: 9 } }").await;
    assert_eq!(in_order(&running, [json!({"timeout": 1000})]).await[0].1, 200);
}

#[tokio::test]
async fn what_is_to_be_delayed_goes_behind_the_others() {
    let policy =
        "timeout_action: DELAY default_timeout_microseconds: 60000000 allow_timeout_override: true";
    let running =
        serve_rounds(&format!("dynamic_batching {{ default_queue_policy {{ {policy} }} }}")).await;
    let parameters = [1000, 0, 0].map(|timeout| json!({"timeout": timeout}));
    let answered = in_order(&running, parameters).await;
    assert!(answered.iter().all(|(_, status, _)| *status == 200), "{answered:?}");
    let order: Vec<_> = answered.iter().map(|(at, ..)| *at).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[tokio::test]
async fn a_timeout_while_it_waits_is_told_in_time_over_http_and_grpc() {
    let running = serve_rounds("").await;
    let mut client = connect(&running).await;
    let long = running.client.post(running.url(PATH)).body(body(LONG, &json!({"timeout": 50_000})));
    let long = tokio::spawn(answer(long));
    tokio::time::sleep(Duration::from_millis(100)).await;
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
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().starts_with("Request timeout expired"), "{status:?}");
    }
    // Its own run had begun in time.
    assert_eq!(long.await.unwrap().0, 200);
    assert_eq!(running.post(PATH, body(1, &json!({"timeout": 20_000_000}))).await.0, 200);
    let (_, statistics) = running.get("/v2/models/m/stats").await;
    assert_eq!(statistics["model_stats"][0]["execution_count"], 2, "{statistics}");
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["fail"]["count"], 3);
}

/// On a core there is no other request to wait behind: the bound is kept all the same.
#[tokio::test]
async fn priorities_and_timeouts_change_no_answer_and_are_not_echoed() {
    let running = serve(&[("m", 1, "rounds.onnx")]).await;
    assert_eq!(running.version("m", 1).await["executor"], "tick");
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
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
            assert!(
                refused.message().contains(&format!("parameter {name:?} must be")),
                "{refused:?}"
            );
        }
    }
}
