//! How much memory a request asks for on its way: a copy of the tensor where one is needed, and
//! none more.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unsafe_code, reason = "an allocator that counts is one that allocates")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_gateway::{Gateway, Settings};

/// Allocations of more bytes than this hold a tensor or all of a body; what a connection is read
/// into is smaller.
const LARGE: usize = 512 << 10;
/// FP32 elements of the tensor that goes both ways.
const ELEMENTS: usize = 192 << 10;

static ALL: AtomicUsize = AtomicUsize::new(0);
static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how often it was asked.
struct Counting;

impl Counting {
    fn count(size: usize) {
        ALL.fetch_add(1, Ordering::Relaxed);
        if size > LARGE {
            LARGE_ONES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is the system allocator's own, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A client that allocates nothing while it asks.
struct Client {
    stream: TcpStream,
    reply: Vec<u8>,
}

impl Client {
    /// Asks, and gives how many allocations and how many large ones that took.
    fn ask(&mut self, message: &[u8], reply: usize) -> (usize, usize) {
        let before = (ALL.load(Ordering::Relaxed), LARGE_ONES.load(Ordering::Relaxed));
        self.stream.write_all(message).unwrap();
        let mut read = 0;
        while read < reply {
            let count = self.stream.read(&mut self.reply[read..]).unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.reply[..read]));
            read += count;
        }
        let after = (ALL.load(Ordering::Relaxed), LARGE_ONES.load(Ordering::Relaxed));
        (after.0 - before.0, after.1 - before.1)
    }

    /// How long the reply is that is asked for the first time.
    fn measure(&mut self, message: &[u8]) -> usize {
        self.stream.write_all(message).unwrap();
        let (mut read, mut length) = (0, usize::MAX);
        while read < length {
            read += self.stream.read(&mut self.reply[read..]).unwrap();
            let text = String::from_utf8_lossy(&self.reply[..read.min(1000)]);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let said = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            length = head.len() + 4 + said.parse::<usize>().unwrap();
        }
        read
    }
}

fn message(json: &str, binary: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {}\r\nContent-Length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + binary.len()
    );
    [head.as_bytes(), binary].concat()
}

async fn serve(folder: &Path) -> Gateway {
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/identity/FP32.onnx");
    std::fs::create_dir_all(folder.join("m/1")).unwrap();
    std::fs::copy(graph, folder.join("m/1/model.onnx")).unwrap();
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Settings::default();
    settings.http = Some(anywhere);
    settings.grpc = Some(anywhere);
    settings.admin = Some(anywhere);
    settings.cores = Some(1);
    settings.onnxruntime = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    settings.model_repository = Some(folder.to_owned());
    settings.repository_poll = Some(std::time::Duration::ZERO);
    let gateway = Gateway::start(settings.resolve().unwrap()).await.unwrap();
    gateway.ready().await;
    gateway
}

/// The fewest of several tries: others in this process allocate now and then.
fn fewest(client: &mut Client, message: &[u8]) -> (usize, usize) {
    let reply = client.measure(message);
    (0..6).map(|_| client.ask(message, reply)).min().unwrap()
}

#[tokio::test]
async fn a_request_allocates_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = serve(folder.path()).await;
    let stream = TcpStream::connect(gateway.addresses().http).unwrap();
    let mut client = Client { stream, reply: vec![0; ELEMENTS * 16] };
    let input = |rows: usize, source: &str| {
        format!(r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1,{rows}],{source}}}]"#)
    };
    let size = ELEMENTS * 4;
    let source = format!(r#""parameters":{{"binary_data_size":{size}}}"#);
    let binary = input(ELEMENTS, &source) + r#","parameters":{"binary_data_output":true}}"#;
    let small = input(2, r#""data":[1,2]"#) + "}";
    let all_ones = vec![1; size];
    let (_, large) = fewest(&mut client, &message(&binary, &all_ones));
    // The body, the input's tensor, the output's, and the reply.
    assert!(large <= 4, "{large}");
    let json = input(ELEMENTS, &format!("\"data\":[1{}]", ",1".repeat(ELEMENTS - 1))) + "}";
    let (_, large) = fewest(&mut client, &message(&json, b""));
    // The tensors and the reply; the body is short.
    assert!(large <= 3, "{large}");
    let (all, _) = fewest(&mut client, &message(&small, b""));
    assert!(all <= 36, "{all}");
    gateway.drain().await;
}
