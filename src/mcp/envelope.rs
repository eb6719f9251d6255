//! The JSON-RPC envelope: what a message is and what names it, as ranges of the received bytes.
//!
//! Arguments and results are checked to be JSON and otherwise not looked at; nothing is ever written
//! back from what was parsed.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{self, Raw, Span, Text};
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
    id: Option<Text>,
    method_text: Option<Text>,
    params: ParamsView,
}

/// Members of `params`.
#[derive(Clone, Debug, Default)]
struct ParamsView {
    name: Option<Text>,
    uri: Option<Text>,
    task_id: Option<Text>,
    cursor: Option<Text>,
    request_id: Option<Text>,
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
        let text = json::checked(body)?;
        if json::first_byte(text) == Some(b'[') { Self::batch(text) } else { Self::message(text, text) }
    }

    /// Reads one message, all of `text`, within the body `whole`.
    fn message(text: &str, whole: &str) -> Result<Self, McpError> {
        let message: Message<'_> = json::object(text)?;
        match &message.jsonrpc {
            Some(version) if version.string()?.as_deref() == Some("2.0") => {}
            _ => return Err(McpError::JsonRpcVersion),
        }
        let id = message.id.map(|id| read_id(id, whole)).transpose()?;
        let answers = usize::from(message.result.is_some()) + usize::from(message.error.is_some());
        let Some(method) = &message.method else {
            // An error may lack an id: its sender could not read the request's.
            if answers != 1 || (id.is_none() && message.result.is_some()) {
                return Err(if answers == 0 { McpError::NotAMessage } else { McpError::Response });
            }
            return Ok(Self { id, ..Self::nameless(Kind::Response) });
        };
        if answers != 0 {
            return Err(McpError::Response);
        }
        let method_text = Text::string(method, whole)?.ok_or(McpError::NotAMessage)?;
        Ok(Self {
            kind: if id.is_some() { Kind::Request } else { Kind::Notification },
            method: MethodLabel::of(method_text.of(whole.as_bytes())),
            id,
            method_text: Some(method_text),
            params: message.params.map(|params| ParamsView::read(params, whole)).transpose()?.unwrap_or_default(),
        })
    }

    /// Reads the messages of an array, each for itself.
    fn batch(whole: &str) -> Result<Self, McpError> {
        // The iterator stops at the array's end; what lies behind is checked here.
        json::validate(whole)?;
        let mut asks = None;
        for member in sonic_rs::to_array_iter(whole) {
            let member = member.map_err(|_| McpError::Syntax)?;
            let message = Self::message(member.as_raw_str(), whole)?;
            if message.method == MethodLabel::Initialize {
                return Err(McpError::BatchInitialize);
            }
            asks = Some(asks == Some(true) || message.kind == Kind::Request);
        }
        let asks = asks.ok_or(McpError::NotAMessage)?;
        Ok(Self::nameless(Kind::Batch { asks }))
    }

    /// What has no method.
    fn nameless(kind: Kind) -> Self {
        Self { kind, method: MethodLabel::Other, id: None, method_text: None, params: ParamsView::default() }
    }

    /// The id's JSON text, a string with its quotes or an integer, as it came.
    #[must_use]
    pub fn id<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.id.as_ref().map(|text| text.of(body))
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
    pub fn cursor<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.cursor.as_ref().map(|text| text.of(body))
    }

    /// The JSON text of `params.requestId`, the id that `notifications/cancelled` names.
    #[must_use]
    pub fn cancelled_id<'a>(&'a self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.params.request_id.as_ref().map(|text| text.of(body))
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

    /// Where `_meta.traceparent` is, quotes included, if it is a string written without escapes.
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
    ///
    /// Reads the body again, since only few messages are asked this: a message with large arguments
    /// is never one of them, and is spared the second pass over its `params`.
    pub fn question<'a>(&self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let range = params_span(body).map(Span::range).unwrap_or_default();
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

/// Where `params` is, in a body that was parsed before.
fn params_span(body: &[u8]) -> Option<Span> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        params: Raw<'a>,
    }

    let text = std::str::from_utf8(body).ok()?;
    let outer: Outer<'_> = json::object(text).ok()?;
    outer.params.span(text)
}

impl ParamsView {
    fn read(params: Params<'_>, whole: &str) -> Result<Self, McpError> {
        Ok(Self {
            name: string(params.name, whole)?,
            uri: string(params.uri, whole)?,
            task_id: string(params.task_id, whole)?,
            cursor: params.cursor.map(|value| Text::raw(value, whole)),
            request_id: params.request_id.map(|value| Text::raw(value, whole)),
            initialize_version: string(params.protocol_version, whole)?,
            is_retry: params.input_responses.is_some() || params.request_state.is_some(),
            meta: params.meta.map(|meta| MetaView::read(meta, whole)).transpose()?.unwrap_or_default(),
        })
    }
}

impl MetaView {
    fn read(meta: Meta<'_>, whole: &str) -> Result<Self, McpError> {
        let span = |value: &Option<Raw<'_>>| value.as_ref()?.span(whole);
        let starts_with = |span: &Span, byte| whole.as_bytes()[span.range()].first() == Some(&byte);
        let traceparent = span(&meta.traceparent);
        let mut neutral = [
            traceparent,
            span(&meta.tracestate),
            span(&meta.baggage),
            span(&meta.client_info),
            span(&meta.progress_token),
        ];
        neutral.sort_unstable_by_key(|span| span.map(|span| span.range().start));
        Ok(Self {
            client_capabilities: span(&meta.client_capabilities).filter(|span| starts_with(span, b'{')),
            traceparent: traceparent.filter(|span| starts_with(span, b'"')),
            has_client_info: meta.client_info.is_some(),
            has_log_level: meta.log_level.is_some(),
            has_progress_token: meta.progress_token.is_some(),
            neutral,
            protocol_version: string(meta.protocol_version, whole)?,
        })
    }
}

/// A member's text, if it is there and a string.
fn string(value: Option<Raw<'_>>, whole: &str) -> Result<Option<Text>, McpError> {
    value.map_or(Ok(None), |value| Text::string(&value, whole))
}

/// An id: a string, or an integer of any size, whose text is kept.
fn read_id(value: Raw<'_>, whole: &str) -> Result<Text, McpError> {
    let text = value.as_str();
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let is_integer = is_number && !text.contains(['.', 'e', 'E']);
    // A string is decoded only to see that it can be.
    if !is_integer && value.string()?.is_none() {
        return Err(McpError::Id);
    }
    Ok(Text::raw(value, whole))
}

/// Whether two ids are the same, given as JSON texts: numbers by their digits, strings by what they
/// say, never one of each (P-006).
#[must_use]
pub fn same_id(one: &[u8], other: &[u8]) -> bool {
    one == other || (one.contains(&b'\\') || other.contains(&b'\\')) && same_string(one, other)
}

fn same_string(one: &[u8], other: &[u8]) -> bool {
    let decode = |id| sonic_rs::from_slice::<String>(id).ok();
    decode(one).is_some_and(|one| decode(other) == Some(one))
}

/// The text of a request's `id`, a string or an integer exactly as it came; nothing if the body is
/// no JSON object, has no such id, or is a response, whose id is somebody else's (P-003). For bodies
/// that [`Envelope::parse`] refuses, or that nobody else needs parsed.
#[must_use]
pub fn request_id(body: &[u8]) -> Option<Vec<u8>> {
    let text = json::checked(body).ok()?;
    let identity: Identity<'_> = json::object(text).ok()?;
    if identity.result.is_some() || identity.error.is_some() {
        return None;
    }
    read_id(identity.id?, text).ok().map(|id| id.of(body).to_vec())
}

/// The one member of a message that an answer needs, and those of messages that get none.
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    id: Option<Raw<'a>>,
    #[serde(default, deserialize_with = "json::present")]
    result: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    error: Option<IgnoredAny>,
}

/// A message's own members. Those not named are skipped.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    jsonrpc: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    id: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    method: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::inner")]
    params: Option<Params<'a>>,
    #[serde(default, deserialize_with = "json::present")]
    result: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    name: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    uri: Option<Raw<'a>>,
    #[serde(borrow, default, rename = "taskId", deserialize_with = "json::present")]
    task_id: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    cursor: Option<Raw<'a>>,
    #[serde(borrow, default, rename = "requestId", deserialize_with = "json::present")]
    request_id: Option<Raw<'a>>,
    #[serde(borrow, default, rename = "protocolVersion", deserialize_with = "json::present")]
    protocol_version: Option<Raw<'a>>,
    #[serde(default, rename = "inputResponses", deserialize_with = "json::present")]
    input_responses: Option<IgnoredAny>,
    #[serde(default, rename = "requestState", deserialize_with = "json::present")]
    request_state: Option<IgnoredAny>,
    #[serde(borrow, default, rename = "_meta", deserialize_with = "json::inner")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion", deserialize_with = "json::present")]
    protocol_version: Option<Raw<'a>>,
    #[serde(
        borrow,
        default,
        rename = "io.modelcontextprotocol/clientCapabilities",
        deserialize_with = "json::present"
    )]
    client_capabilities: Option<Raw<'a>>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientInfo", deserialize_with = "json::present")]
    client_info: Option<Raw<'a>>,
    #[serde(default, rename = "io.modelcontextprotocol/logLevel", deserialize_with = "json::present")]
    log_level: Option<IgnoredAny>,
    #[serde(borrow, default, rename = "progressToken", deserialize_with = "json::present")]
    progress_token: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    traceparent: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    tracestate: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    baggage: Option<Raw<'a>>,
}

#[cfg(test)]
mod tests;
