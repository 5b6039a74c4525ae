//! The ports for operators: who reaches them, and what their connections may be.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, HOST, ORIGIN};
use serde_json::json;
use sluice_gateway::ControlGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, answer, serve_with, value, within};

const LIVE: &str = "GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// A gateway whose metrics have a port of their own.
async fn serve(patience: Duration) -> Running {
    serve_with(&[("m", 1, "scale.onnx")], |settings| {
        settings.metrics = Some("127.0.0.1:0".parse().unwrap());
        settings.request_timeout = Some(patience);
    })
    .await
}

/// All that comes for `bytes` until the server closes the connection.
async fn converse(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _taken = stream.write_all(bytes.as_bytes()).await;
    let mut read = Vec::new();
    let _reset = within("the connection's end", stream.read_to_end(&mut read)).await;
    String::from_utf8_lossy(&read).into_owned()
}

fn ports(running: &Running) -> [SocketAddr; 2] {
    [running.addresses.admin, running.addresses.metrics.unwrap()]
}

/// As on the serving ports: what two readers could read differently is refused, and nothing behind
/// it is read.
#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let running = serve(Duration::from_secs(30)).await;
    let ends = "0\r\n\r\n";
    for address in ports(&running) {
        for (length, body) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ends),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", ends),
            ("Content-Length: +5\r\n", ends),
            ("Transfer-Encoding: chunked\r\n", "+0\r\n\r\n"),
            ("A: b\n", ""),
        ] {
            let post =
                format!("POST /v2/logging HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n{body}");
            let reply = converse(address, &format!("{post}{LIVE}")).await;
            // The metrics port has no such path, and says so before it reads a body.
            let refused = reply.contains(" 400 ") || reply.contains(" 404 ");
            assert!(refused && !reply.contains("\"live\""), "{length}: {reply}");
        }
    }
}

#[tokio::test]
async fn slow_senders_are_cut_off() {
    let running = serve(Duration::from_millis(300)).await;
    for address in ports(&running) {
        assert_eq!(converse(address, "GET /metrics HTTP/1.1\r\nHos").await, "");
    }
    for path in ["/v2/logging", "/v2/repository/models/m/load"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{{");
        let reply = converse(running.addresses.admin, &head).await;
        assert!(reply.starts_with("HTTP/1.1 504 "), "{path}: {reply}");
        assert!(reply.contains("did not arrive within"), "{path}: {reply}");
    }
}

/// Each port is full of connections that ask for nothing, and answers all the same.
#[tokio::test]
async fn silent_connections_make_room() {
    let running = serve(Duration::from_secs(30)).await;
    for address in ports(&running) {
        let mut silent = Vec::new();
        for index in 0..1100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if index % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
            }
            silent.push(stream);
        }
        let asked = answer(running.client.get(format!("http://{address}/v2/health/live")));
        assert_eq!(within("an answer", asked).await.0, 200);
        // The first made room.
        let mut end = [0; 1];
        let read = within("the first one's end", silent[0].read(&mut end)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

#[tokio::test]
async fn bodies_come_compressed_and_within_the_limit_of_the_moment() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sluice.toml");
    std::fs::write(&config, "").unwrap();
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        settings.config = Some(config.clone());
    })
    .await;
    let post = |body: Vec<u8>| running.client.post(running.admin("/v2/logging")).body(body);
    let body = json!({"log_info": true, "unknown": "0123456789".repeat(10)}).to_string();
    let packed = crate::content_coding::gzip(body.as_bytes());
    assert_eq!(answer(post(body.clone().into())).await.0, 200);
    assert_eq!(answer(post(packed.clone()).header(CONTENT_ENCODING, "gzip")).await.0, 200);
    let (status, told) = answer(post(packed.clone()).header(CONTENT_ENCODING, "br")).await;
    assert_eq!(status, 501, "{told}");

    std::fs::write(&config, "max_body = 100\n").unwrap();
    assert_eq!(answer(running.client.post(running.admin("/reload"))).await.0, 200);
    for request in [post(body.clone().into()), post(packed).header(CONTENT_ENCODING, "gzip")] {
        let (status, told) = answer(request).await;
        assert!(status == 413 && told["error"].as_str().unwrap().contains("100 bytes"), "{told}");
    }
    std::fs::write(&config, "max_body = \"1KiB\"\n").unwrap();
    assert_eq!(answer(running.client.post(running.admin("/reload"))).await.0, 200);
    assert_eq!(answer(post(body.into())).await.0, 200);
}

/// A browser sends what a page tells it to, to this machine as well.
#[tokio::test]
async fn web_pages_change_nothing() {
    let running = serve(Duration::from_secs(30)).await;
    let post = |path: &str| running.client.post(running.admin(path));
    let page = "http://evil.example";
    for path in ["/drain", "/reload", "/v2/logging", "/v2/repository/models/m/unload"] {
        for request in [
            post(path).header(ORIGIN, page),
            post(path).header(ORIGIN, page).header(HOST, "evil.example"),
            post(path).header(HOST, "evil.example:8082"),
            post(path).header("sec-fetch-site", "cross-site"),
        ] {
            let (status, told) = answer(request).await;
            assert_eq!(status, 403, "{path}: {told}");
            assert!(told["error"].as_str().unwrap().contains("--admin-token-file"), "{told}");
        }
    }
    let (status, _) = running.get("/v2/health/ready").await;
    assert_eq!(status, 200, "nobody drained it");
    assert_eq!(answer(post("/v2/logging").body("{}")).await.0, 200);
    let forwarded = post("/v2/logging").header(HOST, "localhost:1234").body("{}");
    assert_eq!(answer(forwarded).await.0, 200);
    let unrouted = "sluice_unrouted_requests_total{code=\"permission_denied\"}";
    assert_eq!(value(&running.metrics().await, unrouted), Some(16.0));
}

/// Any name can be made to lead to this machine, and its page would read what it is answered.
#[tokio::test]
async fn on_loopback_other_names_read_nothing_but_metrics_and_health() {
    let running = serve(Duration::from_secs(30)).await;
    for (path, status) in [
        ("/models", 403),
        ("/v2/logging", 403),
        ("/openapi.json", 403),
        ("/metrics", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
    ] {
        let get = |host| running.client.get(running.admin(path)).header(HOST, host);
        assert_eq!(get("evil.example:8082").send().await.unwrap().status(), status, "{path}");
        assert_eq!(get("localhost:8082").send().await.unwrap().status(), 200, "{path}");
    }
}

/// Where calls that change something are answered on a serving port, pages are kept from them; models
/// may be used from anywhere.
#[tokio::test]
async fn web_pages_change_nothing_on_a_serving_port() {
    for restricted in [false, true] {
        let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
            settings.serve_control = vec![ControlGroup::Logging];
            if restricted {
                settings.security.restrict = vec!["logging=key:v".to_owned()];
            }
        })
        .await;
        let post = |path: &str| {
            running.client.post(running.url(path)).header("key", "v").body("{}".to_owned())
        };
        let get = |path: &str| running.client.get(running.url(path)).header("key", "v");
        for (request, of_page) in [
            (post("/v2/logging").header(ORIGIN, "http://evil.example"), 403),
            (post("/v2/logging").header("sec-fetch-site", "cross-site"), 403),
            (post("/v2/logging").header(HOST, "evil.example"), 403),
            (get("/v2/logging").header(HOST, "evil.example"), 403),
            (get("/v2/logging").header(ORIGIN, "http://evil.example"), 200),
            (post("/v2/logging"), 200),
            (get("/v2/models/m").header(HOST, "evil.example"), 200),
            (post("/v2/repository/index").header(ORIGIN, "http://evil.example"), 200),
        ] {
            let shown = format!("{request:?}");
            // No page can send a header that nobody tells it of.
            let expected = if restricted { 200 } else { of_page };
            let (status, told) = answer(request).await;
            assert_eq!(status, expected, "{restricted} {shown}: {told}");
        }
    }
}

/// A page does not know them.
#[tokio::test]
async fn with_tokens_no_one_is_asked_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "operator\n").unwrap();
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        settings.security.admin_token_file = Some(tokens);
    })
    .await;
    let post = || running.client.post(running.admin("/reload")).header(HOST, "gateway.example");
    assert_eq!(answer(post()).await.0, 401);
    assert_eq!(answer(post().header(ORIGIN, "http://page")).await.0, 401);
    assert_eq!(answer(post().bearer_auth("operator")).await.0, 200);
}
