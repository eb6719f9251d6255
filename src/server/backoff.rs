//! When a worker that ended may be started again: at once, but not at once again and again.

use std::time::{Duration, Instant};

/// Between the second and the third start in a row; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// However often it has ended.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Who ran for so long is not one that cannot be started.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// One worker's starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The last start, or attempt at one.
    last: Instant,
    /// Starts in a row that did not last.
    in_a_row: u32,
}

impl Backoff {
    /// Started for the first time.
    pub(super) fn started(now: Instant) -> Self {
        Self { last: now, in_a_row: 0 }
    }

    /// Whether a worker that has ended may be started.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.last);
        if since >= SOUND_AFTER {
            self.in_a_row = 0;
        }
        since >= self.wait()
    }

    /// It was started, or could not be.
    pub(super) fn has_started(&mut self, now: Instant) {
        self.last = now;
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    fn wait(self) -> Duration {
        match self.in_a_row {
            0 => Duration::ZERO,
            times => FIRST_WAIT.saturating_mul(1 << (times - 1).min(16)).min(WAIT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_longer_and_longer() {
        let mut now = clock::now();
        let mut backoff = Backoff::started(now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let ended = now;
            while !backoff.may_start(now) {
                now += Duration::from_millis(500);
            }
            waits.push((now - ended).as_secs());
            backoff.has_started(now);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn one_that_ran_long_is_started_at_once_again() {
        let mut now = clock::now();
        let mut backoff = Backoff::started(now);
        for _ in 0..20 {
            backoff.has_started(now);
        }
        now += SOUND_AFTER;
        assert!(backoff.may_start(now));
        backoff.has_started(now);
        assert!(!backoff.may_start(now));
        assert!(backoff.may_start(now + FIRST_WAIT));
    }
}
