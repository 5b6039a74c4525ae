//! The data folder: whose it is, which version wrote it, what happens when it fails.

use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::harness::{Running, name, open, version};

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = Running::start().await.stop().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("registry.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9, 'the future', 1, x'00', 0)",
    )
    .execute(&mut database)
    .await
    .unwrap();
    database.close().await.unwrap();
    let error = open(folder.path()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("schema version 9, which is newer than 1"), "{text}");
    assert!(text.contains("upgrade"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("registry.db"), vec![b'x'; 5000]).unwrap();
    let error = open(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let server = Running::start().await;
    let error = open(server.folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("in use by another registry"), "{error}");
    let folder = server.stop().await;
    open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_failing_disk_answers_5xx_and_records_nothing() {
    let server = Running::start().await;
    let incoming = server.folder.path().join("blobs/incoming");
    std::fs::remove_dir(&incoming).unwrap();
    std::fs::write(&incoming, "in the way").unwrap();
    let (status, body) = server.put("a", "bytes").await;
    assert_eq!((status, &body["error_code"]), (503, &json!("TEMPORARILY_UNAVAILABLE")));
    server.client.create_model(&name("m"), "").await.unwrap();
    assert!(version(&server.client, &name("m"), "x").await.is_err());
    std::fs::remove_file(&incoming).unwrap();
    std::fs::create_dir(&incoming).unwrap();
    let (_, listed) = server.call("GET", "/api/2.0/mlflow-artifacts/artifacts", Value::Null).await;
    assert_eq!(listed, json!({}));
    assert_eq!(version(&server.client, &name("m"), "x").await.unwrap().0, 1);
}

#[tokio::test]
async fn leftovers_of_a_killed_process_are_cleared_at_the_start() {
    let server = Running::start().await;
    server.put("kept", "kept").await;
    let folder = server.stop().await;
    let blobs = folder.path().join("blobs");
    let orphan = blobs.join("sha256/ab").join(format!("ab{}", "0".repeat(62)));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "nobody names me").unwrap();
    let halves = ["incoming/half", "incoming/half#1"].map(|name| blobs.join(name));
    for half in &halves {
        std::fs::write(half, "half").unwrap();
    }
    let server = Running::start_in(folder).await;
    assert!(!orphan.exists() && halves.iter().all(|half| !half.exists()));
    let kept = crate::harness::http().get(server.url("/api/2.0/mlflow-artifacts/artifacts/kept"));
    assert_eq!(kept.send().await.unwrap().text().await.unwrap(), "kept");
}
