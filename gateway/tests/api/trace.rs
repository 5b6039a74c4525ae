//! Traces: what arrives at a collector, which requests are traced, and the settings over HTTP and
//! gRPC.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sluice_gateway::{ControlGroup, Settings, TraceLevel};
use sluice_protocol::grpc::trace_setting_request::SettingValue;
use sluice_protocol::grpc::{ModelInferRequest, TraceSettingRequest};
use tonic::{Code, Request};

use crate::grpc_busy::{LONG, busy, rounds, serve_rounds_with};
use crate::grpc_v2::ones;
use crate::inference::connect;
use crate::support::{Caller, Process, Running, answer, serve, serve_with, wait_until};
use crate::trace_collector::{Collector, Trace, attributes, took};

const MODELS: &[(&str, u64, &str)] = &[("m", 3, "scale.onnx"), ("other", 1, "scale.onnx")];
const INFER: &str = "/v2/models/m/infer";
const SETTING: &str = "/v2/trace/setting";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn body() -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]});
    json!({"id": "q-1", "inputs": [input]}).to_string()
}

/// A gateway whose settings anybody may change, and which traces every so many-th request.
async fn traced(
    collector: &Collector,
    levels: &[TraceLevel],
    rate: u32,
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    serve_with(MODELS, |settings| {
        settings.trace.trace_otlp = Some(collector.url.clone());
        settings.trace.trace_level = levels.to_vec();
        settings.trace.trace_rate = Some(rate);
        settings.serve_control = vec![ControlGroup::Trace];
        adjust(settings);
    })
    .await
}

/// Asks for a prediction, as part of a trace of the caller's.
async fn infer_with(caller: &Caller, headers: &[(&'static str, String)]) {
    let request = caller.client.post(caller.url(INFER)).body(body());
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    assert_eq!(answer(request).await.0, 200);
}

async fn infer(caller: &Caller, times: usize) {
    for _ in 0..times {
        infer_with(caller, &[]).await;
    }
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The stages are parts of the request, one after the other, and those of the run are parts of it.
fn check_times(trace: &Trace) {
    let mut before = trace.root.start_time_unix_nano;
    let stages = trace.below.iter().filter(|span| span.parent_span_id == trace.root.span_id);
    let mut stages: Vec<_> = stages.collect();
    stages.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    for span in &stages {
        assert!(span.start_time_unix_nano >= before, "{} begins too early: {trace:?}", span.name);
        before = span.end_time_unix_nano;
        assert_eq!(span.trace_id, trace.root.trace_id);
    }
    assert!(before <= trace.root.end_time_unix_nano);
    let parts = ["compute input", "compute infer", "compute output"];
    let parts = parts.map(|name| trace.stage(name));
    let compute = trace.stage("compute");
    assert!(parts.iter().all(|part| part.parent_span_id == compute.span_id));
    assert_eq!(parts.iter().map(|part| took(part)).sum::<u64>(), took(compute));
    assert!(took(trace.stage("compute infer")) > 0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let ago = Duration::from_nanos(u64::try_from(now).unwrap() - before);
    assert!(ago < Duration::from_secs(60), "{ago:?} ago");
}

#[tokio::test]
async fn a_request_is_a_span_and_its_stages_are_spans_within_that_add_up() {
    let collector = Collector::start().await;
    let levels = [TraceLevel::Timestamps, TraceLevel::Tensors];
    let running = traced(&collector, &levels, 1, |_| {}).await;
    infer(&running, 1).await;
    let trace = collector.traces(1).await.remove(0);
    let stages = ["compute", "receive", "decode", "queue"];
    let parts = ["compute input", "compute infer", "compute output", "encode"];
    assert_eq!(trace.names(), [stages, parts].concat());
    check_times(&trace);
    let root = &trace.root;
    assert_eq!((root.parent_span_id.as_slice(), root.kind), (&[][..], 2), "a server's");
    assert!(root.status.as_ref().is_none_or(|status| status.code == 0));
    for (key, value) in [
        ("triton.model_name", "m"),
        ("triton.model_version", "3"),
        ("triton.trace_id", "1"),
        ("triton.request_id", "q-1"),
        ("http.request.method", "POST"),
        ("http.route", "/v2/models/{model}/infer"),
        ("url.path", INFER),
        ("http.response.status_code", "200"),
        ("sluice.input.names", "x"),
        ("sluice.input.datatypes", "FP32"),
        ("sluice.input.shapes", "[1, 2]"),
        ("sluice.output.names", "y"),
        ("sluice.output.datatypes", "FP32"),
        ("sluice.output.shapes", "[1, 2]"),
    ] {
        assert_eq!(trace.attribute(key), value, "{key}");
    }
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "sluice");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let exported = format!("sluice_exported_spans_total {}", 1 + trace.below.len());
    wait_until("the metric", async || running.metrics().await.contains(&exported)).await;
}

/// What one level gives the other does not.
#[tokio::test]
async fn levels_say_what_is_in_a_trace() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Tensors], 1, |_| {}).await;
    infer(&running, 1).await;
    let change = json!({"trace_level": ["TIMESTAMPS"]});
    assert_eq!(running.post(SETTING, change.to_string()).await.0, 200);
    infer(&running, 1).await;
    let traces = collector.traces(2).await;
    let has_tensors = |trace: &Trace| trace.attributes().contains_key("sluice.input.names");
    let found: Vec<_> =
        traces.iter().map(|trace| (has_tensors(trace), trace.below.is_empty())).collect();
    assert_eq!(found, [(true, true), (false, false)]);
}

#[tokio::test]
async fn every_way_to_ask_for_a_prediction_is_traced() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 1, |_| {}).await;
    for (path, body) in [
        ("/v2/models/m/versions/3/infer", body()),
        ("/v1/models/m:predict", json!({"instances": [[1, 2.5]]}).to_string()),
        ("/v1/models/m/versions/3:predict", json!({"instances": [[1, 2.5]]}).to_string()),
        ("/v2/models/m/generate", json!({"x": [1, 2.5]}).to_string()),
        ("/v2/models/m/generate_stream", json!({"x": [1, 2.5]}).to_string()),
    ] {
        assert_eq!(running.post(path, body).await.0, 200, "{path}");
    }
    let mut client = connect(&running).await;
    client.model_infer(ones("m", 1)).await.unwrap();
    let questions = stream::iter([ones("m", 1), ones("m", 2)]);
    let answers = client.model_stream_infer(questions).await.unwrap().into_inner();
    assert_eq!(answers.count().await, 2);
    let traces = collector.traces(8).await;
    traces.iter().for_each(check_times);
    let mut ways: Vec<_> = traces
        .iter()
        .map(|trace| trace.attribute("http.route") + &trace.attribute("rpc.method"))
        .collect();
    ways.sort();
    let stream = "inference.GRPCInferenceService/ModelStreamInfer";
    assert_eq!(
        ways,
        [
            "/v1/models/{model}/versions/{version}:predict",
            "/v1/models/{model}:predict",
            "/v2/models/{model}/generate",
            "/v2/models/{model}/generate_stream",
            "/v2/models/{model}/versions/{version}/infer",
            "inference.GRPCInferenceService/ModelInfer",
            stream,
            stream,
        ]
    );
    let is_grpc = |trace: &&Trace| !trace.attribute("rpc.method").is_empty();
    for trace in traces.iter().filter(is_grpc) {
        assert_eq!(trace.attribute("rpc.system.name"), "grpc");
        assert_eq!(trace.attribute("rpc.response.status_code"), "OK");
    }
}

#[tokio::test]
async fn a_request_that_fails_says_where_and_why() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 1, |_| {}).await;
    assert_eq!(running.post(INFER, "{").await.0, 400);
    assert_eq!(running.post("/v2/models/nobody/infer", body()).await.0, 404);
    let mut client = connect(&running).await;
    let wrong = ModelInferRequest { model_name: "m".to_owned(), ..Default::default() };
    assert_eq!(client.model_infer(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let traces = collector.traces(3).await;
    let [decode, route, grpc] = traces.as_slice() else { panic!("{traces:?}") };
    for (trace, key, value) in [
        (decode, "http.response.status_code", "400"),
        (decode, "error.type", "invalid_argument"),
        (decode, "triton.model_version", "3"),
        (route, "http.response.status_code", "404"),
        (route, "error.type", "not_found"),
        (route, "triton.model_name", "nobody"),
        (route, "triton.model_version", ""),
        (grpc, "rpc.response.status_code", "INVALID_ARGUMENT"),
        (grpc, "error.type", "invalid_argument"),
    ] {
        assert_eq!(trace.attribute(key), value, "{key} of {trace:?}");
    }
    assert!(route.attribute("error.message").contains("Request for unknown model: 'nobody'"));
    // It is the caller's fault: the request's span is not in error, the stage is.
    assert!(decode.root.status.as_ref().is_none_or(|status| status.code == 0));
    assert_eq!(decode.names(), ["receive", "decode"]);
    assert_eq!(decode.stage("decode").status.as_ref().unwrap().code, 2);
}

#[tokio::test]
async fn a_fault_of_the_server_is_the_span_s_error() {
    let collector = Collector::start().await;
    let running = serve_with(&[("slow", 1, "slow.onnx")], |settings| {
        settings.trace.trace_otlp = Some(collector.url.clone());
        settings.trace.trace_level = vec![TraceLevel::Timestamps];
        settings.trace.trace_rate = Some(1);
        settings.request_timeout = Some(Duration::from_secs(1));
    })
    .await;
    // Many seconds of work, of which no more is done when the time is up.
    let late = connect(&running).await.model_infer(ones("slow", 200_000)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    let trace = collector.traces(1).await.remove(0);
    assert_eq!(trace.attribute("error.type"), "deadline_exceeded");
    assert_eq!(trace.root.status.as_ref().unwrap().code, 2);
    assert_eq!(trace.stage("queue").status.as_ref().unwrap().code, 2);
}

#[tokio::test]
async fn a_caller_who_leaves_is_noted() {
    let collector = Collector::start().await;
    let running = serve_rounds_with(|settings| {
        settings.trace.trace_otlp = Some(collector.url.clone());
        settings.trace.trace_level = vec![TraceLevel::Timestamps];
        settings.trace.trace_rate = Some(1);
    })
    .await;
    busy(&running, rounds(LONG)).await.abort();
    let trace = collector.traces(1).await.remove(0);
    assert_eq!(trace.attribute("error.type"), "cancelled");
    assert_eq!(trace.attribute("rpc.response.status_code"), "");
    assert_eq!(trace.names(), ["receive", "decode", "queue"]);
    let (root, queue) = (&trace.root, trace.stage("queue"));
    assert!([root, queue].iter().all(|span| span.status.as_ref().unwrap().code == 2));
}

#[tokio::test]
async fn an_answer_out_of_the_cache_has_no_run() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 1, |settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        std::fs::write(folder.join("config.pbtxt"), "response_cache { enable: true }").unwrap();
        settings.response_cache = Some(1 << 20);
    })
    .await;
    infer(&running, 2).await;
    let traces = collector.traces(2).await;
    let hit = |trace: &Trace| {
        attributes(&trace.stage("cache").attributes).remove("sluice.cache_hit").unwrap()
    };
    assert_eq!((&*hit(&traces[0]), &*hit(&traces[1])), ("false", "true"));
    check_times(&traces[0]);
    assert_eq!(traces[1].names(), ["receive", "decode", "cache", "encode"]);
}

/// Force sample: what its caller traces is traced whatever the rate, as a part of that trace.
#[tokio::test]
async fn a_trace_of_the_caller_s_goes_on_over_http_and_grpc() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 0, |_| {}).await;
    infer(&running, 3).await;
    let state = ("tracestate", "a=1,b=2".to_owned());
    infer_with(&running, &[("traceparent", parent("01")), state]).await;
    let mut client = connect(&running).await;
    let with_parent = |flags: &str| {
        let mut request = Request::new(ones("m", 1));
        request.metadata_mut().insert("traceparent", parent(flags).parse().unwrap());
        request
    };
    client.model_infer(with_parent("01")).await.unwrap();
    client.model_infer(with_parent("00")).await.unwrap();
    let mut questions = Request::new(stream::iter([ones("m", 1)]));
    questions.metadata_mut().insert("traceparent", parent("03").parse().unwrap());
    let answers = client.model_stream_infer(questions).await.unwrap().into_inner();
    assert_eq!(answers.count().await, 1);
    let traces = collector.traces(3).await;
    for trace in &traces {
        check_times(trace);
        let found = (hex(&trace.root.trace_id), hex(&trace.root.parent_span_id));
        assert_eq!(found, (TRACE.to_owned(), SPAN.to_owned()));
    }
    assert_eq!(traces[0].root.trace_state, "a=1,b=2");
    assert!(traces[0].below.iter().all(|span| span.trace_state == "a=1,b=2"));
}

#[tokio::test]
async fn what_is_malformed_is_no_trace_and_what_is_not_sampled_waits_for_its_turn() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 2, |_| {}).await;
    for malformed in ["", "00", &parent("01").to_uppercase(), &parent("1"), "ff"] {
        infer_with(&running, &[("traceparent", malformed.to_owned())]).await;
    }
    infer_with(&running, &[("traceparent", parent("00"))]).await;
    let traces = collector.traces(3).await;
    let parents = traces.iter().map(|trace| hex(&trace.root.parent_span_id));
    assert_eq!(parents.collect::<Vec<_>>(), ["", "", SPAN]);
}

#[tokio::test]
async fn every_so_many_th_request_is_traced_until_so_many_were() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 3, |settings| {
        settings.trace.trace_count = Some(2);
    })
    .await;
    infer(&running, 4).await;
    assert_eq!(running.get(SETTING).await.1["trace_count"], "1");
    infer(&running, 10).await;
    assert_eq!(running.get(SETTING).await.1["trace_count"], "0");
    collector.traces(2).await;
    // A model with settings of its own counts by itself.
    let own = json!({"trace_rate": "1", "trace_count": "1"}).to_string();
    assert_eq!(running.post("/v2/models/m/trace/setting", own).await.0, 200);
    let other = running.post("/v2/models/other/infer", body()).await;
    assert_eq!(other.0, 200);
    infer(&running, 3).await;
    let traces = collector.traces(3).await;
    assert_eq!(traces[2].attribute("triton.model_name"), "m");
}

fn defaults() -> Value {
    json!({
        "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
        "trace_file": "", "trace_mode": "opentelemetry",
    })
}

/// D9: over HTTP, on the serving port as on the admin port.
#[tokio::test]
async fn settings_are_read_changed_and_cleared_over_http() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1000, |_| {}).await;
    let with = |changes: Value| {
        let mut settings = defaults();
        let changes = changes.as_object().unwrap().clone();
        settings.as_object_mut().unwrap().extend(changes);
        settings
    };
    let model = "/v2/models/m/trace/setting";
    for (path, change, expected) in [
        (SETTING, json!({}), defaults()),
        (model, json!({"trace_rate": "7"}), with(json!({"trace_rate": "7"}))),
        (SETTING, json!({"log_frequency": "5"}), with(json!({"log_frequency": "5"}))),
        (model, json!({}), with(json!({"trace_rate": "7", "log_frequency": "5"}))),
        (
            SETTING,
            json!({"trace_level": ["TENSORS", "TIMESTAMPS"], "trace_rate": "500", "trace_count": "9"}),
            with(
                json!({"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "500", "trace_count": "9", "log_frequency": "5"}),
            ),
        ),
        (
            model,
            json!({"trace_level": ["OFF"], "unknown": 3}),
            with(json!({"trace_rate": "7", "trace_count": "9", "log_frequency": "5"})),
        ),
        (
            SETTING,
            json!({"trace_level": null, "trace_rate": null, "trace_count": null, "log_frequency": null, "trace_file": null}),
            defaults(),
        ),
        (model, json!({"trace_level": null}), with(json!({"trace_rate": "7"}))),
        (model, json!({"trace_rate": null}), defaults()),
        (SETTING, json!({"trace_file": "", "trace_mode": "opentelemetry"}), defaults()),
    ] {
        let answered = running.post(path, change.to_string()).await;
        assert_eq!(answered, (200, expected.clone()), "{path} {change}");
        assert_eq!(running.get(path).await, (200, expected.clone()), "{path} after {change}");
        assert_eq!(answer(running.client.get(running.admin(path))).await, (200, expected));
    }
}

/// D9: what cannot be is refused, in Triton's words where it has some, and nothing is changed.
#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1000, |_| {}).await;
    let mut client = connect(&running).await;
    let fixed_file = "trace file location can not be updated through network protocol";
    let fixed_mode = "trace mode can not be updated through network protocol";
    for (change, status, words) in [
        (json!({"trace_rate": "often"}), 400, "Unable to parse 'trace_rate', got: often"),
        (json!({"trace_rate": "-1"}), 400, "Unable to parse 'trace_rate'"),
        (json!({"trace_count": "-2"}), 400, "Unable to parse 'trace_count', got: -2"),
        (json!({"log_frequency": ""}), 400, "Unable to parse 'log_frequency'"),
        (json!({"trace_level": ["ALL"]}), 400, "OFF, TIMESTAMPS and TENSORS"),
        (json!({"trace_level": ["OFF", "TIMESTAMPS"]}), 400, "no other level"),
        (json!({"trace_file": "/tmp/x"}), 501, fixed_file),
        (json!({"trace_mode": "triton"}), 501, fixed_mode),
        (json!({"trace_rate": ["1", "2"]}), 400, "trace_rate must be one text"),
    ] {
        let mut both = change.clone();
        both["trace_rate"] = both.get("trace_rate").cloned().unwrap_or_else(|| "5".into());
        let (found, body) = running.post(SETTING, both.to_string()).await;
        let text = body["error"].as_str().unwrap_or_default();
        assert!(found == status && text.contains(words), "{change}: {found} {text}");
        let refused = client.trace_setting(setting("", &change)).await.unwrap_err();
        let code = if status == 501 { Code::Unimplemented } else { Code::InvalidArgument };
        assert!(refused.code() == code && refused.message().contains(words), "{refused:?}");
    }
    assert_eq!(running.get(SETTING).await, (200, defaults()));
}

#[tokio::test]
async fn settings_in_json_have_their_types() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1000, |_| {}).await;
    for (change, words) in [
        (r#"{"trace_rate": 5}"#, "trace_rate must be a text, got: 5"),
        (r#"{"trace_level": "OFF"}"#, "trace_level must be a list"),
        (r#"{"trace_level": [1]}"#, "trace_level must be a list"),
        (r#"{"trace_count": true}"#, "trace_count must be a text"),
        ("[]", "a JSON object"),
        ("{", "a JSON object"),
    ] {
        let (found, body) = running.post(SETTING, change).await;
        let text = body["error"].as_str().unwrap_or_default();
        assert!(found == 400 && text.contains(words), "{change}: {found} {text}");
    }
    assert_eq!(running.get(SETTING).await, (200, defaults()));
}

#[tokio::test]
async fn settings_are_of_models_that_are_there_and_not_of_versions() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1000, |_| {}).await;
    let unknown = json!({"error": "Request for unknown model : nobody"});
    let path = "/v2/models/nobody/trace/setting";
    assert_eq!(running.get(path).await, (400, unknown.clone()));
    assert_eq!(running.post(path, "{}").await, (400, unknown));
    let mut client = connect(&running).await;
    let refused = client.trace_setting(setting("nobody", &json!({}))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "Request for unknown model : nobody");
    for path in ["/v2/models/m/versions/3/trace/setting", "/v2/trace/setting/m", "/v2/trace"] {
        assert_eq!(running.get(path).await.0, 404, "{path}");
    }
}

fn setting(model: &str, settings: &Value) -> TraceSettingRequest {
    let texts = |value: &Value| match value {
        Value::Null => Vec::new(),
        Value::Array(values) => {
            values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
        }
        value => vec![value.as_str().unwrap().to_owned()],
    };
    let settings = settings.as_object().unwrap().iter();
    let settings =
        settings.map(|(name, value)| (name.clone(), SettingValue { value: texts(value) }));
    TraceSettingRequest { settings: settings.collect(), model_name: model.to_owned() }
}

/// D9: over gRPC, where an empty list of values clears.
#[tokio::test]
async fn settings_are_read_changed_and_cleared_over_grpc() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1000, |_| {}).await;
    let mut client = connect(&running).await;
    let mut ask = async |model: &str, change: Value| -> HashMap<String, Vec<String>> {
        let answered = client.trace_setting(setting(model, &change)).await.unwrap().into_inner();
        answered.settings.into_iter().map(|(name, setting)| (name, setting.value)).collect()
    };
    let before = ask("", json!({})).await;
    let names =
        ["log_frequency", "trace_count", "trace_file", "trace_level", "trace_mode", "trace_rate"];
    let mut found: Vec<_> = before.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    assert_eq!(
        (&before["trace_level"], &before["trace_file"]),
        (&vec!["OFF".to_owned()], &vec![String::new()])
    );
    let on = json!({"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "1"});
    assert_eq!(ask("m", on).await["trace_level"], ["TIMESTAMPS", "TENSORS"]);
    assert_eq!(ask("", json!({})).await, before);
    infer(&running, 1).await;
    collector.traces(1).await;
    assert_eq!(ask("m", json!({"trace_level": [], "trace_rate": null})).await, before);
}

#[tokio::test]
async fn without_a_collector_nothing_is_turned_on() {
    let running = serve_with(MODELS, |settings| {
        settings.serve_control = vec![ControlGroup::Trace];
    })
    .await;
    assert_eq!(running.get(SETTING).await, (200, defaults()));
    let on = json!({"trace_level": ["TIMESTAMPS"]}).to_string();
    for path in [SETTING, "/v2/models/m/trace/setting"] {
        let (status, body) = running.post(path, on.clone()).await;
        let text = body["error"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(text.contains("invalid trace setting") && text.contains("--trace-otlp"), "{text}");
    }
    assert_eq!(running.post(SETTING, r#"{"trace_rate": "5"}"#).await.0, 200);
    assert!(!lists_trace(&running, false).await && !lists_trace(&running, true).await);
}

/// Whether server metadata lists traces.
async fn lists_trace(caller: &Caller, on_admin: bool) -> bool {
    let url = if on_admin { caller.admin("/v2") } else { caller.url("/v2") };
    let (_, metadata) = answer(caller.client.get(url)).await;
    metadata["extensions"].as_array().unwrap().contains(&json!("trace"))
}

#[tokio::test]
async fn settings_belong_to_operators_unless_they_are_opened() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[], 1, |settings| settings.serve_control.clear()).await;
    for path in [SETTING, "/v2/models/m/trace/setting"] {
        for (status, body) in [running.get(path).await, running.post(path, "{}").await] {
            assert_eq!(status, 403);
            assert!(body["error"].as_str().unwrap().contains("--serve-control trace"), "{body}");
        }
    }
    let mut client = connect(&running).await;
    let refused = client.trace_setting(TraceSettingRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let admin = running.client.post(running.admin(SETTING)).body(r#"{"trace_rate": "5"}"#);
    assert_eq!(answer(admin).await.0, 200);
    assert!(!lists_trace(&running, false).await && lists_trace(&running, true).await);
    let opened = traced(&collector, &[], 1, |_| {}).await;
    assert!(lists_trace(&opened, false).await);
}

/// Requests are answered as ever, the loss is counted and said once, and the end does not wait.
#[tokio::test]
async fn a_collector_that_is_away_costs_no_request() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let flags = [format!("--trace-otlp=http://{nobody}"), "--trace-level=TIMESTAMPS".to_owned()];
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--trace-rate=1"]).collect();
    let process = Process::start(MODELS, &flags).await;
    let series = dropped_for("export_failed");
    let dropped = async || process.count(&series).await;
    infer(&process, 10).await;
    wait_until("the first loss", async || dropped().await > 0.0).await;
    infer(&process, 10).await;
    wait_until("the second loss", async || dropped().await == 20.0 * 9.0).await;
    infer(&process, 1).await;
    let begun = Instant::now();
    let log = process.end_without_an_error().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let says = |entry: &&Value| entry.to_string().contains("traces cannot be sent");
    assert_eq!(log.iter().filter(says).count(), 1, "{log:?}");
}

/// Spans that were dropped for a reason.
fn dropped_for(reason: &str) -> String {
    format!("sluice_dropped_spans_total{{reason=\"{reason}\"}}")
}

/// One that takes connections and never answers: what does not fit into the queue is dropped.
#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let running = serve_with(MODELS, |settings| {
        settings.trace.trace_otlp = Some(format!("http://{}", hanging.local_addr().unwrap()));
        settings.trace.trace_level = vec![TraceLevel::Tensors];
        settings.trace.trace_rate = Some(1);
    })
    .await;
    let mut client = connect(&running).await;
    let asking = Instant::now();
    let questions = stream::iter((0..3000).map(|_| ones("m", 1)));
    let answers = client.model_stream_infer(questions).await.unwrap().into_inner();
    assert_eq!(answers.count().await, 3000);
    assert!(asking.elapsed() < Duration::from_secs(9), "{:?}", asking.elapsed());
    let series = dropped_for("queue_full");
    wait_until("the loss", async || running.count(&series).await > 1000.0).await;
    let ending = Instant::now();
    running.gateway.drain().await;
    assert!(ending.elapsed() < Duration::from_secs(8), "{:?}", ending.elapsed());
}

#[tokio::test]
async fn what_is_left_is_sent_at_the_end() {
    let collector = Collector::start().await;
    let running = traced(&collector, &[TraceLevel::Timestamps], 1, |_| {}).await;
    infer(&running, 100).await;
    running.gateway.drain().await;
    assert_eq!(collector.spans().len(), 100 * 9);
}

/// Nothing is set up that nobody asked for.
#[tokio::test]
async fn a_request_that_brings_a_trace_is_answered_where_none_are_taken() {
    let running = serve(MODELS).await;
    infer_with(&running, &[("traceparent", parent("01"))]).await;
    assert!(!running.metrics().await.contains("spans_total{"));
}
