//! Which event loop the workers run on.

use std::future::Future;
use std::io;
use std::thread;
use std::time::Duration;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::limit;
use crate::config::model::IoDriver;
use crate::worker::Ticker;

/// From the fastest to the one that always works. Measured on a one-core proxy, CPU per request:
/// plain ring 1, cooperative 0.90, deferred 0.84.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// `io_uring`, single issuer, deferred task running (Linux 6.1).
    Deferred,
    /// `io_uring`, single issuer, cooperative task running (Linux 6.0).
    Cooperative,
    /// `io_uring` without flags.
    Plain,
    /// `epoll`.
    Epoll,
}

/// Submission queue entries; more or fewer made no difference that could be measured.
const RING_ENTRIES: u32 = 1024;

/// What a driver that is tried out has to wait for.
const TRIAL_TICK: Duration = Duration::from_millis(1);

impl Driver {
    /// The best that runs here, found by running it.
    pub(super) fn choose(wanted: IoDriver) -> io::Result<Self> {
        if wanted == IoDriver::Epoll {
            return Ok(Self::Epoll);
        }
        let rings = [Self::Deferred, Self::Cooperative, Self::Plain];
        let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
        for driver in rings {
            match driver.try_out() {
                Ok(()) => return Ok(driver),
                Err(error) if limit::is_descriptors(&error) => return Err(error),
                Err(error) => refusal = error,
            }
        }
        if wanted == IoDriver::IoUring {
            let problem = format!("server.io_driver is \"io_uring\", which the kernel refuses: {refusal}");
            return Err(io::Error::new(refusal.kind(), problem));
        }
        tracing::warn!(error = %refusal, "io_uring is refused here (a seccomp profile?): running on epoll");
        Ok(Self::Epoll)
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Deferred => "io_uring_deferred",
            Self::Cooperative => "io_uring_cooperative",
            Self::Plain => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// Runs a future on a new event loop of the current thread.
    pub(super) fn block_on<F: Future>(self, future: F) -> io::Result<F::Output> {
        let mut ring = io_uring::IoUring::builder();
        match self {
            Self::Deferred => ring.setup_single_issuer().setup_defer_taskrun(),
            Self::Cooperative => ring.setup_single_issuer().setup_coop_taskrun(),
            Self::Plain => &mut ring,
            Self::Epoll => {
                let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build()?;
                return Ok(runtime.block_on(future));
            }
        };
        let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).uring_builder(ring);
        let mut runtime = builder.build()?;
        Ok(runtime.block_on(future))
    }

    /// On a thread of its own: a single-issuer ring belongs to the thread that made it.
    fn try_out(self) -> io::Result<()> {
        let trial = thread::spawn(move || {
            self.block_on(async {
                let ticker = Ticker::new()?;
                ticker.start(TRIAL_TICK, TRIAL_TICK)?;
                ticker.tick().await
            })?
        });
        trial.join().unwrap_or_else(|_| Err(io::Error::other("the driver panicked")))
    }
}

/// The driver that `io_driver = "auto"` means here, as the metric names it.
#[must_use]
pub fn available() -> &'static str {
    Driver::choose(IoDriver::Auto).map_or("none", Driver::label)
}
