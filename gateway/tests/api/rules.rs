//! Rules of the protocols that belong to no one of the other files. `docs/protocols.md` lists all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_gateway::ControlGroup;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferRequestedOutputTensor;
use sluice_protocol::grpc::{
    CudaSharedMemoryRegisterRequest, InferParameter, SystemSharedMemoryRegisterRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::grpc_busy::rounds;
use crate::grpc_v2::ones;
use crate::inference::connect;
use crate::raw_call::{RawCaller, framed};
use crate::support::{serve, serve_as, serve_with, within};

/// Seconds of work for the graph that counts.
const LONG: i64 = 3_000_000;

fn infer_body(more: &str) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    format!("{{\"inputs\": [{input}]{more}}}")
}

fn says(answered: &(u16, Value), status: u16, words: &str) {
    let (found, body) = answered;
    assert_eq!(*found, status, "{body}");
    assert!(body["error"].as_str().unwrap_or_default().contains(words), "{words}: {body}");
}

/// D7: the calls are answered where they are turned on, and register nothing unless that is, too.
#[tokio::test]
async fn shared_memory_that_is_off_is_not_implemented() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.serve_control = vec![ControlGroup::SharedMemory];
    })
    .await;
    let system = "/v2/systemsharedmemory/region/r/register";
    let register = r#"{"key": "/r", "byte_size": 8}"#;
    says(&running.post(system, register).await, 501, "start the server with --shared-memory");
    let cuda = "/v2/cudasharedmemory/region/r/register";
    says(&running.post(cuda, "{}").await, 501, "failed to register CUDA shared memory region");
    for memory in ["systemsharedmemory", "cudasharedmemory"] {
        assert_eq!(running.get(&format!("/v2/{memory}/status")).await, (200, json!([])));
        assert_eq!(running.post(&format!("/v2/{memory}/unregister"), "").await.0, 200);
        assert_eq!(running.post(&format!("/v2/{memory}/region/r/unregister"), "").await.0, 200);
        let named = running.get(&format!("/v2/{memory}/region/r/status")).await;
        says(&named, 404, "shared memory region: 'r'");
    }
    let (_, server) = running.get("/v2").await;
    assert!(!server["extensions"].to_string().contains("shared_memory"), "{server}");

    let mut client = connect(&running).await;
    let (name, key) = ("r".to_owned(), "/r".to_owned());
    let request =
        SystemSharedMemoryRegisterRequest { name: name.clone(), key, offset: 0, byte_size: 8 };
    let refused = client.system_shared_memory_register(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    assert!(refused.message().contains("--shared-memory"), "{refused:?}");
    let request = CudaSharedMemoryRegisterRequest { name, ..Default::default() };
    let refused = client.cuda_shared_memory_register(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
}

/// B5.13: an output is put elsewhere as it is.
#[tokio::test]
async fn outputs_in_shared_memory_are_neither_classes_nor_binary_data() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let words = "is put into shared memory as it is";
    for other in [r#""binary_data": true"#, r#""classification": 2"#] {
        let parameters =
            format!(r#"{{"shared_memory_region": "r", "shared_memory_byte_size": 8, {other}}}"#);
        let outputs = format!(r#", "outputs": [{{"name": "y", "parameters": {parameters}}}]"#);
        let answered = running.post("/v2/models/scale/infer", infer_body(&outputs)).await;
        says(&answered, 400, words);
    }
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let parameters = HashMap::from([
        ("shared_memory_region".to_owned(), parameter(ParameterChoice::StringParam("r".into()))),
        ("shared_memory_byte_size".to_owned(), parameter(ParameterChoice::Int64Param(8))),
        ("classification".to_owned(), parameter(ParameterChoice::Int64Param(2))),
    ]);
    let mut request = ones("scale", 1);
    request.outputs = vec![InferRequestedOutputTensor { name: "y".to_owned(), parameters }];
    let refused = connect(&running).await.model_infer(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains(words), "{refused:?}");
}

/// B5.2: a model without sequences answers each request by itself, as with Triton.
#[tokio::test]
async fn what_belongs_to_sequences_is_let_pass() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    for parameters in [
        r#"{"sequence_id": 5, "sequence_start": true, "sequence_end": false}"#,
        r#"{"sequence_id": "five"}"#,
    ] {
        let body = infer_body(&format!(r#", "parameters": {parameters}"#));
        let (status, body) = running.post("/v2/models/scale/infer", body).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([3.0, 5.0])), "{body}");
    }
    for (parameters, text) in [
        (r#"{"sequence_id": -1}"#, "\"sequence_id\" must be a whole number that is not negative"),
        (r#"{"sequence_id": 1.5}"#, "or a string"),
        (r#"{"sequence_id": true}"#, "or a string"),
        (r#"{"sequence_start": "x"}"#, "\"sequence_start\" must be true or false"),
        (r#"{"sequence_end": 1}"#, "\"sequence_end\" must be true or false"),
    ] {
        let body = infer_body(&format!(r#", "parameters": {parameters}"#));
        says(&running.post("/v2/models/scale/infer", body).await, 400, text);
    }
}

/// A4, C4: the caller is told in time, while the run goes on.
#[tokio::test]
async fn an_answer_that_is_late_is_given_up_over_every_protocol() {
    let worker = "format = 1\ninstances = 1\nexecutor = \"workers\"\n";
    let running = serve_as(&[("m", 1, "rounds.onnx")], worker, |settings| {
        settings.request_timeout = Some(Duration::from_millis(200));
    })
    .await;
    let input = json!({"name": "rounds", "datatype": "INT64", "shape": [1], "data": [LONG]});
    let begun = Instant::now();
    for (path, body) in [
        ("/v1/models/m:predict", json!({"inputs": [LONG]})),
        ("/v2/models/m/infer", json!({"inputs": [input]})),
        ("/v2/models/m/generate", json!({"rounds": LONG})),
    ] {
        let answered = running.post(path, body.to_string()).await;
        says(&answered, 504, "deadline of 200ms exceeded");
    }
    let late = connect(&running).await.model_infer(rounds(LONG)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    assert!(late.message().contains("deadline of 200ms exceeded"), "{late:?}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

/// Fault 7: who only holds a connection open takes nobody's place.
#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let addresses = running.gateway.addresses();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(addresses.http).await.unwrap());
        idle.push(TcpStream::connect(addresses.grpc).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(running.post("/v2/models/scale/infer", infer_body("")).await.0, 200);
    assert!(connect(&running).await.model_infer(ones("scale", 1)).await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The gRPC port has said how much it takes; behind that comes nothing, and no end.
    let mut said = [0; 4096];
    for stream in idle {
        let read = loop {
            match stream.try_read(&mut said) {
                Ok(1..) => {}
                other => break other,
            }
        };
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it is open");
    }
}

/// Fault 7: where there are as many connections as there may be, those that have idled for longest
/// leave for others.
#[tokio::test]
async fn idle_connections_leave_for_new_ones() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.cores = Some(1);
        settings.max_connections = Some(20);
    })
    .await;
    let addresses = running.gateway.addresses();
    let mut first = connect(&running).await;
    first.model_infer(ones("scale", 1)).await.unwrap();
    let mut silent = Vec::new();
    for number in 0..200 {
        let port = if number % 2 == 0 { addresses.http } else { addresses.grpc };
        silent.push(TcpStream::connect(port).await.unwrap());
        // A new one is answered each time, and so are those that ask again and again.
        let mut new = TcpStream::connect(addresses.http).await.unwrap();
        new.write_all(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within("an answer", new.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
        assert_eq!(running.post("/v2/models/scale/infer", infer_body("")).await.0, 200);
        if number % 10 == 0 {
            first.model_infer(ones("scale", 1)).await.unwrap();
        }
    }
    for stream in &mut silent[..150] {
        let mut said = Vec::new();
        let _however = within("the end", stream.read_to_end(&mut said)).await;
    }
    assert_eq!(running.post("/v2/models/scale/infer", infer_body("")).await.0, 200);
    first.model_infer(ones("scale", 1)).await.unwrap();
}

/// Fault 16: over health, too, a message that cannot be read is its sender's mistake.
#[tokio::test]
async fn a_malformed_question_for_health_is_an_invalid_argument() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut raw = RawCaller::connect(&running).await;
    for method in ["Check", "Watch"] {
        let path = format!("/grpc.health.v1.Health/{method}");
        let refused = raw.call(&path, &[], framed(b"\xff\xff")).await;
        assert_eq!(refused.code, Code::InvalidArgument, "{method}: {refused:?}");
        let long = raw.call(&path, &[], framed(&[0; 70_000])).await;
        assert_eq!(long.code, Code::ResourceExhausted, "{method}: {long:?}");
    }
    let other = raw.call("/grpc.health.v1.Health/Other", &[], framed(b"")).await;
    assert_eq!(other.code, Code::Unimplemented, "{other:?}");
}
