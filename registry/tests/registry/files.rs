//! Files: what freezes them, where they can't lie, how they are sent.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluice_protocol::{Code, Digest, ModelVersion};

use crate::harness::{MAX_UPLOAD, Running, file, http, name, version};

const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";

#[tokio::test]
async fn a_version_freezes_its_files_and_only_those() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    for path in ["root/v/model.onnx", "root/v/dir/x", "root/va/model.onnx"] {
        assert_eq!(server.put(path, path.to_owned()).await.0, 200);
    }
    let create = json!({ "name": "m", "source": "mlflow-artifacts:/root/v" });
    let (status, made) = server.call("POST", "/api/2.0/mlflow/model-versions/create", create).await;
    assert_eq!((status, &made["model_version"]["version"]), (200, &json!("1")));

    let check = async |method: &str, path: &str, expected: u16| {
        let (status, body) = match method {
            "PUT" => server.put(path, "other").await,
            _ => server.call(method, &format!("{ARTIFACTS}/{path}"), Value::Null).await,
        };
        assert_eq!(status, expected, "{method} {path}: {body}");
        if expected == 409 {
            assert_eq!(body["error_code"], json!("RESOURCE_CONFLICT"), "{method} {path}");
        }
    };
    for path in ["root/v/model.onnx", "root/v/new", "root/v/dir/x", "root/v", "root/v/dir"] {
        check("PUT", path, 409).await;
    }
    for path in ["root/v/model.onnx", "root/v/dir", "root/v", "root"] {
        check("DELETE", path, 409).await;
    }
    check("PUT", "root/va/model.onnx", 200).await;
    check("PUT", "root/va/model.onnx/x", 409).await;
    check("PUT", "root/w", 200).await;
    check("DELETE", "root/w", 200).await;
    check("DELETE", "root/w", 404).await;
    check("DELETE", "root/va", 200).await;
    let files = server.client.fetch_version(&name("m"), ModelVersion(1)).await.unwrap();
    assert_eq!(files, [file("dir/x", b"root/v/dir/x"), file("model.onnx", b"root/v/model.onnx")]);
}

#[tokio::test]
async fn a_copy_keeps_the_files_when_the_original_goes() {
    let server = Running::start().await;
    let (client, model, other) = (&server.client, name("m"), name("other"));
    client.create_model(&model, "").await.unwrap();
    client.create_model(&other, "").await.unwrap();
    version(client, &model, "x").await.unwrap();
    let copy = json!({ "name": "other", "source": "models:/m/1" });
    let (status, _) = server.call("POST", "/api/2.0/mlflow/model-versions/create", copy).await;
    assert_eq!(status, 200);
    client.delete_model(&model).await.unwrap();
    assert_eq!(client.fetch_version(&other, ModelVersion(1)).await.unwrap().len(), 2);
    let uri = server
        .call(
            "GET",
            "/api/2.0/mlflow/model-versions/get-download-uri?name=other&version=1",
            Value::Null,
        )
        .await
        .1;
    let root = uri["artifact_uri"].as_str().unwrap().strip_prefix("mlflow-artifacts:/").unwrap();
    assert_eq!(server.put(&format!("{root}/model.onnx"), "new").await.0, 409, "still frozen");
}

#[tokio::test]
async fn numbers_are_never_given_twice() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    version(client, &model, "1").await.unwrap();
    version(client, &model, "2").await.unwrap();
    let delete = json!({ "name": "m", "version": "2" });
    assert_eq!(server.call("DELETE", "/api/2.0/mlflow/model-versions/delete", delete).await.0, 200);
    assert_eq!(version(client, &model, "3").await.unwrap(), ModelVersion(3));
    client.delete_model(&model).await.unwrap();
    client.create_model(&model, "").await.unwrap();
    assert_eq!(version(client, &model, "4").await.unwrap(), ModelVersion(4));
    let rename = json!({ "name": "m", "new_name": "n" });
    assert_eq!(
        server.call("POST", "/api/2.0/mlflow/registered-models/rename", rename).await.0,
        200
    );
    assert_eq!(version(client, &name("n"), "5").await.unwrap(), ModelVersion(5));
}

#[tokio::test]
async fn versions_made_at_once_get_different_numbers_without_gaps() {
    let server = Running::start().await;
    let model = name("m");
    server.client.create_model(&model, "").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (client, model) = (server.client.clone(), model.clone());
        tasks.spawn(async move {
            // Some fail after their files are there, and must not use up a number.
            if number % 4 == 0 {
                let tags = [("k".repeat(300), String::new())].into();
                let error =
                    client.create_version(&model, &[file("a", b"a")], "", &tags).await.unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument);
                return None;
            }
            Some(version(&client, &model, &number.to_string()).await.unwrap().0)
        });
    }
    let numbers: BTreeSet<u64> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(numbers, (1..=12).collect());
}

#[tokio::test]
async fn no_path_leads_out() {
    let server = Running::start().await;
    for path in [
        "..",
        "../x",
        "a/../x",
        "a/..",
        "./x",
        "%2e%2e/x",
        "%2e%2e%2fx",
        "a/%2e%2e/%2e%2e/x",
        "%252e%252e/x",
        "%252e%252e%252fx",
        "a%5C..%5Cx",
        "..%5cx",
        "%2Fetc/passwd",
        "//etc/passwd",
        "a//b",
        "C:/x",
        "a%00b",
        "%ff",
        "a%0d%0ab",
        "%2e",
        "a/",
    ] {
        for (method, body) in
            [("PUT", "content-length: 1\r\n\r\nx"), ("GET", "\r\n"), ("DELETE", "\r\n")]
        {
            let request = format!(
                "{method} {ARTIFACTS}/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{body}"
            );
            let answer = server.raw(&request).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(matches!(status, "400" | "404"), "{method} {path}: {answer}");
            assert!(answer.contains("error_code") || status == "400", "{method} {path}: {answer}");
        }
        let request =
            format!("GET {ARTIFACTS}?path={path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(&request).await;
        assert!(answer.contains("400") || answer.ends_with("{}"), "list {path}: {answer}");
    }
    let outside: Vec<_> =
        std::fs::read_dir(server.folder.path().join("blobs/sha256")).unwrap().collect();
    assert!(outside.is_empty(), "nothing was kept: {outside:?}");
}

#[tokio::test]
async fn oversized_uploads_are_refused_with_and_without_an_announcement() {
    let server = Running::start().await;
    let limit = usize::try_from(MAX_UPLOAD).unwrap();
    assert_eq!(server.put("exact", vec![1; limit]).await.0, 200);
    // The answer arrives also when much of the body is still on its way.
    for longer in [limit + 1, 20 * limit] {
        let (status, body) = server.put("long", vec![1; longer]).await;
        assert_eq!((status, &body["error_code"]), (413, &json!("BAD_REQUEST")));
    }
    // Chunked, so that only counting tells.
    let chunks = format!("{:x}\r\n{}\r\n", limit + 1, "y".repeat(limit + 1));
    let request = format!(
        "PUT {ARTIFACTS}/long HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    assert!(server.raw(&request).await.starts_with("HTTP/1.1 413"));
    let (_, listed) = server.call("GET", ARTIFACTS, Value::Null).await;
    assert_eq!(
        listed,
        json!({ "files": [{ "path": "exact", "is_dir": false, "file_size": limit }] })
    );
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Running::start().await;
    let request =
        format!("PUT {ARTIFACTS}/half HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf");
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    drop(stream);
    nothing_is_left(&server).await;
    assert_eq!(server.call("GET", &format!("{ARTIFACTS}/half"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn the_same_bytes_are_kept_once() {
    let server = Running::start().await;
    for path in ["a", "b/c", "d"] {
        assert_eq!(server.put(path, "the same").await.0, 200);
    }
    let digest = Digest::of(b"the same").to_string();
    let shelf = server.folder.path().join("blobs/sha256").join(&digest[..2]);
    let kept: Vec<_> = std::fs::read_dir(shelf).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, [digest.as_str()]);
}

#[tokio::test]
async fn files_are_sent_whole_or_in_part_and_never_run_by_a_browser() {
    let server = Running::start().await;
    server.put("dir/a%20b.html", "0123456789").await;
    let url = server.url(&format!("{ARTIFACTS}/dir/a%20b.html"));
    let whole = http().get(&url).send().await.unwrap();
    for (header, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"a b.html\""),
        ("x-content-type-options", "nosniff"),
        ("content-length", "10"),
    ] {
        assert_eq!(whole.headers()[header], value);
    }
    let digest = Digest::of(b"0123456789");
    let blob = server.url(&format!("/api/1.0/sluice/blobs/{digest}"));
    for url in [&url, &blob] {
        let part = http().get(url).header("range", "bytes=2-4").send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
        assert_eq!(part.text().await.unwrap(), "234");
        let none = http().get(url).header("range", "bytes=10-").send().await.unwrap();
        assert_eq!(none.status(), 416);
    }
    let known =
        http().get(&blob).header("if-none-match", format!("\"{digest}\"")).send().await.unwrap();
    assert_eq!(known.status(), 304);
    let absent = server.url(&format!("/api/1.0/sluice/blobs/{}", Digest::of(b"absent")));
    assert_eq!(http().get(&absent).send().await.unwrap().status(), 404);
}

/// Waits until no received bytes lie around: they are removed after the answer.
async fn nothing_is_left(server: &Running) {
    let incoming = server.folder.path().join("blobs/incoming");
    for _ in 0..250 {
        if std::fs::read_dir(&incoming).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} still holds files", incoming.display());
}
