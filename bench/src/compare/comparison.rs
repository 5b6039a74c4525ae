//! What a comparison found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sluice_protocol::Format;

use super::CompareOptions;
use super::contender::{FLOOR, SLUICE};
use crate::latency::{Latency, LatencyHistogram};
use crate::plot::Curve;
use crate::question::Protocol;

/// Figures of all servers, and what they depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    format: Format<1>,
    /// Where it ran.
    pub machine: Machine,
    /// The graph's file.
    pub model: String,
    /// Rows of a question.
    pub rows: usize,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// How long every server was driven in each.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// The servers.
    pub servers: Vec<Told>,
    /// What was measured.
    pub cells: Vec<Cell>,
}

/// The machine of a comparison.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of its cores may be used.
    pub cores: usize,
    /// The system.
    pub system: String,
}

/// A server.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// As one asks for it.
    pub name: String,
    /// What it is.
    pub title: String,
    /// What it says its version is.
    pub version: Option<String>,
    /// Why it was left out, wholly or over some protocols.
    pub left_out: Option<String>,
}

/// One server over one protocol at one number of connections.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The server's name.
    pub server: String,
    /// The protocol.
    #[serde(serialize_with = "as_text")]
    pub protocol: Protocol,
    /// Connections.
    pub connections: usize,
    /// A round each.
    pub rounds: Vec<Figures>,
    /// All rounds' latencies.
    #[serde(skip)]
    histogram: LatencyHistogram,
}

/// What one drive gave.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// Which round it was, from 0.
    pub round: usize,
    /// Good answers a second.
    pub ok_per_second: f64,
    /// The server's processor time for an answer, in microseconds.
    #[serde(rename = "cpu_us_per_request")]
    pub cpu_per_request: f64,
    /// Latencies.
    #[serde(rename = "p50_us", serialize_with = "as_micros")]
    pub p50: Duration,
    #[serde(rename = "p99_us", serialize_with = "as_micros")]
    #[expect(missing_docs, reason = "as above")]
    pub p99: Duration,
    /// Requests without a good answer.
    pub failed: u64,
    /// The server's memory, in bytes.
    #[serde(rename = "memory_bytes")]
    pub memory: u64,
}

/// The middle of some rounds' values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of those values that are numbers; none if there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }
}

impl Comparison {
    pub(super) fn new(options: &CompareOptions, servers: Vec<Told>, cells: Vec<Cell>) -> Self {
        let file = options.model.file_name().unwrap_or(options.model.as_os_str());
        Self {
            format: Format::CURRENT,
            machine: Machine::this(),
            model: file.to_string_lossy().into_owned(),
            rows: options.rows,
            rounds: options.rounds,
            duration: options.duration,
            servers,
            cells,
        }
    }

    /// The comparison as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a comparison's keys are text")
    }

    /// The protocols and numbers of connections that were measured, in order.
    pub fn kinds(&self) -> Vec<(Protocol, usize)> {
        let mut kinds = Vec::new();
        for cell in &self.cells {
            if !kinds.contains(&(cell.protocol, cell.connections)) {
                kinds.push((cell.protocol, cell.connections));
            }
        }
        kinds
    }

    /// The cells of one kind, in the servers' order.
    pub fn of(&self, protocol: Protocol, connections: usize) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| cell.protocol == protocol && cell.connections == connections)
            .collect();
        let place = |cell: &&Cell| self.servers.iter().position(|one| one.name == cell.server);
        cells.sort_by_key(place);
        cells
    }

    /// Sluice's figure against another server's, round by round: `of` one and the other.
    pub fn against(&self, other: &Cell, of: fn(&Figures, &Figures) -> f64) -> Option<Spread> {
        let own = self.of(other.protocol, other.connections);
        let own = own.into_iter().find(|cell| cell.server == SLUICE)?;
        let theirs: BTreeMap<usize, &Figures> =
            other.rounds.iter().map(|figures| (figures.round, figures)).collect();
        let both = own.rounds.iter().filter_map(|own| Some((own, *theirs.get(&own.round)?)));
        Spread::of(both.map(|(own, theirs)| of(own, theirs)))
    }
}

impl Cell {
    pub(super) fn new(server: String, protocol: Protocol, connections: usize) -> Self {
        let (rounds, histogram) = (Vec::new(), LatencyHistogram::new());
        Self { server, protocol, connections, rounds, histogram }
    }

    pub(super) fn add(&mut self, figures: Figures, latencies: &LatencyHistogram) {
        self.rounds.push(figures);
        self.histogram.add(latencies);
    }

    /// The spread of a figure over the rounds.
    pub fn spread(&self, of: fn(&Figures) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(of))
    }

    /// Latencies of all rounds.
    pub fn latency(&self) -> Latency {
        self.histogram.latency()
    }

    /// Latencies of all rounds by the share of the requests that took no longer.
    pub fn curve(&self) -> Curve {
        Curve { name: self.server.clone(), points: self.histogram.curve() }
    }

    /// Whether it is of the floor, which serves nothing.
    pub fn is_floor(&self) -> bool {
        self.server == FLOOR
    }

    /// Whether it is of Sluice.
    pub fn is_sluice(&self) -> bool {
        self.server == SLUICE
    }
}

impl Machine {
    /// The one that this runs on, as far as it tells.
    fn this() -> Self {
        let line = |path: &str, key: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.rsplit(": ").next().unwrap_or_default().trim_matches('"').to_owned()
        };
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let name = line("/etc/os-release", "PRETTY_NAME=").replace("PRETTY_NAME=", "");
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!("{}, Linux {}", name.trim_matches('"'), kernel.trim()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, system } = self;
        write!(f, "{cores} cores of {processor}; {system}")
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn as_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e6)
}

fn as_text<S: Serializer>(protocol: &Protocol, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(protocol)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::{Cell, Comparison, Figures, Machine, Spread, Told};
    use crate::latency::LatencyHistogram;
    use crate::question::Protocol;
    use sluice_protocol::Format;

    /// Three rounds of Sluice, the floor and a peer that missed the second round, whose figures
    /// are Sluice's by 1, 2 and 3.
    pub(crate) fn comparison() -> Comparison {
        let told = |name: &str| Told {
            name: name.to_owned(),
            title: format!("Server {name}"),
            version: None,
            left_out: (name == "gone").then(|| "it has no command".to_owned()),
        };
        let cell = |name: &str, factor: f64, rounds: &[usize]| {
            let mut cell = Cell::new(name.to_owned(), Protocol::V2, 16);
            let mut latencies = LatencyHistogram::new();
            (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
            for &round in rounds {
                let scale = f64::from(u32::try_from(round).unwrap() + 1);
                let figures = Figures {
                    round,
                    ok_per_second: 1000.0 / factor,
                    cpu_per_request: 20.0 * factor * scale,
                    p50: Duration::from_micros(100),
                    p99: Duration::from_micros(900),
                    failed: 0,
                    memory: 1 << 20,
                };
                cell.add(figures, &latencies);
            }
            cell
        };
        Comparison {
            format: Format::CURRENT,
            machine: Machine::default(),
            model: "m.onnx".to_owned(),
            rows: 1,
            rounds: 3,
            duration: Duration::from_secs(1),
            servers: ["sluice", "floor", "peer", "gone"].map(told).to_vec(),
            cells: vec![
                cell("peer", 4.0, &[0, 2]),
                cell("sluice", 1.0, &[0, 1, 2]),
                cell("floor", 0.5, &[0, 1, 2]),
            ],
        }
    }

    #[test]
    fn spreads_are_of_what_is_a_number() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        let spread = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(&[4.0, f64::INFINITY, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn figures_are_held_against_those_of_the_same_round() {
        let comparison = comparison();
        assert_eq!(comparison.kinds(), [(Protocol::V2, 16)]);
        let names: Vec<&str> =
            comparison.of(Protocol::V2, 16).iter().map(|cell| cell.server.as_str()).collect();
        assert_eq!(names, ["sluice", "floor", "peer"], "in the servers' order");
        let peer = comparison.of(Protocol::V2, 16)[2];
        let share =
            comparison.against(peer, |own, theirs| own.cpu_per_request / theirs.cpu_per_request);
        assert_eq!(share, Some(Spread { median: 0.25, min: 0.25, max: 0.25 }));
        let floor = comparison.of(Protocol::V2, 16)[1];
        let more =
            comparison.against(floor, |own, theirs| own.cpu_per_request - theirs.cpu_per_request);
        assert_eq!(more, Some(Spread { median: 20.0, min: 10.0, max: 30.0 }));
        assert_eq!(comparison.to_json()["cells"][0]["protocol"], "v2");
    }
}
