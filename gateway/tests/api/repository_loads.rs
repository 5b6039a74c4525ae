//! Loads and unloads beside requests and each other: nothing is lost, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::drain::{place_long, wait_for_loading};
use crate::grpc_busy::BATCHES;
use crate::repository::{
    base64, explicit, index, load, loaded, predict, says, scaled, unload, unloaded,
};
use crate::support::{Process, answer, graph_bytes, serve_with, wait_until, within};

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
