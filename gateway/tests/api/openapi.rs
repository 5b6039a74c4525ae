//! The document of the HTTP surface, held against both ports.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::support::{answer, serve_with};

fn strings(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn both_ports_answer_what_the_document_lists() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.serve_metrics = Some(true);
    })
    .await;
    let (status, document) = running.get("/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &Value::from("3.1.0")));
    let there = answer(running.client.get(running.admin("/openapi.json"))).await;
    assert_eq!(there, (200, document.clone()));
    for (template, item) in document["paths"].as_object().unwrap() {
        let listed: BTreeSet<_> =
            item.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        let ports: BTreeSet<_> =
            item.as_object().unwrap().values().flat_map(|o| strings(&o["x-ports"])).collect();
        let path = template.replace("{version}", "3");
        let names = ["{model}", "{label}", "{repository}", "{region}", "{service}"];
        let path = names.iter().fold(path, |path, name| path.replace(name, "nobody"));
        for (port, url) in [("serving", running.url(&path)), ("admin", running.admin(&path))] {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let response = running.client.request(method.clone(), &url).send().await.unwrap();
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let body = response.text().await.unwrap();
                let error = || {
                    let body: Value = serde_json::from_str(&body).unwrap_or_default();
                    assert!(body["error"].is_string(), "{method} {url}: {body}");
                };
                match (ports.contains(port), listed.contains(method.as_str())) {
                    (true, true) => {
                        let statuses = &item[method.as_str().to_lowercase()]["responses"];
                        assert!(
                            !statuses[status.to_string()].is_null(),
                            "{method} {url}: {status}"
                        );
                    }
                    (true, false) => {
                        assert_eq!(status, 405, "{method} {url}: {body}");
                        let allowed = headers["allow"].to_str().unwrap();
                        let allowed = allowed.split(',').map(str::trim).filter(|m| *m != "HEAD");
                        assert_eq!(allowed.map(str::to_owned).collect::<BTreeSet<_>>(), listed);
                        error();
                    }
                    (false, _) => {
                        // The administration port knows every path below /v2.
                        assert!(matches!(status, 404 | 405), "{method} {url}: {status}");
                        error();
                    }
                }
            }
        }
    }
}
