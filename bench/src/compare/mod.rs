//! Sluice, the floor and other servers under the same load on the same machine, by turns.
//!
//! All servers are up at once and none is asked while another is ([`contender`]). Bodies are made
//! once, from what Sluice says of the model, and are the same for all; before anything is measured
//! every server must have given Sluice's answer to one of them ([`answers`]). Then each of some
//! rounds drives every server once at every number of connections over every protocol, beginning
//! with another server each time, so that what else the machine does falls on all of them
//! ([`rounds`]). What counts are ratios within a round, of which the median and the spread are
//! told ([`comparison`]). A server that cannot be started or answers something else is reported
//! and left out.

mod answers;
mod comparison;
mod contender;
mod peers;
mod rounds;
mod server;
mod tables;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use comparison::{Cell, Comparison, Figures, Machine, Spread, Told};
pub use peers::{Peer, Peers};

use crate::error::BenchError;
use crate::question::Protocol;
use contender::Contenders;
use rounds::drive;

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The graph.
    pub model: PathBuf,
    /// The program whose `serve` and `bench echo` are Sluice and the floor.
    pub sluice: PathBuf,
    /// The servers to compare with.
    pub peers: Peers,
    /// How the model is asked.
    pub protocols: Vec<Protocol>,
    /// Numbers of connections, each of which asks again as soon as it has its answer.
    pub connections: Vec<usize>,
    /// How often every server is driven.
    pub rounds: usize,
    /// How long each time, after a warm-up of a fifth of it.
    pub duration: Duration,
    /// Rows of a question.
    pub rows: usize,
}

/// Compares, which takes the rounds' time and that of starting every server. Progress goes to
/// `say`; once `stop` is set what has been measured so far is the result.
///
/// # Errors
/// Sluice or the floor cannot be started, the model cannot be read or asked, or there was no time
/// to measure anything.
pub fn compare(
    options: &CompareOptions,
    say: &mut dyn FnMut(&str),
    stop: &AtomicBool,
) -> Result<Comparison, BenchError> {
    options.check()?;
    let mut contenders = Contenders::start(options, say, stop)?;
    let questions = contenders.questions(options)?;
    contenders.check_answers(&questions, say);
    let cells = drive(options, &contenders, &questions, say, stop);
    if cells.iter().all(|cell| cell.rounds.is_empty()) {
        return Err(BenchError::Options("stopped before anything was measured".to_owned()));
    }
    Ok(Comparison::new(options, contenders.told(), cells))
}

impl CompareOptions {
    fn check(&self) -> Result<(), BenchError> {
        let complaint = if self.protocols.is_empty() || self.connections.is_empty() {
            "there is no protocol, or no number of connections"
        } else if self.rounds == 0 {
            "rounds must be at least 1"
        } else if self.duration < Duration::from_millis(100) {
            "duration must be at least 100 ms, or processor time cannot be told"
        } else {
            return Ok(());
        };
        Err(BenchError::Options(complaint.to_owned()))
    }
}
