//! SIGTERM under load loses no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::serve;

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
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.gateway.drain().await;
    let mut lost = Vec::new();
    for client in clients {
        lost.extend(client.await.unwrap());
    }
    assert!(lost.is_empty(), "{} requests lost: {lost:?}", lost.len());
    assert!(answered.load(Ordering::Relaxed) > 500);
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
