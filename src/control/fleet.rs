//! The workers and their listeners as control sees them; `server` is the one that has them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::handover::HandedSocket;
use crate::seam::WorkerHandle;

/// One configured address, bound for every worker but not accepted from yet. Dropped, it is unbound.
#[derive(Debug)]
pub struct BoundListener {
    /// The address as configured: port 0 stays 0 here, whichever port it became.
    pub address: SocketAddr,
    /// One member of the `SO_REUSEPORT` group for each worker, in worker order. May be empty if there
    /// are shared ones.
    pub own: Vec<TcpListener>,
    /// Sockets that every worker accepts from: one from a service manager, or what a predecessor with
    /// more workers had. A queue that nobody looked at would lose its connections.
    pub shared: Vec<TcpListener>,
}

impl BoundListener {
    /// The address with the port it got.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.own.first().or_else(|| self.shared.first());
        socket.ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
    }

    /// Duplicates of what a worker accepts from.
    ///
    /// # Errors
    /// When descriptors are exhausted.
    pub fn of_worker(&self, index: usize) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let sockets = self.own.get(index).into_iter().chain(&self.shared);
        sockets.map(|socket| Ok((self.address, socket.try_clone()?))).collect()
    }
}

/// What control needs of those who run the workers. Called on the control thread only, and must not
/// block it.
pub trait Fleet: Send {
    /// The way to each worker, by worker number: a worker that is started again takes the place of
    /// its predecessor.
    fn workers(&self) -> Vec<WorkerHandle>;

    /// Binds a configured address for every worker and listens, without accepting.
    ///
    /// # Errors
    /// Of the socket that could not be bound; none of the others stays bound then.
    fn bind(&self, address: SocketAddr) -> io::Result<BoundListener>;

    /// Has every worker accept on its sockets of the listeners (`Command::Listen`), and gives them to
    /// workers started later.
    ///
    /// # Errors
    /// When descriptors are exhausted. No worker accepts on any of the listeners then, but those
    /// started later do.
    fn adopt(&mut self, listeners: Vec<BoundListener>) -> io::Result<()>;

    /// Duplicates of all listening sockets, for a successor.
    ///
    /// # Errors
    /// When descriptors are exhausted.
    fn sockets(&self) -> io::Result<Vec<HandedSocket>>;

    /// Has every worker stop accepting on a configured address (`Command::Unlisten`).
    fn release(&mut self, address: SocketAddr);

    /// Lets go of every listener, as [`Fleet::release`] does of one, without telling the workers: a
    /// drain does that. A socket that stayed open here would go on taking connections that nobody
    /// accepts.
    fn release_all(&mut self);

    /// Starts again every worker that has ended, with the listeners and the snapshot in force, and
    /// gives their numbers; one that cannot be started, or does not last, is tried again by a later call.
    /// Called several times a second until a drain begins, and not after.
    fn supervise(&mut self) -> Vec<usize>;

    /// Whether every worker has ended. Asked after `Command::Drain` only.
    fn drained(&mut self) -> bool;

    /// The I/O driver in use, as the metric's label: a name from a closed set.
    fn io_driver(&self) -> &'static str;
}
