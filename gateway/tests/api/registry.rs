//! Models from a registry: what it lacks, how slow it is, and settings that change beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_protocol::{Digest, MODEL_FILE, ModelName, ModelVersion};
use sluice_registry::{Client, PackageFile, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{Running, follow, graph_bytes, wait_until};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A registry over a folder of its own.
pub(crate) struct Registry {
    folder: tempfile::TempDir,
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = ServerConfig { data: folder.path().to_owned(), max_upload_bytes: 1 << 20 };
        let server = Server::open(config).await.unwrap();
        let listener = TcpListener::bind(ANYWHERE).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _stopped_or_dropped = stopped.await;
            };
            server.serve(listener, stopped).await.unwrap();
        });
        Self { folder, client: Client::new(&url).unwrap(), stop, serving }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
    }

    /// Registers a version that is one of the test graphs, and lets `alias` name it.
    pub(crate) async fn publish(&self, model: &str, alias: &str, graph: &str) -> ModelVersion {
        let name: ModelName = model.parse().unwrap();
        self.client.ensure_model(&name, "").await.unwrap();
        let file = PackageFile { path: MODEL_FILE.to_owned(), bytes: graph_bytes(graph).into() };
        let (files, tags) = ([file], Default::default());
        let version = self.client.create_version(&name, &files, "", &tags).await.unwrap();
        self.client.set_alias(&name, alias, version).await.unwrap();
        version
    }

    /// Where it keeps one of the test graphs.
    fn blob(&self, graph: &str) -> PathBuf {
        let digest = Digest::of(&graph_bytes(graph)).to_string();
        find(self.folder.path(), &digest).unwrap()
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// Passes connections on to `registry` and holds up each request for a file; counts them.
async fn slow_relay(registry: SocketAddr, delay: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let server = TcpStream::connect(registry).await.unwrap();
            let (mut from_caller, mut to_caller) = caller.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_caller).await });
            let count = count.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(read @ 1..) = from_caller.read(&mut request).await {
                    if String::from_utf8_lossy(&request[..read]).contains("/blobs/") {
                        count.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(delay).await;
                    }
                    to_server.write_all(&request[..read]).await.unwrap();
                }
            });
        }
    });
    (address, asked)
}

fn address(registry: &Registry) -> SocketAddr {
    registry.client.url().trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

async fn is_ready(running: &Running) -> bool {
    running.get("/v2/health/ready").await.0 == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_has_only_a_candidate_leaves_the_others_ready() {
    let registry = Registry::start().await;
    registry.publish("m", "champion", "scale.onnx").await;
    let running = follow(registry.client.url(), tempfile::tempdir().unwrap()).await;
    wait_until("ready", async || is_ready(&running).await).await;
    registry.publish("new", "candidate", "center.onnx").await;
    wait_until("the candidate", async || running.version("new", 1).await["state"] == "ready").await;
    assert!(is_ready(&running).await);
    assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    assert_eq!(running.post("/v1/models/new:predict", ASK).await.0, 404);
    running.gateway.drain().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_fetched_holds_nobody_up_and_comes_later() {
    let registry = Registry::start().await;
    registry.publish("lost", "champion", "center.onnx").await;
    registry.publish("m", "champion", "scale.onnx").await;
    let (blob, away) = (registry.blob("center.onnx"), registry.folder.path().join("away"));
    std::fs::rename(&blob, &away).unwrap();
    let running = follow(registry.client.url(), tempfile::tempdir().unwrap()).await;
    wait_until("ready", async || is_ready(&running).await).await;
    assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    let lost = running.version("lost", 1).await;
    assert_eq!(lost["state"], "refused");
    assert!(lost["reason"].as_str().unwrap().starts_with("cannot be fetched: "), "{lost}");
    // It is told of once, however often it is tried.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = reqwest::get(running.admin("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("sluice_refused_versions_total{model=\"lost\"} 1\n"), "{metrics}");

    std::fs::rename(&away, &blob).unwrap();
    wait_until("the file", async || running.version("lost", 1).await["state"] == "ready").await;
    assert_eq!(running.post("/v1/models/lost:predict", ASK).await.0, 200);
    running.gateway.drain().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_download_is_waited_for_and_made_once() {
    let registry = Registry::start().await;
    registry.publish("m", "champion", "scale.onnx").await;
    // Longer than the start waits for a registry to answer.
    let delay = Duration::from_millis(5500);
    let (relay, asked) = slow_relay(address(&registry), delay).await;
    let running = follow(&format!("http://{relay}"), tempfile::tempdir().unwrap()).await;
    wait_until("ready", async || is_ready(&running).await).await;
    assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the file was asked for more than once");
    running.gateway.drain().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_take_effect_without_the_registry() {
    let registry = Registry::start().await;
    registry.publish("m", "champion", "scale.onnx").await;
    let state = tempfile::tempdir().unwrap();
    let settings = state.path().join("deployments/m.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "format = 1\nexecutor = \"magic\"\n").unwrap();
    let running = follow(registry.client.url(), state).await;
    wait_until("the refusal", async || running.version("m", 1).await["state"] == "refused").await;
    let reason = running.version("m", 1).await["reason"].to_string();
    assert!(reason.contains("deployments/m.toml: ") && reason.contains("magic"), "{reason}");

    let executor = async |name: &str| {
        std::fs::write(&settings, format!("format = 1\nexecutor = \"{name}\"\n")).unwrap();
        wait_until(name, async || running.version("m", 1).await["executor"] == name).await;
        assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    };
    executor("workers").await;
    executor("tick").await;
    registry.stop().await;
    executor("workers").await;

    // A file that cannot be used leaves what serves in place, and says why.
    std::fs::write(&settings, "nonsense").unwrap();
    let refused = async || {
        let (_, body) = crate::support::answer(running.client.get(running.admin("/models"))).await;
        body.to_string().contains("refused")
    };
    wait_until("the second refusal", refused).await;
    assert_eq!(running.post("/v1/models/m:predict", ASK).await.0, 200);
    running.gateway.drain().await;
}
