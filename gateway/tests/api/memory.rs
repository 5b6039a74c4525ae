//! Requests that take far more memory than they have bytes, when they are read.

use bytes::Bytes;
use futures::{StreamExt, stream};
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};
use tonic::Code;

use crate::grpc_busy::rounds;
use crate::inference::connect;
use crate::raw_call::{RawCaller, framed};
use crate::support::{Process, answer, within};

/// The longest body, in bytes.
const LIMIT: usize = 8 << 20;

/// As many of `unit` between `head` and `tail` as a body may have.
fn body(head: &str, unit: &str, tail: &str) -> String {
    let count = (LIMIT - head.len() - tail.len()) / unit.len();
    format!("{head}{}{tail}", unit.repeat(count))
}

#[tokio::test]
async fn what_takes_much_more_memory_than_it_has_bytes_is_refused_without_it() {
    let flag = format!("--max-body={LIMIT}");
    let models = [("scale", 1, "scale.onnx"), ("texts", 1, "identity/BYTES.onnx")];
    let running = Process::start(&models, &[&flag]).await;
    let (v1, v2) = ("/v1/models/texts:predict", "/v2/models/texts/infer");
    let doubles = r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":["#;
    let texts = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["#;
    let binary = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[2000000],"parameters":{"binary_data_size":8000000}}]}"#;
    let raw = format!("{binary}{}", "\0".repeat(8_000_000));
    let before = running.status("VmHWM");
    for (path, body, header) in [
        (v1, body(r#"{"instances":["#, "\"\",", r#"""]}"#), None),
        (v1, body(r#"{"instances":["#, r#"{"INPUT0":""},"#, r#"{"INPUT0":""}]}"#), None),
        (v1, body(r#"{"inputs":{"y":["#, "0,", "0]}}"), None),
        ("/v2/models/texts/generate", body(r#"{"INPUT0":["#, "\"\",", r#"""]}"#), None),
        (v2, body(doubles, "0,", "0]}]}"), None),
        (v2, body(texts, "\"\",", r#"""]}]}"#), None),
        (v2, body(r#"{"inputs":[],"outputs":["#, r#"{"name":""},"#, r#"{"name":""}]}"#), None),
        (v2, raw, Some(binary.len())),
    ] {
        let start: String = body.chars().take(60).collect();
        let mut request = running.client.post(running.url(path)).body(body);
        if let Some(length) = header {
            request = request.header("inference-header-content-length", length);
        }
        let (status, answer) = answer(request).await;
        let text = answer["error"].as_str().unwrap_or_default();
        // A list may be refused for its length before it is for its memory.
        let (refused, says) = match start.contains("outputs") {
            true => (400, "more than 16384 tensors"),
            false => (413, "more than 16777216 bytes of memory"),
        };
        assert!(status == refused && text.contains(says), "{path} {start}: {status} {answer}");
    }
    let mut client = connect(&running).await.max_encoding_message_size(LIMIT);
    for contents in [
        InferTensorContents { int64_contents: vec![0; 8_000_000], ..Default::default() },
        InferTensorContents { bytes_contents: vec!["".into(); 4_000_000], ..Default::default() },
    ] {
        let input = InferInputTensor { contents: Some(contents), ..Default::default() };
        let model_name = "texts".to_owned();
        let request = ModelInferRequest { model_name, inputs: vec![input], ..Default::default() };
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("more than 16777216 bytes of memory"), "{status:?}");
    }
    // A body on its way, and what may be made of it; some of them are still being let go.
    let taken = (running.status("VmHWM") - before) << 10;
    assert!(taken < 6 * LIMIT as u64, "{taken} bytes of memory were taken");
    running.end_without_an_error().await;
}

#[tokio::test]
async fn what_is_large_and_takes_what_it_has_is_answered() {
    let flag = format!("--max-body={LIMIT}");
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[&flag]).await;
    let rows = 900_000;
    let values = vec!["0.5"; 2 * rows].join(",");
    let request = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{rows},2],"data":[{values}]}}]}}"#
    );
    let (status, answer) = running.post("/v2/models/scale/infer", request).await;
    assert_eq!((status, answer["outputs"][0]["shape"][0].as_u64()), (200, Some(rows as u64)));
    running.end_without_an_error().await;
}

/// Where a text does not belong, and of what would be made of it: each character is written as six.
#[tokio::test]
async fn a_long_text_in_the_wrong_place_makes_no_long_error() {
    let flag = format!("--max-body={LIMIT}");
    let models = [
        ("scale", 1, "scale.onnx"),
        ("texts", 1, "identity/BYTES.onnx"),
        ("mixed", 1, "mixed.onnx"),
    ];
    let running = Process::start(&models, &[&flag]).await;
    let (v1, v2) = ("/v1/models/mixed:predict", "/v2/models/scale/infer");
    let generate = "/v2/models/texts/generate";
    let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32",{rest}"#);
    let event = ("content-type", "application/cloudevents+json");
    let before = running.status("VmHWM");
    for (path, head, tail, header) in [
        (v1, "\"", "\"", None),
        (v1, "\"", "\"", Some(event)),
        (v1, "\"", "\"", Some(("ce-specversion", "1.0"))),
        (v1, r#"{"instances":[{"id":1,"name":"a","on":true},""#, r#""]}"#, None),
        (v1, r#"{"instances":[{"id":1,""#, r#"":1}]}"#, None),
        (v1, r#"{"signature_name":""#, r#"","inputs":{}}"#, None),
        (v1, r#"{"inputs":{""#, r#"":[1]}}"#, None),
        (v2, "\"", "\"", None),
        (v2, &input(r#""shape":""#), r#"","data":[1]}]}"#, None),
        (v2, &input(r#""shape":[""#), r#""],"data":[1]}]}"#, None),
        (v2, &input(r#""shape":[1],"parameters":""#), r#"","data":[1]}]}"#, None),
        (v2, &input(r#""shape":[1,2],"data":[1,""#), r#""]}]}"#, None),
        (v2, r#"{"inputs":[{"name":"x","shape":[1,2],"data":[1,2],"datatype":""#, r#""}]}"#, None),
        (v2, r#"{"inputs":[{"datatype":"FP32","shape":[1],"data":[1],"name":""#, r#""}]}"#, None),
        (v2, r#"{"inputs":""#, r#""}"#, None),
        (v2, r#"{"inputs":[""#, r#""]}"#, None),
        (v2, r#"{"inputs":[],"outputs":""#, r#""}"#, None),
        (v2, r#"{"inputs":[],"outputs":[""#, r#""]}"#, None),
        (v2, r#"{"inputs":[],"parameters":""#, r#""}"#, None),
        (v2, r#"{"inputs":[],"parameters":{"triton_"#, r#"":1}}"#, None),
        (v2, r#"{"inputs":[],"parameters":{""#, r#"":null}}"#, None),
        (v2, r#"{"inputs":[],"outputs":[{"name":""#, r#""}]}"#, None),
        (generate, "\"", "\"", None),
        (generate, r#"{"parameters":""#, r#""}"#, None),
        (generate, r#"{""#, r#"":null}"#, None),
    ] {
        let mut request = running.client.post(running.url(path)).body(body(head, "\u{7f}", tail));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (status, answer) = answer(request).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{path} {head}: {answer}");
        assert!((1..=801).contains(&text.chars().count()), "{path} {head}: {answer}");
    }
    let taken = (running.status("VmHWM") - before) << 10;
    // The text written out would be twenty times the limit.
    assert!(taken < 8 * LIMIT as u64, "{taken} bytes of memory were taken");
    running.end_without_an_error().await;
}

/// A message of field 3 over and over, with nothing in it.
fn empty_entries(length: usize) -> Bytes {
    framed(&[0x1a, 0].repeat(length / 2))
}

/// Fault 15: calls for operators are refused before their messages are read, and where they are
/// answered, their messages are short, or have few parts.
#[tokio::test]
async fn control_messages_are_refused_without_memory_for_them() {
    let models = [("scale", 1, "scale.onnx")];
    let flag = format!("--max-body={LIMIT}");
    let closed = Process::start(&models, &[&flag]).await;
    let groups = "--serve-control=model-repository,trace,logging,shared-memory";
    let open = Process::start(&models, &[&flag, groups, "--model-control=explicit"]).await;
    for (process, codes) in [
        (closed, [Code::PermissionDenied; 4]),
        (
            open,
            [
                Code::InvalidArgument,
                Code::ResourceExhausted,
                Code::ResourceExhausted,
                Code::ResourceExhausted,
            ],
        ),
    ] {
        let before = process.status("VmHWM");
        let methods =
            ["RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"];
        for (method, code) in methods.into_iter().zip(codes) {
            let mut raw = RawCaller::connect(&process).await;
            let path = format!("/inference.GRPCInferenceService/{method}");
            let refused = raw.call(&path, &[], empty_entries(LIMIT - 100)).await;
            assert_eq!(refused.code, code, "{method}: {refused:?}");
        }
        let mut raw = RawCaller::connect(&process).await;
        let metadata = "/inference.GRPCInferenceService/ModelMetadata";
        let refused = raw.call(metadata, &[], empty_entries(LIMIT - 100)).await;
        assert_eq!(refused.code, Code::ResourceExhausted, "{refused:?}");
        let taken = (process.status("VmHWM") - before) << 10;
        assert!(taken < 6 * LIMIT as u64, "{taken} bytes of memory were taken");
        process.end_without_an_error().await;
    }
}

/// What is answered behind a question that takes its time waits for it; not all that a client asks
/// meanwhile does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_few_answers_behind_a_slow_one() {
    const QUESTIONS: usize = 6000;
    let worker = "format = 1\ninstances = 1\nexecutor = \"workers\"\n";
    let models = [("m", 1, "rounds.onnx")];
    let process = Process::start_as(&models, worker, &["--max-body=1000000"]).await;
    let before = process.status("VmHWM");
    let wrong = |number: usize| ModelInferRequest {
        id: format!("{number}{}", "x".repeat(20_000)),
        model_version: "9".to_owned(),
        ..rounds(1)
    };
    let slow = ModelInferRequest { id: "slow".to_owned(), ..rounds(3_000_000) };
    let questions = stream::iter([slow]).chain(stream::iter((0..QUESTIONS).map(wrong)));
    let mut client = connect(&process).await.max_decoding_message_size(usize::MAX);
    let mut answers = client.model_stream_infer(questions).await.unwrap().into_inner();
    let mut answered = 0usize;
    while let Some(answer) = within("an answer", answers.next()).await {
        let answer = answer.unwrap();
        let id = answer.infer_response.unwrap().id;
        let expected = answered.checked_sub(1).map_or("slow".to_owned(), |n| n.to_string());
        assert_eq!(id.trim_end_matches('x'), expected);
        assert_eq!(answer.error_message.is_empty(), answered == 0, "{}", answer.error_message);
        answered += 1;
    }
    assert_eq!(answered, QUESTIONS + 1);
    let taken = (process.status("VmHWM") - before) << 10;
    assert!(taken < 60 << 20, "{taken} bytes of memory were taken");
    process.end_without_an_error().await;
}
