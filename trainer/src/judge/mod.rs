//! Whether a candidate is good enough: measured on rows that it never saw, against forecasts
//! that cost nothing and against the version in production, with error bars that respect time.

mod compare;
mod measures;
mod verdict;

pub use compare::{Comparison, compare};
pub use measures::Measures;
pub use verdict::{Judgement, Production, Rival, Verdict, judge};
