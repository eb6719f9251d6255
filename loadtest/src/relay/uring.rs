//! The io_uring floor: per direction one linked chain "send what came, then receive the next", per wake-up one
//! `io_uring_enter`.
//!
//! The send of a chain posts no completion when it succeeds, so a direction costs one completion a message, and the
//! receive that follows it may use the same buffer because it starts only after the send is over. The ring runs with
//! a single issuer and deferred task running: completions are handled in the call that waits for them, not by
//! interrupting the thread.

// io_uring takes raw pointers to buffers that the kernel owns until the completion: each block says who keeps them.
#![allow(unsafe_code)]

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types::Fd};

use super::{BUFFER_BYTES, second_leg};

const RING_ENTRIES: u32 = 4096;
/// Token of the accept; others are slot << 2 | direction << 1 | is-send.
const ACCEPT: u64 = u64::MAX;

/// A client connection and the backend connection it is tied to. Direction 0 goes from client to backend.
struct Pair {
    legs: [TcpStream; 2],
    /// One a direction; the kernel writes to it while a receive is pending and reads it while a send is.
    buffers: [Box<[u8]>; 2],
    /// Directions whose receive has ended; nothing of such a direction is with the kernel any more.
    ended: [bool; 2],
}

pub(super) fn run(listener: &TcpListener, upstream: SocketAddr) -> Result<()> {
    let mut ring =
        build_ring().context("io_uring is not available here; a bench can leave this relay out with --peers")?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut completions: Vec<(u64, i32)> = Vec::new();
    push(&mut ring, &[accept(listener)])?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error.into()),
        }
        // Taken out first: what follows pushes to the same ring.
        completions.extend(ring.completion().map(|done| (done.user_data(), done.result())));
        for (token, result) in completions.drain(..) {
            if token == ACCEPT {
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result)).context("accept");
                }
                // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
                let client = unsafe { TcpStream::from_raw_fd(result) };
                if let Ok(backend) = second_leg(&client, upstream) {
                    let slot = free.pop().unwrap_or_else(|| {
                        pairs.push(None);
                        pairs.len() - 1
                    });
                    let pair = pairs[slot].insert(Pair::new(client, backend));
                    for direction in [0, 1] {
                        push(&mut ring, &[pair.receive(slot, direction)])?;
                    }
                }
                push(&mut ring, &[accept(listener)])?;
                continue;
            }
            let (slot, direction, was_send) = ((token >> 2) as usize, (token >> 1 & 1) as usize, token & 1 == 1);
            if was_send {
                continue; // It failed; its linked receive is cancelled and ends the direction.
            }
            let Some(pair) = &mut pairs[slot] else {
                continue;
            };
            if result > 0 {
                let send = pair.send(slot, direction, result as u32);
                push(&mut ring, &[send, pair.receive(slot, direction)])?;
                continue;
            }
            pair.end(direction, result);
            if pair.ended == [true; 2] {
                pairs[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn build_ring() -> io::Result<IoUring> {
    let deferred = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(RING_ENTRIES);
    deferred
        .or_else(|_| IoUring::builder().setup_coop_taskrun().build(RING_ENTRIES))
        .or_else(|_| IoUring::new(RING_ENTRIES))
}

/// Queues a chain as a whole: a link that is cut by a submission in the middle is no link.
fn push(ring: &mut IoUring, chain: &[Entry]) -> Result<()> {
    loop {
        // SAFETY: every buffer named in the chain lives in a Pair, which is dropped only after both its receives
        // have ended and no send is under way; accepts name no buffer.
        if unsafe { ring.submission().push_multiple(chain) }.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}

fn accept(listener: &TcpListener) -> Entry {
    let nowhere = std::ptr::null_mut();
    opcode::Accept::new(Fd(listener.as_raw_fd()), nowhere, nowhere.cast())
        .flags(libc::SOCK_CLOEXEC)
        .build()
        .user_data(ACCEPT)
}

impl Pair {
    fn new(client: TcpStream, backend: TcpStream) -> Self {
        let buffer = || vec![0; BUFFER_BYTES].into_boxed_slice();
        Pair { legs: [client, backend], buffers: [buffer(), buffer()], ended: [false; 2] }
    }

    fn receive(&mut self, slot: usize, direction: usize) -> Entry {
        let from = Fd(self.legs[direction].as_raw_fd());
        opcode::Recv::new(from, self.buffers[direction].as_mut_ptr(), BUFFER_BYTES as u32)
            .build()
            .user_data(token(slot, direction, false))
    }

    /// Sends all of the first `count` bytes (MSG_WAITALL: a short send would break the chain).
    fn send(&self, slot: usize, direction: usize, count: u32) -> Entry {
        let to = Fd(self.legs[1 - direction].as_raw_fd());
        opcode::Send::new(to, self.buffers[direction].as_ptr(), count)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS)
            .user_data(token(slot, direction, true))
    }

    /// A receive has ended: pass an orderly end on; after a fault end both directions.
    fn end(&mut self, direction: usize, result: i32) {
        self.ended[direction] = true;
        let _ = self.legs[1 - direction].shutdown(Shutdown::Write);
        if result < 0 {
            let _ = self.legs[0].shutdown(Shutdown::Both);
            let _ = self.legs[1].shutdown(Shutdown::Both);
        }
    }
}

fn token(slot: usize, direction: usize, is_send: bool) -> u64 {
    (slot as u64) << 2 | (direction as u64) << 1 | is_send as u64
}
