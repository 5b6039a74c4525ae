//! Runs a target on one input and measures what memory it takes.

use std::sync::Once;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use sluice_gateway::fuzzing::{BODY_LIMIT, TARGETS};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a single name, text or object may take before it is counted.
const UNCOUNTED: usize = 64 << 10;
/// A model configuration is at most this part of a body: 1 MiB where bodies have 64.
const CONFIGURATION: usize = 64;

/// Runs the target `name`. It may take twice the body limit of memory, beside the input.
pub fn run(name: &str, input: &[u8]) {
    if input.len() > BODY_LIMIT {
        return;
    }
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    // What is made once a process belongs to no input.
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| target(&Bytes::from_static(b"{}")));
    let input = Bytes::copy_from_slice(input);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    target(&input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = match name {
        "config_pbtxt" => 2 * BODY_LIMIT * CONFIGURATION,
        _ => 2 * BODY_LIMIT + UNCOUNTED,
    };
    assert!(
        taken <= allowed,
        "{name} took {taken} bytes of memory for {} bytes, {allowed} are allowed",
        input.len()
    );
}
