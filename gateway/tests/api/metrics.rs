//! Metrics under the names of Triton and of KServe, with the meanings of the originals.

use serde_json::json;
use sluice_gateway::MetricNames;

use crate::grpc_busy::{LONG, busy, queued, rounds, serve_rounds};
use crate::support::{Running, answer, serve_with, value};

/// What the exposition text has for a series, spelt with its labels.
async fn serve_named(graph: &str, names: &[MetricNames]) -> Running {
    serve_with(&[("m", 1, graph)], |settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), "response_cache { enable: true }").unwrap();
        settings.response_cache = Some(1 << 20);
        settings.metric_names = Some(names.to_vec());
    })
    .await
}

async fn predict(running: &Running, rows: &serde_json::Value) -> u16 {
    running.post("/v1/models/m:predict", json!({"instances": rows}).to_string()).await.0
}

#[tokio::test]
async fn triton_s_names_say_what_its_statistics_say() {
    let running = serve_named("scale.onnx", &[MetricNames::Triton]).await;
    for (rows, status) in [
        (json!([[1, 2], [3, 4], [5, 6]]), 200),
        (json!([[7, 8]]), 200),
        (json!([[7, 8]]), 200),
        (json!([[7]]), 400),
    ] {
        assert_eq!(predict(&running, &rows).await, status, "{rows}");
    }
    let text = running.metrics().await;
    let of = |name: &str| value(&text, &format!("{name}{{model=\"m\",version=\"1\"}}"));
    for (name, expected) in [
        ("nv_inference_request_success", 3.0),
        ("nv_inference_count", 4.0),
        ("nv_inference_exec_count", 2.0),
        ("nv_cache_num_hits_per_model", 1.0),
        ("nv_cache_num_misses_per_model", 2.0),
        ("nv_inference_pending_request_count", 0.0),
    ] {
        assert_eq!(of(name), Some(expected), "{name}: {text}");
    }
    for (reason, expected) in
        [("REJECTED", 0.0), ("CANCELED", 0.0), ("BACKEND", 0.0), ("OTHER", 1.0)]
    {
        let labels = format!("{{model=\"m\",version=\"1\",reason=\"{reason}\"}}");
        let found = value(&text, &format!("nv_inference_request_failure{labels}"));
        assert_eq!(found, Some(expected), "{reason}: {text}");
    }
    let (_, body) = running.get("/v2/models/m/stats").await;
    let statistics = &body["model_stats"][0]["inference_stats"];
    for (name, key) in [
        ("nv_inference_request_duration_us", "success"),
        ("nv_inference_queue_duration_us", "queue"),
        ("nv_inference_compute_input_duration_us", "compute_input"),
        ("nv_inference_compute_infer_duration_us", "compute_infer"),
        ("nv_inference_compute_output_duration_us", "compute_output"),
        ("nv_cache_hit_duration_per_model", "cache_hit"),
        ("nv_cache_miss_duration_per_model", "cache_miss"),
    ] {
        let microseconds = (statistics[key]["ns"].as_u64().unwrap() / 1000) as f64;
        assert_eq!(of(name), Some(microseconds), "{name}: {statistics}");
    }
    assert!(of("nv_model_load_duration_secs").unwrap() > 0.0, "{text}");
    assert!(text.contains("# TYPE nv_inference_request_success counter"), "{text}");
    assert!(text.contains("# HELP nv_inference_count Number of inferences performed"), "{text}");
    assert!(!text.contains("sluice_requests_total") && !text.contains("request_predict"), "{text}");
    assert!(text.contains("sluice_ready"), "the gateway's own stay: {text}");
}

#[tokio::test]
async fn kserve_s_histograms_count_the_steps_of_each_request() {
    let names = [MetricNames::Kserve, MetricNames::Sluice];
    let running = serve_named("slow.onnx", &names).await;
    for row in 0..5 {
        assert_eq!(predict(&running, &json!([[row, 2]])).await, 200);
    }
    assert_eq!(predict(&running, &json!([[1]])).await, 400);
    let text = running.metrics().await;
    let mut sums = Vec::new();
    for (step, count) in [("preprocess", 5.0), ("predict", 5.0), ("postprocess", 5.0)] {
        let of = |part: &str, labels: &str| {
            value(&text, &format!("request_{step}_seconds_{part}{{model_name=\"m\"{labels}}}"))
        };
        assert_eq!(of("count", ""), Some(count), "{step}: {text}");
        assert_eq!(of("bucket", ",le=\"+Inf\""), Some(count), "{step}: {text}");
        sums.push(of("sum", "").unwrap());
    }
    assert!(sums.iter().all(|sum| *sum > 0.0) && sums[1] > sums[2], "{sums:?}");
    assert!(text.contains("# HELP request_predict_seconds predict request latency"), "{text}");
    assert!(text.contains("# TYPE request_explain_seconds histogram"), "{text}");
    let ours = value(&text, r#"sluice_requests_total{model="m",version="1",code="ok"}"#);
    assert_eq!(ours, Some(5.0), "{text}");
    assert!(!text.contains("nv_"), "{text}");
}

#[tokio::test]
async fn without_a_choice_the_names_are_ours() {
    let running = serve_with(&[("m", 1, "scale.onnx")], |_| {}).await;
    assert_eq!(predict(&running, &json!([[1, 2]])).await, 200);
    let text = running.metrics().await;
    assert!(text.contains("sluice_requests_total{"), "{text}");
    assert!(!text.contains("nv_") && !text.contains("model_name"), "{text}");
}

/// What waits is told while it waits, and is gone when it runs or its caller has left.
#[tokio::test]
async fn requests_that_wait_are_pending() {
    let running = serve_rounds().await;
    let ask = |timeout: i64| {
        let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [1]});
        let body = json!({"inputs": [input], "parameters": {"timeout": timeout}}).to_string();
        let request = running.client.post(running.url("/v2/models/m/infer")).body(body);
        tokio::spawn(answer(request))
    };
    let long = busy(&running, rounds(LONG)).await;
    let waiting: Vec<_> = (0..3).map(|_| ask(0)).collect();
    queued(&running, 3).await;
    let late = ask(1000);
    assert_eq!(late.await.unwrap().0, 503);
    assert!(!long.is_finished());
    assert!(long.await.unwrap().is_ok());
    for request in waiting {
        assert_eq!(request.await.unwrap().0, 200);
    }
    // The one that gave up is counted until a worker comes upon it.
    queued(&running, 0).await;
}
