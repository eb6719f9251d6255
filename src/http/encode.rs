//! Heads as we write them: fields copied as they came, framing and forwarding always our own.

use super::{Field, FieldKind, RequestHead, ResponseHead, Trace, Version};

/// Framing of the body behind a head we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither a body nor a length.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// What `Connection` of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Stays open, as HTTP/1.1 has it without a word.
    Implied,
    /// Stays open, which an HTTP/1.0 client must be told.
    Stated,
    /// Closes.
    Close,
}

impl Persistence {
    /// What a client of this version is to be told.
    #[must_use]
    pub fn of(keep: bool, version: Version) -> Self {
        match (keep, version) {
            (false, _) => Self::Close,
            (true, Version::Http10) => Self::Stated,
            (true, Version::Http11) => Self::Implied,
        }
    }

    /// The field line, if one is needed.
    #[must_use]
    pub fn line(self) -> &'static [u8] {
        match self {
            Self::Implied => b"",
            Self::Stated => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// For `Host`.
    pub authority: &'a str,
    /// The endpoint's path.
    pub path: &'a str,
    /// Appended to it: what a prefix route left over.
    pub rest: &'a [u8],
    /// With its question mark, or nothing.
    pub query: &'a [u8],
}

impl<'a> Target<'a> {
    /// At an endpoint. What a prefix route left over begins with a slash of its own.
    #[must_use]
    pub fn at(authority: &'a str, path: &'a str, rest: &'a [u8], query: &'a [u8]) -> Self {
        let path = if rest.is_empty() { path } else { path.trim_end_matches('/') };
        Self { authority, path, rest, query }
    }
}

/// What becomes of `Mcp-Session-Id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionField<'a> {
    /// Passed on as it came.
    Keep,
    /// Left out.
    Drop,
    /// This value in its place.
    Replace(&'a [u8]),
}

/// Who sent a request, for `X-Forwarded-*` and `Forwarded`.
///
/// Without trusted hops whatever the client says of it is dropped and ours stands alone. With `n`,
/// the last `n` entries of `X-Forwarded-For` are kept and the peer is added, while
/// `X-Forwarded-Proto`, `X-Forwarded-Host` and `Forwarded` are the nearest trusted proxy's to say.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// The peer's address.
    pub peer: &'a str,
    /// Proxies in front of us that are ours.
    pub trusted_hops: usize,
}

/// What becomes of `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptField {
    /// Passed on as it came.
    Keep,
    /// Both media types an MCP client has to name (2026-07-28, "Sending messages"), unless it does.
    Complete,
}

const COMPLETE_ACCEPT: &[u8] = b"application/json, text/event-stream";

/// Whether a list of media ranges names both that an answer may come in. `*/*` names neither: servers
/// look for the names.
fn is_complete_accept(value: &[u8]) -> bool {
    let has = |wanted: &[u8]| {
        value.split(|byte| *byte == b',').any(|range| {
            let name = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(wanted)
        })
    };
    // As most clients write it.
    value == COMPLETE_ACCEPT || has(b"application/json") && has(b"text/event-stream")
}

/// What changes of a request's fields on the way to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// Who sent it.
    pub forwarded: Forwarded<'a>,
    /// `Mcp-Session-Id`.
    pub session: SessionField<'a>,
    /// `Accept`.
    pub accept: AcceptField,
    /// `traceparent` and `tracestate`.
    pub trace: Trace,
}

/// Appends the head of a request to a backend.
pub fn request_head(
    out: &mut Vec<u8>,
    head: &RequestHead,
    buffer: &[u8],
    target: &Target<'_>,
    rewrite: &Rewrite<'_>,
    framing: Framing,
) {
    request_line(out, head.method_text(buffer), target);
    request_fields(out, head, buffer, rewrite, framing);
}

/// Appends the request line of a request to a backend, and its `Host`.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &Target<'_>) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target.path.as_bytes());
    out.extend_from_slice(target.rest);
    out.extend_from_slice(target.query);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(target.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends what follows the request line: every other field, and the head's end.
pub fn request_fields(out: &mut Vec<u8>, head: &RequestHead, buffer: &[u8], rewrite: &Rewrite<'_>, framing: Framing) {
    let Rewrite { forwarded, session, accept, trace } = *rewrite;
    let mut accepts = accept == AcceptField::Keep;
    let trusted = forwarded.trusted_hops > 0;
    let (mut has_proto, mut has_host) = (false, false);
    for field in head.fields() {
        match field.kind {
            FieldKind::Host
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::Expect
            | FieldKind::XForwardedFor => continue,
            FieldKind::XForwardedProto | FieldKind::XForwardedHost | FieldKind::Forwarded if !trusted => {
                continue;
            }
            FieldKind::McpSessionId if session != SessionField::Keep => {
                session_field(out, field.name.of_buffer(buffer), session);
                continue;
            }
            FieldKind::Accept if accept == AcceptField::Complete => {
                if accepts || !is_complete_accept(field.value.of_buffer(buffer)) {
                    continue;
                }
                accepts = true;
            }
            FieldKind::TraceParent if trace.parent().is_some() => continue,
            FieldKind::TraceState if matches!(trace, Trace::Begin(_)) => continue,
            FieldKind::XForwardedProto => has_proto = true,
            FieldKind::XForwardedHost => has_host = true,
            _ => {}
        }
        copied_line(out, field, buffer);
    }
    if !accepts {
        line(out, b"Accept", COMPLETE_ACCEPT);
    }
    if let Some(parent) = trace.parent() {
        line(out, b"traceparent", &parent.text());
    }
    forwarded_for(out, head, buffer, &forwarded);
    if !has_proto {
        out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
    }
    let host = head.host(buffer);
    if !has_host && !host.is_empty() {
        line(out, b"X-Forwarded-Host", host);
    }
    if !trusted {
        forwarded_element(out, forwarded.peer, host);
    }
    frame(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// `X-Forwarded-For`: the trusted end of the list that came, and the peer.
fn forwarded_for(out: &mut Vec<u8>, head: &RequestHead, buffer: &[u8], forwarded: &Forwarded<'_>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if forwarded.trusted_hops > 0 {
        let came = || {
            head.fields()
                .iter()
                .filter(|field| field.kind == FieldKind::XForwardedFor)
                .flat_map(|field| field.value.of_buffer(buffer).split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
                .filter(|entry| !entry.is_empty())
        };
        for entry in came().skip(came().count().saturating_sub(forwarded.trusted_hops)) {
            out.extend_from_slice(entry);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(forwarded.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `Forwarded` (RFC 7239); an IPv6 address stands in brackets and quotes, a host in quotes.
fn forwarded_element(out: &mut Vec<u8>, peer: &str, host: &[u8]) {
    out.extend_from_slice(b"Forwarded: for=");
    if peer.contains(':') {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(peer.as_bytes());
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(peer.as_bytes());
    }
    if !host.is_empty() {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=http\r\n");
}

/// Appends the head of a backend's answer to a client, with `more` lines of our own.
pub fn response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    buffer: &[u8],
    session: SessionField<'_>,
    more: &[u8],
    framing: Framing,
    persistence: Persistence,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason(buffer));
    out.extend_from_slice(b"\r\n");
    for field in head.fields() {
        match field.kind {
            FieldKind::ContentLength | FieldKind::TransferEncoding | FieldKind::Connection | FieldKind::HopByHop => {}
            FieldKind::McpSessionId if session != SessionField::Keep => {
                session_field(out, field.name.of_buffer(buffer), session);
            }
            _ => copied_line(out, field, buffer),
        }
    }
    out.extend_from_slice(more);
    frame(out, framing);
    out.extend_from_slice(persistence.line());
    out.extend_from_slice(b"\r\n");
}

fn session_field(out: &mut Vec<u8>, name: &[u8], session: SessionField<'_>) {
    if let SessionField::Replace(value) = session {
        line(out, name, value);
    }
}

/// A field as it came. If its line stands in the buffer as we would write it, it is copied whole.
fn copied_line(out: &mut Vec<u8>, field: &Field, buffer: &[u8]) {
    match field.line(buffer) {
        Some(line) => out.extend_from_slice(line),
        None => line(out, field.name.of_buffer(buffer), field.value.of_buffer(buffer)),
    }
}

pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn frame(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
