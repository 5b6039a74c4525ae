//! What statistics say, over both protocols.

use serde_json::{Value, json};
use sluice_protocol::grpc::ModelStatisticsRequest;

use crate::inference::connect;
use crate::support::{Running, answer, serve, serve_as};

const KEYS: [&str; 8] = [
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
];

async fn statistics(running: &Running, path: &str) -> Vec<Value> {
    let (status, body) = running.get(&format!("/v2/models{path}/stats")).await;
    assert_eq!(status, 200, "{body}");
    body["model_stats"].as_array().unwrap().clone()
}

fn number(statistics: &Value, path: &str) -> u64 {
    statistics
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path}: {statistics}"))
}

fn of(statistics: &Value, key: &str, what: &str) -> u64 {
    number(statistics, &format!("/inference_stats/{key}/{what}"))
}

/// Rows of all runs that are listed by size.
fn rows_by_size(statistics: &Value) -> u64 {
    let sizes = statistics["batch_stats"].as_array().unwrap();
    sizes
        .iter()
        .map(|size| {
            let runs = number(size, "/compute_infer/count");
            assert_eq!(number(size, "/compute_input/count"), runs);
            assert_eq!(number(size, "/compute_output/count"), runs);
            for part in ["/compute_input/ns", "/compute_infer/ns", "/compute_output/ns"] {
                assert!(number(size, part) > 0, "{size}");
            }
            number(size, "/batch_size") * runs
        })
        .sum()
}

/// The law of every moment: parts are no more than the whole, and nothing shrinks.
fn check_order(before: Option<&Value>, now: &Value) {
    let parts = ["queue", "compute_input", "compute_infer", "compute_output"];
    let sum: u64 = parts.iter().map(|key| of(now, key, "ns")).sum();
    assert!(sum <= of(now, "success", "ns"), "{now}");
    let Some(before) = before else { return };
    for key in KEYS {
        for what in ["count", "ns"] {
            assert!(of(now, key, what) >= of(before, key, what), "{key}: {before} then {now}");
        }
    }
    for count in ["/last_inference", "/inference_count", "/execution_count"] {
        assert!(number(now, count) >= number(before, count), "{count}: {before} then {now}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_under_load_add_up_exactly() {
    const REQUESTS: u64 = 400;
    for settings in ["executor = \"tick\"\n", "executor = \"workers\"\ninstances = 2\n"] {
        let settings = format!("format = 1\nmax_batch_rows = 8\n{settings}");
        let running = serve_as(&[("m", 1, "scale.onnx")], &settings, |_| {}).await;
        let mut rows = 0;
        let requests: Vec<_> = (0..REQUESTS)
            .map(|request| {
                // Some have more rows than a run.
                let own = request % 11 + 1;
                rows += own;
                let body = json!({"instances": vec![[1, 2]; usize::try_from(own).unwrap()]});
                let url = running.url("/v1/models/m:predict");
                let request = running.client.post(url).body(body.to_string());
                tokio::spawn(async move { answer(request).await.0 })
            })
            .collect();
        let mut before: Option<Value> = None;
        while !requests.iter().all(tokio::task::JoinHandle::is_finished) {
            let now = statistics(&running, "/m").await.remove(0);
            check_order(before.as_ref(), &now);
            before = Some(now);
        }
        for request in requests {
            assert_eq!(request.await.unwrap(), 200);
        }
        let bad = running.post("/v1/models/m:predict", r#"{"instances": [[1]]}"#).await;
        assert_eq!(bad.0, 400);
        let now = statistics(&running, "/m").await.remove(0);
        check_order(before.as_ref(), &now);
        for key in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
            assert_eq!(of(&now, key, "count"), REQUESTS, "{key}: {now}");
        }
        assert_eq!(of(&now, "fail", "count"), 1);
        assert!(of(&now, "fail", "ns") > 0 && of(&now, "queue", "ns") > 0, "{now}");
        assert_eq!(number(&now, "/inference_count"), rows);
        assert_eq!(rows_by_size(&now), rows, "{now}");
        let sizes = now["batch_stats"].as_array().unwrap();
        assert!(sizes.iter().all(|size| number(size, "/batch_size") <= 8), "{now}");
        let runs: u64 = sizes.iter().map(|size| number(size, "/compute_infer/count")).sum();
        assert_eq!(number(&now, "/execution_count"), runs);
        // Each request of a batch counts all of the batch's time.
        let by_run: u64 = sizes.iter().map(|size| number(size, "/compute_infer/ns")).sum();
        assert!(of(&now, "compute_infer", "ns") >= by_run, "{now}");
        running.gateway.drain().await;
    }
}

#[tokio::test]
async fn all_keys_are_there_before_anything_was_asked() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    let now = statistics(&running, "/m").await.remove(0);
    let none = json!({"count": 0, "ns": 0});
    let expected: serde_json::Map<_, _> =
        KEYS.iter().map(|key| ((*key).to_owned(), none.clone())).collect();
    assert_eq!(
        now,
        json!({
            "name": "m",
            "version": "1",
            "last_inference": 0,
            "inference_count": 0,
            "execution_count": 0,
            "inference_stats": expected,
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        })
    );
    let asked = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let body = r#"{"instances": [[1, 2], [3, 4]]}"#;
    assert_eq!(running.post("/v1/models/m:predict", body).await.0, 200);
    let now = statistics(&running, "/m").await.remove(0);
    let last = u128::from(number(&now, "/last_inference"));
    assert!(last.abs_diff(asked.as_millis()) < 10_000, "{now}");
    assert_eq!(now["batch_stats"][0]["batch_size"], 2);
    // A request that runs alone has times of its own for all that is done.
    for key in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
        assert!(of(&now, key, "ns") > 0, "{key}: {now}");
    }
}

/// Which versions of which models are told of.
#[tokio::test]
async fn one_version_or_one_model_or_all() {
    let models = [("a", 1, "scale.onnx"), ("a", 2, "scale.onnx"), ("stats", 1, "scale.onnx")];
    let running = serve(&models).await;
    let mut client = connect(&running).await;
    for (path, name, version, expected) in [
        ("", "", "", &[("a", "1"), ("a", "2"), ("stats", "1")][..]),
        ("/a", "a", "", &[("a", "1"), ("a", "2")]),
        ("/a/versions/2", "a", "2", &[("a", "2")]),
        ("/stats", "stats", "", &[("stats", "1")]),
        ("/stats/versions/1", "stats", "1", &[("stats", "1")]),
    ] {
        let expected: Vec<_> =
            expected.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        let told = statistics(&running, path).await.into_iter().map(|of| {
            (of["name"].as_str().unwrap().to_owned(), of["version"].as_str().unwrap().to_owned())
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "{path}");
        let request = ModelStatisticsRequest { name: name.to_owned(), version: version.to_owned() };
        let told = client.model_statistics(request).await.unwrap().into_inner().model_stats;
        let told: Vec<_> = told.into_iter().map(|of| (of.name, of.version)).collect();
        assert_eq!(told, expected, "{name} {version}");
    }
    // A model of that name has its metadata behind its version only.
    assert!(running.get("/v2/models/stats").await.1["model_stats"].is_array());
    assert_eq!(running.get("/v2/models/stats/versions/1").await.1["name"], "stats");
}

#[tokio::test]
async fn what_is_not_loaded_is_a_mistake_and_not_missing() {
    let running = serve(&[("a", 1, "scale.onnx")]).await;
    let mut client = connect(&running).await;
    for (path, name, version) in [("/b", "b", ""), ("/a/versions/7", "a", "7")] {
        let (status, body) = running.get(&format!("/v2/models{path}/stats")).await;
        let text = body["error"].as_str().unwrap();
        assert_eq!(status, 400, "{body}");
        assert!(text.starts_with("Request for unknown model"), "{body}");
        let request = ModelStatisticsRequest { name: name.to_owned(), version: version.to_owned() };
        let refused = client.model_statistics(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, text));
    }
}

/// Both protocols tell the same.
#[tokio::test]
async fn grpc_tells_what_http_tells() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    for _ in 0..3 {
        let body = r#"{"instances": [[1, 2], [3, 4]]}"#;
        assert_eq!(running.post("/v1/models/m:predict", body).await.0, 200);
    }
    let http = statistics(&running, "/m").await.remove(0);
    let request = ModelStatisticsRequest { name: "m".to_owned(), version: String::new() };
    let answered = connect(&running).await.model_statistics(request).await.unwrap();
    let grpc = answered.into_inner().model_stats.remove(0);
    assert_eq!(grpc.inference_count, 6);
    assert_eq!(grpc.last_inference, number(&http, "/last_inference"));
    assert_eq!(grpc.execution_count, number(&http, "/execution_count"));
    let of_grpc = grpc.inference_stats.unwrap();
    let durations = [
        of_grpc.success,
        of_grpc.fail,
        of_grpc.queue,
        of_grpc.compute_input,
        of_grpc.compute_infer,
        of_grpc.compute_output,
        of_grpc.cache_hit,
        of_grpc.cache_miss,
    ];
    for (key, duration) in KEYS.iter().zip(durations) {
        let duration = duration.unwrap();
        let expected = (of(&http, key, "count"), of(&http, key, "ns"));
        assert_eq!((duration.count, duration.ns), expected, "{key}");
    }
    let size = &grpc.batch_stats[0];
    let infer = size.compute_infer.unwrap();
    assert_eq!(size.batch_size, number(&http, "/batch_stats/0/batch_size"));
    assert_eq!(infer.ns, number(&http, "/batch_stats/0/compute_infer/ns"));
}
