//! V2 over gRPC: what inputs may bring, the forms of outputs, limits, health and reflection.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use prost::Message;
use serde_json::json;
use sluice_gateway::{GrpcOutput, MetricNames, OverloadStatus, Settings, UnknownReady};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sluice_protocol::grpc::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
    ServerLiveRequest,
};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::inference::connect;
use crate::raw_call::{INFER, RawCaller, a_while, and_then_silence, framed};
use crate::support::{
    Process, Running, answer, serve, serve_as, serve_with, value, wait_until, within,
};

/// An input with neither contents nor raw ones yet.
pub(crate) fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

/// The input `x` of the graphs that double: some rows, and raw contents of ones for them.
pub(crate) fn ones(model: &str, rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input("x", "FP32", &[i64::try_from(rows).unwrap(), 2])],
        raw_input_contents: vec![1f32.to_le_bytes().repeat(2 * rows).into()],
        ..Default::default()
    }
}

fn typed(input: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    let inputs = vec![InferInputTensor { contents: Some(contents), ..input }];
    ModelInferRequest { model_name: "scale".to_owned(), inputs, ..Default::default() }
}

fn raw(input: InferInputTensor, raw: &[&'static [u8]]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|raw| Bytes::from_static(raw)).collect();
    let (model_name, inputs) = ("scale".to_owned(), vec![input]);
    ModelInferRequest { model_name, inputs, raw_input_contents, ..Default::default() }
}

fn floats(values: &[f32]) -> InferTensorContents {
    InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() }
}

fn parameter(name: &str, choice: Option<ParameterChoice>) -> HashMap<String, InferParameter> {
    HashMap::from([(name.to_owned(), InferParameter { parameter_choice: choice })])
}

/// C2.1 to C2.6: what is refused, and why.
#[tokio::test]
async fn contents_belong_to_the_input_and_fill_it() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let mut client = connect(&running).await;
    let x = || input("x", "FP32", &[1, 2]);
    let of = |datatype: &str, shape: &[i64]| input("x", datatype, shape);
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..Default::default()
    };
    let uints = |values: &[u32]| InferTensorContents {
        uint_contents: values.to_vec(),
        ..Default::default()
    };
    let mixed = ModelInferRequest {
        raw_input_contents: vec![Bytes::from_static(&[0; 8])],
        ..typed(x(), floats(&[1.0, 2.0]))
    };
    let eight: &[u8] = &[0; 8];
    for (request, says) in [
        (mixed, "contents field must not be specified when using raw_input_contents for \"x\""),
        (raw(x(), &[]), "unable to find data for it in the request for model scale"),
        (raw(of("FP32", &[0, 2]), &[]), "unable to find data"),
        // Empty contents are contents, here for a batch of nothing.
        (typed(of("FP32", &[0, 2]), InferTensorContents::default()), "\"x\": has no rows"),
        (raw(x(), &[eight, eight]), "raw_input_contents has 2 entries, 1 more than"),
        (typed(x(), ints(&[1, 2])), "has int_contents, where the elements of FP32 go into fp32"),
        (
            typed(x(), InferTensorContents { bool_contents: vec![true], ..floats(&[1.0, 2.0]) }),
            "has bool_contents, where",
        ),
        (typed(x(), floats(&[1.0])), "needs 2 elements, got 1"),
        (typed(of("FP16", &[1, 2]), uints(&[1, 2])), "FP16 goes into raw_input_contents"),
        (typed(of("BF16", &[1, 2]), uints(&[1, 2])), "BF16 goes into raw_input_contents"),
        (typed(of("INT8", &[1, 2]), ints(&[1, 300])), "element 300 is out of the range of INT8"),
        (typed(of("INT16", &[1]), ints(&[-40_000])), "element -40000 is out of the range of INT16"),
        (typed(of("UINT8", &[1]), uints(&[256])), "element 256 is out of the range of UINT8"),
        (typed(of("UINT16", &[1]), uints(&[65_536])), "is out of the range of UINT16"),
        (raw(x(), &[&[0; 7]]), "byte size mismatch: expected 8 bytes"),
        (raw(x(), &[&[0; 12]]), "byte size mismatch: expected 8 bytes"),
        (raw(of("FP32", &[1 << 40, 1 << 22]), &[eight]), "byte size mismatch: expected more"),
        (raw(of("BYTES", &[1, 2]), &[b"\x02\0\0\0ab"]), "needs 2 elements, got 1"),
        (raw(of("BYTES", &[1]), &[b"\x03\0\0\0ab"]), "BYTES element 0 is cut off"),
        (raw(of("FP32", &[-1, 2]), &[eight]), "negative dimension"),
        (raw(of("FP32", &[1 << 32, 1 << 32]), &[eight]), "more elements than"),
        (raw(of("FP32", &[1; 65]), &[eight]), "shape has 65 dimensions"),
        (raw(of("FLOAT", &[1, 2]), &[eight]), "unknown datatype \"FLOAT\""),
        (
            raw(of("FP64", &[1, 1]), &[eight]),
            "data-type is 'FP64', but model 'scale' expects 'FP32'",
        ),
        (raw(of("FP32", &[2, 1]), &[eight]), "Expected [-1,2], got [2,1]"),
        (raw(of("FP32", &[2]), &[eight]), "Expected [-1,2], got [2]"),
        (raw(input("z", "FP32", &[1, 2]), &[eight]), "\"x\": is missing"),
    ] {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}: {request:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    assert!(client.model_infer(ones("scale", 1)).await.is_ok());
    running.end_without_an_error().await;
}

/// C2.7.
#[tokio::test]
async fn parameters_have_the_types_that_the_protocol_gives_them() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut client = connect(&running).await;
    let with = |name: &str, choice| ModelInferRequest {
        parameters: parameter(name, choice),
        ..ones("scale", 1)
    };
    let text = || Some(StringParam("a".to_owned()));
    for (name, choice) in [
        ("priority", Some(Int64Param(0))),
        ("priority", Some(Uint64Param(0))),
        ("timeout", Some(Int64Param(9_000_000))),
        ("timeout", Some(Uint64Param(9_000_000))),
        ("triton_enable_empty_final_response", Some(BoolParam(true))),
        // A model without sequences answers each request by itself.
        ("sequence_id", Some(Uint64Param(1))),
        ("sequence_id", Some(Int64Param(1))),
        ("sequence_id", text()),
        ("sequence_start", Some(BoolParam(true))),
        ("own", Some(BoolParam(true))),
        ("own", Some(Int64Param(-1))),
        ("own", Some(Uint64Param(u64::MAX))),
        ("own", Some(DoubleParam(0.5))),
        ("own", text()),
    ] {
        let answered = client.model_infer(with(name, choice.clone())).await;
        assert!(answered.is_ok(), "{name} {choice:?}: {answered:?}");
    }
    for (name, choice, says) in [
        (
            "priority",
            Some(Int64Param(-1)),
            "\"priority\" must be a whole number that is not negative",
        ),
        ("priority", text(), "\"priority\" must be a whole number"),
        ("timeout", Some(DoubleParam(1.0)), "\"timeout\" must be a whole number"),
        ("timeout", Some(Int64Param(-5)), "\"timeout\" must be a whole number"),
        ("own", None, "\"own\" must be a value"),
        ("sequence_id", Some(DoubleParam(1.0)), "\"sequence_id\" must be a whole number that"),
        ("sequence_id", Some(Int64Param(-1)), "or a string"),
        ("sequence_start", text(), "\"sequence_start\" must be true or false"),
        ("sequence_end", Some(Int64Param(1)), "\"sequence_end\" must be true or false"),
        ("triton_enable_empty_final_response", Some(Int64Param(1)), "must be true or false"),
        ("triton_other", Some(BoolParam(true)), "\"triton_other\""),
    ] {
        let status = client.model_infer(with(name, choice)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
}

/// What an answer has: contents of its outputs, and raw contents.
fn form(answer: &ModelInferResponse) -> (usize, usize) {
    let typed = answer.outputs.iter().filter(|output| output.contents.is_some());
    (typed.count(), answer.raw_output_contents.len())
}

/// C3.1 to C3.6.
#[tokio::test]
async fn outputs_take_the_form_that_is_asked_for() {
    let names = [("id", "INT64"), ("name", "BYTES"), ("on", "BOOL")];
    let raw = [&b"\x07\0\0\0\0\0\0\0"[..], b"\x02\0\0\0\xc3\xa9", b"\x01"];
    let inputs = names.map(|(name, datatype)| input(name, datatype, &[1]));
    let contents = [
        InferTensorContents { int64_contents: vec![7], ..Default::default() },
        InferTensorContents {
            bytes_contents: vec![Bytes::from_static("é".as_bytes())],
            ..Default::default()
        },
        InferTensorContents { bool_contents: vec![true], ..Default::default() },
    ];
    let request = ModelInferRequest {
        model_name: "mixed".to_owned(),
        id: "q".to_owned(),
        inputs: inputs.to_vec(),
        raw_input_contents: raw.map(Bytes::from_static).to_vec(),
        ..Default::default()
    };
    let mut typed = ModelInferRequest { raw_input_contents: Vec::new(), ..request.clone() };
    for (input, contents) in typed.inputs.iter_mut().zip(&contents) {
        input.contents = Some(contents.clone());
    }
    for (choice, of_raw, of_typed) in [
        (None, (0, 3), (3, 0)),
        (Some(GrpcOutput::Mirror), (0, 3), (3, 0)),
        (Some(GrpcOutput::Raw), (0, 3), (0, 3)),
        (Some(GrpcOutput::Both), (3, 3), (3, 3)),
    ] {
        let running = serve_with(&[("mixed", 4, "mixed.onnx")], |settings| {
            settings.dialect.grpc_output = choice;
        })
        .await;
        let mut client = connect(&running).await;
        for (request, expected) in [(&request, of_raw), (&typed, of_typed)] {
            let answer = client.model_infer(request.clone()).await.unwrap().into_inner();
            assert_eq!(form(&answer), expected, "{choice:?}");
            assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("q", "4"));
            for (index, output) in answer.outputs.iter().enumerate() {
                assert_eq!(output.name, format!("{}_out", names[index].0));
                assert_eq!(
                    (output.datatype.as_str(), &output.shape[..]),
                    (names[index].1, &[1][..])
                );
                if let Some(found) = &output.contents {
                    assert_eq!(found, &contents[index]);
                }
                if expected.1 > 0 {
                    assert_eq!(answer.raw_output_contents[index], raw[index]);
                }
            }
        }
        let asked = |names: &[&str]| {
            let outputs = names.iter().map(|name| InferRequestedOutputTensor {
                name: (*name).to_owned(),
                ..Default::default()
            });
            ModelInferRequest { outputs: outputs.collect(), ..request.clone() }
        };
        let answer = client.model_infer(asked(&["on_out"])).await.unwrap().into_inner();
        assert_eq!((answer.outputs.len(), &answer.outputs[0].name[..]), (1, "on_out"));
        assert_eq!(answer.raw_output_contents, [&b"\x01"[..]]);
        let status = client.model_infer(asked(&["off_out"])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

/// C3.1: FP16 and BF16 have no typed form.
#[tokio::test]
async fn sixteen_bits_come_and_go_raw() {
    let running = serve(&[("half", 1, "half.onnx")]).await;
    let raw = [Bytes::from_static(b"\0\x3c\0\x40"), Bytes::from_static(b"\x80\x3f\0\x40")];
    let request = ModelInferRequest {
        model_name: "half".to_owned(),
        inputs: vec![input("half", "FP16", &[1, 2]), input("brain", "BF16", &[1, 2])],
        raw_input_contents: raw.to_vec(),
        ..Default::default()
    };
    let answer = connect(&running).await.model_infer(request).await.unwrap().into_inner();
    assert_eq!(form(&answer), (0, 2));
    assert_eq!(answer.raw_output_contents, raw);
}

/// C4.
#[tokio::test]
async fn readiness_of_an_unknown_model_is_as_the_dialect_has_it() {
    for (choice, unknown) in
        [(None, Ok(false)), (Some(UnknownReady::NotFound), Err(Code::NotFound))]
    {
        let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
            settings.dialect.unknown_ready = choice;
        })
        .await;
        let mut client = connect(&running).await;
        for (name, version, expected) in [
            ("scale", "", Ok(true)),
            ("scale", "1", Ok(true)),
            ("scale", "2", unknown),
            ("other", "", unknown),
            ("scale", "one", Err(Code::InvalidArgument)),
        ] {
            let request = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
            let answer = client.model_ready(request).await;
            let ready = answer.map(|answer| answer.into_inner().ready);
            assert_eq!(ready.map_err(|status| status.code()), expected, "{name} {version}");
        }
    }
}

#[tokio::test]
async fn a_model_that_is_unknown_is_told_in_triton_s_words() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut client = connect(&running).await;
    for (model_name, version, code, says) in [
        ("other", "", Code::NotFound, "Request for unknown model: 'other' is not found"),
        ("../../etc/passwd\0", "", Code::NotFound, "Request for unknown model"),
        ("sc\u{430}le", "", Code::NotFound, "Request for unknown model"),
        ("scale", "9", Code::NotFound, "Request for unknown model: 'scale' version 9"),
        ("scale", "../1", Code::InvalidArgument, "model version \"../1\" is no number"),
        ("scale", "99999999999999999999", Code::InvalidArgument, "is no number"),
    ] {
        let request =
            ModelInferRequest { model_version: version.to_owned(), ..ones(model_name, 1) };
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
}

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
    let cancelled = "sluice_requests_total{model=\"m\",version=\"1\",code=\"cancelled\"}";
    wait_until("everybody has left", async || running.count(cancelled).await == 21.0).await;
    assert!(!long.is_finished());
    assert!(long.await.unwrap().is_ok());
    assert!(client.model_infer(rounds(1)).await.is_ok());
    let run = running.count(BATCHES).await;
    assert_eq!(run, 2.0, "the long one and the last one");
}

fn zipped(message: &[u8]) -> Bytes {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut zip, message).unwrap();
    let zipped = zip.finish().unwrap();
    let length = u32::try_from(zipped.len()).unwrap();
    [&[1][..], &length.to_be_bytes(), &zipped].concat().into()
}

/// C4, fault 15.
#[tokio::test]
async fn messages_may_be_compressed_in_ways_that_are_known() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.max_body = Some(100_000);
    })
    .await;
    let client = connect(&running).await.accept_compressed(CompressionEncoding::Gzip);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let answer = client.clone().send_compressed(encoding).model_infer(ones("scale", 1)).await;
        let answer = answer.unwrap();
        // Nobody asked for compressed answers.
        assert!(!answer.metadata().contains_key("grpc-encoding"));
        assert_eq!(answer.into_inner().raw_output_contents[0], 3f32.to_le_bytes().repeat(2));
    }
    let mut raw = RawCaller::connect(&running).await;
    let message = ones("scale", 1).encode_to_vec();
    let bomb = zipped(&ones("scale", 100_000).encode_to_vec());
    assert!(bomb.len() < 10_000);
    for (encoding, bytes, code, says) in [
        (Some("gzip"), zipped(&message), Code::Ok, ""),
        (Some("gzip"), framed(&message), Code::Ok, ""),
        (Some("identity"), framed(&message), Code::Ok, ""),
        (Some("br"), framed(&message), Code::Unimplemented, "`br` which isn't supported"),
        (None, zipped(&message), Code::Internal, "compressed-flag but no grpc-encoding"),
        (Some("gzip"), bomb, Code::ResourceExhausted, "size limit, of 100000 bytes"),
    ] {
        let headers: Vec<_> =
            encoding.map(|encoding| ("grpc-encoding", encoding)).into_iter().collect();
        let ended = raw.call(INFER, &headers, bytes).await;
        assert_eq!(ended.code, code, "{encoding:?}: {ended:?}");
        assert!(ended.message.contains(says), "{says}: {ended:?}");
        if code == Code::Unimplemented {
            assert_eq!(ended.headers["grpc-accept-encoding"], "gzip,deflate,identity");
        }
    }
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.transport.grpc_compress_replies = Some(true);
    })
    .await;
    for (accepted, expected) in [("identity,deflate,gzip", Some("deflate")), ("identity", None)] {
        let mut raw = RawCaller::connect(&running).await;
        let headers = [("grpc-accept-encoding", accepted)];
        let many = framed(&ones("scale", 1000).encode_to_vec());
        let ended = raw.call(INFER, &headers, many).await;
        let encoding = ended.headers.get("grpc-encoding").map(|value| value.to_str().unwrap());
        assert_eq!((ended.code, encoding), (Code::Ok, expected), "{ended:?}");
        assert_eq!(ended.body.len() < 1000, expected.is_some());
    }
}

/// Faults 15 and 16.
#[tokio::test]
async fn what_is_no_message_is_refused_without_memory_for_it() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let mut raw = RawCaller::connect(&running).await;
    let metadata = "/inference.GRPCInferenceService/ModelMetadata";
    let load = "/inference.GRPCInferenceService/ServerLive";
    // A group in a group in a group...
    let deep = [0x7b].repeat(60_000);
    let too_long = Bytes::from_static(b"\0\xff\xff\xff\xff");
    let truncated = framed(&ones("scale", 1).encode_to_vec()).slice(..20);
    let twice = [framed(b""), framed(b"")].concat();
    let parts = framed(&[0x2a, 0].repeat(70_000));
    for (path, bytes, code, says) in [
        (INFER, framed(b"\xff\xff\xff"), Code::InvalidArgument, "failed to decode Protobuf"),
        (metadata, framed(b"\x0a\x02\xff\xff"), Code::InvalidArgument, "failed to decode Protobuf"),
        (INFER, framed(&deep), Code::InvalidArgument, "recursion limit reached"),
        (metadata, framed(&deep), Code::InvalidArgument, "recursion limit reached"),
        (INFER, parts, Code::InvalidArgument, "more than 65536 inputs, outputs"),
        (
            INFER,
            framed(b"\x2a\x02\x2a\x03\0\0\0"),
            Code::InvalidArgument,
            "a part of it is longer than what it is in",
        ),
        (
            INFER,
            too_long.clone(),
            Code::ResourceExhausted,
            "Received message larger than max (4294967295 vs. 67108864)",
        ),
        (load, too_long, Code::ResourceExhausted, "Received message larger than max"),
        (INFER, truncated, Code::Internal, "Unexpected EOF"),
        (INFER, Bytes::new(), Code::Internal, "Missing request message"),
        (INFER, Bytes::from_static(b"\x07\0\0\0\0"), Code::Internal, "invalid compression flag"),
        (INFER, twice.into(), Code::InvalidArgument, "more than one message"),
        ("/inference.GRPCInferenceService/Nothing", framed(b""), Code::Unimplemented, ""),
        ("/other.Service/Nothing", framed(b""), Code::Unimplemented, ""),
    ] {
        let ended = raw.call(path, &[], bytes).await;
        assert_eq!(ended.code, code, "{path}: {ended:?}");
        assert!(ended.message.contains(says), "{says}: {ended:?}");
    }
    // Messages that say that they are as long as may be, of which nothing comes.
    let before = running.status("VmSize");
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut caller = RawCaller::connect(&running).await;
        let lying = Bytes::from_static(b"\0\x03\xff\xff\xff\x01");
        open.push(tokio::spawn(
            async move { caller.begin(INFER, &[], and_then_silence(lying)).await },
        ));
    }
    a_while().await;
    let taken = running.status("VmSize").saturating_sub(before);
    assert!(taken < 1 << 20, "{taken} KiB for messages that did not come");
    open.iter().for_each(tokio::task::JoinHandle::abort);
    let not_grpc = raw.call(INFER, &[("content-type", "application/json")], framed(b"")).await;
    assert_eq!(not_grpc.code, Code::Unknown, "{not_grpc:?}");
    assert!(connect(&running).await.model_infer(ones("scale", 1)).await.is_ok());
    running.end_without_an_error().await;
}

/// A message in as many pieces as it has bytes is the same message.
#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut raw = RawCaller::connect(&running).await;
    let message = framed(&ones("scale", 20).encode_to_vec());
    let pieces: Vec<_> = message.chunks(1).map(Bytes::copy_from_slice).collect();
    let ended = within("the answer", raw.send(INFER, &[], stream::iter(pieces))).await;
    assert_eq!(ended.code, Code::Ok, "{ended:?}");
    let answer = ModelInferResponse::decode(&ended.body[5..]).unwrap();
    assert_eq!(answer.raw_output_contents[0], 3f32.to_le_bytes().repeat(40));
}

#[tokio::test]
async fn health_is_told_and_its_changes() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let address = format!("http://{}", running.addresses.grpc);
    let channel = Endpoint::new(address).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for service in ["", "inference.GRPCInferenceService", "anything"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status().as_str_name(), "SERVING");
    }
    let request = HealthCheckRequest::default();
    let mut changes = client.watch(request).await.unwrap().into_inner();
    let first = within("the first", changes.next()).await.unwrap().unwrap();
    assert_eq!(first.status().as_str_name(), "SERVING");
    let begun = Instant::now();
    let drained = tokio::spawn(running.gateway.drain());
    let next = within("the change", changes.next()).await.unwrap().unwrap();
    assert_eq!(next.status().as_str_name(), "NOT_SERVING");
    let end = within("the end", changes.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    within("the drain", drained).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "a watcher held up the end");
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut raw = RawCaller::connect(&running).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // list_services, and the file of a symbol: fields 7 and 4.
        let symbol = b"inference.GRPCInferenceService";
        let asked = [
            framed(b"\x3a\0"),
            framed(&[&[0x22, u8::try_from(symbol.len()).unwrap()][..], symbol].concat()),
        ];
        let ended = raw.call(&path, &[], asked.concat()).await;
        assert_eq!(ended.code, Code::Ok, "{ended:?}");
        let text = String::from_utf8_lossy(&ended.body).into_owned();
        for service in
            ["inference.GRPCInferenceService", "grpc.health.v1.Health", "ModelStreamInfer"]
        {
            assert!(text.contains(service), "{version} {service}");
        }
        let length = u32::from_be_bytes(ended.body[1..5].try_into().unwrap()) as usize;
        let first = &ended.body[5..5 + length];
        let listed = match version {
            "v1" => format!("{:?}", v1::ServerReflectionResponse::decode(first).unwrap()),
            _ => format!("{:?}", v1alpha::ServerReflectionResponse::decode(first).unwrap()),
        };
        assert!(listed.contains("ListServicesResponse"), "{listed}");
    }
}
