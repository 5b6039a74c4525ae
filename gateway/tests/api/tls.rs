//! TLS on every port: who gets in, who is cut, and certificates that change meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use serde_json::json;
use sluice_gateway::{SecuritySettings, Settings};
use sluice_protocol::grpc::ServerLiveRequest;
use sluice_protocol::grpc::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::{Authority, Signed, TlsClient, Usage, ask, json};
use crate::settings::check;
use crate::support::{Running, serve_with, wait_until, within, within_minutes};

const PREDICT: (&str, &str) = ("POST /v1/models/m:predict", r#"{"instances": [[1, 2]]}"#);

/// A gateway whose certificate lies in `folder`.
async fn serve_tls(
    folder: &Path,
    server: &Signed,
    adjust: impl FnOnce(&mut SecuritySettings),
) -> Running {
    let (certificate, key) = server.write(folder);
    let adjust = |settings: &mut Settings| {
        settings.metrics = Some("127.0.0.1:0".parse().unwrap());
        settings.security.tls_certificate = Some(certificate);
        settings.security.tls_key = Some(key);
        adjust(&mut settings.security);
    };
    serve_with(&[("m", 1, "scale.onnx")], adjust).await
}

async fn grpc_live(client: &TlsClient, running: &Running) -> Result<bool, tonic::Status> {
    let channel = client.channel(running.addresses.grpc).await;
    let channel = channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let mut client = GrpcInferenceServiceClient::new(channel);
    Ok(client.server_live(ServerLiveRequest {}).await?.into_inner().live)
}

/// How many handshakes the metrics say have failed.
async fn failed_handshakes(client: &TlsClient, running: &Running) -> u64 {
    let (_, text) = client.get(running.addresses.metrics.unwrap(), "/metrics").await;
    let line = text.lines().find(|line| line.starts_with("sluice_failed_handshakes_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// How a client that was here before is let in.
async fn second_handshake(client: &TlsClient, address: SocketAddr) -> Option<HandshakeKind> {
    assert_eq!(client.get(address, "/v2/health/live").await.0, 200);
    let stream = client.connect(address, &["h2", "http/1.1"]).await.unwrap();
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn every_port_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let running = serve_tls(folder.path(), &authority.sign(Usage::Server), |_| {}).await;
    let client = TlsClient::new(&[&authority], None);
    let addresses = running.addresses;

    let (status, body) = client.ask(addresses.http, PREDICT.0, PREDICT.1).await.unwrap();
    assert_eq!((status, json(&body)), (200, json!({"predictions": [[3.0, 5.0]]})));
    assert!(grpc_live(&client, &running).await.unwrap());
    assert_eq!(client.get(addresses.admin, "/models").await.0, 200);
    let (status, metrics) = client.get(addresses.metrics.unwrap(), "/metrics").await;
    // 1 January 2100.
    let expiry = "sluice_certificate_expiry_timestamp_seconds 4102444800";
    assert!(status == 200 && metrics.contains(expiry), "{metrics}");
    assert_eq!(client.get(addresses.metrics.unwrap(), "/v2/health/ready").await.0, 200);

    let negotiated = async |address, protocols: &[&str]| {
        let stream = client.connect(address, protocols).await.unwrap();
        stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    };
    let both = ["h2", "http/1.1"];
    assert_eq!(negotiated(addresses.http, &both).await.as_deref(), Some("http/1.1"));
    assert_eq!(negotiated(addresses.grpc, &both).await.as_deref(), Some("h2"));
    assert_eq!(negotiated(addresses.http, &[]).await, None);
    assert!(client.connect(addresses.grpc, &["http/1.1"]).await.is_err());

    assert_eq!(second_handshake(&client, addresses.http).await, Some(HandshakeKind::Resumed));

    let stranger = TlsClient::new(&[&Authority::new()], None);
    assert!(stranger.connect(addresses.http, &[]).await.is_err());
}

#[tokio::test]
async fn a_client_without_tls_is_cut_and_a_silent_one_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let running = serve_tls(folder.path(), &authority.sign(Usage::Server), |_| {}).await;
    let client = TlsClient::new(&[&authority], None);
    let addresses = running.addresses;
    let before = failed_handshakes(&client, &running).await;
    let ports = [addresses.http, addresses.grpc, addresses.admin, addresses.metrics.unwrap()];
    for address in ports {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        within("the cut", stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
        // What comes is an alert of TLS.
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    }
    // The cut is seen before it is counted.
    let counted = async || failed_handshakes(&client, &running).await == before + 4;
    wait_until("the count of the cuts", counted).await;

    let mut silent = Vec::new();
    for address in ports.iter().cycle().take(200) {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(client.get(addresses.http, "/v2/health/live").await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Nor do they hold up the end, though a handshake has 10 s.
    let begun = Instant::now();
    running.gateway.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
}

/// TLS takes answers in that the client does not take: it is cut off all the same.
#[tokio::test]
async fn a_reader_of_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.sign(Usage::Server).write(folder.path());
    let running = serve_with(&[("m", 1, "scale.onnx")], |settings| {
        settings.request_timeout = Some(Duration::from_millis(500));
        settings.security.tls_certificate = Some(certificate);
        settings.security.tls_key = Some(key);
    })
    .await;
    let client = TlsClient::new(&[&authority], None);
    let mut stream = client.connect(running.addresses.http, &[]).await.unwrap();
    let questions = "GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let asking = async { while stream.write_all(questions.as_bytes()).await.is_ok() {} };
    within_minutes("the cut", asking).await;
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let client_ca = folder.path().join("ca.crt");
    std::fs::write(&client_ca, clients.pem()).unwrap();
    let server = servers.sign(Usage::Server);
    let running = serve_tls(folder.path(), &server, |security| {
        security.tls_client_ca = Some(client_ca);
    })
    .await;
    let addresses = running.addresses;
    let known = TlsClient::new(&[&servers], Some(&clients.sign(Usage::Client)));
    assert!(grpc_live(&known, &running).await.unwrap());
    let mut kept = known.connect(addresses.http, &[]).await.unwrap();
    // Each connection proves its certificate anew.
    assert_eq!(second_handshake(&known, addresses.http).await, Some(HandshakeKind::Full));

    let stranger = Authority::new().sign(Usage::Client);
    let expired = clients.sign_until(Usage::Client, 2020);
    let server_only = clients.sign(Usage::Server);
    let wrong = [None, Some(&stranger), Some(&expired), Some(&server_only)];
    for (index, own) in wrong.into_iter().enumerate() {
        let client = TlsClient::new(&[&servers], own);
        let before = failed_handshakes(&client, &running).await;
        for address in [addresses.http, addresses.admin] {
            // With TLS 1.3 the client learns of it after its part of the handshake.
            let asked = client.ask(address, "GET /v2/health/live", "").await;
            assert!(asked.is_err(), "client {index}: {asked:?}");
        }
        assert!(grpc_live(&client, &running).await.is_err(), "client {index}");
        let counted = async || failed_handshakes(&client, &running).await >= before + 3;
        wait_until("the count of the failed handshakes", counted).await;
        // Scrapers and probes have none.
        let metrics = addresses.metrics.unwrap();
        assert_eq!(client.get(metrics, "/v2/health/live").await.0, 200, "client {index}");
        // The others notice nothing.
        assert_eq!(ask(&mut kept, PREDICT.0, PREDICT.1).await.unwrap().0, 200);
        assert_eq!(known.get(addresses.admin, "/models").await.0, 200);
    }
}

/// A browser shows the certificate of whoever sits before it to every server that asks for one,
/// whatever page sends the request.
#[tokio::test]
async fn pages_change_nothing_with_the_certificate_of_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let client_ca = folder.path().join("ca.crt");
    std::fs::write(&client_ca, authority.pem()).unwrap();
    let running = serve_tls(folder.path(), &authority.sign(Usage::Server), |security| {
        security.tls_client_ca = Some(client_ca);
    })
    .await;
    let browser = TlsClient::new(&[&authority], Some(&authority.sign(Usage::Client)));
    for (headers, expected) in [
        ("Origin: http://evil.example\r\nA:", 403),
        ("Sec-Fetch-Site: cross-site\r\nA:", 403),
        ("Origin: https://localhost\r\nA:", 200),
        ("A:", 200),
    ] {
        let request = format!("POST /v2/logging HTTP/1.1\r\n{headers}");
        let (status, told) = browser.ask(running.addresses.admin, &request, "{}").await.unwrap();
        assert_eq!(status, expected, "{headers}: {told}");
    }
}

/// Clients that ask on connections of their own, one a request and one for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_without_a_lost_request() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let running = serve_tls(folder.path(), &first.sign(Usage::Server), |_| {}).await;
    let address = running.addresses.http;
    let client = TlsClient::new(&[&first, &second], None);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let askers: Vec<_> = (0..4)
        .map(|index| {
            let (client, stop, asked) = (client.clone(), stop.clone(), asked.clone());
            tokio::spawn(async move {
                let mut kept = client.connect(address, &[]).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let answer = if index < 2 {
                        ask(&mut kept, PREDICT.0, PREDICT.1).await
                    } else {
                        client.ask(address, PREDICT.0, PREDICT.1).await
                    };
                    assert_eq!(answer.unwrap().0, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();

    let second_only = TlsClient::new(&[&second], None);
    let takes = async |client: &TlsClient| client.connect(address, &[]).await.is_ok();
    assert!(!takes(&second_only).await);
    let rotated = second.sign_until(Usage::Server, 2101);
    rotated.write(folder.path());
    wait_until("the second certificate", async || takes(&second_only).await).await;
    // 1 January 2101.
    let expiry = "sluice_certificate_expiry_timestamp_seconds 4133980800";
    let (_, metrics) = client.get(running.addresses.metrics.unwrap(), "/metrics").await;
    assert!(metrics.contains(expiry), "{metrics}");

    // A key that does not fit leaves the certificate as it was.
    std::fs::write(folder.path().join("tls.key"), first.sign(Usage::Server).key).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(takes(&second_only).await);
    let first_only = TlsClient::new(&[&first], None);
    first.sign(Usage::Server).write(folder.path());
    wait_until("the first certificate", async || takes(&first_only).await).await;

    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 100);
}

/// Files for TLS in a folder, fine ones and broken ones, under the names that they have there.
struct Files {
    folder: tempfile::TempDir,
    /// A part of the key that must not be told.
    secret: String,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new();
        let signed = authority.sign(Usage::Server);
        let (certificate, key) = (&signed.certificate, &signed.key);
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let header = "PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
        let traditional = key.replacen("PRIVATE KEY-----\n", header, 1);
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("tls.crt", certificate.clone()),
            ("tls.key", key.clone()),
            ("other.key", authority.sign(Usage::Server).key),
            ("text", "no certificate\n".to_owned()),
            ("broken", certificate.replace("MII", "M!I")),
            ("not-der", not_der.to_owned()),
            ("encrypted", key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")),
            ("traditional", traditional.replace("PRIVATE", "EC PRIVATE")),
            ("truncated", certificate[..certificate.len() - 40].to_owned()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, secret: key[40..60].to_owned() }
    }

    /// What the start says to `--tls-*` flags, each with its file; nothing when it is fine.
    fn refusal(&self, flags: &[(&str, &str)]) -> Option<String> {
        let models = self.folder.path();
        let flags: Vec<_> = flags
            .iter()
            .map(|(flag, file)| format!("--tls-{flag}={}", models.join(file).display()))
            .collect();
        let mut arguments = vec!["--model-repository", models.to_str().unwrap()];
        arguments.extend(flags.iter().map(String::as_str));
        let (fine, said) = check(&arguments, &[]);
        assert!(!said.contains(&self.secret), "{said}");
        (!fine).then_some(said)
    }
}

#[test]
fn what_is_wrong_with_the_files_is_told_at_the_start() {
    let files = Files::new();
    assert_eq!(files.refusal(&[("certificate", "tls.crt"), ("key", "tls.key")]), None);
    let missing = [
        "--tls-certificate /gone.crt: No such file",
        "--tls-key /gone.key: No such file",
        "--tls-client-ca /gone.ca: No such file",
    ];
    let no_pem = [
        "text: there is no certificate in PEM",
        "text: there is no private key in PEM",
        "--tls-client-ca",
    ];
    let cut_off =
        "truncated: its certificate in PEM is cut off: there is no line -----END CERTIFICATE-----";
    let other_key = ["other.key: the key does not fit --tls-certificate", "tls.crt"];
    let other_authority = ["--tls-client-ca", "not-der: a certificate cannot be used"];
    for (certificate, key, client_ca, says) in [
        ("tls.crt", "", "", &["--tls-certificate asks for --tls-key"][..]),
        ("", "tls.key", "", &["--tls-key asks for --tls-certificate"]),
        ("", "", "tls.crt", &["--tls-client-ca asks for --tls-certificate"]),
        ("/gone.crt", "/gone.key", "/gone.ca", &missing),
        ("text", "text", "text", &no_pem),
        ("tls.key", "tls.key", "", &["tls.key: there is no certificate"]),
        ("broken", "tls.key", "", &["broken: its certificate in PEM"]),
        ("not-der", "tls.key", "", &["not-der: the certificate cannot"]),
        ("tls.crt", "encrypted", "", &["key is encrypted"]),
        ("tls.crt", "traditional", "", &["key is encrypted"]),
        ("truncated", "tls.key", "", &[cut_off]),
        ("tls.crt", "other.key", "", &other_key),
        ("tls.crt", "tls.key", "not-der", &other_authority),
    ] {
        let flags = [("certificate", certificate), ("key", key), ("client-ca", client_ca)];
        let flags = flags.map(|flag| (!flag.1.is_empty()).then_some(flag));
        let flags: Vec<_> = flags.into_iter().flatten().collect();
        let said = files.refusal(&flags).unwrap_or_else(|| panic!("{flags:?} are fine"));
        for says in says {
            assert!(said.contains(says), "{flags:?}: {said}");
        }
    }
}
