//! Fetching an answer that may be shared: an exchange with a backend and no client.
//!
//! What a request asks is written down as an [`Errand`], which needs neither the client's connection
//! nor its buffer: so the fetch goes on for those who follow when the one who began it has left, and
//! may be begun for nobody, to refresh what is kept.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{HeadTerms, await_answer, end_of, write_upstream};
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
    /// The whole body.
    Body(Vec<u8>),
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
    pub(super) fn landing(&self, core: &Core, fetched: &Result<Fetched, ProxyError>) -> Landing {
        match fetched {
            Ok(fetched) => fetched
                .shared(core, &self.terms, &self.cluster.backend.cache)
                .map_or(Landing::Leader, |shared| Landing::Answer(Arc::new(shared))),
            Err(error) => Landing::Failed(*error),
        }
    }

    async fn send(&self, core: &Core, lease: &mut Lease) {
        lease.socket().deadline.set(core.deadlines.now().after(self.limits.write_timeout).min(self.due));
        let mut out = Vec::with_capacity(self.tail.len() + 256);
        let endpoint = Arc::clone(&lease.endpoint);
        let target = Target::at(&endpoint.authority, &endpoint.path, &self.rest, &self.query);
        http::request_line(&mut out, &self.method, &target);
        out.extend_from_slice(&self.tail);
        // How it went shows in the answer.
        write_upstream(lease, &out).await;
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
        let mut decoder = BodyDecoder::new(answer.body_for(heads.request.method));
        let mut events = EventReader::new(bytes_max);
        let mut first_event = None;
        let (mut payload, mut at) = (Vec::new(), *head_length);
        loop {
            while at < buffer.len() && !decoder.is_done() {
                let (used, run) = decoder.decode(&buffer.filled()[at..]).map_err(UpstreamError::Malformed)?;
                let piece = &buffer.filled()[at..][run];
                if is_stream {
                    events.feed(piece, |event| {
                        first_event.get_or_insert_with(|| event.data.to_vec());
                    });
                } else {
                    payload.extend_from_slice(piece);
                }
                at += used;
            }
            if let Some(event) = first_event {
                return Ok(Message::Event(event));
            }
            // Also of a body that came whole: the buffer has more room than may be shared.
            if payload.len() > bytes_max || buffer.len() - *head_length > bytes_max && !decoder.is_done() {
                return Ok(Message::None);
            }
            if decoder.is_done() {
                return Ok(if is_stream { Message::None } else { Message::Body(payload) });
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

    /// The answer for everybody it concerns; nothing if that is the leader alone (P-075).
    fn shared(&self, core: &Core, terms: &Terms, cache: &model::Cache) -> Option<Shared> {
        let answer = &self.heads.answer;
        let (body, from_stream) = match &self.message {
            Message::Body(body) => (body, false),
            Message::Event(data) => (data, true),
            Message::None => return None,
        };
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
            body: body.as_slice().into(),
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
