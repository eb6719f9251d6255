//! How answers leave: whole ones through monoio-http's encoder, event streams by hand.
//!
//! The encoder writes into memory, and the bytes leave in one send. Given the socket, it would send head and body
//! of anything above 8 KiB separately, which no careful server does, and every proxy would be measured with one
//! receive and one wake-up too many.
//!
//! Event streams cannot be served by it at all: it keeps chunks until 8 KiB are together or the body has ended.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use anyhow::Result;
use bytes::Bytes;
use monoio::BufResult;
use monoio::buf::{IoBuf, IoVecBuf};
use monoio::io::sink::SinkExt;
use monoio::io::{AsyncWriteRent, AsyncWriteRentExt, OwnedWriteHalf};
use monoio::net::TcpStream;
use monoio_http::common::response::Response;
use monoio_http::h1::codec::encoder::GenericEncoder;

/// `X-Accel-Buffering: no` is what event-stream servers send so that nginx does not hold events back.
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";

pub(super) struct Wire {
    socket: OwnedWriteHalf<TcpStream>,
    encoder: GenericEncoder<Memory>,
    encoded: Rc<RefCell<Vec<u8>>>,
}

impl Wire {
    pub(super) fn new(socket: OwnedWriteHalf<TcpStream>) -> Self {
        let encoded = Rc::new(RefCell::new(Vec::new()));
        Wire { socket, encoder: GenericEncoder::new(Memory(encoded.clone())), encoded }
    }

    pub(super) async fn send(&mut self, response: Response) -> Result<()> {
        self.encoder.send_and_flush(response).await?;
        self.send_encoded().await
    }

    pub(super) async fn stream_head(&mut self) -> Result<()> {
        self.encoded.borrow_mut().extend_from_slice(STREAM_HEAD);
        self.send_encoded().await
    }

    /// A comment goes with the head: some proxies pass a head on only with the first byte behind it.
    pub(super) async fn stream_silence(&mut self) -> Result<()> {
        self.encoded.borrow_mut().extend_from_slice(STREAM_HEAD);
        self.encoded.borrow_mut().extend_from_slice(b"8\r\n: open\n\n\r\n");
        self.send_encoded().await
    }

    pub(super) async fn stream_event(&mut self, message: &str) -> Result<()> {
        write_event(&mut self.encoded.borrow_mut(), message);
        self.send_encoded().await
    }

    pub(super) async fn stream_end(&mut self, message: &str) -> Result<()> {
        {
            let mut encoded = self.encoded.borrow_mut();
            write_event(&mut encoded, message);
            encoded.extend_from_slice(b"0\r\n\r\n");
        }
        self.send_encoded().await
    }

    async fn send_encoded(&mut self) -> Result<()> {
        let bytes = self.encoded.take();
        let (sent, mut bytes) = self.socket.write_all(bytes).await;
        sent?;
        bytes.clear();
        self.encoded.replace(bytes);
        Ok(())
    }
}

/// One event as one chunk.
fn write_event(out: &mut Vec<u8>, message: &str) {
    const FIELDS: &str = "event: message\ndata: ";
    let bytes = FIELDS.len() + message.len() + 2;
    write!(out, "{bytes:x}\r\n{FIELDS}{message}\n\n\r\n").expect("a Vec takes every write");
}

/// The encoder's idea of a socket.
struct Memory(Rc<RefCell<Vec<u8>>>);

impl AsyncWriteRent for Memory {
    #[allow(unsafe_code)] // IoBuf offers nothing but a pointer and a length.
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        // SAFETY: IoBuf promises that this many bytes from the pointer are initialised while the buffer lives.
        let bytes = unsafe { std::slice::from_raw_parts(buf.read_ptr(), buf.bytes_init()) };
        self.0.borrow_mut().extend_from_slice(bytes);
        (Ok(bytes.len()), buf)
    }

    async fn writev<T: IoVecBuf>(&mut self, buf_vec: T) -> BufResult<usize, T> {
        (Err(std::io::ErrorKind::Unsupported.into()), buf_vec) // The encoder never asks for it.
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The codec's response type with a whole body.
pub(super) fn response(status: u16, content_type: Option<&'static str>, body: Bytes) -> Response {
    use monoio_http::h1::payload::{FixedPayload, Payload};
    let empty = body.is_empty();
    let payload = if empty { Payload::None } else { Payload::Fixed(FixedPayload::new(body)) };
    let mut response = Response::new(payload);
    *response.status_mut() = http::StatusCode::from_u16(status).expect("only statuses written in this program");
    if let Some(content_type) = content_type {
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_chunk_of_the_length_it_says() {
        let mut out = Vec::new();
        write_event(&mut out, "{}");
        assert_eq!(out, b"19\r\nevent: message\ndata: {}\n\n\r\n");
        assert_eq!("event: message\ndata: {}\n\n".len(), 0x19);
    }
}
