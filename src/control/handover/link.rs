//! The socket between a process and its successor, and what the two say on it.
//!
//! A pair of `SOCK_SEQPACKET` sockets: packets keep their borders and carry descriptors. The
//! successor has its end as standard input, so that no descriptor is inherited besides; all others
//! stay close-on-exec. What is secret goes the same way: never by environment or argument.
//!
//! ```text
//! old                                new
//!  Sockets, ... , Begin(secret)  ->         opens the rest, starts workers, accepts nothing yet
//!                                <-  Ready
//!  Go                            ->         accepts
//!                                <-  Serving
//!  Done                          ->         is the one that the service manager knows
//! ```
//!
//! An end that closes says that its process gives up: before `Go` nothing has happened, and the old
//! one serves on. The two may be of different versions: what one does not know ends the hand-over.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::seam::RandomSecret;

/// Set for a successor: says that standard input is a link.
pub(super) const LINK_VARIABLE: &str = "RINGWAY_HANDOVER";

/// Descriptors in one packet; the kernel takes 253.
const SOCKETS_PER_PACKET_MAX: usize = 200;

/// Descriptors in all: 1024 workers at a few addresses, far above what is sensible.
const SOCKETS_MAX: usize = 16 * 1024;

/// A packet: an address takes some 60 bytes in it.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What the two say.
#[derive(Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    /// Listening sockets: what each descriptor of the packet is for.
    Sockets { places: Vec<Place> },
    /// Those were all. With the secret of session keys that nobody else has.
    Begin { session_secret: Option<RandomSecret> },
    /// Nothing can fail any more.
    Ready,
    /// Take over.
    Go,
    /// Connections are accepted.
    Serving,
    /// The predecessor drains.
    Done,
}

impl fmt::Debug for Message {
    /// The name only: one of them holds a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sockets { .. } => "sockets",
            Self::Begin { .. } => "begin",
            Self::Ready => "ready",
            Self::Go => "go",
            Self::Serving => "serving",
            Self::Done => "done",
        })
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Absent if whoever left the socket does not know.
    pub plane: Option<Plane>,
    /// As configured: port 0 stays 0 here.
    pub address: SocketAddr,
}

/// Who connects to a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// Clients.
    Data,
    /// Operators.
    Admin,
}

/// A listening socket that another process had.
pub type HandedSocket = (Place, TcpListener);

impl Link {
    /// Ours, and the end that becomes the successor's standard input.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that a predecessor left at standard input, which is nothing from then on.
    pub(super) fn of_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        let is_link = socket_type(stdin.as_fd()).is_ok_and(|kind| kind == SocketType::SEQPACKET);
        let parent = std::os::unix::process::parent_id().cast_signed();
        if !is_link || !socket_peercred(stdin.as_fd()).is_ok_and(|peer| peer.pid.as_raw_nonzero().get() == parent) {
            let problem = format!("{LINK_VARIABLE} is set, but standard input leads to no predecessor");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let link = Self(stdin.as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(link)
    }

    /// Bounds every later wait on this end.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(timeout))?;
        Ok(set_socket_timeout(&self.0, Timeout::Send, Some(timeout))?)
    }

    /// Ends both directions: whoever waits on either end wakes.
    pub(super) fn close(&self) {
        // Fails when the other end has gone, which is as good.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        self.send_with(message, &[])
    }

    fn send_with(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one packet"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, without descriptors.
    pub(super) fn receive(&self) -> io::Result<Message> {
        self.receive_with().map(|(message, _)| message)
    }

    fn receive_with(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_PACKET_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let packet = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(waited_too_long)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if packet.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has given up"));
        }
        if packet.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            // Descriptors are cut off when this process may open no more.
            return Err(io::Error::other("a packet came incomplete: are descriptors exhausted?"));
        }
        Ok((serde_json::from_slice(&bytes[..packet.bytes])?, descriptors))
    }

    /// Waits for this message.
    pub(super) fn expect(&self, wanted: &Message) -> io::Result<()> {
        let message = self.receive()?;
        match std::mem::discriminant(&message) == std::mem::discriminant(wanted) {
            true => Ok(()),
            false => Err(unexpected(&message)),
        }
    }

    /// Hands over all sockets, and the secret behind them.
    pub(super) fn send_all(&self, sockets: &[HandedSocket], session_secret: Option<RandomSecret>) -> io::Result<()> {
        for part in sockets.chunks(SOCKETS_PER_PACKET_MAX) {
            let places = part.iter().map(|(place, _)| *place).collect();
            let descriptors: Vec<_> = part.iter().map(|(_, socket)| socket.as_fd()).collect();
            self.send_with(&Message::Sockets { places }, &descriptors)?;
        }
        self.send(&Message::Begin { session_secret })
    }

    /// Receives what [`Link::send_all`] sends.
    pub(super) fn receive_all(&self) -> io::Result<(Vec<HandedSocket>, Option<RandomSecret>)> {
        let mut sockets = Vec::new();
        loop {
            match self.receive_with()? {
                (Message::Sockets { places }, descriptors)
                    if places.len() == descriptors.len() && sockets.len() < SOCKETS_MAX =>
                {
                    sockets.extend(places.into_iter().zip(descriptors.into_iter().map(TcpListener::from)));
                }
                (Message::Begin { session_secret }, _) => return Ok((sockets, session_secret)),
                (message, _) => return Err(unexpected(&message)),
            }
        }
    }
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{message:?} is not what comes next"))
}

fn waited_too_long(error: rustix::io::Errno) -> io::Error {
    match error {
        rustix::io::Errno::AGAIN => io::Error::new(io::ErrorKind::TimedOut, "the other process says nothing"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> (Link, Link) {
        let (ours, theirs) = Link::pair().expect("a socket pair");
        (ours, Link(theirs))
    }

    #[test]
    fn sockets_and_secret_arrive_in_order_and_close_on_exec() {
        let (old, new) = links();
        // More than one packet carries.
        let sockets: Vec<HandedSocket> = (0..SOCKETS_PER_PACKET_MAX + 3)
            .map(|number| {
                let port = u16::try_from(number % 7).expect("small");
                let place = Place { plane: Some(Plane::Data), address: SocketAddr::from(([127, 0, 0, 1], port)) };
                (place, TcpListener::bind("127.0.0.1:0").expect("a port"))
            })
            .collect();
        old.send_all(&sockets, Some([7; 32])).expect("sent");
        let (received, secret) = new.receive_all().expect("received");
        assert_eq!(secret, Some([7; 32]));
        let places = |sockets: &[HandedSocket]| {
            let place = |(place, socket): &HandedSocket| (*place, socket.local_addr().expect("bound"));
            sockets.iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places(&received), places(&sockets));
        for (_, socket) in &received {
            let flags = rustix::io::fcntl_getfd(socket).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn an_end_that_closes_and_one_that_is_silent_are_errors() {
        let (old, new) = links();
        old.set_timeout(Duration::from_millis(20)).expect("a timeout");
        assert_eq!(old.receive().expect_err("silence").kind(), io::ErrorKind::TimedOut);
        new.send(&Message::Ready).expect("sent");
        assert_eq!(old.expect(&Message::Serving).expect_err("another").kind(), io::ErrorKind::InvalidData);
        drop(new);
        assert_eq!(old.receive().expect_err("gone").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_shows_no_secret() {
        assert_eq!(format!("{:?}", Message::Begin { session_secret: Some([7; 32]) }), "begin");
    }
}
