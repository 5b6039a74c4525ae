//! How many allocations, and how many writes to the kernel, a whole request costs in the gateway, by
//! protocol. The caller writes the
//! same bytes again and again and allocates nothing, so every allocation of the process is the
//! server's: reading, decoding, batching, running (ONNX Runtime's own are not seen), encoding.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod h2;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sluice_gateway::{Addresses, Gateway, Settings};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests before counting begins: buffers and tables reach their sizes.
const WARM_UP: usize = 200;
/// Requests that are counted. What the gateway does once a second disappears among them.
const COUNTED: usize = 1000;

/// One request of one row, and the most allocations that it may cost. The bounds are what was
/// measured, so that one more is noticed.
const BOUNDS: [(&str, usize); 5] =
    [("V1 JSON", 34), ("V2 JSON", 32), ("V2 binary", 37), ("gRPC typed", 43), ("gRPC raw", 46)];

/// Bytes of the tensor that is sent there and back, as one frame of HTTP/2 takes them.
const TENSOR: usize = 16_000;
/// How many times as much memory a request with such a tensor takes, all of it together: what the
/// connection reads into, the tensor, the session's answer, what is sent, and what else there is.
/// The bounds are what was measured, so that one more copy is noticed.
const TENSOR_BOUNDS: [(&str, f64); 3] = [("V2 JSON", 7.9), ("V2 binary", 4.7), ("gRPC raw", 6.6)];
/// Requests with such a tensor that are counted, and before counting begins.
const TENSORS: usize = 100;

/// How often the kernel is written to for one request, at most: the answer itself, and next to
/// nothing beside. A runtime that woke itself up for every request would write twice.
#[cfg(target_os = "linux")]
const WRITES: f64 = 1.2;

/// What is counted is the process's, so that tests take turns.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn a_tensor_is_copied_no_more_often_than_it_was() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gateway = runtime.block_on(start(folder.path()));
    let Addresses { http, grpc, .. } = gateway.addresses();
    let width = TENSOR / 4;
    // As many bytes of text as of tensor.
    let values = vec!["1.5"; width].join(",");
    let shape = format!(r#""name":"INPUT0","datatype":"FP32","shape":[1,{width}]"#);
    let json = format!(r#"{{"inputs":[{{{shape},"data":[{values}]}}]}}"#);
    let head = format!(
        r#"{{"inputs":[{{{shape},"parameters":{{"binary_data_size":{TENSOR}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let raw = 1.5_f32.to_le_bytes().repeat(width);
    let binary = [head.as_bytes(), &raw].concat();
    let split = format!("Inference-Header-Content-Length: {}\r\n", head.len());
    let infer = "/v2/models/identity/infer";
    let counted = [
        bytes_per_request(Http1::new(http, infer, "", json.as_bytes())),
        bytes_per_request(Http1::new(http, infer, &split, &binary)),
        bytes_per_request(h2::Http2::new(grpc, &h2::identity_request(&raw))),
    ];
    let mut over = Vec::new();
    for ((protocol, bound), bytes) in TENSOR_BOUNDS.into_iter().zip(counted) {
        let times = bytes / TENSOR as f64;
        println!("memory: {protocol}: {times:.2} times the tensor, at most {bound}");
        if times > bound {
            over.push(format!("{protocol}: {times:.2} times the tensor, not {bound}"));
        }
    }
    runtime.block_on(gateway.drain());
    assert!(over.is_empty(), "{}", over.join("; "));
}

#[test]
fn a_request_allocates_no_more_than_it_did() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gateway = runtime.block_on(start(folder.path()));
    let Addresses { http, grpc, .. } = gateway.addresses();
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2.5]}]}"#;
    let head = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let raw: Vec<u8> = [1.0_f32, 2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
    let binary = [head.as_bytes(), &raw].concat();
    let split = format!("Inference-Header-Content-Length: {}\r\n", head.len());
    let infer = "/v2/models/scale/infer";
    let v1 = r#"{"instances":[[1,2.5]]}"#;
    let counted = [
        per_request(Http1::new(http, "/v1/models/scale:predict", "", v1.as_bytes())),
        per_request(Http1::new(http, infer, "", json.as_bytes())),
        per_request(Http1::new(http, infer, &split, &binary)),
        per_request(h2::Http2::new(grpc, &h2::typed_request(&[1.0, 2.5]))),
        per_request(h2::Http2::new(grpc, &h2::raw_request(&raw))),
    ];
    let mut over = Vec::new();
    for ((protocol, bound), found) in BOUNDS.into_iter().zip(counted) {
        println!("allocations: {protocol}: {found:.1} a request, at most {bound}");
        if found > bound as f64 {
            over.push(format!("{protocol}: {found:.1} allocations a request, not {bound}"));
        }
    }
    runtime.block_on(gateway.drain());
    assert!(over.is_empty(), "{}", over.join("; "));
}

#[cfg(target_os = "linux")]
#[test]
fn a_request_is_answered_by_one_write() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gateway = runtime.block_on(start(folder.path()));
    let v1 = br#"{"instances":[[1,2.5]]}"#;
    let mut caller = Http1::new(gateway.addresses().http, "/v1/models/scale:predict", "", v1);
    (0..WARM_UP).for_each(|_| caller.ask());
    let before = writes();
    (0..COUNTED).for_each(|_| caller.ask());
    let found = (writes() - before) as f64 / COUNTED as f64;
    runtime.block_on(gateway.drain());
    println!("writes: {found:.2} a request, at most {WRITES}");
    assert!((0.9..=WRITES).contains(&found), "{found:.2} writes a request, not {WRITES}");
}

/// Writes of this process so far. Those of the caller are none: it sends, which is not counted.
#[cfg(target_os = "linux")]
fn writes() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

async fn start(folder: &Path) -> Gateway {
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for (model, graph) in [("scale", "scale.onnx"), ("identity", "identity/FP32.onnx")] {
        let version = folder.join(model).join("1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::copy(graphs.join(graph), version.join("model.onnx")).unwrap();
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Settings::default();
    settings.http = Some(anywhere);
    settings.grpc = Some(anywhere);
    settings.admin = Some(anywhere);
    settings.cores = Some(1);
    settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    settings.model_repository = Some(folder.to_owned());
    settings.repository_poll = Some(Duration::ZERO);
    let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
    gateway.ready().await;
    gateway
}

/// Somebody who asks the same question again and again.
trait Caller {
    /// Asks once and reads the whole answer.
    fn ask(&mut self);
}

/// Allocations of one request.
fn per_request(mut caller: impl Caller) -> f64 {
    let count = |stats: stats_alloc::Stats| stats.allocations + stats.reallocations;
    let _until_warm = difference(&mut caller, WARM_UP, count);
    difference(&mut caller, COUNTED, count)
}

/// Bytes that one request takes, those by which a buffer grows among them.
fn bytes_per_request(mut caller: impl Caller) -> f64 {
    let count = |stats: stats_alloc::Stats| stats.bytes_allocated;
    let _until_warm = difference(&mut caller, TENSORS, count);
    difference(&mut caller, TENSORS, count)
}

/// What one of so many requests adds to a count.
fn difference(
    caller: &mut impl Caller,
    requests: usize,
    count: impl Fn(stats_alloc::Stats) -> usize,
) -> f64 {
    let before = count(ALLOCATOR.stats());
    for _ in 0..requests {
        caller.ask();
    }
    (count(ALLOCATOR.stats()) - before) as f64 / requests as f64
}

/// A kept connection over which one HTTP/1.1 request is sent.
struct Http1 {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Http1 {
    fn new(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, request: [head.as_bytes(), body].concat(), answer: vec![0; 65_536] }
    }
}

impl Caller for Http1 {
    fn ask(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.answer[read..]).unwrap();
            assert!(more > 0, "the connection ended");
            read += more;
            let answer = &self.answer[..read];
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
            if read == end + 4 + content_length(&answer[..end]) {
                return;
            }
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let name = b"\r\ncontent-length: ";
    let at = head.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name)).unwrap();
    let digits = head[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
