//! The CPU time of the calling thread, as Linux accounts it.

use std::time::Duration;

/// User and system time of this thread so far; none where the kernel does not tell.
pub(super) fn of_this_thread() -> Option<Duration> {
    // The first number is the time on a CPU in nanoseconds (kernel: Documentation/scheduler/sched-stats).
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
