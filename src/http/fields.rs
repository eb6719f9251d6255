//! Header fields as ranges into the received bytes, and what the fields say about framing.

use std::ops::Range;

use super::{BodyLength, HttpError};

/// A range of the buffer a head was decoded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Of a part of `whole`, found by address.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Self::from(start..start + part.len())
    }

    /// The bytes, out of the buffer the head was decoded from.
    #[must_use]
    pub fn of_buffer(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        // Heads are below HEAD_BYTES_CEILING.
        Self { start: range.start as u32, end: range.end as u32 }
    }
}

/// What a field means to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Passed on as it came.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// Ends at this hop: `Keep-Alive`, `TE`, `Trailer`, `Upgrade`, `Proxy-*`, and what `Connection` names.
    HopByHop,
    /// `Expect`.
    Expect,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `Forwarded`.
    Forwarded,
    /// `Mcp-Session-Id`.
    McpSessionId,
    /// `MCP-Protocol-Version`.
    McpProtocolVersion,
    /// `Mcp-Method`.
    McpMethod,
    /// `Mcp-Name`.
    McpName,
    /// `Content-Type`.
    ContentType,
    /// `Accept`.
    Accept,
    /// `Origin`.
    Origin,
    /// Says who asks: `Authorization`, `Cookie`, `DPoP`, `X-API-Key`.
    Credential,
    /// `traceparent`.
    TraceParent,
    /// `tracestate`.
    TraceState,
    /// No part of what is asked: `User-Agent`, baggage, request ids, the client's address as somebody
    /// in front knows it.
    Neutral,
}

impl FieldKind {
    /// How many kinds there are.
    const COUNT: usize = Self::Neutral as usize + 1;

    /// Whether a field of this kind says what the sender wants: it is part of what is asked.
    #[must_use]
    pub fn describes(self) -> bool {
        // A backend may make its URLs of what somebody in front says was asked for.
        let names_us = matches!(self, Self::XForwardedProto | Self::XForwardedHost);
        names_us || matches!(self, Self::Other | Self::Accept | Self::Origin | Self::ContentType)
    }

    /// Whether it is no part of what is asked, though a backend gets to see it: who shares an answer may
    /// differ in it.
    pub(super) fn is_neutral(self) -> bool {
        matches!(self, Self::Neutral | Self::TraceParent | Self::TraceState | Self::XForwardedFor | Self::Forwarded)
    }

    /// Of a field's name, in any letter case.
    pub(super) fn of(name: &[u8]) -> Self {
        kind_of(name)
    }
}

/// Length and first letter leave one candidate, so that one comparison decides and most fields,
/// which mean nothing here, need none.
fn kind_of(name: &[u8]) -> FieldKind {
    let Some(first) = name.first() else { return FieldKind::Other };
    let (candidate, kind): (&[u8], FieldKind) = match (name.len(), first | 0x20) {
        (2, b't') => (b"te", FieldKind::HopByHop),
        (4, b'd') => (b"dpop", FieldKind::Credential),
        (4, b'h') => (b"host", FieldKind::Host),
        (6, b'a') => (b"accept", FieldKind::Accept),
        (6, b'c') => (b"cookie", FieldKind::Credential),
        (6, b'o') => (b"origin", FieldKind::Origin),
        (6, b'e') => (b"expect", FieldKind::Expect),
        (7, b'b') => (b"baggage", FieldKind::Neutral),
        (7, b'u') => (b"upgrade", FieldKind::HopByHop),
        (7, b't') => (b"trailer", FieldKind::HopByHop),
        (8, b'm') => (b"mcp-name", FieldKind::McpName),
        (9, b'f') => (b"forwarded", FieldKind::Forwarded),
        (9, b'x') if name[2] | 0x20 == b'a' => (b"x-api-key", FieldKind::Credential),
        (9, b'x') => (b"x-real-ip", FieldKind::Neutral),
        (10, b'c') => (b"connection", FieldKind::Connection),
        (10, b'm') => (b"mcp-method", FieldKind::McpMethod),
        (10, b't') => (b"tracestate", FieldKind::TraceState),
        (10, b'k') => (b"keep-alive", FieldKind::HopByHop),
        (10, b'u') => (b"user-agent", FieldKind::Neutral),
        (11, b't') => (b"traceparent", FieldKind::TraceParent),
        (12, b'x') => (b"x-request-id", FieldKind::Neutral),
        (13, b'a') => (b"authorization", FieldKind::Credential),
        (13, b'l') => (b"last-event-id", FieldKind::Neutral),
        (12, b'c') => (b"content-type", FieldKind::ContentType),
        (14, b'c') => (b"content-length", FieldKind::ContentLength),
        (14, b'm') => (b"mcp-session-id", FieldKind::McpSessionId),
        (15, b'x') => (b"x-forwarded-for", FieldKind::XForwardedFor),
        (16, b'x') => (b"x-forwarded-host", FieldKind::XForwardedHost),
        (16, b'p') => (b"proxy-connection", FieldKind::HopByHop),
        (17, b't') => (b"transfer-encoding", FieldKind::TransferEncoding),
        (17, b'x') => (b"x-forwarded-proto", FieldKind::XForwardedProto),
        (18, b'p') => (b"proxy-authenticate", FieldKind::HopByHop),
        (19, b'p') => (b"proxy-authorization", FieldKind::HopByHop),
        (20, b'm') => (b"mcp-protocol-version", FieldKind::McpProtocolVersion),
        _ => return FieldKind::Other,
    };
    if name.eq_ignore_ascii_case(candidate) { kind } else { FieldKind::Other }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as it came.
    pub name: Span,
    /// The value without the whitespace around it.
    pub value: Span,
    /// What it means here.
    pub kind: FieldKind,
}

/// All fields of one head; its memory is used again for the next.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Field>,
    places: Places,
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    chunked: bool,
}

/// Where the fields of each kind stand in the list.
#[derive(Debug)]
struct Places([Place; FieldKind::COUNT]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// An index; there are fewer than [`crate::limits::HEADERS_CEILING`].
    At(u8),
    Several,
}

impl Default for Places {
    fn default() -> Self {
        Self([Place::Nowhere; FieldKind::COUNT])
    }
}

impl Places {
    fn add(&mut self, kind: FieldKind, index: usize) {
        let place = &mut self.0[kind as usize];
        *place = if *place == Place::Nowhere { Place::At(index as u8) } else { Place::Several };
    }
}

impl Fields {
    /// Takes over parsed header lines that lie in `whole`.
    pub(super) fn fill(
        &mut self,
        headers: &[httparse::Header<'_>],
        whole: &[u8],
        version_11: bool,
    ) -> Result<(), HttpError> {
        self.list.clear();
        self.places = Places::default();
        self.close = false;
        self.keep_alive = false;
        self.content_length = None;
        self.chunked = false;
        let mut names_others = false;
        for header in headers {
            let kind = kind_of(header.name.as_bytes());
            match kind {
                FieldKind::ContentLength => {
                    let length = parse_length(header.value).ok_or(HttpError::ContentLength)?;
                    if self.content_length.replace(length).is_some() {
                        return Err(HttpError::ContentLength);
                    }
                }
                FieldKind::TransferEncoding => {
                    if self.chunked || !version_11 {
                        return Err(HttpError::TransferEncodingMisuse);
                    }
                    if !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HttpError::TransferEncoding);
                    }
                    self.chunked = true;
                }
                FieldKind::Connection => names_others |= self.read_connection(header.value),
                _ => {}
            }
            self.places.add(kind, self.list.len());
            self.list.push(Field {
                name: Span::of(header.name.as_bytes(), whole),
                value: Span::of(header.value, whole),
                kind,
            });
        }
        if self.chunked && self.content_length.is_some() {
            return Err(HttpError::LengthAndEncoding);
        }
        if names_others {
            self.strip_named(whole);
        }
        Ok(())
    }

    /// Whether `Connection` names fields beside its own options.
    fn read_connection(&mut self, value: &[u8]) -> bool {
        let mut names_others = false;
        for option in list_of(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                names_others = true;
            }
        }
        names_others
    }

    /// RFC 9110 section 7.6.1. Framing and `Host` are ours anyway and cannot be named away.
    fn strip_named(&mut self, whole: &[u8]) {
        for index in 0..self.list.len() {
            let Field { kind: FieldKind::Connection, value, .. } = self.list[index] else {
                continue;
            };
            for option in list_of(value.of_buffer(whole)) {
                for field in &mut self.list {
                    let framing = matches!(
                        field.kind,
                        FieldKind::Host
                            | FieldKind::ContentLength
                            | FieldKind::TransferEncoding
                            | FieldKind::Connection
                    );
                    if !framing && field.name.of_buffer(whole).eq_ignore_ascii_case(option) {
                        self.places.0[field.kind as usize] = Place::Nowhere;
                        field.kind = FieldKind::HopByHop;
                    }
                }
            }
        }
    }

    /// The one field of this kind, if there is one.
    pub(super) fn single(&self, kind: FieldKind) -> Result<Option<Span>, HttpError> {
        match self.places.0[kind as usize] {
            Place::Nowhere => Ok(None),
            Place::At(index) => Ok(Some(self.list[usize::from(index)].value)),
            Place::Several => Err(HttpError::DuplicateField),
        }
    }

    /// The first field of this lower-case name.
    pub(super) fn find<'a>(&self, buffer: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.list
            .iter()
            .find(|field| field.name.of_buffer(buffer).eq_ignore_ascii_case(name))
            .map(|field| field.value.of_buffer(buffer))
    }

    /// Whether the sender will go on using the connection (RFC 9112 section 9.3).
    pub(super) fn persistent(&self, version_11: bool) -> bool {
        !self.close && (version_11 || self.keep_alive)
    }

    /// What the fields say of the body's length, nothing if they say nothing.
    pub(super) fn body_length(&self) -> Option<BodyLength> {
        if self.chunked {
            return Some(BodyLength::Chunked);
        }
        self.content_length.map(|length| if length == 0 { BodyLength::None } else { BodyLength::Fixed(length) })
    }

    /// `Content-Length` as given, also where no body follows it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }
}

/// Digits only: no sign, no list, no space, no overflow.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let length = value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })?;
    (length <= i64::MAX as u64).then_some(length)
}

/// The elements of a comma-separated list, trimmed, empty ones left out.
fn list_of(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}
