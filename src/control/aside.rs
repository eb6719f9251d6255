//! Work that may take long, on a thread of its own.
//!
//! Reading and compiling the configuration of thousands of backends takes tenths of a second. The control
//! loop goes on meanwhile, and where all CPUs are busy the workers go first: for a large fleet the thread
//! has the lowest priority there is. A priority once given up cannot be taken back without privileges, and
//! the control thread starts workers, which would inherit it: hence a thread for each piece of work.

use std::io;
use std::panic;
use std::thread;

use crossbeam_channel::{TryRecvError, bounded};
use rustix::process::setpriority_process;
use tracing::warn;

use super::wait::LOOK_AGAIN;

/// The niceness of lowest priority: against a thread that is always busy it gets about 1.5 % of a CPU
/// (sched(7)).
const NICENESS: i32 = 19;

/// Up to so many backends the work takes some 10 ms: less than it would wait for its turn.
const SMALL_FLEET: usize = 500;

/// What `work` on the configuration of so many backends returns; it panics if `work` does.
///
/// # Errors
/// When there is no thread to be had; `work` is dropped then.
pub(super) async fn aside<T: Send + 'static>(
    backends: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, done) = bounded(1);
    let run = move || {
        // Linux keeps a niceness for each thread; no process means the calling one.
        if backends > SMALL_FLEET
            && let Err(error) = setpriority_process(None, NICENESS)
        {
            warn!(%error, "work aside runs at full priority");
        }
        let _ = sender.send(work());
    };
    let thread = thread::Builder::new().name("ringway-aside".into()).spawn(run)?;
    loop {
        match done.try_recv() {
            Ok(result) => return Ok(result),
            Err(TryRecvError::Empty) => monoio::time::sleep(LOOK_AGAIN).await,
            Err(TryRecvError::Disconnected) => {
                panic::resume_unwind(thread.join().expect_err("it sends before it ends"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use monoio::{LegacyDriver, RuntimeBuilder};
    use rustix::process::getpriority_process;

    use super::*;

    fn run<T: Send + 'static>(backends: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
        runtime.expect("an epoll descriptor").block_on(aside(backends, work)).expect("a thread")
    }

    #[test]
    fn work_on_a_large_fleet_stands_back_and_who_waits_does_not() {
        let niceness = || getpriority_process(None).expect("a niceness");
        let before = niceness();
        assert_eq!([run(500, niceness), run(501, niceness), niceness()], [before, NICENESS, before]);
    }

    #[test]
    #[should_panic(expected = "the work's own panic")]
    fn a_panic_of_the_work_is_one_of_who_waits() {
        run(1, || panic!("the work's own panic"));
    }
}
