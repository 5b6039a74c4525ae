//! Questions that cannot be answered get the right status and name the thing.

use serde_json::json;

use crate::support::{Registry, anywhere, fill_store, follow, package, predict};

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_features_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    registry.publish(package().await).await;
    let gateway = follow(registry.client.url(), &folder.path().join("state")).await;
    let http = gateway.addresses().http;
    let good = json!({"store_id": 42, "date": "2025-01-15", "promo": 1});
    let (status, body) = predict(http, &json!({"instances": [good]}).to_string()).await;
    assert_eq!(status, 503, "nothing is materialised yet: {body}");
    fill_store(&gateway).await;

    let with = |key: &str, value: serde_json::Value| {
        let mut row = good.clone();
        row[key] = value;
        row
    };
    let without = |key: &str| {
        let mut row = good.clone();
        row.as_object_mut().unwrap().remove(key);
        row
    };
    for (row, status, says) in [
        (with("store_id", json!(99)), 404, "store_id 99"),
        (with("store_id", json!("x")), 400, "\"store_id\""),
        (with("store_id", json!(1.5)), 400, "\"store_id\""),
        (with("date", json!("15.01.2025")), 400, "15.01.2025"),
        (with("date", json!("2025-02-30")), 400, "2025-02-30"),
        (with("date", json!(20250115)), 400, "\"date\""),
        (with("promo", json!("yes")), 400, "\"promo\""),
        (with("promo", json!(null)), 400, "\"promo\""),
        (with("colour", json!(1)), 400, "\"colour\""),
        (without("promo"), 400, "\"promo\" is missing"),
        (without("store_id"), 400, "\"store_id\" is missing"),
        (with("features", json!([1, 2])), 400, "features"),
    ] {
        let answered = predict(http, &json!({"instances": [row]}).to_string()).await;
        assert_eq!(answered.0, status, "{row}: {}", answered.1);
        let error = answered.1["error"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{row}: {error}");
    }
    let (status, _) = predict(http, &json!({"instances": [good]}).to_string()).await;
    assert_eq!(status, 200);
    gateway.drain().await;
    registry.stop().await;
}
