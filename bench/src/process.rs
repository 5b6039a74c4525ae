//! What a server takes of the machine: processor time and memory of a process and of all that it
//! started, out of /proc.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::BenchError;

/// Ticks a second in which the kernel tells processor time to programs (USER_HZ), on every
/// architecture that Linux has for servers.
const TICKS: u64 = 100;

/// A process and all that descends from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessTree {
    root: u32,
}

/// What a [`ProcessTree`] has taken so far, or takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Processor time, user's and system's, in steps of 10 ms. That of processes that have ended is
    /// in it where their parents have waited for them.
    #[serde(rename = "cpu_s", serialize_with = "as_seconds")]
    pub cpu: Duration,
    /// Memory in bytes; what processes share is divided among them, where the kernel tells.
    pub memory: u64,
    /// The most that each process had, in bytes, added up.
    pub peak_memory: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets, of processes of the same user.
    pub descriptors: u64,
    /// Processes.
    pub processes: u64,
}

impl ProcessTree {
    /// Of the process `root`.
    ///
    /// # Errors
    /// There is no such process, or no /proc to ask.
    pub fn new(root: u32) -> Result<Self, BenchError> {
        let tree = Self { root };
        match stat(root) {
            Some(_) => Ok(tree),
            None => Err(BenchError::Options(format!("process {root} is not there"))),
        }
    }

    /// What it takes. All is zero once the process has ended.
    pub fn usage(&self) -> Usage {
        let all: HashMap<u32, Stat> = pids().filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let mut usage = Usage::default();
        for pid in self.members(&all) {
            let Some(stat) = all.get(&pid) else { continue };
            usage.cpu += Duration::from_millis(stat.ticks.saturating_mul(1000 / TICKS));
            usage.threads += stat.threads;
            usage.processes += 1;
            let status = read(pid, "status").unwrap_or_default();
            let resident = field(&status, "VmRSS:").unwrap_or(0);
            let shared_out = read(pid, "smaps_rollup").and_then(|text| field(&text, "Pss:"));
            usage.memory += shared_out.unwrap_or(resident);
            usage.peak_memory += field(&status, "VmHWM:").unwrap_or(0);
            let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
            usage.descriptors += files.map_or(0, |files| files.count() as u64);
        }
        usage
    }

    /// The root and its descendants.
    fn members(&self, all: &HashMap<u32, Stat>) -> HashSet<u32> {
        let mut members = HashSet::from([self.root]);
        loop {
            let before = members.len();
            let children = all.iter().filter(|(_, stat)| members.contains(&stat.parent));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            members.extend(children);
            if members.len() == before {
                return members;
            }
        }
    }
}

/// What /proc/PID/stat says.
struct Stat {
    parent: u32,
    /// User's and system's, its own and that of children that it has waited for.
    ticks: u64,
    threads: u64,
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// None of a process that is not there (any more).
fn stat(pid: u32) -> Option<Stat> {
    let text = read(pid, "stat")?;
    // The name stands in brackets and may hold anything, brackets and spaces too.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // proc(5) counts from 1, and these begin with the third.
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks, threads: number(17)? })
}

fn read(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// A field in kB, as bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::ProcessTree;

    #[test]
    fn what_a_process_and_its_children_take_is_counted() {
        let own = ProcessTree::new(std::process::id()).unwrap();
        let before = own.usage();
        // Two processes: a shell, and what it waits for, which ends with its input.
        let mut shell =
            Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().unwrap();
        let tree = ProcessTree::new(shell.id()).unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while tree.usage().processes < 2 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        let usage = tree.usage();
        assert!(usage.processes >= 2 && usage.threads >= usage.processes, "{usage:?}");
        assert!(usage.memory > 100_000 && usage.peak_memory > 100_000, "{usage:?}");
        assert!(usage.descriptors >= 3, "{usage:?}");
        // They are this process's children, too.
        assert!(own.usage().processes >= before.processes + 2, "{before:?}");
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(tree.usage().processes, 0);
    }

    #[test]
    fn processor_time_is_that_of_work() {
        let own = ProcessTree::new(std::process::id()).unwrap();
        let (before, started) = (own.usage().cpu, Instant::now());
        // Tests run beside this one and work as well, so that it can only be more.
        while own.usage().cpu < before + Duration::from_millis(50) {
            assert!(started.elapsed() < Duration::from_secs(60), "no work is counted");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = ProcessTree::new(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("4294967295 is not there"), "{error}");
    }
}
