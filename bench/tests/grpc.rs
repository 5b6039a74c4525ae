//! Loads over gRPC: calls are judged by their trailers, and a server that says farewell loses none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, Uri};
use sluice_bench::{
    Asked, Check, Echo, EchoAddresses, Load, LoadOptions, Pace, Protocol, Question, Report,
    Transport, ask_models,
};
use sluice_protocol::Code;

/// `connections` that ask `address` for 300 ms, each in a closed loop.
fn run(address: SocketAddr, connections: usize) -> Report {
    let url: Uri = format!("http://{address}/any.Service/Method").parse().unwrap();
    let bodies = vec![Bytes::from_static(b"\0\0\0\0\x02hi")];
    let options = LoadOptions {
        questions: vec![Question { bodies, ..Question::new(url.clone()) }],
        transport: Transport::Http2,
        check: Check::Grpc,
        pace: Pace::Closed,
        connections,
        duration: Some(Duration::from_millis(300)),
        ..LoadOptions::new(url)
    };
    let mut load = Load::start(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load.finished());
    load.stop_blocking()
}

/// A server on one thread, each of whose connections answers `of_each` calls with `grpc-status`
/// and nothing else, and then takes no more.
fn brief_server(of_each: usize, grpc_status: &'static str) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, of_each, grpc_status));
            }
        });
    });
    address
}

async fn serve(stream: tokio::net::TcpStream, of_each: usize, grpc_status: &'static str) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut answered = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let answer = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", grpc_status)
            .header("grpc-message", "no room");
        respond.send_response(answer.body(()).unwrap(), true).unwrap();
        answered += 1;
        if answered == of_each {
            connection.graceful_shutdown();
        }
    }
}

#[test]
fn calls_that_are_answered_count() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let echo = Echo::start(EchoAddresses { http: any, grpc: any }, 1).unwrap();
    let report = run(echo.addresses().grpc, 3);
    let total = &report.total;
    assert!(total.ok > 30 && total.ok == total.requests, "{report}");
    assert_eq!((total.bytes_received, total.reconnects), (7 * total.ok, 0), "{report}");
}

#[test]
fn refusals_are_counted_by_their_code() {
    let report = run(brief_server(usize::MAX, "8"), 1);
    let total = &report.total;
    assert!(total.failed > 30 && total.ok == 0, "{report}");
    let (failure, count) = total.failures.first_key_value().unwrap();
    assert_eq!((failure.to_string(), count.count), ("grpc ResourceExhausted".into(), total.failed));
    assert_eq!(count.example, "no room");
}

#[test]
fn a_farewell_loses_no_call() {
    let report = run(brief_server(5, "0"), 2);
    let total = &report.total;
    assert!(total.ok > 30 && total.ok == total.requests, "{report}");
    assert!(total.reconnects >= total.ok / 5 - 2, "{report}");
}

#[test]
fn a_server_without_the_model_is_named() {
    let address = brief_server(usize::MAX, "5");
    let url = format!("http://{address}").parse().unwrap();
    let asked = Asked {
        models: vec!["fraud".to_owned()],
        protocol: Protocol::Grpc,
        rows: 1,
        choices: Vec::new(),
    };
    let error = ask_models(&url, &asked, false).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for said in ["fraud", "ModelMetadata", "NotFound", "no room"] {
        assert!(error.to_string().contains(said), "{error}");
    }
}
