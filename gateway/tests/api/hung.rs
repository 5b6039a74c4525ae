//! Graphs that do not end: what their callers, the next ones, and those of other models get.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::drain::place_long;
use crate::grpc_busy::HOUR;
use crate::support::{Running, serve_as, serve_with, wait_until, within};

const TERMINATED: &str = "sluice_terminated_runs_total{model=\"m\",version=\"1\"}";
const MODELS: [(&str, u64, &str); 2] = [("m", 1, "rounds.onnx"), ("s", 1, "scale.onnx")];
const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// Asks "m" to count so far; a round takes about a microsecond.
async fn count(running: &Running, rounds: i64) -> (u16, Value) {
    let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]});
    running.post("/v2/models/m/infer", json!({"inputs": [input]}).to_string()).await
}

/// A quarter of an hour, where nobody ends it.
async fn hang(running: &Running) -> (u16, Value) {
    within("the end of a run without one", count(running, 1 << 30)).await
}

fn check_ended((status, body): (u16, Value)) {
    assert_eq!(status, 504, "{body}");
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("m") && error.contains("max_run_time"), "{error}");
}

#[tokio::test]
async fn a_worker_is_free_again_after_the_bound() {
    let worker = "format = 1\ninstances = 1\nexecutor = \"workers\"\nmax_run_time = \"200ms\"\n";
    let running = serve_as(&MODELS, worker, |settings| settings.request_timeout = Some(HOUR)).await;
    for ended in 1..4 {
        let begun = Instant::now();
        check_ended(hang(&running).await);
        assert!(begun.elapsed() >= Duration::from_millis(200));
        let (status, body) = count(&running, 7).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([7])), "{body}");
        wait_until("the count", async || running.count(TERMINATED).await == f64::from(ended)).await;
    }
    assert_eq!(running.version("m", 1).await["executor"], "workers");
}

#[tokio::test]
async fn a_serving_core_is_free_again_and_the_model_leaves_it() {
    let tick = "format = 1\nexecutor = \"tick\"\nmax_run_time = \"200ms\"\n";
    let running = serve_as(&MODELS, tick, |settings| {
        settings.cores = Some(1);
        settings.request_timeout = Some(HOUR);
    })
    .await;
    assert_eq!(running.version("m", 1).await["executor"], "tick");
    let others = async {
        for _ in 0..20 {
            assert_eq!(count(&running, 5).await.0, 200);
            let (status, body) = running.post("/v1/models/s:predict", ASK).await;
            assert_eq!((status, body), (200, json!({"predictions": [[3.0, 5.0]]})));
        }
    };
    let (hung, ()) = tokio::join!(hang(&running), others);
    check_ended(hung);
    assert_eq!(running.version("m", 1).await["executor"], "workers");
    assert_eq!(running.version("s", 1).await["executor"], "tick");
    // From now on others do not wait even so long.
    let (hung, (status, _)) =
        tokio::join!(hang(&running), running.post("/v1/models/s:predict", ASK));
    check_ended(hung);
    assert_eq!(status, 200);
    assert_eq!(count(&running, 5).await.0, 200);
    wait_until("both counted", async || running.count(TERMINATED).await == 2.0).await;
}

#[tokio::test]
async fn who_waits_behind_it_is_answered_by_workers() {
    let tick = "format = 1\nexecutor = \"tick\"\nmax_run_time = \"200ms\"\n";
    let running = serve_as(&MODELS, tick, |settings| {
        settings.cores = Some(1);
        settings.request_timeout = Some(HOUR);
        settings.max_waiting = Some(HOUR);
    })
    .await;
    let behind = futures::future::join_all((0..8).map(|_| count(&running, 3)));
    let (hung, behind) = tokio::join!(hang(&running), behind);
    check_ended(hung);
    assert!(behind.iter().all(|(status, _)| *status == 200), "{behind:?}");
}

#[tokio::test]
async fn a_load_that_does_not_end_is_refused_and_the_next_one_goes_on() {
    let short = |settings: &mut sluice_gateway::Settings| {
        settings.request_timeout = Some(Duration::from_millis(300));
    };
    let running = serve_with(&[("s", 1, "scale.onnx")], short).await;
    place_long(running.folder.path(), "long", 1, 1, 1 << 30);
    let is_refused = async || {
        let version = running.version("long", 1).await;
        version["reason"].as_str().is_some_and(|reason| reason.contains("max_run_time"))
    };
    wait_until("the refusal", is_refused).await;
    crate::support::place(
        running.folder.path(),
        "t",
        1,
        &crate::support::graph_bytes("scale.onnx"),
    );
    wait_until("the next model", async || running.post("/v1/models/t:predict", ASK).await.0 == 200)
        .await;
}
