//! V2 over gRPC: what inputs may bring, the forms of outputs, limits, health and reflection.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use sluice_gateway::{GrpcOutput, UnknownReady};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sluice_protocol::grpc::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::inference::connect;
use crate::raw_call::{RawCaller, framed};
use crate::support::{Process, serve, serve_with, within};

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

/// The outputs of "mixed" in the forms in which they can come.
const MIXED: [(&str, &str, &[u8]); 3] = [
    ("id", "INT64", b"\x07\0\0\0\0\0\0\0"),
    ("name", "BYTES", b"\x02\0\0\0\xc3\xa9"),
    ("on", "BOOL", b"\x01"),
];

fn mixed_contents() -> [InferTensorContents; 3] {
    let text = Bytes::from_static("é".as_bytes());
    [
        InferTensorContents { int64_contents: vec![7], ..Default::default() },
        InferTensorContents { bytes_contents: vec![text], ..Default::default() },
        InferTensorContents { bool_contents: vec![true], ..Default::default() },
    ]
}

/// A request whose inputs are raw, and the same with typed ones.
fn mixed() -> [ModelInferRequest; 2] {
    let request = ModelInferRequest {
        model_name: "mixed".to_owned(),
        id: "q".to_owned(),
        inputs: MIXED.map(|(name, datatype, _)| input(name, datatype, &[1])).to_vec(),
        ..Default::default()
    };
    let raw_input_contents = MIXED.map(|(_, _, raw)| Bytes::from_static(raw)).to_vec();
    let raw = ModelInferRequest { raw_input_contents, ..request.clone() };
    let mut typed = request;
    for (input, contents) in typed.inputs.iter_mut().zip(mixed_contents()) {
        input.contents = Some(contents);
    }
    [raw, typed]
}

/// C3.1 to C3.4.
#[tokio::test]
async fn outputs_take_the_form_that_is_asked_for() {
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
        for (request, expected) in mixed().into_iter().zip([of_raw, of_typed]) {
            let answer = client.model_infer(request).await.unwrap().into_inner();
            assert_eq!(form(&answer), expected, "{choice:?}");
            assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("q", "4"));
            for (index, (name, datatype, raw)) in MIXED.into_iter().enumerate() {
                let output = &answer.outputs[index];
                assert_eq!(output.name, format!("{name}_out"));
                assert_eq!((output.datatype.as_str(), &output.shape[..]), (datatype, &[1][..]));
                if let Some(found) = &output.contents {
                    assert_eq!(found, &mixed_contents()[index]);
                }
                if expected.1 > 0 {
                    assert_eq!(answer.raw_output_contents[index], raw);
                }
            }
        }
    }
}

/// C3.5 and C3.6.
#[tokio::test]
async fn outputs_are_those_that_are_asked_for() {
    let running = serve(&[("mixed", 4, "mixed.onnx")]).await;
    let mut client = connect(&running).await;
    let [request, _] = mixed();
    let asked = |name: &str| {
        let output = InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() };
        ModelInferRequest { outputs: vec![output], ..request.clone() }
    };
    let answer = client.model_infer(asked("on_out")).await.unwrap().into_inner();
    assert_eq!((answer.outputs.len(), &answer.outputs[0].name[..]), (1, "on_out"));
    assert_eq!(answer.raw_output_contents, [&b"\x01"[..]]);
    let status = client.model_infer(asked("off_out")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
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
        ("scale", "99999999999999999999", Code::NotFound, "version 99999999999999999999 is not"),
        ("scale", "01", Code::NotFound, "version 01 is not found"),
        ("scale", "0", Code::NotFound, "version 0 is not found"),
    ] {
        let request =
            ModelInferRequest { model_version: version.to_owned(), ..ones(model_name, 1) };
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
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
