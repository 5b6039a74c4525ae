//! What bytes on a connection may be: messages that can be read in two ways, slow ones, endless
//! ones and large ones are refused or bounded, and nobody else notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::grpc_busy::serve_rounds;
use crate::raw_call::a_while;
use crate::support::{
    Caller, Process, Running, serve, serve_with, wait_until, within, within_minutes,
};

const LIVE: &str = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n";

/// A request for [`LIVE`]'s path that brings a body.
fn with_body(headers: &str, body: &str) -> String {
    format!("POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

fn infer_body() -> String {
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    json!({"inputs": [input]}).to_string()
}

/// Sends all of `bytes` and gives all that comes until the server closes the connection.
async fn converse(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has refused the beginning need not take the rest.
    let _taken = stream.write_all(bytes).await;
    String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
}

/// All that comes until the connection ends, however it ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            read.extend_from_slice(&buffer[..count]);
        }
    };
    within("the connection's end", reading).await;
    read
}

/// Reads one answer with a body that is not chunked.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return text;
                }
            }
            let count = stream.read_buf(&mut read).await.unwrap();
            assert!(count > 0, "closed after {text:?}");
        }
    };
    within("an answer", reading).await
}

fn statuses(reply: &str) -> Vec<&str> {
    reply.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

/// Somebody else's requests, meanwhile.
struct Others {
    over: Arc<AtomicBool>,
    asking: JoinHandle<(usize, Duration)>,
}

impl Others {
    fn begin(caller: &Caller) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (client, url) = (caller.client.clone(), caller.url("/v2/health/live"));
        let ended = over.clone();
        let asking = tokio::spawn(async move {
            let (mut answers, mut slowest) = (0, Duration::ZERO);
            while answers == 0 || !ended.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let response = client.get(&url).send().await.unwrap();
                assert_eq!(response.status(), 200);
                response.bytes().await.unwrap();
                slowest = slowest.max(begun.elapsed());
                answers += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (answers, slowest)
        });
        Self { over, asking }
    }

    /// All were answered, and none waited long, as far as a busy machine lets one tell.
    async fn are_unaffected(self) {
        self.over.store(true, Ordering::Relaxed);
        let (answers, slowest) = self.asking.await.unwrap();
        assert!(slowest < Duration::from_secs(2), "{slowest:?} of {answers}");
    }
}

async fn impatient(models: &[(&str, u64, &str)]) -> Running {
    serve_with(models, |settings| settings.request_timeout = Some(Duration::from_millis(500))).await
}

/// Headers that two readers could read differently.
const TWO_WAYS: [&str; 32] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: \r\n",
    "Content-Length : 5\r\n",
    "Content-Length: 99999999999999999999999\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "A: b\n",
    "A: b\r",
    "A: b\rTransfer-Encoding: chunked\r\n",
    "A: b\r\n folded\r\n",
    "A: b\r\n\tTransfer-Encoding: chunked\r\n",
    "A: \0\r\n",
    "A\0: b\r\n",
    "no colon\r\n",
    ": no name\r\n",
];

/// What two readers could read differently is answered once, by 400, and nothing behind it is read.
#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let others = Others::begin(&running);
    let chunked = "0\r\n\r\n";
    let mut messages: Vec<String> =
        TWO_WAYS.iter().map(|headers| with_body(headers, chunked)).collect();
    messages.extend([
        LIVE.replace("\r\n", "\n"),
        LIVE.replace("HTTP/1.1\r\n", "HTTP/1.1\n"),
        LIVE.replace("HTTP/1.1", "HTTP/1.1 "),
        LIVE.replace("HTTP/1.1", "HTTP/1.2"),
        LIVE.replace("HTTP/1.1", "HTTP/3.0"),
        LIVE.replace("GET ", "GE\0T "),
        LIVE.replace("/live", "/live\0"),
        LIVE.replace("HTTP/1.1\r\n", "HTTP/1.0\r\nTransfer-Encoding: chunked\r\n"),
        "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(),
    ]);
    for message in messages {
        // Behind a request that is fine, and with one that must never be answered behind it.
        let reply =
            converse(running.addresses.http, format!("{LIVE}{message}{LIVE}").as_bytes()).await;
        assert_eq!(statuses(&reply), ["200", "400"], "{message:?}: {reply}");
        assert_eq!(reply.matches("{\"live\":true}").count(), 1, "{message:?}: {reply}");
    }
    others.are_unaffected().await;
    running.end_without_an_error().await;
}

/// Bodies that break the rules of chunks: answered as broken, and the connection closed.
#[tokio::test]
async fn chunks_that_break_the_rules_are_refused() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let body = infer_body();
    let size = format!("{:x}", body.len());
    let long = "e".repeat(100_000);
    for chunks in [
        format!("{size}\n{body}\r\n0\r\n\r\n"),
        format!("{size}\r\n{body}\n0\r\n\r\n"),
        format!("{size}\r\n{body}\r\n0\n\r\n"),
        format!("{size}\r\n{body}\r\n0\r\n\n"),
        format!("{size}\r\n{body}XX0\r\n\r\n"),
        format!("0x{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size} x\r\n{body}\r\n0\r\n\r\n"),
        format!("{size};a\nb\r\n{body}\r\n0\r\n\r\n"),
        format!("{size};a\rb\r\n{body}\r\n0\r\n\r\n"),
        format!("{size};{long}\r\n{body}\r\n0\r\n\r\n"),
        format!("ffffffffffffffff{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("\r\n{body}\r\n0\r\n\r\n"),
        format!("{size}\r\n{body}\r\n0\r\n{long}: 1\r\n\r\n"),
    ] {
        let message = with_body("Transfer-Encoding: chunked\r\n", &chunks);
        let reply = converse(running.addresses.http, format!("{message}{LIVE}").as_bytes()).await;
        let begins: String = chunks.chars().take(40).collect();
        assert_eq!(statuses(&reply), ["400"], "{begins:?}: {reply}");
        assert!(reply.contains("{\"error\":\"request body broke off"), "{begins:?}: {reply}");
    }
    let mut stream = TcpStream::connect(running.addresses.http).await.unwrap();
    let good = format!("{size};name=\"value\"\r\n{body}\r\n0\r\nTrailer: 1\r\n\r\n");
    stream.write_all(with_body("Transfer-Encoding: Chunked\r\n", &good).as_bytes()).await.unwrap();
    assert_eq!(statuses(&one_answer(&mut stream).await), ["200"]);
    stream.write_all(LIVE.as_bytes()).await.unwrap();
    assert_eq!(statuses(&one_answer(&mut stream).await), ["200"], "the connection goes on");
    running.end_without_an_error().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let body = infer_body();
    let length = format!("Content-Length: {}\r\n", body.len());
    let leave = LIVE.replace("Host: x", "Host: x\r\nConnection: close");
    let all = format!("{}{LIVE}\r\n{}{leave}", with_body(&length, &body), with_body(&length, "x"));
    let all = all.replace("\r\n\r\nx", &format!("\r\n\r\n{}", "x".repeat(body.len())));
    let reply = converse(running.addresses.http, all.as_bytes()).await;
    assert_eq!(statuses(&reply), ["200", "200", "400", "200"], "{reply}");
}

/// A body may be asked for first, and one that is too large is not.
#[tokio::test]
async fn a_client_may_wait_to_be_told_to_go_on() {
    let running =
        serve_with(&[("scale", 1, "scale.onnx")], |settings| settings.max_body = Some(1000)).await;
    let body = infer_body();
    let head = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
    let mut stream = TcpStream::connect(running.addresses.http).await.unwrap();
    stream.write_all(with_body(&head, "").as_bytes()).await.unwrap();
    assert_eq!(one_answer(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(statuses(&one_answer(&mut stream).await), ["200"]);
    // In chunks it may on the same connection, again and again.
    let head = with_body("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "");
    for _ in 0..3 {
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(one_answer(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        stream.write_all(chunks.as_bytes()).await.unwrap();
        let reply = one_answer(&mut stream).await;
        assert_eq!(statuses(&reply), ["200"]);
        assert!(!reply.contains("Connection: close"), "{reply}");
    }
    let head = "Content-Length: 1001\r\nExpect: 100-continue\r\n";
    let reply = converse(running.addresses.http, with_body(head, "").as_bytes()).await;
    assert_eq!(statuses(&reply), ["413"], "{reply}");
    assert!(
        reply.contains("limit of 1000 bytes") && reply.contains("Connection: close"),
        "{reply}"
    );
}

/// Nothing is tunnelled, whatever is asked for: what follows is requests.
#[tokio::test]
async fn upgrades_are_ignored() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    for upgrade in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        let asked = LIVE.replace("Host: x\r\n", &format!("Host: x\r\n{upgrade}"));
        let leave = LIVE.replace("Host: x", "Host: x\r\nConnection: close");
        let reply = converse(running.addresses.http, format!("{asked}{leave}").as_bytes()).await;
        assert_eq!(statuses(&reply), ["200", "200"], "{reply}");
        let reply =
            converse(running.addresses.http, format!("{asked}\x01\x02\r\n\r\n").as_bytes()).await;
        assert_eq!(statuses(&reply), ["200", "400"], "{reply}");
    }
    let connect = format!(
        "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n{}",
        LIVE.replace("Host: x", "Host: x\r\nConnection: close")
    );
    let reply = converse(running.addresses.http, connect.as_bytes()).await;
    assert!(!statuses(&reply).contains(&"101") && statuses(&reply)[0] == "405", "{reply}");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let reply = converse(running.addresses.http, preface).await;
    assert!(!reply.contains("200"), "{reply}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let others = Others::begin(&running);
    let long = LIVE.replace("/live", &format!("/{}", "x".repeat(8000)));
    let leave = |message: &str| message.replace("Host: x", "Host: x\r\nConnection: close");
    let reply = converse(running.addresses.http, leave(&long).as_bytes()).await;
    assert_eq!(statuses(&reply), ["404"], "{reply}");
    assert!(reply.len() < 1500, "a long path is repeated in part: {reply}");
    let many: String = (0..99).map(|name| format!("H{name}: x\r\n")).collect();
    let fine = LIVE.replace("Host: x\r\n", &format!("Connection: close\r\n{many}"));
    assert_eq!(statuses(&converse(running.addresses.http, fine.as_bytes()).await), ["200"]);
    for (what, message, status) in [
        (
            "a header too many",
            LIVE.replace("Host: x\r\n", &format!("{many}A: b\r\nB: c\r\n")),
            "431",
        ),
        ("a long header", LIVE.replace("Host: x", &format!("A: {}", "x".repeat(70_000))), "431"),
        ("an endless head", format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(2_000_000)), "431"),
        ("an endless line", "x".repeat(2_000_000), "431"),
        ("a long path", LIVE.replace("/live", &"/x".repeat(40_000)), "431"),
    ] {
        let reply = converse(running.addresses.http, message.as_bytes()).await;
        assert_eq!(statuses(&reply), [status], "{what}: {reply}");
    }
    others.are_unaffected().await;
}

/// Heads, bodies and readers that take their time are cut off, a few hundred of them at once, too.
#[tokio::test]
async fn slow_senders_are_cut_off() {
    let running = impatient(&[("scale", 1, "scale.onnx")]).await;
    let others = Others::begin(&running);
    let slow = |begin: &'static str, piece: &'static str| {
        let address = running.addresses.http;
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let trickle = tokio::spawn(async move {
                while writer.write_all(piece.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            let mut reply = Vec::new();
            let _however = reader.read_to_end(&mut reply).await;
            trickle.abort();
            (String::from_utf8_lossy(&reply).into_owned(), begun.elapsed())
        })
    };
    let chunked = "POST /v2/models/scale/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "POST /v2/models/scale/infer HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    let cases = [
        ("GET /v2/health/live HTTP/1.1\r\nA: ", "x", false),
        ("GET /v2/health/live HTTP/1.1\r\n", "A: b\r\n", false),
        ("G", "E", false),
        ("G", "", false),
        ("", "", false),
        (long, " ", true),
        (long, "", true),
        (chunked, "1\r\n \r\n", true),
        (chunked, "1;", true),
    ];
    let clients: Vec<_> = cases
        .iter()
        .cycle()
        .take(200)
        .map(|&(begin, piece, answered)| (begin, answered, slow(begin, piece)))
        .collect();
    for (begin, answered, client) in clients {
        let (reply, took) = within("the end of a slow client", client).await.unwrap();
        assert_eq!(
            statuses(&reply),
            if answered { vec!["504"] } else { vec![] },
            "{begin}: {reply}"
        );
        assert!(took < Duration::from_secs(10), "{begin}: {took:?}");
    }
    others.are_unaffected().await;
}

/// A question for an answer of so many bytes.
fn fill(bytes: usize) -> String {
    let input = json!({"name": "shape", "datatype": "INT64", "shape": [2], "data": [1, bytes / 4]});
    let body = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
    let asked = with_body(&format!("Content-Length: {}\r\n", body.len()), &body);
    asked.replace("/scale/", "/fill/")
}

/// Whether a server on this machine has not ended its connection to the client at `port`.
fn is_open(server: SocketAddr, port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let ends = [format!(":{:04X}", server.port()), format!(":{port:04X}")];
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    connections.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&ends[0]) && fields[2].ends_with(&ends[1]) && fields[3] == ESTABLISHED
    })
}

/// Clients that ask for much and read nothing, or hardly anything, are cut off, and what they were to
/// be sent is freed.
#[tokio::test]
async fn a_reader_of_nothing_is_cut_off() {
    let models = [("fill", 1, "fill.onnx"), ("scale", 1, "scale.onnx")];
    let process = Process::start(&models, &["--request-timeout=3s"]).await;
    let others = Others::begin(&process);
    let bytes = 12 << 20;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(process.addresses.http).await.unwrap();
            stream.write_all(fill(bytes).as_bytes()).await.unwrap();
            streams.push(stream);
        }
        // A busy machine may be late with some: those have got all of their answers.
        let mut held = Vec::new();
        for stream in streams {
            let mut begin = [0; 12];
            let read = async { while stream.peek(&mut begin).await.unwrap() < begin.len() {} };
            within("an answer", read).await;
            held.extend((&begin == b"HTTP/1.1 200").then_some(stream));
        }
        let ports: Vec<u16> =
            held.iter().map(|stream| stream.local_addr().unwrap().port()).collect();
        // One of them takes a little now and then.
        let mut trickling = held.pop().expect("some are in time");
        let trickle = tokio::spawn(async move {
            while let Ok(1..) = trickling.read(&mut [0; 512]).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        for port in ports {
            let open = async || is_open(process.addresses.http, port);
            within_minutes("the cut", async {
                while open().await {
                    a_while().await
                }
            })
            .await;
        }
        kept.push(process.status("VmRSS") << 10);
        for mut stream in held {
            let reply = rest(&mut stream).await;
            assert!(reply.len() < bytes, "all {} bytes were kept for it", reply.len());
        }
        trickle.abort();
    }
    // What the libraries keep for the next ones is what one round takes, an answer and its tensor each.
    assert!(kept[1] < 28 * bytes as u64, "{kept:?}");
    others.are_unaffected().await;
    process.end_without_an_error().await;
}

/// One that is slow, and takes longer for all of it than it may for none of it, gets it.
#[tokio::test]
async fn a_reader_that_is_slow_and_steady_gets_all_of_it() {
    let running = serve_with(&[("fill", 1, "fill.onnx")], |settings| {
        settings.request_timeout = Some(Duration::from_secs(1));
    })
    .await;
    let bytes = 12 << 20;
    let mut stream = TcpStream::connect(running.addresses.http).await.unwrap();
    stream.write_all(fill(bytes).as_bytes()).await.unwrap();
    let (begun, mut read) = (Instant::now(), 0);
    let mut buffer = vec![0; 1 << 16];
    while read < bytes {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Three megabytes a second.
        while (read as u128) < 3 * 1048 * begun.elapsed().as_millis() && read < bytes {
            let count = within("more", stream.read(&mut buffer)).await.unwrap();
            assert!(count > 0, "closed after {read} bytes");
            read += count;
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// What nobody reads of a request is thrown away, so that its connection goes on; where it is long the
/// answer says that it does not.
#[tokio::test]
async fn bodies_that_nobody_reads_do_not_break_connections_off() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let post = |path: &str, headers: &str, length: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}");
        format!("{head}\r\n\r\n{}", "x".repeat(length))
    };
    let chunks = "10000\r\n".to_owned() + &"x".repeat(1 << 16) + "\r\n0\r\n\r\n";
    for (message, status) in [
        (post("/v1/models/scale:explain", "", 30_000), "501"),
        (post("/nothing", "", 200_000), "404"),
        (post("/v2/health/live", "", 200_000), "405"),
        (post("/v2/repository/models/scale/load", "", 200_000), "403"),
        (post("/v2/models/scale/infer", "Content-Encoding: zstd\r\n", 200_000), "501"),
        (with_body("Transfer-Encoding: chunked\r\n", &chunks).replace("/infer", "/no"), "404"),
    ] {
        let mut stream = TcpStream::connect(running.addresses.http).await.unwrap();
        for _ in 0..2 {
            stream.write_all(message.as_bytes()).await.unwrap();
            assert_eq!(statuses(&one_answer(&mut stream).await), [status]);
        }
        stream.write_all(LIVE.as_bytes()).await.unwrap();
        assert_eq!(statuses(&one_answer(&mut stream).await), ["200"], "after {status}");
    }
    let waiting = post("/nothing", "Expect: 100-continue\r\n", 10);
    for message in [post("/nothing", "", 1 << 20), waiting[..waiting.len() - 10].to_owned()] {
        let reply = converse(running.addresses.http, message.as_bytes()).await;
        assert_eq!(statuses(&reply), ["404"], "{reply}");
        assert!(reply.contains("\r\nConnection: close\r\n"), "{reply}");
    }
}

/// E1: headers are spelled as the protocol writes them.
#[tokio::test]
async fn headers_are_spelled_as_in_the_protocol() {
    let running = serve(&[("fill", 1, "fill.onnx")]).await;
    let asked = fill(8).replace("Host: x", "Host: x\r\nConnection: close");
    let reply = converse(running.addresses.http, asked.as_bytes()).await;
    assert_eq!(statuses(&reply), ["200"], "{reply}");
    for header in ["Inference-Header-Content-Length: ", "Content-Type: ", "Content-Length: "] {
        assert!(reply.contains(&format!("\r\n{header}")), "{header}: {reply}");
    }
}

/// No more is taken of a body than the limit, however it comes, and the answer can be read.
#[tokio::test]
async fn endless_bodies_end_at_the_limit() {
    let running =
        serve_with(&[("scale", 1, "scale.onnx")], |settings| settings.max_body = Some(1 << 20))
            .await;
    let others = Others::begin(&running);
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    let chunked = with_body("Transfer-Encoding: chunked\r\n", &chunk.repeat(100));
    let reply = converse(running.addresses.http, chunked.as_bytes()).await;
    assert_eq!(statuses(&reply), ["413"], "{reply}");
    assert!(reply.contains("larger than the limit of 1048576 bytes"), "{reply}");
    let length = 20 << 20;
    let announced = with_body(&format!("Content-Length: {length}\r\n"), &" ".repeat(length));
    let reply = converse(running.addresses.http, announced.as_bytes()).await;
    assert_eq!(statuses(&reply), ["413"], "{reply}");
    let lying = with_body("Content-Length: 18446744073709551615\r\n", "");
    let reply = converse(running.addresses.http, lying.as_bytes()).await;
    assert!(["413", "431"].contains(&statuses(&reply)[0]), "{reply}");
    others.are_unaffected().await;
}

/// Chunks of one byte are read, as many as Triton reads of them. Three megabytes are not, and
/// meanwhile the core answers others.
#[tokio::test]
async fn tiny_chunks_are_bounded() {
    let running =
        serve_with(&[("scale", 1, "scale.onnx")], |settings| settings.cores = Some(1)).await;
    let messages = [(65_536, "200"), (3 << 20, "413")].map(|(length, status)| {
        let begins: String = infer_body().chars().map(|c| format!("1\r\n{c}\r\n")).collect();
        let chunks = begins + &"1\r\n \r\n".repeat(length - infer_body().len());
        let headers = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
        (with_body(headers, &format!("{chunks}0\r\n\r\n")), status)
    });
    // What is done here meanwhile would hold the others up as well, so that is nothing.
    let others = Others::begin(&running);
    for (message, status) in messages {
        let reply = converse(running.addresses.http, message.as_bytes()).await;
        assert_eq!(statuses(&reply), [status], "{reply}");
    }
    others.are_unaffected().await;
}

/// Dots are names like any other, and name nothing.
#[tokio::test]
async fn paths_are_taken_as_they_are() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    for path in [
        "/v2/models/scale/../scale",
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e/%2e%2e/etc/passwd",
        "/v2/models/%2e%2e",
        "/./v2/health/live",
        "/v2/health/./live",
        "/v2//health/live",
        "v2/health/live",
        "*",
    ] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = converse(running.addresses.http, asked.as_bytes()).await;
        assert!(["404", "400"].contains(&statuses(&reply)[0]), "{path}: {reply}");
    }
    let whole = "GET http://x/v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = converse(running.addresses.http, whole.as_bytes()).await;
    assert_eq!(statuses(&reply), ["200"], "a proxy's form of it: {reply}");
}

/// What clients asked for that leave before it has begun never runs.
#[tokio::test]
async fn clients_that_leave_are_forgotten() {
    let running = serve_rounds().await;
    let ask = |rounds: i64| {
        let input = json!({"name": "rounds", "datatype": "INT64", "shape": [1], "data": [rounds]});
        json!({"inputs": [input]}).to_string()
    };
    let long = running.client.post(running.url("/v2/models/m/infer")).body(ask(3_000_000));
    let long = tokio::spawn(long.send());
    a_while().await;
    let short = ask(1);
    let message = with_body(&format!("Content-Length: {}\r\n", short.len()), &short);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(running.addresses.http).await.unwrap();
        stream.write_all(message.replace("/scale/", "/m/").as_bytes()).await.unwrap();
        // It is read before its sender leaves: something of it is there.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cancelled = "sluice_requests_total{model=\"m\",version=\"1\",code=\"cancelled\"}";
    wait_until("everybody has left", async || running.count(cancelled).await == 20.0).await;
    assert!(!long.is_finished());
    assert_eq!(long.await.unwrap().unwrap().status(), 200);
    assert_eq!(running.post("/v2/models/m/infer", short).await.0, 200);
    let run = running.count("sluice_rows_total{model=\"m\",version=\"1\"}").await;
    assert_eq!(run, 2.0, "the long one and the last one");
    within("the end", running.gateway.drain()).await;
}
