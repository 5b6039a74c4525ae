//! Work beside serving: on a thread that serving goes before.

use std::io;
use std::panic::resume_unwind;

/// How nice such a thread is. Requests leave it what they do not use, and about a hundredth of a
/// core besides, so that it comes to an end.
const NICE: i32 = 19;

/// Does `work` on a thread of its own that has the lowest priority, and waits for it. A thread that
/// it starts would have that priority for good, and so would this one if it did the work itself.
pub(crate) fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let lowered = || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "loading has the priority of serving");
            }
            work()
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn_scoped(scope, lowered)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::{NICE, run};

    #[test]
    fn only_what_is_done_there_is_nice() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert_eq!(run("load", nice).unwrap(), NICE);
        assert_eq!(nice(), before);
        let after = std::thread::spawn(nice).join().unwrap();
        assert_eq!(after, before);
    }
}
