//! Waiting for a moment, to some microseconds. The runtime's own timers count in milliseconds,
//! which would add up to one to every latency.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
pub(crate) use kernel::Alarm;
#[cfg(not(target_os = "linux"))]
pub(crate) use runtime::Alarm;

/// A timer of the kernel that the runtime's own poll waits for: no thread, no spinning.
#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Instant, io};

    #[derive(Debug)]
    pub(crate) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// An alarm on the current runtime. Fails when there are no file descriptors left.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that may swap their descriptor; an OwnedFd that is only borrowed cannot"
        )]
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self(AsyncFd::new(timer)?))
        }

        /// Waits for `moment`; at once when it has passed.
        pub(crate) async fn until(&self, moment: Instant) -> io::Result<()> {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let value = left.try_into().map_err(io::Error::other)?;
            let once =
                Itimerspec { it_interval: rustix::time::Timespec::default(), it_value: value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = self.0.readable().await?;
                let expired = ready.try_io(|timer| {
                    rustix::io::read(timer.get_ref(), &mut [0; 8]).map_err(io::Error::from)
                });
                // A readiness left over from an alarm that was not waited for is not an expiry.
                if let Ok(read) = expired {
                    return read.map(drop);
                }
            }
        }
    }
}

/// Millisecond timers, where the kernel offers no better ones.
#[cfg(not(target_os = "linux"))]
mod runtime {
    use super::{Instant, io};

    #[derive(Debug)]
    pub(crate) struct Alarm;

    impl Alarm {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn until(&self, moment: Instant) -> io::Result<()> {
            tokio::time::sleep_until(moment.into()).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Alarm;

    #[tokio::test]
    async fn it_rings_on_time_and_again_after_being_left() {
        let alarm = Alarm::new().unwrap();
        // It is looked at once, and left.
        tokio::select! {
            biased;
            _ = alarm.until(Instant::now() + Duration::from_millis(200)) => panic!("it rang at once"),
            () = std::future::ready(()) => {}
        }
        // The first alarm goes off meanwhile, and must not end the second one early.
        std::thread::sleep(Duration::from_millis(250));
        for millis in [20, 1, 0, 7] {
            let moment = Instant::now() + Duration::from_millis(millis);
            alarm.until(moment).await.unwrap();
            assert!(Instant::now() >= moment, "{millis}");
            assert!(moment.elapsed() < Duration::from_millis(500), "{millis}");
        }
    }
}
