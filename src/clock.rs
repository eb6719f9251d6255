//! The only reader of the clocks in the data plane, so that leaves take `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall clock, as time since the Unix epoch; zero if the clock stands before it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A worker's coarse time: ticks of [`TICK`] since the worker started.
///
/// Deadlines are kept in ticks, so that arming one is a store and not a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

/// Length of one tick: the granularity of every deadline.
pub const TICK: Duration = Duration::from_millis(TICK_MILLIS);

/// As a plain number: arithmetic on durations divides 128-bit integers.
const TICK_MILLIS: u64 = 100;

impl Tick {
    /// A tick that is never reached: no deadline.
    pub const NEVER: Self = Self(u32::MAX);

    /// The first tick at which at least `wait` has passed, counted from `self`.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        // One tick more: the current one has partly passed already.
        let millis = wait.as_secs().saturating_mul(1000).saturating_add(wait.subsec_nanos().div_ceil(1_000_000).into());
        let ticks = millis.div_ceil(TICK_MILLIS).saturating_add(1);
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        assert_eq!(Tick(7).after(Duration::ZERO), Tick(8));
        assert_eq!(Tick(7).after(Duration::from_millis(1)), Tick(9));
        assert_eq!(Tick(7).after(Duration::from_millis(100)), Tick(9));
        assert_eq!(Tick(7).after(Duration::from_millis(101)), Tick(10));
        assert_eq!(Tick(7).after(Duration::MAX), Tick::NEVER);
    }
}
