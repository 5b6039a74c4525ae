//! Settings that are read again while the gateway runs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::{Authority, TlsClient, Usage};
use crate::support::{Process, Running, answer, serve_with, wait_until};

const PREDICT: &str = r#"{"instances": [[1, 2]]}"#;
/// Larger than what [`SMALL`] allows.
const LARGE: &str = "0123456789012345678901234567890123456789012345678901";
const SMALL: &str = "max_body = 50\n";

fn write(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn serve_by(config: &Path) -> Running {
    serve_with(&[("m", 1, "scale.onnx")], |settings| settings.config = Some(config.into())).await
}

async fn reload(running: &Running) -> (u16, Value) {
    answer(running.client.post(running.admin("/reload"))).await
}

async fn predict(running: &Running, body: &'static str) -> (u16, Value) {
    running.post("/v1/models/m:predict", body).await
}

#[tokio::test]
async fn what_can_change_is_in_force_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let running = serve_by(&config).await;
    assert_eq!(reload(&running).await, (200, json!({"changed": [], "restart": []})));

    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "user\n").unwrap();
    // Where it listens is said by a flag here, which wins.
    let text = "max_body = 50\ncolumn_reply = \"predictions\"\nhttp = \"127.0.0.1:1\"\n\
                drain_timeout = \"1s\"\nmax_waiting = \"2s\"\n";
    write(folder.path(), text);
    let told = json!({"changed": ["column_reply", "max_body", "max_waiting"], "restart": ["drain_timeout"]});
    assert_eq!(reload(&running).await, (200, told));
    let large = predict(&running, LARGE).await;
    assert_eq!(large.0, 413, "{large:?}");

    // What waits for a restart is told again; what is in force is not.
    assert_eq!(reload(&running).await.1, json!({"changed": [], "restart": ["drain_timeout"]}));

    let secured =
        format!("inference_token_file = {tokens:?}\n[restrict]\n\"metadata\" = \"key:v\"\n");
    write(folder.path(), &secured);
    let changed = ["column_reply", "inference_token_file", "max_body", "max_waiting", "restrict"];
    assert_eq!(reload(&running).await.1, json!({"changed": changed, "restart": []}));
    assert_eq!(predict(&running, PREDICT).await.0, 401);
    let request = running.client.get(running.url("/v2")).bearer_auth("user");
    assert_eq!(answer(request.try_clone().unwrap()).await.0, 403);
    assert_eq!(answer(request.header("key", "v")).await.0, 200);

    write(folder.path(), "");
    assert_eq!(reload(&running).await.0, 200);
    assert_eq!(predict(&running, PREDICT).await.0, 200);
}

#[tokio::test]
async fn a_mistake_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), SMALL);
    let running = serve_by(&config).await;
    for (text, says) in [
        ("max_body = ", vec!["sluice.toml"]),
        ("max_body = \"large\"\n", vec!["sluice.toml: line 1: max_body: \"large\" is no size"]),
        (
            "max_body = 1000\nmax_bdy = 1\nnan = 3\n",
            vec!["line 2: unknown key \"max_bdy\"; is \"max_body\" meant?", "line 3: nan: invalid"],
        ),
        ("max_body = 1000\nnan = \"zero\"\n", vec!["zero"]),
        // Or the port would be open from now on.
        ("max_body = 1000\nadmin_token = \"t\"\n", vec!["is \"admin_token_file\" meant?"]),
        (
            "max_body = 1000\nrequest_timeout = \"0s\"\nadmin_token_file = \"/gone\"\n\
             tls_key = \"/gone\"\nrestrict = {x = \"a:b\"}\n",
            vec![
                "--request-timeout must be longer",
                "--admin-token-file /gone: No such file",
                "--tls-key asks for --tls-certificate",
                "\"x\" is no group",
            ],
        ),
    ] {
        write(folder.path(), text);
        let (status, body) = reload(&running).await;
        assert_eq!(status, 400, "{body}");
        let complaints = body["complaints"].as_array().unwrap();
        for says in &says {
            let has = |text: &Value| text.as_str().unwrap().contains(says);
            assert!(complaints.iter().any(has), "{says}: {body}");
        }
        assert!(body["error"].as_str().unwrap().starts_with("settings are left as they were"));
        let large = predict(&running, LARGE).await;
        assert_eq!(large.0, 413, "{large:?}");
        assert_eq!(predict(&running, PREDICT).await.0, 200);
    }
    std::fs::remove_file(&config).unwrap();
    assert_eq!(reload(&running).await.0, 400);
    write(folder.path(), "max_body = 1000\n");
    assert_eq!(reload(&running).await.1, json!({"changed": ["max_body"], "restart": []}));
}

#[tokio::test]
async fn where_protocols_differ_the_other_choice_is_made_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let running = serve_by(&config).await;
    let ask =
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, NaN]}]}"#;
    let status = async || running.post("/v2/models/m/infer", ask).await.0;
    assert_eq!(status().await, 400);
    write(folder.path(), "nan = \"words\"\n");
    assert_eq!(reload(&running).await, (200, json!({"changed": ["nan"], "restart": []})));
    assert_eq!(status().await, 200);
}

/// A header whose name is reserved shows which pattern is in force.
#[tokio::test]
async fn other_headers_are_forwarded_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let running = serve_by(&config).await;
    let status = async || {
        let request = running.client.post(running.url("/v1/models/m:predict")).body(PREDICT);
        answer(request.header("triton_x", "1")).await.0
    };
    assert_eq!(status().await, 200);
    write(folder.path(), "http_header_forward_pattern = \"^triton\"\n");
    let changed = json!({"changed": ["http_header_forward_pattern"], "restart": []});
    assert_eq!(reload(&running).await, (200, changed.clone()));
    assert_eq!(status().await, 400);
    write(folder.path(), "http_header_forward_pattern = \"(\"\n");
    let (refused, answered) = reload(&running).await;
    assert_eq!(refused, 400);
    assert!(answered["error"].as_str().unwrap().contains("is no regular expression"), "{answered}");
    assert_eq!(status().await, 400, "the old one stays");
    write(folder.path(), "");
    assert_eq!(reload(&running).await, (200, changed));
    assert_eq!(status().await, 200);
}

/// Load and unload are answered on the serving ports from then on, until they no longer are.
#[tokio::test]
async fn exposure_changes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let running = serve_by(&config).await;
    let unload = async || running.post("/v2/repository/models/m/unload", "").await.0;
    let told = json!({"changed": ["serve_control"], "restart": []});
    assert_eq!(unload().await, 403);
    write(folder.path(), "serve_control = [\"model-repository\"]\n");
    assert_eq!(reload(&running).await, (200, told.clone()));
    // Answered now: the folder is polled, so it may not.
    assert_eq!(unload().await, 503);
    write(folder.path(), "");
    assert_eq!(reload(&running).await, (200, told));
    assert_eq!(unload().await, 403);
}

#[tokio::test]
async fn a_misspelt_key_opens_no_door() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "operator\n").unwrap();
    let config = write(folder.path(), &format!("admin_token_file = {tokens:?}\n"));
    let running = serve_by(&config).await;
    write(folder.path(), &format!("admin_tokens_file = {tokens:?}\n"));
    let request = running.client.post(running.admin("/reload")).bearer_auth("operator");
    let (status, body) = answer(request).await;
    let complaint = body["complaints"][0].as_str().unwrap_or_default();
    assert_eq!(status, 400, "{body}");
    assert!(complaint.contains("is \"admin_token_file\" meant?"), "{body}");
    assert_eq!(answer(running.client.post(running.admin("/drain"))).await.0, 401);
}

/// What is in force goes on to be followed.
#[tokio::test]
async fn a_certificate_changes_while_its_end_waits_for_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let (certificate, key) = first.sign(Usage::Server).write(folder.path());
    let secured = format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\n");
    let config = write(folder.path(), &secured);
    let running = serve_by(&config).await;
    let (http, admin) = (running.addresses.http, running.addresses.admin);
    let before = TlsClient::new(&[&first], None);
    write(folder.path(), "");
    let told = before.ask(admin, "POST /reload", "").await.unwrap();
    let restart = json!({"changed": [], "restart": ["tls_certificate", "tls_key"]});
    assert_eq!((told.0, crate::certificates::json(&told.1)), (200, restart));
    assert_eq!(before.get(http, "/v2/health/live").await.0, 200);
    second.sign(Usage::Server).write(folder.path());
    let after = TlsClient::new(&[&second], None);
    let takes = async || after.connect(http, &[]).await.is_ok();
    wait_until("the second certificate", takes).await;
    // And with the settings back, all is as it was.
    write(folder.path(), &secured);
    let told = after.ask(admin, "POST /reload", "").await.unwrap();
    let nothing = json!({"changed": [], "restart": []});
    assert_eq!((told.0, crate::certificates::json(&told.1)), (200, nothing));
}

/// Ports that spoke plainly go on to.
#[tokio::test]
async fn tls_is_turned_on_by_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let running = serve_by(&config).await;
    let signed = Authority::new().sign(Usage::Server);
    let (certificate, key) = signed.write(folder.path());
    write(folder.path(), &format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\n"));
    let restart = ["tls_certificate", "tls_key"];
    for _ in 0..2 {
        let told = json!({"changed": [], "restart": restart});
        assert_eq!(reload(&running).await, (200, told));
        assert_eq!(predict(&running, PREDICT).await.0, 200);
    }
}

fn hang_up(process: u32) {
    let process = process.to_string();
    assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
}

#[tokio::test]
async fn sighup_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let flag = format!("--config={}", config.display());
    let process = Process::start(&[("m", 1, "scale.onnx")], &[&flag]).await;
    let status = async || process.post("/v1/models/m:predict", LARGE).await.0;
    assert_eq!(status().await, 400);
    write(folder.path(), SMALL);
    hang_up(process.id());
    wait_until("the reload", async || status().await == 413).await;
    process.end_without_an_error().await;
}

/// A process that nothing tells how to log but its settings file.
struct Logging {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Logging {
    fn start(folder: &Path, config: &Path) -> Self {
        Self::administered_at("127.0.0.1:0", folder, config)
    }

    fn administered_at(admin: &str, folder: &Path, config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"))
            .args(["--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin", admin])
            .args(["--model-repository".as_ref(), folder, "--config".as_ref(), config])
            .env_remove("SLUICE_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (say, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _test_may_be_over = say.send(line);
            }
        });
        Self { child, lines }
    }

    /// Whether a line with `text` comes within `patience`.
    fn says(&self, text: &str, patience: Duration) -> bool {
        self.line(text, patience).is_some()
    }

    fn line(&self, text: &str, patience: Duration) -> Option<String> {
        while let Ok(line) = self.lines.recv_timeout(patience) {
            if line.contains(text) {
                return Some(line);
            }
        }
        None
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_ended = self.child.wait();
    }
}

#[test]
fn the_file_says_how_much_to_log() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "");
    let process = Logging::start(folder.path(), &config);
    let (long, short) = (Duration::from_secs(30), Duration::from_secs(2));
    assert!(process.says("serving", long));
    hang_up(process.child.id());
    assert!(process.says("settings reloaded", long));
    write(folder.path(), "log = \"error\"\n");
    hang_up(process.child.id());
    assert!(!process.says("settings reloaded", short));
    write(folder.path(), "log = \"x=y=z\"\n");
    hang_up(process.child.id());
    assert!(process.says("settings are left as they were", long));
    write(folder.path(), "log = \"info\"\n");
    hang_up(process.child.id());
    assert!(process.says("settings reloaded", long));
}

/// Also when it is a reload that opens it.
#[test]
fn an_open_administration_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "good\n").unwrap();
    let config = write(folder.path(), &format!("admin_token_file = {tokens:?}\n"));
    let process = Logging::administered_at("0.0.0.0:0", folder.path(), &config);
    let (long, open) = (Duration::from_secs(30), "the admin port is open to everybody");
    let until_serving = process.line("serving", long);
    assert!(until_serving.is_some());
    write(folder.path(), "");
    hang_up(process.child.id());
    assert!(process.says(open, long));
    assert!(process.says("settings reloaded", long));
    hang_up(process.child.id());
    assert!(process.says(open, long));
}

#[test]
fn a_broken_token_file_is_told_once_and_without_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "good\n").unwrap();
    let config = write(folder.path(), &format!("inference_token_file = {tokens:?}\n"));
    let process = Logging::start(folder.path(), &config);
    assert!(process.says("serving", Duration::from_secs(30)));
    std::fs::write(&tokens, "two words\n").unwrap();
    let line = process.line("files have changed and are not used", Duration::from_secs(30));
    let line = line.unwrap();
    assert!(line.contains("line 1 is no bearer token") && !line.contains("two words"), "{line}");
    assert!(!process.says("files have changed", Duration::from_secs(5)));
    std::fs::write(&tokens, "better\n").unwrap();
    assert!(process.says("files have changed and are in force", Duration::from_secs(30)));
}
