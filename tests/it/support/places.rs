//! Addresses with a certain behaviour, and files.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

/// A loopback port of our own on which nobody listens: who connects is refused, and a proxy may come
/// to listen on it, as its listeners share their ports.
pub(crate) struct Reserved {
    pub(crate) address: SocketAddr,
    socket: Socket,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, socket }
    }

    /// From now on connections are taken.
    pub(crate) fn listen(self) -> TcpListener {
        self.socket.listen(128).unwrap();
        self.socket.into()
    }
}

/// An address where connecting neither succeeds nor fails: its queue of connections is full.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    listener: Socket,
    queued: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // A queue of length zero holds one connection; the others are more than enough.
        let fill = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        };
        Self { address: address.as_socket().unwrap(), queued: (0..8).map(fill).collect(), listener }
    }

    /// From now on connections are taken: those of the queue, which have ended, and then others.
    pub(crate) fn listen(self) -> TcpListener {
        drop(self.queued);
        self.listener.listen(128).unwrap();
        self.listener.into()
    }
}

/// A file that is gone at the end of its test.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ringway-it-{}-{number}.toml", std::process::id())))
    }

    pub(crate) fn with(text: &str) -> Self {
        let file = Self::new();
        file.write(text);
        file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
