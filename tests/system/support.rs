//! A trained package, registries and gateways to try it on, and programs to run.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use sluice_features::{Definitions, materialize};
use sluice_gateway::{Gateway, Settings};
use sluice_protocol::{ModelName, ModelVersion};
use sluice_registry::{Client, PackageFile, Server, ServerConfig};
use sluice_trainer::pipeline::{Pipeline, RunOptions, run};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, oneshot};

/// The `sluice` program.
pub(crate) const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `make setup` installs for the tests: `variable`, or the place where it puts it.
pub(crate) fn installed(variable: &str, place: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| source_tree().join(place), PathBuf::from);
    assert!(path.exists(), "{} is not there; run `make setup` first", path.display());
    path
}

pub(crate) fn onnxruntime() -> PathBuf {
    installed("SLUICE_ONNXRUNTIME", ".tools/onnxruntime/libonnxruntime.so")
}

pub(crate) fn python() -> PathBuf {
    installed("SLUICE_PYTHON", ".tools/python/bin/python")
}

pub(crate) fn model() -> ModelName {
    "demand-forecast".parse().unwrap()
}

pub(crate) fn definitions() -> Definitions {
    Definitions::load(&source_tree().join("demo/features.toml")).unwrap()
}

/// The demo's package, trained once for all tests.
pub(crate) async fn package() -> &'static [PackageFile] {
    static PACKAGE: OnceCell<Vec<PackageFile>> = OnceCell::const_new();
    PACKAGE.get_or_init(|| train(&[])).await
}

/// A package whose answers are others.
pub(crate) async fn other_package() -> &'static [PackageFile] {
    static PACKAGE: OnceCell<Vec<PackageFile>> = OnceCell::const_new();
    PACKAGE.get_or_init(|| train(&["learner.seed=2", "learner.max_rounds=5"])).await
}

async fn train(overrides: &[&str]) -> Vec<PackageFile> {
    let folder = tempfile::tempdir().unwrap();
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let pipeline = Pipeline::load(&source_tree().join("demo/train.toml"), &overrides).unwrap();
    let options = RunOptions {
        onnxruntime: Some(onnxruntime()),
        out: Some(folder.path().join("run")),
        ..RunOptions::default()
    };
    run(&pipeline, &options, &mut |_| {}).await.unwrap();
    let entries = std::fs::read_dir(folder.path().join("run/package")).unwrap();
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        PackageFile { path: name, bytes: std::fs::read(&path).unwrap().into() }
    });
    files.collect()
}

/// A registry in this process.
pub(crate) struct Registry {
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Registry {
    pub(crate) async fn start(data: &Path, address: SocketAddr) -> Self {
        let config = ServerConfig { data: data.to_owned(), max_upload_bytes: 1 << 30 };
        let server = Server::open(config).await.unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _stopped_or_dropped = stopped.await;
            };
            server.serve(listener, stopped).await.unwrap();
        });
        Self { client: Client::new(&url).unwrap(), stop, serving }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
    }

    /// Registers the demo's package and lets `champion` name it.
    pub(crate) async fn publish(&self, files: &[PackageFile]) -> ModelVersion {
        self.client.ensure_model(&model(), "").await.unwrap();
        let version =
            self.client.create_version(&model(), files, "", &Default::default()).await.unwrap();
        self.client.set_alias(&model(), "champion", version).await.unwrap();
        version
    }
}

/// A gateway in this process that follows a registry.
pub(crate) async fn follow(registry: &str, state: &Path) -> Gateway {
    let mut settings = Settings::default();
    settings.registry = Some(registry.to_owned());
    settings.features = Some(source_tree().join("demo/features.toml"));
    settings.state = Some(state.to_owned());
    settings.http = Some(anywhere());
    settings.grpc = Some(anywhere());
    settings.admin = Some(anywhere());
    settings.onnxruntime = Some(onnxruntime());
    let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
    gateway.ready().await;
    gateway
}

/// Fills a gateway's store with the features of the last day.
pub(crate) async fn fill_store(gateway: &Gateway) {
    for batch in materialize(&definitions(), None, None).await.unwrap() {
        let url = format!("http://{}/features/rows", gateway.addresses().admin);
        let (status, answer) = answer(client().post(url).body(batch.encode())).await;
        assert_eq!((status, &answer["written"]), (200, &Value::from(43)), "{answer}");
    }
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

/// Status and JSON body, null when there is none.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// V1 over HTTP.
pub(crate) async fn predict(http: SocketAddr, body: &str) -> (u16, Value) {
    let url = format!("http://{http}/v1/models/demand-forecast:predict");
    answer(client().post(url).body(body.to_owned())).await
}

/// Waits until `done` says so.
pub(crate) async fn wait_until<F: AsyncFnMut() -> bool>(what: &str, mut done: F) {
    for _ in 0..600 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: did not come about in 30 s");
}

/// `sluice` with these arguments, what it needs set, and nothing of this process's own
/// settings.
pub(crate) fn sluice(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(SLUICE);
    let settings = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("SLUICE_")));
    for (name, _) in settings {
        command.env_remove(name);
    }
    command.env("SLUICE_ONNXRUNTIME", onnxruntime());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Standard output of a `sluice` that must succeed.
pub(crate) fn output_of(arguments: &[impl AsRef<OsStr>]) -> String {
    let output = sluice(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(output.status.success(), "sluice {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A port that was free a moment ago, for processes that must find each other again.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(anywhere()).unwrap().local_addr().unwrap().port()
}
