//! Models from a registry: what it lacks, how slow it is, and settings that change beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_gateway::{Gateway, Settings};
use sluice_protocol::{Digest, MODEL_FILE, ModelName, ModelVersion};
use sluice_registry::PackageFile;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{
    Registry, answer, anywhere, client, onnxruntime, sluice, source_tree, wait_until,
};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// A registry with graphs in it, and a gateway that follows it.
struct Following {
    folder: TempDir,
    address: SocketAddr,
    registry: Option<Registry>,
}

impl Following {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
        let url = registry.client.url();
        let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        Self { folder, address, registry: Some(registry) }
    }

    async fn stop_registry(&mut self) {
        self.registry.take().unwrap().stop().await;
    }

    /// Registers a version that is one of the gateway's test graphs, and lets `alias` name it.
    async fn publish(&self, model: &str, alias: &str, graph: &str) -> ModelVersion {
        let (name, client): (ModelName, _) =
            (model.parse().unwrap(), &self.registry.as_ref().unwrap().client);
        client.ensure_model(&name, "").await.unwrap();
        let file = PackageFile { path: MODEL_FILE.to_owned(), bytes: graph_bytes(graph).into() };
        let (files, tags) = ([file], Default::default());
        let version = client.create_version(&name, &files, "", &tags).await.unwrap();
        client.set_alias(&name, alias, version).await.unwrap();
        version
    }

    /// Where the registry keeps one of the graphs.
    fn blob(&self, graph: &str) -> PathBuf {
        let digest = Digest::of(&graph_bytes(graph)).to_string();
        find(&self.folder.path().join("registry"), &digest).unwrap()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A gateway that follows the registry at `address`, perhaps not ready yet.
    async fn gateway(&self, address: SocketAddr) -> Served {
        let mut settings = Settings::default();
        settings.registry = Some(format!("http://{address}"));
        settings.state = Some(self.state());
        settings.http = Some(anywhere());
        settings.grpc = Some(anywhere());
        settings.admin = Some(anywhere());
        settings.onnxruntime = Some(onnxruntime());
        Served(Gateway::start(settings.resolve().unwrap()).await.unwrap())
    }
}

/// A gateway, asked over its ports.
struct Served(Gateway);

impl Served {
    async fn is_ready(&self) -> bool {
        let url = format!("http://{}/v2/health/ready", self.0.addresses().http);
        answer(client().get(url)).await.0 == 200
    }

    /// The status of a prediction.
    async fn predict(&self, model: &str) -> u16 {
        let url = format!("http://{}/v1/models/{model}:predict", self.0.addresses().http);
        answer(client().post(url).body(ASK)).await.0
    }

    /// What administration says of version 1: its state, its executor, why it was refused.
    async fn version(&self, model: &str) -> Value {
        let found = |all: &Value, key: &str, value: Value| {
            let mut all = all.as_array().into_iter().flatten();
            all.find(|one| one[key] == value).cloned().unwrap_or_default()
        };
        let model = found(&self.models().await["models"], "name", model.into());
        found(&model["versions"], "version", 1.into())
    }

    async fn models(&self) -> Value {
        answer(client().get(format!("http://{}/models", self.0.addresses().admin))).await.1
    }

    async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.0.addresses().admin);
        client().get(url).send().await.unwrap().text().await.unwrap()
    }
}

fn graph_bytes(file: &str) -> Vec<u8> {
    std::fs::read(source_tree().join("gateway/tests/models").join(file)).unwrap()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// Passes connections on to `registry` and holds up each request for a file; counts them.
async fn slow_relay(registry: SocketAddr, delay: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_has_only_a_candidate_leaves_the_others_ready() {
    let mut following = Following::start().await;
    following.publish("m", "champion", "scale.onnx").await;
    let served = following.gateway(following.address).await;
    wait_until("ready", async || served.is_ready().await).await;
    following.publish("new", "candidate", "center.onnx").await;
    wait_until("the candidate", async || served.version("new").await["state"] == "ready").await;
    assert!(served.is_ready().await);
    assert_eq!(served.predict("m").await, 200);
    assert_eq!(served.predict("new").await, 503);
    served.0.drain().await;
    following.stop_registry().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_fetched_holds_nobody_up_and_comes_later() {
    let mut following = Following::start().await;
    following.publish("lost", "champion", "center.onnx").await;
    following.publish("m", "champion", "scale.onnx").await;
    let (blob, away) = (following.blob("center.onnx"), following.folder.path().join("away"));
    std::fs::rename(&blob, &away).unwrap();
    let served = following.gateway(following.address).await;
    wait_until("ready", async || served.is_ready().await).await;
    assert_eq!(served.predict("m").await, 200);
    let lost = served.version("lost").await;
    assert_eq!(lost["state"], "refused");
    assert!(lost["reason"].as_str().unwrap().starts_with("cannot be fetched: "), "{lost}");
    // It is told of once, however often it is tried.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = served.metrics().await;
    assert!(metrics.contains("sluice_refused_versions_total{model=\"lost\"} 1\n"), "{metrics}");

    std::fs::rename(&away, &blob).unwrap();
    wait_until("the file", async || served.version("lost").await["state"] == "ready").await;
    assert_eq!(served.predict("lost").await, 200);
    served.0.drain().await;
    following.stop_registry().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_download_is_waited_for_and_made_once() {
    let mut following = Following::start().await;
    following.publish("m", "champion", "scale.onnx").await;
    // Longer than the start waits for a registry to answer.
    let delay = Duration::from_millis(5500);
    let (relay, asked) = slow_relay(following.address, delay).await;
    let served = following.gateway(relay).await;
    wait_until("ready", async || served.is_ready().await).await;
    assert_eq!(served.predict("m").await, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the file was asked for more than once");
    served.0.drain().await;
    following.stop_registry().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_take_effect_without_the_registry() {
    let mut following = Following::start().await;
    following.publish("m", "champion", "scale.onnx").await;
    let settings = following.state().join("deployments/m.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "format = 1\nexecutor = \"magic\"\n").unwrap();
    let served = following.gateway(following.address).await;
    wait_until("the refusal", async || served.version("m").await["state"] == "refused").await;
    let reason = served.version("m").await["reason"].to_string();
    assert!(reason.contains("deployments/m.toml: ") && reason.contains("magic"), "{reason}");

    let executor = async |name: &str| {
        std::fs::write(&settings, format!("format = 1\nexecutor = \"{name}\"\n")).unwrap();
        wait_until(name, async || served.version("m").await["executor"] == name).await;
        assert_eq!(served.predict("m").await, 200);
    };
    executor("workers").await;
    executor("tick").await;
    following.stop_registry().await;
    executor("workers").await;

    // A file that cannot be used leaves what serves in place, and says why.
    std::fs::write(&settings, "nonsense").unwrap();
    let refused = async || served.models().await.to_string().contains("refused");
    wait_until("the second refusal", refused).await;
    assert_eq!(served.predict("m").await, 200);
    served.0.drain().await;
}

/// What a model was served with before is not forgotten because it cannot be served for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_a_restart_could_not_serve_comes_back_without_the_registry() {
    let mut following = Following::start().await;
    following.publish("b", "champion", "scale.onnx").await;
    following.publish("c", "champion", "center.onnx").await;
    let served = following.gateway(following.address).await;
    wait_until("ready", async || served.is_ready().await).await;
    served.0.drain().await;
    following.stop_registry().await;
    let settings = |model: &str, text: &str| {
        let path = following.state().join("deployments").join(format!("{model}.toml"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };

    settings("b", "a mistake");
    let served = following.gateway(following.address).await;
    wait_until("the other model", async || served.predict("c").await == 200).await;
    assert_eq!(served.predict("b").await, 503);
    assert!(!served.is_ready().await, "b answered before the restart");
    let reason = served.version("b").await["reason"].to_string();
    assert!(reason.contains("deployments/b.toml"), "{reason}");
    // Whatever happens to other models meanwhile.
    settings("c", "format = 1\nexecutor = \"workers\"\n");
    let on_workers = async || served.version("c").await["executor"] == "workers";
    wait_until("other settings", on_workers).await;

    settings("b", "format = 1\n");
    wait_until("the mended model", async || served.predict("b").await == 200).await;
    assert!(served.is_ready().await);
    served.0.drain().await;
    let served = following.gateway(following.address).await;
    wait_until("ready again", async || served.is_ready().await).await;
    assert_eq!((served.predict("b").await, served.predict("c").await), (200, 200));
    served.0.drain().await;
}

/// A file that opens for nobody until a thread of this has opened it, and then gives nothing until
/// the handle is dropped, which comes once somebody reads. The thread is none of the runtime, which
/// would keep a test that fails from ending.
fn hanging_file(path: &Path) -> oneshot::Receiver<std::fs::File> {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let path = path.to_owned();
    let (give, handle) = oneshot::channel();
    std::thread::spawn(move || {
        let opened = std::fs::File::options().write(true).open(path).unwrap();
        let _test_may_be_over = give.send(opened);
    });
    handle
}

/// The program itself: a load that hangs sits on a thread of the runtime.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_although_a_load_hangs() {
    let mut following = Following::start().await;
    following.publish("m", "champion", "scale.onnx").await;
    std::fs::create_dir_all(following.state().join("deployments")).unwrap();
    let reader = hanging_file(&following.state().join("deployments/m.toml"));
    let mut process = sluice(&["serve", "--registry", &format!("http://{}", following.address)])
        .args(["--drain-timeout", "1s", "--state", following.state().to_str().unwrap()])
        .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hanging = tokio::time::timeout(Duration::from_secs(30), reader).await;
    if hanging.is_err() {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let hanging = hanging.expect("nobody read the file for 30 s").unwrap();
    let told = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ended = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > ended => break None,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    if status.is_none() {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert_eq!(status.and_then(|status| status.code()), Some(0), "it had 10 s to end");
    drop(hanging);
    following.stop_registry().await;
}
