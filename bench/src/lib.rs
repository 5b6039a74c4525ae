//! HTTP and gRPC load. Requests leave at a rate, whether or not earlier ones have been answered, as those
//! of independent callers do; or in a closed loop, each when the one before is answered.
//!
//! The journey: [`LoadOptions`] are checked and the target resolved (`target`); [`Load`] starts
//! a thread with a runtime of its own, which opens the connections and gives each a worker.
//! A worker takes the next request of the schedule (`schedule`), waits for its intended time
//! (`alarm`), sends it (`connection`), judges the answer (`check`) and records it (`record`).
//! Latency counts from the *intended* time (which in a closed loop is that of the sending), so a
//! server that stalls is charged for every request that should have been sent meanwhile. [`Report`] sums up, by phase and in total.
//!
//! It talks to a server over the wire only, and never to this project's other crates.

mod alarm;
mod check;
#[cfg(target_os = "linux")]
mod compare;
mod connection;
mod error;
mod floor;
mod latency;
mod load;
mod options;
mod pace;
mod page;
mod plot;
mod process;
mod question;
mod record;
mod report;
mod schedule;
mod target;
mod values;
mod worker;

pub use check::{Check, Failure};
#[cfg(target_os = "linux")]
pub use compare::{
    Cell, CompareOptions, Comparison, Figures, Machine, Peer, Peers, Spread, Told, compare,
};
pub use error::BenchError;
pub use floor::{Echo, EchoAddresses, RunCost, run_costs};
pub use latency::Latency;
pub use load::Load;
pub use options::{LoadOptions, Question, Transport};
pub use pace::{Arrivals, Pace, Stage};
pub use plot::{Axis, Curve, latencies};
pub use process::{ProcessTree, Usage};
pub use question::{Asked, ModelRuns, Protocol, ask_models, model_runs};
pub use report::{FailureCount, OfferedLoad, PhaseReport, Report, ServerCost};
pub use values::Choice;
