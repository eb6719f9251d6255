//! Regular wake-ups, from a timer of the kernel's that is waited for as a socket is.
//!
//! The runtime has timers of its own, but with them each turn of its loop looks at the clock twice, at its
//! wheel, and has the kernel arm a timer for the wait; and on epoll none of them fires while any task can
//! run. Without them a call costs 0.95 of the CPU with one connection, 0.97 with 32, 1.00 with 256. What waits
//! beside the ticks waits for one of them: [`super::core::Core::rest`].

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;
use std::time::Duration;

use monoio::net::UnixStream;
use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Wakes one task at a time.
pub(crate) struct Ticker {
    timer: TimerFd,
    readiness: UnixStream,
}

impl Ticker {
    /// One that stands still.
    pub(crate) fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // The runtime waits for readiness of whatever it is given as a stream.
        let readiness = UnixStream::from_std(net::UnixStream::from(timer.as_fd().try_clone_to_owned()?))?;
        Ok(Self { timer, readiness })
    }

    /// Lets it tick from now on, `first` after a while of its own. No while at all would stop it.
    pub(crate) fn start(&self, first: Duration, interval: Duration) -> io::Result<()> {
        Ok(self.timer.set(Expiration::IntervalDelayed(first.into(), interval.into()), TimerSetTimeFlags::empty())?)
    }

    /// Waits until it ticks. Ticks that nobody waited for count as one.
    pub(crate) async fn tick(&self) -> io::Result<()> {
        loop {
            self.readiness.readable(false).await?;
            match self.timer.wait() {
                Err(Errno::EAGAIN) => {}
                done => return Ok(done?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::clock;

    #[test]
    fn ticks_that_nobody_waited_for_count_as_one() {
        const INTERVAL: Duration = Duration::from_millis(20);
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().expect("a runtime");
        runtime.block_on(async {
            let ticker = Ticker::new().expect("a timer");
            let began = clock::now();
            ticker.start(INTERVAL, INTERVAL).expect("to start it");
            while clock::now().duration_since(began) < 5 * INTERVAL {
                std::thread::park_timeout(INTERVAL);
            }
            for _ in 0..3 {
                ticker.tick().await.expect("a tick");
            }
            // The first stands for the four that had come at least, so that the third is the sixth or a later one.
            assert!(clock::now().duration_since(began) >= 6 * INTERVAL);
        });
    }
}
