//! The floor: echoes give back what they got, and a graph's runs are counted by size.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_bench::{Echo, EchoAddresses, run_costs};
use sluice_engine::OnnxRuntime;
use sluice_protocol::grpc::ModelReadyRequest;
use tonic::transport::Channel;

fn echo(cores: usize) -> Echo {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Echo::start(EchoAddresses { http: any, grpc: any }, cores).unwrap()
}

fn post(address: SocketAddr, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /any/path HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn http_answers_with_the_body_on_every_core() {
    let echo = echo(3);
    for number in 0..30 {
        let body = format!("{{\"number\": {number}}}");
        let answer = post(echo.addresses().http, &body);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with(&body), "{answer}");
    }
}

#[test]
fn grpc_answers_with_the_message() {
    let echo = echo(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let url = format!("http://{}", echo.addresses().grpc);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let question = ModelReadyRequest { name: "m".to_owned(), version: "7".to_owned() };
        let codec = tonic_prost::ProstCodec::<ModelReadyRequest, ModelReadyRequest>::default();
        let path = http::uri::PathAndQuery::from_static("/any.Service/Method");
        client.unary(tonic::Request::new(question), path, codec).await.unwrap().into_inner()
    });
    assert_eq!((answer.name.as_str(), answer.version.as_str()), ("m", "7"));
}

#[test]
fn an_echo_that_is_dropped_closes_its_ports() {
    let echo = echo(2);
    let EchoAddresses { http, grpc } = echo.addresses();
    drop(echo);
    for address in [http, grpc] {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let error = Echo::start(EchoAddresses { http, grpc: any }, 1).unwrap_err();
    assert!(error.to_string().contains(&http.to_string()), "{error}");
}

#[test]
fn every_size_of_batch_has_its_cost() {
    let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/models");
    let open = |name: &str| runtime.open(&std::fs::read(models.join(name)).unwrap(), 1).unwrap();
    let costs = run_costs(&mut open("scale.onnx"), &[1, 4]).unwrap();
    assert_eq!(costs.iter().map(|cost| cost.rows).collect::<Vec<_>>(), [1, 4]);
    for cost in costs {
        assert!(cost.cpu > Duration::ZERO && cost.fastest > Duration::ZERO, "{cost:?}");
    }
    // Texts are measured as well as numbers.
    assert_eq!(run_costs(&mut open("identity/BYTES.onnx"), &[3]).unwrap().len(), 1);
}
