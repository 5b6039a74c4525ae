//! Questions that cannot be answered get the right status and name the thing.

use serde_json::json;

use crate::support::{
    Registry, anywhere, fill_store, follow, output_of, package, predict, sluice, source_tree,
};

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

/// Broken definitions and sources are refused before anything is written.
#[test]
fn broken_features_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let sales = "store_id,date,units,revenue,orders,promo\n1,2011-01-03,5,2.5,1,0\n1,2011-01-04,7,3.5,2,1\n";
    let definitions = std::fs::read_to_string(source_tree().join("demo/features.toml"))
        .unwrap()
        .replace("../data/online-retail/daily_sales.csv", "sales.csv");
    std::fs::write(path("features.toml"), &definitions).unwrap();
    std::fs::write(path("sales.csv"), sales).unwrap();
    let (features, state) = (path("features.toml"), path("state"));
    let materialize = ["features", "materialize", "--features", &features, "--state", &state];
    let apply = ["features", "apply", "--features", &features, "--state", &state];
    let get = [
        "features",
        "get",
        "demand-forecast",
        "--features",
        &features,
        "--state",
        &state,
        "--key",
        "1",
        "--json",
    ];
    output_of(&apply);
    output_of(&materialize);
    let before = output_of(&get);
    assert!(before.contains("2011-01-04"), "{before}");
    let recorded = std::fs::read(path("state/features.json")).unwrap();

    let refused = |arguments: &[&str], says: &str| {
        let output = sluice(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{arguments:?}: {error}");
        assert_eq!(output_of(&get), before, "{says}");
        assert_eq!(std::fs::read(path("state/features.json")).unwrap(), recorded, "{says}");
    };
    for (sales, says) in [
        (sales.replace(",units,", ",unit,"), "units"),
        (sales.replace(",7,", ",seven,"), "units"),
        (sales.replace("2011-01-04", "2011-01-03"), "2011-01-03"),
        (sales.replace("2011-01-04", "4.1.2011"), "date"),
        (sales.replace("1,2011-01-04", ",2011-01-04"), "store_id"),
    ] {
        std::fs::write(path("sales.csv"), sales).unwrap();
        refused(&materialize, says);
    }
    std::fs::write(path("sales.csv"), sales).unwrap();
    for (from, to, says) in [
        ("lag(units, 1)", "lagg(units, 1)", "lagg"),
        ("\"avg(promo)", "\"avg(promotion)", "promotion"),
        ("format = 1", "format = 2", "newer"),
        ("stale = \"degrade\"", "stail = \"degrade\"", "stail"),
        ("store_sales@1\"]", "store_sale@1\"]", "store_sale@1"),
    ] {
        std::fs::write(&features, definitions.replace(from, to)).unwrap();
        let output = sluice(&apply).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{to}: {error}");
        assert_eq!(std::fs::read(path("state/features.json")).unwrap(), recorded, "{to}");
    }
}
