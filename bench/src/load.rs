//! A running load: a thread with a runtime of its own, so that it measures the same from inside
//! a busy asynchronous program as from a plain one.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::connection::Connection;
use crate::error::BenchError;
use crate::options::{LoadOptions, Template};
use crate::process::{ProcessTree, Usage};
use crate::record::Recorder;
use crate::report::{OfferedLoad, Report};
use crate::schedule::Schedule;
use crate::target::Target;
use crate::worker::{Run, work};

/// A load that is running or has run. Dropping it ends the sending without a report.
#[derive(Debug)]
pub struct Load {
    run: Arc<Run>,
    offered: OfferedLoad,
    /// The server, and what it had taken at the start.
    server: Option<(ProcessTree, Usage)>,
    done: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Opens the connections and starts sending. Returns once the first request is due: this
    /// blocks for as long as opening takes, at most the timeout, and while a host name is
    /// looked up.
    ///
    /// # Errors
    /// Options that make no sense, a target on another machine without leave, or one that
    /// accepts no connection.
    pub fn start(options: LoadOptions) -> Result<Self, BenchError> {
        options.check_values()?;
        // All are of one server.
        let first = &options.questions[0].url;
        let target = Target::resolve(first, options.allow_remote)?;
        let urls: Vec<String> =
            options.questions.iter().map(|question| question.url.to_string()).collect();
        let offered = OfferedLoad {
            url: urls.join(", "),
            pace: options.pace.clone(),
            connections: options.connections,
            timeout: options.timeout,
        };
        let server = options.server;
        let (started, starts) = mpsc::sync_channel(1);
        let (alive, done) = watch::channel(());
        let generate = move || {
            match prepare(options, &target) {
                Ok((runtime, run, workers)) => {
                    drop(started.send(Ok(run)));
                    runtime.block_on(workers.join_all());
                }
                Err(error) => drop(started.send(Err(error))),
            }
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("load".into());
        let thread = thread.spawn(generate).map_err(BenchError::Start)?;
        let ended = |_| BenchError::Start(std::io::Error::other("the load thread ended"));
        let run = starts.recv().map_err(ended)??;
        let server = server.map(|server| (server, server.usage()));
        Ok(Self { run, offered, server, done, thread: Some(thread) })
    }

    /// Starts a new phase: requests that are due from now on are reported under `name`.
    pub fn phase(&self, name: impl Into<String>) {
        // The time is taken under the lock, so phases are in order of their starts.
        let mut recorder = self.run.recorder();
        recorder.phase(name.into(), Instant::now());
    }

    /// What has been counted so far; requests under way are not in it.
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let end = self.run.end.borrow().map_or(now, |end| end.min(now));
        // Cloned, so that sending goes on while the figures are computed.
        let recorder = self.run.recorder().clone();
        let report = Report::new(self.offered.clone(), &recorder, end);
        match &self.server {
            Some((server, before)) => report.with_server(*before, server.usage()),
            None => report,
        }
    }

    /// Waits until the duration has passed and every request that was due has been answered or
    /// given up. Without a duration this waits for ever. Safe to cancel, on any runtime.
    pub async fn finished(&mut self) {
        // Nothing is ever sent: the channel closes when the thread is done.
        while self.done.changed().await.is_ok() {}
    }

    /// Whether [`finished`](Self::finished) would return at once.
    pub fn is_finished(&self) -> bool {
        self.done.has_changed().is_err()
    }

    /// Ends the sending (if the duration has not) and waits for the requests that were due: up
    /// to twice the timeout if the server has stopped answering.
    pub async fn stop(mut self) -> Report {
        self.run.end_now();
        self.finished().await;
        self.report()
    }

    /// [`stop`](Self::stop) for callers outside a runtime: blocks the thread.
    pub fn stop_blocking(mut self) -> Report {
        self.run.end_now();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; what was counted before it is whole.
            drop(thread.join());
        }
        self.report()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.run.end_now();
    }
}

/// Opens the connections, sets the start to the moment when they are open, and gives each a
/// worker, which runs once the runtime does.
fn prepare(
    options: LoadOptions,
    target: &Target,
) -> Result<(Runtime, Arc<Run>, JoinSet<()>), BenchError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(BenchError::Start)?;
    let connections = runtime.block_on(open(&options, target))?;
    let start = Instant::now();
    let total = total(&options);
    let end = total.and_then(|total| start.checked_add(total));
    let names = options.questions.iter().map(|question| question.name.clone());
    let names = names.collect::<Vec<_>>().into_iter();
    let run = Arc::new(Run {
        schedule: Schedule::new(start, &options.pace, options.duration),
        timeout: options.timeout,
        check: options.check,
        end: watch::Sender::new(end),
        recorder: Mutex::new(recorder(&options, start).with_questions(names)),
        template: Template::new(options, target),
    });
    let mut workers = JoinSet::new();
    {
        let _inside = runtime.enter();
        for connection in connections {
            let alarm = Alarm::new().map_err(BenchError::Start)?;
            workers.spawn(work(Arc::clone(&run), connection, alarm));
        }
    }
    Ok((runtime, run, workers))
}

/// How long all of it lasts.
fn total(options: &LoadOptions) -> Option<Duration> {
    let stages = u32::try_from(options.pace.stages().len()).unwrap_or(u32::MAX).max(1);
    options.duration.map(|duration| duration.saturating_mul(stages))
}

/// One phase, or one for each of several rates.
fn recorder(options: &LoadOptions, start: Instant) -> Recorder {
    let stages = options.pace.stages();
    let (Some(duration), [first, rest @ ..]) = (options.duration, stages) else {
        return Recorder::new(options.phase.clone(), start);
    };
    if rest.is_empty() {
        return Recorder::new(options.phase.clone(), start);
    }
    let mut recorder = Recorder::new(first.to_string(), start);
    let mut begins = start;
    for stage in rest {
        begins += duration;
        recorder.phase(stage.to_string(), begins);
    }
    recorder
}

/// Opens all connections at once. Some may fail: their workers try again when a request is due.
async fn open(options: &LoadOptions, target: &Target) -> Result<Vec<Connection>, BenchError> {
    let mut opening = JoinSet::new();
    for _ in 0..options.connections {
        let mut connection = Connection::new(target.addresses.as_slice().into(), options.transport);
        let timeout = options.timeout;
        opening.spawn(async move {
            let opened = tokio::time::timeout(timeout, connection.connect()).await;
            (connection, opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())))
        });
    }
    let (mut connections, mut reason) = (Vec::new(), None);
    let mut any = false;
    for (connection, opened) in opening.join_all().await {
        any |= opened.is_ok();
        reason = reason.or(opened.err());
        connections.push(connection);
    }
    match reason {
        Some(reason) if !any => {
            let target = target.host_header.to_str().unwrap_or_default().into();
            Err(BenchError::Connect { target, reason: reason.to_string() })
        }
        _ => Ok(connections),
    }
}
