//! Server and client together over the loopback: one server per test, in a folder of its own.

mod crash;
mod feed;
mod files;
mod harness;
mod journey;
mod storage;
mod wire;
