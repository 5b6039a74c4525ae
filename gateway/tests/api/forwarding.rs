//! Headers that become parameters: over every way to ask, and what of it a trace says.

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sluice_gateway::{Settings, TraceLevel};
use sluice_protocol::grpc::InferParameter;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::grpc_v2::ones;
use crate::inference::connect;
use crate::settings::check;
use crate::support::{Caller, Running, answer, serve_with};
use crate::trace_collector::{Collector, Trace};

const MODELS: &[(&str, u64, &str)] = &[("m", 1, "scale.onnx")];
const INFER: &str = "/v2/models/m/infer";

/// What begins parameters' names in a trace.
const PARAMETER: &str = "sluice.parameter.";

fn body(parameters: &Value) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    json!({"parameters": parameters, "inputs": [input]}).to_string()
}

/// One that forwards what the pattern matches, and traces every request.
async fn forwarding(
    pattern: &str,
    collector: &Collector,
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    serve_with(MODELS, |settings| {
        settings.forwarding.http_header_forward_pattern = Some(pattern.to_owned());
        settings.forwarding.grpc_header_forward_pattern = Some(pattern.to_owned());
        settings.trace.trace_otlp = Some(collector.url.clone());
        settings.trace.trace_level = vec![TraceLevel::Timestamps];
        settings.trace.trace_rate = Some(1);
        adjust(settings);
    })
    .await
}

async fn post(
    caller: &Caller,
    path: &str,
    body: String,
    headers: &[(&'static str, &'static str)],
) -> (u16, Value) {
    let request = caller.client.post(caller.url(path)).body(body);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
        .await
}

fn call<T>(message: T, metadata: &[(&'static str, &'static str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// The error of the only answer on a stream.
async fn stream_error(caller: &Caller, metadata: &[(&'static str, &'static str)]) -> String {
    let mut client = connect(caller).await;
    let questions = call(stream::iter([ones("m", 1)]), metadata);
    let mut answers = client.model_stream_infer(questions).await.unwrap().into_inner();
    answers.next().await.unwrap().unwrap().error_message
}

async fn infer(caller: &Caller, metadata: &[(&'static str, &'static str)]) -> Result<(), Status> {
    connect(caller).await.model_infer(call(ones("m", 1), metadata)).await.map(drop)
}

/// The parameters that a trace tells of, as `name=value`.
fn parameters(trace: &Trace) -> Vec<String> {
    let attributes = trace.attributes().into_iter();
    let found = attributes
        .filter_map(|(key, value)| Some(format!("{}={value}", key.strip_prefix(PARAMETER)?)));
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

/// D11d.
#[tokio::test]
async fn headers_become_parameters_however_a_prediction_is_asked_for() {
    let collector = Collector::start().await;
    let running = forwarding("^x-", &collector, |_| {}).await;
    let headers = [("X-Tenant", "a"), ("y-x-", "b"), ("x-tenant", "c")];
    for (path, body) in [
        (INFER, body(&json!({}))),
        ("/v1/models/m:predict", json!({"instances": [[1, 2]]}).to_string()),
        ("/v2/models/m/generate", json!({"x": [1, 2]}).to_string()),
        ("/v2/models/m/generate_stream", json!({"x": [1, 2]}).to_string()),
    ] {
        let (status, answered) = post(&running, path, body, &headers).await;
        assert_eq!(status, 200, "{path}: {answered}");
    }
    // A raw binary request has no other place for parameters.
    let raw = running.client.post(running.url(INFER)).body([1f32.to_le_bytes(); 2].concat());
    let raw = raw.header("inference-header-content-length", "0").header("x-tenant", "c");
    assert_eq!(raw.send().await.unwrap().status(), 200);
    let metadata = [("x-tenant", "a"), ("y-x-", "b"), ("x-tenant", "c")];
    infer(&running, &metadata).await.unwrap();
    assert_eq!(stream_error(&running, &metadata).await, "");
    for trace in collector.traces(7).await {
        assert_eq!(parameters(&trace), ["x-tenant=c"], "{trace:?}");
    }
}

/// Those of a request are in its trace as well, and headers stand over them.
#[tokio::test]
async fn the_parameters_of_a_request_are_in_its_trace() {
    let collector = Collector::start().await;
    let running = forwarding("^x-", &collector, |_| {}).await;
    let own = json!({
        "x-a": 5, "timeout": 1_000_000, "text": "t".repeat(300), "truth": true, "half": 0.5,
        "large": u64::MAX,
    });
    assert_eq!(post(&running, INFER, body(&own), &[("x-a", "header")]).await.0, 200);
    let many: serde_json::Map<_, _> =
        (0..100).map(|number| (format!("p{number:03}"), json!(number))).collect();
    assert_eq!(post(&running, INFER, body(&many.into()), &[]).await.0, 200);
    let mut question = ones("m", 1);
    let choice = |choice| InferParameter { parameter_choice: Some(choice) };
    question.parameters.insert("a".to_owned(), choice(ParameterChoice::Int64Param(-1)));
    question
        .parameters
        .insert("x-a-bin".to_owned(), choice(ParameterChoice::StringParam("own".to_owned())));
    let mut question = Request::new(question);
    question.metadata_mut().insert_bin("x-a-bin", MetadataValue::from_bytes("é".as_bytes()));
    connect(&running).await.model_infer(question).await.unwrap();
    let traces = collector.traces(3).await;
    let text = format!("text={}", "t".repeat(256));
    let large = format!("large={}", u64::MAX);
    let first = ["half=0.5", &large, &text, "timeout=1000000", "truth=true", "x-a=header"];
    assert_eq!(parameters(&traces[0]), first);
    let bounded = parameters(&traces[1]);
    assert_eq!((bounded.len(), &*bounded[63]), (64, "p063=63"));
    assert_eq!(parameters(&traces[2]), ["a=-1", "x-a-bin=é"]);
}

#[tokio::test]
async fn secrets_are_never_forwarded() {
    let collector = Collector::start().await;
    let running = forwarding(".*", &collector, |settings| {
        settings.security.restrict = vec!["inference=x-key:k".to_owned()];
    })
    .await;
    let secrets = [("authorization", "Bearer a"), ("proxy-authorization", "b"), ("cookie", "c")];
    let headers = [&secrets[..], &[("x-key", "k"), ("x-a", "1")]].concat();
    assert_eq!(post(&running, INFER, body(&json!({})), &headers).await.0, 200);
    infer(&running, &headers).await.unwrap();
    let other = [&secrets[..], &[("triton-grpc-protocol-x-key", "k"), ("x-a", "1")]].concat();
    infer(&running, &other).await.unwrap();
    for trace in collector.traces(3).await {
        let found = parameters(&trace);
        assert!(found.contains(&"x-a=1".to_owned()), "{found:?}");
        let names = ["authorization", "cookie", "key"];
        assert!(
            !found.iter().any(|text| names.iter().any(|name| text.contains(name))),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn headers_with_reserved_names_or_no_text_are_refused() {
    let collector = Collector::start().await;
    let running = forwarding("priority|triton_|x-", &collector, |_| {}).await;
    let says = "header \"triton_x\" matches --http-header-forward-pattern and cannot become a parameter: that name is reserved";
    for (path, body) in [
        (INFER, body(&json!({}))),
        ("/v1/models/m:predict", json!({"instances": [[1, 2]]}).to_string()),
        ("/v2/models/m/generate", json!({"x": [1, 2]}).to_string()),
    ] {
        let (status, answered) = post(&running, path, body.clone(), &[("triton_x", "1")]).await;
        assert_eq!((status, answered["error"].as_str()), (400, Some(says)), "{path}");
        // Browsers and proxies say how urgent an answer is.
        let (status, answered) = post(&running, path, body, &[("priority", "u=1, i")]).await;
        assert_eq!(status, 200, "{path}: {answered}");
    }
    for name in ["priority", "triton_x"] {
        let refused = infer(&running, &[(name, "1")]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("that name is reserved"), "{refused}");
        assert!(stream_error(&running, &[(name, "1")]).await.contains("that name is reserved"));
    }
    let latin = running.client.post(running.url(INFER)).body(body(&json!({})));
    let (status, answered) = answer(latin.header("x-a", &b"\xe9"[..])).await;
    assert_eq!(status, 400);
    assert!(answered["error"].as_str().unwrap().contains("no UTF-8 text"), "{answered}");
    // It is for the server, as ever.
    assert_eq!(stream_error(&running, &[("triton_grpc_error", "false")]).await, "");
    // Those that do not match say nothing at all.
    assert_eq!(post(&running, INFER, body(&json!({})), &[("timeout", "1")]).await.0, 200);
    infer(&running, &[("sequence_id", "1")]).await.unwrap();
}

#[test]
fn patterns_are_regular_expressions() {
    let registry = "--registry=http://localhost:5000";
    for (flag, says) in [
        ("--http-header-forward-pattern=^x-(a|b)$", ""),
        ("--grpc-header-forward-pattern=", ""),
        (
            "--http-header-forward-pattern=((",
            "--http-header-forward-pattern \"((\" is no regular expression: unclosed group",
        ),
        ("--grpc-header-forward-pattern=[", "--grpc-header-forward-pattern \"[\" is no regular"),
    ] {
        let (fine, said) = check(&[registry, flag], &[]);
        assert_eq!(fine, says.is_empty(), "{flag}: {said}");
        assert!(said.contains(says), "{flag}: {said}");
    }
    let variable = [("SLUICE_GRPC_HEADER_FORWARD_PATTERN", "(")];
    let (fine, said) = check(&[registry], &variable);
    assert!(!fine && said.contains("--grpc-header-forward-pattern \"(\""), "{said}");
}
