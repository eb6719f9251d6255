//! The JSON-RPC envelope: what a message is and what names it, as ranges of the received bytes.
//!
//! Arguments and results are checked to be JSON and otherwise not looked at; nothing is ever written
//! back from what was parsed.

use super::json::{self, Members, Scanner, Span, Text};
use super::{McpError, MethodLabel, NameField};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
    /// Several of them in an array, each valid for itself. Legal in 2025-03-26 only.
    Batch {
        /// Whether one of them is a request, so that there will be an answer.
        asks: bool,
    },
}

/// A JSON-RPC message as far as the proxy reads it. Holds no bytes: every accessor takes the body
/// that was parsed.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// Its method, from the known set.
    pub method: MethodLabel,
    id: Option<Span>,
    method_text: Option<Text>,
    params: ParamsView,
}

/// Members of `params`.
#[derive(Clone, Debug, Default)]
struct ParamsView {
    /// All of it.
    whole: Option<Span>,
    name: Option<Text>,
    uri: Option<Text>,
    task_id: Option<Text>,
    cursor: Option<Span>,
    request_id: Option<Span>,
    initialize_version: Option<Text>,
    is_retry: bool,
    meta: MetaView,
}

/// Members of `params._meta`.
#[derive(Clone, Debug, Default)]
struct MetaView {
    protocol_version: Option<Text>,
    client_capabilities: Option<Span>,
    traceparent: Option<Span>,
    has_client_info: bool,
    has_log_level: bool,
    has_progress_token: bool,
    /// Values that have no influence on the answer, in their order.
    neutral: [Option<Span>; 5],
}

impl Envelope {
    /// Reads a message: one object, or an array of them, which the caller has to refuse unless the
    /// version has batches ([`super::classify`] does).
    ///
    /// A member with a type of its own (`params.name` that is a number) is no fault here: methods we
    /// do not know may have any.
    ///
    /// # Errors
    /// The first fault found; see [`McpError`]. A body that is no JSON may be refused for something
    /// else that came before its syntax error.
    pub fn parse(body: &[u8]) -> Result<Self, McpError> {
        if body.trim_ascii_start().starts_with(b"[") { Self::batch(body) } else { Self::message(body) }
    }

    /// Reads one message, all of `body`.
    fn message(body: &[u8]) -> Result<Self, McpError> {
        let mut message = Message::default();
        json::object(body, &mut message)?;
        let says = |value: Option<Span>| value.map_or(Ok(None), |value| value.string(body));
        if says(message.jsonrpc)?.as_deref() != Some(b"2.0") {
            return Err(McpError::JsonRpcVersion);
        }
        let id = message.id.map(|id| checked_id(id, body)).transpose()?;
        let answers = usize::from(message.result.is_some()) + usize::from(message.error.is_some());
        let Some(method) = message.method else {
            // An error may lack an id: its sender could not read the request's.
            if answers != 1 || (id.is_none() && message.result.is_some()) {
                return Err(if answers == 0 { McpError::NotAMessage } else { McpError::Response });
            }
            return Ok(Self { id, ..Self::nameless(Kind::Response) });
        };
        if answers != 0 {
            return Err(McpError::Response);
        }
        let method_text = Text::string(method, body)?.ok_or(McpError::NotAMessage)?;
        Ok(Self {
            kind: if id.is_some() { Kind::Request } else { Kind::Notification },
            method: MethodLabel::of(method_text.of(body)),
            id,
            method_text: Some(method_text),
            params: ParamsView::read(&message, body)?,
        })
    }

    /// Reads the messages of an array, each for itself.
    fn batch(body: &[u8]) -> Result<Self, McpError> {
        let mut asks = None;
        json::array(body, |message| {
            let message = Self::message(message)?;
            if message.method == MethodLabel::Initialize {
                return Err(McpError::BatchInitialize);
            }
            asks = Some(asks == Some(true) || message.kind == Kind::Request);
            Ok(())
        })?;
        let asks = asks.ok_or(McpError::NotAMessage)?;
        Ok(Self::nameless(Kind::Batch { asks }))
    }

    /// What has no method.
    fn nameless(kind: Kind) -> Self {
        Self { kind, method: MethodLabel::Other, id: None, method_text: None, params: ParamsView::default() }
    }

    /// The id's JSON text, a string with its quotes or an integer, as it came.
    #[must_use]
    pub fn id<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.id.map(|span| span.of(body))
    }

    /// The method's name.
    #[must_use]
    pub fn method_text<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.method_text.as_ref().map(|text| text.of(body))
    }

    /// `params.name`, `params.uri` or `params.taskId`, if it is a string.
    #[must_use]
    pub fn named<'a>(&'a self, field: NameField, body: &'a [u8]) -> Option<&'a [u8]> {
        let text = match field {
            NameField::Name => &self.params.name,
            NameField::Uri => &self.params.uri,
            NameField::TaskId => &self.params.task_id,
        };
        text.as_ref().map(|text| text.of(body))
    }

    /// What the method acts on: what `Mcp-Name` repeats.
    #[must_use]
    pub fn subject<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.named(self.method.name_field()?, body)
    }

    /// The JSON text of `params.cursor`: absent, null and `""` are three things.
    #[must_use]
    pub fn cursor<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.cursor.map(|span| span.of(body))
    }

    /// The JSON text of `params.requestId`, the id that `notifications/cancelled` names.
    #[must_use]
    pub fn cancelled_id<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.request_id.map(|span| span.of(body))
    }

    /// `params.protocolVersion`, which `initialize` asks for.
    #[must_use]
    pub fn initialize_version<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.initialize_version.as_ref().map(|text| text.of(body))
    }

    /// Whether this continues an `input_required` answer: `inputResponses` or `requestState` is
    /// there. Never cached, never shared (2026-07-28, "Multi round-trip requests").
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.params.is_retry
    }

    /// `_meta["io.modelcontextprotocol/protocolVersion"]`.
    #[must_use]
    pub fn protocol_version<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.meta.protocol_version.as_ref().map(|text| text.of(body))
    }

    /// The JSON text of `_meta["io.modelcontextprotocol/clientCapabilities"]`, if it is an object.
    #[must_use]
    pub fn client_capabilities<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.meta.client_capabilities.map(|span| span.of(body))
    }

    /// Whether `_meta` has `io.modelcontextprotocol/clientInfo`. What it says is nobody's business
    /// here.
    #[must_use]
    pub fn has_client_info(&self) -> bool {
        self.params.meta.has_client_info
    }

    /// Whether `_meta` has `io.modelcontextprotocol/logLevel`: log messages may come before the answer.
    #[must_use]
    pub fn has_log_level(&self) -> bool {
        self.params.meta.has_log_level
    }

    /// Whether `_meta` has a `progressToken`: progress may come before the answer.
    #[must_use]
    pub fn has_progress_token(&self) -> bool {
        self.params.meta.has_progress_token
    }

    /// Where `_meta.traceparent` is, quotes included, if it is a string.
    #[must_use]
    pub fn traceparent(&self) -> Option<Span> {
        self.params.meta.traceparent
    }

    /// Whether an answer may be kept for this request and served to it: a matter of its method, and
    /// of whether it continues an earlier one (P-059).
    #[must_use]
    pub fn is_cacheable(&self) -> bool {
        self.kind == Kind::Request && self.method.is_cacheable() && !self.is_retry()
    }

    /// Whether this request may share an answer with others that ask the same at the same time. Not
    /// if it wants log messages or progress, which belong to the one that asked (P-076).
    #[must_use]
    pub fn is_coalescable(&self) -> bool {
        self.is_cacheable() && self.method.is_coalescable() && !self.has_log_level() && !self.has_progress_token()
    }

    /// What the request asks, in pieces: the text of `params` without the values in `_meta` that
    /// have no influence on the answer (`clientInfo`, trace context, progress token). Equal pieces
    /// under the same method and version mean an equal question. Members of `params` that we do not
    /// know are part of it, so that no extension can mix up two answers.
    pub fn question<'a>(&self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let range = self.params.whole.map(Span::range).unwrap_or_default();
        let end = range.end..range.end;
        let mut from = range.start;
        let gaps = self.params.meta.neutral.into_iter().flatten().map(Span::range);
        gaps.chain([end]).map(move |gap| {
            let piece = &body[from..gap.start];
            from = gap.end;
            piece
        })
    }
}

impl ParamsView {
    fn read(message: &Message, body: &[u8]) -> Result<Self, McpError> {
        let params = &message.inner;
        Ok(Self {
            whole: message.params,
            name: string(params.name, body)?,
            uri: string(params.uri, body)?,
            task_id: string(params.task_id, body)?,
            cursor: params.cursor,
            request_id: params.request_id,
            initialize_version: string(params.protocol_version, body)?,
            is_retry: params.input_responses.is_some() || params.request_state.is_some(),
            meta: MetaView::read(&params.inner, body)?,
        })
    }
}

impl MetaView {
    fn read(meta: &Meta, body: &[u8]) -> Result<Self, McpError> {
        let mut neutral = [meta.traceparent, meta.tracestate, meta.baggage, meta.client_info, meta.progress_token];
        neutral.sort_unstable_by_key(|span| span.map(|span| span.range().start));
        Ok(Self {
            client_capabilities: meta.client_capabilities.filter(|span| span.is_object(body)),
            traceparent: meta.traceparent.filter(|span| span.of(body).starts_with(b"\"")),
            has_client_info: meta.client_info.is_some(),
            has_log_level: meta.log_level.is_some(),
            has_progress_token: meta.progress_token.is_some(),
            neutral,
            protocol_version: string(meta.protocol_version, body)?,
        })
    }
}

/// A member's text, if it is there and a string.
fn string(value: Option<Span>, body: &[u8]) -> Result<Option<Text>, McpError> {
    value.map_or(Ok(None), |value| Text::string(value, body))
}

/// An id: a string, or an integer of any size, whose text is kept.
fn checked_id(id: Span, body: &[u8]) -> Result<Span, McpError> {
    let text = id.of(body);
    let is_number = matches!(text, [b'-' | b'0'..=b'9', ..]);
    let is_integer = is_number && !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    // A string is decoded only to see that it can be.
    if is_integer || id.string(body)?.is_some() { Ok(id) } else { Err(McpError::Id) }
}

/// Whether two ids are the same, given as JSON texts: numbers by their digits, strings by what they
/// say, never one of each (P-006).
#[must_use]
pub fn same_id(one: &[u8], other: &[u8]) -> bool {
    one == other || (one.contains(&b'\\') || other.contains(&b'\\')) && same_string(one, other)
}

fn same_string(one: &[u8], other: &[u8]) -> bool {
    let decode = |id| serde_json::from_slice::<String>(id).ok();
    decode(one).is_some_and(|one| decode(other) == Some(one))
}

/// The text of a request's `id`, a string or an integer exactly as it came; nothing if the body is
/// no JSON object, has no such id, or is a response, whose id is somebody else's (P-003). For bodies
/// that [`Envelope::parse`] refuses, or that nobody else needs parsed.
#[must_use]
pub fn request_id(body: &[u8]) -> Option<Vec<u8>> {
    let mut identity = Identity::default();
    json::object(body, &mut identity).ok()?;
    if identity.result.is_some() || identity.error.is_some() {
        return None;
    }
    checked_id(identity.id?, body).ok().map(|id| id.of(body).to_vec())
}

/// The one member of a message that an answer needs, and those of messages that get none.
#[derive(Default)]
struct Identity {
    id: Option<Span>,
    result: Option<Span>,
    error: Option<Span>,
}

impl Members for Identity {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"id" => value.once(&mut self.id),
            b"result" => value.once(&mut self.result),
            b"error" => value.once(&mut self.error),
            _ => value.skip(),
        }
    }
}

/// A message's own members.
#[derive(Default)]
struct Message {
    jsonrpc: Option<Span>,
    id: Option<Span>,
    method: Option<Span>,
    params: Option<Span>,
    inner: Params,
    result: Option<Span>,
    error: Option<Span>,
}

impl Members for Message {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"jsonrpc" => value.once(&mut self.jsonrpc),
            b"id" => value.once(&mut self.id),
            b"method" => value.once(&mut self.method),
            b"params" => value.inner(&mut self.params, &mut self.inner),
            b"result" => value.once(&mut self.result),
            b"error" => value.once(&mut self.error),
            _ => value.skip(),
        }
    }
}

/// Members of `params`.
#[derive(Default)]
struct Params {
    name: Option<Span>,
    uri: Option<Span>,
    task_id: Option<Span>,
    cursor: Option<Span>,
    request_id: Option<Span>,
    protocol_version: Option<Span>,
    input_responses: Option<Span>,
    request_state: Option<Span>,
    meta: Option<Span>,
    inner: Meta,
}

impl Members for Params {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"name" => value.once(&mut self.name),
            b"uri" => value.once(&mut self.uri),
            b"taskId" => value.once(&mut self.task_id),
            b"cursor" => value.once(&mut self.cursor),
            b"requestId" => value.once(&mut self.request_id),
            b"protocolVersion" => value.once(&mut self.protocol_version),
            b"inputResponses" => value.once(&mut self.input_responses),
            b"requestState" => value.once(&mut self.request_state),
            b"_meta" => value.inner(&mut self.meta, &mut self.inner),
            _ => value.skip(),
        }
    }
}

/// Members of `params._meta`.
#[derive(Default)]
struct Meta {
    protocol_version: Option<Span>,
    client_capabilities: Option<Span>,
    client_info: Option<Span>,
    log_level: Option<Span>,
    progress_token: Option<Span>,
    traceparent: Option<Span>,
    tracestate: Option<Span>,
    baggage: Option<Span>,
}

impl Members for Meta {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"io.modelcontextprotocol/protocolVersion" => value.once(&mut self.protocol_version),
            b"io.modelcontextprotocol/clientCapabilities" => value.once(&mut self.client_capabilities),
            b"io.modelcontextprotocol/clientInfo" => value.once(&mut self.client_info),
            b"io.modelcontextprotocol/logLevel" => value.once(&mut self.log_level),
            b"progressToken" => value.once(&mut self.progress_token),
            b"traceparent" => value.once(&mut self.traceparent),
            b"tracestate" => value.once(&mut self.tracestate),
            b"baggage" => value.once(&mut self.baggage),
            _ => value.skip(),
        }
    }
}

#[cfg(test)]
mod tests;
