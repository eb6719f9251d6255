//! What a request says, as far as its route wants to know.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::Client;
use super::exchange::{Exchange, Way};
use super::fetch::{Errand, Terms};
use super::record::Record;
use crate::clock::Tick;
use crate::coalesce::{Question, Scope, Slot, Validity};
use crate::config::model::{BodyMode, Protocol};
use crate::error::ProxyError;
use crate::http::{self, FieldKind, Method};
use crate::mcp::{Class, Envelope, Era, Evidence, McpError, MethodLabel, Mirrored, NameField, Role, Verb, classify};

/// A request whose answer may be shared.
pub(super) struct Asking {
    pub(super) question: Question,
    pub(super) scope: Scope,
    pub(super) terms: Rc<Terms>,
}

impl Exchange<'_> {
    /// Reads and checks the message if the route looks at it; nothing if it is relayed unparsed.
    pub(super) async fn look(
        &mut self,
        way: &Way<'_>,
        record: &mut Record,
    ) -> Result<Option<Box<Envelope>>, ProxyError> {
        if way.mode == BodyMode::Stream {
            return Ok(None);
        }
        let class = classify(&self.evidence(way, None));
        let Some(wanted) = self.wanted(way, class)? else {
            return Ok(None);
        };
        if !self.read_body(wanted.bytes_max, way.due).await? {
            return if wanted.must { Err(ProxyError::BodyTooLarge) } else { Ok(None) };
        }
        let body = self.payload();
        let message = Box::new(Envelope::parse(body)?);
        record.method = message.method;
        record.era = Some(Era::of(way.modern)).into();
        if let Some(name) = message.subject(self.payload()) {
            record.set_name(name);
        }
        if way.modern {
            let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
            let mirrored = Mirrored {
                version: head.protocol_version(bytes),
                method: head.mcp_method(bytes),
                name: head.mcp_name(bytes),
            };
            mirrored.check(&message, body, Role::Relay)?;
        } else if let Class::Refused(error) = classify(&self.evidence(way, Some(&message))) {
            return Err(error.into());
        }
        Ok(Some(message))
    }

    /// How much of the body is to be read; nothing if none of it is looked at.
    fn wanted(&self, way: &Way<'_>, class: Class) -> Result<Option<Wanted>, ProxyError> {
        let limits = &self.snapshot.limits;
        let backend = &way.cluster.backend;
        let (must, bytes_max) = match class {
            // What is neither POST nor of MCP, a browser's preflight for instance, is the backend's to judge;
            // unless it is known to have no such streams and sessions (P-001).
            Class::Refused(McpError::HttpMethod) => {
                let is_old = matches!(self.heads.request.method, Method::Get | Method::Delete);
                return if is_old && backend.protocol == Protocol::Modern {
                    Err(McpError::HttpMethod.into())
                } else {
                    Ok(None)
                };
            }
            // Which versions there are is the backend's to say, as long as nobody else has said it: a client
            // must not be told of one that it would be refused for too.
            Class::Refused(McpError::UnsupportedVersion)
                if way.mode == BodyMode::Headers && backend.protocol == Protocol::Auto =>
            {
                return Ok(None);
            }
            Class::Refused(error) => return Err(error.into()),
            Class::Stream | Class::FirstStream | Class::EndOfSession => return Ok(None),
            _ if way.mode == BodyMode::Envelope => (true, limits.envelope_bytes_max),
            // Nobody behind us would compare headers and body (P-031).
            Class::Modern if backend.protocol == Protocol::Legacy => (true, limits.envelope_bytes_max),
            Class::Modern if self.is_asked_of_headers(way) => (false, limits.envelope_bytes_max),
            Class::Modern => return Ok(None),
            Class::Handshake | Class::Legacy(_) | Class::Undecided => (false, limits.legacy_look_bytes_max),
        };
        if bytes_max == 0 {
            return Ok(None);
        }
        if !self.heads.request.is_json(self.client.buffer.filled()) {
            return Err(ProxyError::ContentType);
        }
        Ok(Some(Wanted { must, bytes_max }))
    }

    /// Whether a modern request's headers name a method whose message is needed: to share its answer,
    /// or to end its stream with one.
    fn is_asked_of_headers(&self, way: &Way<'_>) -> bool {
        let named = self.heads.request.mcp_method(self.client.buffer.filled());
        let method = named.map_or(MethodLabel::Other, MethodLabel::of);
        method == MethodLabel::SubscriptionsListen || (method.is_coalescable() && way.cluster.backend.shares())
    }

    fn evidence<'e>(&'e self, way: &Way<'_>, message: Option<&'e Envelope>) -> Evidence<'e> {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let verb = match head.method {
            Method::Post => Verb::Post,
            Method::Get => Verb::Get,
            Method::Delete => Verb::Delete,
            _ => Verb::Other,
        };
        Evidence {
            verb,
            version: head.protocol_version(bytes),
            has_session: way.residence.is_some(),
            accepts_events: verb == Verb::Get && head.accepts_events(bytes),
            message: message.map(|message| (message, self.payload())),
            serves_unversioned: way.cluster.backend.protocol != Protocol::Modern,
        }
    }

    /// The payload that lies in the client's buffer.
    pub(super) fn payload(&self) -> &[u8] {
        &self.client.buffer.filled()[self.body.prefix.clone()]
    }

    /// Reads the body whole, into the client's buffer. `false`: it is longer than `bytes_max`, and what
    /// has come of it can still be streamed.
    async fn read_body(&mut self, bytes_max: usize, due: Tick) -> Result<bool, ProxyError> {
        let head = &self.heads.request;
        if head.content_length().is_some_and(|length| length > bytes_max as u64) {
            return Ok(false);
        }
        self.ask_for_body().await?;
        let limits = &self.snapshot.limits;
        while !self.body.is_whole() {
            if self.body.prefix.len() > bytes_max {
                return Ok(false);
            }
            let Client { socket, buffer, .. } = &mut *self.client;
            socket.deadline.set_read(self.core.deadlines.now().after(limits.body_timeout).min(due));
            if buffer.is_full() {
                buffer.grow(&self.core.buffers, 2 * buffer.len());
            }
            match socket.read(buffer.space()).await {
                Ok(0) | Err(_) if socket.deadline.expired() => return Err(ProxyError::BodyTimeout),
                Ok(0) | Err(_) => return Err(ProxyError::ClientGone),
                Ok(read) => buffer.advance(read),
            }
            // What is not read whole is streamed: until a backend takes it the client owes nothing.
            socket.deadline.clear();
            self.body.advance(buffer, &self.heads.request, limits)?;
        }
        Ok(self.body.prefix.len() <= bytes_max)
    }

    /// What this request asks and for whom, if its answer may be shared.
    pub(super) fn asking(&self, way: &Way<'_>, message: &Envelope) -> Option<Asking> {
        let backend = &way.cluster.backend;
        if !backend.shares() || !message.is_coalescable() {
            return None;
        }
        let body = self.payload();
        // A legacy session is part of what is asked, unless the operator vouches for the backend.
        let session = match (way.modern, backend.coalesce.legacy_shared) {
            (true, _) | (false, true) => None,
            (false, false) => Some(self.session(way)?),
        };
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let question = self.core.sharing.question(|question| {
            question.part(&way.cluster.epochs.id.to_le_bytes());
            question.part(&way.route.0.to_le_bytes());
            question.part(head.protocol_version(bytes).unwrap_or_default());
            question.part(head.host(bytes));
            question.part(&head.path(bytes)[head.path(bytes).len() - way.rest_length..]);
            question.part(head.query(bytes));
            question.part(message.method.label().as_bytes());
            if let Some(opened) = session {
                question.part(&opened.session.endpoint.to_le_bytes());
                question.part(&opened.session.upstream_id);
            }
            message.question(body).for_each(|piece| question.part(piece));
            for field in head.fields().iter().filter(|field| field.kind.describes()) {
                question.lower_case_part(field.name.of_buffer(bytes));
                question.part(field.value.of_buffer(bytes));
            }
        });
        let credentials = head.fields().iter().filter(|field| field.kind == FieldKind::Credential);
        let scope = Scope::of(credentials.map(|field| (field.name.of_buffer(bytes), field.value.of_buffer(bytes))));
        let uri = message.named(NameField::Uri, body).unwrap_or_default();
        Some(Asking {
            question,
            scope,
            terms: Rc::new(Terms {
                id: message.id(body)?.to_vec(),
                era: Era::of(way.modern),
                validity: Validity::begin(&way.cluster.epochs, Slot::of(message.method, uri)),
                has_cursor: message.cursor(body).is_some(),
                asker: scope,
            }),
        })
    }

    /// The request, written down: it needs this exchange no more.
    pub(super) fn errand(&self, way: &Way<'_>, asking: &Asking) -> Errand {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let path = head.path(bytes);
        let mut tail = Vec::with_capacity(bytes.len() + 512);
        http::request_fields(&mut tail, head, bytes, &self.rewrite(way), self.body.framing);
        tail.extend_from_slice(self.payload());
        Errand {
            cluster: Arc::clone(way.cluster),
            residence: way.residence.cloned(),
            method: head.method_text(bytes).to_vec(),
            rest: path[path.len() - way.rest_length..].to_vec(),
            query: head.query(bytes).to_vec(),
            tail,
            limits: self.snapshot.limits.clone(),
            due: way.due,
            terms: Rc::clone(&asking.terms),
        }
    }
}

/// How much of a body is read to be looked at.
struct Wanted {
    /// A longer one is refused, not streamed.
    must: bool,
    bytes_max: usize,
}
