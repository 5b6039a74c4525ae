//! The registry goes away and comes back; the gateway serves on, and a restart without it
//! serves the last whole state.

use std::path::Path;

use serde_json::Value;
use sluice_gateway::Gateway;

use crate::support::{
    Registry, answer, anywhere, client, fill_store, follow, package, predict, wait_until,
};

const QUESTION: &str = r#"{"instances": [{"store_id": 43, "date": "2012-02-01", "promo": 0}]}"#;

/// A registry with a version, a gateway that follows it, and its answer.
async fn answering(data: &Path, state: &Path) -> (Registry, Gateway, (u16, Value)) {
    let registry = Registry::start(data, anywhere()).await;
    registry.publish(package().await).await;
    let gateway = follow(registry.client.url(), state).await;
    fill_store(&gateway).await;
    let answer = predict(gateway.addresses().http, QUESTION).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    (registry, gateway, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_does_not_need_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("registry"), folder.path().join("state"));
    let (registry, gateway, before) = answering(&data, &state).await;
    let url = registry.client.url().to_owned();

    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    registry.stop().await;
    assert_eq!(predict(gateway.addresses().http, QUESTION).await, before);
    gateway.drain().await;

    // Without a registry: the version and the features of the last run.
    let gateway = follow(&url, &state).await;
    assert_eq!(predict(gateway.addresses().http, QUESTION).await, before);
    let http = gateway.addresses().http;
    let ready = answer(client().get(format!("http://{http}/v2/health/ready"))).await;
    assert_eq!(ready.0, 200);

    // It is back, and its changes arrive again.
    let registry = Registry::start(&data, address).await;
    let version = registry.publish(package().await).await;
    let ready = format!("http://{http}/v2/models/demand-forecast/versions/{version}/ready");
    wait_until("the new version", async || answer(client().get(&ready)).await.0 == 200).await;
    gateway.drain().await;
    registry.stop().await;
}

/// A restart while the registry names a version that is refused: the one before it goes on,
/// with the registry there or away, and what it needs is still in the state folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_behind_a_refused_version_serves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("registry"), folder.path().join("state"));
    let (registry, gateway, before) = answering(&data, &state).await;
    let url = registry.client.url().to_owned();

    let mut broken = package().await.to_vec();
    broken.retain(|file| file.path != sluice_protocol::PARITY_FILE);
    registry.publish(&broken).await;
    let models = format!("http://{}/models", gateway.addresses().admin);
    wait_until("the refusal", async || {
        let (_, body) = answer(client().get(&models)).await;
        body.to_string().contains("refused")
    })
    .await;
    gateway.drain().await;

    // Twice: the first restart must leave the state as whole as it found it.
    for _ in 0..2 {
        let gateway = follow(&url, &state).await;
        assert_eq!(predict(gateway.addresses().http, QUESTION).await, before);
        let ready = format!("http://{}/v2/health/ready", gateway.addresses().http);
        assert_eq!(answer(client().get(ready)).await.0, 200);
        gateway.drain().await;
    }
    registry.stop().await;
    let gateway = follow(&url, &state).await;
    assert_eq!(predict(gateway.addresses().http, QUESTION).await, before);
    gateway.drain().await;
}
