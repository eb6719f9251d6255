//! The workers and their listeners as control sees them; `server` is the one that has them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::seam::WorkerHandle;

/// One configured address, bound for every worker but not served yet. Dropped, it is unbound.
#[derive(Debug)]
pub struct BoundListener {
    /// The address as configured: port 0 stays 0 here, whichever port it became.
    pub address: SocketAddr,
    /// One member of the `SO_REUSEPORT` group for each worker, in worker order.
    pub sockets: Vec<TcpListener>,
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

    /// Has every worker accept on its socket of the listener (`Command::Listen`), and gives the
    /// address to workers started later.
    fn adopt(&mut self, listener: BoundListener);

    /// Has every worker stop accepting on a configured address (`Command::Unlisten`).
    fn release(&mut self, address: SocketAddr);

    /// Lets go of every listener, as [`Fleet::release`] does of one, without telling the workers: a
    /// drain does that. A socket that stayed open here would go on taking connections that nobody
    /// accepts.
    fn release_all(&mut self);

    /// Starts again every worker that has ended, with the listeners and the snapshot in force, and
    /// gives their numbers; a worker that cannot be started is tried again by the next call. Called
    /// twice a second until a drain begins, and not after.
    fn supervise(&mut self) -> Vec<usize>;

    /// Whether every worker has ended. Asked after `Command::Drain` only.
    fn drained(&mut self) -> bool;

    /// The I/O driver in use, as the metric's label: a name from a closed set.
    fn io_driver(&self) -> &'static str;
}
