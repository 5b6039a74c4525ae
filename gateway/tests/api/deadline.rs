//! How long callers say that they wait.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Code;

use crate::grpc_busy::{LONG, busy, rounds, serve_rounds};
use crate::inference::connect;
use crate::support::{Running, answer, within};

const OWN: &str = "x-request-timeout-ms";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";

async fn ask(running: &Running, path: &str, header: (&'static str, &str)) -> (u16, Value) {
    let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [3]});
    let body = match path {
        "/v1/models/m:predict" => json!({"inputs": {"rounds": [3]}}),
        "/v2/models/m/generate" => json!({"rounds": 3}),
        _ => json!({"inputs": [input]}),
    };
    let request = running.client.post(running.url(path)).header(header.0, header.1);
    answer(request.body(body.to_string())).await
}

#[tokio::test]
async fn who_waits_for_longer_than_it_says_is_told_so() {
    let running = serve_rounds().await;
    let long = busy(&running, rounds(LONG)).await;
    for (path, header) in
        [("/v2/models/m/infer", OWN), ("/v1/models/m:predict", OWN), ("/v2/models/m/infer", ENVOY)]
    {
        let begun = Instant::now();
        let (status, body) = within("an end", ask(&running, path, (header, "50"))).await;
        assert_eq!(status, 504, "{path} {header}: {body}");
        assert!(body["error"].to_string().contains("50ms"), "{body}");
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
    let mut question = tonic::Request::new(rounds(3));
    question.metadata_mut().insert(OWN, "50".parse().unwrap());
    let status = connect(&running).await.model_infer(question).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(!long.is_finished());
    long.abort();
}

#[tokio::test]
async fn a_time_that_is_long_enough_changes_nothing() {
    let running = serve_rounds().await;
    for header in [(OWN, "20000"), (ENVOY, "20000"), (ENVOY, "0"), (ENVOY, "soon")] {
        let (status, body) = ask(&running, "/v2/models/m/infer", header).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([3])), "{header:?}");
    }
}

#[tokio::test]
async fn a_time_that_is_none_is_refused() {
    let running = serve_rounds().await;
    for path in ["/v2/models/m/infer", "/v1/models/m:predict", "/v2/models/m/generate"] {
        for text in ["0", "soon", "-5"] {
            let (status, body) = ask(&running, path, (OWN, text)).await;
            assert_eq!(status, 400, "{path} {text}: {body}");
            assert!(body["error"].to_string().contains(OWN), "{body}");
        }
    }
    let mut question = tonic::Request::new(rounds(3));
    question.metadata_mut().insert(OWN, "soon".parse().unwrap());
    let status = connect(&running).await.model_infer(question).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}
