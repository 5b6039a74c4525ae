//! Compressed requests, and compressed answers for those who ask for them.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Caller, Process, answer, serve, serve_with};

const MODEL: [(&str, u64, &str); 1] = [("FP32", 1, "identity/FP32.onnx")];

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A request of one input of `count` elements, and whether its output is to be binary.
fn request(count: usize, binary: bool) -> String {
    let input =
        json!({"name": "INPUT0", "datatype": "FP32", "shape": [1, count], "data": vec![1; count]});
    json!({"inputs": [input], "parameters": {"binary_data_output": binary}}).to_string()
}

fn post(caller: &Caller, coding: &str, body: Vec<u8>) -> reqwest::RequestBuilder {
    let asked = caller.client.post(caller.url("/v2/models/FP32/infer"));
    asked.header("Content-Encoding", coding).body(body)
}

async fn send(asked: reqwest::RequestBuilder) -> Response {
    asked.send().await.unwrap()
}

#[tokio::test]
async fn requests_come_compressed() {
    let running = Process::start(&MODEL, &[]).await;
    let body = request(3, false).into_bytes();
    for (coding, body) in [
        ("gzip", gzip(&body)),
        ("GZIP", gzip(&body)),
        ("deflate", deflate(&body)),
        ("identity", body.clone()),
        ("", body.clone()),
    ] {
        let (status, answered) = answer(post(&running, coding, body)).await;
        assert_eq!(
            (status, &answered["outputs"][0]["data"]),
            (200, &json!([1.0, 1.0, 1.0])),
            "{coding}: {answered}"
        );
    }
    // The header and the sizes are those of what was compressed.
    let json = r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":4}}]}"#;
    let whole = [json.as_bytes(), &2.5f32.to_le_bytes()].concat();
    for (coding, body) in [("gzip", gzip(&whole)), ("deflate", deflate(&whole))] {
        let asked =
            post(&running, coding, body).header("Inference-Header-Content-Length", json.len());
        let (status, answered) = answer(asked).await;
        assert_eq!(
            (status, &answered["outputs"][0]["data"]),
            (200, &json!([2.5])),
            "{coding}: {answered}"
        );
    }
    running.end_without_an_error().await;
}

#[tokio::test]
async fn other_codings_are_not_implemented() {
    let running = Process::start(&MODEL, &[]).await;
    let body = request(3, false).into_bytes();
    for coding in ["br", "zstd", "gzip, gzip", "gzip,deflate", "compress", "x"] {
        let response = send(post(&running, coding, gzip(&gzip(&body)))).await;
        assert_eq!(response.status(), 501, "{coding}");
        assert_eq!(response.headers()["accept-encoding"], "gzip, deflate");
        let answered: Value = response.json().await.unwrap();
        assert!(answered["error"].as_str().unwrap().contains("is not understood"), "{answered}");
    }
    let twice = post(&running, "gzip", gzip(&gzip(&body))).header("Content-Encoding", "gzip");
    assert_eq!(send(twice).await.status(), 501);
    running.end_without_an_error().await;
}

#[tokio::test]
async fn streams_that_are_not_whole_are_refused() {
    let running = Process::start(&MODEL, &[]).await;
    let body = request(1000, false).into_bytes();
    let (zipped, deflated) = (gzip(&body), deflate(&body));
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    raw.write_all(&body).unwrap();
    for (coding, body, says) in [
        ("gzip", body.clone(), "header is wrong"),
        ("deflate", body.clone(), "no deflate stream"),
        ("deflate", raw.finish().unwrap(), "no deflate stream"),
        ("gzip", deflated.clone(), "header is wrong"),
        ("deflate", zipped.clone(), "no deflate stream"),
        ("gzip", Vec::new(), "header is wrong"),
        ("deflate", Vec::new(), "is cut off"),
        ("gzip", zipped[..zipped.len() - 1].to_vec(), "is cut off"),
        ("gzip", zipped[..zipped.len() / 2].to_vec(), "is cut off"),
        ("deflate", deflated[..deflated.len() - 1].to_vec(), "is cut off"),
        ("gzip", [&zipped[..], b"x"].concat(), "something follows its end"),
        ("deflate", [&deflated[..], &deflated].concat(), "something follows its end"),
        ("gzip", gzip(&zipped), "request body is no infer request"),
    ] {
        let (status, answered) = answer(post(&running, coding, body)).await;
        assert_eq!(status, 400, "{says}: {answered}");
        assert!(answered["error"].as_str().unwrap().contains(says), "{says}: {answered}");
    }
    running.end_without_an_error().await;
}

/// As much is made of a bomb as the limit lets, and the core goes on answering meanwhile.
#[tokio::test]
async fn a_bomb_is_refused_at_the_limit() {
    let running = serve_with(&MODEL, |settings| {
        settings.max_body = Some(8 << 20);
        settings.cores = Some(1);
    })
    .await;
    for bomb in [("gzip", gzip(&vec![b' '; 16 << 20])), ("deflate", deflate(&vec![b' '; 16 << 20]))]
    {
        assert!(bomb.1.len() < 100_000, "{}", bomb.1.len());
        let (client, url) = (running.client.clone(), running.url("/v2/models/FP32/infer"));
        let (coding, body) = bomb;
        let asked = client.post(url).header("Content-Encoding", coding).body(body);
        let bombing = tokio::spawn(answer(asked));
        let mut meanwhile = 0;
        while !bombing.is_finished() {
            assert_eq!(running.get("/v2/health/live").await.0, 200);
            meanwhile += 1;
        }
        let (status, answered) = bombing.await.unwrap();
        assert_eq!(status, 413, "{answered}");
        assert!(
            answered["error"].as_str().unwrap().contains("limit of 8388608 bytes"),
            "{answered}"
        );
        assert!(meanwhile > 0, "nobody was answered meanwhile");
    }
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    let running = serve_with(&MODEL, |settings| settings.compress_replies = Some(2000)).await;
    let ask = async |accept: &str, count: usize, binary: bool| {
        let asked = running.client.post(running.url("/v2/models/FP32/infer"));
        send(asked.header("Accept-Encoding", accept).body(request(count, binary))).await
    };
    for (accept, coding) in [
        ("gzip", Some("gzip")),
        ("deflate", Some("deflate")),
        ("gzip, deflate, br, zstd", Some("gzip")),
        ("deflate, gzip", Some("deflate")),
        ("gzip;q=0.1, deflate;q=0.2", Some("deflate")),
        ("identity, gzip", None),
        ("identity;q=0.5, gzip;q=0.6", Some("gzip")),
        ("gzip;q=0", None),
        ("*", None),
        ("br", None),
        ("", None),
    ] {
        for binary in [true, false] {
            let response = ask(accept, 1000, binary).await;
            let headers = response.headers().clone();
            let found = headers.get("content-encoding").map(|coding| coding.to_str().unwrap());
            assert_eq!((response.status().as_u16(), found), (200, coding), "{accept}");
            let body = response.bytes().await.unwrap();
            assert_eq!(headers["content-length"], body.len().to_string());
            let mut plain = Vec::new();
            match coding {
                Some("gzip") => GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap(),
                Some(_) => ZlibDecoder::new(&body[..]).read_to_end(&mut plain).unwrap(),
                None => body.as_ref().read_to_end(&mut plain).unwrap(),
            };
            let json = match headers.get("inference-header-content-length") {
                Some(length) => {
                    let length: usize = length.to_str().unwrap().parse().unwrap();
                    assert_eq!(plain.len(), length + 4000);
                    &plain[..length]
                }
                None => &plain[..],
            };
            let answered: Value = serde_json::from_slice(json).unwrap();
            assert_eq!(answered["outputs"][0]["shape"], json!([1, 1000]), "{accept}");
        }
    }
    // V1 answers by the same rule.
    let rows = json!({"instances": vec![vec![1; 1000]]}).to_string();
    let asked = running.client.post(running.url("/v1/models/FP32:predict"));
    let response = send(asked.header("Accept-Encoding", "gzip").body(rows)).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(!ask("gzip", 10, false).await.headers().contains_key("content-encoding"));
}

/// However long it is. Errors are never as long as the least that is compressed.
#[tokio::test]
async fn only_predictions_are_compressed() {
    let models = ["FP32", "b", "c", "d"].map(|name| (name, 1, "identity/FP32.onnx"));
    let running = serve_with(&models, |settings| settings.compress_replies = Some(1024)).await;
    let (infer, client) = (running.url("/v2/models/FP32/infer"), &running.client);
    for (asked, coding) in [
        (client.post(&infer).body(request(1000, false)), Some("gzip")),
        (client.get(running.url("/v2/models/stats")), None),
    ] {
        let response = send(asked.header("Accept-Encoding", "gzip")).await;
        let found = response.headers().get("content-encoding").cloned();
        let what = format!("{} {}", response.status(), response.url());
        assert_eq!(response.status(), 200, "{what}");
        assert_eq!(found.as_ref().map(|coding| coding.to_str().unwrap()), coding, "{what}");
        let body = response.bytes().await.unwrap();
        assert!(coding.is_some() || body.len() > 1024, "{what}: {body:?}");
    }
}

/// Python's httpx, which KServe's client is built on, always asks.
#[tokio::test]
async fn answers_are_not_compressed_unless_that_is_set() {
    let running = serve(&MODEL).await;
    let asked = running.client.post(running.url("/v2/models/FP32/infer"));
    let response =
        send(asked.header("Accept-Encoding", "gzip, deflate").body(request(10_000, false))).await;
    assert!(!response.headers().contains_key("content-encoding"));
    let answered: Value = response.json().await.unwrap();
    assert_eq!(answered["outputs"][0]["shape"], json!([1, 10_000]));
}
