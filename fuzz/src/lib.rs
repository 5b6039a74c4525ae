//! Runs a target on one input and measures what it takes.

use std::sync::Once;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use sluice_gateway::fuzzing::TARGETS;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The longest input in bytes: what a request's body may have here.
pub const BODY_LIMIT: usize = 64 << 10;

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
    assert!(
        taken <= 2 * BODY_LIMIT,
        "{name} took {taken} bytes of memory for {} bytes, {} are allowed",
        input.len(),
        2 * BODY_LIMIT
    );
}
