//! Servers that run for as long as they are compared.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Uri;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::{NamedTempFile, TempDir};

use crate::error::BenchError;
use crate::options::{Question, Transport};
use crate::process::ProcessTree;
use crate::question::{Protocol, once};

/// How long a server may take to be ready: Python ones import for many seconds.
const READY_IN: Duration = Duration::from_secs(120);
/// How long one may take to end before it is killed.
const ENDS_IN: Duration = Duration::from_secs(10);

/// A started server. Dropping it ends it with all of its processes.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) process: ProcessTree,
    http: SocketAddr,
    grpc: SocketAddr,
    /// What it said.
    words: NamedTempFile,
    /// Where it leaves its own files.
    _scratch: TempDir,
}

impl Server {
    /// Starts `program` in `folder` with what `arguments` makes of the ports for HTTP and gRPC,
    /// and waits until it answers `ready` with 2xx. What fails is told as text.
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        arguments: impl FnOnce(SocketAddr, SocketAddr) -> Vec<OsString>,
        ready: &str,
    ) -> Result<Self, String> {
        let [http, grpc] = free_addresses().map_err(|error| format!("find free ports: {error}"))?;
        let words = NamedTempFile::new().map_err(|error| format!("make a file: {error}"))?;
        let scratch = tempfile::tempdir().map_err(|error| format!("make a folder: {error}"))?;
        let output = || words.reopen().map(Stdio::from).map_err(|error| error.to_string());
        let child = Command::new(program)
            .args(arguments(http, grpc))
            .current_dir(folder)
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            // So that it can be ended with all that it starts, and a terminal's Ctrl-C is ours.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let process = ProcessTree::new(child.id()).map_err(|error| error.to_string())?;
        let mut server = Self { child, process, http, grpc, words, _scratch: scratch };
        server.wait_until_ready(ready)?;
        Ok(server)
    }

    /// The root of its URLs.
    pub(super) fn url(&self, protocol: Protocol) -> Result<Uri, BenchError> {
        let address = if protocol == Protocol::Grpc { self.grpc } else { self.http };
        let url = format!("http://{address}/");
        url.parse().map_err(|error| BenchError::Options(format!("{url}: {error}")))
    }

    fn wait_until_ready(&mut self, path: &str) -> Result<(), String> {
        let url = format!("http://{}{path}", self.http).parse::<Uri>();
        let url = url.map_err(|error| error.to_string())?;
        let until = Instant::now() + READY_IN;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended ({status}): {}", self.last_words()));
            }
            let answer = once(Question::new(url.clone()), Transport::Http1, false);
            if let Ok(Ok(answer)) = answer
                && answer.status.is_success()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("it was not ready in {READY_IN:?}: {}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let said = std::fs::read(self.words.path()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let tell = |signal| group.map(|group| kill_process_group(group, signal));
        tell(Signal::TERM);
        let until = Instant::now() + ENDS_IN;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // What is left of the group goes too.
        tell(Signal::KILL);
        let _it_was_killed = self.child.wait();
    }
}

/// Addresses on loopback that nobody listens at.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both are held until both are known.
    let (first, second) = (listen()?, listen()?);
    Ok([first.local_addr()?, second.local_addr()?])
}
