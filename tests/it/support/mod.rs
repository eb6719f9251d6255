//! The three parts of a story: a proxy, a backend that does as told, a client that sends bytes.

pub(crate) mod admin;
pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod load;
pub(crate) mod mcp;
pub(crate) mod places;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod seccomp;
pub(crate) mod session;
pub(crate) mod wire;

pub(crate) use backend::{Backend, json};
pub(crate) use client::{Client, Response};
pub(crate) use places::{BlackHole, Reserved, TempFile};
pub(crate) use process::Process;
pub(crate) use proxy::{Proxy, ProxyBuilder};

use crossbeam_channel::{Receiver, Sender, bounded};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No single wait of a test is longer. Far above what a slow machine needs; no test passes by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds, looking often.
///
/// # Panics
/// When it does not come to hold.
#[expect(clippy::disallowed_methods, reason = "a test waits on its own thread, by its own clock")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    // Most things hold within a fraction of a millisecond; what takes longer leaves others the CPU.
    let mut pause = Duration::from_micros(50);
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(pause);
        pause = Duration::from_millis(4).min(2 * pause);
    }
}

/// Where `needle` stands in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

/// Takes the first `length` bytes. By moving what is behind them: millions one by one take a debug build seconds.
fn take(bytes: &mut Vec<u8>, length: usize) -> Vec<u8> {
    let rest = bytes.split_off(length);
    std::mem::replace(bytes, rest)
}

/// Whether nobody listens there.
pub(crate) fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_err()
}

/// A gate: whoever passes waits until the test lets it.
#[derive(Clone)]
pub(crate) struct Gate {
    sender: Sender<()>,
    receiver: Receiver<()>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = bounded(0);
        Self { sender, receiver }
    }

    /// Waits to be let through.
    pub(crate) fn pass(&self) {
        // A test that is over opens nothing any more.
        let _ = self.receiver.recv_timeout(PATIENCE);
    }

    /// Lets one through that waits, or will.
    pub(crate) fn open(&self) {
        self.sender.send_timeout((), PATIENCE).expect("somebody at the gate");
    }
}
