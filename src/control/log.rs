//! The log: JSON lines on stderr, plain text where stderr is a terminal; level from `RUST_LOG`.

use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Lines that wait for a slow stderr. More are lost, and counted: a log that nobody reads must not
/// stop a worker.
const LINES_MAX: usize = 8192;

/// Writes out what is left when dropped: to be kept until the end of `main`.
#[derive(Debug)]
pub struct Log {
    _writer: WorkerGuard,
    lost: LostLines,
}

/// Counts lines that were lost.
#[derive(Clone, Debug)]
pub struct LostLines(ErrorCounter);

/// Starts the log of this process; a second start in one process has no effect.
#[must_use]
pub fn init() -> Log {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("ringway-log")
        .finish(stderr());
    let lost = LostLines(writer.error_counter());
    let level = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(level).with_writer(writer);
    // An error means that a log exists already, for instance that of a program around us.
    let _ = if stderr().is_terminal() {
        log.with_target(false).try_init()
    } else {
        log.json().flatten_event(true).with_ansi(false).try_init()
    };
    std::panic::set_hook(Box::new(report_panic));
    Log { _writer: guard, lost }
}

/// A panic is a line of the log like any other; what it ends says so by itself.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let reason = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, reason, "panic");
}

impl Log {
    /// The count of lost lines, for the metric.
    #[must_use]
    pub fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }
}

impl LostLines {
    pub(super) fn count(&self) -> usize {
        self.0.dropped_lines()
    }
}
