//! A report as files.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::text::COLUMNS;
use super::{OfferedLoad, PhaseReport, Report};
use crate::error::BenchError;
use crate::latency::Latency;
use crate::page::Page;
use crate::plot::{Axis, Curve, latencies};

impl Report {
    /// Writes the JSON to `path`, whole or not at all.
    pub fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        write_whole(path, &format!("{:#}\n", self.to_json()))
    }

    /// Writes the table and plots of the latencies to `path` as a page of HTML, whole or not at
    /// all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_html(&self, path: &Path) -> Result<(), BenchError> {
        let OfferedLoad { url, pace, connections, timeout } = &self.offered;
        let mut page = Page::new(&format!("Load on {url}"));
        page.paragraph(&format!("{pace} over {connections} connections, timeout {timeout:?}; latency in ms from the intended send time."));
        let total = (self.phases.len() != 1).then_some(&self.total);
        let rows = self.phases.iter().chain(&self.questions).chain(total);
        page.table(&COLUMNS, &rows.map(PhaseReport::cells).collect::<Vec<_>>());
        self.notes().iter().for_each(|note| page.paragraph(note));
        if !self.curves.is_empty() {
            page.plot(&latencies("Latency by percentile", Axis::Percentile, &self.curves)?);
        }
        let by_load = self.by_load();
        if by_load.iter().any(|curve| curve.points.len() > 1) {
            page.plot(&latencies("Latency by load", Axis::Rate, &by_load)?);
        }
        write_whole(path, &page.finish())
    }

    /// Writes the total's latencies to `path` as HdrHistogram's percentile text (`.hgrm`), in
    /// milliseconds, whole or not at all.
    pub fn write_histogram(&self, path: &Path) -> Result<(), BenchError> {
        write_whole(path, &self.histogram.to_text())
    }

    /// Latencies by the rate of good answers, where there are phases of several rates.
    fn by_load(&self) -> Vec<Curve> {
        let curve = |name: &str, of: fn(&Latency) -> Duration| {
            let answered = self.phases.iter().filter(|phase| phase.ok > 0);
            let point =
                |phase: &PhaseReport| (phase.ok_per_second, of(&phase.latency).as_secs_f64() * 1e3);
            let mut points: Vec<_> = answered.map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Curve { name: name.to_owned(), points }
        };
        vec![
            curve("p50", |latency| latency.p50),
            curve("p99", |latency| latency.p99),
            curve("p99.9", |latency| latency.p999),
        ]
    }
}

/// Writes beside `path` and renames, so that nobody ever reads half a file.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), BenchError> {
    let failed = |reason| BenchError::Write { path: path.into(), reason };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default; a report is to be read by others.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
