//! Messages from the control thread to one worker, and the wake-up that comes with them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{Load, PeerMessage, Undelivered, WorkerStats};
use crate::coalesce::FlightId;

/// Commands waiting for one worker. Control sends a handful per reload or scrape.
const COMMANDS_MAX: usize = 64;

/// Messages of other workers waiting for one. A herd sends one for each worker and question.
const PEER_MESSAGES_MAX: usize = 1024;

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// A new snapshot was published.
    Refresh,
    /// Accept on these sockets too; each is this worker's own `SO_REUSEPORT` member.
    Listen(Vec<(SocketAddr, TcpListener)>),
    /// Stop accepting on these addresses; connections stay.
    Unlisten(Vec<SocketAddr>),
    /// A worker has ended; flights of its successor are numbered from `successor` on.
    PeerEnded {
        /// Its number.
        worker: usize,
        /// The first flight of the one in its place.
        successor: FlightId,
    },
    /// Send a copy of the statistics.
    Stats(Sender<WorkerStats>),
    /// Stop accepting, finish what is in flight, end after at most this long.
    Drain(Duration),
    /// As `Drain`, but another process accepts on the same sockets: what is queued is left to it, and
    /// a connection between two requests is not ended at once, for its client knows nothing yet.
    HandOver(Duration),
}

/// Control's end.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    peers: Sender<PeerMessage>,
    pub(super) load: Arc<Load>,
    wake: Arc<UnixStream>,
    pending: Arc<AtomicBool>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
    peers: Receiver<PeerMessage>,
    /// Becomes readable when commands wait; taken by the worker's runtime.
    pub wake: Option<UnixStream>,
    pending: Arc<AtomicBool>,
}

/// A pair of ends.
///
/// # Errors
/// When the socket pair cannot be made (descriptors exhausted).
pub fn mailbox() -> std::io::Result<(WorkerHandle, Mailbox)> {
    let (commands_in, commands) = bounded(COMMANDS_MAX);
    let (peers_in, peers) = bounded(PEER_MESSAGES_MAX);
    // A socket pair and not an eventfd: monoio can wait for it on both drivers.
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let pending = Arc::new(AtomicBool::new(false));
    Ok((
        WorkerHandle {
            commands: commands_in,
            peers: peers_in,
            load: Arc::default(),
            wake: Arc::new(ours),
            pending: Arc::clone(&pending),
        },
        Mailbox { commands, peers, wake: Some(theirs), pending },
    ))
}

impl WorkerHandle {
    /// Hands over a command and wakes the worker.
    ///
    /// # Errors
    /// The command comes back when the worker has ended or its mailbox is full.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
        })?;
        self.ring();
        Ok(())
    }

    /// The same for a message of another worker.
    ///
    /// # Errors
    /// See [`super::Peers::send`].
    pub fn send_peer(&self, message: PeerMessage) -> Result<(), Undelivered> {
        self.peers.try_send(message).map_err(|refused| match refused {
            TrySendError::Full(message) => Undelivered::Full(message),
            TrySendError::Disconnected(message) => Undelivered::Ended(message),
        })?;
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // A full socket buffer means a wake-up is on its way already; a closed one, that the
            // worker has ended, which its supervisor sees.
            let _ = (&*self.wake).write(&[1]);
        }
    }
}

impl Mailbox {
    /// The next command, if one waits.
    pub fn take(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// The next message of another worker, if one waits.
    pub fn take_peer(&self) -> Option<PeerMessage> {
        self.peers.try_recv().ok()
    }

    /// To be called after a wake-up and before draining: later sends wake again.
    pub fn rearm(&self) {
        self.pending.store(false, Ordering::Release);
    }
}
