//! Loads against a small server on loopback: what is counted, as what, and from when.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_bench::{Arrivals, BenchError, Check, Failure, Load, LoadOptions, Pace, Report, Stage};

use crate::server::{Server, answer};

mod server;

const MILLISECOND: Duration = Duration::from_millis(1);

fn options(url: http::Uri) -> LoadOptions {
    let mut options = LoadOptions::new(url);
    options.questions[0].bodies = vec![Bytes::from_static(b"{}")];
    options.check = Check::Json;
    options
}

/// Runs a load for `millis` to its end.
fn run(millis: u32, options: LoadOptions) -> Report {
    let duration = Some(millis * MILLISECOND);
    let mut load = Load::start(LoadOptions { duration, ..options }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load.finished());
    assert!(load.is_finished());
    load.stop_blocking()
}

#[test]
fn as_many_requests_are_sent_as_were_asked_for() {
    let server = Server::start(|_, _| async { answer(200, "{}") });
    for (rate, millis, expected) in [(400.0, 1_000, 400), (333.3, 500, 167), (1.0, 100, 1)] {
        let report = run(millis, LoadOptions { pace: Pace::even(rate), ..options(server.url()) });
        assert_eq!((report.total.ok, report.total.requests), (expected, expected), "{report}");
        let achieved = expected as f64 / f64::from(millis) * 1e3;
        assert!((report.total.ok_per_second - achieved).abs() < 0.01 * achieved, "{report}");
        assert_eq!(report.total.bytes_sent, 2 * expected);
        assert_eq!(report.total.bytes_received, 2 * expected);
        assert_eq!(report.total.reconnects, 0);
    }
}

#[test]
fn a_closed_loop_asks_as_soon_as_it_is_answered() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(20 * MILLISECOND).await;
        answer(200, "{}")
    });
    let closed = LoadOptions { pace: Pace::Closed, connections: 3, ..options(server.url()) };
    let report = run(1_000, closed);
    let total = &report.total;
    // 50 a connection, but for what the machine is slow.
    assert!((30..=150).contains(&total.ok) && total.ok == total.requests, "{report}");
    assert!(total.latency.p50 >= 20 * MILLISECOND, "{report}");
    // Nobody waits to be sent, whatever the server does.
    assert!(total.wait.p50 < MILLISECOND, "{report}");
}

#[test]
fn each_of_several_rates_has_its_figures() {
    let server = Server::start(|_, _| async { answer(200, "{}") });
    let stages = [100.0, 400.0].map(Stage::flat).to_vec();
    let pace = Pace::Open { stages, arrivals: Arrivals::Even };
    let report = run(500, LoadOptions { pace, ..options(server.url()) });
    let figures: Vec<_> =
        report.phases.iter().map(|phase| (phase.name.as_str(), phase.ok)).collect();
    assert_eq!(figures, [("100/s", 50), ("400/s", 200)], "{report}");
    assert_eq!(report.total.duration, 1_000 * MILLISECOND);
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_server_takes_is_reported() {
    let server = Server::start(|_, _| async { answer(200, "{}") });
    // It runs in this process.
    let own = sluice_bench::ProcessTree::new(std::process::id()).unwrap();
    let report = run(300, LoadOptions { server: Some(own), ..options(server.url()) });
    let cost = report.server.unwrap();
    assert!(cost.usage.memory > 1_000_000 && cost.usage.threads >= 3, "{report}");
    assert!(report.to_string().contains("us of processor time a request"), "{report}");
    let json = report.to_json();
    assert!(json["server"]["cpu_us_per_request"].is_number(), "{json}");
    assert!(run(100, options(server.url())).to_json()["server"].is_null());
}

#[test]
fn headers_and_rotated_bodies_arrive() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = Server::start(move |_, request| {
        let header = |name| {
            request.headers().get(name).map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned())
        };
        let about = (
            request.method().to_string(),
            request.uri().to_string(),
            header("content-type"),
            header("x-a"),
        );
        log.lock().unwrap().push((about, request.into_body()));
        async { answer(200, "{}") }
    });
    let mut headers = http::HeaderMap::new();
    headers.insert("x-a", "b".parse().unwrap());
    let bodies = ["1", "2", "3"].map(Bytes::from).to_vec();
    // One connection, so that the server sees the order of sending.
    let mut asked = options(server.url());
    asked.questions[0].bodies = bodies;
    let report = run(100, LoadOptions { headers, connections: 1, pace: Pace::even(70.0), ..asked });
    assert_eq!(report.total.ok, 7, "{report}");
    let seen = seen.lock().unwrap();
    let bodies: Vec<&[u8]> = seen.iter().map(|(_, body)| body.as_ref()).collect();
    assert_eq!(bodies, [b"1", b"2", b"3", b"1", b"2", b"3", b"1"]);
    let json = Some("application/json".into());
    assert!(seen.iter().all(
        |(about, _)| *about == ("POST".into(), "/infer".into(), json.clone(), Some("b".into()))
    ));
}

#[test]
fn a_servers_delay_is_measured() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(20 * MILLISECOND).await;
        answer(200, "{}")
    });
    let report = run(500, LoadOptions { pace: Pace::even(100.0), ..options(server.url()) });
    let latency = report.total.latency;
    assert!(latency.min >= 20 * MILLISECOND, "{report}");
    assert!(latency.p50 < 120 * MILLISECOND, "{report}");
}

/// Coordinated omission: a closed loop would see as many slow answers as it has connections.
#[test]
fn a_stall_is_charged_to_every_request_that_was_due_in_it() {
    let started = Instant::now();
    let stall = 300 * MILLISECOND..600 * MILLISECOND;
    let server = Server::start(move |_, _| {
        let now = started.elapsed();
        let left = if stall.contains(&now) { stall.end - now } else { Duration::ZERO };
        async move {
            tokio::time::sleep(left).await;
            answer(200, "{}")
        }
    });
    let report = run(
        1_500,
        LoadOptions { pace: Pace::even(200.0), connections: 4, ..options(server.url()) },
    );
    let total = &report.total;
    assert_eq!((total.ok, total.unsent), (300, 0), "{report}");
    // 60 of the 300 were due in the stall, and waited between 300 ms and nothing for its end.
    assert!(total.latency.p99 >= 240 * MILLISECOND, "{report}");
    assert!(total.latency.p90 >= 100 * MILLISECOND, "{report}");
    assert!(total.latency.p50 < 100 * MILLISECOND, "{report}");
    assert!(total.wait.p99 >= 200 * MILLISECOND, "{report}");
}

#[test]
fn requests_that_cannot_be_sent_in_time_are_counted() {
    let server = Server::start(|_, _| async {
        tokio::time::sleep(100 * MILLISECOND).await;
        answer(200, "{}")
    });
    // One connection does 10 a second of the 200 asked for; the rest waits longer than 150 ms.
    let report = run(
        1_000,
        LoadOptions {
            pace: Pace::even(200.0),
            connections: 1,
            timeout: 150 * MILLISECOND,
            ..options(server.url())
        },
    );
    let total = &report.total;
    assert_eq!((total.requests, total.ok + total.failed + total.unsent), (200, 200), "{report}");
    assert!(total.unsent >= 180, "{report}");
    assert!(total.wait.max <= 151 * MILLISECOND, "{report}");
}

#[test]
fn failures_are_counted_by_kind() {
    let server = Server::start(|number, _| async move {
        match number % 4 {
            0 => answer(200, "{}"),
            1 => answer(503, r#"{"error":"draining"}"#),
            2 => answer(200, r#"{"error":"hidden"}"#),
            _ => answer(404, ""),
        }
    });
    let report =
        run(400, LoadOptions { pace: Pace::even(100.0), connections: 1, ..options(server.url()) });
    let counts: Vec<_> = report
        .total
        .failures
        .iter()
        .map(|(kind, f)| (*kind, f.count, f.example.as_str()))
        .collect();
    let expected = [
        (Failure::Status(404), 10, ""),
        (Failure::Status(503), 10, r#"{"error":"draining"}"#),
        (Failure::Body, 10, r#"{"error":"hidden"}"#),
    ];
    assert_eq!(counts, expected, "{report}");
    assert_eq!((report.total.ok, report.total.failed), (10, 30));
    assert_eq!((report.total.latency.count, report.total.failed_latency.count), (10, 30));
    // A bad answer is no reason to close the connection.
    assert_eq!(report.total.reconnects, 0);
}

#[test]
fn a_timeout_counts_as_latency_and_closes_the_connection() {
    let server = Server::start(|number, _| async move {
        if number == 3 {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        answer(200, "{}")
    });
    let report = run(
        500,
        LoadOptions {
            pace: Pace::even(20.0),
            connections: 1,
            timeout: 200 * MILLISECOND,
            ..options(server.url())
        },
    );
    let total = &report.total;
    assert_eq!((total.ok, total.failures[&Failure::Timeout].count), (9, 1), "{report}");
    assert_eq!((total.latency.count, total.reconnects), (10, 1), "{report}");
    assert!(total.latency.max >= 200 * MILLISECOND, "{report}");
}

#[test]
fn a_server_may_go_away_and_come_back() {
    let good = |_, _| async { answer(200, "{}") };
    let server = Server::start(good);
    let (url, address) = (server.url(), server.address);
    let load = Load::start(LoadOptions { pace: Pace::even(200.0), ..options(url) }).unwrap();
    load.phase("up");
    std::thread::sleep(200 * MILLISECOND);
    load.phase("going");
    drop(server);
    load.phase("away");
    std::thread::sleep(200 * MILLISECOND);
    load.phase("coming");
    let server = Server::start_at(address, good);
    load.phase("back");
    std::thread::sleep(200 * MILLISECOND);
    let report = load.stop_blocking();
    drop(server);

    let phase = |name| report.phase(name).unwrap_or_else(|| panic!("{name} in\n{report}"));
    for name in ["up", "back"] {
        assert!(phase(name).ok > 10, "{report}");
        assert_eq!(phase(name).failed, 0, "{report}");
    }
    assert_eq!(phase("away").ok, 0, "{report}");
    assert_eq!(phase("away").failures[&Failure::Connect].count, phase("away").requests, "{report}");
    assert!((1..=8).contains(&phase("back").reconnects), "{report}");
}

/// A server without HTTP: what it sends after a request, before it closes.
fn raw_server(reply: &'static [u8]) -> http::Uri {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    drop(stream.write_all(reply));
                }
            });
        }
    });
    url
}

#[test]
fn servers_that_break_off_or_talk_nonsense_are_told_apart() {
    for (reply, failure) in [
        (&b""[..], Failure::Closed),
        (b"HTTP/1.1 200 OK\r\ncontent-le", Failure::Closed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", Failure::Closed),
        (b"SSH-2.0-OpenSSH_9.7\r\n", Failure::Protocol),
    ] {
        let report =
            run(100, LoadOptions { pace: Pace::even(100.0), ..options(raw_server(reply)) });
        let text = String::from_utf8_lossy(reply);
        assert_eq!(
            report.total.failures.keys().collect::<Vec<_>>(),
            [&failure],
            "{text:?} {report}"
        );
        assert_eq!(report.total.failed, 10, "{text:?} {report}");
    }
}

#[test]
fn closing_after_an_answer_is_no_failure() {
    let url = raw_server(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    let report = run(200, LoadOptions { pace: Pace::even(100.0), connections: 2, ..options(url) });
    assert_eq!((report.total.ok, report.total.failed), (20, 0), "{report}");
    assert_eq!(report.total.reconnects, 18, "{report}");
}

#[test]
fn nobody_at_the_target_is_an_error_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}").parse().unwrap();
    let error = Load::start(LoadOptions::new(url)).unwrap_err();
    assert!(matches!(error, BenchError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    let remote = Load::start(LoadOptions::new("http://192.0.2.7/".parse().unwrap())).unwrap_err();
    assert!(matches!(remote, BenchError::Remote { .. }), "{remote}");
}

#[tokio::test]
async fn a_load_runs_beside_a_busy_runtime_and_stops_early() {
    let server = Server::start(|_, _| async { answer(200, "{}") });
    let duration = Some(Duration::from_secs(3_600));
    let load =
        Load::start(LoadOptions { duration, pace: Pace::even(200.0), ..options(server.url()) })
            .unwrap();
    // Blocking this runtime's only thread must not delay the load's.
    std::thread::sleep(250 * MILLISECOND);
    assert!(!load.is_finished());
    assert!(load.report().total.ok >= 20);
    let report = load.stop().await;
    assert!((45..200).contains(&report.total.requests), "{report}");
    assert_eq!(report.total.ok, report.total.requests, "{report}");
    assert!(report.total.duration < Duration::from_secs(1), "{report}");
}

#[test]
fn reports_are_written_whole() {
    let server = Server::start(|_, _| async { answer(200, "{}") });
    let report = run(100, LoadOptions { pace: Pace::even(100.0), ..options(server.url()) });
    let folder = tempfile::tempdir().unwrap();
    let (json, histogram) = (folder.path().join("report.json"), folder.path().join("load.hgrm"));
    report.write_json(&json).unwrap();
    report.write_json(&json).unwrap();
    report.write_histogram(&histogram).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(read, report.to_json());
    assert_eq!((&read["format"], &read["total"]["ok"]), (&2.into(), &10.into()));
    assert!(read["phases"][0]["latency"]["p99_us"].as_u64().unwrap() > 0, "{read}");
    assert!(std::fs::read_to_string(histogram).unwrap().starts_with("# sluice"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 2);

    let error = report.write_json(&folder.path().join("no/such.json")).unwrap_err();
    assert!(error.to_string().contains("such.json"), "{error}");
}
