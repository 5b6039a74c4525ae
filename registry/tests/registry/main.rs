//! Server and client together over the loopback: one server per test, in a folder of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod crash;
mod feed;
mod files;
mod harness;
mod journey;
mod storage;
mod wire;
