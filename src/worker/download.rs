//! An answer on its way to the client, as it arrives.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::connection::{Client, Outcome};
use super::core::Core;
use crate::clock::Tick;
use crate::error::Refusal;
use crate::http::{BodyDecoder, BodyLength, Framing, RequestHead, ResponseHead, Version};
use crate::relay::{Side, next_readable, reframe};
use crate::upstream::Lease;

/// Deadlines while an answer is relayed.
#[derive(Clone, Copy)]
pub(super) struct AnswerWait {
    pub(super) idle: Duration,
    pub(super) whole: Tick,
    pub(super) write: Duration,
}

/// Relays the rest of an answer as it arrives.
pub(super) async fn stream_answer(
    core: &Core,
    client: &mut Client,
    lease: &mut Lease,
    decoder: &mut BodyDecoder,
    framing: Framing,
    wait: AnswerWait,
) -> Result<(), Outcome> {
    let mut watched = true;
    while !decoder.is_done() {
        lease.socket().deadline.set(core.deadlines.now().after(wait.idle).min(wait.whole));
        let watch = watched.then_some(&mut client.socket);
        match next_readable(lease.socket(), watch).await {
            Ok(Side::Upstream) => {}
            Ok(Side::Downstream) => {
                match client.look(core) {
                    Ok(room) => watched = room,
                    Err(_) => return Err(leave(core, client, lease)),
                }
                continue;
            }
            Err(_) => return Err(cut_off(core, lease, wait)),
        }
        let mut buffer = core.buffers.large();
        match lease.socket().try_read(buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                core.buffers.give(buffer);
                continue;
            }
            Err(_) => return Err(cut_off(core, lease, wait)),
            Ok(0) if lease.socket().deadline.expired() || decoder.end().is_err() => {
                return Err(cut_off(core, lease, wait));
            }
            Ok(read) => buffer.advance(read),
        }
        match reframe(&mut buffer, decoder, framing) {
            Ok(extra) if extra.is_empty() => {}
            Ok(_) => lease.poison(),
            Err(_) => return Err(cut_off(core, lease, wait)),
        }
        // While the client does not read, the backend is not read either, and owes us nothing.
        lease.socket().deadline.set(wait.whole);
        core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
        let written = client.write(core, buffer.filled(), wait.write).await;
        core.buffers.give(buffer);
        if written.is_err() {
            return Err(leave(core, client, lease));
        }
    }
    Ok(())
}

/// The client is gone, or was cut off for reading nothing: so is its upstream exchange, now.
pub(super) fn leave(core: &Core, client: &Client, lease: &mut Lease) -> Outcome {
    let cut_off = client.socket.deadline.expired();
    core.count_refusal(if cut_off { Refusal::WriteTimeout } else { Refusal::ClientGone });
    lease.socket().shutdown(Shutdown::Both);
    Outcome::Abort
}

/// The backend broke off inside its answer: the client must not take what it has for the whole.
fn cut_off(core: &Core, lease: &mut Lease, wait: AnswerWait) -> Outcome {
    let deadline = &lease.socket().deadline;
    core.count_refusal(match deadline.expired() {
        true if wait.whole <= deadline.now() => Refusal::RequestTimeout,
        true => Refusal::StreamIdleTimeout,
        false => Refusal::UpstreamTruncated,
    });
    lease.socket().shutdown(Shutdown::Both);
    Outcome::Abort
}

/// How an answer's body is framed for the client.
pub(super) fn framing_for(head: &RequestHead, answer: &ResponseHead, length: BodyLength) -> Framing {
    match (length, head.version) {
        // What `Content-Length` says of a body that is not sent is still the backend's to say.
        (BodyLength::None, _) if answer.status != 204 => answer.content_length().map_or(Framing::None, Framing::Length),
        (BodyLength::None, _) => Framing::None,
        (BodyLength::Fixed(length), _) => Framing::Length(length),
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => Framing::Chunked,
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => Framing::UntilClose,
    }
}
