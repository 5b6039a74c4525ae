//! The whole system: real processes, real ports, real clients, the demo's real sales.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod clients;
mod crash;
mod definitions;
mod demo;
mod following;
mod lean;
mod refusal;
mod registry_away;
mod same_answer;
mod skew;
mod support;
mod tls;
