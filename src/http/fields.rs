//! Header fields as ranges into the received bytes, and what the fields say about framing.

use std::ops::Range;

use super::{BodyLength, HttpError, Version};
use crate::limits;

/// A range of the buffer a head was decoded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Of a part of `whole`, found by address.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = offset_of(part, whole);
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

/// Where a part of `whole` begins, by its address.
fn offset_of(part: &[u8], whole: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
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
        // The length leaves few candidates, so that most fields, which mean nothing here, cost next to nothing.
        match name.len() {
            2 if name.eq_ignore_ascii_case(b"te") => Self::HopByHop,
            4 if is(name, b"dpop") => Self::Credential,
            4 if is(name, b"host") => Self::Host,
            6 if is(name, b"accept") => Self::Accept,
            6 if is(name, b"cookie") => Self::Credential,
            6 if is(name, b"expect") => Self::Expect,
            6 if is(name, b"origin") => Self::Origin,
            7 if is(name, b"baggage") => Self::Neutral,
            7 if is(name, b"trailer") => Self::HopByHop,
            7 if is(name, b"upgrade") => Self::HopByHop,
            8 if is(name, b"mcp-name") => Self::McpName,
            9 if is(name, b"forwarded") => Self::Forwarded,
            9 if is(name, b"x-api-key") => Self::Credential,
            9 if is(name, b"x-real-ip") => Self::Neutral,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::HopByHop,
            10 if is(name, b"mcp-method") => Self::McpMethod,
            10 if is(name, b"tracestate") => Self::TraceState,
            10 if is(name, b"user-agent") => Self::Neutral,
            11 if is(name, b"traceparent") => Self::TraceParent,
            12 if is(name, b"content-type") => Self::ContentType,
            12 if is(name, b"x-request-id") => Self::Neutral,
            13 if is(name, b"authorization") => Self::Credential,
            13 if is(name, b"last-event-id") => Self::Neutral,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"mcp-session-id") => Self::McpSessionId,
            15 if is(name, b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(name, b"proxy-connection") => Self::HopByHop,
            16 if is(name, b"x-forwarded-host") => Self::XForwardedHost,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(name, b"x-forwarded-proto") => Self::XForwardedProto,
            18 if is(name, b"proxy-authenticate") => Self::HopByHop,
            19 if is(name, b"proxy-authorization") => Self::HopByHop,
            20 if is(name, b"mcp-protocol-version") => Self::McpProtocolVersion,
            _ => Self::Other,
        }
    }
}

/// Whether `name` is `candidate`, of lower-case letters and dashes, in any letter case. It compares
/// words, the last overlapping the one before, where `eq_ignore_ascii_case` compares bytes.
fn is<const N: usize>(name: &[u8], candidate: &[u8; N]) -> bool {
    const { assert!(N >= 4, "a word") }
    let differ = |(name, wanted): (&[u8; 4], &[u8; 4])| {
        let (name, wanted) = (u32::from_le_bytes(*name), u32::from_le_bytes(*wanted));
        // Case is bit 0x20 of letters, which are what has bit 0x40 here: a dash has to be a dash.
        (name | ((wanted & 0x4040_4040) >> 1)) ^ wanted
    };
    let words = name.as_chunks().0.iter().zip(candidate.as_chunks().0);
    let last = name.last_chunk().zip(candidate.last_chunk());
    name.len() == N && words.chain(last).fold(0, |all, pair| all | differ(pair)) == 0
}

/// Whether these are the bytes of a name (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| IS_TOKEN_BYTE[usize::from(*byte)])
}

const IS_TOKEN_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

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

impl Field {
    /// The whole line with its end, if nothing but a colon and a space stands between name and value,
    /// and nothing behind the value.
    pub(super) fn line(self, buffer: &[u8]) -> Option<&[u8]> {
        let (name, value) = (self.name, self.value);
        let line = buffer.get(name.start as usize..value.end as usize + 2)?;
        let between = &buffer[name.end as usize..value.start as usize];
        (between == b": " && line.ends_with(b"\r\n")).then_some(line)
    }
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
    version: Version,
    /// `Connection` names fields beside its own options.
    names_others: bool,
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
        version: Version,
    ) -> Result<(), HttpError> {
        self.begin(version);
        for header in headers {
            let name = header.name.as_bytes();
            self.add(FieldKind::of(name), Span::of(name, whole), Span::of(header.value, whole), header.value)?;
        }
        self.end(whole)
    }

    /// Forgets all fields, and the memory of unusually many.
    pub(super) fn reset(&mut self) {
        self.list.clear();
        self.list.shrink_to(limits::FIELDS_KEPT_MAX);
    }

    /// Forgets all fields, to take those of another head one by one.
    pub(super) fn begin(&mut self, version: Version) {
        self.list.clear();
        self.places = Places::default();
        self.close = false;
        self.keep_alive = false;
        self.content_length = None;
        self.chunked = false;
        self.version = version;
        self.names_others = false;
    }

    /// Takes the next field, whose value is `text`.
    pub(super) fn add(&mut self, kind: FieldKind, name: Span, value: Span, text: &[u8]) -> Result<(), HttpError> {
        match kind {
            FieldKind::ContentLength => {
                let length = parse_length(text).ok_or(HttpError::ContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(HttpError::ContentLength);
                }
            }
            FieldKind::TransferEncoding => {
                if self.chunked || self.version == Version::Http10 {
                    return Err(HttpError::TransferEncodingMisuse);
                }
                if !text.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpError::TransferEncoding);
                }
                self.chunked = true;
            }
            FieldKind::Connection => self.read_connection(text),
            _ => {}
        }
        self.places.add(kind, self.list.len());
        self.list.push(Field { name, value, kind });
        Ok(())
    }

    /// Looks at them together, behind the last.
    pub(super) fn end(&mut self, whole: &[u8]) -> Result<(), HttpError> {
        if self.chunked && self.content_length.is_some() {
            return Err(HttpError::LengthAndEncoding);
        }
        if self.names_others {
            self.strip_named(whole);
        }
        Ok(())
    }

    fn read_connection(&mut self, value: &[u8]) {
        for option in list_of(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.names_others = true;
            }
        }
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
    pub(super) fn persistent(&self) -> bool {
        !self.close && (self.version == Version::Http11 || self.keep_alive)
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

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, FieldKind)] = &[
        ("Accept", FieldKind::Accept),
        ("Authorization", FieldKind::Credential),
        ("Baggage", FieldKind::Neutral),
        ("Connection", FieldKind::Connection),
        ("Content-Length", FieldKind::ContentLength),
        ("Content-Type", FieldKind::ContentType),
        ("Cookie", FieldKind::Credential),
        ("DPoP", FieldKind::Credential),
        ("Expect", FieldKind::Expect),
        ("Forwarded", FieldKind::Forwarded),
        ("Host", FieldKind::Host),
        ("Keep-Alive", FieldKind::HopByHop),
        ("Last-Event-ID", FieldKind::Neutral),
        ("Mcp-Method", FieldKind::McpMethod),
        ("Mcp-Name", FieldKind::McpName),
        ("MCP-Protocol-Version", FieldKind::McpProtocolVersion),
        ("Mcp-Session-Id", FieldKind::McpSessionId),
        ("Origin", FieldKind::Origin),
        ("Proxy-Authenticate", FieldKind::HopByHop),
        ("Proxy-Authorization", FieldKind::HopByHop),
        ("Proxy-Connection", FieldKind::HopByHop),
        ("TE", FieldKind::HopByHop),
        ("traceparent", FieldKind::TraceParent),
        ("tracestate", FieldKind::TraceState),
        ("Trailer", FieldKind::HopByHop),
        ("Transfer-Encoding", FieldKind::TransferEncoding),
        ("Upgrade", FieldKind::HopByHop),
        ("User-Agent", FieldKind::Neutral),
        ("X-API-Key", FieldKind::Credential),
        ("X-Forwarded-For", FieldKind::XForwardedFor),
        ("X-Forwarded-Host", FieldKind::XForwardedHost),
        ("X-Forwarded-Proto", FieldKind::XForwardedProto),
        ("X-Real-IP", FieldKind::Neutral),
        ("X-Request-Id", FieldKind::Neutral),
    ];

    fn check(name: &[u8]) {
        let listed = NAMES.iter().find(|(listed, _)| name.eq_ignore_ascii_case(listed.as_bytes()));
        let kind = listed.map_or(FieldKind::Other, |(_, kind)| *kind);
        assert_eq!(FieldKind::of(name), kind, "{}", name.escape_ascii());
    }

    #[test]
    fn a_name_is_known_in_every_letter_case_and_no_other_byte_passes_for_one_of_its_own() {
        check(b"");
        for (name, _) in NAMES {
            for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase(), (*name).to_owned()] {
                let name = name.as_bytes();
                check(&name[1..]);
                check(&[name, b"s"].concat());
                for place in 0..name.len() {
                    for byte in 0..=u8::MAX {
                        let mut other = name.to_vec();
                        other[place] = byte;
                        check(&other);
                    }
                }
            }
        }
    }
}
