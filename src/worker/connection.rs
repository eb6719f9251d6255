//! One client connection: wait for a request, serve it, keep or close.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::core::{Admission, Core, Heads, head_limits};
use super::exchange::{FIRST_MODERN_VERSION, exchange};
use super::respond;
use crate::error::{ProxyError, Refusal};
use crate::http::{Buffer, FieldKind, HttpError, RequestHead, Socket};
use crate::limits;
use crate::mcp::{McpError, Session};

/// What follows an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next request on the same connection.
    Keep,
    /// The answer is complete and the connection ends, in such a way that the answer arrives.
    Close,
    /// The connection ends at once: the client is gone, or must see that the answer is cut off.
    Abort,
}

/// A client connection and the bytes received on it that are not used up.
pub(super) struct Client {
    pub(super) socket: Socket,
    /// Holds the head and the first bytes of the body of the request being served, and what the
    /// client has sent behind it. Without memory while the connection waits.
    pub(super) buffer: Buffer,
    /// The peer's address as text, for `X-Forwarded-For`.
    pub(super) peer: String,
    /// It came through a listener that only this machine can reach.
    pub(super) on_loopback: bool,
    /// The session the last request belonged to. Clients keep to one for each connection, so that
    /// most tokens need not be opened: they are compared.
    pub(super) session: Option<OpenedSession>,
}

/// A session token that was opened on this connection.
pub(super) struct OpenedSession {
    /// Of the snapshot whose keys opened it.
    pub(super) generation: u64,
    pub(super) token: Vec<u8>,
    pub(super) session: Session,
}

/// How waiting for a request ended.
enum Next {
    /// A head of this many bytes is in the buffer.
    Head(usize),
    Refused(ProxyError),
    Ended,
}

/// How long a refused client may go on sending before we stop listening.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves a connection to its end.
pub(super) async fn serve(core: Rc<Core>, socket: Socket, peer: SocketAddr, on_loopback: bool, _admission: Admission) {
    let peer = peer.ip().to_canonical().to_string();
    let mut client = Client { socket, buffer: Buffer::default(), peer, on_loopback, session: None };
    let end = loop {
        if client.buffer.is_empty() && !wait_idle(&core, &mut client).await {
            break Outcome::Abort;
        }
        // On the heap: a connection that waits must not carry the room that a request needs. Made there:
        // `Box::pin` makes it on the stack and copies all of it, 1.7 KB, most of it not used yet.
        let room = Box::new_uninit();
        match Box::into_pin(Box::write(room, serve_one(&core, &mut client))).await {
            Outcome::Keep => {}
            end => break end,
        }
    };
    // On the heap for the same reason.
    Box::pin(finish(&core, &mut client, end)).await;
}

/// Ends a connection, when the client has taken what it reads slowly of the answers before.
async fn finish(core: &Core, client: &mut Client, end: Outcome) {
    let timeout = core.snapshot().limits.write_timeout;
    let has_all = client.write(core, &[], timeout).await.is_ok();
    if end == Outcome::Close && has_all {
        return linger(core, client).await;
    }
    client.socket.shutdown(Shutdown::Both);
}

/// Serves one request, or refuses what came in its place.
async fn serve_one(core: &Rc<Core>, client: &mut Client) -> Outcome {
    let mut heads = core.heads();
    let outcome = match read_head(core, client, &mut heads).await {
        Next::Head(length) => exchange(core, client, &mut heads, length).await,
        Next::Refused(error) => respond::refuse_connection(core, client, error, true).await,
        Next::Ended => Outcome::Abort,
    };
    core.keep_heads(heads);
    outcome
}

/// Waits for the first byte of a request without holding memory for it. `false`: the connection ends.
async fn wait_idle(core: &Core, client: &mut Client) -> bool {
    core.buffers.give(std::mem::take(&mut client.buffer));
    if core.ends_idle() {
        return false;
    }
    let timeout = core.snapshot().limits.idle_timeout;
    client.socket.deadline.set_idle(core.deadlines.now().after(timeout));
    client.socket.readable().await.is_ok()
}

/// Reads until a head is complete.
async fn read_head(core: &Core, client: &mut Client, heads: &mut Heads) -> Next {
    let snapshot = core.snapshot();
    let limits = head_limits(&snapshot.limits);
    client.socket.deadline.set_read(core.deadlines.now().after(snapshot.limits.head_timeout));
    let mut at_once = client.buffer.is_empty();
    loop {
        if !client.buffer.is_empty() {
            match heads.request.decode(client.buffer.filled(), &limits) {
                Ok(Some(length)) => {
                    client.socket.deadline.clear();
                    return Next::Head(length);
                }
                Ok(None) => {}
                Err(error) => return Next::Refused(refusal_of(error, &heads.request, client.buffer.filled())),
            }
        }
        let read = read_more(core, client, limits.head_bytes_max, std::mem::take(&mut at_once)).await;
        match read {
            Ok(1..) => {}
            Ok(0) | Err(_) if !client.socket.deadline.expired() => return Next::Ended,
            Ok(0) | Err(_) if client.buffer.is_empty() => {
                core.count_refusal(Refusal::IdleTimeout);
                return Next::Ended;
            }
            Ok(0) | Err(_) => return Next::Refused(ProxyError::HeadTimeout),
        }
    }
}

/// Why a head is refused. That one of MCP's headers stands twice is to a modern client one of the ways
/// in which headers and body can differ (P-009).
fn refusal_of(error: HttpError, head: &RequestHead, bytes: &[u8]) -> ProxyError {
    let mut versions = head.fields().iter().filter(|field| field.kind == FieldKind::McpProtocolVersion);
    match error {
        HttpError::DuplicateMcpField
            if versions.any(|version| version.value.of_buffer(bytes) >= FIRST_MODERN_VERSION) =>
        {
            McpError::HeaderRepeated.into()
        }
        error => error.into(),
    }
}

/// Reads into the client's buffer; `at_once` when it is known to be readable already.
async fn read_more(core: &Core, client: &mut Client, head_bytes_max: usize, at_once: bool) -> io::Result<usize> {
    if client.buffer.is_unallocated() {
        client.buffer = core.buffers.small();
    }
    if client.buffer.is_full() {
        // One byte more than the limit must fit, for the decoder to see that it is passed.
        client.buffer.grow(&core.buffers, head_bytes_max + 1);
    }
    let read = match at_once {
        true => match client.socket.try_read(client.buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.socket.read(client.buffer.space()).await,
            read => read,
        },
        false => client.socket.read(client.buffer.space()).await,
    }?;
    client.buffer.advance(read);
    Ok(read)
}

impl Client {
    /// Reads what the client sends while its request is being served: the next request, or its end.
    /// `Ok(false)` when so much was sent that there is no room to look further; its end shows late
    /// then.
    pub(super) fn look(&mut self, core: &Core) -> Result<bool, ProxyError> {
        if self.buffer.is_unallocated() {
            self.buffer = core.buffers.small();
        }
        if self.buffer.is_full() {
            // A request may fill its buffer to the last byte, and the client's end must still show.
            self.buffer.grow(&core.buffers, 2 * self.buffer.len());
        }
        match self.socket.try_read(self.buffer.space()) {
            // Our own end, when the body's last bytes came in the very tick in which they were due.
            Ok(0) if self.socket.deadline.expired() => Ok(false),
            Ok(0) => Err(ProxyError::ClientGone),
            Ok(read) => {
                self.buffer.advance(read);
                Ok(self.buffer.len() < limits::LOOK_AHEAD_BYTES_MAX)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(_) => Err(ProxyError::ClientGone),
        }
    }

    /// Keeps bytes that were read behind the request being served.
    pub(super) fn keep_for_later(&mut self, core: &Core, bytes: &[u8]) {
        self.buffer.grow(&core.buffers, self.buffer.len() + bytes.len());
        self.buffer.append(bytes);
    }

    /// Sends a whole answer: with the turn's other messages if it is small.
    pub(super) async fn send(&mut self, core: &Core, answer: Vec<u8>, timeout: Duration) -> Result<(), ProxyError> {
        if core.outbox.wants(&self.socket, answer.len()) {
            core.outbox.post(&self.socket, answer);
            return Ok(());
        }
        let _queued = core.buffers.ledger.charge(answer.len());
        self.write(core, &answer, timeout).await?;
        core.outbox.give(answer);
        Ok(())
    }

    /// Sends an answer's head and the payload that is there; `is_whole`: no more follows.
    pub(super) async fn send_answer(
        &mut self,
        core: &Core,
        mut head: Vec<u8>,
        payload: &mut Buffer,
        is_whole: bool,
        timeout: Duration,
    ) -> Result<(), ProxyError> {
        if is_whole && core.outbox.wants(&self.socket, head.len() + payload.len()) {
            head.extend_from_slice(payload.filled());
            core.outbox.post(&self.socket, head);
            return Ok(());
        }
        if payload.prepend(&head) {
            core.outbox.give(head);
        } else {
            self.write(core, &head, timeout).await?;
        }
        self.write(core, payload.filled(), timeout).await
    }

    /// Writes to the client within `write_timeout_ms` for each stretch in which it takes nothing.
    pub(super) async fn write(&mut self, core: &Core, mut bytes: &[u8], timeout: Duration) -> Result<(), ProxyError> {
        loop {
            match self.socket.try_write(bytes) {
                Ok(taken) => {
                    bytes = &bytes[taken..];
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.deadline.set(core.deadlines.now().after(timeout));
                    self.socket.writable().await.map_err(|_| ProxyError::ClientGone)?;
                    self.socket.deadline.clear();
                }
                Err(_) => return Err(ProxyError::ClientGone),
            }
        }
    }
}

/// Ends our direction and reads on for a while: closing with bytes unread would reset the connection
/// and could destroy the answer before the client has read it (RFC 9112 section 9.6).
async fn linger(core: &Core, client: &mut Client) {
    client.socket.shutdown(Shutdown::Write);
    client.socket.deadline.set(core.deadlines.now().after(LINGER_TIMEOUT));
    let mut sink = core.buffers.small();
    let mut dropped = 0;
    while dropped < limits::LINGER_BYTES_MAX {
        match client.socket.read(sink.space()).await {
            Ok(0) | Err(_) => break,
            Ok(read) => dropped += read,
        }
    }
    core.buffers.give(sink);
}
