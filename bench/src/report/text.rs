//! A report as text: a table, and what it does not say.

use std::fmt;
use std::time::Duration;

use super::{FailureCount, OfferedLoad, PhaseReport, Report, ServerCost};
use crate::latency::Latency;
use crate::process::Usage;
use crate::question::ModelRuns;

impl Report {
    /// What the table does not say.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.total.notes();
        for runs in &self.models {
            let ModelRuns { model, rows, runs: count } = runs;
            if let Some(mean) = runs.mean_batch() {
                notes.push(format!("{model}: {rows} rows in {count} runs, {mean:.1} a run"));
            }
        }
        notes.extend(self.server.iter().map(ServerCost::to_string));
        notes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OfferedLoad { url, pace, connections, timeout } = &self.offered;
        writeln!(f, "{url}: {pace} over {connections} connections, timeout {timeout:?}")?;
        writeln!(f, "latency in ms from the intended send time")?;
        writeln!(f)?;
        // A name as long as a sentence would push the figures off the screen.
        let total = (self.phases.len() != 1).then_some(&self.total);
        let rows = self.phases.iter().chain(&self.questions).chain(total);
        let names = rows.clone().map(|phase| phase.name.chars().count());
        let width = names.max().unwrap_or(0).clamp(5, 32);
        write_row(f, width, &COLUMNS.map(str::to_owned))?;
        for phase in rows {
            write_row(f, width, &phase.cells())?;
        }
        writeln!(f)?;
        self.notes().iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// What the table tells of a phase.
pub(super) const COLUMNS: [&str; 13] = [
    "phase", "requests", "ok", "failed", "unsent", "ok/s", "p50", "p90", "p95", "p99", "p99.9",
    "max", "mean",
];

fn write_row(f: &mut fmt::Formatter<'_>, width: usize, cells: &[String]) -> fmt::Result {
    for (column, cell) in cells.iter().enumerate() {
        match column {
            0 => write!(f, "{cell:<width$}"),
            1 | 2 | 5 => write!(f, " {cell:>9}"),
            3 | 4 => write!(f, " {cell:>7}"),
            _ => write!(f, " {cell:>8}"),
        }?;
    }
    writeln!(f)
}

impl PhaseReport {
    /// Its row of the table.
    pub(super) fn cells(&self) -> Vec<String> {
        let Self { name, requests, ok, failed, unsent, ok_per_second, .. } = self;
        let mut cells = vec![name.clone()];
        cells.extend([requests, ok, failed, unsent].map(ToString::to_string));
        cells.push(format!("{ok_per_second:.1}"));
        let Latency { p50, p90, p95, p99, p999, max, mean, .. } = self.latency;
        cells.extend([p50, p90, p95, p99, p999, max, mean].map(in_millis));
        cells
    }

    fn notes(&self) -> Vec<String> {
        let Latency { p99, max, .. } = self.wait;
        let (p99, max) = (in_millis(p99), in_millis(max));
        let mut notes = vec![
            format!("waited to be sent: p99 {p99} ms, longest {max} ms"),
            format!(
                "bodies: {} bytes sent, {} received; {} reconnects",
                self.bytes_sent, self.bytes_received, self.reconnects
            ),
        ];
        for (failure, FailureCount { count, example }) in &self.failures {
            notes.push(format!("failed, {failure}: {count} (the first: {example})"));
        }
        notes
    }
}

fn in_millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    let decimals = if millis < 100.0 { 3 } else { 1 };
    format!("{millis:.decimals$}")
}

impl fmt::Display for ServerCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { memory, peak_memory, threads, descriptors, processes, .. } = self.usage;
        if processes == 0 {
            return f.write_str("server: its process has ended");
        }
        let [memory, peak] = [memory, peak_memory].map(|bytes| bytes as f64 / 1e6);
        let cost = self.cpu_per_request.unwrap_or_default();
        write!(
            f,
            "server: {cost:.1} us of processor time a request; {memory:.1} MB, at most {peak:.1}; {processes} process{}, {threads} threads, {descriptors} descriptors",
            if processes == 1 { "" } else { "es" }
        )
    }
}
