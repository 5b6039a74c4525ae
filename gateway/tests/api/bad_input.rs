//! Bad input gets the right status and an error that names the thing.

use std::time::Duration;

use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::inference::connect;
use crate::support::{Process, answer, serve, serve_with};

fn v2(change: impl FnOnce(&mut Value)) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let mut request = json!({"inputs": [input]});
    change(&mut request);
    request.to_string()
}

#[tokio::test]
async fn infer_requests_that_do_not_fit() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let set = |key: &'static str, value: Value| v2(move |r| r["inputs"][0][key] = value);
    for (request, says) in [
        ("{".to_owned(), "infer request"),
        ("[]".to_owned(), "infer request"),
        ("{}".to_owned(), "inputs"),
        (v2(|r| r["inputs"] = json!([])), "\"x\": is missing"),
        (set("name", json!("z")), "\"x\": is missing"),
        (v2(|r| r["inputs"] = json!([r["inputs"][0], r["inputs"][0]])), "more inputs than"),
        (set("datatype", json!("FP64")), "data-type is 'FP64', but model 'scale' expects 'FP32'"),
        (set("datatype", json!("FLOAT")), "unknown datatype \"FLOAT\""),
        (
            set("shape", json!([2, 1])),
            "unexpected shape for input 'x' for model 'scale'. Expected [-1,2], got [2,1]",
        ),
        (set("shape", json!([1, 3])), "needs 3 elements, got 2"),
        (set("shape", json!([-1, 2])), "negative dimension"),
        (set("shape", json!([4294967296u64, 4294967296u64])), "more elements than"),
        (set("shape", json!([0, 2])), "needs 0 elements"),
        (set("data", json!([1, "a"])), "element \"a\" is no FP32"),
        (set("shape", json!(vec![1; 65])), "shape has 65 dimensions"),
        (
            v2(|r| {
                r["inputs"][0].as_object_mut().unwrap().remove("data");
            }),
            "neither data nor",
        ),
        (
            v2(|r| r["inputs"][0]["parameters"] = json!({"binary_data_size": 8})),
            "must have one of data",
        ),
        (v2(|r| r["outputs"] = json!([{"name": "z"}])), "\"z\" is no output"),
        (v2(|r| r["outputs"] = json!([{"name": "y"}, {"name": "y"}])), "asked twice"),
        (v2(|r| r["parameters"] = json!({"p": [1]})), "parameter \"p\""),
        (v2(|r| r["parameters"] = json!({"triton_x": 3})), "starting with 'triton_' are reserved"),
        (set("parameters", json!({"shared_memory_region": "r"})), "\"shared_memory_byte_size\""),
        (
            v2(|r| {
                let parameters = json!({"classification": -3});
                r["outputs"] = json!([{"name": "y", "parameters": parameters}]);
            }),
            "\"classification\" must be a whole number",
        ),
    ] {
        let (status, body) = running.post("/v2/models/scale/infer", request.clone()).await;
        assert_eq!(status, 400, "{request}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{request}: {body}");
    }
    // After all that it still answers.
    assert_eq!(running.post("/v2/models/scale/infer", v2(|_| {})).await.0, 200);
    running.end_without_an_error().await;
}

#[tokio::test]
async fn predict_requests_that_do_not_fit() {
    let running =
        Process::start(&[("scale", 1, "scale.onnx"), ("mixed", 1, "mixed.onnx")], &[]).await;
    for (model, request, says) in [
        ("scale", "{}", "neither"),
        ("scale", r#"{"instances": [[1, 2]], "inputs": [[1, 2]]}"#, "both"),
        ("scale", r#"{"instances": 7}"#, "must be a list"),
        ("scale", r#"{"instances": [[1, 2], [3]]}"#, "different shapes"),
        ("scale", r#"{"instances": [[1, "a"]]}"#, "element \"a\" is no FP32"),
        (
            "scale",
            r#"{"instances": [{"x": [1, 2]}, 3]}"#,
            "\"instances\": instance 1: invalid type",
        ),
        (
            "scale",
            r#"{"instances": [{"x": [1, 2]}, {"z": [1, 2]}]}"#,
            "\"z\": is not in instance 0",
        ),
        (
            "scale",
            r#"{"instances": [{"x": [1, 2], "z": 1}]}"#,
            "instance 0: unexpected inference input 'z'",
        ),
        ("mixed", r#"{"instances": [{"id": 1, "id": 1}]}"#, "\"id\": is given twice"),
        ("mixed", r#"{"instances": [{"id": 1, "z": 1}]}"#, "missing"),
        ("mixed", r#"{"inputs": {"id": [1], "name": ["a"], "o": [true]}}"#, "\"on\": is missing"),
        ("mixed", r#"{"instances": [{"id": 1, "name": "a", "on": null}]}"#, "null is no BOOL"),
        ("mixed", r#"{"instances": [{"z": null}]}"#, "\"z\": is null in instance 0"),
        ("mixed", r#"{"instances": [1]}"#, "several inputs"),
        ("mixed", r#"{"instances": [{"id": 1, "name": "a"}]}"#, "\"on\": is missing"),
        (
            "mixed",
            r#"{"instances": [{"id": 1.5, "name": "a", "on": true}]}"#,
            "element 1.5 is no INT64",
        ),
        (
            "mixed",
            r#"{"instances": [{"id": 1, "name": "a", "on": true}, {"id": 2}]}"#,
            "is missing in instance 1",
        ),
    ] {
        let (status, body) = running.post(&format!("/v1/models/{model}:predict"), request).await;
        assert_eq!(status, 400, "{request}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{request}: {body}");
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn inputs_that_are_named_wrongly() {
    let running = Process::start(&[("mixed", 1, "mixed.onnx")], &[]).await;
    let input = |name| json!({"name": name, "datatype": "INT64", "shape": [1], "data": [1]});
    let on = json!({"name": "on", "datatype": "BOOL", "shape": [1], "data": [true]});
    let name = json!({"name": "name", "datatype": "BYTES", "shape": [1], "data": ["a"]});
    for (inputs, says) in [
        (json!([input("id"), input("id")]), "\"id\": is given twice"),
        (json!([input("id"), input("z"), name]), "\"on\": is missing"),
        (
            json!([input("z"), input("y"), input("x"), name, on]),
            "unexpected inference input 'z' for model 'mixed'",
        ),
    ] {
        let body = json!({"inputs": inputs}).to_string();
        let (status, body) = running.post("/v2/models/mixed/infer", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{body}");
    }
    running.end_without_an_error().await;
}

/// Work for a request is bounded by what the model takes, not by what the request brings.
#[tokio::test]
async fn floods_are_refused_quickly_and_briefly() {
    let running =
        Process::start(&[("scale", 1, "scale.onnx"), ("mixed", 1, "mixed.onnx")], &[]).await;
    let keys = (0..50_000).map(|key| format!("\"k{key}\": 1")).collect::<Vec<_>>().join(",");
    let input = |name| json!({"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let inputs: Vec<Value> = (0..20_000).map(|name| input(format!("x{name}"))).collect();
    let outputs: Vec<Value> = (0..20_000)
        .map(|name| json!({"name": format!("y{name}"), "parameters": {"binary_data": true}}))
        .collect();
    let flooded = json!({"inputs": [input("x".to_owned())], "outputs": outputs}).to_string();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let long = "x".repeat(1 << 20);
    for (path, body) in [
        ("/v1/models/scale:predict", format!("{{\"instances\": [{{{keys}}}]}}")),
        ("/v1/models/mixed:predict", format!("{{\"inputs\": {{{keys}}}}}")),
        ("/v2/models/scale/infer", json!({"inputs": inputs}).to_string()),
        ("/v2/models/scale/infer", flooded),
        ("/v1/models/scale:predict", "[".repeat(2_000_000)),
        ("/v2/models/scale/infer", "[".repeat(2_000_000)),
        ("/v1/models/scale:predict", format!("{{\"instances\": {}}}", deep(1_000_000))),
        (
            "/v1/models/scale:predict",
            format!("{{\"instances\": [{{\"x\": {}}}]}}", deep(1_000_000)),
        ),
        ("/v2/models/scale/infer", v2(|r| r["inputs"][0]["shape"] = json!(vec![1; 100_000]))),
        ("/v2/models/scale/infer", v2(|r| r["inputs"][0]["name"] = json!(long))),
        ("/v2/models/scale/infer", v2(|r| r["inputs"][0]["datatype"] = json!(long))),
        ("/v2/models/scale/infer", v2(|r| r["inputs"][0]["shape"] = json!(long))),
        ("/v2/models/scale/infer", v2(|r| r["inputs"][0]["data"] = json!([long]))),
        ("/v2/models/scale/infer", v2(|r| r["outputs"] = json!([{"name": long}]))),
        ("/v2/models/scale/infer", v2(|r| r["parameters"] = json!({long.clone(): null}))),
        ("/v1/models/mixed:predict", json!({"instances": [{long.clone(): null}]}).to_string()),
    ] {
        let begins: String = body.chars().take(60).collect();
        let before = running.cpu_time();
        let (status, body) = running.post(path, body).await;
        let cost = running.cpu_time() - before;
        assert_eq!(status, 400, "{begins}: {body}");
        assert!(body["error"].as_str().unwrap().len() <= 1000, "{begins}: {body}");
        assert!(cost < Duration::from_secs(1), "{begins}: {cost:?}");
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let running = Process::start(&[("scale", 2, "scale.onnx")], &[]).await;
    for (path, says) in [
        ("/v2/models/other/infer", "'other' is not found"),
        ("/v2/models/scale/versions/9/infer", "version 9 is not found; available: 2"),
        ("/v2/models/scale/versions/x/infer", "Not Found: /v2/models/scale/versions/x/infer"),
        ("/v1/models/other:predict", "'other' is not found"),
        ("/v2/models/..%2f..%2fetc/infer", "is not found"),
        ("/v2/nothing", "Not Found: /v2/nothing"),
        ("/v1/models/scale:other", "Not Found"),
    ] {
        let (status, body) = running.post(path, v2(|_| {})).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{path}: {body}");
    }
    let response = running.client.get(running.url("/v2/models/scale/infer")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
    running.end_without_an_error().await;
}

#[tokio::test]
async fn binary_lengths_must_be_exact() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    for (size, sent, length_off_by, says) in [
        (8, 4, 0, "needs 8 bytes of binary data, 4 are left"),
        (8, 12, 0, "4 bytes of binary data are left over"),
        (7, 7, 0, "no whole number of FP32"),
        (4, 4, 0, "needs 2 elements, got 1"),
        (8, 8, 9000, "Inference-Header-Content-Length"),
        (u64::MAX, 8, 0, "are left"),
    ] {
        let header = v2(|r| {
            r["inputs"][0].as_object_mut().unwrap().remove("data");
            r["inputs"][0]["parameters"] = json!({"binary_data_size": size});
        });
        let body = [header.as_bytes(), &vec![0; sent]].concat();
        let request = running
            .client
            .post(running.url("/v2/models/scale/infer"))
            .header("Inference-Header-Content-Length", header.len() + length_off_by);
        let (status, body) = answer(request.body(body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{body}");
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn bodies_past_the_limit_or_encoded_are_refused() {
    let running =
        serve_with(&[("scale", 1, "scale.onnx")], |settings| settings.max_body = Some(1000)).await;
    let (status, body) = running.post("/v2/models/scale/infer", vec![b' '; 1001]).await;
    assert_eq!(status, 413, "{body}");
    assert!(body["error"].as_str().unwrap().contains("limit of 1000 bytes"), "{body}");
    let request = running.client.post(running.url("/v2/models/scale/infer"));
    let (status, body) = answer(request.header("Content-Encoding", "br").body("x")).await;
    assert_eq!(status, 501, "{body}");
    assert_eq!(running.get("/v2/models/scale/infer").await.0, 405);
    assert_eq!(running.get("/nowhere").await.0, 404);
    assert_eq!(running.post("/v2/models/other/infer", "{}").await.0, 404);
    assert_eq!(running.post("/v2/models/scale/infer", "{}").await.0, 400);
    let address = running.gateway.addresses().http;
    let mut broken_off = TcpStream::connect(address).await.unwrap();
    let head = "POST /v2/models/scale/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    broken_off.write_all(head.as_bytes()).await.unwrap();
    broken_off.shutdown().await.unwrap();
    broken_off.read_to_end(&mut Vec::new()).await.unwrap();
    let metrics = running.metrics().await;
    for (code, count) in
        [("too_large", 1), ("unimplemented", 1), ("not_found", 2), ("invalid_argument", 2)]
    {
        let line = format!("sluice_unrouted_requests_total{{code=\"{code}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let routed = r#"sluice_requests_total{model="scale",version="1",code="invalid_argument"} 1"#;
    assert!(metrics.contains(routed), "{metrics}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let patience = Duration::from_millis(200);
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.request_timeout = Some(patience);
    })
    .await;
    let mut client = TcpStream::connect(running.gateway.addresses().http).await.unwrap();
    let head = "POST /v2/models/scale/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    let read = client.read_to_string(&mut reply);
    tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 504"), "{reply}");
    assert!(reply.contains("Connection: close"), "{reply}");
    assert!(reply.contains("did not arrive within 200ms"), "{reply}");
}

/// Neither one of which nothing comes, nor one whose end does not.
#[tokio::test]
async fn a_grpc_message_that_does_not_come_is_given_up() {
    let patience = Duration::from_millis(200);
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.request_timeout = Some(patience);
    })
    .await;
    let address = format!("http://{}", running.addresses.grpc);
    let channel = Endpoint::new(address).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    for sent in [vec![], vec![ModelInferRequest::default()]] {
        let messages = stream::iter(sent).chain(stream::pending());
        let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
        let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
        client.ready().await.unwrap();
        let asked = client.client_streaming(tonic::Request::new(messages), path, codec);
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
        let status = answer.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains("did not arrive within 200ms"), "{status:?}");
    }
    let counted = "sluice_unrouted_requests_total{code=\"deadline_exceeded\"} 2\n";
    let metrics = running.metrics().await;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn grpc_requests_that_do_not_fit() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &["--max-body=1000"]).await;
    let mut plain = connect(&running).await;
    let mut zipped = connect(&running).await.send_compressed(CompressionEncoding::Gzip);
    let request = || ModelInferRequest { model_name: "scale".to_owned(), ..Default::default() };
    let with = |name: &str| {
        let choice = Some(ParameterChoice::Int64Param(1));
        let parameter = InferParameter { parameter_choice: choice };
        std::collections::HashMap::from([(name.to_owned(), parameter)])
    };
    let x =
        |parameters| InferInputTensor { name: "x".to_owned(), parameters, ..Default::default() };
    let large = ModelInferRequest { id: "x".repeat(100_000), ..request() };
    for (request, code, says) in [
        (large.clone(), tonic::Code::ResourceExhausted, "limit is: 1000 bytes"),
        (
            ModelInferRequest { model_version: "new".to_owned(), ..request() },
            tonic::Code::InvalidArgument,
            "\"new\" is no number",
        ),
        (
            ModelInferRequest { inputs: vec![x(with("shared_memory_region"))], ..request() },
            tonic::Code::InvalidArgument,
            "\"shared_memory_region\" must be a string",
        ),
        (
            ModelInferRequest { inputs: vec![x(with("a")), x(with("a"))], ..request() },
            tonic::Code::InvalidArgument,
            "more inputs than",
        ),
        (request(), tonic::Code::InvalidArgument, "\"x\": is missing"),
    ] {
        let status = plain.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
    let status = zipped.model_infer(large).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let metadata = ModelMetadataRequest { name: "scale".to_owned(), version: "new".to_owned() };
    let status = plain.model_metadata(metadata).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    running.end_without_an_error().await;
}

/// What only the run finds out is the caller's mistake all the same.
#[tokio::test]
async fn values_that_a_graph_cannot_compute_with() {
    let models = ["pair", "fold", "parse", "pick"];
    let graphs = models.map(|model| format!("{model}.onnx"));
    let served: Vec<_> = models.iter().zip(&graphs).map(|(m, g)| (*m, 1, g.as_str())).collect();
    let running = Process::start(&served, &[]).await;
    let mut client = connect(&running).await;
    let input = |name, datatype, shape: &[i64], data: Value| json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    for (model, inputs, grpc) in [
        (
            "pair",
            json!([
                input("a", "FP32", &[1, 2], json!([1, 2])),
                input("b", "FP32", &[1, 3], json!([1, 2, 3]))
            ]),
            vec![floats("a", &[1, 2]), floats("b", &[1, 3])],
        ),
        (
            "fold",
            json!([input("x", "FP32", &[1, 3], json!([1, 2, 3]))]),
            vec![floats("x", &[1, 3])],
        ),
        ("parse", json!([input("text", "BYTES", &[1], json!(["abc"]))]), vec![text("abc")]),
        ("pick", json!([input("index", "INT64", &[1], json!([4]))]), vec![index(4)]),
    ] {
        let body = json!({"inputs": inputs}).to_string();
        let (status, body) = running.post(&format!("/v2/models/{model}/infer"), body).await;
        assert_eq!(status, 400, "{model}: {body}");
        assert!(body["error"].as_str().unwrap().contains("graph refuses its inputs"), "{body}");
        let model_name = model.to_owned();
        let request = ModelInferRequest { model_name, inputs: grpc, ..Default::default() };
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    }
    let metrics = running.metrics().await;
    for model in models {
        let labels = format!("model=\"{model}\",version=\"1\",code=\"invalid_argument\"");
        assert!(metrics.contains(&format!("sluice_requests_total{{{labels}}} 2\n")), "{metrics}");
    }
    running.end_without_an_error().await;
}

fn floats(name: &str, shape: &[i64]) -> InferInputTensor {
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let contents = InferTensorContents { fp32_contents: vec![1.0; count], ..Default::default() };
    typed(name, "FP32", shape, contents)
}

fn text(value: &str) -> InferInputTensor {
    let bytes_contents = vec![value.to_owned().into()];
    typed("text", "BYTES", &[1], InferTensorContents { bytes_contents, ..Default::default() })
}

fn index(value: i64) -> InferInputTensor {
    let int64_contents = vec![value];
    typed("index", "INT64", &[1], InferTensorContents { int64_contents, ..Default::default() })
}

fn typed(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: InferTensorContents,
) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents: Some(contents),
        ..Default::default()
    }
}

#[tokio::test]
async fn unknown_names_are_repeated_in_part() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let model_name = "\u{1}é".repeat(5000);
    let request = ModelInferRequest { model_name, ..Default::default() };
    let status = connect(&running).await.model_infer(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
    assert!(status.message().len() < 1100, "{status:?}");
}
