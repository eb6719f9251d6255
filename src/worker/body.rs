//! A request's body between the client's buffer and the backend's framing.

use std::ops::Range;

use super::connection::Client;
use crate::config::model::Limits;
use crate::error::ProxyError;
use crate::http::{BodyDecoder, BodyLength, Buffer, Framing, Method, RequestHead};

/// A request's body as far as it has come.
pub(super) struct RequestBody {
    pub(super) decoder: BodyDecoder,
    /// Payload that came with the head: a range of the client's buffer.
    pub(super) prefix: Range<usize>,
    /// Where the bytes of this request end in the client's buffer.
    pub(super) raw_end: usize,
    pub(super) framing: Framing,
}

impl RequestBody {
    /// Looks at what came with the head. A body that came whole is checked whole, before a backend
    /// hears of it.
    pub(super) fn open(
        client: &mut Client,
        head: &RequestHead,
        head_length: usize,
        limits: &Limits,
    ) -> Result<Self, ProxyError> {
        if let BodyLength::Fixed(length) = head.body
            && length > limits.body_bytes_max
        {
            return Err(ProxyError::BodyTooLarge);
        }
        let prefix = head_length..head_length;
        let decoder = BodyDecoder::new(head.body);
        let mut body = Self { decoder, prefix, raw_end: head_length, framing: Framing::None };
        body.advance(&mut client.buffer, head, limits)?;
        Ok(body)
    }

    /// Decodes what has come since, in the buffer it came in.
    pub(super) fn advance(
        &mut self,
        buffer: &mut Buffer,
        head: &RequestHead,
        limits: &Limits,
    ) -> Result<(), ProxyError> {
        while self.raw_end < buffer.len() && !self.is_whole() {
            let (used, run) = self.decoder.decode(&buffer.filled()[self.raw_end..])?;
            let run = self.raw_end + run.start..self.raw_end + run.end;
            self.raw_end += used;
            let length = run.len();
            buffer.move_down(run, self.prefix.end);
            self.prefix.end += length;
        }
        self.framing = match head.body {
            // A body that is whole is sent with its length, whatever framing it came in.
            _ if self.is_whole() && !self.prefix.is_empty() => Framing::Length(self.prefix.len() as u64),
            BodyLength::Fixed(length) => Framing::Length(length),
            BodyLength::Chunked if !self.is_whole() => Framing::Chunked,
            _ if matches!(head.method, Method::Post | Method::Put | Method::Patch) => Framing::Length(0),
            _ => Framing::None,
        };
        self.check_size(limits)
    }

    pub(super) fn check_size(&self, limits: &Limits) -> Result<(), ProxyError> {
        if self.decoder.payload_bytes() > limits.body_bytes_max { Err(ProxyError::BodyTooLarge) } else { Ok(()) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether sending the request a second time cannot make it run twice. `is_read`: its message is
    /// known to be one that only reads.
    pub(super) fn may_repeat(&self, method: Method, is_read: bool) -> bool {
        // A body that was streamed is not there any more.
        (method.is_idempotent() || is_read) && self.is_whole() && self.raw_end > 0
    }
}
