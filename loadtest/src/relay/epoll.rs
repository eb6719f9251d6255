//! The epoll floor: per direction one `recv` and one `send`, per wake-up one `epoll_wait`.
//!
//! Edge-triggered, because a level-triggered entry is asked again after every wake-up, and a receive that did not
//! fill the buffer has drained the socket: the next bytes are a new edge, so no second receive is needed to learn
//! that nothing is left.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::{BUFFER_BYTES, second_leg};

const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;

/// A client connection and the backend connection it is tied to.
struct Pair {
    legs: [TcpStream; 2],
    /// Bytes the leg of the same index has not taken yet; while there are any, the other leg is not read.
    backlog: [Vec<u8>; 2],
    /// The leg of the same index has ended its sending half.
    ended: [bool; 2],
}

pub(super) fn run(listener: &TcpListener, upstream: SocketAddr) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;

    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut freed_now: Vec<usize> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                accept_all(listener, upstream, &epoll, &mut pairs, &mut free)?;
                continue;
            }
            let (slot, leg) = ((token >> 1) as usize, (token & 1) as usize);
            let Some(pair) = &mut pairs[slot] else {
                continue;
            };
            if pair.on_event(leg, event.flags, &mut buffer).is_err() || pair.ended == [true; 2] {
                pairs[slot] = None;
                freed_now.push(slot);
            }
        }
        // Only now: an event of this batch must not meet a new pair in an old slot.
        free.append(&mut freed_now);
    }
}

fn accept_all(
    listener: &TcpListener,
    upstream: SocketAddr,
    epoll: &OwnedFd,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Ok(backend) = second_leg(&client, upstream) else {
            continue;
        };
        client.set_nonblocking(true)?;
        backend.set_nonblocking(true)?;

        let slot = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &client, EventData::new_u64((slot as u64) << 1), interest)?;
        epoll::add(epoll, &backend, EventData::new_u64((slot as u64) << 1 | 1), interest)?;
        pairs[slot] = Some(Pair { legs: [client, backend], backlog: [Vec::new(), Vec::new()], ended: [false; 2] });
    }
}

impl Pair {
    fn on_event(&mut self, leg: usize, flags: EventFlags, buffer: &mut [u8]) -> io::Result<()> {
        if !self.backlog[leg].is_empty() && flags.contains(EventFlags::OUT) {
            self.flush(leg)?;
            if self.backlog[leg].is_empty() {
                // The other leg was left unread meanwhile and will not report that again.
                self.relay(1 - leg, true, buffer)?;
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            self.relay(leg, ending, buffer)?;
        }
        Ok(())
    }

    /// Moves what `from` holds to the other leg. With `to_the_end` a short receive is not taken as the last one.
    fn relay(&mut self, from: usize, to_the_end: bool, buffer: &mut [u8]) -> io::Result<()> {
        let to = 1 - from;
        while self.backlog[to].is_empty() && !self.ended[from] {
            let received = match self.legs[from].read(buffer) {
                Ok(0) => {
                    self.ended[from] = true;
                    return self.legs[to].shutdown(Shutdown::Write);
                }
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let sent = send_some(&self.legs[to], &buffer[..received])?;
            self.backlog[to].extend_from_slice(&buffer[sent..received]);
            if received < buffer.len() && !to_the_end {
                return Ok(());
            }
        }
        Ok(())
    }

    fn flush(&mut self, to: usize) -> io::Result<()> {
        let sent = send_some(&self.legs[to], &self.backlog[to])?;
        self.backlog[to].drain(..sent);
        Ok(())
    }
}

/// Sends until all is gone or the socket is full; how many bytes went.
fn send_some(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match to.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
