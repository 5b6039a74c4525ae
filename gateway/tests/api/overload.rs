//! What a full queue says, and what an incomplete batch waits for.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_gateway::OverloadStatus;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};

use crate::grpc_busy::{BATCHES, HOUR, rounds};
use crate::inference::connect;
use crate::support::{Process, Running, answer, serve_as, wait_until, within};

const PATH: &str = "/v1/models/m:predict";

fn rows(count: usize) -> String {
    json!({"instances": vec![[1, 2]; count]}).to_string()
}

fn predictions(count: usize) -> serde_json::Value {
    json!({"predictions": vec![[3.0, 5.0]; count]})
}

fn grpc_row() -> ModelInferRequest {
    let contents = InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() };
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 2],
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { model_name: "m".to_owned(), inputs: vec![input], ..Default::default() }
}

/// One worker, and next to nothing may wait.
async fn serve_with_no_patience(status: Option<OverloadStatus>) -> Running {
    serve_as(&[("m", 1, "slow.onnx")], "format = 1\ninstances = 1\n", |settings| {
        settings.max_waiting = Some(Duration::from_micros(1));
        settings.request_timeout = Some(HOUR);
        settings.dialect.overload_status = status;
    })
    .await
}

#[tokio::test]
async fn a_full_queue_refuses_over_http_and_grpc_and_recovers() {
    let exhausted = (429, tonic::Code::ResourceExhausted, "overloaded");
    refuses_and_recovers(None, exhausted).await;
}

#[tokio::test]
async fn a_full_queue_refuses_as_triton_does_where_that_is_chosen() {
    let unavailable = (503, tonic::Code::Unavailable, "unavailable");
    refuses_and_recovers(Some(OverloadStatus::Unavailable), unavailable).await;
}

/// Retries that come in spite of the refusals are welcome up to a part of what is answered.
#[tokio::test]
async fn who_is_refused_is_told_whether_to_try_again() {
    let running = serve_with_no_patience(None).await;
    let request = running.client.post(running.url(PATH)).body(rows(20_000));
    let large = tokio::spawn(answer(request));
    let mut client = connect(&running).await;
    let (mut welcome, mut unwelcome) = (0, 0);
    while unwelcome < 3 {
        let response = running.client.post(running.url(PATH)).body(rows(1)).send().await.unwrap();
        let headers = response.headers();
        match (response.status().as_u16(), headers.get("x-envoy-ratelimited")) {
            (200, _) => assert!(!large.is_finished()),
            (_, None) => {
                assert!(headers.contains_key("retry-after-ms"));
                welcome += 1;
            }
            (_, Some(_)) => {
                assert!(headers.contains_key("retry-after"));
                assert!(!headers.contains_key("retry-after-ms"));
                unwelcome += 1;
            }
        }
    }
    assert!(welcome >= 100, "{welcome}");
    let status = client.model_infer(grpc_row()).await.unwrap_err();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!(pushback == "-1" || pushback.parse::<u64>().unwrap() > 0);
    assert_eq!(large.await.unwrap().0, 200);
}

/// The bound of a model's own `deployment.toml` is in force instead of the gateway's.
#[tokio::test]
async fn a_model_may_have_a_bound_of_its_own() {
    let bound = "format = 1\ninstances = 1\nmax_waiting = \"1us\"\n";
    let running = serve_as(&[("m", 1, "slow.onnx")], bound, |settings| {
        settings.max_waiting = Some(HOUR);
        settings.request_timeout = Some(HOUR);
    })
    .await;
    let request = running.client.post(running.url(PATH)).body(rows(20_000));
    let large = tokio::spawn(answer(request));
    loop {
        let (status, _) = running.post(PATH, rows(1)).await;
        if status == 429 {
            break;
        }
        assert!(!large.is_finished());
    }
    assert_eq!(large.await.unwrap().0, 200);
}

async fn refuses_and_recovers(
    chosen: Option<OverloadStatus>,
    (http, grpc, code): (u16, tonic::Code, &str),
) {
    let running = serve_with_no_patience(chosen).await;
    let mut client = connect(&running).await;
    let request = running.client.post(running.url(PATH)).body(rows(20_000));
    let large = tokio::spawn(answer(request));
    let refused = loop {
        let response = running.client.post(running.url(PATH)).body(rows(1)).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        assert!(!large.is_finished());
    };
    // The large request has begun, and what comes now would wait behind it.
    let status = client.model_infer(grpc_row()).await.unwrap_err();
    assert_eq!(refused.status(), http);
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    let exact: u64 = refused.headers()["retry-after-ms"].to_str().unwrap().parse().unwrap();
    assert!(exact <= after * 1000, "{exact} ms in {after} s");
    // Nobody reads what is refused anyway.
    let unreadable = running.client.post(running.url(PATH)).body("{");
    assert_eq!(unreadable.send().await.unwrap().status(), http);
    let body: serde_json::Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert!(body["error"].as_str().unwrap().contains("model m is overloaded"), "{body}");
    assert_eq!(status.code(), grpc, "{status:?}");
    assert!(status.message().contains("model m is overloaded"), "{status:?}");
    assert_eq!(large.await.unwrap(), (200, predictions(20_000)));
    assert_eq!(running.post(PATH, rows(1)).await, (200, predictions(1)));
    let metrics = running.metrics().await;
    let counted = format!(r#"sluice_requests_total{{model="m",version="1",code="{code}"}} 3"#);
    assert!(metrics.contains(&counted), "{metrics}");
}

/// A worker answers a row while it has a request of many thousands under way.
#[tokio::test]
async fn a_row_does_not_wait_for_a_large_request() {
    let settings = "format = 1\ninstances = 1\n";
    let running = serve_as(&[("m", 1, "slow.onnx")], settings, |settings| {
        settings.request_timeout = Some(HOUR);
    })
    .await;
    let request = running.client.post(running.url(PATH)).body(rows(20_000));
    let large = tokio::spawn(answer(request));
    // Its first pieces have run.
    wait_until("a run", async || running.count(BATCHES).await > 0.0).await;
    assert_eq!(running.post(PATH, rows(1)).await, (200, predictions(1)));
    assert!(!large.is_finished(), "the row was answered between its pieces");
    assert_eq!(large.await.unwrap(), (200, predictions(20_000)));
}

#[tokio::test]
async fn an_incomplete_batch_waits_for_the_delay_that_was_asked_for() {
    let settings = "format = 1\ninstances = 1\nmax_batch_rows = 4\nmax_queue_delay = \"5s\"\n";
    let running = serve_as(&[("m", 1, "scale.onnx")], settings, |_| {}).await;
    let started = Instant::now();
    let (one, two) = tokio::join!(running.post(PATH, rows(1)), running.post(PATH, rows(2)));
    assert_eq!((one, two), ((200, predictions(1)), (200, predictions(2))));
    assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(running.count(BATCHES).await, 1.0);
    // A full one does not wait.
    let started = Instant::now();
    assert_eq!(running.post(PATH, rows(4)).await, (200, predictions(4)));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Where nothing else is to be done, a request of little time is not kept until that is up.
#[tokio::test]
async fn an_incomplete_batch_runs_in_the_time_of_its_requests() {
    let settings = "format = 1\ninstances = 1\nmax_batch_rows = 4\nmax_queue_delay = \"1h\"\n";
    let running = serve_as(&[("m", 1, "scale.onnx")], settings, |_| {}).await;
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let hasty = json!({"inputs": [input], "parameters": {"timeout": 4_000_000}}).to_string();
    let (hasty, other) =
        tokio::join!(running.post("/v2/models/m/infer", hasty), running.post(PATH, rows(1)));
    assert_eq!(hasty.0, 200, "{}", hasty.1);
    assert_eq!(other, (200, predictions(1)), "it ran with the other");
    assert_eq!(running.count(BATCHES).await, 1.0);
}

/// A request can make a run of this graph as long as it likes, though one round is cheap.
#[tokio::test]
async fn a_run_that_its_request_makes_long_holds_up_no_core() {
    let process = Process::start(&[("m", 1, "rounds.onnx")], &[]).await;
    let begun = process.cpu_time();
    let client = connect(&process).await;
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            // A quarter of an hour, where a round takes a microsecond.
            tokio::spawn(async move { client.model_infer(rounds(1 << 30)).await })
        })
        .collect();
    wait_until("the runs", async || process.cpu_time() > begun + Duration::from_secs(1)).await;
    // Each is a connection of its own, to one core or the other.
    for _ in 0..20 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let live = client.get(process.url("/v2/health/live")).send();
        assert_eq!(within("an answer", live).await.unwrap().status(), 200);
    }
    assert!(!busy.iter().any(tokio::task::JoinHandle::is_finished));
}
