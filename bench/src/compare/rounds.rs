//! The measuring: every server by turns, at every number of connections, over every protocol.

use std::sync::atomic::{AtomicBool, Ordering};

use super::CompareOptions;
use super::comparison::{Cell, Figures};
use super::contender::{Contender, Contenders, Questions};
use crate::error::BenchError;
use crate::load::Load;
use crate::options::LoadOptions;
use crate::pace::Pace;
use crate::question::Protocol;
use crate::report::Report;

/// Drives everybody in every round. A server that fails is left out of that cell's round.
pub(super) fn drive(
    options: &CompareOptions,
    contenders: &Contenders,
    questions: &Questions,
    say: &mut dyn FnMut(&str),
    stop: &AtomicBool,
) -> Vec<Cell> {
    let mut cells = Vec::new();
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        for (protocol, asked) in questions {
            for &connections in &options.connections {
                // Another one begins each time.
                let count = contenders.up.len();
                let turns = (0..count).map(|turn| &contenders.up[(turn + round) % count]);
                for contender in turns.filter(|one| one.protocols.contains(protocol)) {
                    if stop.load(Ordering::Relaxed) {
                        return cells;
                    }
                    match measure(options, contender, *protocol, connections, asked) {
                        Ok(report) => {
                            note(&mut cells, contender, *protocol, connections, round, &report)
                        }
                        Err(error) => say(&format!("{}: {error}", contender.name)),
                    }
                }
            }
        }
    }
    cells
}

fn measure(
    options: &CompareOptions,
    contender: &Contender,
    protocol: Protocol,
    connections: usize,
    asked: &LoadOptions,
) -> Result<Report, BenchError> {
    let load = LoadOptions {
        pace: Pace::Closed,
        connections,
        server: Some(contender.server.process),
        ..contender.asked(protocol, asked)?
    };
    run(LoadOptions { duration: Some(options.duration / 5), ..load.clone() })?;
    run(LoadOptions { duration: Some(options.duration), ..load })
}

fn run(options: LoadOptions) -> Result<Report, BenchError> {
    let mut load = Load::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::Start)?;
    runtime.block_on(load.finished());
    Ok(load.stop_blocking())
}

fn note(
    cells: &mut Vec<Cell>,
    contender: &Contender,
    protocol: Protocol,
    connections: usize,
    round: usize,
    report: &Report,
) {
    let name = &contender.name;
    let same = |cell: &Cell| {
        cell.server == *name && cell.protocol == protocol && cell.connections == connections
    };
    let index = cells.iter().position(same).unwrap_or_else(|| {
        cells.push(Cell::new(name.clone(), protocol, connections));
        cells.len() - 1
    });
    let total = &report.total;
    let server = report.server.as_ref();
    cells[index].add(
        Figures {
            round,
            ok_per_second: total.ok_per_second,
            cpu_per_request: server.and_then(|server| server.cpu_per_request).unwrap_or(f64::NAN),
            p50: total.latency.p50,
            p99: total.latency.p99,
            failed: total.failed,
            memory: server.map_or(0, |server| server.usage.memory),
        },
        report.histogram(),
    );
}
