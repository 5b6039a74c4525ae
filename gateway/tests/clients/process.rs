//! `sluice-gateway` as a process, over a repository of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::repository;

/// Everything that is closed by default, opened on the serving ports.
const OPENED: &[&str] = &[
    "--model-control=explicit",
    "--serve-control=model-repository,logging,shared-memory,trace",
    "--shared-memory",
    "--grpc-compress-replies",
    // Nobody listens there, which no client may notice.
    "--trace-otlp=http://127.0.0.1:1",
    "--http-header-forward-pattern=^x-|^sequence_id$",
    "--grpc-header-forward-pattern=^x-|^sequence_id$",
];

/// Every name that metrics have, for all to see.
const MEASURED: [&str; 2] = ["--serve-metrics", "--metric-names=sluice,triton,kserve"];

/// What changes no answer but its place and its packing.
const TRANSPORT: [&str; 2] = ["--base-path=/serving/here", "--compress-replies=1024"];

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway and its folder.
pub(crate) struct Gateway {
    child: Child,
    log: Option<JoinHandle<Vec<String>>>,
    _folder: tempfile::TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Gateway {
    /// One as it starts when nobody says anything.
    pub(crate) fn with_defaults() -> Self {
        let folder = tempfile::tempdir().unwrap();
        repository::write(folder.path(), false);
        Self::start(folder, &[])
    }

    /// One that answers inference only to those who bring a header.
    pub(crate) fn restricted() -> Self {
        let folder = tempfile::tempdir().unwrap();
        repository::write(folder.path(), false);
        Self::start(folder, &["--restrict=inference=word:open".to_owned()])
    }

    /// One that serves below a path too, compresses large answers where that is asked for, and
    /// tells its metrics.
    pub(crate) fn behind_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        repository::write(folder.path(), false);
        let flags = TRANSPORT.iter().chain(&MEASURED).map(|&flag| flag.to_owned());
        Self::start(folder, &flags.collect::<Vec<_>>())
    }

    /// One that lets its callers control it: models, log, shared memory, traces.
    pub(crate) fn opened() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let models = repository::write(folder.path(), true);
        let models = models.into_iter().map(|name| format!("--load-model={name}"));
        let flags = OPENED.iter().chain(&TRANSPORT).map(|&flag| flag.to_owned());
        Self::start(folder, &flags.chain(models).collect::<Vec<_>>())
    }

    fn start(folder: tempfile::TempDir, flags: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"))
            .args(["--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=127.0.0.1:0"])
            .args(["--cores=2", "--log=info,ort=off", "--log-format=json", "--model-repository"])
            .arg(folder.path())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (say, said) = mpsc::channel();
        let log = std::thread::spawn(move || {
            let lines = errors.lines().map_while(Result::ok);
            let lines = lines.inspect(|line| {
                if let Some(addresses) = addresses(line) {
                    let _nobody_waits = say.send(addresses);
                }
            });
            lines.collect::<Vec<_>>()
        });
        let Ok((http, grpc)) = said.recv_timeout(PATIENCE) else {
            let _has_ended = child.kill();
            panic!("the gateway did not start:\n{}", log.join().unwrap().join("\n"));
        };
        let gateway = Self { child, log: Some(log), _folder: folder, http, grpc };
        wait_until("ready", || is_ready(http));
        gateway
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends the process and looks at what it has logged: no error, and no panic.
    pub(crate) fn end_without_an_error(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        wait_until("the process's end", || !self.is_running());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        for line in self.log.take().unwrap().join().unwrap() {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            assert!(entry["level"].is_string() && entry["level"] != "ERROR", "{line}");
        }
    }
}

impl Drop for Gateway {
    /// Nothing is left of a test that failed.
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_ended = self.child.wait();
    }
}

/// Where the gateway listens, if it says so in this line.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let address = |what: &str| entry[what].as_str()?.parse().ok();
    Some((address("http")?, address("grpc")?))
}

fn is_ready(http: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(http)?;
        stream
            .write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer: String| answer.starts_with("HTTP/1.1 200 "))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: did not come about in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
