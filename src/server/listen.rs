//! Listening sockets: bound here, inherited from a predecessor, or passed by a service manager.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::control::{BoundListener, Handed, HandedSocket, Place, Plane, Predecessor};
use crate::seam::RandomSecret;

/// Connections waiting to be accepted, per worker and address.
const BACKLOG: i32 = 1024;

/// Sockets that this process began with, and who left them to it.
#[derive(Debug, Default)]
pub struct Inherited {
    /// At the address they are bound to, if a service manager passed them.
    sockets: Vec<HandedSocket>,
    pub(super) session_secret: Option<RandomSecret>,
    pub(super) predecessor: Option<Predecessor>,
}

impl Inherited {
    /// What a predecessor hands over, or else what a service manager passes (`LISTEN_FDS`). For `main`
    /// only, before there are threads: it takes the descriptors and their variables.
    ///
    /// # Errors
    /// When a predecessor does not speak, or a descriptor is no listening TCP socket.
    pub fn take() -> io::Result<Self> {
        if let Some(Handed { sockets, session_secret, predecessor }) = Predecessor::find()? {
            return Ok(Self { sockets, session_secret, predecessor: Some(predecessor) });
        }
        Ok(Self { sockets: passed()?, ..Self::default() })
    }

    /// The sockets of a configured address. One that is named twice, with port 0, has two groups of them.
    pub(super) fn of(&mut self, plane: Plane, address: SocketAddr) -> Vec<TcpListener> {
        let is_for = |place: &Place| place.address == address && place.plane.is_none_or(|of| of == plane);
        let Some((_, first)) = self.sockets.iter().find(|(place, _)| is_for(place)) else {
            return Vec::new();
        };
        let bound = first.local_addr().ok();
        let is_ours = |(place, socket): &HandedSocket| is_for(place) && socket.local_addr().ok() == bound;
        let (ours, others) = std::mem::take(&mut self.sockets).into_iter().partition(is_ours);
        self.sockets = others;
        ours.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Closes what no configured address has asked for.
    pub(super) fn close_others(&mut self) {
        for (place, _) in self.sockets.drain(..).filter(|(place, _)| place.plane.is_none()) {
            let address = place.address;
            tracing::warn!(%address, "a socket was passed that is neither in server.listen nor admin.listen: closed");
        }
    }
}

/// What a service manager passes to this very process.
fn passed() -> io::Result<Vec<HandedSocket>> {
    // Variables of another process, ours by inheritance alone, speak of descriptors we do not have.
    if std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket =
            passed.take_tcp_listener(index)?.filter(|socket| SockRef::from(socket).is_listener().unwrap_or(false));
        let Some(socket) = socket else {
            let problem = format!("LISTEN_FDS passes descriptor {}, which is no listening TCP socket", 3 + index);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        socket.set_nonblocking(true)?;
        sockets.push((Place { plane: None, address: socket.local_addr()? }, socket));
    }
    Ok(sockets)
}

/// Binds an address and listens. `shared`: with `SO_REUSEPORT`.
pub(super) fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bind_silent(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_silent(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Each family is bound where it is named, as nginx has it.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds an address for so many workers.
pub(super) fn bind_all(address: SocketAddr, workers: usize) -> io::Result<BoundListener> {
    let first = bind_one(address, true)?;
    // Port 0 becomes a port with the first socket; the others join it there.
    let bound = first.local_addr()?;
    let mut own = vec![first];
    for _ in 1..workers {
        own.push(bind_one(bound, true)?);
    }
    Ok(BoundListener { address, own, shared: Vec::new() })
}

/// Spreads sockets that are there already over so many workers: one each. What is left over, all
/// accept from; where there are too few, more join them if they share their port.
pub(super) fn spread(address: SocketAddr, mut own: Vec<TcpListener>, workers: usize) -> BoundListener {
    let mut shared = own.split_off(own.len().min(workers));
    if own.len() < workers {
        match join(&own, workers) {
            Ok(joined) => own.extend(joined),
            Err(error) => {
                tracing::info!(%address, sockets = own.len(), workers, reason = %error, "workers share sockets");
                shared = std::mem::take(&mut own);
            }
        }
    }
    BoundListener { address, own, shared }
}

/// Further members of the group, bound only: once they listen the kernel sends connections to them,
/// and whether this process will serve is not yet known.
fn join(members: &[TcpListener], workers: usize) -> io::Result<Vec<TcpListener>> {
    let Some(first) = members.first() else { return Ok(Vec::new()) };
    if !SockRef::from(first).reuse_port()? {
        return Err(io::Error::other("the port is not shared"));
    }
    let bound = first.local_addr()?;
    (members.len()..workers).map(|_| Ok(bind_silent(bound, true)?.into())).collect()
}

/// Has those sockets listen that are bound only.
pub(super) fn listen(listener: &BoundListener) -> io::Result<()> {
    for socket in listener.own.iter().map(SockRef::from) {
        if !socket.is_listener()? {
            socket.listen(BACKLOG)?;
        }
    }
    Ok(())
}
