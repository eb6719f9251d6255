//! Waiting on the control loop for what another thread sends.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::clock;

/// Between two looks. Answers take microseconds to milliseconds and are awaited a few times a minute:
/// looking again is simpler than a descriptor per answer, and costs nothing while nobody waits.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The next value, or `None` once the deadline has passed or the last sender has gone.
pub(super) async fn next<T>(receiver: &Receiver<T>, deadline: Instant) -> Option<T> {
    loop {
        match receiver.try_recv() {
            Ok(value) => return Some(value),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if clock::now() >= deadline => return None,
            Err(TryRecvError::Empty) => monoio::time::sleep(LOOK_AGAIN).await,
        }
    }
}
