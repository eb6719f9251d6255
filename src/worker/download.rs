//! An answer on its way to the client, as it arrives.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use memchr::memmem::Finder;

use super::alarm::Alarm;
use super::connection::{Client, Outcome};
use super::core::Core;
use super::exchange::{Exchange, Way};
use super::record::Record;
use crate::clock::Tick;
use crate::coalesce::{Epochs, Slot};
use crate::config::model::KeepAliveStreams;
use crate::error::Refusal;
use crate::http::{
    BodyDecoder, BodyLength, Buffer, Chunker, Framing, HttpError, Method, RequestHead, ResponseHead, Version,
};
use crate::mcp::{self, Boundaries, Envelope, EventReader, MethodLabel, NameField, Outcome as Reported, Reply};
use crate::relay::{frame, unframe};
use crate::seam::Invalidation;
use crate::upstream::Lease;

/// The body of an answer between the two connections.
pub(super) struct Download {
    pub(super) decoder: BodyDecoder,
    pub(super) framing: Framing,
    pub(super) wait: AnswerWait,
    pub(super) witness: Option<Witness>,
    /// Of a stream of events in whose silence there is something to say.
    pub(super) events: Option<Events>,
}

/// Deadlines while an answer is relayed.
#[derive(Clone, Copy)]
pub(super) struct AnswerWait {
    pub(super) idle: Duration,
    pub(super) whole: Tick,
    pub(super) write: Duration,
}

/// A stream of events that may be silent for long.
pub(super) struct Events {
    pub(super) boundaries: Boundaries,
    pub(super) alarm: Alarm,
    /// After so much silence the client is sent a comment; zero: never.
    pub(super) keep_alive: Duration,
    /// What ends the stream in good order when the worker drains; nothing if it is waited for.
    pub(super) farewell: Option<Vec<u8>>,
}

/// Looks at what a backend says for what makes its kept answers void.
pub(super) struct Witness {
    pub(super) epochs: Arc<Epochs>,
    /// What was asked.
    pub(super) method: MethodLabel,
    /// Of a stream: its events are read one by one.
    pub(super) reader: Option<EventReader>,
}

/// An answer or an event longer than this is not looked at: errors and notifications are short.
const WITNESSED_BYTES_MAX: usize = 16 * 1024;

/// A comment of an event stream, and an empty line, which ends no event.
const COMMENT: &[u8] = b": \n\n";

impl Download {
    /// Turns bytes as they came into bytes as they go, and looks at what they say. Bytes behind the
    /// body's end are returned.
    pub(super) fn pass(&mut self, core: &Core, buffer: &mut Buffer) -> Result<Vec<u8>, HttpError> {
        let extra = unframe(buffer, &mut self.decoder)?;
        if let Some(witness) = &mut self.witness {
            witness.see(core, buffer.filled(), self.decoder.is_done());
        }
        if let Some(events) = &mut self.events {
            events.boundaries.feed(buffer.filled());
        }
        frame(buffer, self.framing, self.decoder.is_done());
        Ok(extra)
    }

    /// Relays the rest of an answer as it arrives.
    pub(super) async fn run(
        &mut self,
        core: &Core,
        client: &mut Client,
        lease: &mut Lease,
        record: &mut Record,
    ) -> Result<(), Outcome> {
        let mut watched = true;
        while !self.decoder.is_done() {
            lease.socket().deadline.set(core.deadlines.now().after(self.wait.idle).min(self.wait.whole));
            self.events.iter().for_each(|events| events.set_alarm(core));
            match self.next(client, lease, watched).await {
                Ok(Next::Upstream) => {}
                Ok(Next::Downstream) => {
                    match client.look(core) {
                        Ok(room) => watched = room,
                        Err(_) => return Err(leave(core, client, record)),
                    }
                    continue;
                }
                Ok(Next::Alarm) => {
                    // On the heap: a stream would hold its room for as long as it lasts.
                    if Box::pin(self.fill_silence(core, client, record)).await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(_) => return Err(self.cut_off(core, lease, record)),
            }
            let mut buffer = core.buffers.large();
            match lease.socket().try_read(buffer.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    core.buffers.give(buffer);
                    continue;
                }
                Err(_) => return Err(self.cut_off(core, lease, record)),
                Ok(0) if lease.socket().deadline.expired() || self.decoder.end().is_err() => {
                    return Err(self.cut_off(core, lease, record));
                }
                Ok(read) => buffer.advance(read),
            }
            match self.pass(core, &mut buffer) {
                Ok(extra) if extra.is_empty() => {}
                Ok(_) => lease.poison(),
                Err(_) => return Err(self.cut_off(core, lease, record)),
            }
            // While the client does not read, the backend is not read either, and owes us nothing.
            lease.socket().deadline.set(self.wait.whole);
            core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
            let written = client.write(core, buffer.filled(), self.wait.write).await;
            core.buffers.give(buffer);
            if written.is_err() {
                return Err(leave(core, client, record));
            }
        }
        Ok(())
    }

    async fn next(&self, client: &mut Client, lease: &mut Lease, watched: bool) -> io::Result<Next> {
        poll_fn(|cx| {
            if let Poll::Ready(result) = lease.socket().poll_readable(cx) {
                return Poll::Ready(result.map(|()| Next::Upstream));
            }
            if watched && let Poll::Ready(result) = client.socket.poll_readable(cx) {
                return Poll::Ready(result.map(|()| Next::Downstream));
            }
            match &self.events {
                Some(events) => events.alarm.poll(cx).map(|()| Ok(Next::Alarm)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Says something where the backend says nothing: a comment, or when the worker drains what ends
    /// the stream. Whether it has ended.
    async fn fill_silence(&mut self, core: &Core, client: &mut Client, record: &mut Record) -> Result<bool, Outcome> {
        let Some(events) = &self.events else {
            return Ok(false);
        };
        let farewell = events.farewell.as_deref().filter(|_| core.draining.get());
        // A drain rings for all.
        let has_something = farewell.is_some() || !events.keep_alive.is_zero();
        if !has_something || !events.boundaries.between_events() {
            return Ok(false);
        }
        let mut out = Vec::new();
        chunk(&mut out, farewell.unwrap_or(COMMENT), self.framing);
        if farewell.is_some() && self.framing == Framing::Chunked {
            out.extend_from_slice(Chunker::LAST);
        }
        match client.write(core, &out, self.wait.write).await {
            Ok(()) => Ok(farewell.is_some()),
            Err(_) => Err(leave(core, client, record)),
        }
    }

    /// The backend broke off inside its answer: the client must not take what it has for the whole.
    fn cut_off(&self, core: &Core, lease: &mut Lease, record: &mut Record) -> Outcome {
        let deadline = &lease.socket().deadline;
        let reason = match deadline.expired() {
            true if self.wait.whole <= deadline.now() => Refusal::RequestTimeout,
            true => Refusal::StreamIdleTimeout,
            false => Refusal::UpstreamTruncated,
        };
        record.refuse(core, reason);
        Outcome::Abort
    }
}

impl Exchange<'_> {
    /// How the body of an answer is to be relayed.
    pub(super) fn download(
        &self,
        way: &Way<'_>,
        length: BodyLength,
        framing: Framing,
        bytes: &[u8],
        asked: MethodLabel,
    ) -> Download {
        let (head, answer, core) = (&self.heads.request, &self.heads.answer, self.core);
        let backend = &way.cluster.backend;
        let is_stream = answer.is_event_stream(bytes);
        let is_listen = head.method == Method::Get || asked == MethodLabel::SubscriptionsListen;
        let whole = match (is_stream, is_listen) {
            (false, _) => way.due,
            (true, true) => Tick::NEVER,
            (true, false) if backend.stream_timeout.is_zero() => Tick::NEVER,
            (true, false) => core.deadlines.now().after(backend.stream_timeout),
        };
        let may_comment = framing == Framing::Chunked || framing == Framing::UntilClose;
        let may_say = is_stream && may_comment && answer.field(bytes, b"content-encoding").is_none();
        let comments = is_listen || backend.keep_alive_streams == KeepAliveStreams::All;
        let keep_alive = if comments { backend.keep_alive } else { Duration::ZERO };
        let farewell = self.farewell.clone().filter(|_| is_listen);
        let has_something = farewell.is_some() || !keep_alive.is_zero();
        let epochs = &way.cluster.epochs;
        Download {
            decoder: BodyDecoder::new(length),
            framing,
            wait: AnswerWait { idle: backend.stream_idle_timeout, whole, write: self.snapshot.limits.write_timeout },
            witness: match is_stream {
                _ if !backend.cache.enabled => None,
                true => Some(Witness::of_stream(epochs, asked)),
                false if asked == MethodLabel::ToolsCall => Some(Witness::of_answer(epochs, asked)),
                false => None,
            },
            events: (may_say && has_something).then(|| Events {
                boundaries: Boundaries::default(),
                alarm: core.alarms.add(),
                keep_alive,
                farewell,
            }),
        }
    }
}

/// What a stream waits for.
enum Next {
    Upstream,
    Downstream,
    Alarm,
}

fn chunk(out: &mut Vec<u8>, payload: &[u8], framing: Framing) {
    if framing == Framing::Chunked && !payload.is_empty() {
        out.extend_from_slice(Chunker::size_line(payload.len()).as_ref());
        out.extend_from_slice(payload);
        out.extend_from_slice(Chunker::END);
    } else {
        out.extend_from_slice(payload);
    }
}

impl Events {
    fn set_alarm(&self, core: &Core) {
        let now = core.deadlines.now();
        if core.draining.get() && self.farewell.is_some() {
            // At the next tick: between two events, if it is not now.
            self.alarm.set(now);
        } else if !self.keep_alive.is_zero() {
            self.alarm.set(now.after(self.keep_alive));
        }
    }
}

impl Witness {
    /// Looks at a piece of payload; `last`: with it the answer is whole.
    fn see(&mut self, core: &Core, piece: &[u8], last: bool) {
        let Self { epochs, method, reader } = self;
        let see = |message: &[u8]| {
            see_message(epochs, *method, message).into_iter().for_each(|reason| core.count(reason));
        };
        match reader {
            Some(reader) => reader.feed(piece, |event| see(event.data)),
            // One answer, which is no notification; what does not come in one piece is too long for an error.
            None if last && piece.len() <= WITNESSED_BYTES_MAX && ERROR.find(piece).is_some() => see(piece),
            None => {}
        }
    }

    fn of_stream(epochs: &Arc<Epochs>, method: MethodLabel) -> Self {
        Self { epochs: Arc::clone(epochs), method, reader: Some(EventReader::new(WITNESSED_BYTES_MAX)) }
    }

    fn of_answer(epochs: &Arc<Epochs>, method: MethodLabel) -> Self {
        Self { epochs: Arc::clone(epochs), method, reader: None }
    }
}

/// What a message has in it that is worth parsing; built once, as that costs more than the search.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
/// How the methods end that [`Epochs::notified`] knows. Without their slashes, which some write as `\/`;
/// and most notifications tell of progress.
static CHANGES: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [b"list_changed".as_slice(), b"updated"].map(Finder::new));

/// Makes void what a message says has changed: a notification does (P-066), or an error (P-067).
pub(super) fn see_message(epochs: &Epochs, asked: MethodLabel, message: &[u8]) -> Option<Invalidation> {
    if message.len() > WITNESSED_BYTES_MAX {
        return None;
    }
    if asked == MethodLabel::ToolsCall && ERROR.find(message).is_some() {
        let reason = match Reply::parse(message).ok()?.outcome {
            // Its schema of the tool is not the client's.
            Reported::Error(Some(mcp::HEADER_MISMATCH)) => Invalidation::Mismatch,
            // An unknown tool, or arguments that its schema forbids.
            Reported::Error(Some(mcp::INVALID_PARAMS)) => Invalidation::UnknownTool,
            _ => return None,
        };
        epochs.advance(Slot::of(MethodLabel::ToolsList, b""));
        return Some(reason);
    }
    CHANGES.iter().find_map(|change| change.find(message))?;
    let envelope = Envelope::parse(message).ok()?;
    let uri = envelope.named(NameField::Uri, message).unwrap_or_default();
    epochs.notified(envelope.method, uri).then_some(Invalidation::Notification)
}

/// The client is gone, or was cut off for reading nothing: so is its upstream exchange.
pub(super) fn leave(core: &Core, client: &Client, record: &mut Record) -> Outcome {
    let cut_off = client.socket.deadline.expired();
    record.refuse(core, if cut_off { Refusal::WriteTimeout } else { Refusal::ClientGone });
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
