//! Connecting without blocking and without an operation that could be lost.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Type};

use super::UpstreamError;
use crate::http::{Deadlines, Socket};

/// A connection to `address` within `timeout`.
///
/// A plain non-blocking connect and a wait for writability: the future owns the socket and may be
/// dropped at any time, which the runtime's own connect does not allow.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    deadlines: &Rc<Deadlines>,
) -> Result<Socket, UpstreamError> {
    let socket = start(address, deadlines).map_err(|error| fault_of(&error))?;
    socket.deadline.set(deadlines.now().after(timeout));
    let ready = socket.writable().await;
    if socket.deadline.expired() {
        return Err(UpstreamError::ConnectTimeout);
    }
    // Only a connected socket knows its peer.
    match ready.and_then(|()| socket.peer_addr()) {
        Ok(_) => {
            socket.deadline.clear();
            Ok(socket)
        }
        Err(_) => Err(UpstreamError::ConnectFailed),
    }
}

fn start(address: SocketAddr, deadlines: &Rc<Deadlines>) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
        _ => {}
    }
    Socket::new(socket.into(), deadlines)
}

fn fault_of(error: &io::Error) -> UpstreamError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => UpstreamError::DescriptorsExhausted,
        Some(Errno::EADDRNOTAVAIL) => UpstreamError::NoLocalPort,
        _ => UpstreamError::ConnectFailed,
    }
}
