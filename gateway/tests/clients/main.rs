//! The real clients of Triton and KServe, unmodified, against `sluice-gateway` as it runs. Each
//! suite under tests/python/clients is a program of its own, since the clients' generated
//! messages cannot be loaded side by side; it tells how many cases it ran, and none may fail or
//! be left out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod process;
mod repository;
mod suite;

use process::Gateway;

#[test]
fn tritonclient_over_http() {
    suite::passes("tritonclient_http", Gateway::opened());
}

#[test]
fn tritonclient_over_http_with_asyncio() {
    suite::passes("tritonclient_http_aio", Gateway::opened());
}

#[test]
fn tritonclient_over_grpc() {
    suite::passes("tritonclient_grpc", Gateway::opened());
}

#[test]
fn tritonclient_over_grpc_with_asyncio() {
    suite::passes("tritonclient_grpc_aio", Gateway::opened());
}

#[test]
fn tritonclient_against_what_is_closed_by_default() {
    suite::passes("closed_by_default", Gateway::with_defaults());
}

#[test]
fn tritonclient_against_what_wants_a_header() {
    suite::passes("restricted", Gateway::restricted());
}

#[test]
fn grpcio_with_generated_messages() {
    suite::passes("grpc_messages", Gateway::opened());
}

#[test]
fn kserve_clients() {
    suite::passes("kserve_clients", Gateway::behind_a_path());
}

#[test]
fn curl() {
    suite::passes("curl", Gateway::behind_a_path());
}

/// 64 clients at once; `SLUICE_DISTINCT_ROWS_SECONDS` says for how long, per protocol.
#[test]
fn each_client_gets_its_own_rows_back() {
    suite::passes("distinct_rows", Gateway::with_defaults());
}
