//! Three other readers of HTTP/1.1 requests, and what each makes of the same bytes.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{ChunkedBodyDecoder, RequestHeadDecoder};

/// A request as somebody reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// Names in lower case and in alphabetical order; values of one name as they came.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// What a reader makes of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A request, and what stands behind its end.
    Whole(Message, Vec<u8>),
    /// The beginning of one.
    Partial,
    /// Nothing that it takes for a request.
    Refused,
}

/// A request that is put behind the one to be read, so that a reader shows where that ended.
const BEHIND: &[u8] = b"BREW /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

impl Message {
    /// With the fields in the order that can be compared.
    pub fn new(method: &[u8], target: &[u8], fields: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { method: method.to_vec(), target: target.to_vec(), fields, body: Vec::new() }
    }

    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

/// `httparse` for the head, and for the body the plainest reading of RFC 9112.
pub fn by_httparse(bytes: &[u8]) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Reading::Partial,
        Err(_) => return Reading::Refused,
    };
    let fields = request.headers.iter().map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()));
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let mut message = Message::new(method.as_bytes(), target.as_bytes(), fields);
    let mut rest = &bytes[end..];
    if message.value(b"transfer-encoding").is_some() {
        loop {
            let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else {
                return Reading::Partial;
            };
            // Each chunk has a CRLF behind it, and so has the last one, without trailers.
            let Some((payload, behind)) = rest[line..].split_at_checked(size as usize) else { return Reading::Partial };
            let Some(behind) = behind.strip_prefix(b"\r\n") else { return Reading::Partial };
            message.body.extend_from_slice(payload);
            rest = behind;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = message.value(b"content-length") {
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        let Some((body, behind)) = rest.split_at_checked(length) else { return Reading::Partial };
        message.body = body.to_vec();
        rest = behind;
    }
    Reading::Whole(message, rest.to_vec())
}

/// monoio-http's decoders of heads and chunks. Only for heads below 64 KiB: longer names are a panic.
pub fn by_monoio_http(bytes: &[u8]) -> Reading {
    let mut rest = BytesMut::from(bytes);
    let head = match RequestHeadDecoder.decode(&mut rest) {
        Ok(Decoded::Some(head)) => head,
        Ok(_) => return Reading::Partial,
        Err(_) => return Reading::Refused,
    };
    let fields = head.headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()));
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let mut message = Message::new(head.method.as_str().as_bytes(), target.as_bytes(), fields);
    if message.value(b"transfer-encoding").is_some() {
        let mut chunks = ChunkedBodyDecoder::default();
        loop {
            match chunks.decode(&mut rest) {
                Ok(Decoded::Some(Some(chunk))) => message.body.extend_from_slice(&chunk),
                Ok(Decoded::Some(None)) => break,
                Ok(_) => return Reading::Partial,
                Err(_) => return Reading::Refused,
            }
        }
    } else if let Some(length) = message.value(b"content-length") {
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        if rest.len() < length {
            return Reading::Partial;
        }
        message.body = rest.split_to(length).to_vec();
    }
    Reading::Whole(message, rest.to_vec())
}

/// hyper's HTTP/1 server, given the bytes `piece` by piece. Behind a request that `ends` it is given
/// another, to see where that is; a body that is cut would swallow it.
pub fn by_hyper(bytes: &[u8], piece: usize, ends: bool) -> Reading {
    let heard: Rc<RefCell<Vec<Option<Message>>>> = Rc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let heard = Rc::clone(&heard);
        async move {
            let message = read(request).await;
            heard.borrow_mut().push(message);
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }
    });
    let behind = if ends { BEHIND } else { b"" };
    let io = Memory { bytes: [bytes, behind].concat(), at: 0, piece: piece.max(1) };
    // That all has come is no leave.
    let mut serving = pin!(hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(io, service));
    let mut context = Context::from_waker(Waker::noop());
    // Nothing here ever waits: each turn reads or writes.
    let ended = (0..1_000_000).any(|_| serving.as_mut().poll(&mut context).is_ready());
    assert!(ended, "hyper waits for something");
    match &heard.borrow()[..] {
        [] => Reading::Refused,
        [Some(message), Some(second)] if by_httparse(BEHIND) == Reading::Whole(second.clone(), Vec::new()) => {
            Reading::Whole(message.clone(), Vec::new())
        }
        [Some(message)] if !ends => Reading::Whole(message.clone(), Vec::new()),
        heard @ [Some(_), ..] => panic!("hyper reads something else behind the request: {heard:?}"),
        [None, ..] => Reading::Partial,
    }
}

/// A request with its body; `None` if that breaks off.
async fn read(request: Request<Incoming>) -> Option<Message> {
    let (parts, mut body) = request.into_parts();
    let fields = parts.headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()));
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut message = Message::new(parts.method.as_str().as_bytes(), target.as_bytes(), fields);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        message.body.extend_from_slice(frame.ok()?.data_ref()?);
    }
    Some(message)
}

/// A connection on which all has come, and which takes everything.
struct Memory {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = (self.at + self.piece.min(into.remaining())).min(self.bytes.len());
        into.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
