//! SIGTERM under load loses no request, and nothing that hangs keeps the process from ending.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Caller, Process, graph_bytes, place, serve, serve_with, wait_until};

const ASK: &str = r#"{"instances": [[1, 2]]}"#;

/// What came of one request on a connection.
enum Outcome {
    Answered { close: bool },
    Lost(String),
}

async fn ask(stream: &mut TcpStream) -> Outcome {
    let request = format!(
        "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{ASK}",
        ASK.len()
    );
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return Outcome::Lost(format!("write: {error}"));
    }
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return Outcome::Lost("closed without an answer".to_owned()),
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) => return Outcome::Lost(format!("read: {error}")),
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if text.contains("\r\n\r\n") && text.ends_with('}') {
            assert!(text.starts_with("http/1.1 200"), "{text}");
            return Outcome::Answered { close: text.contains("connection: close") };
        }
    }
}

/// Clients that keep their connections and leave when they are asked to: every request that
/// was sent is answered.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_their_connections_lose_nothing() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    let address = running.gateway.addresses().http;
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let answered = answered.clone();
            tokio::spawn(async move {
                // A refused connection is no lost request: the ports are closed.
                while let Ok(mut stream) = TcpStream::connect(address).await {
                    loop {
                        match ask(&mut stream).await {
                            Outcome::Answered { close } => {
                                answered.fetch_add(1, Ordering::Relaxed);
                                if close {
                                    break;
                                }
                            }
                            Outcome::Lost(how) => return Some(how),
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                None
            })
        })
        .collect();
    wait_until("requests to be answered", async || answered.load(Ordering::Relaxed) > 500).await;
    running.gateway.drain().await;
    let mut lost = Vec::new();
    for client in clients {
        lost.extend(client.await.unwrap());
    }
    assert!(lost.is_empty(), "{} requests lost: {lost:?}", lost.len());
}

#[tokio::test]
async fn a_port_that_another_gateway_has_is_not_shared() {
    let running = serve(&[("m", 1, "scale.onnx")]).await;
    let mut settings = sluice_gateway::Settings::default();
    settings.model_repository = Some(running.folder.path().to_owned());
    settings.http = Some(running.gateway.addresses().http);
    settings.grpc = Some("127.0.0.1:0".parse().unwrap());
    settings.admin = Some("127.0.0.1:0".parse().unwrap());
    settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(Into::into);
    let second = sluice_gateway::Gateway::start(settings.resolve().unwrap()).await;
    let error = second.unwrap_err().to_string();
    assert!(error.contains("cannot listen on"), "{error}");
}

/// Drains and says how long that took.
async fn time_to_drain(gateway: sluice_gateway::Gateway) -> Duration {
    let begun = Instant::now();
    let drained = tokio::time::timeout(Duration::from_secs(10), gateway.drain()).await;
    drained.expect("draining does not end");
    begun.elapsed()
}

/// Puts versions of a model into a repository that make so many runs each before they answer, of
/// so many rounds. A round takes about a microsecond.
pub(crate) fn place_long(root: &Path, model: &str, versions: u64, runs: u32, rounds: i64) {
    let folder = root.join(model);
    std::fs::create_dir_all(folder.join("warmup")).unwrap();
    std::fs::write(folder.join("warmup/rounds"), rounds.to_le_bytes()).unwrap();
    let config = format!(
        "model_warmup {{ name: 'long' batch_size: 1 count: {runs}
           inputs {{ key: 'rounds' value {{ dims: 1 input_data_file: 'rounds' }} }} }}"
    );
    std::fs::write(folder.join("config.pbtxt"), config).unwrap();
    for version in 1..=versions {
        place(root, model, version, &graph_bytes("rounds.onnx"));
    }
}

/// Waits until the first version of a model is being loaded.
pub(crate) async fn wait_for_loading(caller: &Caller, model: &str) {
    let path = format!("/v2/models/{model}/versions/1/ready");
    wait_until("the load", async || {
        caller.get(&path).await.1["error"].to_string().contains("it is being loaded")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_call_to_the_administration_does_not_hold_up_the_end() {
    let short = |settings: &mut sluice_gateway::Settings| {
        settings.drain_timeout = Some(Duration::from_secs(1));
    };
    let running = serve_with(&[("m", 1, "scale.onnx")], short).await;
    let mut stream = TcpStream::connect(running.gateway.addresses().admin).await.unwrap();
    let half = "POST /v2/logging HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf";
    stream.write_all(half.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let took = time_to_drain(running.gateway).await;
    assert!(took >= Duration::from_secs(1), "the call had {took:?} to end");
}

#[tokio::test]
async fn a_run_on_a_serving_core_does_not_hold_up_the_end() {
    let (models, tick) =
        ([("m", 1, "rounds.onnx")], "format = 1\nexecutor = \"tick\"\nmax_run_time = \"1h\"\n");
    let process = Process::start_as(&models, tick, &["--drain-timeout=1s"]).await;
    assert_eq!(process.version("m", 1).await["executor"], "tick");
    // A quarter of an hour, where a round takes a microsecond.
    let rounds = json!([{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [1 << 30]}]);
    let body = json!({"inputs": rounds}).to_string();
    let asked = process.client.post(process.url("/v2/models/m/infer")).body(body);
    let asked = tokio::spawn(asked.send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let log = process.end_without_an_error().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let says = |text: &str| log.iter().any(|entry| entry["message"].to_string().contains(text));
    assert!(says("ended a run") && !says("leaving a serving core"), "{log:?}");
    // Its caller is told, too.
    assert_eq!(asked.await.unwrap().unwrap().status(), 504);
}

#[tokio::test]
async fn a_load_in_progress_does_not_hold_up_the_end() {
    let process = Process::start(&[("m", 1, "scale.onnx")], &["--drain-timeout=1s"]).await;
    // One run of a quarter of an hour.
    place_long(process.folder.path(), "long", 1, 1, 1 << 30);
    wait_for_loading(&process, "long").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    process.end_without_an_error().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_other_version_is_loaded_once_the_end_has_come() {
    let process = Process::start(&[("m", 1, "scale.onnx")], &["--drain-timeout=30s"]).await;
    // Many short runs, of half an hour together.
    place_long(process.folder.path(), "long", 2, 10_000, 200_000);
    wait_for_loading(&process, "long").await;
    let log = process.end_without_an_error().await;
    let of = |version: &str| {
        let told = log.iter().filter(move |entry| {
            entry["model"] == "long" && entry["version"].to_string().contains(version)
        });
        told.cloned().collect::<Vec<_>>()
    };
    let [given_up] = &of("1")[..] else { panic!("{log:?}") };
    assert!(given_up["reason"].to_string().contains("shutting down"), "{given_up}");
    assert_eq!(of("2"), Vec::<serde_json::Value>::new(), "the second version was read");
}
