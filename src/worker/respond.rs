//! What the proxy answers itself.

use std::io::Write;
use std::time::Instant;

use super::connection::{Client, Outcome};
use super::core::Core;
use crate::coalesce::Shared;
use crate::error::ProxyError;
use crate::http::Persistence;
use crate::mcp::{self, ProtocolVersion};

/// An answer of our own, to be sent.
pub(super) struct Refusal<'a> {
    pub(super) error: ProxyError,
    /// For a 405.
    pub(super) allow: Option<&'a str>,
    /// The request's JSON-RPC id as it came, if it was read.
    pub(super) id: Option<&'a [u8]>,
    /// Whether a body may follow the head: not in answer to HEAD.
    pub(super) with_body: bool,
    pub(super) persistence: Persistence,
    /// For a version that is not served: those that are, and the one asked for.
    pub(super) versions: Option<(&'static [ProtocolVersion], &'a [u8])>,
}

impl Refusal<'_> {
    /// Writes the whole answer.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let body = match self.versions {
            Some((supported, requested)) => mcp::unsupported_version_body(self.id, supported, requested),
            None => mcp::error_body(self.id, self.error.json_rpc_code(), self.error.message()),
        };
        let status = self.error.status();
        // Writing into memory does not fail.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\n", reason(status));
        if let Some(allow) = self.allow {
            let _ = write!(out, "Allow: {allow}\r\n");
        }
        if let Some(seconds) = self.error.retry_after() {
            let _ = write!(out, "Retry-After: {seconds}\r\n");
        }
        out.extend_from_slice(self.persistence.line());
        let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
        if self.with_body {
            out.extend_from_slice(&body);
        }
    }
}

/// Writes an answer that was made for somebody else, for the request of this id.
pub(super) fn shared(out: &mut Vec<u8>, answer: &Shared, id: &[u8], now: Instant, persistence: Persistence) {
    let mut ttl_ms = itoa::Buffer::new();
    let body = answer.reply.splice(&answer.body, id, ttl_ms.format(answer.ttl_ms_left(now)).as_bytes());
    let length: usize = body.iter().map(|piece| piece.len()).sum();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(answer.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(&answer.reason);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&answer.head);
    out.extend_from_slice(persistence.line());
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    body.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// The answer to a message that nobody answers.
pub(super) fn accepted(persistence: Persistence) -> Vec<u8> {
    [b"HTTP/1.1 202 Accepted\r\n", persistence.line(), b"Content-Length: 0\r\n\r\n"].concat()
}

/// Refuses bytes that are no request: one answer, then the connection ends.
pub(super) async fn refuse_connection(core: &Core, client: &mut Client, error: ProxyError, with_body: bool) -> Outcome {
    core.count_refusal(error.refusal());
    end_connection(core, client, error, with_body).await
}

/// The same, counted already.
pub(super) async fn end_connection(core: &Core, client: &mut Client, error: ProxyError, with_body: bool) -> Outcome {
    let answer = last_answer(error, with_body);
    let timeout = core.snapshot().limits.write_timeout;
    match client.write(core, &answer, timeout).await {
        Ok(()) => Outcome::Close,
        Err(_) => Outcome::Abort,
    }
}

/// An answer to no request that was read, behind which the connection ends.
pub(super) fn last_answer(error: ProxyError, with_body: bool) -> Vec<u8> {
    let mut answer = Vec::new();
    Refusal { error, allow: None, id: None, with_body, persistence: Persistence::Close, versions: None }
        .encode(&mut answer);
    answer
}

/// Reason phrases of the statuses we make ourselves (RFC 9110 section 15, RFC 6585).
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
