//! A version that does not hold what it promises is refused; the old one goes on.

use serde_json::Value;
use sluice_protocol::{Digest, MANIFEST_FILE, MODEL_FILE, Manifest, PARITY_FILE};
use sluice_registry::PackageFile;

use crate::support::{
    Registry, answer, anywhere, client, fill_store, follow, package, predict, wait_until,
};

const QUESTION: &str = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;

/// The package with one file changed and, unless `manifest` says otherwise, a manifest that
/// names the change.
fn changed(
    files: &[PackageFile],
    path: &str,
    change: impl Fn(Vec<u8>) -> Vec<u8>,
    manifest: impl Fn(&mut Manifest),
) -> Vec<PackageFile> {
    let mut files = files.to_vec();
    let mut digests = Vec::new();
    for file in files.iter_mut().filter(|file| file.path == path) {
        file.bytes = change(file.bytes.to_vec()).into();
        digests.push((file.path.clone(), Digest::of(&file.bytes)));
    }
    for file in files.iter_mut().filter(|file| file.path == MANIFEST_FILE && path != MANIFEST_FILE)
    {
        let mut parsed = Manifest::parse(&file.bytes).unwrap();
        parsed.files.extend(digests.clone());
        manifest(&mut parsed);
        file.bytes = parsed.to_toml().into_bytes().into();
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_is_refused_with_its_reason_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    let good = package().await;
    registry.publish(good).await;
    let gateway = follow(registry.client.url(), &folder.path().join("state")).await;
    fill_store(&gateway).await;
    let before = predict(gateway.addresses().http, QUESTION).await;
    assert_eq!(before.0, 200);

    let keep = |_: &mut Manifest| {};
    let same = |bytes: Vec<u8>| bytes;
    let wrong_answers = |bytes: Vec<u8>| {
        let mut parity: Value = serde_json::from_slice(&bytes).unwrap();
        parity["expected"][0] = f32::to_bits(-1.0).into();
        serde_json::to_vec(&parity).unwrap()
    };
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let renamed = |manifest: &mut Manifest| manifest.outputs[0].name = "answer".to_owned();
    let untrained = |manifest: &mut Manifest| {
        manifest.feature_service.as_mut().unwrap().schema_hash = Digest::of(b"other features");
    };
    let broken = |_: Vec<u8>| b"format = 1\nnonsense".to_vec();
    for (files, says) in [
        (changed(good, PARITY_FILE, wrong_answers, keep), "parity check failed: row 0"),
        (changed(good, MODEL_FILE, cut, keep), "graph cannot be opened"),
        (changed(good, PARITY_FILE, same, renamed), "manifest says outputs answer"),
        (changed(good, PARITY_FILE, same, untrained), "schema hash"),
        (changed(good, MANIFEST_FILE, broken, keep), "manifest.toml cannot be read"),
    ] {
        let version = registry.publish(&files).await;
        let url = format!("http://{}/models", gateway.addresses().admin);
        wait_until(says, async || {
            let (_, body) = answer(client().get(&url)).await;
            let versions = body["models"][0]["versions"].as_array().cloned().unwrap_or_default();
            let refused = versions.iter().find(|v| v["version"] == version.0);
            refused.is_some_and(|v| v["reason"].as_str().is_some_and(|text| text.contains(says)))
        })
        .await;
        assert_eq!(predict(gateway.addresses().http, QUESTION).await, before, "{says}");
    }
    // A good one after them is taken.
    let version = registry.publish(good).await;
    let ready = format!(
        "http://{}/v2/models/demand-forecast/versions/{version}/ready",
        gateway.addresses().http
    );
    wait_until("the good version", async || answer(client().get(&ready)).await.0 == 200).await;
    gateway.drain().await;
    registry.stop().await;
}
