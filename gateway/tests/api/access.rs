//! Bearer tokens and restricted APIs: who is answered, and what the others are told.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sluice_gateway::SecuritySettings;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use sluice_protocol::grpc::{
    ModelMetadataRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::settings::check;
use crate::support::{Running, answer, serve_with, wait_until};

const PREDICT: &str = r#"{"instances": [[1, 2]]}"#;

async fn serve_secured(adjust: impl FnOnce(&mut SecuritySettings)) -> Running {
    serve_with(&[("m", 1, "scale.onnx")], |settings| adjust(&mut settings.security)).await
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Status of a call with a token or none; and what is told where it is refused.
async fn call(running: &Running, method: &str, url: String, token: Option<&str>) -> (u16, String) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = running.client.request(method, url).body(PREDICT);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let challenge = response.headers().get("www-authenticate").cloned();
    assert_eq!(challenge.is_some(), status == 401);
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = response.text().await.unwrap();
    if let Some(token) = token {
        assert!(!body.contains(token), "{body}");
    }
    (status, format!("{challenge} {body}"))
}

async fn channel(running: &Running) -> GrpcInferenceServiceClient<Channel> {
    let url = format!("http://{}", running.addresses.grpc);
    GrpcInferenceServiceClient::connect(url).await.unwrap()
}

fn carrying<T>(message: T, key: &str, value: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !value.is_empty() {
        let key: AsciiMetadataKey = key.parse().unwrap();
        request.metadata_mut().insert(key, AsciiMetadataValue::try_from(value).unwrap());
    }
    request
}

#[tokio::test]
async fn inference_wants_a_token_and_health_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", "# two\nuser-1\n\nuser-2\n");
    let running = serve_secured(|security| security.inference_token_file = Some(tokens)).await;
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v1/models/m", "/"] {
        let answered = call(&running, "GET", running.url(path), None).await;
        assert_eq!(answered.0, 200, "{path}");
    }
    for (method, path) in [
        ("POST", "/v1/models/m:predict"),
        ("GET", "/v1/models"),
        ("GET", "/v2"),
        ("GET", "/v2/models/m"),
        ("GET", "/v2/models/not-there"),
    ] {
        let url = running.url(path);
        let (status, said) = call(&running, method, url.clone(), None).await;
        assert!(status == 401 && said.starts_with("Bearer {"), "{path}: {status} {said}");
        assert!(said.contains("a bearer token is needed"), "{path}: {said}");
        let (status, said) = call(&running, method, url.clone(), Some("guess-0")).await;
        assert!(status == 401 && said.starts_with("Bearer error=\"invalid_token\""), "{said}");
        assert!(said.contains("not one that is accepted"), "{path}: {said}");
        for token in ["user-1", "user-2"] {
            let (status, said) = call(&running, method, url.clone(), Some(token)).await;
            assert_eq!(status, if path.contains("not-there") { 404 } else { 200 }, "{said}");
        }
    }
    // Administration has no tokens here.
    assert_eq!(call(&running, "GET", running.admin("/models"), None).await.0, 200);
}

/// Who has no token is told whether a model is ready, and nothing of what there is else.
#[tokio::test]
async fn readiness_without_a_token_says_no_more_than_that() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", "user\n");
    let models = [("m", 1, "scale.onnx"), ("m", 2, "scale.onnx"), ("broken", 3, "scale.onnx")];
    let running = serve_with(&models, |settings| {
        settings.security.inference_token_file = Some(tokens);
    })
    .await;
    let place = running.folder.path().join("broken/4");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("model.onnx"), "no graph").unwrap();
    let get = async |path: &str, token: Option<&str>| {
        let request = running.client.get(running.url(path));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        answer(request).await
    };
    wait_until("the refusal", async || {
        get("/v2/models/broken/versions/4/ready", Some("user")).await.0 == 503
    })
    .await;
    for (path, status, ready) in [
        ("/v1/models/m", 200, true),
        ("/v1/models/m/versions/2", 200, true),
        ("/v1/models/broken/versions/4", 503, false),
        ("/v2/models/m/ready", 200, true),
        ("/v2/models/m/versions/1/ready", 200, true),
        ("/v2/models/broken/versions/4/ready", 503, false),
    ] {
        let model = path.split('/').nth(3).unwrap();
        let alone = json!({"name": model, "ready": ready});
        for token in [None, Some("guess")] {
            assert_eq!(get(path, token).await, (status, alone.clone()), "{path}");
        }
        let (there, body) = get(path, Some("user")).await;
        assert_eq!((there, &body["ready"]), (status, &ready.into()), "{path}");
        if path.starts_with("/v1") || !ready {
            assert!(body.as_object().unwrap().len() > 2, "{path}: {body}");
        }
    }
    for path in [
        "/v1/models/x",
        "/v1/models/m/versions/7",
        "/v1/models/m/labels/x",
        "/v2/models/m/versions/7/ready",
    ] {
        let (status, body) = get(path, None).await;
        let text = body["error"].as_str().unwrap();
        assert!(status == 404 && text.contains("callers with a token"), "{path}: {body}");
        assert!(!text.contains("available"), "{path}: {body}");
        assert_eq!(get(path, Some("user")).await.0, 404, "{path}");
    }
}

/// The flag's say on a group, and the file's on the others.
#[tokio::test]
async fn restrictions_of_flags_and_of_the_file_stand_together() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        write(folder.path(), "sluice.toml", "[restrict]\n\"health,metadata\" = \"file:1\"\n");
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        settings.config = Some(config);
        settings.security.restrict = vec!["health=flag:1".to_owned()];
    })
    .await;
    for (path, header, expected) in [
        ("/v2/health/live", "flag", 200),
        ("/v2/health/live", "file", 403),
        ("/v2", "file", 200),
        ("/v2", "flag", 403),
    ] {
        let request = running.client.get(running.url(path)).header(header, "1");
        assert_eq!(answer(request).await.0, expected, "{path} {header}");
    }
}

#[tokio::test]
async fn grpc_wants_the_token_in_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", "user\n");
    let running = serve_secured(|security| security.inference_token_file = Some(tokens)).await;
    let mut client = channel(&running).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for (value, expected) in [
        ("", Err("a bearer token is needed")),
        ("user", Err("a bearer token is needed")),
        ("Bearer guess", Err("not one that is accepted")),
        ("Bearer user", Ok(())),
    ] {
        let message = ModelMetadataRequest { name: "m".to_owned(), version: String::new() };
        let asked = client.model_metadata(carrying(message, "authorization", value)).await;
        match (asked, expected) {
            (Ok(_), Ok(())) => {}
            (Err(status), Err(says)) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{value}");
                assert!(status.message().contains(says), "{value}: {status}");
                assert!(!status.message().contains("guess"), "{status}");
            }
            (asked, _) => panic!("{value}: {asked:?}"),
        }
    }
}

#[tokio::test]
async fn the_admin_port_wants_an_admin_token() {
    let folder = tempfile::tempdir().unwrap();
    let admin = write(folder.path(), "admin", "operator");
    let users = write(folder.path(), "users", "user");
    let running = serve_secured(|security| {
        security.admin_token_file = Some(admin);
        security.inference_token_file = Some(users);
    })
    .await;
    for (method, path) in [
        ("GET", "/models"),
        ("GET", "/metrics"),
        ("POST", "/reload"),
        ("GET", "/not-there"),
        ("GET", "/v2/health/live/"),
        ("GET", "/v2/health/../../models"),
    ] {
        let url = running.admin(path);
        let (status, said) = call(&running, method, url.clone(), None).await;
        assert!(status == 401 && said.contains("a bearer token is needed"), "{path}: {said}");
        assert_eq!(call(&running, method, url.clone(), Some("guess-0")).await.0, 401, "{path}");
        let (status, said) = call(&running, method, url.clone(), Some("user")).await;
        assert!(status == 403 && said.contains("good for inference only"), "{path}: {said}");
        let (status, said) = call(&running, method, url, Some("operator")).await;
        assert!(status == 200 || status == 404, "{path}: {status} {said}");
    }
    assert_eq!(call(&running, "GET", running.admin("/v2/health/ready"), None).await.0, 200);
    // Who may do everything may use models.
    let predict = running.url("/v1/models/m:predict");
    assert_eq!(call(&running, "POST", predict, Some("operator")).await.0, 200);
}

#[tokio::test]
async fn tokens_change_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", "old\n");
    let running = serve_secured(|security| security.inference_token_file = Some(tokens)).await;
    let works = async |token| {
        let (status, _) = call(&running, "GET", running.url("/v2"), Some(token)).await;
        status == 200
    };
    write(folder.path(), "tokens", "old\nnew\n");
    wait_until("the new token", async || works("new").await).await;
    assert!(works("old").await);
    write(folder.path(), "tokens", "new\n");
    wait_until("the old token's end", async || !works("old").await).await;
    // Without a token nobody could get in, which is a mistake.
    write(folder.path(), "tokens", "# none\n");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(works("new").await);
}

#[tokio::test]
async fn restricted_apis_want_their_header() {
    let running = serve_secured(|security| {
        security.restrict =
            ["health,metadata=Key-1: a secret", "inference=key-2:2"].map(str::to_owned).into();
    })
    .await;
    let get = |path: &str| running.client.get(running.url(path));
    for path in ["/v2/health/live", "/v2", "/v2/models/m", "/v2/models/m/ready", "/v1/models"] {
        for request in [get(path), get(path).header("key-1", "wrong"), get(path).header("k", "a")] {
            let (status, body) = answer(request).await;
            let text = body["error"].as_str().unwrap_or_default();
            assert_eq!((status, text), (403, "This API is restricted, expecting header 'key-1'"));
        }
        assert_eq!(answer(get(path).header("KEY-1", "a secret")).await.0, 200, "{path}");
    }
    let predict = || running.client.post(running.url("/v1/models/m:predict")).body(PREDICT);
    assert_eq!(answer(predict().header("key-1", "a secret")).await.0, 403);
    assert_eq!(answer(predict().header("key-2", "2")).await.0, 200);

    let mut client = channel(&running).await;
    for (key, value, expected) in [
        ("key-1", "", false),
        ("triton-grpc-protocol-key-1", "wrong", false),
        ("triton-grpc-protocol-key-2", "2", false),
        ("triton-grpc-protocol-key-1", "a secret", true),
        ("key-1", "a secret", true),
    ] {
        let asked = client.server_metadata(carrying(ServerMetadataRequest {}, key, value)).await;
        assert_eq!(asked.is_ok(), expected, "{key} {value}");
        if let Err(status) = asked {
            check_restricted(&status);
        }
    }
    let live = client.server_live(ServerLiveRequest {}).await;
    check_restricted(&live.unwrap_err());
}

fn check_restricted(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let says = "This protocol is restricted, expecting header 'triton-grpc-protocol-key-1'";
    assert_eq!(status.message(), says);
}

/// No way of writing a path reaches a restricted route. Curl sends paths as they are.
#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_restriction() {
    let running = serve_secured(|security| {
        security.restrict = vec!["metadata,inference=key:v".to_owned()];
    })
    .await;
    let at = |path: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--path-as-is", "--noproxy", "*", "--max-time", "20"])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}", "--data", PREDICT])
            .arg(format!("http://{}{path}", running.addresses.http))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(at("/v1/models/m:predict"), "403");
    for path in [
        "//v1/models/m:predict",
        "/v1//models/m:predict",
        "/v1/models//m:predict",
        "/./v1/models/m:predict",
        "/v2/../v1/models/m:predict",
        "/v2/health/live/../../../v1/models/m:predict",
        "/v2/health/%2e%2e/%2e%2e/v1/models/m:predict",
        "/V1/models/m:predict",
        "/v1/Models/m:PREDICT",
        "/%76%31/models/m:predict",
        "/v1/models/m%3Apredict",
        "/v1/models/%6d:predict",
        "/v1/models/m:predict/",
        "/v1/models/m:predict?key=v",
        "/v1/models/m:predict;key=v",
        "/v1/models/m:predict%00",
        "/v2%2fmodels%2fm%2finfer",
        "/v2/models/m/infer/",
        "/v2/models/m/versions/1/infer",
        "/v2/models/./m/infer",
        "/v2/models/x/../m/infer",
    ] {
        let status = at(path);
        assert!(["400", "403", "404"].contains(&&*status), "{path}: {status}");
    }
}

#[test]
fn what_is_wrong_with_tokens_and_restrictions_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().to_str().unwrap();
    let file = |name: &str, text: &str| {
        let path = write(folder.path(), name, text);
        format!("--admin-token-file={}", path.display())
    };
    for (flag, says) in [
        (file("tokens", "good\n"), ""),
        (file("none", "# nobody\n"), "none: there is no token in it"),
        (file("words", "two words\n"), "words: line 1 is no bearer token"),
        ("--inference-token-file=/gone".to_owned(), "--inference-token-file /gone: No such file"),
        ("--restrict=models=a:b".to_owned(), "\"models\" is no group"),
        ("--restrict=health".to_owned(), "--restrict: write GROUP"),
    ] {
        let (fine, said) = check(&["--model-repository", models, &flag], &[]);
        assert_eq!(fine, says.is_empty(), "{flag}: {said}");
        assert!(said.contains(says) && !said.contains("two words"), "{flag}: {said}");
    }
    let variable = "health,metadata=key: v=1;2\n\nlogging=other:3\n";
    let (fine, said) = check(&["--model-repository", models], &[("SLUICE_RESTRICT", variable)]);
    assert!(fine, "{said}");
    let config = write(folder.path(), "sluice.toml", "[restrict]\n\"health,x\" = \"key:v\"\n");
    let config = config.to_str().unwrap();
    let (fine, said) = check(&["--model-repository", models, "--config", config], &[]);
    assert!(!fine && said.contains("\"x\" is no group"), "{said}");
}
