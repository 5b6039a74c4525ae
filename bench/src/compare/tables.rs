//! A comparison for people: tables as text, Markdown and HTML, and plots.

use std::fmt;
use std::path::Path;

use super::comparison::{Cell, Comparison, Figures, Spread};
use crate::error::BenchError;
use crate::page::Page;
use crate::plot::{Axis, Curve, latencies};
use crate::question::Protocol;
use crate::report::write_whole;

const COLUMNS: [&str; 9] = [
    "server",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "CPU us",
    "MB",
    "Sluice's rate",
    "Sluice's CPU",
    "failed",
];

const EXPLANATION: &str = "Medians over the rounds; `Sluice's rate` is Sluice's requests a second as a multiple of that server's, `Sluice's CPU` its processor time a request as a share of theirs (of the floor's: how much more), both taken within each round, with the smallest and the largest of them.";

impl Comparison {
    /// What the figures depend on.
    fn conditions(&self) -> String {
        format!(
            "{}, {} row{} a question, closed loop, {} rounds of {:?} each by turns, on {}",
            self.model,
            self.rows,
            if self.rows == 1 { "" } else { "s" },
            self.rounds,
            self.duration,
            self.machine
        )
    }

    fn row(&self, cell: &Cell) -> Vec<String> {
        let millis = |spread: Option<Spread>| number(spread.map(|s| s.median * 1e3), 3);
        let rate = self.against(cell, |own, theirs| own.ok_per_second / theirs.ok_per_second);
        let cpu = if cell.is_floor() {
            let more: fn(&Figures, &Figures) -> f64 =
                |own, theirs| own.cpu_per_request - theirs.cpu_per_request;
            spread(self.against(cell, more), "+", " us", 1)
        } else {
            let share: fn(&Figures, &Figures) -> f64 =
                |own, theirs| own.cpu_per_request / theirs.cpu_per_request;
            spread(self.against(cell, share), "", "x", 2)
        };
        let against = |text: String| if cell.is_sluice() { String::new() } else { text };
        vec![
            cell.server.clone(),
            number(cell.spread(|f| f.ok_per_second).map(|s| s.median), 0),
            millis(cell.spread(|f| f.p50.as_secs_f64())),
            millis(cell.spread(|f| f.p99.as_secs_f64())),
            number(cell.spread(|f| f.cpu_per_request).map(|s| s.median), 1),
            number(cell.spread(|f| f.memory as f64 / 1e6).map(|s| s.median), 0),
            against(spread(rate, "", "x", 2)),
            against(cpu),
            cell.rounds.iter().map(|figures| figures.failed).sum::<u64>().to_string(),
        ]
    }

    fn rows(&self, protocol: Protocol, connections: usize) -> Vec<Vec<String>> {
        self.of(protocol, connections).into_iter().map(|cell| self.row(cell)).collect()
    }

    /// The servers, and what is to be said of them.
    fn servers_rows(&self) -> Vec<Vec<String>> {
        let row = |told: &super::Told| {
            let version = told.version.clone().unwrap_or_default();
            let left_out = told.left_out.clone().unwrap_or_default();
            vec![told.name.clone(), told.title.clone(), version, left_out]
        };
        self.servers.iter().map(row).collect()
    }

    /// The tables as Markdown, with the plots that [`write_plots`](Self::write_plots) wrote to
    /// `plots`, a folder relative to the file.
    pub fn to_markdown(&self, plots: Option<&str>) -> String {
        let mut text = format!("{}.\n\n{EXPLANATION}\n\n", self.conditions());
        markdown_table(
            &mut text,
            &["server", "what it is", "version", "left out"],
            &self.servers_rows(),
            4,
        );
        for (protocol, connections) in self.kinds() {
            text.push_str(&format!("\n## {}\n\n", heading(protocol, connections)));
            markdown_table(&mut text, &COLUMNS, &self.rows(protocol, connections), 1);
            if let Some(folder) = plots {
                let name = plot_name(protocol, connections);
                text.push_str(&format!(
                    "\n![{}]({folder}/{name})\n",
                    heading(protocol, connections)
                ));
            }
        }
        text
    }

    /// Writes a plot of the latencies by percentile for every kind of load into `folder`.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn write_plots(&self, folder: &Path) -> Result<(), BenchError> {
        let failed = |reason| BenchError::Write { path: folder.into(), reason };
        std::fs::create_dir_all(folder).map_err(failed)?;
        for (protocol, connections) in self.kinds() {
            let svg = self.plot(protocol, connections)?;
            write_whole(&folder.join(plot_name(protocol, connections)), &svg)?;
        }
        Ok(())
    }

    /// Writes the tables and plots to `path` as a page of HTML.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_html(&self, path: &Path) -> Result<(), BenchError> {
        let mut page = Page::new("Sluice beside other servers");
        page.paragraph(&format!("{}.", self.conditions()));
        page.paragraph(EXPLANATION);
        page.table(&["server", "what it is", "version", "left out"], &self.servers_rows());
        for (protocol, connections) in self.kinds() {
            page.heading(&heading(protocol, connections));
            page.table(&COLUMNS, &self.rows(protocol, connections));
            page.plot(&self.plot(protocol, connections)?);
        }
        write_whole(path, &page.finish())
    }

    /// Writes the figures to `path` as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        write_whole(path, &format!("{:#}\n", self.to_json()))
    }

    fn plot(&self, protocol: Protocol, connections: usize) -> Result<String, BenchError> {
        let curves: Vec<Curve> =
            self.of(protocol, connections).into_iter().map(Cell::curve).collect();
        latencies(&heading(protocol, connections), Axis::Percentile, &curves)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.conditions())?;
        writeln!(f, "{EXPLANATION}")?;
        for told in self.servers.iter().filter(|told| told.left_out.is_some()) {
            writeln!(f, "{} is left out: {}", told.name, told.left_out.as_deref().unwrap_or(""))?;
        }
        for (protocol, connections) in self.kinds() {
            writeln!(f, "\n{}", heading(protocol, connections))?;
            let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
            rows.extend(self.rows(protocol, connections));
            for row in &rows {
                for (column, cell) in row.iter().enumerate() {
                    let width = rows.iter().map(|row| row[column].chars().count()).max();
                    let width = width.unwrap_or(0);
                    if column == 0 {
                        write!(f, "{cell:<width$}")
                    } else {
                        write!(f, "  {cell:>width$}")
                    }?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

fn heading(protocol: Protocol, connections: usize) -> String {
    let protocol = match protocol {
        Protocol::V1 => "V1 over HTTP",
        Protocol::V2 => "V2 over HTTP, JSON",
        Protocol::V2Binary => "V2 over HTTP, binary tensors",
        Protocol::Grpc => "V2 over gRPC",
    };
    format!("{protocol}, {connections} connection{}", if connections == 1 { "" } else { "s" })
}

fn plot_name(protocol: Protocol, connections: usize) -> String {
    format!("{protocol}-{connections}.svg")
}

/// The columns from `figures` on hold figures, which stand right.
fn markdown_table(text: &mut String, head: &[&str], rows: &[Vec<String>], figures: usize) {
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    text.push_str(&line(&mut head.iter().copied()));
    let ruler = |index: usize| if index < figures { "---" } else { "---:" };
    text.push_str(&line(&mut (0..head.len()).map(ruler)));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

fn spread(spread: Option<Spread>, before: &str, after: &str, digits: usize) -> String {
    let text = |Spread { median, min, max }| {
        format!("{before}{median:.digits$}{after} ({min:.digits$}..{max:.digits$})")
    };
    spread.map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::comparison::tests::comparison;

    #[test]
    fn tables_hold_a_row_a_server_and_what_was_left_out() {
        let text = comparison().to_string();
        assert!(text.contains("gone is left out: it has no command"), "{text}");
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let peer: Vec<String> = row("peer").split_whitespace().map(str::to_owned).collect();
        assert_eq!(peer[..5], ["peer", "250", "0.100", "0.900", "160.0"]);
        assert_eq!(peer[6..10], ["4.00x", "(4.00..4.00)", "0.25x", "(0.25..0.25)"]);
        assert!(row("floor").contains("+20.0 us (10.0..30.0)"), "{text}");
    }

    #[test]
    fn markdown_and_pages_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let comparison = comparison();
        comparison.write_plots(&folder.path().join("plots")).unwrap();
        assert!(folder.path().join("plots/v2-16.svg").exists());
        let text = comparison.to_markdown(Some("plots"));
        assert!(text.contains("## V2 over HTTP, JSON, 16 connections"), "{text}");
        assert!(text.contains("(plots/v2-16.svg)") && text.contains("| sluice | 1000 |"), "{text}");
        let page = folder.path().join("page.html");
        comparison.write_html(&page).unwrap();
        let html = std::fs::read_to_string(page).unwrap();
        assert!(html.contains("<svg") && html.contains("<td>peer</td>"), "{html}");
    }
}
