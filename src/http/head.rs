//! Request and response heads: from bytes to a typed view of them, or a refusal.

use std::mem::MaybeUninit;

use memchr::{memchr, memchr2};

use super::fields::Fields;
use super::plain;
use super::{BodyLength, Field, FieldKind, HttpError, Span, TraceParent};
use crate::limits;

/// Limits on one head; see `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, in bytes.
    pub head_bytes_max: usize,
    /// The request target, in bytes.
    pub target_bytes_max: usize,
    /// Header fields.
    pub headers_max: usize,
}

impl HeadLimits {
    /// Header fields, and no more than anybody may allow.
    fn fields_max(&self) -> usize {
        self.headers_max.min(limits::HEADERS_CEILING)
    }
}

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, no persistence unless asked for.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    /// Of what stands behind `HTTP/1.`, 0 or 1.
    pub(super) fn of(minor: u8) -> Self {
        if minor == 1 { Self::Http11 } else { Self::Http10 }
    }
}

/// Request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: the answer has no body.
    Head,
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// Any other token; its text is in the head.
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// Idempotent by RFC 9110 section 9.2.2, of those known here.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options)
    }
}

/// Finds the end of a head, looking at each byte once however it arrives.
#[derive(Debug, Default)]
struct Scan {
    /// Where the start line begins, behind empty lines.
    start: usize,
    /// Where the current line begins.
    line: usize,
    /// First byte not looked at.
    next: usize,
    empty_lines: usize,
}

impl Scan {
    /// The head's end, once it is there. Refuses bare line feeds and oversize as early as they show.
    fn find_end(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        while let Some(offset) = memchr(b'\n', &bytes[self.next..]) {
            let feed = self.next + offset;
            if feed == 0 || bytes[feed - 1] != b'\r' {
                return Err(HttpError::BareLineFeed);
            }
            let empty = feed - 1 == self.line;
            let first = self.line == self.start;
            self.next = feed + 1;
            self.line = self.next;
            if empty && first {
                self.start = self.next;
                self.empty_lines += 1;
                if self.empty_lines > limits::LEADING_EMPTY_LINES_MAX {
                    return Err(HttpError::LeadingEmptyLines);
                }
            } else if empty {
                self.check_size(self.next, limits)?;
                return Ok(Some(self.next));
            } else if first {
                self.check_start_line(self.next, limits)?;
            }
        }
        self.next = bytes.len();
        if self.line == self.start {
            self.check_start_line(bytes.len(), limits)?;
        }
        self.check_size(bytes.len(), limits)?;
        Ok(None)
    }

    /// Reads the fields of a head in plain form from the end of its start line on, where no scan has begun
    /// and none would object. The head's end.
    fn read_plain(
        &self,
        bytes: &[u8],
        start_line_end: usize,
        version: Version,
        limits: &HeadLimits,
        fields: &mut Fields,
    ) -> Option<usize> {
        self.check_start_line(start_line_end, limits).ok()?;
        let end = plain::fields(bytes, start_line_end, version, limits.fields_max(), fields)?;
        self.check_size(end, limits).ok()?;
        Some(end)
    }

    fn check_start_line(&self, end: usize, limits: &HeadLimits) -> Result<(), HttpError> {
        let around = limits::METHOD_BYTES_MAX + "  HTTP/1.1\r\n".len();
        if end - self.start > limits.target_bytes_max + around { Err(HttpError::TargetTooLong) } else { Ok(()) }
    }

    fn check_size(&self, end: usize, limits: &HeadLimits) -> Result<(), HttpError> {
        if end - self.start > limits.head_bytes_max { Err(HttpError::HeadTooLarge) } else { Ok(()) }
    }
}

/// A decoded request head: ranges into the buffer it was decoded from, which stays the caller's.
///
/// One value serves a connection's requests one after the other, so that its memory is used again.
#[derive(Debug, Default)]
pub struct RequestHead {
    scan: Scan,
    fields: Fields,
    /// Method.
    pub method: Method,
    method_text: Span,
    /// Version.
    pub version: Version,
    path: Span,
    query: Span,
    host: Span,
    /// How much body follows.
    pub body: BodyLength,
    /// Whether the client will send another request on this connection.
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    session_id: Option<Span>,
    protocol_version: Option<Span>,
    mcp_method: Option<Span>,
    mcp_name: Option<Span>,
    content_type: Option<Span>,
    origin: Option<Span>,
}

impl RequestHead {
    /// Decodes the head at the start of `bytes`. `None`: more bytes are needed, call again with all
    /// of them. `Some(n)`: the head is the first `n` bytes. After either an error or `Some`, call
    /// [`RequestHead::reset`] before the next head.
    ///
    /// # Errors
    /// The first fault found.
    pub fn decode(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        if self.scan.next == 0
            && let Some(line) = plain::request_line(bytes)
            && line.target.len() <= limits.target_bytes_max
            && let Some(end) = self.scan.read_plain(bytes, line.end, line.version, limits, &mut self.fields)
        {
            self.version = line.version;
            self.method = line.method;
            self.method_text = line.method_text.into();
            return self.read_meaning(&bytes[line.target], bytes).map(|()| Some(end));
        }
        self.decode_any(bytes, limits)
    }

    /// Decodes a head of whatever form. Apart, since the room for its fields is large.
    #[inline(never)]
    fn decode_any(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        let Some(end) = self.scan.find_end(bytes, limits)? else {
            return Ok(None);
        };
        let mut headers = [const { MaybeUninit::uninit() }; limits::HEADERS_CEILING];
        let headers = &mut headers[..limits.fields_max()];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&bytes[self.scan.start..end], headers) {
            Ok(httparse::Status::Complete(length)) if self.scan.start + length == end => {}
            // Its end is not ours: a line it took for the last one was not.
            Ok(_) => return Err(HttpError::Field),
            Err(error) => return Err(fault_of(error)),
        }
        self.read(&request, bytes, limits).map(|()| Some(end))
    }

    /// Forgets the head, to decode another.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
        self.fields.reset();
    }

    fn read(
        &mut self,
        request: &httparse::Request<'_, '_>,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<(), HttpError> {
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HttpError::StartLine);
        };
        self.version = Version::of(minor);
        self.method = Method::of(method);
        self.method_text = Span::of(method.as_bytes(), bytes);
        if method.len() > limits::METHOD_BYTES_MAX || matches!(method, "CONNECT" | "TRACE") {
            return Err(HttpError::Method);
        }
        if target.len() > limits.target_bytes_max {
            return Err(HttpError::TargetTooLong);
        }
        self.fields.fill(request.headers, bytes, self.version)?;
        self.read_meaning(target.as_bytes(), bytes)
    }

    fn read_meaning(&mut self, target: &[u8], bytes: &[u8]) -> Result<(), HttpError> {
        self.read_target(target, bytes)?;
        self.read_fields(bytes)
    }

    fn read_target(&mut self, target: &[u8], bytes: &[u8]) -> Result<(), HttpError> {
        let host = self.read_host(bytes)?;
        let (authority, path) = split_target(target)?;
        // RFC 9112 section 3.2.4.
        if path == b"*" && self.method != Method::Options {
            return Err(HttpError::Target);
        }
        if let Some(authority) = authority {
            if host.is_some_and(|host| !host.of_buffer(bytes).eq_ignore_ascii_case(authority)) {
                return Err(HttpError::HostMismatch);
            }
            if !is_authority(authority) {
                return Err(HttpError::Target);
            }
        }
        self.host = authority.map(|text| Span::of(text, bytes)).or(host).unwrap_or_default();
        let question = memchr(b'?', path).unwrap_or(path.len());
        let (path, query) = path.split_at(question);
        if has_dot_segment(path) || target.iter().any(|byte| !(0x21..=0x7e).contains(byte) || *byte == b'#') {
            return Err(HttpError::Target);
        }
        self.path = Span::of(path, bytes);
        self.query = Span::of(query, bytes);
        Ok(())
    }

    /// RFC 9112 section 3.2: exactly one on HTTP/1.1, at most one on HTTP/1.0.
    fn read_host(&self, bytes: &[u8]) -> Result<Option<Span>, HttpError> {
        let host = self.fields.single(FieldKind::Host).map_err(|_| HttpError::Host)?;
        match host {
            Some(host) if !is_authority(host.of_buffer(bytes)) => Err(HttpError::Host),
            None if self.version == Version::Http11 => Err(HttpError::Host),
            host => Ok(host),
        }
    }

    fn read_fields(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let expect = self.fields.single(FieldKind::Expect)?;
        self.expect_continue = match expect {
            Some(value) if !value.of_buffer(bytes).eq_ignore_ascii_case(b"100-continue") => {
                return Err(HttpError::Expectation);
            }
            // RFC 9110 section 10.1.1: an HTTP/1.0 expectation is ignored.
            expect => expect.is_some() && self.version == Version::Http11,
        };
        self.body = self.fields.body_length().unwrap_or(BodyLength::None);
        self.keep_alive = self.fields.persistent();
        let of_mcp = |kind| self.fields.single(kind).map_err(|_| HttpError::DuplicateMcpField);
        self.session_id = of_mcp(FieldKind::McpSessionId)?;
        self.protocol_version = of_mcp(FieldKind::McpProtocolVersion)?;
        self.mcp_method = of_mcp(FieldKind::McpMethod)?;
        self.mcp_name = of_mcp(FieldKind::McpName)?;
        self.content_type = self.fields.single(FieldKind::ContentType)?;
        self.origin = self.fields.single(FieldKind::Origin)?;
        Ok(())
    }

    /// The method's text.
    #[must_use]
    pub fn method_text<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        self.method_text.of_buffer(buffer)
    }

    /// `Content-Length` as given.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.fields.content_length()
    }

    /// Absolute path, without the query. `*` for a server-wide OPTIONS.
    #[must_use]
    pub fn path<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        self.path.of_buffer(buffer)
    }

    /// The query with its question mark, or nothing.
    #[must_use]
    pub fn query<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        self.query.of_buffer(buffer)
    }

    /// Host and port the client asked for; empty if an HTTP/1.0 client named none.
    #[must_use]
    pub fn host<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        self.host.of_buffer(buffer)
    }

    /// The first field of this lower-case name.
    #[must_use]
    pub fn field<'a>(&self, buffer: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.fields.find(buffer, name)
    }

    /// All fields in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields.list
    }

    /// `Mcp-Session-Id`.
    #[must_use]
    pub fn session_id<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.session_id.map(|span| span.of_buffer(buffer))
    }

    /// `MCP-Protocol-Version`.
    #[must_use]
    pub fn protocol_version<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.protocol_version.map(|span| span.of_buffer(buffer))
    }

    /// `Mcp-Name`, as it came.
    #[must_use]
    pub fn mcp_name<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.mcp_name.map(|span| span.of_buffer(buffer))
    }

    /// Whether the body is said to be JSON.
    #[must_use]
    pub fn is_json(&self, buffer: &[u8]) -> bool {
        is_media_type(self.content_type, buffer, b"application/json")
    }

    /// `Origin`.
    #[must_use]
    pub fn origin<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.origin.map(|span| span.of_buffer(buffer))
    }

    /// Whether `Accept` takes a stream of server-sent events.
    #[must_use]
    pub fn accepts_events(&self, buffer: &[u8]) -> bool {
        self.fields().iter().filter(|field| field.kind == FieldKind::Accept).any(|field| {
            field.value.of_buffer(buffer).split(|byte| *byte == b',').any(|range| {
                let name = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                name.eq_ignore_ascii_case(b"text/event-stream") || name == b"*/*" || name == b"text/*"
            })
        })
    }

    /// `Mcp-Method`.
    #[must_use]
    pub fn mcp_method<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.mcp_method.map(|span| span.of_buffer(buffer))
    }

    /// `traceparent`, if there is one, no second one, and it is valid.
    #[must_use]
    pub fn traceparent(&self, buffer: &[u8]) -> Option<TraceParent> {
        let value = self.fields.single(FieldKind::TraceParent).ok()??;
        TraceParent::parse(value.of_buffer(buffer))
    }
}

/// A decoded response head; see [`RequestHead`].
#[derive(Debug, Default)]
pub struct ResponseHead {
    scan: Scan,
    fields: Fields,
    /// Status code, 100 to 599.
    pub status: u16,
    reason: Span,
    /// Version.
    pub version: Version,
    /// How much body follows an answer to `GET`; ask [`ResponseHead::body_for`].
    body: Option<BodyLength>,
    /// Whether the backend will take another request on this connection.
    pub keep_alive: bool,
    content_type: Option<Span>,
    session_id: Option<Span>,
}

impl ResponseHead {
    /// As [`RequestHead::decode`].
    ///
    /// # Errors
    /// The first fault found.
    pub fn decode(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        if self.scan.next == 0
            && let Some(line) = plain::status_line(bytes)
            && let Some(end) = self.scan.read_plain(bytes, line.end, line.version, limits, &mut self.fields)
        {
            self.version = line.version;
            self.status = line.status;
            self.reason = line.reason.into();
            return self.read_fields().map(|()| Some(end));
        }
        self.decode_any(bytes, limits)
    }

    /// As [`RequestHead::decode_any`].
    #[inline(never)]
    fn decode_any(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        let Some(end) = self.scan.find_end(bytes, limits)? else {
            return Ok(None);
        };
        if self.scan.start > 0 {
            return Err(HttpError::LeadingEmptyLines);
        }
        let mut headers = [const { MaybeUninit::uninit() }; limits::HEADERS_CEILING];
        let headers = &mut headers[..limits.fields_max()];
        let config = httparse::ParserConfig::default();
        let mut response = httparse::Response::new(&mut []);
        match config.parse_response_with_uninit_headers(&mut response, &bytes[..end], headers) {
            Ok(httparse::Status::Complete(length)) if length == end => {}
            Ok(_) => return Err(HttpError::Field),
            Err(error) => return Err(fault_of(error)),
        }
        self.read(&response, bytes).map(|()| Some(end))
    }

    /// Forgets the head, to decode another.
    pub fn reset(&mut self) {
        self.scan = Scan::default();
        self.fields.reset();
    }

    fn read(&mut self, response: &httparse::Response<'_, '_>, bytes: &[u8]) -> Result<(), HttpError> {
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(HttpError::StartLine);
        };
        if !(100..600).contains(&status) {
            return Err(HttpError::StartLine);
        }
        self.status = status;
        // httparse gives an empty text of its own for a reason with obsolete bytes.
        self.reason = response
            .reason
            .filter(|text| !text.is_empty())
            .map_or(Span::default(), |text| Span::of(text.as_bytes(), bytes));
        self.version = Version::of(minor);
        self.fields.fill(response.headers, bytes, self.version)?;
        self.read_fields()
    }

    fn read_fields(&mut self) -> Result<(), HttpError> {
        self.body = self.fields.body_length();
        self.keep_alive = self.fields.persistent();
        self.content_type = self.fields.single(FieldKind::ContentType)?;
        self.session_id = self.fields.single(FieldKind::McpSessionId)?;
        Ok(())
    }

    /// How much body follows, given what was asked (RFC 9112 section 6.3).
    #[must_use]
    pub fn body_for(&self, asked: Method) -> BodyLength {
        if asked == Method::Head || self.status < 200 || matches!(self.status, 204 | 304) {
            return BodyLength::None;
        }
        self.body.unwrap_or(BodyLength::UntilClose)
    }

    /// `Content-Length` as given, also where no body follows it.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.fields.content_length()
    }

    /// The reason phrase, possibly empty.
    #[must_use]
    pub fn reason<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        self.reason.of_buffer(buffer)
    }

    /// All fields in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields.list
    }

    /// The first field of this lower-case name.
    #[must_use]
    pub fn field<'a>(&self, buffer: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.fields.find(buffer, name)
    }

    /// Whether the body is a stream of server-sent events.
    #[must_use]
    pub fn is_event_stream(&self, buffer: &[u8]) -> bool {
        is_media_type(self.content_type, buffer, b"text/event-stream")
    }

    /// Whether the body is JSON.
    #[must_use]
    pub fn is_json(&self, buffer: &[u8]) -> bool {
        is_media_type(self.content_type, buffer, b"application/json")
    }

    /// `Mcp-Session-Id`.
    #[must_use]
    pub fn session_id<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        self.session_id.map(|span| span.of_buffer(buffer))
    }
}

/// Whether a `Content-Type` is of this media type, whatever its parameters.
fn is_media_type(content_type: Option<Span>, buffer: &[u8], wanted: &[u8]) -> bool {
    content_type.map(|span| span.of_buffer(buffer)).is_some_and(|value| {
        let end = value.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(value.len());
        value[..end].eq_ignore_ascii_case(wanted)
    })
}

fn fault_of(error: httparse::Error) -> HttpError {
    match error {
        httparse::Error::Version => HttpError::Version,
        httparse::Error::TooManyHeaders => HttpError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::Field,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => HttpError::StartLine,
    }
}

/// Authority, if the target has one, and path with query.
fn split_target(target: &[u8]) -> Result<(Option<&[u8]>, &[u8]), HttpError> {
    if target.starts_with(b"/") || target == b"*" {
        return Ok((None, target));
    }
    let rest = strip_prefix_ignoring_case(target, b"http://")
        .or_else(|| strip_prefix_ignoring_case(target, b"https://"))
        .ok_or(HttpError::Target)?;
    // An absolute URL without a path would have to be read as `/`, for which there are no bytes to
    // point at; nobody sends it to an MCP endpoint.
    let slash = memchr(b'/', rest).ok_or(HttpError::Target)?;
    let (authority, path) = rest.split_at(slash);
    Ok((Some(authority), path))
}

fn strip_prefix_ignoring_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Bytes of a host's name (RFC 3986 section 3.2.2), looked up: asked for each byte of each `Host`.
const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%'
                | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        byte += 1;
    }
    table
};

/// Host and optional port (RFC 3986 section 3.2.2), without user information.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(close) = memchr(b']', rest) else {
                return false;
            };
            let (address, port) = rest.split_at(close);
            let literal = address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            if !literal {
                return false;
            }
            (address, &port[1..])
        }
        None => {
            let is_name = |byte: &u8| IS_NAME_BYTE[usize::from(*byte)];
            text.split_at(text.iter().position(|byte| !is_name(byte)).unwrap_or(text.len()))
        }
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port_is_valid && !host.is_empty()
}

/// Whether a path has a segment `.` or `..`, plain or percent-encoded: a prefix route would let it
/// climb out of the backend's path. What a backend may take for a slash ends a segment too.
fn has_dot_segment(path: &[u8]) -> bool {
    if memchr2(b'.', b'%', path).is_none() {
        return false;
    }
    let mut rest = path;
    let mut dots = None;
    loop {
        if let Some(behind) = strip_any(rest, &[b"/", b"\\", b"%2f", b"%5c"]) {
            if matches!(dots, Some(1 | 2)) {
                return true;
            }
            (rest, dots) = (behind, Some(0));
        } else if let Some(behind) = strip_any(rest, &[b".", b"%2e"]) {
            (rest, dots) = (behind, dots.map(|count: u32| count + 1));
        } else if let Some((_, behind)) = rest.split_first() {
            // A segment with anything else in it is no dot segment.
            (rest, dots) = (behind, None);
        } else {
            return matches!(dots, Some(1 | 2));
        }
    }
}

fn strip_any<'a>(text: &'a [u8], prefixes: &[&[u8]]) -> Option<&'a [u8]> {
    prefixes.iter().find_map(|prefix| strip_prefix_ignoring_case(text, prefix))
}

#[cfg(test)]
mod tests;
