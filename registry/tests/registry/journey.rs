//! The client's whole API against a server.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sluice_protocol::{Code, Digest, ModelVersion};
use sluice_registry::{Client, FileEntry, RegistryError};

use crate::harness::{Running, file, name, version};

#[tokio::test]
async fn a_package_goes_in_and_comes_out_unchanged() {
    let server = Running::start().await;
    let client = &server.client;
    let model = name("demand-forecast");
    client.health().await.unwrap();
    client.ensure_model(&model, "how much will sell").await.unwrap();

    let files = [file("model.onnx", &[7; 3000]), file("dir/a b ü.txt", b""), file("x", b"100%")];
    let tags = BTreeMap::from([("mae".to_owned(), "1.5".to_owned())]);
    let first = client.create_version(&model, &files, "the first", &tags).await.unwrap();
    assert_eq!(first, ModelVersion(1));

    let info = client.version(&model, first).await.unwrap();
    assert_eq!((info.version, info.description.as_str(), &info.tags), (first, "the first", &tags));
    assert!(info.created <= SystemTime::now() + Duration::from_secs(1));
    let mut expected: Vec<FileEntry> = files
        .iter()
        .map(|f| FileEntry {
            path: f.path.clone(),
            digest: Digest::of(&f.bytes),
            size: f.bytes.len() as u64,
        })
        .collect();
    expected.sort();
    assert_eq!(info.files, expected);

    let mut fetched = client.fetch_version(&model, first).await.unwrap();
    fetched.sort_by(|a, b| a.path.cmp(&b.path));
    let mut sent = files.to_vec();
    sent.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(fetched, sent);
    assert_eq!(client.fetch_blob(Digest::of(&[7; 3000])).await.unwrap(), vec![7; 3000]);
}

#[tokio::test]
async fn a_model_is_made_once() {
    let server = Running::start().await;
    let model = name("m");
    let made = server.client.create_model(&model, "text").await.unwrap();
    assert_eq!((made.name, made.description.as_str(), made.latest), (model.clone(), "text", None));
    let error = server.client.create_model(&model, "").await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    server.client.ensure_model(&model, "other").await.unwrap();
    assert_eq!(server.client.model(&model).await.unwrap().description, "text");
}

#[tokio::test]
async fn aliases_move() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    let first = version(client, &model, "1").await.unwrap();
    let second = version(client, &model, "2").await.unwrap();
    assert_eq!(client.alias(&model, "champion").await.unwrap(), None);
    for each in [first, second, second] {
        client.set_alias(&model, "champion", each).await.unwrap();
        assert_eq!(client.alias(&model, "champion").await.unwrap(), Some(each));
    }
    let seen = client.model(&model).await.unwrap();
    assert_eq!(seen.aliases, BTreeMap::from([("champion".to_owned(), second)]));
    assert_eq!(seen.latest, Some(second));
    for _ in 0..2 {
        client.delete_alias(&model, "champion").await.unwrap();
    }
    assert_eq!(client.alias(&model, "champion").await.unwrap(), None);

    let missing = client.set_alias(&model, "champion", ModelVersion(9)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let huge = client.set_alias(&model, "champion", ModelVersion(u64::MAX)).await.unwrap_err();
    assert_eq!(huge.code(), Code::NotFound);
    let unknown = client.alias(&name("absent"), "champion").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let bad = client.set_alias(&model, "latest", first).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn packages_that_cannot_be_are_refused_before_anything_is_sent() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    for files in [
        vec![],
        vec![file("../x", b"")],
        vec![file("/x", b"")],
        vec![file("a", b"1"), file("a", b"2")],
    ] {
        let error = client.create_version(&model, &files, "", &BTreeMap::new()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    let absent = version(client, &name("absent"), "").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert!(client.snapshot().await.unwrap().models[0].versions.is_empty());
}

#[tokio::test]
async fn an_upload_that_is_refused_leaves_no_version_and_no_file() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    let files = [file("a", b"small"), file("b", &vec![0; (1 << 20) + 1])];
    let error = client.create_version(&model, &files, "", &BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::TooLarge, "{error}");
    let (_, listed) = server.call("GET", "/api/2.0/mlflow-artifacts/artifacts", Value::Null).await;
    assert_eq!(listed, json!({}));
    assert_eq!(version(client, &model, "next").await.unwrap(), ModelVersion(1));
}

#[tokio::test]
async fn bytes_that_changed_on_disk_are_not_accepted() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    let made = version(client, &model, "genuine").await.unwrap();
    let digest = Digest::of(b"genuine").to_string();
    let blob = server.folder.path().join("blobs/sha256").join(&digest[..2]).join(&digest);
    std::fs::write(&blob, "tampers").unwrap();
    let error = client.fetch_version(&model, made).await.unwrap_err();
    assert!(matches!(error, RegistryError::Corrupt(_)), "{error}");
    std::fs::write(&blob, "short").unwrap();
    assert!(client.fetch_version(&model, made).await.is_err());
    // The same bytes arriving again heal a blob that is cut short or gone.
    version(client, &model, "genuine").await.unwrap();
    assert!(client.fetch_version(&model, made).await.is_ok());
    std::fs::remove_file(&blob).unwrap();
    let error = client.fetch_version(&model, made).await.unwrap_err();
    assert!(matches!(error, RegistryError::Corrupt(_)), "{error}");
    version(client, &model, "genuine").await.unwrap();
    assert!(client.fetch_version(&model, made).await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let server = Running::start().await;
    let client = server.client.clone();
    server.stop().await;
    let error = client.health().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(Client::new("ftp://x").is_err());
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let server = Running::start().await;
    let model = name("m");
    server.client.create_model(&model, "text").await.unwrap();
    let made = version(&server.client, &model, "bytes").await.unwrap();
    server.client.set_alias(&model, "champion", made).await.unwrap();
    let before = server.client.snapshot().await.unwrap();
    let server = Running::start_in(server.stop().await).await;
    assert_eq!(server.client.snapshot().await.unwrap(), before);
    assert_eq!(server.client.fetch_version(&model, made).await.unwrap().len(), 2);
}
