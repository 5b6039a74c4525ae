//! Clients that misuse HTTP/2: they are cut off, and nobody else notices.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use sluice_protocol::grpc::ModelInferRequest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::grpc_v2::{input, ones};
use crate::inference::connect;
use crate::raw_call::{INFER, STREAM, framed};
use crate::support::{Caller, Process, serve_with, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as HPACK has it when nothing is compressed.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn call_headers() -> Vec<u8> {
    headers_of(INFER)
}

/// The headers of a call to the method at `path`.
fn headers_of(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.into_iter().flat_map(|(name, value)| header(name, value)).collect()
}

async fn open(caller: &Caller) -> TcpStream {
    open_with(caller, &[]).await
}

/// A connection on which a call's window is so many bytes at first.
async fn open_with_window(caller: &Caller, window: u8) -> TcpStream {
    open_with(caller, &[0, 4, 0, 0, 0, window]).await
}

async fn open_with(caller: &Caller, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(caller.addresses.grpc).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
    stream
}

/// A question for an answer of so many bytes.
fn fill(bytes: i64) -> Bytes {
    let shape = [1, bytes / 4].map(i64::to_le_bytes).concat();
    let question = ModelInferRequest {
        model_name: "fill".to_owned(),
        inputs: vec![input("shape", "INT64", &[2])],
        raw_input_contents: vec![shape.into()],
        ..Default::default()
    };
    framed(&question.encode_to_vec())
}

/// Asks one question.
async fn ask(stream: &mut TcpStream, stream_id: u32, question: &[u8]) {
    let headers = frame(HEADERS, END_HEADERS, stream_id, &call_headers());
    let data = frame(DATA, END_STREAM, stream_id, question);
    stream.write_all(&[headers, data].concat()).await.unwrap();
}

/// Makes the bytes that come next.
type Flood = Box<dyn FnMut() -> Vec<u8> + Send>;

/// Sends `flood` again and again until the server has enough: how many bytes that took, and the reason
/// that it gave, if it did.
async fn until_cut_off(
    stream: TcpStream,
    mut flood: impl FnMut() -> Vec<u8>,
) -> (usize, Option<u32>) {
    let (mut read, mut write) = stream.into_split();
    // What is answered must be read, or the server could not write.
    let reading = tokio::spawn(async move {
        let mut reason = None;
        while let Some((kind, _, _, payload)) = next_frame(&mut read).await {
            if kind == GO_AWAY {
                reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        reason
    });
    let mut sent = 0;
    let sending = async {
        while !reading.is_finished() {
            let bytes = flood();
            if write.write_all(&bytes).await.is_err() {
                return;
            }
            sent += bytes.len();
            tokio::task::yield_now().await;
        }
    };
    within("the connection's end", sending).await;
    (sent, within("the last frame", reading).await.unwrap())
}

/// The next frame: kind, flags, stream and payload. None when the connection ends before.
async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, flags, number @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(number), payload))
}

/// Asks over and over: the longest that an answer took.
async fn neighbour(process: &Process) -> tokio::task::JoinHandle<Duration> {
    let mut client = connect(process).await;
    tokio::spawn(async move {
        let (mut slowest, until) = (Duration::ZERO, Instant::now() + Duration::from_secs(1));
        while Instant::now() < until {
            let begun = Instant::now();
            client.model_infer(ones("scale", 1)).await.unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    })
}

/// Calls, a hundred at a time, each with `more` frames behind its headers.
fn calls(more: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Flood {
    let mut stream = 1;
    Box::new(move || {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &call_headers()));
            bytes.extend(more(stream));
            stream += 2;
        }
        bytes
    })
}

/// `opening` once, and `more` a hundred times, again and again.
fn endless(opening: Vec<u8>, more: &[u8]) -> Flood {
    let (mut opening, more) = (opening, more.repeat(100));
    Box::new(move || [std::mem::take(&mut opening), more.clone()].concat())
}

/// What a client can send without an end, and the reason that it is told.
fn floods() -> [(&'static str, Option<u32>, Flood); 8] {
    // ENHANCE_YOUR_CALM, of the library's own limits. What only costs is cut off without a word.
    let calm = Some(11);
    // PROTOCOL_ERROR: a window of nothing more is against the rules. Some servers reset the stream
    // for it, over and over; here it ends the connection.
    let mistaken = Some(1);
    let question = framed(&ones("scale", 1).encode_to_vec());
    let broken_off = move |stream| {
        let asked = frame(DATA, END_STREAM, stream, &question);
        [asked, frame(RESET, 0, stream, &8u32.to_be_bytes())].concat()
    };
    let made_to_reset = |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let call = frame(HEADERS, END_HEADERS, 1, &call_headers());
    let unfinished = frame(HEADERS, 0, 1, &call_headers());
    let header = frame(CONTINUATION, 0, 1, &header("a", &"b".repeat(100)));
    let again = |frame: Vec<u8>| endless(Vec::new(), &frame);
    [
        ("rapid reset", calm, calls(broken_off)),
        ("made to reset", mistaken, calls(made_to_reset)),
        ("empty data", calm, endless(call, &frame(DATA, 0, 1, &[]))),
        ("endless headers", calm, endless(unfinished, &header)),
        ("pings", None, again(frame(PING, 0, 0, &[7; 8]))),
        ("settings", None, again(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("priorities", None, again(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        ("windows", None, again(frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()))),
    ]
}

/// Faults 12 and 13.
#[tokio::test(flavor = "multi_thread")]
async fn floods_are_cut_off_and_hurt_nobody() {
    let process = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    for (what, reason, flood) in floods() {
        let neighbour = neighbour(&process).await;
        let (begun, before) = (Instant::now(), process.cpu_time());
        let (sent, told) = until_cut_off(open(&process).await, flood).await;
        assert_eq!(told, reason, "{what}: the reason that was given");
        let (took, cost) = (begun.elapsed(), process.cpu_time() - before);
        assert!(sent < 20_000_000, "{what}: {sent} bytes were taken");
        assert!(took < Duration::from_secs(5), "{what}: cut off after {took:?}");
        assert!(cost < Duration::from_secs(5), "{what}: cost {cost:?}");
        let slowest = neighbour.await.unwrap();
        assert!(slowest < Duration::from_secs(2), "{what}: a neighbour waited {slowest:?}");
    }
    // What was broken off was not run: every run is one that a neighbour waited for.
    let metrics = process.metrics().await;
    let count = |series: &str| -> u64 {
        let found = metrics.lines().find_map(|line| line.strip_prefix(series));
        found.map_or(0, |count| count.trim().parse().unwrap())
    };
    let asked = count("sluice_requests_total{model=\"scale\",version=\"1\",code=\"ok\"}");
    let run = count("sluice_rows_total{model=\"scale\",version=\"1\"}");
    assert!(run <= asked + 10, "{run} rows for {asked} questions");
    process.end_without_an_error().await;
}

/// Fault 6: a client whose windows are shut takes nothing of what it asked for. Its calls are given up,
/// what waits for it is bounded, and its memory is freed, while it stays connected.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_given_up() {
    let flags = ["--request-timeout=3s", "--max-body=4000000"];
    let models = [("fill", 1, "fill.onnx"), ("scale", 1, "scale.onnx")];
    let process = Process::start(&models, &flags).await;
    let peak_before = process.status("VmHWM");
    let mut stream = open_with_window(&process, 0).await;
    // Answers of 4 MB each, of which 32 MB may wait.
    let question = fill(4 << 20);
    let mut stream_ids = (1..).step_by(2);
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (mut sent, mut ended, mut given_up) = (0, 0, 0);
        while ended < 50 {
            // Few at a time: each that runs has its answer in memory, whoever takes it.
            let more = (10 + ended).min(50) - sent;
            for stream_id in stream_ids.by_ref().take(more) {
                ask(&mut stream, stream_id, &question).await;
            }
            sent += more;
            let next = within("the end of a call", next_frame(&mut stream)).await;
            let (kind, flags, _, payload) = next.expect("the connection goes on");
            let is_reset = kind == RESET;
            assert!(!is_reset || payload == 8u32.to_be_bytes(), "cancelled: {payload:?}");
            given_up += usize::from(is_reset);
            ended += usize::from(is_reset || (kind == HEADERS && flags & END_STREAM != 0));
        }
        // At a time eight wait at most; on a busy machine others come behind those given up.
        assert!((1..50).contains(&given_up), "{given_up} answers waited");
        kept.push(process.status("VmRSS") << 10);
    }
    let peak = (process.status("VmHWM") - peak_before) << 10;
    assert!(peak < 200 << 20, "{peak} bytes of memory were taken");
    // What a round leaves behind is there for the next one.
    assert!(kept[3] < kept[0] + (40 << 20), "{kept:?}");
    let mut neighbour = connect(&process).await;
    neighbour.model_infer(ones("scale", 1)).await.unwrap();
    process.end_without_an_error().await;
}

/// Also those of which HTTP/2 would take the last piece for a window of one byte.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_which_a_byte_is_taken_are_given_up() {
    const CALLS: u32 = 200;
    let process = Process::start(&[("fill", 1, "fill.onnx")], &["--request-timeout=3s"]).await;
    let mut stream = open_with_window(&process, 1).await;
    for number in 0..CALLS {
        ask(&mut stream, 2 * number + 1, &fill(30_000)).await;
    }
    let mut given_up = 0;
    while given_up < CALLS {
        let next = within("the end of a call", next_frame(&mut stream)).await;
        let (kind, flags, _, _) = next.expect("the connection goes on");
        let is_late = kind == HEADERS && flags & END_STREAM != 0;
        assert!(!is_late, "an answer was not there within the timeout");
        given_up += u32::from(kind == RESET);
    }
    drop(stream);
    process.end_without_an_error().await;
}

/// However small the answers are: what waits on all streams of a connection counts.
#[tokio::test(flavor = "multi_thread")]
async fn small_answers_that_wait_on_many_streams_are_bounded() {
    let models = [("fill", 1, "fill.onnx"), ("scale", 1, "scale.onnx")];
    let flags = ["--max-body=1000000", "--request-timeout=600s"];
    let process = Process::start(&models, &flags).await;
    let mut stream = open_with_window(&process, 0).await;
    // 18 MB, of which 8 MB may wait.
    let questions = fill(30_000).repeat(30);
    let mut stream_ids = (1..).step_by(2);
    for stream_id in stream_ids.by_ref().take(20) {
        let headers = frame(HEADERS, END_HEADERS, stream_id, &headers_of(STREAM));
        let data = frame(DATA, 0, stream_id, &questions);
        stream.write_all(&[headers, data].concat()).await.unwrap();
    }
    let question = framed(&ones("scale", 1).encode_to_vec());
    let refusal = async {
        for asked in stream_ids {
            ask(&mut stream, asked, &question).await;
            let flags = loop {
                let next = next_frame(&mut stream).await;
                let (kind, flags, stream_id, _) = next.expect("the connection goes on");
                if kind == HEADERS && stream_id == asked {
                    break flags;
                }
            };
            if flags & END_STREAM != 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("a refusal", refusal).await;
    drop(stream);
    process.end_without_an_error().await;
}

/// Frames up to one of `kind`: that one's payload. None when the connection ends before.
async fn payload_of(stream: &mut TcpStream, kind: u8) -> Option<Vec<u8>> {
    loop {
        let (found, flags, _, payload) = next_frame(stream).await?;
        if found == kind && (kind != SETTINGS || flags & ACK == 0) {
            return Some(payload);
        }
    }
}

#[tokio::test]
async fn the_server_says_how_much_it_takes() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.transport.grpc_max_streams = Some(7);
    })
    .await;
    let mut stream = open(&running).await;
    let settings = within("settings", payload_of(&mut stream, SETTINGS)).await.unwrap();
    let value = |id: u16| {
        let found = settings.chunks(6).find(|one| one[..2] == id.to_be_bytes());
        found.map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()))
    };
    // Concurrent streams, and the size of headers.
    assert_eq!((value(3), value(6)), (Some(7), Some(16 * 1024)));
}

/// Clients may ask whether the server is there as often as they like within reason.
#[tokio::test]
async fn clients_may_ping_often() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |_| {}).await;
    let mut stream = open(&running).await;
    for number in 0..2000u64 {
        let ping = number.to_be_bytes();
        stream.write_all(&frame(PING, 0, 0, &ping)).await.unwrap();
        let pong = within("an answer", payload_of(&mut stream, PING)).await.unwrap();
        assert_eq!(pong, ping);
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_gone() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.transport.grpc_keepalive_time = Some(Duration::from_millis(200));
        settings.transport.grpc_keepalive_timeout = Some(Duration::from_millis(200));
    })
    .await;
    // One that answers stays.
    let mut client = connect(&running).await;
    client.model_infer(ones("scale", 1)).await.unwrap();
    let mut silent = open(&running).await;
    let begun = Instant::now();
    within("a ping", payload_of(&mut silent, PING)).await.unwrap();
    assert_eq!(within("the end", payload_of(&mut silent, 99)).await, None);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    client.model_infer(ones("scale", 1)).await.unwrap();
}

/// Metadata past the limit costs its own call, and the connection at worst.
#[tokio::test]
async fn too_many_headers_are_refused() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |_| {}).await;
    let mut stream = open(&running).await;
    let many: Vec<u8> =
        (0..250).flat_map(|number| header(&format!("a{number}"), &"b".repeat(100))).collect();
    let headers = [call_headers(), many].concat();
    let (first, rest) = headers.split_at(16_000);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, first)).await.unwrap();
    stream.write_all(&frame(CONTINUATION, END_HEADERS, 1, rest)).await.unwrap();
    // A status of its own: a name out of HPACK's table, and the literal 431 in Huffman's code.
    let refused = within("a refusal", payload_of(&mut stream, HEADERS)).await.unwrap();
    assert_eq!(refused, [0x48, 0x83, 0x69, 0x90, 0xff]);
    let mut client = connect(&running).await;
    client.model_infer(ones("scale", 1)).await.unwrap();
    let metrics = running.metrics().await;
    let asked = "sluice_requests_total{model=\"scale\",version=\"1\",code=\"ok\"} 1\n";
    assert!(metrics.contains(asked), "{metrics}");
}
