//! MLflow's API as it is on the wire: routes, bodies, errors.

use serde_json::{Value, json};

use crate::harness::{Running, http, name, version};

#[tokio::test]
async fn every_route_is_there_under_both_prefixes() {
    let server = Running::start().await;
    for prefix in ["/api/2.0", "/ajax-api/2.0"] {
        for (methods, path) in [
            ("POST", "registered-models/create"),
            ("GET", "registered-models/get"),
            ("PATCH", "registered-models/update"),
            ("POST", "registered-models/rename"),
            ("DELETE", "registered-models/delete"),
            ("GET", "registered-models/search"),
            ("GET POST", "registered-models/get-latest-versions"),
            ("POST", "registered-models/set-tag"),
            ("DELETE", "registered-models/delete-tag"),
            ("GET POST DELETE", "registered-models/alias"),
            ("POST", "model-versions/create"),
            ("GET", "model-versions/get"),
            ("PATCH", "model-versions/update"),
            ("DELETE", "model-versions/delete"),
            ("GET", "model-versions/search"),
            ("GET", "model-versions/get-download-uri"),
            ("POST", "model-versions/set-tag"),
            ("DELETE", "model-versions/delete-tag"),
        ] {
            for method in methods.split(' ') {
                let path = format!("{prefix}/mlflow/{path}");
                let (status, body) = server.call(method, &path, Value::Null).await;
                let missing = json!("Missing value for required parameter 'name'");
                let good = (status, &body["message"]) == (400, &missing)
                    || (status, body.clone()) == (200, json!({}))
                    || body["message"] == json!("Missing value for required parameter 'source'");
                assert!(good, "{method} {path}: {status} {body}");
            }
        }
        let (status, body) =
            server.call("GET", &format!("{prefix}/mlflow-artifacts/artifacts"), Value::Null).await;
        assert_eq!((status, body), (200, json!({})));
    }
    for prefix in ["/api/3.0", "/ajax-api/3.0"] {
        let (status, body) =
            server.call("GET", &format!("{prefix}/mlflow/server-info"), Value::Null).await;
        assert_eq!((status, &body["multipart_uploads_enabled"]), (200, &json!(false)));
    }
    for (path, text) in [("/health", "OK"), ("/version", "3.18.0")] {
        assert_eq!(http().get(server.url(path)).send().await.unwrap().text().await.unwrap(), text);
    }
}

#[tokio::test]
async fn unknown_endpoints_and_methods_answer_json() {
    let server = Running::start().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/api/2.0/mlflow/experiments/get"),
        ("POST", "/api/2.0/mlflow/registered-models/get"),
        ("GET", "/API/2.0/mlflow/registered-models/get"),
        ("GET", "//api/2.0/mlflow/registered-models/get"),
        ("PUT", "/api/1.0/sluice/snapshot"),
        ("DELETE", "/health"),
    ] {
        let (status, body) = server.call(method, path, Value::Null).await;
        assert_eq!(
            (status, &body["error_code"]),
            (404, &json!("ENDPOINT_NOT_FOUND")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn bodies_are_written_as_mlflow_writes_them() {
    let server = Running::start().await;
    let create = "/api/2.0/mlflow/registered-models/create";
    let (status, body) = server.call("POST", create, json!({ "name": "m" })).await;
    assert_eq!(status, 200);
    let model = body["registered_model"].as_object().unwrap();
    assert!(model["creation_timestamp"].is_u64());
    // No tags, aliases, versions and no description: left out, not empty.
    let keys: Vec<&str> = model.keys().map(String::as_str).collect();
    assert_eq!(keys, ["creation_timestamp", "last_updated_timestamp", "name"]);

    version(&server.client, &name("m"), "x").await.unwrap();
    let path = "/api/2.0/mlflow/model-versions/get?name=m&version=1";
    let (_, body) = server.call("GET", path, Value::Null).await;
    let found = &body["model_version"];
    assert_eq!(found["version"], json!("1"), "version is text");
    assert_eq!((&found["status"], &found["current_stage"]), (&json!("READY"), &json!("None")));
    // A delete names its thing in the body.
    let (status, body) = server
        .call(
            "DELETE",
            "/api/2.0/mlflow/model-versions/delete",
            json!({ "name": "m", "version": 1 }),
        )
        .await;
    assert_eq!((status, body), (200, json!({})));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    let check = async |path: &str, text: &str| {
        check(&server, "GET", path, Value::Null, (404, "RESOURCE_DOES_NOT_EXIST", text)).await;
    };
    check("registered-models/get?name=x", "Registered Model with name=x not found").await;
    check("registered-models/get-latest-versions?name=x", "with name=x not found").await;
    let version = "Model Version (name=m, version=1) not found";
    check("model-versions/get?name=m&version=1", version).await;
    check("model-versions/get-download-uri?name=m&version=1", version).await;
}

#[tokio::test]
async fn parameters_are_checked() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    let check = async |path: &str, text: &str| {
        check(&server, "GET", path, Value::Null, (400, "INVALID_PARAMETER_VALUE", text)).await;
    };
    check("model-versions/get?name=m", "Missing value for required parameter 'version'").await;
    check("model-versions/get?name=m&version=x", "must be a positive whole number").await;
    check("registered-models/alias?name=m&alias=a", "Registered model alias a not found.").await;
    check("registered-models/search?max_results=1001", "at most 1000").await;
    check("registered-models/search?max_results=-1", "'max_results'").await;
    check("registered-models/search?page_token=x", "page token").await;
    check("registered-models/search?filter=size%3D1", "Valid keys are name").await;
    check("registered-models/search?filter=name", "an operator is missing").await;
    check("registered-models/search?order_by=size", "order_by").await;
    check("registered-models/search?order_by=name&order_by=name", "duplicate").await;
    check("sluice/models/..%2F/versions/1/files", "model name").await;
    check("sluice/blobs/xyz", "64 hex digits").await;
}

#[tokio::test]
async fn bodies_are_checked() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    let check = async |path: &str, body: Value, text: &str| {
        check(&server, "POST", path, body, (400, "INVALID_PARAMETER_VALUE", text)).await;
    };
    let create = "registered-models/create";
    check(create, json!({ "name": 123 }), "Invalid value 123 for parameter 'name' supplied").await;
    check(create, json!({ "name": "../m" }), "model name").await;
    check(create, json!({ "name": "n", "tags": "x" }), "'tags'").await;
    check(create, json!({ "name": "n", "tags": [{ "value": "x" }] }), "'tags'").await;
    check(create, json!([]), "not a JSON object").await;
    let create = "model-versions/create";
    let source = |text: &str| json!({ "name": "m", "source": text });
    check(create, source("file:///etc"), "Invalid model version source").await;
    check(create, source("mlflow-artifacts:/x"), "no files").await;
    check(create, source("models:/m-0123"), "logged models").await;
    check(create, json!({ "name": "m" }), "Missing value for required parameter 'source'").await;
}

#[tokio::test]
async fn a_taken_name_is_refused() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    let text = "Registered Model (name=m) already exists.";
    let expected = (400, "RESOURCE_ALREADY_EXISTS", text);
    check(&server, "POST", "registered-models/create", json!({ "name": "m" }), expected).await;
    let rename = json!({ "name": "m", "new_name": "m" });
    check(&server, "POST", "registered-models/rename", rename, expected).await;
}

/// Checks status, name and text of a refusal. Paths are MLflow's, or our own from `sluice/` on.
async fn check(
    server: &Running,
    method: &str,
    path: &str,
    body: Value,
    (status, code, text): (u16, &str, &str),
) {
    let path = match path.strip_prefix("sluice/") {
        Some(own) => format!("/api/1.0/sluice/{own}"),
        None => format!("/api/2.0/mlflow/{path}"),
    };
    let (found, answer) = server.call(method, &path, body).await;
    assert_eq!((found, &answer["error_code"]), (status, &json!(code)), "{method} {path}: {answer}");
    assert!(answer["message"].as_str().unwrap().contains(text), "{method} {path}: {answer}");
}

#[tokio::test]
async fn bodies_that_are_not_json_change_nothing() {
    let server = Running::start().await;
    let url = server.url("/api/2.0/mlflow/registered-models/create");
    for (kind, body) in [
        ("text/plain", r#"{"name": "m"}"#.to_owned()),
        ("application/x-www-form-urlencoded", "name=m".into()),
        ("application/json", "{".into()),
        (
            "application/json",
            format!("{{\"name\": \"m\", \"x\": {}1{}}}", "[".repeat(500), "]".repeat(500)),
        ),
    ] {
        let answer =
            http().post(&url).header("content-type", kind).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{kind}");
    }
    // As a page sends it that posts a blob without a type.
    let answer = http().post(&url).body(r#"{"name": "m"}"#).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["message"].as_str().unwrap().contains("is missing"), "{answer}");
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    let answer =
        http().post(&url).header("content-type", "application/json").body(long).send().await;
    assert_eq!(answer.unwrap().status(), 413);
    assert!(server.client.snapshot().await.unwrap().models.is_empty());
}

#[tokio::test]
async fn writes_can_be_repeated() {
    let server = Running::start().await;
    let (client, model) = (&server.client, name("m"));
    client.create_model(&model, "").await.unwrap();
    let made = version(client, &model, "x").await.unwrap();
    client.set_alias(&model, "champion", made).await.unwrap();
    let before = client.snapshot().await.unwrap();
    for (method, path, body) in [
        (
            "POST",
            "registered-models/alias",
            json!({ "name": "m", "alias": "champion", "version": "1" }),
        ),
        ("POST", "registered-models/set-tag", json!({ "name": "m", "key": "a", "value": "b" })),
        ("POST", "registered-models/set-tag", json!({ "name": "m", "key": "a", "value": "b" })),
        (
            "POST",
            "model-versions/set-tag",
            json!({ "name": "m", "version": "1", "key": "a", "value": "" }),
        ),
        ("DELETE", "registered-models/delete-tag", json!({ "name": "m", "key": "never" })),
        ("DELETE", "registered-models/alias", json!({ "name": "m", "alias": "never" })),
    ] {
        let (status, answer) = server.call(method, &format!("/api/2.0/mlflow/{path}"), body).await;
        assert_eq!((status, answer), (200, json!({})), "{path}");
    }
    assert_eq!(client.snapshot().await.unwrap(), before, "nothing for a follower to see");
}

#[tokio::test]
async fn pages_neither_overlap_nor_skip() {
    let server = Running::start().await;
    for number in 0..7 {
        server.client.create_model(&name(&format!("m{number}")), "").await.unwrap();
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!(
            "/api/2.0/mlflow/registered-models/search?max_results=3&order_by=creation_timestamp&page_token={token}"
        );
        let (status, page) = server.call("GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let models = page["registered_models"].as_array().unwrap();
        seen.extend(models.iter().map(|model| model["name"].as_str().unwrap().to_owned()));
        match page["next_page_token"].as_str() {
            Some(next) => token = next.into(),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
}

#[tokio::test]
async fn searches_find_what_they_name() {
    let server = Running::start().await;
    for model in ["alpha", "beta", "Alpha2"] {
        server.client.create_model(&name(model), "").await.unwrap();
    }
    let tag =
        |model: &str, key: &str, value: &str| json!({ "name": model, "key": key, "value": value });
    for body in [
        tag("alpha", "team", "x'y"),
        tag("beta", "mlflow.prompt.is_prompt", "true"),
        tag("beta", "team", "b"),
    ] {
        server.call("POST", "/api/2.0/mlflow/registered-models/set-tag", body).await;
    }
    for (filter, expected) in [
        ("", vec!["Alpha2", "alpha", "beta"]),
        ("name = 'alpha'", vec!["alpha"]),
        ("name != 'alpha'", vec!["Alpha2", "beta"]),
        ("name LIKE 'a%'", vec!["alpha"]),
        ("name ILIKE 'a%'", vec!["Alpha2", "alpha"]),
        ("name IN ('beta', 'Alpha2')", vec!["Alpha2", "beta"]),
        ("name NOT IN ('beta')", vec!["Alpha2", "alpha"]),
        ("tags.team = 'x''y'", vec!["alpha"]),
        ("tags.team != 'b'", vec!["alpha"]),
        ("tag.`mlflow.prompt.is_prompt` != 'true'", vec!["Alpha2", "alpha"]),
        ("name = 'x'' OR 1=1 --'", vec![]),
    ] {
        let url = server.url("/ajax-api/2.0/mlflow/registered-models/search");
        let answer = http().get(url).query(&[("filter", filter)]).send().await.unwrap();
        let page: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let none = Vec::new();
        let models = page["registered_models"].as_array().unwrap_or(&none);
        let names: Vec<&str> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{filter}: {page}");
    }
}
