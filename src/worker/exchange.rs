//! ONE request from its head to the last byte of its answer. All control flow of a request is here.
//!
//! The order: route, room, body framing, connection, send, answer's head, relay. Until the answer's
//! head goes out every failure is an answer of our own; after that a failure can only cut the
//! answer off, in a way the client sees. One turn back: an exchange is repeated on a fresh
//! connection when a reused one died before any byte of an answer and repeating is safe.

use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::connection::{Client, Outcome};
use super::core::{Core, Heads, head_limits};
use super::respond;
use crate::clock::{self, Tick};
use crate::config::model::{Backend, Limits};
use crate::error::{ProxyError, Refusal};
use crate::http::{
    self, BodyDecoder, BodyLength, Buffer, Chunker, Forwarded, Framing, HttpError, Method, Persistence, RequestHead,
    ResponseHead, Target, Version,
};
use crate::limits;
use crate::mcp::{self, MethodLabel};
use crate::relay::{Side, next_readable, reframe};
use crate::route::NotFound;
use crate::seam::{Label, Series, Snapshot, StatusClass};
use crate::upstream::{Cluster, Freshness, Lease, UpstreamError};

/// Serves the request whose head of `head_length` bytes lies at the front of the client's buffer.
pub(super) async fn exchange(core: &Core, client: &mut Client, heads: &mut Heads, head_length: usize) -> Outcome {
    let snapshot = core.snapshot();
    let mut record = Record::new(&heads.request, client.buffer.filled());
    let mut body = match RequestBody::open(client, &heads.request, head_length, &snapshot.limits) {
        Ok(body) => body,
        Err(error) => {
            record.status = Some(error.status());
            record.count(core);
            return respond::refuse_connection(core, client, error).await;
        }
    };
    let outcome = match forward(core, &snapshot, client, heads, &mut body, &mut record).await {
        Ok(outcome) => outcome,
        Err(error) => refuse(core, &snapshot, client, heads, &body, error, &mut record).await,
    };
    if outcome == Outcome::Keep {
        client.buffer.consume(body.raw_end);
    }
    heads.request.reset();
    heads.answer.reset();
    record.count(core);
    outcome
}

/// The way of a request that meets no obstacle.
async fn forward(
    core: &Core,
    snapshot: &Snapshot,
    client: &mut Client,
    heads: &mut Heads,
    body: &mut RequestBody,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let (cluster, rest_length) = {
        let (head, bytes) = (&heads.request, client.buffer.filled());
        core.hooks.call(head.path(bytes));
        let found = snapshot.routes.find(head.host(bytes), head.path(bytes), head.method_text(bytes))?;
        let cluster = snapshot.clusters.at(found.cluster);
        record.route = found.route.label;
        record.backend = cluster.label;
        (cluster, found.rest.len())
    };
    let _room = core.admit(&snapshot.limits)?;
    let backend = &cluster.backend;
    let due = Due::of(backend, core.deadlines.now());
    let mut freshness = Freshness::Any;
    let (lease, buffer, answer_length) = loop {
        let mut lease = core.upstreams.lease(cluster, freshness).await?;
        let attempt = async {
            send(core, snapshot, client, heads, body, &mut lease, rest_length, due).await?;
            record.sent = Some(clock::now());
            await_answer(core, snapshot, client, heads, &mut lease, due).await
        };
        match attempt.await {
            Ok((buffer, length)) => break (lease, buffer, length),
            Err(ProxyError::Upstream(UpstreamError::Closed))
                if lease.reused && freshness == Freshness::Any && body.may_repeat(heads.request.method) =>
            {
                core.stats.borrow_mut().retries += 1;
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
    record.status = Some(heads.answer.status);
    Ok(relay_answer(core, snapshot, cluster, client, heads, body, lease, buffer, answer_length, due).await)
}

/// Deadlines of one exchange that do not move.
#[derive(Clone, Copy)]
struct Due {
    /// Of the answer's first byte.
    first_byte: Tick,
    /// Of the whole exchange, unless the answer is a stream of events.
    whole: Tick,
}

impl Due {
    fn of(backend: &Backend, now: Tick) -> Self {
        let whole = if backend.request_timeout.is_zero() { Tick::NEVER } else { now.after(backend.request_timeout) };
        Self { first_byte: now.after(backend.first_byte_timeout), whole }
    }
}

/// A request's body as far as it has come.
struct RequestBody {
    decoder: BodyDecoder,
    /// Payload that came with the head: a range of the client's buffer.
    prefix: Range<usize>,
    /// Where the bytes of this request end in the client's buffer.
    raw_end: usize,
    framing: Framing,
    payload_bytes: u64,
    /// Whether any byte went to a backend.
    sent: bool,
}

impl RequestBody {
    /// Looks at what came with the head. A body that came whole is checked whole, before a backend
    /// hears of it.
    fn open(client: &mut Client, head: &RequestHead, head_length: usize, limits: &Limits) -> Result<Self, ProxyError> {
        if let BodyLength::Fixed(length) = head.body
            && length > limits.body_bytes_max
        {
            return Err(ProxyError::BodyTooLarge);
        }
        let mut decoder = BodyDecoder::new(head.body);
        let mut raw_end = head_length;
        let mut prefix = head_length..head_length;
        while raw_end < client.buffer.len() && !decoder.is_done() {
            let (used, run) = decoder.decode(&client.buffer.filled()[raw_end..])?;
            let run = raw_end + run.start..raw_end + run.end;
            raw_end += used;
            let length = run.len();
            client.buffer.move_down(run, prefix.end);
            prefix.end += length;
        }
        let whole = decoder.is_done();
        let framing = match head.body {
            // A body that is whole is sent with its length, whatever framing it came in.
            _ if whole && !prefix.is_empty() => Framing::Length(prefix.len() as u64),
            BodyLength::Fixed(length) => Framing::Length(length),
            BodyLength::Chunked if !whole => Framing::Chunked,
            _ if matches!(head.method, Method::Post | Method::Put | Method::Patch) => Framing::Length(0),
            _ => Framing::None,
        };
        let body = Self { decoder, payload_bytes: prefix.len() as u64, prefix, raw_end, framing, sent: false };
        body.check_size(limits)?;
        Ok(body)
    }

    fn check_size(&self, limits: &Limits) -> Result<(), ProxyError> {
        if self.payload_bytes > limits.body_bytes_max { Err(ProxyError::BodyTooLarge) } else { Ok(()) }
    }

    fn is_whole(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether sending the request a second time cannot make it run twice.
    fn may_repeat(&self, method: Method) -> bool {
        !self.sent || (method.is_idempotent() && self.is_whole() && self.payload_bytes == self.prefix.len() as u64)
    }
}

/// Sends head and body, or as much as the backend takes before it answers.
#[expect(clippy::too_many_arguments, reason = "the spine hands its state down; a struct for one call would hide it")]
async fn send(
    core: &Core,
    snapshot: &Snapshot,
    client: &mut Client,
    heads: &mut Heads,
    body: &mut RequestBody,
    lease: &mut Lease,
    rest_length: usize,
    due: Due,
) -> Result<(), ProxyError> {
    lease.socket().deadline.set(due.first_byte.min(due.whole));
    if heads.request.expect_continue && !body.is_whole() {
        client.write(core, b"HTTP/1.1 100 Continue\r\n\r\n", snapshot.limits.write_timeout).await?;
        // Said once, also if the exchange is repeated.
        heads.request.expect_continue = false;
    }
    let unsent = {
        let mut out = core.scratch.borrow_mut();
        out.clear();
        write_request(&mut out, snapshot, client, &heads.request, body, lease, rest_length);
        match lease.socket().try_write(&out) {
            Ok(taken) if taken == out.len() => Vec::new(),
            Ok(taken) => out[taken..].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => out.clone(),
            Err(_) => return Err(UpstreamError::Closed.into()),
        }
    };
    body.sent = true;
    core.stats.borrow_mut().request_body_bytes += body.prefix.len() as u64;
    if write_upstream(lease, &unsent).await == Sent::Answered {
        return Ok(());
    }
    if body.is_whole() { Ok(()) } else { stream_body(core, snapshot, client, body, lease, due).await }
}

/// The head for the backend, and behind it the payload that is there.
fn write_request(
    out: &mut Vec<u8>,
    snapshot: &Snapshot,
    client: &Client,
    head: &RequestHead,
    body: &RequestBody,
    lease: &Lease,
    rest_length: usize,
) {
    let bytes = client.buffer.filled();
    let endpoint = &lease.endpoint;
    let path = head.path(bytes);
    let rest = &path[path.len() - rest_length..];
    let base = if rest.is_empty() { &endpoint.path } else { endpoint.path.trim_end_matches('/') };
    let target = Target { authority: &endpoint.authority, path: base, rest };
    let forwarded = Forwarded { peer: &client.peer, trusted_hops: snapshot.trusted_hops };
    http::request_head(out, head, bytes, &target, &forwarded, body.framing);
    let payload = &bytes[body.prefix.clone()];
    if body.framing == Framing::Chunked && !payload.is_empty() {
        out.extend_from_slice(Chunker::size_line(payload.len()).as_ref());
        out.extend_from_slice(payload);
        out.extend_from_slice(Chunker::END);
    } else {
        out.extend_from_slice(payload);
    }
}

/// How writing to a backend ended.
#[derive(PartialEq, Eq)]
enum Sent {
    All,
    /// The backend has something to say, or ended: whichever, reading will show it.
    Answered,
}

async fn write_upstream(lease: &mut Lease, mut bytes: &[u8]) -> Sent {
    let socket = lease.socket();
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !socket.writable_unless_readable().await.unwrap_or(false) {
                    return Sent::Answered;
                }
            }
            Err(_) => return Sent::Answered,
        }
    }
    Sent::All
}

/// Streams the rest of a request body as it arrives; stops early when the backend answers.
async fn stream_body(
    core: &Core,
    snapshot: &Snapshot,
    client: &mut Client,
    body: &mut RequestBody,
    lease: &mut Lease,
    due: Due,
) -> Result<(), ProxyError> {
    // The head and the first payload are on their way; their memory is not needed any more.
    core.buffers.give(std::mem::take(&mut client.buffer));
    body.raw_end = 0;
    while !body.is_whole() {
        client.socket.deadline.set_read(core.deadlines.now().after(snapshot.limits.body_timeout));
        let side = next_readable(lease.socket(), &mut client.socket, true).await;
        if side.map_err(|_| ProxyError::ClientGone)? == Side::Upstream {
            break;
        }
        let mut buffer = core.buffers.large();
        match client.socket.try_read(buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) if client.socket.deadline.expired() => {
                return Err(ProxyError::BodyTimeout);
            }
            Ok(0) | Err(_) => return Err(ProxyError::ClientGone),
            Ok(read) => buffer.advance(read),
        }
        let extra = take_payload(core, snapshot, body, &mut buffer)?;
        if !extra.is_empty() {
            client.keep_for_later(core, &extra);
        }
        // A client that sends as fast as it may must not be cut for a backend that reads slowly.
        client.socket.deadline.clear();
        lease.socket().deadline.set(core.deadlines.now().after(snapshot.limits.write_timeout).min(due.whole));
        let sent = write_upstream(lease, buffer.filled()).await;
        core.buffers.give(buffer);
        if sent == Sent::Answered {
            break;
        }
    }
    client.socket.deadline.clear();
    Ok(())
}

/// Decodes what was read of a request body and frames it for the backend.
fn take_payload(
    core: &Core,
    snapshot: &Snapshot,
    body: &mut RequestBody,
    buffer: &mut Buffer,
) -> Result<Vec<u8>, ProxyError> {
    // Framing is counted with the payload here: it is ours, bounded, and errs to the safe side.
    let extra = reframe(buffer, &mut body.decoder, body.framing)?;
    body.payload_bytes += buffer.len() as u64;
    core.stats.borrow_mut().request_body_bytes += buffer.len() as u64;
    body.check_size(&snapshot.limits)?;
    Ok(extra)
}

/// Waits for the final answer's head: the buffer it lies in, and its length.
async fn await_answer(
    core: &Core,
    snapshot: &Snapshot,
    client: &mut Client,
    heads: &mut Heads,
    lease: &mut Lease,
    due: Due,
) -> Result<(Buffer, usize), ProxyError> {
    let limits = head_limits(&snapshot.limits);
    let mut buffer = Buffer::default();
    let mut interim = 0;
    let mut watched = true;
    lease.socket().deadline.set(due.first_byte.min(due.whole));
    loop {
        let side = next_readable(lease.socket(), &mut client.socket, watched).await;
        if side.map_err(|_| UpstreamError::Closed)? == Side::Downstream {
            watched = client.look(core)?;
            continue;
        }
        if buffer.is_unallocated() {
            buffer = core.buffers.large();
        } else if buffer.is_full() {
            buffer.grow(&core.buffers, 2 * limits.head_bytes_max);
        }
        match lease.socket().try_read(buffer.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => return Err(end_of(lease, due).into()),
            Ok(read) => buffer.advance(read),
        }
        while let Some(length) = heads.answer.decode(buffer.filled(), &limits).map_err(UpstreamError::Malformed)? {
            if heads.answer.status >= 200 {
                return Ok((buffer, length));
            }
            interim += 1;
            // 101 answers an Upgrade, and none was asked for.
            if heads.answer.status == 101 || interim > limits::INTERIM_ANSWERS_MAX {
                return Err(UpstreamError::Malformed(HttpError::Interim).into());
            }
            buffer.consume(length);
            heads.answer.reset();
        }
    }
}

/// Why a backend's connection ended before its answer began.
fn end_of(lease: &mut Lease, due: Due) -> UpstreamError {
    let deadline = &lease.socket().deadline;
    match deadline.expired() {
        true if due.whole <= deadline.now() => UpstreamError::RequestTimeout,
        true => UpstreamError::FirstByteTimeout,
        false => UpstreamError::Closed,
    }
}

/// Relays an answer whose head lies at the front of `buffer`.
#[expect(clippy::too_many_arguments, reason = "the spine hands its state down; a struct for one call would hide it")]
async fn relay_answer(
    core: &Core,
    snapshot: &Snapshot,
    cluster: &Cluster,
    client: &mut Client,
    heads: &mut Heads,
    body: &RequestBody,
    mut lease: Lease,
    mut buffer: Buffer,
    head_length: usize,
    due: Due,
) -> Outcome {
    let (head, answer) = (&heads.request, &heads.answer);
    let length = answer.body_for(head.method);
    let framing = framing_for(head, answer, length);
    let keep = head.keep_alive && body.is_whole() && framing != Framing::UntilClose && !core.draining.get();
    let persistence = match (keep, head.version) {
        (false, _) => Persistence::Close,
        (true, Version::Http10) => Persistence::Stated,
        (true, Version::Http11) => Persistence::Implied,
    };
    let is_stream = answer.is_event_stream(buffer.filled());
    let _stream = is_stream.then(|| core.count_stream());
    let wait = AnswerWait {
        idle: cluster.backend.stream_idle_timeout,
        whole: if is_stream { Tick::NEVER } else { due.whole },
        write: snapshot.limits.write_timeout,
    };
    let mut decoder = BodyDecoder::new(length);
    let split_head = {
        let mut out = core.scratch.borrow_mut();
        out.clear();
        http::response_head(&mut out, answer, buffer.filled(), framing, persistence);
        buffer.consume(head_length);
        let Ok(extra) = reframe(&mut buffer, &mut decoder, framing) else {
            core.count_refusal(Refusal::UpstreamMalformed);
            return Outcome::Abort;
        };
        if !extra.is_empty() {
            // Bytes nobody asked for: this connection can not be trusted with another exchange.
            lease.poison();
        }
        if buffer.prepend(&out) { Vec::new() } else { out.clone() }
    };
    core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
    if client.write(core, &split_head, wait.write).await.is_err()
        || client.write(core, buffer.filled(), wait.write).await.is_err()
    {
        return leave(core, &mut lease);
    }
    core.buffers.give(buffer);
    if !decoder.is_done() {
        match stream_answer(core, client, &mut lease, &mut decoder, framing, wait).await {
            Ok(()) => {}
            Err(outcome) => return outcome,
        }
    }
    if answer.keep_alive && length != BodyLength::UntilClose && body.is_whole() && !core.draining.get() {
        lease.release(&cluster.backend);
    }
    if keep { Outcome::Keep } else { Outcome::Close }
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
) -> Result<(), Outcome> {
    let mut watched = true;
    while !decoder.is_done() {
        lease.socket().deadline.set(core.deadlines.now().after(wait.idle).min(wait.whole));
        match next_readable(lease.socket(), &mut client.socket, watched).await {
            Ok(Side::Upstream) => {}
            Ok(Side::Downstream) => {
                match client.look(core) {
                    Ok(room) => watched = room,
                    Err(_) => return Err(leave(core, lease)),
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
            return Err(leave(core, lease));
        }
    }
    Ok(())
}

/// The client is gone: so is its upstream exchange, now.
fn leave(core: &Core, lease: &mut Lease) -> Outcome {
    core.count_refusal(Refusal::ClientGone);
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

/// Answers a failed exchange.
async fn refuse(
    core: &Core,
    snapshot: &Snapshot,
    client: &mut Client,
    heads: &Heads,
    body: &RequestBody,
    error: ProxyError,
    record: &mut Record,
) -> Outcome {
    core.count_refusal(error.refusal());
    if error == ProxyError::ClientGone {
        return Outcome::Abort;
    }
    record.status = Some(error.status());
    let head = &heads.request;
    let bytes = client.buffer.filled();
    let keep = head.keep_alive && body.is_whole() && !core.draining.get();
    // A body that was streamed is gone, and its id with it.
    let id = if body.raw_end > 0 && body.is_whole() { mcp::request_id(&bytes[body.prefix.clone()]) } else { None };
    let allow = match (error, body.raw_end > 0) {
        (ProxyError::MethodNotAllowed, true) => {
            match snapshot.routes.find(head.host(bytes), head.path(bytes), head.method_text(bytes)) {
                Err(NotFound::MethodNotAllowed(route)) => Some(route.allow.as_str()),
                _ => None,
            }
        }
        _ => None,
    };
    let mut answer = Vec::new();
    let with_body = head.method != Method::Head;
    respond::Refusal { error, allow, id: id.as_deref(), with_body, keep }.encode(&mut answer);
    match client.write(core, &answer, snapshot.limits.write_timeout).await {
        Ok(()) if keep => Outcome::Keep,
        Ok(()) => Outcome::Close,
        Err(_) => Outcome::Abort,
    }
}

/// What is counted of one exchange.
struct Record {
    started: Instant,
    sent: Option<Instant>,
    answered: Option<Instant>,
    route: Label,
    backend: Label,
    method: MethodLabel,
    status: Option<u16>,
}

impl Record {
    fn new(head: &RequestHead, bytes: &[u8]) -> Self {
        // The head names the MCP method from 2026-07-28 on; before, only the body does.
        let method = head.mcp_method(bytes).unwrap_or_else(|| head.method_text(bytes));
        Self {
            started: clock::now(),
            sent: None,
            answered: None,
            route: Label::NONE,
            backend: Label::NONE,
            method: MethodLabel::of(method),
            status: None,
        }
    }

    fn count(self, core: &Core) {
        let ended = clock::now();
        let mut stats = core.stats.borrow_mut();
        let class = self.status.map_or(StatusClass::Gone, StatusClass::of);
        let series = Series { route: self.route, backend: self.backend, method: self.method, class };
        *stats.requests.entry(series).or_default() += 1;
        let whole = ended.duration_since(self.started);
        stats.request_duration.record(whole);
        if let (Some(sent), Some(answered)) = (self.sent, self.answered) {
            let upstream = answered.duration_since(sent);
            stats.upstream_duration.record(upstream);
            stats.overhead.record(sent.duration_since(self.started) + ended.duration_since(answered));
        }
    }
}
