//! From a pipeline file to a judged, registered version, stage by stage.
//!
//! Nothing that anybody else sees changes before the last two stages: a version appears in the
//! registry whole, and its alias moves last. A run that is killed before leaves all as it was.

mod file;
mod frame;
mod output;
mod register;
mod report;
mod run;
mod sources;
#[cfg(test)]
mod tests;

pub use file::{Baseline, Data, Judge, Pipeline, Split, Validation, WhenIncomparable};
pub use frame::{Example, Examples, Part, write_csv};
pub use report::RunReport;
pub use run::{RunOptions, Stage, Step, run, validate};
