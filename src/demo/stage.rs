//! A line a stage: what it was, how long it took, what came of it.

use std::time::Instant;

use crate::output::print;

pub(super) struct Stages {
    began: Instant,
}

impl Stages {
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Ends a stage and begins the next one.
    pub(super) fn done(&mut self, name: &str, outcome: &str) {
        let took = self.began.elapsed().as_secs_f64();
        // A reader that has gone away must not end the demo in the middle.
        let _reader_may_be_gone = print(&format!("{name:<9} {took:>6.2} s  {outcome}\n"));
        self.began = Instant::now();
    }
}
