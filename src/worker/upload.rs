//! A request on its way to a backend.

use std::io;

use super::answer::{Sent, send_request, write_upstream};
use super::exchange::{Exchange, Way};
use crate::config::model::BodyMode;
use crate::error::ProxyError;
use crate::http::{self, AcceptField, Buffer, Chunker, Forwarded, Framing, Method, Rewrite, SessionField, Target};
use crate::relay::{Side, next_readable, reframe};
use crate::upstream::Lease;

impl Exchange<'_> {
    /// Sends head and body, or as much as the backend takes before it answers.
    pub(super) async fn send(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(), ProxyError> {
        lease.socket().deadline.set(self.core.deadlines.now().after(self.snapshot.limits.write_timeout).min(way.due));
        self.ask_for_body().await?;
        let mut request = self.core.outbox.blank();
        self.write_request(&mut request, way, lease);
        self.core.stats.borrow_mut().request_body_bytes += self.body.prefix.len() as u64;
        if send_request(self.core, lease, request).await == Sent::All && !self.body.is_whole() {
            self.stream_body(way, lease).await?;
        }
        Ok(())
    }

    /// The head for the backend, and behind it the payload that is there.
    fn write_request(&self, out: &mut Vec<u8>, way: &Way<'_>, lease: &Lease) {
        let (head, bytes) = (&self.heads.request, self.client.buffer.filled());
        let endpoint = lease.endpoint();
        let path = head.path(bytes);
        let rest = &path[path.len() - way.rest_length..];
        let target = Target::at(&endpoint.authority, &endpoint.path, rest, head.query(bytes));
        http::request_head(out, head, bytes, &target, &self.rewrite(way), self.body.framing);
        let payload = self.payload();
        if self.body.framing == Framing::Chunked && !payload.is_empty() {
            out.extend_from_slice(Chunker::size_line(payload.len()).as_ref());
            out.extend_from_slice(payload);
            out.extend_from_slice(Chunker::END);
        } else {
            out.extend_from_slice(payload);
        }
    }

    /// What changes of the request's fields.
    pub(super) fn rewrite(&self, way: &Way<'_>) -> Rewrite<'_> {
        let upstream_id = self.session(way).map(|opened| &*opened.session.upstream_id);
        let is_message = way.mode != BodyMode::Stream && self.heads.request.method == Method::Post;
        Rewrite {
            forwarded: Forwarded { peer: &self.client.peer, trusted_hops: self.snapshot.trusted_hops },
            session: upstream_id.map_or(SessionField::Keep, SessionField::Replace),
            accept: if is_message { AcceptField::Complete } else { AcceptField::Keep },
            trace: self.trace,
        }
    }

    /// Tells a client that waits for the word to send its body.
    pub(super) async fn ask_for_body(&mut self) -> Result<(), ProxyError> {
        if self.heads.request.expect_continue && !self.body.is_whole() {
            let timeout = self.snapshot.limits.write_timeout;
            self.client.write(self.core, b"HTTP/1.1 100 Continue\r\n\r\n", timeout).await?;
            // Said once, also if the exchange is repeated.
            self.heads.request.expect_continue = false;
        }
        Ok(())
    }

    /// Streams the rest of a request body as it arrives; stops early when the backend answers.
    async fn stream_body(&mut self, way: &Way<'_>, lease: &mut Lease) -> Result<(), ProxyError> {
        // The head and the first payload are on their way; their memory is not needed any more.
        self.core.buffers.give(std::mem::take(&mut self.client.buffer));
        self.body.raw_end = 0;
        while !self.body.is_whole() {
            let timeout = self.snapshot.limits.body_timeout;
            // Until the client has sent something the backend owes us nothing: the end of the whole
            // exchange is the client's doing too.
            self.client.socket.deadline.set_read(self.core.deadlines.now().after(timeout).min(way.due));
            lease.socket().deadline.clear();
            let side = next_readable(lease.socket(), Some(&mut self.client.socket)).await;
            if side.map_err(|_| ProxyError::ClientGone)? == Side::Upstream {
                break;
            }
            let mut buffer = self.core.buffers.large();
            match self.client.socket.try_read(buffer.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.core.buffers.give(buffer);
                    continue;
                }
                Ok(0) | Err(_) if self.client.socket.deadline.expired() => return Err(ProxyError::BodyTimeout),
                Ok(0) | Err(_) => return Err(ProxyError::ClientGone),
                Ok(read) => buffer.advance(read),
            }
            let extra = self.take_payload(&mut buffer)?;
            if !extra.is_empty() {
                self.client.keep_for_later(self.core, &extra);
            }
            // A client that sends as fast as it may must not be cut for a backend that reads slowly.
            self.client.socket.deadline.clear();
            let timeout = self.snapshot.limits.write_timeout;
            lease.socket().deadline.set(self.core.deadlines.now().after(timeout).min(way.due));
            let sent = write_upstream(lease, buffer.filled()).await;
            self.core.buffers.give(buffer);
            if sent == Sent::Answered {
                break;
            }
        }
        self.client.socket.deadline.clear();
        Ok(())
    }

    /// Decodes what was read of a request body and frames it for the backend.
    fn take_payload(&mut self, buffer: &mut Buffer) -> Result<Vec<u8>, ProxyError> {
        let extra = reframe(buffer, &mut self.body.decoder, self.body.framing)?;
        self.core.stats.borrow_mut().request_body_bytes += buffer.len() as u64;
        self.body.check_size(&self.snapshot.limits)?;
        Ok(extra)
    }
}
