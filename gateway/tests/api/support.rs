//! A gateway over a folder of the test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sluice_gateway::{Gateway, Settings};

/// A running gateway and its folder.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: reqwest::Client,
}

/// Starts a gateway that serves test graphs: (model, version, graph file).
pub(crate) async fn serve(models: &[(&str, u64, &str)]) -> Running {
    serve_with(models, |_| {}).await
}

/// The same, with other settings.
pub(crate) async fn serve_with(
    models: &[(&str, u64, &str)],
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    for (model, version, graph) in models {
        place(folder.path(), model, *version, &graph_bytes(graph));
    }
    let running = start(folder, |settings, folder| {
        settings.model_repository = Some(folder.to_owned());
        settings.repository_poll = Some(Duration::from_millis(100));
        adjust(settings);
    });
    let running = running.await;
    running.gateway.ready().await;
    running
}

async fn start(folder: tempfile::TempDir, adjust: impl FnOnce(&mut Settings, &Path)) -> Running {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Settings::default();
    settings.http = Some(anywhere);
    settings.grpc = Some(anywhere);
    settings.admin = Some(anywhere);
    settings.cores = Some(2);
    settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    adjust(&mut settings, folder.path());
    let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
    Running { gateway, folder, client: reqwest::Client::builder().no_proxy().build().unwrap() }
}

pub(crate) fn graph_bytes(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(file);
    std::fs::read(path).unwrap()
}

/// Puts a graph into a repository, the way a careful operator does: aside, then in place.
pub(crate) fn place(root: &Path, model: &str, version: u64, graph: &[u8]) {
    let aside = root.join(model).join(format!(".{version}"));
    std::fs::create_dir_all(&aside).unwrap();
    std::fs::write(aside.join("model.onnx"), graph).unwrap();
    std::fs::rename(&aside, root.join(model).join(version.to_string())).unwrap();
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.addresses().http)
    }

    pub(crate) fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.addresses().admin)
    }

    /// What administration says of a version: its state, its executor, why it was refused.
    pub(crate) async fn version(&self, model: &str, version: u64) -> Value {
        let (_, body) = answer(self.client.get(self.admin("/models"))).await;
        let found = |all: &Value, key: &str, value: Value| {
            let mut all = all.as_array().into_iter().flatten();
            all.find(|one| one[key] == value).cloned().unwrap_or_default()
        };
        let model = found(&body["models"], "name", model.into());
        found(&model["versions"], "version", version.into())
    }

    /// Status and JSON body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(self.url(path))).await
    }

    /// Status and JSON body of a POST of `body`.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        answer(self.client.post(self.url(path)).body(body)).await
    }
}

/// Status and JSON body, null when there is none.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Waits until `done` says so.
pub(crate) async fn wait_until<F: AsyncFnMut() -> bool>(what: &str, mut done: F) {
    for _ in 0..300 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: did not come about in 15 s");
}
