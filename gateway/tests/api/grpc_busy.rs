//! A worker that is busy: what waits for it over gRPC, and what happens to that.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use serde_json::json;
use sluice_gateway::{MetricNames, OverloadStatus, Settings};
use sluice_protocol::grpc::{ModelInferRequest, ModelInferResponse, ServerLiveRequest};
use tonic::Code;

use crate::grpc_v2::{input, ones};
use crate::inference::connect;
use crate::raw_call::{INFER, RawCaller, framed};
use crate::support::{Running, answer, serve_as, value, wait_until};

/// One worker of a costly graph.
const ONE_WORKER: &str = "format = 1\ninstances = 1\n";

/// Gives the only worker much to do, and waits until it has begun.
async fn occupy(running: &Running) -> tokio::task::JoinHandle<(u16, serde_json::Value)> {
    let rows = json!({"instances": vec![[1, 2]; 20_000]}).to_string();
    let asked = running.client.post(running.url("/v1/models/m:predict")).body(rows);
    let large = tokio::spawn(answer(asked));
    wait_until("the first run", async || running.count(BATCHES).await > 0.0).await;
    large
}

/// Runs of model "m".
pub(crate) const BATCHES: &str = "sluice_batches_total{model=\"m\",version=\"1\"}";

/// C4, and when to come again.
#[tokio::test]
async fn overload_has_the_status_of_the_dialect() {
    for (choice, code) in
        [(None, Code::ResourceExhausted), (Some(OverloadStatus::Unavailable), Code::Unavailable)]
    {
        let running = serve_as(&[("m", 1, "slow.onnx")], ONE_WORKER, |settings| {
            settings.max_waiting = Some(Duration::from_micros(1));
            settings.request_timeout = Some(HOUR);
            settings.dialect.overload_status = choice;
        })
        .await;
        let large = occupy(&running).await;
        let status = connect(&running).await.model_infer(ones("m", 1)).await.unwrap_err();
        assert!(!large.is_finished());
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains("model m is overloaded"), "{status:?}");
        let after = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert!(after.to_str().unwrap().parse::<u64>().unwrap() >= 1);
        large.abort();
    }
}

/// A question to a graph that counts: about so many microseconds.
pub(crate) fn rounds(rounds: i64) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input("rounds", "INT64", &[1])],
        raw_input_contents: vec![Bytes::copy_from_slice(&rounds.to_le_bytes())],
        ..Default::default()
    }
}

/// What no test takes, for bounds that are not what a test is about.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// One worker for a graph whose cost its input says.
pub(crate) async fn serve_rounds() -> Running {
    serve_rounds_with(|_| {}).await
}

/// The same, with other settings.
pub(crate) async fn serve_rounds_with(adjust: impl FnOnce(&mut Settings)) -> Running {
    let worker = "format = 1\ninstances = 1\nexecutor = \"workers\"\n";
    serve_as(&[("m", 1, "rounds.onnx")], worker, |settings| {
        settings.max_waiting = Some(HOUR);
        settings.request_timeout = Some(HOUR);
        settings.metric_names = Some(vec![MetricNames::Sluice, MetricNames::Triton]);
        adjust(settings);
    })
    .await
}

/// Seconds of work on a slow machine and half of one on a fast one.
pub(crate) const LONG: i64 = 3_000_000;

/// Waits until so many requests wait for the worker of `serve_rounds`.
pub(crate) async fn queued(running: &Running, requests: u32) {
    let series = "nv_inference_pending_request_count{model=\"m\",version=\"1\"}";
    let are_queued = async || value(&running.metrics().await, series) == Some(f64::from(requests));
    wait_until(&format!("{requests} to wait"), are_queued).await;
}

type Answered = Result<tonic::Response<ModelInferResponse>, tonic::Status>;

/// A run that keeps the worker of `serve_rounds` busy: `question`'s, which has begun and is the
/// only one.
pub(crate) async fn busy(
    running: &Running,
    question: ModelInferRequest,
) -> tokio::task::JoinHandle<Answered> {
    let mut client = connect(running).await;
    let mut next = client.clone();
    let long = tokio::spawn(async move { client.model_infer(question).await });
    // It goes out first, and what comes on one connection is taken in in its order: with the
    // answer to the next call it waits for the worker, if it does not run yet.
    tokio::task::yield_now().await;
    next.server_live(ServerLiveRequest {}).await.unwrap();
    queued(running, 0).await;
    long
}

/// What waits is dropped before it costs a run: when its caller leaves, and at its deadline.
#[tokio::test]
async fn nobody_s_question_never_runs() {
    let running = serve_rounds().await;
    let mut client = connect(&running).await;
    let long = busy(&running, rounds(LONG)).await;
    let mut raw = RawCaller::connect(&running).await;
    let leaves: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.model_infer(rounds(1)).await })
        })
        .collect();
    let begun = Instant::now();
    let late = framed(&rounds(1).encode_to_vec());
    let late = raw.call(INFER, &[("grpc-timeout", "150m")], late).await;
    assert_eq!(late.code, Code::DeadlineExceeded, "{late:?}");
    assert!(late.message.contains("deadline of 150ms exceeded"), "{late:?}");
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    // Nobody looks at the late one before the worker is free.
    queued(&running, 21).await;
    leaves.iter().for_each(tokio::task::JoinHandle::abort);
    // The late one's time is kept by its call and by its request: either may end it.
    let left = async || {
        let [cancelled, late] = ["cancelled", "deadline_exceeded"].map(|code| {
            format!("sluice_requests_total{{model=\"m\",version=\"1\",code=\"{code}\"}}")
        });
        running.count(&cancelled).await + running.count(&late).await
    };
    wait_until("everybody has left", async || left().await == 21.0).await;
    assert!(!long.is_finished());
    assert!(long.await.unwrap().is_ok());
    assert!(client.model_infer(rounds(1)).await.is_ok());
    let run = running.count(BATCHES).await;
    assert_eq!(run, 2.0, "the long one and the last one");
}
