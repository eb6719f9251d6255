//! Reading what a connection carried as strictly as the standard allows, and when it was read.

use std::io::Write;
use std::net::TcpStream;

use super::{Client, eventually};

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
    let end =
        bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| format!("no head: {}", quoted()))?;
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
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
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

    /// Sends bytes and lets others run, so that what is sent next mostly arrives in a read of its
    /// own. Thousands of times cheaper than to be sure of it.
    pub(crate) fn send_apart(&mut self, bytes: &[u8]) {
        self.send(bytes);
        for _ in 0..20 {
            std::thread::yield_now();
        }
    }
}

/// Whether the other end of a connection inside this machine has bytes in its receive queue, or
/// bytes are still on their way there.
fn waits_unread(stream: &TcpStream) -> bool {
    let hex = |address: std::net::SocketAddr| match address {
        std::net::SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        std::net::SocketAddr::V6(_) => panic!("tests use IPv4"),
    };
    let (Ok(ours), Ok(theirs)) = (stream.local_addr().map(hex), stream.peer_addr().map(hex)) else {
        return false;
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // Columns: number, local address, remote address, state, "transmit:receive" queue.
    let queues = |local: &str, remote: &str| {
        let mut rows = table.lines().map(|line| line.split_whitespace().skip(1));
        let mut row = rows.find_map(|mut row| (row.next()? == local && row.next()? == remote).then_some(row))?;
        row.nth(1)?.split_once(':').map(|(sent, received)| (sent != "00000000", received != "00000000"))
    };
    let unsent = queues(&ours, &theirs).is_some_and(|(unsent, _)| unsent);
    unsent || queues(&theirs, &ours).is_some_and(|(_, unread)| unread)
}
