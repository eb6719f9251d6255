//! Signals as events of the control loop: `HUP` reloads; `TERM` and `INT` drain, a second one ends at once;
//! `USR2` hands over to a new process.
//!
//! The handlers only write a byte each (signal-hook's self-pipe), so nothing runs in signal context
//! and any thread may be the one interrupted.

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;
use tracing::error;

use super::bell::Bell;
use super::{Control, handover, reload};

/// The signals of this process, caught from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    reload: UnixStream,
    stop: UnixStream,
    hand_over: UnixStream,
}

impl Signals {
    /// Installs the handlers. For `main` only: they hold for the whole process.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self { reload: caught(&[SIGHUP])?, stop: caught(&[SIGTERM, SIGINT])?, hand_over: caught(&[SIGUSR2])? })
    }
}

/// A stream on which each of the signals puts a byte.
fn caught(signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, theirs.try_clone()?)?;
    }
    Ok(ours)
}

/// Acts on signals until the loop ends.
pub(super) fn watch(control: &Rc<Control>, signals: Signals) -> io::Result<()> {
    control.tasks.spawn(reload_on(Rc::clone(control), Bell::new(signals.reload)?));
    control.tasks.spawn(stop_on(Rc::clone(control), Bell::new(signals.stop)?));
    control.tasks.spawn(hand_over_on(Rc::clone(control), Bell::new(signals.hand_over)?));
    Ok(())
}

async fn reload_on(control: Rc<Control>, mut bell: Bell) {
    // Signals that come during a reload ring once more afterwards, and the file is read again.
    while report(bell.rung().await).is_some() {
        reload::run(&control).await;
    }
}

async fn hand_over_on(control: Rc<Control>, mut bell: Bell) {
    // Signals that come during a hand-over are joined into one, which finds a drain if it succeeded.
    while report(bell.rung().await).is_some() {
        handover::run(&control).await;
    }
}

async fn stop_on(control: Rc<Control>, mut bell: Bell) {
    while let Some(rings) = report(bell.rung().await) {
        for _ in 0..rings {
            control.handle.stop();
        }
    }
}

fn report(rung: io::Result<usize>) -> Option<usize> {
    rung.inspect_err(|error| error!(%error, "signals can no longer be received")).ok()
}
