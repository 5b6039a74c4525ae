//! Models with a `config.pbtxt`: what clients see of it.

use serde_json::{Value, json};
use sluice_protocol::grpc::ModelInferRequest;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;

use crate::support::{Running, serve_with, wait_until};

/// A gateway with version 1 of a graph as model `m`, and files in the model's folder.
async fn serve_configured(graph: &str, files: &[(&str, &[u8])]) -> Running {
    serve_with(&[("m", 1, &format!("{graph}.onnx"))], |settings| {
        let folder = settings.model_repository.as_ref().unwrap().join("m");
        for (path, bytes) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    })
    .await
}

async fn configured(graph: &str, config: &str) -> Running {
    serve_configured(graph, &[("config.pbtxt", config.as_bytes())]).await
}

fn input(name: &str, datatype: &str, shape: &[i64], data: Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
}

async fn infer(running: &Running, inputs: Value) -> (u16, Value) {
    running.post("/v2/models/m/infer", json!({ "inputs": inputs }).to_string()).await
}

#[tokio::test]
async fn the_batch_size_bounds_requests_over_every_protocol() {
    let running =
        configured("scale", "max_batch_size: 2 metric_tags { key: 'team' value: 'red' }").await;
    let (_, config) = running.get("/v2/models/m/config").await;
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(2), &json!([2])));
    let (_, metadata) = running.get("/v2/models/m").await;
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 2]));
    let rows = |count: usize| vec![1.0; 2 * count];
    let (status, body) =
        infer(&running, json!([input("x", "FP32", &[2, 2], json!(rows(2)))])).await;
    assert_eq!((status, &body["outputs"][0]["shape"]), (200, &json!([2, 2])), "{body}");
    let says = "inference request batch-size must be <= 2 for 'm'";
    let (status, body) =
        infer(&running, json!([input("x", "FP32", &[3, 2], json!(rows(3)))])).await;
    assert_eq!((status, &body["error"]), (400, &json!(says)));
    let instances = json!({"instances": [[1, 1], [1, 1], [1, 1]]}).to_string();
    let (status, body) = running.post("/v1/models/m:predict", instances).await;
    assert_eq!((status, &body["error"]), (400, &json!(says)));
    let address = format!("http://{}", running.gateway.addresses().grpc);
    let channel = tonic::transport::Endpoint::new(address).unwrap().connect().await.unwrap();
    let request = ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![3, 2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 24].into()],
        ..ModelInferRequest::default()
    };
    let refused = GrpcInferenceServiceClient::new(channel).model_infer(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, says));
    assert!(running.metrics().await.contains("team=\"red\""));
}

#[tokio::test]
async fn dims_on_the_wire_may_be_others_than_the_graphs() {
    let running = configured(
        "mixed",
        "max_batch_size: 8
         input [
           { name: 'id' data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } },
           { name: 'name' data_type: TYPE_STRING dims: [ 1 ] reshape: { shape: [ ] } },
           { name: 'on' data_type: TYPE_BOOL dims: [ 1 ] reshape { } }
         ]
         output [ { name: 'name_out' dims: [ 1, 1 ] reshape { shape: [ ] } } ]",
    )
    .await;
    let (_, metadata) = running.get("/v2/models/m").await;
    assert_eq!(metadata["inputs"][1]["shape"], json!([-1, 1]));
    let outputs = json!([{"name": "name_out", "datatype": "BYTES", "shape": [-1, 1, 1]}]);
    assert_eq!(metadata["outputs"], outputs);
    let inputs = |shape: &[i64]| {
        json!([
            input("id", "INT64", shape, json!([1, 2])),
            input("name", "BYTES", shape, json!(["a", "b"])),
            input("on", "BOOL", shape, json!([true, false])),
        ])
    };
    let (status, body) = infer(&running, inputs(&[2, 1])).await;
    let answered =
        json!([{"name": "name_out", "datatype": "BYTES", "shape": [2, 1, 1], "data": ["a", "b"]}]);
    assert_eq!((status, &body["outputs"]), (200, &answered), "{body}");
    let (status, body) = infer(&running, inputs(&[2])).await;
    assert_eq!(status, 400);
    let says = "unexpected shape for input 'id' for model 'm'. Expected [-1,1], got [2]. NOTE: \
                Setting a non-zero max_batch_size";
    assert!(body["error"].as_str().unwrap().starts_with(says), "{body}");
    // V1 has the same dims: a list of one element a row.
    let row = |id: i64, name: &str| json!({"id": [id], "name": [name], "on": [true]});
    let rows = json!({"instances": [row(1, "a"), row(2, "b")]}).to_string();
    let answered = running.post("/v1/models/m:predict", rows).await;
    assert_eq!(answered, (200, json!({"predictions": [[["a"]], [["b"]]]})));
}

#[tokio::test]
async fn an_optional_input_may_be_left_out() {
    let running = configured(
        "shift",
        "max_batch_size: 4
         input [ { name: 'x' }, { name: 'offset' optional: true } ]",
    )
    .await;
    let (_, metadata) = running.get("/v2/models/m").await;
    let offset = json!({"name": "offset", "datatype": "FP32", "shape": [-1, 2], "optional": true});
    assert_eq!(metadata["inputs"][1], offset);
    let (_, config) = running.get("/v2/models/m/config").await;
    assert_eq!(config["input"][1]["optional"], true);
    let x = || input("x", "FP32", &[1, 2], json!([1, 2]));
    let offset = input("offset", "FP32", &[1, 2], json!([0.5, 0.25]));
    let (_, body) = infer(&running, json!([x()])).await;
    assert_eq!(body["outputs"][0]["data"], json!([2.0, 4.0]), "{body}");
    let (_, body) = infer(&running, json!([offset, x()])).await;
    assert_eq!(body["outputs"][0]["data"], json!([2.5, 4.25]), "{body}");
    let bare = running.post("/v1/models/m:predict", r#"{"instances": [[1, 2]]}"#).await;
    assert_eq!(bare, (200, json!({"predictions": [[2.0, 4.0]]})));
    let named = r#"{"instances": [{"x": [1, 2], "offset": [1, 1]}]}"#;
    let named = running.post("/v1/models/m:predict", named).await;
    assert_eq!(named, (200, json!({"predictions": [[3.0, 5.0]]})));
}

#[tokio::test]
async fn a_dimension_of_nothing_is_legal_where_it_is_free() {
    let running = configured("pair", "max_batch_size: 4").await;
    let both = |shape: &[i64]| {
        json!([input("a", "FP32", shape, json!([])), input("b", "FP32", shape, json!([]))])
    };
    let (status, body) = infer(&running, both(&[2, 0])).await;
    assert_eq!((status, &body["outputs"][0]["shape"]), (200, &json!([2, 0])), "{body}");
    assert_eq!(body["outputs"][0]["data"], json!([]));
    let (status, body) = infer(&running, both(&[0, 2])).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().unwrap().contains("has no rows"), "{body}");
}

#[tokio::test]
async fn labels_and_warm_up_data_are_read_beside_the_configuration() {
    let config = "max_batch_size: 4 output { name: 'y' label_filename: 'labels.txt' }
        model_warmup { name: 'w' batch_size: 2
            inputs { key: 'index' value { input_data_file: 'three' } } }";
    let three = 3_i64.to_le_bytes();
    let files: [(&str, &[u8]); 3] =
        [("config.pbtxt", config.as_bytes()), ("labels.txt", b"a\nb"), ("warmup/three", &three)];
    let running = serve_configured("pick", &files).await;
    let (status, body) = infer(&running, json!([input("index", "INT64", &[1], json!([3]))])).await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([40.0])), "{body}");
    // Index 9 is outside the table, so that data fails the load; what was served goes on.
    std::fs::write(running.folder.path().join("m/warmup/three"), 99_i64.to_le_bytes()).unwrap();
    let mut reason = Value::Null;
    wait_until("the refusal", async || {
        let all: Value = running
            .client
            .get(running.admin("/models"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        reason = all["models"][0]["versions"].clone();
        reason.to_string().contains("model_warmup \\\"w\\\": the run failed")
    })
    .await;
    let (status, body) = infer(&running, json!([input("index", "INT64", &[1], json!([0]))])).await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([10.0])), "{body}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_says_why() {
    for (config, says) in [
        ("sequence_batching { }", "sequence_batching cannot be served: models that keep a state"),
        ("model_transaction_policy { decoupled: true }", "decoupled cannot be served"),
        (
            "max_batch_size: 4 input { name: 'x' dims: 3 }",
            "says dims [3], the graph has shape [-1, 2]",
        ),
        ("instance_group { kind: KIND_GPU }", "say which device in deployment.toml"),
    ] {
        let running = configured("scale", config).await;
        let (status, body) = running.get("/v2/models/m/config").await;
        assert_eq!(status, 404, "{config}: {body}");
        let text = body["error"].as_str().unwrap();
        assert!(text.contains("model configuration: ") && text.contains(says), "{config}: {text}");
    }
}
