//! The demo's question gives the same number over V1, V2 JSON, V2 binary and gRPC, and
//! `features get` shows what it was made from.

use serde_json::{Value, json};
use sluice_protocol::grpc::ModelInferRequest;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;

use crate::support::{
    Registry, answer, anywhere, client, definitions, fill_store, follow, output_of, package,
    predict, source_tree,
};

const QUESTION: &str = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_gives_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    registry.publish(package().await).await;
    let gateway = follow(registry.client.url(), &folder.path().join("state")).await;
    fill_store(&gateway).await;
    let address = gateway.addresses();

    let (status, body) = predict(address.http, QUESTION).await;
    assert_eq!(status, 200, "{body}");
    let v1 = body["predictions"][0].as_f64().expect("a number");
    assert!(v1 > 0.0 && v1 < 1e6, "{v1}");

    let json = v2_json(address.http).await;
    assert_eq!(json["outputs"][0]["data"][0].as_f64(), Some(v1));
    assert_eq!(
        json["parameters"],
        json!({"degraded_views": "store_sales@1", "features_as_of": "2011-12-09"})
    );
    let binary = v2_binary(address.http).await;
    let grpc = grpc(address.grpc).await;
    #[expect(clippy::cast_possible_truncation, reason = "the number was an f32")]
    let expected = v1 as f32;
    assert_eq!((binary, grpc), (expected, expected));

    // The same with the graph's own input: the features that `features get` shows.
    let shown = features_get(&address.admin.to_string());
    assert_eq!(shown["views"][0]["as_of"], "2011-12-09");
    let columns = shown["columns"].as_object().unwrap();
    assert_eq!(columns["promo"], 1.0);
    assert_eq!(columns["store_id"], 42.0);
    let plan = definitions().plan("demand-forecast").unwrap();
    let features: Vec<&Value> = plan.columns().iter().map(|name| &columns[name]).collect();
    let (status, body) =
        predict(address.http, &json!({"instances": [{"features": features}]}).to_string()).await;
    assert_eq!((status, &body), (200, &json!({"predictions": [v1]})));
    gateway.drain().await;
    registry.stop().await;
}

fn infer_url(http: std::net::SocketAddr) -> String {
    format!("http://{http}/v2/models/demand-forecast/infer")
}

async fn v2_json(http: std::net::SocketAddr) -> Value {
    let request = json!({"inputs": [
        {"name": "store_id", "datatype": "INT64", "shape": [1], "data": [42]},
        {"name": "date", "datatype": "BYTES", "shape": [1], "data": ["2025-01-15"]},
        {"name": "promo", "datatype": "INT64", "shape": [1], "data": [1]},
    ]});
    let (status, body) = answer(client().post(infer_url(http)).body(request.to_string())).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Each field's raw bytes: INT64, a BYTES element behind its length, INT64.
fn raw_fields() -> [(&'static str, &'static str, Vec<u8>); 3] {
    [
        ("store_id", "INT64", 42i64.to_le_bytes().to_vec()),
        ("date", "BYTES", [&10u32.to_le_bytes()[..], b"2025-01-15"].concat()),
        ("promo", "INT64", 1i64.to_le_bytes().to_vec()),
    ]
}

async fn v2_binary(http: std::net::SocketAddr) -> f32 {
    let inputs = raw_fields().map(|(name, datatype, raw)| {
        json!({"name": name, "datatype": datatype, "shape": [1, 1],
            "parameters": {"binary_data_size": raw.len()}})
    });
    let outputs = json!([{"name": "prediction", "parameters": {"binary_data": true}}]);
    let header = json!({"inputs": inputs, "outputs": outputs}).to_string();
    let mut body = header.clone().into_bytes();
    raw_fields().iter().for_each(|(_, _, raw)| body.extend_from_slice(raw));
    let request =
        client().post(infer_url(http)).header("Inference-Header-Content-Length", header.len());
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.bytes().await.unwrap();
    f32::from_le_bytes(body[body.len() - 4..].try_into().unwrap())
}

async fn grpc(address: std::net::SocketAddr) -> f32 {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let inputs = raw_fields().map(|(name, datatype, _)| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1],
        ..Default::default()
    });
    let request = ModelInferRequest {
        model_name: "demand-forecast".to_owned(),
        inputs: inputs.to_vec(),
        raw_input_contents: raw_fields().map(|(_, _, raw)| raw.into()).to_vec(),
        ..Default::default()
    };
    let response = client.model_infer(request).await.unwrap().into_inner();
    f32::from_le_bytes(response.raw_output_contents[0][..].try_into().unwrap())
}

fn features_get(admin: &str) -> Value {
    let definitions = source_tree().join("demo/features.toml");
    let definitions = definitions.to_str().unwrap();
    let text = output_of(&[
        "features",
        "get",
        "demand-forecast",
        "--features",
        definitions,
        "--admin",
        admin,
        "--key",
        "42",
        "--field",
        "date=2025-01-15",
        "--field",
        "promo=1",
        "--json",
    ]);
    serde_json::from_str(&text).unwrap()
}
