//! ONE request from its head to the last byte of its answer. All control flow of a request is here.
//!
//! The order: route, room, the message as far as the route wants to know it; then either a share in
//! an answer that others wait for too, or connection, send, answer's head, relay. Until the answer's
//! head goes out every failure is an answer of our own; after that a failure can only cut the
//! answer off, in a way the client sees. Two turns back: an exchange is repeated on a fresh
//! connection when a reused one died before any byte of an answer and repeating is safe; and who
//! waited for an answer that was for somebody else asks again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::answer::{HeadTerms, await_answer};
use super::body::RequestBody;
use super::connection::{Client, Outcome};
use super::core::{Core, Heads, InForce, head_limits};
use super::download::{framing_for, leave};
use super::fetch::{Errand, Fetched, fetch};
use super::message::Asking;
use super::record::Record;
use super::respond;
use super::share::{Answer, Leading, Turn, Waiting};
use super::spawn;
use crate::clock::{self, Tick};
use crate::coalesce::Found;
use crate::config::model::{Backend, BodyMode};
use crate::error::ProxyError;
use crate::http::{self, BodyLength, Buffer, Framing, Method, Persistence, Trace};
use crate::limits;
use crate::mcp::{self, Binding, Envelope, Era, Kind, McpError, MethodLabel, NameField, ProtocolVersion};
use crate::route::NotFound;
use crate::seam::{Cached, Coalesced, Label, Landing, SessionEvent, Share};
use crate::upstream::{Affinity, Cluster, Endpoint, Freshness, Lease, UpstreamError};

/// From this version on requests stand alone. Versions are dates, and compare as text.
pub(super) const FIRST_MODERN_VERSION: &[u8] = b"2026-07-28";

/// Serves the request whose head of `head_length` bytes lies at the front of the client's buffer.
pub(super) async fn exchange(core: &Rc<Core>, client: &mut Client, heads: &mut Heads, head_length: usize) -> Outcome {
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
    let supported = ProtocolVersion::SERVED;
    let (trace, is_note, farewell) = (record.trace, false, None);
    let mut exchange = Exchange {
        core,
        snapshot: &snapshot,
        client,
        heads,
        body,
        trace,
        supported,
        is_note,
        is_read: false,
        farewell,
    };
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
pub(super) struct Exchange<'a> {
    pub(super) core: &'a Rc<Core>,
    pub(super) snapshot: &'a Rc<InForce>,
    pub(super) client: &'a mut Client,
    pub(super) heads: &'a mut Heads,
    pub(super) body: RequestBody,
    pub(super) trace: Trace,
    /// What a client is told whose version is not served.
    supported: &'static [ProtocolVersion],
    /// The message is one that nobody answers.
    is_note: bool,
    /// It was read, and only reads.
    is_read: bool,
    /// What ends the answer in good order if it is a stream that would never end by itself.
    pub(super) farewell: Option<Vec<u8>>,
}

/// Where a request goes, decided once.
pub(super) struct Way<'a> {
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) route: Label,
    /// What is looked at.
    pub(super) mode: BodyMode,
    /// Whether the request is of a version without sessions.
    pub(super) modern: bool,
    /// What a session that begins with the answer is bound to.
    pub(super) binding: Binding,
    /// How many bytes at the end of the path a prefix route leaves over.
    pub(super) rest_length: usize,
    /// Of a legacy session: the endpoint where it lives. Its ids are in the client's `session`.
    pub(super) residence: Option<&'a Arc<Endpoint>>,
    /// Requests of one affinity go to one endpoint while it can be reached.
    pub(super) affinity: Option<Affinity>,
    /// The deadline of the whole exchange.
    pub(super) due: Tick,
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
        let message = self.look(&way, record).await?;
        self.learn(&way, message.as_deref(), record);
        if let Some(message) = message {
            if let Some(asking) = self.asking(&way, &message) {
                // On the heap: it is the larger part of this future, and most requests do not share.
                return Box::pin(self.share(&way, message, asking, record)).await;
            }
            // One that could be shared if it did not want something of its own.
            if message.method.is_cacheable() {
                self.core.count(Cached::Bypass);
                record.share = Share::Bypass;
            }
        }
        self.relay(&way, record).await
    }

    /// Route, cluster, and for a legacy session the endpoint that holds it.
    fn find_way(&mut self, record: &mut Record) -> Result<Way<'a>, ProxyError> {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        self.snapshot.gate.admit(head.origin(bytes), head.host(bytes), self.client.on_loopback)?;
        let path = head.path(bytes);
        self.core.hooks.on_request(path);
        let modern = self.is_modern();
        let in_session = head.session_id(bytes).is_some() && !modern;
        let found = match self.snapshot.routes.find(head.host(bytes), path, head.method_text(bytes)) {
            Err(NotFound::NoRoute) if in_session => return Err(ProxyError::NoRouteInSession),
            found => found?,
        };
        let cluster = self.snapshot.clusters.at(found.cluster);
        let route = found.route.label;
        record.route = route;
        record.backend = cluster.label;
        self.supported = ProtocolVersion::served(cluster.backend.protocol.is_modern().map(Era::of));
        let mode = found.route.body_mode(cluster);
        let rest_length = found.rest.len();
        // Read now: when the answer comes, the head's bytes may have made room for the body's.
        let binding = if modern { Binding::default() } else { self.binding(found.route.session_binding) };
        let residence = if in_session { Some(self.find_residence(cluster, binding)?) } else { None };
        let due = whole_due(&cluster.backend, self.core.deadlines.now());
        let affinity = self.affinity(modern, record.method);
        Ok(Way { cluster, route, mode, modern, binding, rest_length, residence, affinity, due })
    }

    /// Requests about one task go to one endpoint (P-085). The header may be trusted for that: who lies
    /// in it reaches another endpoint of the same backend.
    fn affinity(&self, modern: bool, method: MethodLabel) -> Option<Affinity> {
        let names_task = modern && method.name_field() == Some(NameField::TaskId);
        let name = self.heads.request.mcp_name(self.client.buffer.filled()).filter(|_| names_task)?;
        mcp::decode_sentinel(name).ok().map(|task| Affinity::of(&task))
    }

    /// What the message, or else the head, says of how its answer is to be treated.
    fn learn(&mut self, way: &Way<'_>, message: Option<&Envelope>, record: &Record) {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        self.is_note = match message {
            Some(message) => matches!(message.kind, Kind::Notification | Kind::Response),
            None => head.mcp_method(bytes).is_some_and(|method| way.modern && method.starts_with(b"notifications/")),
        };
        self.is_read = message.is_some_and(|message| message.method.is_read());
        self.farewell = match message {
            _ if head.method == Method::Get && !way.modern => Some(Vec::new()),
            Some(message) if record.method == MethodLabel::SubscriptionsListen => {
                message.id(self.payload()).map(mcp::listen_end)
            }
            _ => None,
        };
    }

    /// From 2026-07-28 on there are no sessions: an id on such a request means nothing.
    fn is_modern(&self) -> bool {
        let version = self.heads.request.protocol_version(self.client.buffer.filled());
        version.is_some_and(|version| version >= FIRST_MODERN_VERSION)
    }

    /// Answers with what is kept, or with what is fetched once for all who ask the same now.
    async fn share(
        &mut self,
        way: &Way<'a>,
        message: Box<Envelope>,
        mut asking: Asking,
        record: &mut Record,
    ) -> Result<Outcome, ProxyError> {
        let sharing = &self.core.sharing;
        for _ in 0..limits::SHARE_ATTEMPTS_MAX {
            let mut stand_in = None;
            match sharing.find(&asking.question, asking.scope, record.started) {
                Found::Fresh(answer) => {
                    self.core.count(Cached::Hit);
                    record.share = Share::Hit;
                    return self.serve(&asking, &answer, record).await;
                }
                Found::Stale { shared, while_revalidate: true, .. } => {
                    self.refresh(way, &asking, &shared, record);
                    self.core.count(Cached::Stale);
                    record.share = Share::Stale;
                    return self.serve(&asking, &shared, record).await;
                }
                Found::Stale { shared, if_error, .. } => stand_in = if_error.then_some(shared),
                Found::Nothing => {}
            }
            if record.share == Share::None {
                self.core.count(Cached::Miss);
                record.share = Share::Miss;
            }
            if !way.cluster.backend.coalesce.enabled {
                return self.lead(way, &asking, None, stand_in, record).await;
            }
            let waiting = sharing.take_seat(&asking.question, asking.scope, asking.terms.validity.epoch());
            match self.turn(waiting, way.due).await? {
                Turn::Lead(leading) => {
                    self.core.count(Coalesced::Leader);
                    record.share = Share::Leader;
                    return self.lead(way, &asking, Some(leading), stand_in, record).await;
                }
                Turn::Landed(Landing::Answer(answer)) => {
                    self.core.count(Coalesced::Follower);
                    record.share = Share::Follower;
                    return self.serve(&asking, &answer, record).await;
                }
                Turn::Landed(Landing::Failed(error)) => {
                    self.core.count(Coalesced::Follower);
                    record.share = Share::Follower;
                    return self.stand_in(&asking, stand_in, error, record).await;
                }
                Turn::Landed(Landing::Leader) => break,
                Turn::Landed(Landing::Again) => {
                    self.core.count(Coalesced::Redispatched);
                    // As of now: what was asked before may have become void.
                    let Some(again) = self.asking(way, &message) else { break };
                    asking = again;
                }
            }
        }
        self.core.count(Coalesced::Alone);
        self.relay(way, record).await
    }

    /// Waits for its turn, no longer than the exchange may last.
    async fn turn(&mut self, mut waiting: Waiting, due: Tick) -> Result<Turn, ProxyError> {
        let core = Rc::clone(self.core);
        let alarm = core.alarms.add();
        alarm.set(due);
        let turn = poll_fn(|cx| {
            if let Poll::Ready(turn) = waiting.poll(cx) {
                return Poll::Ready(Ok(turn));
            }
            // A drain rings too.
            while alarm.poll(cx).is_ready() {
                if core.deadlines.now() >= due {
                    return Poll::Ready(Err(UpstreamError::RequestTimeout.into()));
                }
                alarm.set(due);
            }
            Poll::Pending
        });
        self.unless_client_leaves(pin!(turn)).await?
    }

    /// Fetches an answer for all who wait, and relays it.
    async fn lead(
        &mut self,
        way: &Way<'a>,
        asking: &Asking,
        leading: Option<Leading>,
        stand_in: Option<Answer>,
        record: &mut Record,
    ) -> Result<Outcome, ProxyError> {
        let errand = Rc::new(self.errand(way, asking));
        let mut fetching = Box::pin(fetch(Rc::clone(self.core), Rc::clone(&errand)));
        let fetched = match self.unless_client_leaves(fetching.as_mut()).await {
            Ok(fetched) => fetched,
            Err(gone) => {
                if let Some(leading) = leading.filter(Leading::has_audience) {
                    carry_on(self.core, fetching, leading, errand);
                }
                return Err(gone);
            }
        };
        let has_audience = leading.as_ref().is_some_and(Leading::has_audience);
        let landing = errand.landing(self.core, &fetched, has_audience);
        match leading {
            Some(leading) => leading.land(&landing),
            None => self.core.sharing.keep(&asking.question, &landing),
        }
        match fetched {
            Err(error) => self.stand_in(asking, stand_in, error, record).await,
            Ok(Fetched { mut lease, mut buffer, mut heads, head_length, sent, answered, .. }) => {
                std::mem::swap(&mut self.heads.answer, &mut heads.answer);
                self.core.keep_heads(heads);
                record.sent = Some(sent);
                record.answered = Some(answered);
                record.status = Some(self.heads.answer.status);
                self.relay_answer(way, &mut lease, &mut buffer, head_length, record).await
            }
        }
    }

    /// Fetches a new answer in the background for one that has outlived its time.
    fn refresh(&self, way: &Way<'a>, asking: &Asking, stale: &Answer, record: &Record) {
        let age = stale.age(record.started).as_millis();
        if stale.refresh.begin(u64::try_from(age).unwrap_or(u64::MAX)) {
            refresh_later(self.core, self.errand(way, asking), asking, Arc::clone(stale));
        }
    }

    /// Answers a failure with what is kept for it, if anything is.
    async fn stand_in(
        &mut self,
        asking: &Asking,
        stand_in: Option<Answer>,
        error: ProxyError,
        record: &mut Record,
    ) -> Result<Outcome, ProxyError> {
        match stand_in {
            Some(answer) => {
                self.core.count(Cached::Stale);
                record.share = Share::Stale;
                self.serve(asking, &answer, record).await
            }
            None => Err(error),
        }
    }

    /// Answers with an answer that was made for somebody else.
    async fn serve(&mut self, asking: &Asking, answer: &Answer, record: &mut Record) -> Result<Outcome, ProxyError> {
        let head = &self.heads.request;
        let keep = head.keep_alive && !self.core.lets_go();
        let persistence = Persistence::of(keep, head.version);
        record.status = Some(answer.status);
        record.response_bytes = answer.body.len() as u64;
        self.core.stats.borrow_mut().response_body_bytes += answer.body.len() as u64;
        let mut out = self.core.outbox.blank();
        respond::shared(&mut out, answer, &asking.terms.id, record.started, persistence);
        self.client.send(self.core, out, self.snapshot.limits.write_timeout).await?;
        Ok(if keep { Outcome::Keep } else { Outcome::Close })
    }

    /// Sends the request and relays its answer.
    async fn relay(&mut self, way: &Way<'a>, record: &mut Record) -> Result<Outcome, ProxyError> {
        let mut freshness = Freshness::Any;
        let (mut lease, mut buffer, answer_length) = loop {
            let mut lease = self.lease(way, freshness).await?;
            let attempt = async {
                self.send(way, &mut lease).await?;
                record.sent = Some(clock::now());
                self.await_answer(way, &mut lease).await
            };
            match attempt.await {
                Ok((buffer, length)) => break (lease, buffer, length),
                Err(ProxyError::Upstream(UpstreamError::Closed))
                    if lease.reused
                        && freshness == Freshness::Any
                        && self.body.may_repeat(self.heads.request.method, self.is_read) =>
                {
                    self.core.stats.borrow_mut().retries += 1;
                    freshness = Freshness::New;
                }
                Err(error) => return Err(error),
            }
        };
        record.answered = Some(clock::now());
        record.status = Some(self.heads.answer.status);
        self.relay_answer(way, &mut lease, &mut buffer, answer_length, record).await
    }

    /// A connection to the backend, unless the client leaves first: then nothing must be sent.
    async fn lease(&mut self, way: &Way<'_>, freshness: Freshness) -> Result<Lease, ProxyError> {
        let core = self.core;
        let leasing = async {
            match way.residence {
                Some(endpoint) => core.upstreams.lease_pinned(endpoint, &way.cluster.backend, freshness).await,
                None => core.upstreams.lease(way.cluster, way.affinity, freshness).await,
            }
        };
        Ok(self.unless_client_leaves(pin!(leasing)).await??)
    }

    /// What comes of `future`, unless the client leaves first. What it sends meanwhile is kept.
    async fn unless_client_leaves<T>(
        &mut self,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, ProxyError> {
        let core = self.core;
        // The rest of a body that streams is not to be read yet, and a leave cannot be seen behind it.
        let mut watched = self.body.is_whole();
        poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
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

    /// Waits for the answer's head, while the client waits too.
    async fn await_answer(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(Buffer, usize), ProxyError> {
        let first_byte = self.core.deadlines.now().after(way.cluster.backend.first_byte_timeout);
        let terms = HeadTerms { limits: head_limits(&self.snapshot.limits), first_byte, due: way.due };
        await_answer(self.core, lease, &mut self.heads.answer, terms, Some(self.client)).await
    }

    /// Relays an answer whose head lies at the front of `buffer`. An error: nothing has gone out yet.
    /// What is lent here and not given would be held twice by this future.
    async fn relay_answer(
        &mut self,
        way: &Way<'_>,
        lease: &mut Lease,
        buffer: &mut Buffer,
        head_length: usize,
        record: &mut Record,
    ) -> Result<Outcome, ProxyError> {
        let core = self.core;
        if self.is_lost_session(way, lease, buffer, head_length).await? {
            return Err(ProxyError::SessionLost);
        }
        let (head, answer) = (&self.heads.request, &self.heads.answer);
        let length = answer.body_for(head.method);
        if self.is_note && (200..300).contains(&answer.status) && (answer.status, length) != (202, BodyLength::None) {
            return self.accept_note(record).await;
        }
        let framing = framing_for(head, answer, length);
        let keep = head.keep_alive && self.body.is_whole() && framing != Framing::UntilClose && !core.lets_go();
        let persistence = Persistence::of(keep, head.version);
        let is_stream = answer.is_event_stream(buffer.filled());
        let _stream = is_stream.then(|| core.count_stream());
        let upstream_id = answer.session_id(buffer.filled());
        // Only a legacy server gives session ids; a modern request that it took shows a modern one.
        if upstream_id.is_some() {
            lease.saw(Era::Legacy);
        } else if way.modern && answer.status == 200 {
            lease.saw(Era::Modern);
        }
        if way.residence.is_some() && head.method == Method::Delete && matches!(answer.status, 200..=299) {
            core.count(SessionEvent::Ended);
        }
        let token = self.session_for_client(way, lease, upstream_id);
        let mut download = self.download(way, length, framing, buffer.filled(), record.method);
        let head = {
            let mut out = core.outbox.blank();
            // Somebody in front of us must not hold events back (P-051).
            let unbuffered = is_stream && answer.field(buffer.filled(), b"x-accel-buffering").is_none();
            let more: &[u8] = if unbuffered { b"X-Accel-Buffering: no\r\n" } else { b"" };
            http::response_head(&mut out, answer, buffer.filled(), token.field(), more, framing, persistence);
            buffer.consume(head_length);
            let extra = download.pass(core, buffer).map_err(UpstreamError::Malformed)?;
            if !extra.is_empty() {
                // Bytes nobody asked for: this connection can not be trusted with another exchange.
                lease.poison();
            }
            core.stats.borrow_mut().response_body_bytes += buffer.len() as u64;
            record.response_bytes = download.decoder.payload_bytes();
            out
        };
        // While the client does not read, the backend is not read either, and owes us nothing.
        lease.socket().deadline.set(download.wait.whole);
        let is_whole = download.decoder.is_done();
        if self.client.send_answer(core, head, buffer, is_whole, download.wait.write).await.is_err() {
            return Ok(leave(core, self.client, record));
        }
        core.buffers.give(std::mem::take(buffer));
        let reusable = answer.keep_alive && length != BodyLength::UntilClose && self.body.is_whole();
        if !download.decoder.is_done() {
            record.relayed = Some(clock::now());
            self.let_go_of_request();
            let relayed = download.run(core, self.client, lease, record).await;
            record.response_bytes = download.decoder.payload_bytes();
            if let Err(outcome) = relayed {
                return Ok(outcome);
            }
        }
        if reusable && download.decoder.is_done() && !core.draining.get() {
            lease.release(&way.cluster.backend);
        }
        Ok(if keep && !core.draining.get() { Outcome::Keep } else { Outcome::Close })
    }

    /// Answers a notification or a response as it has to be answered, whatever the backend said (P-003).
    async fn accept_note(&mut self, record: &mut Record) -> Result<Outcome, ProxyError> {
        record.status = Some(202);
        let head = &self.heads.request;
        let keep = head.keep_alive && self.body.is_whole() && !self.core.lets_go();
        let answer = respond::accepted(Persistence::of(keep, head.version));
        self.client.send(self.core, answer, self.snapshot.limits.write_timeout).await?;
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
        let keep = head.keep_alive && usable && !core.lets_go();
        // A body that was streamed is gone, and its id and the head's text with it.
        let at_hand = self.body.raw_end > 0;
        let id = (at_hand && self.body.is_whole()).then(|| mcp::request_id(&bytes[self.body.prefix.clone()])).flatten();
        let allow = match error {
            ProxyError::MethodNotAllowed => {
                Some(self.snapshot.routes.allowed(head.host(bytes), head.path(bytes)).join(", "))
            }
            // An endpoint without sessions takes messages only.
            ProxyError::Mcp(McpError::HttpMethod) => Some("POST".to_owned()),
            _ => None,
        };
        let mut answer = Vec::new();
        let refusal = respond::Refusal {
            error,
            allow: allow.as_deref(),
            id: id.as_deref(),
            with_body: head.method != Method::Head,
            persistence: Persistence::of(keep, head.version),
            versions: (error == ProxyError::Mcp(McpError::UnsupportedVersion))
                .then(|| (self.supported, head.protocol_version(bytes).filter(|_| at_hand).unwrap_or_default())),
        };
        refusal.encode(&mut answer);
        match self.client.write(core, &answer, self.snapshot.limits.write_timeout).await {
            Ok(()) if keep => Outcome::Keep,
            Ok(()) => Outcome::Close,
            Err(_) => Outcome::Abort,
        }
    }
}

/// Goes on with a fetch whose client has left, for those who wait for its answer; until they have
/// left too (P-074).
fn carry_on(
    core: &Rc<Core>,
    mut fetching: Pin<Box<impl Future<Output = Result<Fetched, ProxyError>> + 'static>>,
    leading: Leading,
    errand: Rc<Errand>,
) {
    let worker = Rc::clone(core);
    let work = async move {
        let fetched = poll_fn(|cx| match fetching.as_mut().poll(cx) {
            Poll::Ready(fetched) => Poll::Ready(Some(fetched)),
            Poll::Pending => leading.poll_deserted(cx).map(|()| None),
        });
        if let Some(fetched) = fetched.await {
            leading.land(&errand.landing(&worker, &fetched, true));
        }
    };
    spawn(core, work);
}

/// Fetches an answer for nobody, to have it when somebody asks.
fn refresh_later(core: &Rc<Core>, errand: Errand, asking: &Asking, stale: Answer) {
    let (question, scope) = (asking.question.clone(), asking.scope);
    let pause = core.jitter(REFRESH_JITTER);
    let worker = Rc::clone(core);
    let work = async move {
        if !worker.rest(pause).await {
            return;
        }
        // Who asked meanwhile and had nothing may have brought one.
        if let Found::Fresh(_) = worker.sharing.find(&question, scope, clock::now()) {
            return;
        }
        let mut waiting = worker.sharing.take_seat(&question, scope, errand.terms.validity.epoch());
        // Who comes second has nothing to do: the answer lands in the cache.
        if let Turn::Lead(leading) = poll_fn(|cx| waiting.poll(cx)).await {
            let errand = Rc::new(errand);
            let fetched = fetch(Rc::clone(&worker), Rc::clone(&errand)).await;
            let landing = errand.landing(&worker, &fetched, leading.has_audience());
            if !matches!(landing, Landing::Answer(_)) {
                stale.refresh.failed();
            }
            leading.land(&landing);
        }
    };
    spawn(core, work);
}

/// Many replicas keep the same answers: they must not all refresh them at the same moment (P-069).
const REFRESH_JITTER: Duration = Duration::from_millis(500);
