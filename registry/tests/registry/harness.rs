//! A server in this process, and ways to talk to it below the client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use sluice_protocol::{ModelName, ModelVersion};
use sluice_registry::{Client, PackageFile, Result, Server, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The upload limit of test servers.
pub(crate) const MAX_UPLOAD: u64 = 1 << 20;

pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<()>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(folder: TempDir) -> Self {
        let server = open(folder.path()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));
        let client = Client::new(&format!("http://{address}")).unwrap();
        Self { client, address, folder, stop, served }
    }

    /// Stops the server as a signal would, and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
        self.folder
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A call with a JSON body, and the status and JSON of its answer.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = http().request(method, self.url(path));
        if !body.is_null() {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// Uploads `bytes` as an artifact.
    pub(crate) async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) -> (u16, Value) {
        let url = self.url(&format!("/api/2.0/mlflow-artifacts/artifacts/{path}"));
        answer(http().put(url).body(bytes)).await
    }

    /// Sends `request` as it stands, for what no client library would send, and reads until the
    /// server closes the connection.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(crate) async fn open(folder: &Path) -> Result<Server> {
    Server::open(ServerConfig { data: folder.to_owned(), max_upload_bytes: MAX_UPLOAD }).await
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let json =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} is no JSON: {text}"));
    (status, json)
}

pub(crate) fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

pub(crate) fn file(path: &str, bytes: &[u8]) -> PackageFile {
    PackageFile { path: path.into(), bytes: Bytes::copy_from_slice(bytes) }
}

/// A version of `model` that holds `text`.
pub(crate) async fn version(
    client: &Client,
    model: &ModelName,
    text: &str,
) -> Result<ModelVersion> {
    let files = [file("manifest.toml", b"same"), file("model.onnx", text.as_bytes())];
    client.create_version(model, &files, "", &BTreeMap::new()).await
}
