//! Reading what a connection carried as strictly as the standard allows, and when it was read.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Client, eventually, find};

/// One answer, out of all the bytes of a connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) status: u16,
    /// Head as it came, with its empty line.
    pub(crate) head: String,
    /// Payload without framing, as far as it came.
    pub(crate) body: Vec<u8>,
    /// Whether the message ended where it said it would.
    pub(crate) whole: bool,
}

/// What a body's length is known from, beside the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Get,
    /// The answer has no body, whatever its head says.
    Head,
}

impl Message {
    /// The values of all fields of this name.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// Every answer in `bytes`, all that one connection carried.
///
/// # Errors
/// What cannot be read as an answer.
pub(crate) fn messages(mut bytes: &[u8], asked: Asked) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = message(bytes, asked)?;
        messages.push(message);
        bytes = rest;
    }
    Ok(messages)
}

fn message(bytes: &[u8], asked: Asked) -> Result<(Message, &[u8]), String> {
    let quoted = || format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
    let end = find(bytes, b"\r\n\r\n").ok_or_else(|| format!("no head: {}", quoted()))?;
    let (head, rest) = bytes.split_at(end + 4);
    let head = String::from_utf8(head.to_vec()).map_err(|_| format!("head is no text: {}", quoted()))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
    let status: u16 = status.ok_or_else(|| format!("no status line: {}", quoted()))?;
    let mut message = Message { status, head, body: Vec::new(), whole: true };
    let rest = match (message.fields("content-length")[..].to_vec(), message.fields("transfer-encoding")[..].to_vec()) {
        _ if asked == Asked::Head || status < 200 || matches!(status, 204 | 304) => rest,
        (lengths, codings) if lengths.len() == 1 && codings.is_empty() => {
            let length: usize = lengths[0].parse().map_err(|_| format!("length: {}", quoted()))?;
            let there = length.min(rest.len());
            message.body = rest[..there].to_vec();
            message.whole = there == length;
            &rest[there..]
        }
        (lengths, codings) if lengths.is_empty() && codings == ["chunked"] => chunks(rest, &mut message)?,
        (lengths, codings) if lengths.is_empty() && codings.is_empty() => {
            message.body = rest.to_vec();
            &[]
        }
        _ => return Err(format!("two lengths: {}", quoted())),
    };
    Ok((message, rest))
}

/// Reads chunks without extensions and trailers: nothing we write has any.
fn chunks<'a>(mut rest: &'a [u8], message: &mut Message) -> Result<&'a [u8], String> {
    loop {
        let Some(end) = find(rest, b"\r\n") else {
            message.whole = false;
            return Ok(&[]);
        };
        let digits = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(&digits, 16).map_err(|_| format!("chunk size {digits:?}"))?;
        let there = size.min(rest.len() - end - 2);
        let (payload, after) = rest[end + 2..].split_at(there);
        message.body.extend_from_slice(payload);
        match after.strip_prefix(b"\r\n") {
            Some(after) if size == 0 => return Ok(after),
            Some(after) => rest = after,
            None if after.len() < 2 => {
                message.whole = false;
                return Ok(&[]);
            }
            None => return Err(format!("no CRLF behind a chunk of {size}")),
        }
    }
}

impl Client {
    /// Sends bytes and waits until the proxy has read them, so that what is sent next cannot arrive
    /// in the same read. Nothing to wait for when the proxy has hung up.
    pub(crate) fn send_and_let_read(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).is_ok() {
            eventually("the proxy reads what was sent", || !waits_unread(&self.stream));
        }
    }
}

/// Whether the other end of a connection inside this machine has bytes in its receive queue, or
/// bytes are still on their way there.
fn waits_unread(stream: &TcpStream) -> bool {
    let (Ok(SocketAddr::V4(ours)), Ok(SocketAddr::V4(theirs))) = (stream.local_addr(), stream.peer_addr()) else {
        return false;
    };
    let (Some(ours), Some(theirs)) = (Diagnosis::of(ours, theirs), Diagnosis::of(theirs, ours)) else { return false };
    theirs.unread > 0 || theirs.received < ours.written
}

/// What the kernel says of a connected socket of this machine.
struct Diagnosis {
    /// Bytes in the receive queue.
    unread: u64,
    /// Bytes that ever came. Unlike the other's send queue it does not wait for the acknowledgement, which
    /// may be delayed by 40 ms.
    received: u64,
    /// Bytes that were ever written.
    written: u64,
}

impl Diagnosis {
    /// By `sock_diag(7)`, which looks one socket up. `/proc/net/tcp` lists all there are: 20 ms each time, and
    /// much more beside tests that leave thousands behind.
    fn of(local: SocketAddrV4, remote: SocketAddrV4) -> Option<Self> {
        const AF_NETLINK: i32 = 16;
        const NETLINK_SOCK_DIAG: i32 = 4;
        const SOCK_DIAG_BY_FAMILY: u16 = 20;
        const NLM_F_REQUEST: u16 = 1;
        const AF_INET: u8 = 2;
        const IPPROTO_TCP: u8 = 6;
        const INET_DIAG_INFO: u16 = 2;
        const LENGTH: u32 = 72;
        let mut request = Vec::with_capacity(LENGTH as usize);
        // struct nlmsghdr
        request.extend(LENGTH.to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]);
        // struct inet_diag_req_v2: family, protocol, what is wanted beside, states
        request.extend([AF_INET, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0, 0xff, 0xff, 0xff, 0xff]);
        // struct inet_diag_sockid: ports, addresses with room for IPv6, any interface, any cookie
        request.extend([local.port().to_be_bytes(), remote.port().to_be_bytes()].concat());
        for address in [local, remote] {
            request.extend(address.ip().octets());
            request.extend([0; 12]);
        }
        request.extend([0; 4]);
        request.extend([0xff; 8]);
        let mut kernel = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))
            .expect("a netlink socket");
        kernel.write_all(&request).expect("a question to the kernel");
        let mut answer = [0; 4096];
        let length = kernel.read(&mut answer).expect("an answer of the kernel");
        // struct nlmsghdr, then struct inet_diag_msg. With no such socket it is an error, or the one that listens there.
        let is_socket = answer[4..6] == SOCK_DIAG_BY_FAMILY.to_ne_bytes() && length >= 88;
        if !is_socket || answer[22..24] != remote.port().to_be_bytes() {
            return None;
        }
        let short = |at: usize| u16::from_ne_bytes(answer[at..at + 2].try_into().expect("two bytes"));
        let number = |at: usize| u64::from(u32::from_ne_bytes(answer[at..at + 4].try_into().expect("four bytes")));
        let long = |at: usize| u64::from_ne_bytes(answer[at..at + 8].try_into().expect("eight bytes"));
        // struct nlattr, each at a multiple of four, up to the one that holds struct tcp_info. A socket whose
        // connection has ended has none.
        let mut at = 88;
        while at < length && short(at + 2) != INET_DIAG_INFO {
            at += usize::from(short(at)).next_multiple_of(4);
        }
        if at >= length {
            return None;
        }
        let info = at + 4;
        let (received, not_sent, sent, sent_again) = (info + 128, info + 144, info + 200, info + 208);
        Some(Self {
            unread: number(72),
            received: long(received),
            written: long(sent) - long(sent_again) + number(not_sent),
        })
    }
}
