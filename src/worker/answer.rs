//! The upstream leg of an exchange: sending a request and waiting for its answer's head.

use std::io;

use super::connection::Client;
use super::core::Core;
use crate::clock::Tick;
use crate::error::ProxyError;
use crate::http::{Buffer, HeadLimits, HttpError, ResponseHead};
use crate::limits;
use crate::relay::{Side, next_readable};
use crate::upstream::{Lease, UpstreamError};

/// How writing to a backend ended.
#[derive(PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The backend has something to say, or ended: whichever, reading will show it.
    Answered,
}

/// Sends a request, or its beginning: with the turn's other messages if it is small.
pub(super) async fn send_request(core: &Core, lease: &mut Lease, request: Vec<u8>) -> Sent {
    if core.outbox.wants(lease.socket(), request.len()) {
        core.outbox.post(lease.socket(), request);
        return Sent::All;
    }
    let sent = write_upstream(lease, &request).await;
    core.outbox.give(request);
    sent
}

pub(super) async fn write_upstream(lease: &mut Lease, mut bytes: &[u8]) -> Sent {
    while !bytes.is_empty() {
        let writable = match lease.socket().try_write(bytes) {
            Ok(taken) => {
                bytes = &bytes[taken..];
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lease.socket().writable_unless_readable().await.unwrap_or(false)
            }
            Err(_) => false,
        };
        if !writable {
            // The backend still waits for the rest, and would take the next request for it.
            lease.poison();
            return Sent::Answered;
        }
    }
    Sent::All
}

/// What an answer's head has to keep to.
#[derive(Clone, Copy)]
pub(super) struct HeadTerms {
    pub(super) limits: HeadLimits,
    /// The first byte is due then.
    pub(super) first_byte: Tick,
    /// The whole exchange is due then.
    pub(super) due: Tick,
}

/// Waits for the final answer's head: the buffer it lies in, and its length. A client that waits for
/// it is watched, and what it sends meanwhile kept.
pub(super) async fn await_answer(
    core: &Core,
    lease: &mut Lease,
    answer: &mut ResponseHead,
    terms: HeadTerms,
    mut client: Option<&mut Client>,
) -> Result<(Buffer, usize), ProxyError> {
    let mut buffer = Buffer::default();
    let mut interim = 0;
    let mut watched = true;
    lease.socket().deadline.set(terms.first_byte.min(terms.due));
    loop {
        let watch = client.as_mut().filter(|_| watched).map(|client| &mut client.socket);
        let side = next_readable(lease.socket(), watch).await;
        if side.map_err(|_| UpstreamError::Closed)? == Side::Downstream {
            if let Some(client) = &mut client {
                watched = client.look(core)?;
            }
            continue;
        }
        if buffer.is_unallocated() {
            buffer = core.buffers.large();
        } else if buffer.is_full() {
            buffer.grow(&core.buffers, 2 * terms.limits.head_bytes_max);
        }
        match lease.socket().try_read(buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => {
                let began = interim > 0 || !buffer.is_empty();
                return Err(end_of(lease, terms.due, began).into());
            }
            Ok(read) => buffer.advance(read),
        }
        while let Some(length) = answer.decode(buffer.filled(), &terms.limits).map_err(UpstreamError::Malformed)? {
            if answer.status >= 200 {
                return Ok((buffer, length));
            }
            interim += 1;
            // 101 answers an Upgrade, and none was asked for.
            if answer.status == 101 || interim > limits::INTERIM_ANSWERS_MAX {
                return Err(UpstreamError::Malformed(HttpError::Interim).into());
            }
            buffer.consume(length);
            answer.reset();
        }
    }
}

/// Why a backend's connection ended before its answer was complete. If the answer `began`, the
/// request has reached somebody and must not be repeated.
pub(super) fn end_of(lease: &mut Lease, due: Tick, began: bool) -> UpstreamError {
    let deadline = &lease.socket().deadline;
    match deadline.expired() {
        true if due <= deadline.now() => UpstreamError::RequestTimeout,
        true => UpstreamError::FirstByteTimeout,
        false if began => UpstreamError::Malformed(HttpError::Truncated),
        false => UpstreamError::Closed,
    }
}
