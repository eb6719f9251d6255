//! One line that says what runs and how long is left.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub struct Progress {
    begun: Instant,
    /// What the steps up to now, and all steps, were expected to take.
    expected: Duration,
    estimate: Duration,
    terminal: bool,
}

impl Progress {
    pub fn new(estimate: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress { begun: Instant::now(), expected: Duration::ZERO, estimate, terminal }
    }

    /// Begins a step that should take `time`. Without a terminal only steps that are `worth_a_line` are told.
    pub fn step(&mut self, label: &str, time: Duration, worth_a_line: bool) {
        let left = left(self.begun.elapsed(), self.expected, self.estimate).as_secs();
        self.expected += time;
        let line = format!("{label}; {}:{:02} left", left / 60, left % 60);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else if worth_a_line {
            eprintln!("{line}");
        }
    }

    /// A step more than was planned.
    pub fn repeat(&mut self, time: Duration) {
        self.expected += time;
        self.estimate += time;
    }

    pub fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// The rest of the estimate, stretched as much as the steps up to now were.
fn left(elapsed: Duration, expected: Duration, estimate: Duration) -> Duration {
    let stretch = if expected.is_zero() { 1.0 } else { elapsed.as_secs_f64() / expected.as_secs_f64() };
    estimate.saturating_sub(expected).mul_f64(stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_than_expected_takes_longer() {
        let s = Duration::from_secs;
        assert_eq!(left(s(0), s(0), s(100)), s(100));
        assert_eq!(left(s(20), s(10), s(100)), s(180));
        assert_eq!(left(s(200), s(110), s(100)), s(0));
    }
}
