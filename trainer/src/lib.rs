//! From data to a validated, trained, judged and registered model version.
//!
//! [`pipeline`] reads the pipeline file and goes through the stages: build the training frame
//! with the gateway's own expressions, validate it, train ([`learner`]), export ([`export`]),
//! check that the graph computes what the learner does ([`parity`]), judge the candidate
//! against baselines and the version in production ([`judge`]), put the package together
//! ([`package`]) and register it. The trainer and the gateway meet only in that package.

pub mod error;
pub mod export;
pub mod judge;
pub mod learner;
pub mod package;
pub mod parity;
pub mod pipeline;
mod profile;

pub use profile::reference_profile;
