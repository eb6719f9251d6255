//! ONE request from its head to the last byte of its answer. All control flow of a request is here.
//!
//! The order: route, room, body framing, connection, send, answer's head, relay. Until the answer's
//! head goes out every failure is an answer of our own; after that a failure can only cut the
//! answer off, in a way the client sees. One turn back: an exchange is repeated on a fresh
//! connection when a reused one died before any byte of an answer and repeating is safe.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::body::RequestBody;
use super::connection::{Client, OpenedSession, Outcome};
use super::core::{Core, Heads, head_limits};
use super::record::Record;
use super::respond;
use crate::clock::{self, Tick};
use crate::config::model::{Backend, SessionBinding};
use crate::error::{ProxyError, Refusal};
use crate::http::{
    self, BodyDecoder, BodyLength, Buffer, Chunker, Edits, Forwarded, Framing, HttpError, Method, Persistence,
    RequestHead, ResponseHead, SessionField, Target, Trace, Version,
};
use crate::limits;
use crate::mcp::{self, Binding, Session};
use crate::relay::{Side, next_readable, reframe};
use crate::route::NotFound;
use crate::seam::{SessionEvent, Snapshot};
use crate::upstream::{Cluster, Endpoint, Freshness, Lease, UpstreamError};

/// From this version on requests stand alone. Versions are dates, and compare as text.
const FIRST_MODERN_VERSION: &[u8] = b"2026-07-28";

/// Serves the request whose head of `head_length` bytes lies at the front of the client's buffer.
pub(super) async fn exchange(core: &Core, client: &mut Client, heads: &mut Heads, head_length: usize) -> Outcome {
    let snapshot = core.snapshot();
    let mut record = Record::new(core, &snapshot, &heads.request, client.buffer.filled());
    let body = match RequestBody::open(client, &heads.request, head_length, &snapshot.limits) {
        Ok(body) => body,
        Err(error) => {
            record.status = Some(error.status());
            record.refuse(core, error.refusal());
            record.close(core, &snapshot, &client.peer);
            let with_body = heads.request.method != Method::Head;
            return respond::end_connection(core, client, error, with_body).await;
        }
    };
    let trace = record.trace;
    let mut exchange = Exchange { core, snapshot: &snapshot, client, heads, body, trace };
    let outcome = match exchange.forward(&mut record).await {
        Ok(outcome) => outcome,
        Err(error) => exchange.refuse(error, &mut record).await,
    };
    let (raw_end, request_bytes) = (exchange.body.raw_end, exchange.body.decoder.payload_bytes());
    if outcome == Outcome::Keep {
        client.buffer.consume(raw_end);
    }
    heads.request.reset();
    heads.answer.reset();
    record.request_bytes = request_bytes;
    record.close(core, &snapshot, &client.peer);
    outcome
}

/// One request and its answer.
struct Exchange<'a> {
    core: &'a Core,
    snapshot: &'a Snapshot,
    client: &'a mut Client,
    heads: &'a mut Heads,
    body: RequestBody,
    trace: Trace,
}

/// Where a request goes, decided once.
struct Way<'a> {
    cluster: &'a Cluster,
    /// Whether the request is of a version without sessions.
    modern: bool,
    /// What a session that begins with the answer is bound to.
    binding: Binding,
    /// How many bytes at the end of the path a prefix route leaves over.
    rest_length: usize,
    /// Of a legacy session: the endpoint where it lives. Its ids are in the client's `session`.
    residence: Option<&'a Arc<Endpoint>>,
    /// The deadline of the whole exchange.
    due: Tick,
}

/// When the whole exchange is due, unless its answer is a stream of events.
fn whole_due(backend: &Backend, now: Tick) -> Tick {
    if backend.request_timeout.is_zero() { Tick::NEVER } else { now.after(backend.request_timeout) }
}

impl<'a> Exchange<'a> {
    /// The way of a request that meets no obstacle.
    async fn forward(&mut self, record: &mut Record) -> Result<Outcome, ProxyError> {
        let way = self.find_way(record)?;
        let _room = self.core.admit(&self.snapshot.limits)?;
        let mut freshness = Freshness::Any;
        let (lease, buffer, answer_length) = loop {
            let mut lease = self.lease(&way, freshness).await?;
            let attempt = async {
                self.send(&way, &mut lease).await?;
                record.sent = Some(clock::now());
                self.await_answer(&way, &mut lease).await
            };
            match attempt.await {
                Ok((buffer, length)) => break (lease, buffer, length),
                Err(ProxyError::Upstream(UpstreamError::Closed))
                    if lease.reused
                        && freshness == Freshness::Any
                        && self.body.may_repeat(self.heads.request.method) =>
                {
                    self.core.stats.borrow_mut().retries += 1;
                    freshness = Freshness::New;
                }
                Err(error) => {
                    // At once, so that the backend sees the leave of a client now and not later.
                    lease.socket().shutdown(Shutdown::Both);
                    return Err(error);
                }
            }
        };
        record.answered = Some(clock::now());
        record.status = Some(self.heads.answer.status);
        self.relay_answer(&way, lease, buffer, answer_length, record).await
    }

    /// Route, cluster, and for a legacy session the endpoint that holds it.
    fn find_way(&mut self, record: &mut Record) -> Result<Way<'a>, ProxyError> {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let path = head.path(bytes);
        self.core.hooks.on_request(path);
        let modern = self.is_modern();
        let in_session = head.session_id(bytes).is_some() && !modern;
        let found = match self.snapshot.routes.find(head.host(bytes), path, head.method_text(bytes)) {
            Err(NotFound::NoRoute) if in_session => return Err(ProxyError::NoRouteInSession),
            found => found?,
        };
        let cluster = self.snapshot.clusters.at(found.cluster);
        record.route = found.route.label;
        record.backend = cluster.label;
        let rest_length = found.rest.len();
        // Read now: when the answer comes, the head's bytes may have made room for the body's.
        let binding = if modern { Binding::default() } else { self.binding(found.route.session_binding) };
        let residence = if in_session { Some(self.find_residence(cluster, binding)?) } else { None };
        let due = whole_due(&cluster.backend, self.core.deadlines.now());
        Ok(Way { cluster, modern, binding, rest_length, residence, due })
    }

    /// From 2026-07-28 on there are no sessions: an id on such a request means nothing.
    fn is_modern(&self) -> bool {
        let version = self.heads.request.protocol_version(self.client.buffer.filled());
        version.is_some_and(|version| version >= FIRST_MODERN_VERSION)
    }

    /// Where the request's session lives, if its token is one and this request may use it.
    fn find_residence(&mut self, cluster: &'a Cluster, binding: Binding) -> Result<&'a Arc<Endpoint>, ProxyError> {
        let token = self.heads.request.session_id(self.client.buffer.filled()).unwrap_or_default();
        let generation = self.snapshot.generation;
        let known = |opened: &OpenedSession| opened.generation == generation && opened.token == token;
        if !self.client.session.as_ref().is_some_and(known) {
            let session = self.snapshot.sessions.open(token).ok_or_else(|| self.deny(SessionEvent::RefusedForged))?;
            self.client.session = Some(OpenedSession { generation, token: token.to_vec(), session });
        }
        let opened = self.client.session.as_ref().ok_or(ProxyError::SessionUnknown)?;
        let session = &opened.session;
        let age_max = self.snapshot.session_age_max;
        let too_old = !age_max.is_zero()
            && u64::from(minutes_now().saturating_sub(session.issued_minutes)) * 60 > age_max.as_secs();
        if too_old {
            return Err(self.deny(SessionEvent::RefusedExpired));
        }
        if session.binding != binding {
            return Err(self.deny(SessionEvent::RefusedBinding));
        }
        let found = cluster.by_identity(session.endpoint).ok_or_else(|| self.deny(SessionEvent::RefusedEndpoint))?;
        self.core.count(SessionEvent::Resumed);
        Ok(found)
    }

    /// Why a session cannot be used is for the operator; its client is told the same in each case.
    fn deny(&self, event: SessionEvent) -> ProxyError {
        self.core.count(event);
        ProxyError::SessionUnknown
    }

    /// The session this request belongs to.
    fn session(&self, way: &Way<'_>) -> Option<&OpenedSession> {
        self.client.session.as_ref().filter(|_| way.residence.is_some())
    }

    /// What a session of this request is bound to.
    fn binding(&self, binding: SessionBinding) -> Binding {
        let credential = || self.heads.request.field(self.client.buffer.filled(), b"authorization").unwrap_or_default();
        match binding {
            SessionBinding::None => Binding::default(),
            SessionBinding::Credential => mcp::binding_of(credential()),
        }
    }

    /// A connection to the backend, unless the client leaves first: then nothing must be sent.
    async fn lease(&mut self, way: &Way<'_>, freshness: Freshness) -> Result<Lease, ProxyError> {
        let core = self.core;
        let mut leasing = pin!(async {
            match way.residence {
                Some(endpoint) => core.upstreams.lease_pinned(endpoint, &way.cluster.backend, freshness).await,
                None => core.upstreams.lease(way.cluster, freshness).await,
            }
        });
        // The rest of a body that streams is not to be read yet, and a leave cannot be seen behind it.
        let mut watched = self.body.is_whole();
        poll_fn(|cx| {
            if let Poll::Ready(leased) = leasing.as_mut().poll(cx) {
                return Poll::Ready(leased.map_err(ProxyError::from));
            }
            while watched && self.client.socket.poll_readable(cx).is_ready() {
                watched = match self.client.look(core) {
                    Ok(room) => room,
                    Err(error) => return Poll::Ready(Err(error)),
                };
            }
            Poll::Pending
        })
        .await
    }

    /// Sends head and body, or as much as the backend takes before it answers.
    async fn send(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(), ProxyError> {
        lease.socket().deadline.set(self.core.deadlines.now().after(self.snapshot.limits.write_timeout).min(way.due));
        if self.heads.request.expect_continue && !self.body.is_whole() {
            let timeout = self.snapshot.limits.write_timeout;
            self.client.write(self.core, b"HTTP/1.1 100 Continue\r\n\r\n", timeout).await?;
            // Said once, also if the exchange is repeated.
            self.heads.request.expect_continue = false;
        }
        let unsent = {
            let mut out = self.core.scratch.borrow_mut();
            out.clear();
            self.write_request(&mut out, way, lease);
            match lease.socket().try_write(&out) {
                Ok(taken) if taken == out.len() => Vec::new(),
                Ok(taken) => out[taken..].to_vec(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => out.clone(),
                Err(_) => return Err(UpstreamError::Closed.into()),
            }
        };
        self.body.sent = true;
        self.core.stats.borrow_mut().request_body_bytes += self.body.prefix.len() as u64;
        if write_upstream(lease, &unsent).await == Sent::All && !self.body.is_whole() {
            self.stream_body(way, lease).await?;
        }
        Ok(())
    }

    /// The head for the backend, and behind it the payload that is there.
    fn write_request(&self, out: &mut Vec<u8>, way: &Way<'_>, lease: &Lease) {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let endpoint = &lease.endpoint;
        let path = head.path(bytes);
        let rest = &path[path.len() - way.rest_length..];
        let base = if rest.is_empty() { &endpoint.path } else { endpoint.path.trim_end_matches('/') };
        let target = Target { authority: &endpoint.authority, path: base, rest };
        let forwarded = Forwarded { peer: &self.client.peer, trusted_hops: self.snapshot.trusted_hops };
        let session =
            self.session(way).map_or(SessionField::Keep, |opened| SessionField::Replace(&opened.session.upstream_id));
        let edits = Edits { session, trace: self.trace };
        http::request_head(out, head, bytes, &target, &forwarded, &edits, self.body.framing);
        let payload = &bytes[self.body.prefix.clone()];
        if self.body.framing == Framing::Chunked && !payload.is_empty() {
            out.extend_from_slice(Chunker::size_line(payload.len()).as_ref());
            out.extend_from_slice(payload);
            out.extend_from_slice(Chunker::END);
        } else {
            out.extend_from_slice(payload);
        }
    }

    /// Streams the rest of a request body as it arrives; stops early when the backend answers.
    async fn stream_body(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(), ProxyError> {
        // The head and the first payload are on their way; their memory is not needed any more.
        self.core.buffers.give(std::mem::take(&mut self.client.buffer));
        self.body.raw_end = 0;
        while !self.body.is_whole() {
            let timeout = self.snapshot.limits.body_timeout;
            self.client.socket.deadline.set_read(self.core.deadlines.now().after(timeout));
            // Until the client has sent something the backend owes us nothing.
            lease.socket().deadline.set(way.due);
            let side = next_readable(lease.socket(), &mut self.client.socket, true).await;
            if side.map_err(|_| ProxyError::ClientGone)? == Side::Upstream {
                break;
            }
            let mut buffer = self.core.buffers.large();
            match self.client.socket.try_read(buffer.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.core.buffers.give(buffer);
                    continue;
                }
                Ok(0) | Err(_) if self.client.socket.deadline.expired() => return Err(ProxyError::BodyTimeout),
                Ok(0) | Err(_) => return Err(ProxyError::ClientGone),
                Ok(read) => buffer.advance(read),
            }
            let extra = self.take_payload(&mut buffer)?;
            if !extra.is_empty() {
                self.client.keep_for_later(self.core, &extra);
            }
            // A client that sends as fast as it may must not be cut for a backend that reads slowly.
            self.client.socket.deadline.clear();
            let timeout = self.snapshot.limits.write_timeout;
            lease.socket().deadline.set(self.core.deadlines.now().after(timeout).min(way.due));
            let sent = write_upstream(lease, buffer.filled()).await;
            self.core.buffers.give(buffer);
            if sent == Sent::Answered {
                break;
            }
        }
        self.client.socket.deadline.clear();
        Ok(())
    }

    /// Decodes what was read of a request body and frames it for the backend.
    fn take_payload(&mut self, buffer: &mut Buffer) -> Result<Vec<u8>, ProxyError> {
        let extra = reframe(buffer, &mut self.body.decoder, self.body.framing)?;
        self.core.stats.borrow_mut().request_body_bytes += buffer.len() as u64;
        self.body.check_size(&self.snapshot.limits)?;
        Ok(extra)
    }

    /// Waits for the final answer's head: the buffer it lies in, and its length.
    async fn await_answer(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(Buffer, usize), ProxyError> {
        let limits = head_limits(&self.snapshot.limits);
        let mut buffer = Buffer::default();
        let mut interim = 0;
        let mut watched = true;
        let first_byte = self.core.deadlines.now().after(way.cluster.backend.first_byte_timeout);
        lease.socket().deadline.set(first_byte.min(way.due));
        loop {
            let side = next_readable(lease.socket(), &mut self.client.socket, watched).await;
            if side.map_err(|_| UpstreamError::Closed)? == Side::Downstream {
                watched = self.client.look(self.core)?;
                continue;
            }
            if buffer.is_unallocated() {
                buffer = self.core.buffers.large();
            } else if buffer.is_full() {
                buffer.grow(&self.core.buffers, 2 * limits.head_bytes_max);
            }
            match lease.socket().try_read(buffer.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => {
                    let began = interim > 0 || !buffer.is_empty();
                    return Err(end_of(lease, way.due, began).into());
                }
                Ok(read) => buffer.advance(read),
            }
            let answer = &mut self.heads.answer;
            while let Some(length) = answer.decode(buffer.filled(), &limits).map_err(UpstreamError::Malformed)? {
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

    /// Relays an answer whose head lies at the front of `buffer`. An error: nothing has gone out yet.
    async fn relay_answer(
        &mut self,
        way: &Way<'_>,
        mut lease: Lease,
        mut buffer: Buffer,
        head_length: usize,
        record: &mut Record,
    ) -> Result<Outcome, ProxyError> {
        let core = self.core;
        let (head, answer) = (&self.heads.request, &self.heads.answer);
        let length = answer.body_for(head.method);
        let framing = framing_for(head, answer, length);
        let keep = head.keep_alive && self.body.is_whole() && framing != Framing::UntilClose && !core.draining.get();
        let persistence = Persistence::of(keep, head.version);
        let is_stream = answer.is_event_stream(buffer.filled());
        let _stream = is_stream.then(|| core.count_stream());
        let wait = AnswerWait {
            idle: way.cluster.backend.stream_idle_timeout,
            whole: if is_stream { Tick::NEVER } else { way.due },
            write: self.snapshot.limits.write_timeout,
        };
        let upstream_id = answer.session_id(buffer.filled());
        // Only a legacy server gives session ids; a modern request that it took shows a modern one.
        if upstream_id.is_some() {
            lease.saw(mcp::Era::Legacy);
        } else if way.modern && answer.status == 200 {
            lease.saw(mcp::Era::Modern);
        }
        if way.residence.is_some() && head.method == Method::Delete && matches!(answer.status, 200..=299) {
            core.count(SessionEvent::Ended);
        }
        let token = self.session_for_client(way, &lease, upstream_id);
        let mut decoder = BodyDecoder::new(length);
        let split_head = {
            let mut out = core.scratch.borrow_mut();
            out.clear();
            http::response_head(&mut out, answer, buffer.filled(), token.field(), framing, persistence);
            buffer.consume(head_length);
            let extra = reframe(&mut buffer, &mut decoder, framing).map_err(UpstreamError::Malformed)?;
            if !extra.is_empty() {
                // Bytes nobody asked for: this connection can not be trusted with another exchange.
                lease.poison();
            }
            core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
            record.response_bytes = decoder.payload_bytes();
            if buffer.prepend(&out) { Vec::new() } else { out.clone() }
        };
        // While the client does not read, the backend is not read either, and owes us nothing.
        lease.socket().deadline.set(wait.whole);
        if self.client.write(core, &split_head, wait.write).await.is_err()
            || self.client.write(core, buffer.filled(), wait.write).await.is_err()
        {
            return Ok(leave(core, self.client, &mut lease, record));
        }
        core.buffers.give(buffer);
        let reusable = answer.keep_alive && length != BodyLength::UntilClose && self.body.is_whole();
        if !decoder.is_done() {
            record.relayed = Some(clock::now());
            self.let_go_of_request();
            let streamed = stream_answer(core, self.client, &mut lease, &mut decoder, framing, wait, record).await;
            record.response_bytes = decoder.payload_bytes();
            if let Err(outcome) = streamed {
                return Ok(outcome);
            }
        }
        if reusable && !core.draining.get() {
            lease.release(&way.cluster.backend);
        }
        Ok(if keep { Outcome::Keep } else { Outcome::Close })
    }

    /// A stream may last for hours: the request it answers needs no memory any more, unless the client
    /// has sent something behind it.
    fn let_go_of_request(&mut self) {
        if self.client.buffer.len() == self.body.raw_end {
            self.core.buffers.give(std::mem::take(&mut self.client.buffer));
            self.body.raw_end = 0;
        }
        *self.heads = Heads::default();
    }

    /// The session id that the client is to see in place of the backend's.
    fn session_for_client(&self, way: &Way<'_>, lease: &Lease, upstream_id: Option<&[u8]>) -> ClientSession<'_> {
        let Some(upstream_id) = upstream_id else {
            return ClientSession::None;
        };
        if let Some(opened) = self.session(way)
            && opened.session.upstream_id == upstream_id
        {
            return ClientSession::Same(&opened.token);
        }
        // A modern client knows no sessions; one too long to be sealed would end in a broken head.
        if way.modern || upstream_id.len() > limits::SESSION_ID_BYTES_MAX {
            return ClientSession::None;
        }
        self.core.count(SessionEvent::Opened);
        let session = Session {
            endpoint: lease.endpoint.identity,
            issued_minutes: minutes_now(),
            binding: way.binding,
            upstream_id: upstream_id.to_vec(),
        };
        ClientSession::New(self.snapshot.sessions.seal(&session, self.core.nonce()))
    }

    /// Answers a failed exchange.
    async fn refuse(&mut self, error: ProxyError, record: &mut Record) -> Outcome {
        let core = self.core;
        record.refuse(core, error.refusal());
        if error == ProxyError::ClientGone {
            return Outcome::Abort;
        }
        record.status = Some(error.status());
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        // What came behind a body that is too large was not looked at.
        let usable = self.body.is_whole() && error != ProxyError::BodyTooLarge;
        let keep = head.keep_alive && usable && !core.draining.get();
        // A body that was streamed is gone, and its id and the head's text with it.
        let at_hand = self.body.raw_end > 0;
        let id = (at_hand && self.body.is_whole()).then(|| mcp::request_id(&bytes[self.body.prefix.clone()])).flatten();
        let allow = (error == ProxyError::MethodNotAllowed)
            .then(|| self.snapshot.routes.allowed(head.host(bytes), head.path(bytes)).join(", "));
        let mut answer = Vec::new();
        let refusal = respond::Refusal {
            error,
            allow: allow.as_deref(),
            id: id.as_deref(),
            with_body: head.method != Method::Head,
            persistence: Persistence::of(keep, head.version),
        };
        refusal.encode(&mut answer);
        match self.client.write(core, &answer, self.snapshot.limits.write_timeout).await {
            Ok(()) if keep => Outcome::Keep,
            Ok(()) => Outcome::Close,
            Err(_) => Outcome::Abort,
        }
    }
}

/// What a client is told of the session its answer belongs to.
enum ClientSession<'a> {
    None,
    /// The backend repeats the id, so we repeat its token.
    Same(&'a [u8]),
    New(String),
}

impl ClientSession<'_> {
    fn field(&self) -> SessionField<'_> {
        match self {
            Self::None => SessionField::Drop,
            Self::Same(token) => SessionField::Replace(token),
            Self::New(token) => SessionField::Replace(token.as_bytes()),
        }
    }
}

/// Minutes since the Unix epoch.
fn minutes_now() -> u32 {
    u32::try_from(clock::wall().as_secs() / 60).unwrap_or(u32::MAX)
}

/// How writing to a backend ended.
#[derive(PartialEq, Eq)]
enum Sent {
    All,
    /// The backend has something to say, or ended: whichever, reading will show it.
    Answered,
}

async fn write_upstream(lease: &mut Lease, mut bytes: &[u8]) -> Sent {
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

/// Why a backend's connection ended before the head of its answer was complete. If the answer `began`,
/// the request has reached somebody and must not be repeated.
fn end_of(lease: &mut Lease, due: Tick, began: bool) -> UpstreamError {
    let deadline = &lease.socket().deadline;
    match deadline.expired() {
        true if due <= deadline.now() => UpstreamError::RequestTimeout,
        true => UpstreamError::FirstByteTimeout,
        false if began => UpstreamError::Malformed(HttpError::Truncated),
        false => UpstreamError::Closed,
    }
}

/// Deadlines while an answer is relayed.
#[derive(Clone, Copy)]
struct AnswerWait {
    idle: Duration,
    whole: Tick,
    write: Duration,
}

/// Relays the rest of an answer as it arrives.
async fn stream_answer(
    core: &Core,
    client: &mut Client,
    lease: &mut Lease,
    decoder: &mut BodyDecoder,
    framing: Framing,
    wait: AnswerWait,
    record: &mut Record,
) -> Result<(), Outcome> {
    let mut watched = true;
    while !decoder.is_done() {
        lease.socket().deadline.set(core.deadlines.now().after(wait.idle).min(wait.whole));
        match next_readable(lease.socket(), &mut client.socket, watched).await {
            Ok(Side::Upstream) => {}
            Ok(Side::Downstream) => {
                match client.look(core) {
                    Ok(room) => watched = room,
                    Err(_) => return Err(leave(core, client, lease, record)),
                }
                continue;
            }
            Err(_) => return Err(cut_off(core, lease, wait, record)),
        }
        let mut buffer = core.buffers.large();
        match lease.socket().try_read(buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                core.buffers.give(buffer);
                continue;
            }
            Err(_) => return Err(cut_off(core, lease, wait, record)),
            Ok(0) if lease.socket().deadline.expired() || decoder.end().is_err() => {
                return Err(cut_off(core, lease, wait, record));
            }
            Ok(read) => buffer.advance(read),
        }
        match reframe(&mut buffer, decoder, framing) {
            Ok(extra) if extra.is_empty() => {}
            Ok(_) => lease.poison(),
            Err(_) => return Err(cut_off(core, lease, wait, record)),
        }
        // While the client does not read, the backend is not read either, and owes us nothing.
        lease.socket().deadline.set(wait.whole);
        core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
        let written = client.write(core, buffer.filled(), wait.write).await;
        core.buffers.give(buffer);
        if written.is_err() {
            return Err(leave(core, client, lease, record));
        }
    }
    Ok(())
}

/// The client is gone, or was cut off for reading nothing: so is its upstream exchange, now.
fn leave(core: &Core, client: &Client, lease: &mut Lease, record: &mut Record) -> Outcome {
    let cut_off = client.socket.deadline.expired();
    record.refuse(core, if cut_off { Refusal::WriteTimeout } else { Refusal::ClientGone });
    lease.socket().shutdown(Shutdown::Both);
    Outcome::Abort
}

/// The backend broke off inside its answer: the client must not take what it has for the whole.
fn cut_off(core: &Core, lease: &mut Lease, wait: AnswerWait, record: &mut Record) -> Outcome {
    let deadline = &lease.socket().deadline;
    let reason = match deadline.expired() {
        true if wait.whole <= deadline.now() => Refusal::RequestTimeout,
        true => Refusal::StreamIdleTimeout,
        false => Refusal::UpstreamTruncated,
    };
    record.refuse(core, reason);
    lease.socket().shutdown(Shutdown::Both);
    Outcome::Abort
}

/// How an answer's body is framed for the client.
fn framing_for(head: &RequestHead, answer: &ResponseHead, length: BodyLength) -> Framing {
    match (length, head.version) {
        // What `Content-Length` says of a body that is not sent is still the backend's to say.
        (BodyLength::None, _) if answer.status != 204 => answer.content_length().map_or(Framing::None, Framing::Length),
        (BodyLength::None, _) => Framing::None,
        (BodyLength::Fixed(length), _) => Framing::Length(length),
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => Framing::Chunked,
        (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => Framing::UntilClose,
    }
}
