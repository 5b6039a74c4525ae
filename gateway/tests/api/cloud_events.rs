//! CloudEvents around V1's predict requests, in both modes.

use http::HeaderMap;
use serde_json::{Value, json};
use sluice_gateway::Settings;

use crate::support::{Caller, Running, serve_with};

const ID: &str = "36077800-0c23-4f38-a0b4-01f4369f670a";
const TIME: &str = "2021-01-28T21:04:43.144141+00:00";
const PATH: &str = "/v1/models/scale:predict";
const BODY: &str = r#"{"instances": [[1, 2.5]]}"#;
const ANSWER: &str = r#"{"predictions": [[3.0, 6.0]]}"#;
const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", ID),
    ("ce-source", "https://example.com/event-producer"),
    ("ce-type", "com.example.sampletype1"),
];

async fn serve(adjust: impl FnOnce(&mut Settings)) -> Running {
    serve_with(&[("scale", 1, "scale.onnx")], adjust).await
}

fn event(data: Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": ID,
        "source": "https://example.com/event-producer",
        "type": "com.example.sampletype1",
        "time": TIME,
        "data": data,
    })
}

async fn post(
    caller: &Caller,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, HeaderMap, String) {
    let mut request = caller.client.post(caller.url(path)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

#[tokio::test]
async fn an_event_of_one_object_is_answered_by_one() {
    let running = serve(|_| {}).await;
    let typed = ("content-type", "application/cloudevents+json; charset=utf-8");
    let mut without_time = event(json!({"instances": [[1, 2.5]]}));
    without_time.as_object_mut().unwrap().remove("time");
    let mut binary = without_time.clone();
    binary.as_object_mut().unwrap().remove("data");
    binary["data_base64"] = json!("eyJpbnN0YW5jZXMiOltbMSwyLjVdXX0=");
    for (headers, request) in [
        (&[typed][..], event(json!({"instances": [[1, 2.5]]}))),
        (&[typed], without_time),
        (&[typed], binary),
        // One that does not say so and has everything.
        (&[], event(json!({"instances": [[1, 2.5]]}))),
        (&[("content-type", "application/json")], event(json!({"instances": [[1, 2.5]]}))),
    ] {
        let (status, headers, body) = post(&running, PATH, headers, request.to_string()).await;
        assert_eq!(status, 200, "{request}: {body}");
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert!(!headers.contains_key("ce-id"));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["data"], json!({"predictions": [[3.0, 6.0]]}));
        assert_eq!(body["specversion"], "1.0");
        assert_eq!(body["source"], "io.kserve.inference.scale");
        assert_eq!(body["type"], "io.kserve.inference.response");
        assert!(body["time"].as_str().unwrap() > TIME);
        assert_ne!(body["id"], ID);
        assert_eq!(body["id"].as_str().unwrap().len(), ID.len());
        assert_eq!(body.as_object().unwrap().len(), 6, "{body}");
    }
}

#[tokio::test]
async fn an_event_in_headers_is_answered_by_one() {
    let running = serve(|_| {}).await;
    let typed =
        [&REQUIRED[..], &[("content-type", "application/json"), ("ce-time", TIME)]].concat();
    let extended = [&REQUIRED[..], &[("ce-custom-extension", "x")]].concat();
    let mut ids = Vec::new();
    for headers in [&REQUIRED[..], &typed, &extended] {
        let (status, headers, body) = post(&running, PATH, headers, BODY).await;
        assert_eq!((status, body.as_str()), (200, ANSWER));
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-source"), "io.kserve.inference.scale");
        assert_eq!(header("ce-type"), "io.kserve.inference.response");
        assert!(header("ce-time") > TIME);
        assert!(!headers.contains_key("ce-custom-extension"));
        ids.push(header("ce-id").to_owned());
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ID, "{ids:?}");
}

#[tokio::test]
async fn answers_are_signed_as_it_is_set() {
    let running = serve(|settings| {
        settings.cloud_events.ce_type = Some("io.kserve.custom_type".to_owned());
        settings.cloud_events.ce_source = Some("io.kserve.inference.CustomSource".to_owned());
    })
    .await;
    let request = event(json!({"instances": [[1, 2.5]]})).to_string();
    let (_, _, body) = post(&running, PATH, &[], request).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["source"], "io.kserve.inference.CustomSource");
    assert_eq!(body["type"], "io.kserve.custom_type");
    let (_, headers, _) = post(&running, PATH, &REQUIRED, BODY).await;
    assert_eq!(headers["ce-source"], "io.kserve.inference.CustomSource");
    assert_eq!(headers["ce-type"], "io.kserve.custom_type");
}

#[tokio::test]
async fn attributes_are_repeated_where_that_is_set() {
    let running = serve(|settings| settings.cloud_events.ce_merge = Some(true)).await;
    let mut request = event(json!({"instances": [[1, 2.5]]}));
    request["custom-extension"] = json!("custom-value");
    request["subject"] = json!({"a": [1, "ü"]});
    let (status, _, body) = post(&running, PATH, &[], request.to_string()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (&body["custom-extension"], &body["subject"]),
        (&json!("custom-value"), &request["subject"])
    );
    assert_ne!((&body["id"], &body["time"]), (&request["id"], &request["time"]));
    assert_eq!(body["source"], "io.kserve.inference.scale");
    assert_eq!(body["data"], json!({"predictions": [[3.0, 6.0]]}));

    let more = [
        ("ce-custom-extension", "custom-value"),
        ("ce-content-type", "application/json"),
        ("ce-datacontenttype", "application/json"),
        ("ce-time", TIME),
    ];
    let (status, headers, body) =
        post(&running, PATH, &[&REQUIRED[..], &more].concat(), BODY).await;
    assert_eq!((status, body.as_str()), (200, ANSWER));
    assert_eq!(headers["ce-custom-extension"], "custom-value");
    assert_eq!(headers["ce-content-type"], "application/json");
    assert_eq!(headers["ce-source"], "io.kserve.inference.scale");
    assert!(!headers.contains_key("ce-datacontenttype"));
    assert_eq!(headers.get_all("ce-id").iter().count(), 1);
    assert!(headers["ce-id"] != ID && headers["ce-time"] != TIME);
}

#[tokio::test]
async fn events_that_are_none() {
    let running = serve(|_| {}).await;
    let structured = [("content-type", "application/cloudevents+json")];
    let without = |name: &str| {
        let mut event = event(json!({"instances": [[1, 2]]}));
        event.as_object_mut().unwrap().remove(name);
        event.to_string()
    };
    let with = |name: &str, value: Value| {
        let mut event = event(json!({"instances": [[1, 2]]}));
        event[name] = value;
        event.to_string()
    };
    let avro = ("content-type", "application/avro");
    let binary = |more: &[(&'static str, &'static str)]| [&REQUIRED[..], more].concat();
    for (headers, body, says) in [
        (structured.to_vec(), without("id").into_bytes(), "Missing required fields: id"),
        (structured.to_vec(), without("source").into_bytes(), "fields: source"),
        (structured.to_vec(), without("data").into_bytes(), "fields: data"),
        (structured.to_vec(), BODY.into(), "fields: specversion, id, source, type"),
        (structured.to_vec(), with("id", json!(7)).into_bytes(), "fields: id"),
        (structured.to_vec(), with("type", json!("")).into_bytes(), "fields: type"),
        (
            structured.to_vec(),
            with("specversion", json!("9")).into_bytes(),
            "invalid specversion \"9\"",
        ),
        (structured.to_vec(), with("data", json!("text")).into_bytes(), "predict request"),
        (structured.to_vec(), b"[1]".to_vec(), "no cloudevent"),
        (structured.to_vec(), b"{".to_vec(), "no cloudevent"),
        (vec![], with("specversion", json!("9")).into_bytes(), "invalid specversion"),
        (REQUIRED[..3].to_vec(), BODY.into(), "fields: type"),
        (vec![REQUIRED[0], ("ce-id", "")], BODY.into(), "fields: id, source, type"),
        (
            vec![("ce-specversion", "2"), REQUIRED[1], REQUIRED[2], REQUIRED[3]],
            BODY.into(),
            "invalid specversion \"2\"",
        ),
        (binary(&[]), b"{".to_vec(), "Failed to decode or parse binary json cloudevent: EOF"),
        (
            binary(&[("content-type", "application/json")]),
            b"0\x80\x80\x06World!\0\0".to_vec(),
            "Failed to decode or parse binary json cloudevent: ",
        ),
        (binary(&[avro]), b"\x06foo\0\x02\0\x08pink".to_vec(), "data of type \"application/avro\""),
        (binary(&[]), b"{}".to_vec(), "Missing 'inputs' or 'instances' key"),
    ] {
        let sent = String::from_utf8_lossy(&body).into_owned();
        let (status, _, body) = post(&running, PATH, &headers, body).await;
        assert_eq!(status, 400, "{headers:?} {sent}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(says), "{headers:?} {sent}: {body}");
    }
    let mut bad = event(json!(null));
    bad.as_object_mut().unwrap().remove("data");
    bad["data_base64"] = json!("***");
    let (status, _, body) = post(&running, PATH, &structured, bad.to_string()).await;
    assert!(status == 400 && body.contains("data_base64"), "{body}");
}

/// Proxies add headers of the prefix, and a body may have keys of these names.
#[tokio::test]
async fn what_only_looks_like_an_event_is_none() {
    let running = serve(|_| {}).await;
    let (status, headers, body) = post(&running, PATH, &REQUIRED[1..], BODY).await;
    assert_eq!((status, body.as_str()), (200, r#"{"predictions":[[3.0,6.0]]}"#));
    assert!(!headers.contains_key("ce-id"));
    let body = r#"{"id": "7", "data": 1, "type": "x", "instances": [[1, 2.5]]}"#;
    let (status, headers, body) = post(&running, PATH, &[], body).await;
    assert_eq!((status, body.as_str()), (200, r#"{"predictions":[[3.0,6.0]]}"#));
    assert_eq!(headers["content-type"], "application/json");
    // V2 knows nothing of events.
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    let request = event(json!({"inputs": [input]})).to_string();
    let (status, _, body) = post(&running, "/v2/models/scale/infer", &[], request).await;
    assert_eq!(status, 400, "{body}");
}
