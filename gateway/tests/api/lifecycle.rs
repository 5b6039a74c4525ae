//! Versions come, go and are refused while requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::drain::place_long;
use crate::grpc_busy::BATCHES;
use crate::support::{Running, graph_bytes, place, serve, start, value, wait_until, within};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// Waits until `/v2/models/m` lists these versions.
async fn wait_for_versions(running: &Running, versions: &[&str]) {
    let are_there = async || running.get("/v2/models/m").await.1["versions"] == json!(versions);
    wait_until(&format!("versions {versions:?}"), are_there).await;
}

/// Waits until a version is refused for a reason that says this.
async fn wait_for_refusal(running: &Running, model: &str, version: u64, says: &str) {
    let is_refused = async || {
        let version = running.version(model, version).await;
        version["state"] == "refused"
            && version["reason"].as_str().is_some_and(|reason| reason.contains(says))
    };
    wait_until(&format!("{model} {version}: {says}"), is_refused).await;
}

/// Takes a version of "m" out of the folder, and waits until nothing tells of it.
async fn remove(running: &Running, version: u64) {
    std::fs::remove_dir_all(running.folder.path().join(format!("m/{version}"))).unwrap();
    let is_gone = async || running.version("m", version).await.is_null();
    wait_until(&format!("the end of version {version}"), is_gone).await;
}

#[tokio::test]
async fn a_new_version_is_swapped_in_under_load_without_a_failure() {
    let running = Arc::new(serve(&[("m", 1, "scale.onnx")]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (running, stop, answered) = (running.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = running.post("/v1/models/m:predict", ASK).await;
                    assert_eq!((status, body), (200, json!({"predictions": [[3.0, 5.0]]})));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for version in 2..6 {
        place(running.folder.path(), "m", version, &graph_bytes("scale.onnx"));
        std::fs::remove_dir_all(running.folder.path().join(format!("m/{}", version - 1))).unwrap();
        wait_for_versions(&running, &[&version.to_string()]).await;
    }
    wait_until("many answers", async || answered.load(Ordering::Relaxed) > 100).await;
    stop.store(true, Ordering::Relaxed);
    for requests in load {
        requests.await.unwrap();
    }
}

#[tokio::test]
async fn a_corrupt_version_is_refused_and_the_old_one_goes_on() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    let mut graph = graph_bytes("scale.onnx");
    graph.truncate(60);
    for (version, bytes) in [(2, &graph[..]), (3, b""), (4, b"not a graph")] {
        place(running.folder.path(), "m", version, bytes);
        wait_for_refusal(&running, "m", version, "graph cannot be opened").await;
        assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
        assert_eq!(running.get("/v2/health/ready").await.0, 200);
        remove(&running, version).await;
    }
}

#[tokio::test]
async fn a_manifest_that_disagrees_with_the_graph_is_refused() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    let digest = sluice_protocol::Digest::of(&graph_bytes("scale.onnx"));
    let other = sluice_protocol::Digest::of(b"other");
    let manifest = |model: &str, shape: &str, digest: &sluice_protocol::Digest| {
        format!(
            "format = 1\nmodel = \"{model}\"\n\
             inputs = [{{ name = \"x\", datatype = \"FP32\", shape = [-1, 2] }}]\n\
             outputs = [{{ name = \"y\", datatype = \"FP32\", shape = {shape} }}]\n\
             [files]\n\"model.onnx\" = \"{digest}\"\n"
        )
    };
    for (version, text, says) in [
        (2, manifest("m", "[-1, 3]", &digest), "the graph has y FP32 [-1, 2]"),
        (3, manifest("other", "[-1, 2]", &digest), "of model other"),
        (4, manifest("m", "[-1, 2]", &other), "the manifest says"),
        (5, "format = 9".to_owned(), "newer"),
        (6, "nonsense".to_owned(), "manifest.toml cannot be read"),
    ] {
        let folder = running.folder.path().join(format!("m/{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("manifest.toml"), text).unwrap();
        std::fs::write(folder.join("model.onnx"), graph_bytes("scale.onnx")).unwrap();
        // The folder may be seen before it is whole.
        wait_for_refusal(&running, "m", version, says).await;
        assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
        remove(&running, version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_not_ready_before_its_models_are() {
    let aside = tempfile::tempdir().unwrap();
    place_long(aside.path(), "m", 1, 20, 200_000);
    let running = start(aside, |_| {}).await;
    assert_eq!(running.get("/v2/health/live").await, (200, json!({"live": true})));
    let not_ready = (503, json!({"ready": false, "live": true}));
    assert_eq!(running.get("/v2/health/ready").await, not_ready);
    within("the start", running.gateway.ready()).await;
    assert_eq!(running.get("/v2/health/ready").await.0, 200);
    assert_eq!(running.post("/v1/models/m:predict", r#"{"inputs": [1]}"#).await.0, 200);
}

#[tokio::test]
async fn draining_finishes_what_runs_and_says_not_ready() {
    let running = serve(&[("m", 1, "slow.onnx")]).await;
    let body = json!({"instances": vec![[1, 2]; 2000]}).to_string();
    let request = running.client.post(running.url("/v1/models/m:predict")).body(body);
    let answer = tokio::spawn(crate::support::answer(request));
    wait_until("a run", async || running.count(BATCHES).await > 0.0).await;
    let drained =
        running.client.post(running.admin("/drain")).send().await.unwrap().status().as_u16();
    assert_eq!(drained, 204);
    assert_eq!(running.get("/v2/health/ready").await.0, 503);
    let address = running.gateway.addresses().http;
    running.gateway.drain().await;
    let (status, body) = answer.await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["predictions"].as_array().unwrap().len(), 2000);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_graph_that_mixes_its_rows_never_gets_those_of_two_callers() {
    let running = Arc::new(serve(&[("m", 1, "center.onnx"), ("keep", 1, "keep.onnx")]).await);
    let load: Vec<_> = (0..16)
        .map(|caller| {
            let running = running.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let row = [caller, caller * round];
                    let body = json!({"instances": [row]}).to_string();
                    let answer = running.post("/v1/models/m:predict", body).await;
                    assert_eq!(answer, (200, json!({"predictions": [[0.0, 0.0]]})));
                    let data = [caller - 8, round];
                    let input =
                        json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": data});
                    let body = json!({"inputs": [input]}).to_string();
                    let (status, body) = running.post("/v2/models/keep/infer", body).await;
                    assert_eq!(status, 200, "{body}");
                    let kept = usize::from(caller > 8);
                    assert_eq!(body["outputs"][0]["shape"], json!([kept, 2]));
                }
            })
        })
        .collect();
    for caller in load {
        caller.await.unwrap();
    }
    // A caller's own rows still go together, as many as there are.
    let (status, body) =
        running.post("/v1/models/m:predict", r#"{"instances": [[1, 2], [3, 6]]}"#).await;
    assert_eq!((status, body), (200, json!({"predictions": [[-1.0, -2.0], [1.0, 2.0]]})));
}

/// Rows that touch each other by less than an output's largest value are found too.
#[tokio::test]
async fn a_graph_whose_loud_outputs_drown_the_mixed_ones_runs_each_request_alone() {
    let running = Arc::new(serve(&[("loud", 1, "loud.onnx"), ("burst", 1, "burst.onnx")]).await);
    let load: Vec<_> = (0..16_u32)
        .map(|caller| {
            let running = running.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let row = [caller, round].map(|value| -2e5 - f64::from(value));
                    let body = json!({"instances": [row]}).to_string();
                    for model in ["loud", "burst"] {
                        let path = format!("/v1/models/{model}:predict");
                        let (status, body) = running.post(&path, body.clone()).await;
                        assert_eq!(status, 200, "{body}");
                        let values = body["predictions"][0].as_array().unwrap();
                        let quiet = &values[values.len() - 2..];
                        assert_eq!(quiet, [json!(0.5), json!(0.5)], "{model}: {row:?}");
                    }
                }
            })
        })
        .collect();
    for caller in load {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_graph_that_would_eat_the_memory_is_refused() {
    let running =
        serve(&[("m", 1, "scale.onnx"), ("vast", 1, "vast.onnx"), ("endless", 1, "endless.onnx")])
            .await;
    for model in ["vast", "endless"] {
        wait_for_refusal(&running, model, 1, "one row of the inputs is more than").await;
    }
    assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    place(running.folder.path(), "m", 2, &graph_bytes("scale.onnx"));
    wait_for_versions(&running, &["1", "2"]).await;
}

#[tokio::test]
async fn a_graph_that_no_trial_row_fits_is_served_all_the_same() {
    let running = serve(&[("m", 1, "patch.onnx")]).await;
    let (mut input, patch) = (json!({"name": "x", "datatype": "FP32"}), vec![1; 16]);
    for (shape, data, expected) in [([1, 1, 4, 4], patch, 200), ([1, 1, 2, 2], vec![1; 4], 400)] {
        input["shape"] = json!(shape);
        input["data"] = json!(data);
        let asked = json!({"inputs": [input]}).to_string();
        let (status, body) = running.post("/v2/models/m/infer", asked).await;
        assert_eq!(status, expected, "{body}");
        if status == 200 {
            assert_eq!(body["outputs"][0]["data"], json!([9.0, 9.0, 9.0, 9.0]));
        }
    }
}

#[tokio::test]
async fn a_large_request_is_answered_in_order_from_runs_of_bounded_size() {
    let running = serve(&[("m", 1, "scale.onnx"), ("slow", 1, "slow.onnx")]).await;
    for (model, rows) in [("m", 20_001_u32), ("slow", 301)] {
        let instances: Vec<[u32; 2]> = (0..rows).map(|row| [row, row + 1]).collect();
        let expected: Vec<[f64; 2]> =
            (0..rows).map(|row| [f64::from(2 * row + 1), f64::from(2 * row + 3)]).collect();
        let body = json!({"instances": instances}).to_string();
        let answer = running.post(&format!("/v1/models/{model}:predict"), body).await;
        assert_eq!(answer, (200, json!({"predictions": expected})));
    }
    let metrics = running.metrics().await;
    for (model, rows) in [("m", 20_001.0), ("slow", 301.0)] {
        let series = format!("sluice_batches_total{{model=\"{model}\",version=\"1\"}}");
        assert!(value(&metrics, &series).unwrap() >= rows / 64.0, "{metrics}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_stays_as_it_was_and_the_others_go_on() {
    let running = serve(&[("m", 1, "scale.onnx"), ("shut", 1, "scale.onnx")]).await;
    let root = running.folder.path();
    // Kept elsewhere and linked, as deployments by link do.
    let elsewhere = tempfile::tempdir().unwrap();
    place(elsewhere.path(), "linked", 1, &graph_bytes("scale.onnx"));
    std::os::unix::fs::symlink(elsewhere.path().join("linked"), root.join("linked")).unwrap();
    let loaded =
        async |model: &str, version| running.version(model, version).await["state"] == "ready";
    wait_until("the linked model", async || loaded("linked", 1).await).await;

    std::fs::rename(elsewhere.path().join("linked"), elsewhere.path().join("away")).unwrap();
    // Root may read this one all the same.
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(root.join("shut"), mode(0o000)).unwrap();
    // A version that leads nowhere is told of, and is no end of the look either.
    std::os::unix::fs::symlink("2", root.join("m/2")).unwrap();
    wait_for_refusal(&running, "m", 2, "m/2 cannot be read").await;
    place(root, "m", 3, &graph_bytes("center.onnx"));
    wait_until("a new version beside them", async || loaded("m", 3).await).await;
    for model in ["linked", "shut"] {
        assert_eq!(running.post(&format!("/v1/models/{model}:predict"), ASK).await.0, 200);
    }
    std::fs::set_permissions(root.join("shut"), mode(0o755)).unwrap();
}
