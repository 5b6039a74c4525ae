//! What a request asks of the queue by its parameters, over both protocols.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};

use crate::inference::connect;
use crate::support::{Running, answer, serve, serve_as};

const PATH: &str = "/v2/models/m/infer";
/// Seconds of work, where a round takes a microsecond or less.
const LONG: i64 = 3_000_000;

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
async fn serve_rounds() -> Running {
    let settings = "format = 1\nexecutor = \"workers\"\ninstances = 1\n";
    serve_as(&[("m", 1, "rounds.onnx")], settings, |settings| {
        settings.max_waiting = Some(Duration::from_secs(3600));
    })
    .await
}

#[tokio::test]
async fn a_timeout_while_it_waits_is_told_in_time_over_http_and_grpc() {
    let running = serve_rounds().await;
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
            assert!(text.contains(name) && text.contains("whole number"), "{refused}");
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
            assert!(refused.message().contains("whole number"), "{refused:?}");
        }
    }
}
