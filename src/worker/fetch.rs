//! Fetching an answer that may be shared: an exchange with a backend and no client.
//!
//! What a request asks is written down as an [`Errand`], which needs neither the client's connection
//! nor its buffer: so the fetch goes on for those who follow when the one who began it has left, and
//! may be begun for nobody, to refresh what is kept.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{HeadTerms, await_answer, end_of, send_request};
use super::core::{Core, Heads, head_limits};
use crate::clock::{self, Tick};
use crate::coalesce::{Refresh, Scope, Shared, Validity};
use crate::config::model::{self, CacheScopeMax, Limits};
use crate::error::ProxyError;
use crate::http::{self, BodyDecoder, Buffer, Target};
use crate::mcp::{self, CacheScope, Era, EventReader, Outcome, Reply};
use crate::seam::{Invalidation, Landing};
use crate::upstream::{Cluster, Endpoint, Freshness, Lease, UpstreamError};

/// A request to a backend, written down.
pub(super) struct Errand {
    pub(super) cluster: Arc<Cluster>,
    /// Of a legacy session.
    pub(super) residence: Option<Arc<Endpoint>>,
    pub(super) method: Vec<u8>,
    /// What a prefix route leaves of the path, then the query.
    pub(super) rest: Vec<u8>,
    pub(super) query: Vec<u8>,
    /// Everything behind `Host`: fields, the head's end, the body.
    pub(super) tail: Vec<u8>,
    pub(super) limits: Limits,
    pub(super) due: Tick,
    pub(super) terms: Rc<Terms>,
}

/// What decides whether an answer may be shared.
pub(super) struct Terms {
    /// The request's id, which its answer has to carry.
    pub(super) id: Vec<u8>,
    pub(super) era: Era,
    pub(super) validity: Validity,
    /// An error to a request for a page may be one of its cursor.
    pub(super) has_cursor: bool,
    /// Whose credentials it carries.
    pub(super) asker: Scope,
}

/// An answer whose head has come, and as much of its body as was worth waiting for.
pub(super) struct Fetched {
    pub(super) lease: Lease,
    /// Head and body as they came, not consumed.
    pub(super) buffer: Buffer,
    pub(super) heads: Box<Heads>,
    pub(super) head_length: usize,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    message: Message,
}

/// The JSON-RPC message of an answer.
enum Message {
    /// The whole body, as it lies in the buffer.
    Body(Range<usize>),
    /// The whole body, out of several chunks.
    Joined(Vec<u8>),
    /// The first event of a stream.
    Event(Vec<u8>),
    /// Not found in what was collected: too long, another kind of content, other events first.
    None,
}

/// Runs an errand. Dropped, it ends the exchange at once.
pub(super) async fn fetch(core: Rc<Core>, errand: Rc<Errand>) -> Result<Fetched, ProxyError> {
    let mut freshness = Freshness::Any;
    let mut heads = core.heads();
    loop {
        let backend = &errand.cluster.backend;
        let mut lease = match &errand.residence {
            Some(endpoint) => core.upstreams.lease_pinned(endpoint, backend, freshness).await,
            None => core.upstreams.lease(&errand.cluster, None, freshness).await,
        }?;
        errand.send(&core, &mut lease).await;
        let sent = clock::now();
        let now = core.deadlines.now();
        let first_byte = now.after(backend.first_byte_timeout);
        let terms = HeadTerms { limits: head_limits(&errand.limits), first_byte, due: errand.due };
        match await_answer(&core, &mut lease, &mut heads.answer, terms, None).await {
            Ok((buffer, head_length)) => {
                let answered = clock::now();
                let message = Message::None;
                let mut fetched = Fetched { lease, buffer, heads, head_length, sent, answered, message };
                fetched.message = fetched.collect(&core, &errand).await?;
                return Ok(fetched);
            }
            // Reads may be repeated, whatever the backend made of them.
            Err(ProxyError::Upstream(UpstreamError::Closed)) if lease.reused && freshness == Freshness::Any => {
                core.stats.borrow_mut().retries += 1;
                freshness = Freshness::New;
                heads.answer.reset();
            }
            Err(error) => return Err(error),
        }
    }
}

impl Errand {
    /// What those who wait are told of how it went.
    ///
    /// `has_audience`: somebody does. If nobody does and the answer is not to be kept, it is not looked
    /// into: that costs more than relaying it (12 KiB: 20 µs beside 24).
    pub(super) fn landing(&self, core: &Core, fetched: &Result<Fetched, ProxyError>, has_audience: bool) -> Landing {
        match fetched {
            Ok(fetched) if !has_audience && !fetched.may_be_kept(&self.terms, &self.cluster.backend.cache) => {
                Landing::Leader
            }
            Ok(fetched) => fetched
                .shared(core, &self.terms, &self.cluster.backend.cache)
                .map_or(Landing::Leader, |shared| Landing::Answer(Arc::new(shared))),
            Err(error) => Landing::Failed(*error),
        }
    }

    async fn send(&self, core: &Core, lease: &mut Lease) {
        lease.socket().deadline.set(core.deadlines.now().after(self.limits.write_timeout).min(self.due));
        let mut out = core.outbox.blank();
        let endpoint = lease.endpoint();
        let target = Target::at(&endpoint.authority, &endpoint.path, &self.rest, &self.query);
        http::request_line(&mut out, &self.method, &target);
        out.extend_from_slice(&self.tail);
        // How it went shows in the answer.
        send_request(core, lease, out).await;
    }
}

impl Fetched {
    /// Reads on until the message is there, or is seen not to be worth waiting for.
    async fn collect(&mut self, core: &Core, errand: &Errand) -> Result<Message, ProxyError> {
        let Self { lease, buffer, heads, head_length, .. } = self;
        let answer = &heads.answer;
        let bytes_max = errand.limits.shared_reply_bytes_max;
        let is_stream = answer.is_event_stream(buffer.filled());
        if !is_stream && !answer.is_json(buffer.filled()) || answer.content_length() > Some(bytes_max as u64) {
            return Ok(Message::None);
        }
        // Only answers to messages are shared, and messages are posted.
        let mut decoder = BodyDecoder::new(answer.body_for(http::Method::Post));
        let mut events = EventReader::new(bytes_max);
        let mut first_event = None;
        // A body that lies in one piece needs no copy.
        let (mut body, mut joined, mut at) = (*head_length..*head_length, Vec::new(), *head_length);
        loop {
            while at < buffer.len() && !decoder.is_done() {
                let (used, run) = decoder.decode(&buffer.filled()[at..]).map_err(UpstreamError::Malformed)?;
                let run = at + run.start..at + run.end;
                at += used;
                let piece = &buffer.filled()[run.clone()];
                if is_stream {
                    events.feed(piece, |event| {
                        first_event.get_or_insert_with(|| event.data.to_vec());
                    });
                } else if !joined.is_empty() {
                    joined.extend_from_slice(piece);
                } else if body.is_empty() {
                    body = run;
                } else if run.start == body.end {
                    body.end = run.end;
                } else if !run.is_empty() {
                    joined = [&buffer.filled()[body.clone()], piece].concat();
                }
            }
            if let Some(event) = first_event {
                return Ok(Message::Event(event));
            }
            // Also of a body that came whole: the buffer has more room than may be shared.
            if body.len().max(joined.len()) > bytes_max || buffer.len() - *head_length > bytes_max && !decoder.is_done()
            {
                return Ok(Message::None);
            }
            if decoder.is_done() {
                return Ok(match joined.is_empty() {
                    _ if is_stream => Message::None,
                    true => Message::Body(body),
                    false => Message::Joined(joined),
                });
            }
            if buffer.is_full() {
                buffer.grow(&core.buffers, 2 * buffer.len());
            }
            let idle = core.deadlines.now().after(errand.cluster.backend.stream_idle_timeout);
            lease.socket().deadline.set(idle.min(errand.due));
            match lease.socket().read(buffer.space()).await {
                Ok(0) | Err(_) if lease.socket().deadline.expired() || decoder.end().is_err() => {
                    return Err(end_of(lease, errand.due, true).into());
                }
                Ok(0) | Err(_) => {}
                Ok(read) => buffer.advance(read),
            }
        }
    }

    /// The JSON-RPC message.
    fn body(&self) -> Option<&[u8]> {
        match &self.message {
            Message::Body(range) => Some(&self.buffer.filled()[range.clone()]),
            Message::Joined(body) | Message::Event(body) => Some(body),
            Message::None => None,
        }
    }

    /// Whether the answer may be worth keeping, or is so short that it may be an error, at a glance.
    fn may_be_kept(&self, terms: &Terms, cache: &model::Cache) -> bool {
        let Some(body) = self.body() else { return false };
        let has_ttl = || match terms.era {
            Era::Modern => mcp::may_have_ttl(body),
            Era::Legacy => !cache.legacy_ttl.is_zero(),
        };
        body.len() <= GLANCE_BYTES || (cache.enabled && has_ttl())
    }

    /// The answer for everybody it concerns; nothing if that is the leader alone (P-075).
    fn shared(&self, core: &Core, terms: &Terms, cache: &model::Cache) -> Option<Shared> {
        let answer = &self.heads.answer;
        let from_stream = matches!(self.message, Message::Event(_));
        let body = self.body()?;
        let reply = Reply::parse(body).ok()?;
        if matches!(answer.status, 401 | 403) || !mcp::same_id(reply.id(body)?, &terms.id) {
            return None;
        }
        let ttl = match reply.outcome {
            Outcome::Complete if answer.status == 200 => terms.ttl(&reply, cache),
            Outcome::Error(code) => {
                // P-068: a cursor the backend does not know may be one of a list that has changed.
                if terms.has_cursor && code == Some(mcp::INVALID_PARAMS) {
                    terms.validity.end();
                    core.count(Invalidation::BadCursor);
                }
                Duration::ZERO
            }
            _ => return None,
        };
        // The older revisions have no such hints: what looks like one says nothing (P-071).
        let is_public = terms.era == Era::Modern
            && reply.scope == CacheScope::Public
            && cache.scope_max == CacheScopeMax::Public
            && !http::varies_by_credential(answer, self.buffer.filled());
        let grace = |grace: Duration| if ttl.is_zero() { Duration::ZERO } else { grace };
        Some(Shared {
            status: answer.status,
            reason: answer.reason(self.buffer.filled()).into(),
            head: http::shared_fields(answer, self.buffer.filled(), from_stream)?.into(),
            body: body.into(),
            reply,
            scope: if is_public { CacheScope::Public } else { CacheScope::Private },
            asker: terms.asker,
            received: self.answered,
            ttl,
            stale_if_error: grace(cache.stale_if_error),
            stale_while_revalidate: grace(cache.stale_while_revalidate),
            validity: terms.validity.clone(),
            refresh: Refresh::default(),
        })
    }
}

/// An answer of this length is parsed in less time than it takes to say whether it is worth it.
const GLANCE_BYTES: usize = 1024;

impl Terms {
    /// How long a complete result may be kept.
    fn ttl(&self, reply: &Reply, cache: &model::Cache) -> Duration {
        match self.era {
            _ if !cache.enabled => Duration::ZERO,
            Era::Modern => Duration::from_millis(reply.ttl_ms).min(cache.ttl_max),
            Era::Legacy => cache.legacy_ttl.min(cache.ttl_max),
        }
    }
}
