//! Inputs and outputs in shared memory, and regions that are not what they were.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::Mode;
use rustix::shm::{self, OFlags};
use serde_json::{Value, json};
use sluice_gateway::ControlGroup;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sluice_protocol::grpc::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryUnregisterRequest, InferParameter, ModelInferRequest,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
};
use tonic::Code;

use crate::inference::connect;
use crate::support::{Process, Running, answer, serve, serve_with};

/// An object that is gone after the test.
struct Object {
    key: String,
    file: File,
}

impl Object {
    fn new(name: &str, size: u64) -> Self {
        let key = format!("/sluice-api-{name}-{}", std::process::id());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = File::from(shm::open(&*key, flags, Mode::RUSR | Mode::WUSR).unwrap());
        file.set_len(size).unwrap();
        Self { key, file }
    }

    fn write(&self, at: u64, values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all_at(&raw, at).unwrap();
    }

    fn read(&self, at: u64, count: usize) -> Vec<f32> {
        let mut raw = vec![0; 4 * count];
        self.file.read_exact_at(&mut raw, at).unwrap();
        raw.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        shm::unlink(&*self.key).unwrap();
    }
}

async fn open() -> Running {
    serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.shared_memory = Some(true);
        settings.serve_control = vec![ControlGroup::SharedMemory];
    })
    .await
}

fn place(region: &str, offset: u64, byte_size: u64) -> Value {
    json!({
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": byte_size,
    })
}

fn request(input: &Value, output: &Value) -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": input});
    let output = json!({"name": "y", "parameters": output});
    json!({"inputs": [input], "outputs": [output]}).to_string()
}

const INFER: &str = "/v2/models/scale/infer";

#[tokio::test]
async fn tensors_come_and_go_in_regions_over_http() {
    let (running, object) = (open().await, Object::new("http", 64));
    let register = json!({"key": object.key, "offset": 16, "byte_size": 48}).to_string();
    let path = "/v2/systemsharedmemory/region/r/register";
    assert_eq!(running.post(path, register.clone()).await.0, 200);
    let (status, body) = running.post(path, register).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("already in manager"), "{body}");
    let region = json!({"name": "r", "key": object.key, "offset": 16, "byte_size": 48});
    for path in ["/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/r/status"] {
        assert_eq!(running.get(path).await, (200, json!([region])), "{path}");
    }

    object.write(16 + 8, &[1.0, 2.5]);
    let (status, body) = running.post(INFER, request(&place("r", 8, 8), &place("r", 24, 16))).await;
    let expected = json!({
        "name": "y", "datatype": "FP32", "shape": [1, 2],
        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 24},
    });
    assert_eq!((status, &body["outputs"][0]), (200, &expected), "{body}");
    assert_eq!(object.read(16 + 24, 2), [3.0, 6.0]);

    let good = place("r", 8, 8);
    for (input, output, status, says) in [
        (place("r", 44, 8), good.clone(), 400, "Invalid offset + byte size"),
        (place("r", u64::MAX, 8), good.clone(), 400, "Invalid offset + byte size"),
        (place("r", 8, 12), good.clone(), 400, "needs 2 elements, got 3"),
        (place("r", 8, 7), good.clone(), 400, "no whole number of FP32"),
        (place("other", 0, 8), good.clone(), 404, "Unable to find shared memory region: 'other'"),
        (good.clone(), place("r", 0, 4), 400, "should be at least 8 bytes"),
        (good.clone(), place("other", 0, 8), 404, "Unable to find shared memory region"),
    ] {
        let (found, body) = running.post(INFER, request(&input, &output)).await;
        assert_eq!(found, status, "{input} {output}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{input} {output}: {body}");
    }

    // Cut short behind the server's back: an error, and the process lives.
    object.file.set_len(20).unwrap();
    let (status, body) = running.post(INFER, request(&good, &good)).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("no longer whole"), "{body}");
    assert_eq!(running.post("/v2/systemsharedmemory/region/r/unregister", "").await.0, 200);
    assert_eq!(running.get("/v2/systemsharedmemory/status").await, (200, json!([])));
    assert_eq!(running.get("/v2/systemsharedmemory/region/r/status").await.0, 404);
    assert_eq!(running.post("/v2/systemsharedmemory/unregister", "").await.0, 200);
}

#[tokio::test]
async fn tensors_come_and_go_in_regions_over_grpc() {
    let (running, object) = (open().await, Object::new("grpc", 64));
    let url = format!("http://{}", running.addresses.grpc);
    let mut client = GrpcInferenceServiceClient::connect(url).await.unwrap();
    let register = SystemSharedMemoryRegisterRequest {
        name: "r".to_owned(),
        key: object.key.clone(),
        offset: 0,
        byte_size: 64,
    };
    client.system_shared_memory_register(register.clone()).await.unwrap();
    let twice = client.system_shared_memory_register(register).await.unwrap_err();
    assert_eq!(twice.code(), tonic::Code::AlreadyExists, "{twice:?}");
    let status = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default());
    assert_eq!(status.await.unwrap().into_inner().regions["r"].byte_size, 64);

    object.write(0, &[1.0, 2.5]);
    let text = |text: &str| Some(ParameterChoice::StringParam(text.to_owned()));
    let place = |region: &str, offset: i64, size: i64| {
        let all = [
            ("shared_memory_region", text(region)),
            ("shared_memory_offset", Some(ParameterChoice::Int64Param(offset))),
            ("shared_memory_byte_size", Some(ParameterChoice::Int64Param(size))),
        ];
        all.into_iter()
            .map(|(name, choice)| (name.to_owned(), InferParameter { parameter_choice: choice }))
            .collect()
    };
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 2],
        parameters: place("r", 0, 8),
        ..Default::default()
    };
    let output = InferRequestedOutputTensor { name: "y".to_owned(), parameters: place("r", 32, 8) };
    let question = ModelInferRequest {
        model_name: "scale".to_owned(),
        inputs: vec![input],
        outputs: vec![output],
        ..Default::default()
    };
    let answered = client.model_infer(question.clone()).await.unwrap().into_inner();
    assert!(answered.raw_output_contents[0].is_empty() && answered.outputs[0].contents.is_none());
    assert_eq!(answered.outputs[0].parameters["shared_memory_region"].parameter_choice, text("r"));
    assert_eq!(object.read(32, 2), [3.0, 6.0]);

    client
        .system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest::default())
        .await
        .unwrap();
    let gone = client.model_infer(question).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound, "{gone:?}");
}

/// An object costs nothing as long as nothing is in it, whatever size it is said to have. So no
/// request takes memory for what it only says that is there.
#[tokio::test]
async fn no_memory_is_taken_for_more_than_the_shape_needs() {
    const LIMIT: u64 = 8 << 20;
    let limit = format!("--max-body={LIMIT}");
    let flags = [&*limit, "--shared-memory", "--serve-control=shared-memory"];
    let models = [("scale", 1, "scale.onnx"), ("texts", 1, "identity/BYTES.onnx")];
    let running = Process::start(&models, &flags).await;
    let (terabytes, object) = (100 << 40, Object::new("vast", 100 << 40));
    let register = json!({"key": object.key, "byte_size": terabytes}).to_string();
    let path = "/v2/systemsharedmemory/region/vast/register";
    assert_eq!(running.post(path, register).await.0, 200);
    let mut client = connect(&running).await;
    let before = running.status("VmHWM");
    let pair = [1, 2];
    let vast = [terabytes / 8, 2];
    for (model, datatype, shape, bytes, status, says) in [
        ("scale", "FP32", &pair[..], terabytes, 400, "needs 2 elements, got"),
        ("scale", "FP32", &pair, 4 << 30, 400, "needs 2 elements, got 1073741824"),
        ("scale", "FP32", &pair, (4 << 30) + 1, 400, "no whole number of FP32"),
        ("scale", "FP32", &vast, terabytes, 413, "more than 16777216 bytes of memory"),
        ("texts", "BYTES", &pair[..1], terabytes, 413, "more than 16777216 bytes of memory"),
        ("texts", "BYTES", &pair[..1], LIMIT, 400, "needs 1 elements, got 2097152"),
        ("texts", "BYTES", &[1 << 21], LIMIT, 413, "more than 16777216 bytes of memory"),
    ] {
        let name = if model == "scale" { "x" } else { "INPUT0" };
        let input = json!({
            "name": name, "datatype": datatype, "shape": shape, "parameters": place("vast", 0, bytes),
        });
        let path = format!("/v2/models/{model}/infer");
        let (found, body) = running.post(&path, json!({"inputs": [input]}).to_string()).await;
        assert_eq!(found, status, "{datatype} {shape:?} {bytes}: {body}");
        assert!(body["error"].as_str().unwrap().contains(says), "{says}: {body}");

        let size = ParameterChoice::Int64Param(i64::try_from(bytes).unwrap());
        let region = ParameterChoice::StringParam("vast".to_owned());
        let parameters = [("shared_memory_region", region), ("shared_memory_byte_size", size)];
        let parameters = parameters.into_iter().map(|(name, choice)| {
            (name.to_owned(), InferParameter { parameter_choice: Some(choice) })
        });
        let input = InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.iter().map(|&size| i64::try_from(size).unwrap()).collect(),
            parameters: parameters.collect(),
            ..Default::default()
        };
        let (model_name, inputs) = (model.to_owned(), vec![input]);
        let request = ModelInferRequest { model_name, inputs, ..Default::default() };
        let refused = client.model_infer(request).await.unwrap_err();
        let code = if status == 400 { Code::InvalidArgument } else { Code::ResourceExhausted };
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(says), "{says}: {refused:?}");
    }
    let taken = (running.status("VmHWM") - before) << 10;
    assert!(taken < 6 * LIMIT, "{taken} bytes of memory were taken");
    let (status, body) =
        running.post(INFER, request(&place("vast", terabytes - 8, 8), &json!({}))).await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([1.0, 1.0])), "{body}");
    running.end_without_an_error().await;
}

/// Clients clear what may be left of a GPU's regions before they begin.
#[tokio::test]
async fn a_gpus_memory_is_refused_when_it_is_registered_and_not_before() {
    let running = open().await;
    assert_eq!(running.get("/v2/cudasharedmemory/status").await, (200, json!([])));
    assert_eq!(running.post("/v2/cudasharedmemory/unregister", "").await.0, 200);
    let path = "/v2/cudasharedmemory/region/r/register";
    let (status, body) = running.post(path, r#"{"raw_handle":{"b64":"AA=="}}"#).await;
    assert_eq!(status, 501, "{body}");
    let url = format!("http://{}", running.addresses.grpc);
    let mut client = GrpcInferenceServiceClient::connect(url).await.unwrap();
    let status = client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await;
    assert!(status.unwrap().into_inner().regions.is_empty());
    let all = CudaSharedMemoryUnregisterRequest::default();
    client.cuda_shared_memory_unregister(all).await.unwrap();
    let refused =
        client.cuda_shared_memory_register(CudaSharedMemoryRegisterRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn regions_are_for_those_who_were_let_in() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let register = "/v2/systemsharedmemory/region/r/register";
    let body = r#"{"key":"/k","byte_size":8}"#;
    assert_eq!(running.post(register, body).await.0, 403);
    assert_eq!(running.get("/v2/systemsharedmemory/status").await.0, 403);
    // On the port for operators it is answered, and says how to turn it on.
    let post = running.client.post(running.admin(register)).body(body);
    let (status, answered) = answer(post).await;
    assert_eq!(status, 501, "{answered}");
    assert!(answered["error"].as_str().unwrap().contains("--shared-memory"), "{answered}");
}
