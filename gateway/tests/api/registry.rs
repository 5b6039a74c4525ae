//! Models from a registry: which one it is, and what its aliases name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sluice_gateway::{Gateway, Settings};
use sluice_protocol::Digest;
use tokio::sync::Semaphore;

use crate::support::{answer, graph_bytes, wait_until};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// A graph that is given when the test says so.
const SLOW: &str = "shift.onnx";

/// A model's graphs by version, and its aliases.
type Model = (BTreeMap<u64, &'static str>, BTreeMap<&'static str, u64>);

/// What a registry holds.
#[derive(Debug, Clone, Default)]
struct Content {
    name: &'static str,
    sequence: u64,
    models: BTreeMap<&'static str, Model>,
}

/// As much of a registry as a gateway asks, with what is in it said by the test.
#[derive(Clone)]
struct Registry {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
    /// How often `SLOW` was asked for, and may be given.
    asked: Arc<Semaphore>,
    given: Arc<Semaphore>,
}

impl Registry {
    async fn start(name: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let none = || Arc::new(Semaphore::new(0));
        let content = Arc::default();
        let registry = Self { address, content, asked: none(), given: none() };
        registry.replace(name);
        let routes = Router::new().fallback(respond).with_state(registry.clone());
        let _ends_with_its_runtime =
            tokio::spawn(async move { axum::serve(listener, routes).await });
        registry
    }

    /// Puts an empty one of another name at the same address.
    fn replace(&self, name: &'static str) {
        *self.content.lock().unwrap() = Content { name, ..Content::default() };
    }

    /// Makes a version and lets an alias name it.
    fn publish(&self, model: &'static str, version: u64, graph: &'static str, alias: &'static str) {
        let mut content = self.content.lock().unwrap();
        content.sequence += 1;
        let (versions, aliases) = content.models.entry(model).or_default();
        versions.insert(version, graph);
        aliases.insert(alias, version);
    }

    fn told(&self, path: &str, query: &str) -> Option<Value> {
        let content = self.content.lock().unwrap().clone();
        let parts: Vec<&str> = path.split('/').collect();
        let file = |graph: &str| {
            let bytes = graph_bytes(graph);
            json!({"path": "model.onnx", "digest": Digest::of(&bytes), "size": bytes.len()})
        };
        let (sequence, registry) = (content.sequence, content.name);
        match parts.as_slice() {
            ["snapshot"] => {
                let models = content.models.iter().map(|(name, (versions, aliases))| {
                    let versions: Vec<_> = versions.keys().collect();
                    json!({"name": name, "versions": versions, "aliases": aliases})
                });
                let models: Vec<_> = models.collect();
                Some(json!({"sequence": sequence, "models": models, "registry": registry}))
            }
            ["changes"] => {
                let event = json!({"sequence": sequence, "time_ms": 0, "kind": "of the test"});
                let is_new = !query.starts_with(&format!("after={sequence}&"));
                let events: Vec<_> = is_new.then_some(event).into_iter().collect();
                Some(json!({"events": events, "next": sequence, "registry": registry}))
            }
            ["models", model, "versions", version, "files"] => {
                let graph = content.models.get(model)?.0.get(&version.parse().unwrap())?;
                Some(json!({"files": [file(graph)]}))
            }
            ["model-versions", "get"] => {
                let version = query.rsplit('=').next().unwrap();
                Some(json!({"model_version": {
                    "name": "m", "version": version, "creation_timestamp": 0,
                    "last_updated_timestamp": 0, "current_stage": "None", "source": "",
                    "status": "READY",
                }}))
            }
            _ => None,
        }
    }
}

async fn respond(State(registry): State<Registry>, uri: Uri) -> Response {
    let path = uri.path();
    let inside = path.strip_prefix("/api/1.0/sluice/");
    let inside = inside.or_else(|| path.strip_prefix("/api/2.0/mlflow/")).unwrap_or_default();
    if let Some(digest) = inside.strip_prefix("blobs/") {
        // Any other has been lost.
        let graphs = ["scale.onnx", "center.onnx", SLOW].map(|graph| (graph, graph_bytes(graph)));
        let mut graphs = graphs.into_iter();
        let found = graphs.find(|(_, bytes)| Digest::of(bytes).to_string() == digest);
        if found.as_ref().is_some_and(|(graph, _)| *graph == SLOW) {
            registry.asked.add_permits(1);
            registry.given.acquire().await.unwrap().forget();
        }
        let lost = axum::http::StatusCode::NOT_FOUND;
        return found.map_or_else(|| lost.into_response(), |(_, bytes)| bytes.into_response());
    }
    if inside == "changes" {
        // A follower that is told of nothing asks again at once.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match registry.told(inside, uri.query().unwrap_or_default()) {
        Some(body) => axum::Json(body).into_response(),
        None => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}

/// A gateway that follows a registry.
struct Following(Gateway, reqwest::Client);

impl Following {
    async fn start(registry: &Registry, state: &Path) -> Self {
        let anywhere = Some("127.0.0.1:0".parse().unwrap());
        let mut settings = Settings::default();
        settings.registry = Some(format!("http://{}", registry.address));
        settings.state = Some(state.to_owned());
        (settings.http, settings.grpc, settings.admin) = (anywhere, anywhere, anywhere);
        settings.cores = Some(1);
        settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(Into::into);
        let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
        gateway.ready().await;
        Self(gateway, reqwest::Client::builder().no_proxy().build().unwrap())
    }

    /// What `ASK` comes out as, asked at `place` below V1's models. Null when it is not answered.
    async fn predict(&self, place: &str) -> Value {
        let url = format!("http://{}/v1/models/{place}:predict", self.0.addresses().http);
        let (status, body) = answer(self.1.post(url).body(ASK)).await;
        if status == 200 { body["predictions"][0].clone() } else { Value::Null }
    }

    async fn wait_for(&self, place: &str, expected: &Value) {
        wait_until(place, async || self.predict(place).await == *expected).await;
    }
}

/// What `scale.onnx` and `center.onnx` make of `ASK`.
fn scaled() -> Value {
    json!([3.0, 5.0])
}

fn centred() -> Value {
    json!([0.0, 0.0])
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registry_has_versions_of_its_own() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::start("first").await;
    registry.publish("m", 1, "scale.onnx", "champion");
    registry.publish("m", 2, "scale.onnx", "candidate");
    registry.publish("lost", 1, "scale.onnx", "champion");
    let following = Following::start(&registry, state.path()).await;
    assert_eq!(following.predict("m").await, scaled());
    assert_eq!(following.predict("m/versions/2").await, scaled());

    registry.replace("second");
    registry.publish("m", 1, "center.onnx", "champion");
    following.wait_for("m", &centred()).await;
    following.wait_for("m/versions/2", &Value::Null).await;
    // What the other one does not know answers on, whatever else it tells.
    registry.publish("new", 1, "scale.onnx", "champion");
    following.wait_for("new", &scaled()).await;
    assert_eq!(following.predict("lost").await, scaled());
    following.0.drain().await;

    // A restart finds the same, and what became another registry meanwhile is one.
    let following = Following::start(&registry, state.path()).await;
    assert_eq!(following.predict("m").await, centred());
    assert_eq!(following.predict("lost").await, scaled());
    following.0.drain().await;
    registry.replace("third");
    registry.publish("m", 1, "scale.onnx", "champion");
    registry.publish("lost", 1, "center.onnx", "champion");
    let following = Following::start(&registry, state.path()).await;
    following.wait_for("m", &scaled()).await;
    following.wait_for("lost", &centred()).await;
    following.0.drain().await;
}

/// While nothing of the other registry can answer, what answered does.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_another_registry_takes_the_place_of_one_when_it_can_be_served() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::start("first").await;
    registry.publish("m", 1, "scale.onnx", "champion");
    let following = Following::start(&registry, state.path()).await;
    registry.replace("second");
    registry.publish("m", 1, "fixed.onnx", "champion");
    registry.publish("n", 1, "center.onnx", "champion");
    following.wait_for("n", &centred()).await;
    assert_eq!(following.predict("m").await, scaled());
    following.0.drain().await;
    let following = Following::start(&registry, state.path()).await;
    assert_eq!(following.predict("m").await, scaled());
    registry.publish("m", 1, "center.onnx", "champion");
    following.wait_for("m", &centred()).await;
    following.0.drain().await;
}

/// A candidate that has the number of the version that answers must not answer in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_answers_is_the_same_version_until_the_champion_can() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::start("first").await;
    registry.publish("m", 1, "scale.onnx", "champion");
    let following = Following::start(&registry, state.path()).await;
    registry.replace("second");
    registry.publish("m", 1, "center.onnx", "candidate");
    registry.publish("m", 2, "fixed.onnx", "champion");
    registry.publish("n", 1, "scale.onnx", "champion");
    following.wait_for("n", &scaled()).await;
    assert_eq!(following.predict("m").await, scaled());
    following.0.drain().await;
    let following = Following::start(&registry, state.path()).await;
    assert_eq!(following.predict("m").await, scaled());

    registry.publish("m", 2, SLOW, "champion");
    registry.asked.acquire().await.unwrap().forget();
    assert_eq!(following.predict("m").await, scaled(), "its champion is on its way");
    registry.given.add_permits(1);
    following.wait_for("m/versions/1", &centred()).await;
    let shifted = json!([2.0, 4.0]);
    assert_eq!(following.predict("m").await, shifted, "before the candidate");
    following.0.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_the_aliases_of_the_registry_and_move_with_them() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::start("first").await;
    registry.publish("m", 1, "scale.onnx", "champion");
    registry.publish("m", 2, "center.onnx", "candidate");
    let following = Following::start(&registry, state.path()).await;
    assert_eq!(following.predict("m/labels/champion").await, scaled());
    assert_eq!(following.predict("m/labels/candidate").await, centred());
    assert_eq!(following.predict("m/labels/other").await, Value::Null);
    registry.publish("m", 2, "center.onnx", "champion");
    following.wait_for("m/labels/champion", &centred()).await;
    assert_eq!(following.predict("m").await, centred());
    following.0.drain().await;
}
