//! A gateway over a folder of the test's own, in this process or in one of its own.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sluice_gateway::{Addresses, Gateway, Settings};

/// Somebody who knows where a gateway listens.
pub(crate) struct Caller {
    pub(crate) addresses: Addresses,
    pub(crate) client: reqwest::Client,
}

/// A running gateway and its folder.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) folder: tempfile::TempDir,
    caller: Caller,
}

/// The gateway's own binary as it runs, and what it writes to standard error.
pub(crate) struct Process {
    child: Child,
    log: Option<JoinHandle<Vec<String>>>,
    pub(crate) folder: tempfile::TempDir,
    caller: Caller,
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
    serve_folder(repository(models), adjust).await
}

/// The same, run as `deployment.toml` says.
pub(crate) async fn serve_as(
    models: &[(&str, u64, &str)],
    deployment: &str,
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    serve_folder(repository_as(models, deployment), adjust).await
}

async fn serve_folder(folder: tempfile::TempDir, adjust: impl FnOnce(&mut Settings)) -> Running {
    let running = start(folder, adjust).await;
    running.gateway.ready().await;
    running
}

/// Starts a gateway over a folder, of which nothing may be loaded yet.
pub(crate) async fn start(
    folder: tempfile::TempDir,
    adjust: impl FnOnce(&mut Settings),
) -> Running {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Settings::default();
    settings.http = Some(anywhere);
    settings.grpc = Some(anywhere);
    settings.admin = Some(anywhere);
    settings.cores = Some(2);
    settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    settings.model_repository = Some(folder.path().to_owned());
    settings.repository_poll = Some(Duration::from_millis(100));
    adjust(&mut settings);
    let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
    let caller = Caller::new(gateway.addresses());
    Running { gateway, folder, caller }
}

/// A folder of test graphs.
fn repository(models: &[(&str, u64, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (model, version, graph) in models {
        place(folder.path(), model, *version, &graph_bytes(graph));
    }
    folder
}

/// The same, with `deployment.toml` for each.
pub(crate) fn repository_as(models: &[(&str, u64, &str)], deployment: &str) -> tempfile::TempDir {
    let folder = repository(models);
    for (model, ..) in models {
        std::fs::write(folder.path().join(model).join("deployment.toml"), deployment).unwrap();
    }
    folder
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

impl Deref for Running {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Process {
    /// Starts a gateway that serves test graphs, with more flags.
    pub(crate) async fn start(models: &[(&str, u64, &str)], flags: &[&str]) -> Self {
        Self::start_folder(repository(models), flags).await
    }

    /// The same, run as `deployment.toml` says.
    pub(crate) async fn start_as(
        models: &[(&str, u64, &str)],
        deployment: &str,
        flags: &[&str],
    ) -> Self {
        Self::start_folder(repository_as(models, deployment), flags).await
    }

    async fn start_folder(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"))
            .args(["--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=127.0.0.1:0"])
            .args(["--cores=2", "--log=info,ort=off", "--log-format=json", "--model-repository"])
            .arg(folder.path())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (say, said) = mpsc::channel();
        let log = std::thread::spawn(move || {
            let mut lines = Vec::new();
            for line in errors.lines().map_while(Result::ok) {
                if let Some(addresses) = addresses(&line) {
                    say.send(addresses).unwrap();
                }
                lines.push(line);
            }
            lines
        });
        let addresses = said.recv_timeout(Duration::from_secs(30)).unwrap();
        let caller = Caller::new(addresses);
        let process = Self { child, log: Some(log), folder, caller };
        wait_until("ready", async || process.get("/v2/health/ready").await.0 == 200).await;
        process
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that it has taken. Unlike time on the wall it says the same on a busy
    /// machine.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// What the kernel says of it, from `/proc/PID/status`.
    pub(crate) fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Ends the process and looks at what it has logged: no error, and no panic. Gives the log.
    pub(crate) async fn end_without_an_error(mut self) -> Vec<Value> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        // Connections of this test's own are asked to leave, so their tasks must go on meanwhile.
        let mut status = None;
        wait_until("the process's end", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        let status = status.unwrap();
        assert!(status.success(), "{status}");
        let lines = self.log.take().unwrap().join().unwrap().into_iter();
        let entries = lines.map(|line| {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            assert!(entry["level"].is_string() && entry["level"] != "ERROR", "{line}");
            entry
        });
        entries.collect()
    }
}

/// Where the gateway listens, if it says so in this line.
fn addresses(line: &str) -> Option<Addresses> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let address = |what: &str| entry[what].as_str()?.parse().ok();
    let (http, grpc, admin) = (address("http")?, address("grpc")?, address("admin")?);
    Some(Addresses { http, grpc, admin, metrics: None })
}

impl Drop for Process {
    /// Nothing is left of a test that failed.
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_ended = self.child.wait();
    }
}

impl Deref for Process {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Caller {
    fn new(addresses: Addresses) -> Self {
        Self { addresses, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    pub(crate) fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.admin)
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

    /// The metrics' exposition text.
    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(self.admin("/metrics")).await.unwrap().text().await.unwrap()
    }

    /// What the metrics say of a series, labels and all; 0 while there is none.
    pub(crate) async fn count(&self, series: &str) -> f64 {
        value(&self.metrics().await, series).unwrap_or(0.0)
    }
}

/// Status and JSON body, null when there is none.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// What a page of metrics says of a series, labels and all.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Waits until `done` says so.
pub(crate) async fn wait_until<F: AsyncFnMut() -> bool>(what: &str, mut done: F) {
    let waiting = async {
        while !Box::pin(done()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, waiting).await;
}

/// What comes of `wait`, which may take 30 s.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(Duration::from_secs(30), wait).await else {
        panic!("{what}: did not come about in 30 s");
    };
    value
}

/// The same of what takes half a minute by itself.
pub(crate) async fn within_minutes<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(Duration::from_secs(180), wait).await else {
        panic!("{what}: did not come about in three minutes");
    };
    value
}
