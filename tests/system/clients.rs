//! The real Python clients of Triton and MLflow, unmodified.

use std::process::Command;

use crate::support::{
    Registry, anywhere, fill_store, follow, package, predict, python, source_tree,
};

fn run_python(script: &str, arguments: &[&str]) -> String {
    let path = source_tree().join("tests/python").join(script);
    let output = Command::new(python()).arg(path).args(arguments).output().unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {text}\n{error}");
    text.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tritons_client_gets_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    registry.publish(package().await).await;
    let gateway = follow(registry.client.url(), &folder.path().join("state")).await;
    fill_store(&gateway).await;
    let address = gateway.addresses();
    let question = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;
    let (_, body) = predict(address.http, question).await;
    let expected = body["predictions"][0].to_string();
    let (http, grpc) = (address.http.to_string(), address.grpc.to_string());
    tokio::task::spawn_blocking(move || run_python("triton_client.py", &[&http, &grpc, &expected]))
        .await
        .unwrap();
    gateway.drain().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mlflows_client_registers_and_downloads() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    let url = registry.client.url().trim_end_matches('/').to_owned();
    tokio::task::spawn_blocking(move || run_python("mlflow_client.py", &[&url])).await.unwrap();
    registry.stop().await;
}
