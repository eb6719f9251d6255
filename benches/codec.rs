//! Our codec beside monoio-http's and hyper's on the same bytes, in one run: only the ratio counts.

use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{ChunkedBodyDecoder, RequestHeadDecoder, ResponseHeadDecoder};
use ringway::http::{
    self, BodyDecoder, BodyLength, Framing, HeadLimits, Persistence, RequestHead, ResponseHead, SessionField,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 32 * 1024, target_bytes_max: 8 * 1024, headers_max: 100 };

const REQUEST: &[u8] = b"POST /mcp/weather HTTP/1.1\r\nHost: edge.example.com\r\nUser-Agent: agent/1.0\r\n\
    Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
    MCP-Protocol-Version: 2025-06-18\r\nMcp-Session-Id: 0123456789abcdef\r\nContent-Length: 64\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 01 Aug 2026 00:00:00 GMT\r\nServer: mcp\r\n\
    Content-Type: application/json\r\nContent-Length: 200\r\n\r\n";

fn request_heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request head");
    let mut head = RequestHead::default();
    group.bench_function("ringway", |bencher| {
        bencher.iter(|| {
            head.reset();
            assert!(matches!(head.decode(black_box(REQUEST), &LIMITS), Ok(Some(_))));
        });
    });
    group.bench_function("monoio-http", |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(REQUEST),
            |bytes| assert!(matches!(RequestHeadDecoder.decode(black_box(bytes)), Ok(Decoded::Some(_)))),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn answer_heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer head");
    let mut head = ResponseHead::default();
    group.bench_function("ringway", |bencher| {
        bencher.iter(|| {
            head.reset();
            assert!(matches!(head.decode(black_box(ANSWER), &LIMITS), Ok(Some(_))));
        });
    });
    group.bench_function("monoio-http", |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(ANSWER),
            |bytes| assert!(matches!(ResponseHeadDecoder.decode(black_box(bytes)), Ok(Decoded::Some(_)))),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let body = [format!("{:x}\r\n{}\r\n", 200, "x".repeat(200)).repeat(20), "0\r\n\r\n".into()].concat();
    let mut group = criterion.benchmark_group("20 chunks");
    group.bench_function("ringway", |bencher| {
        bencher.iter(|| {
            let (mut decoder, mut rest) = (BodyDecoder::new(BodyLength::Chunked), black_box(body.as_bytes()));
            while let (false, Ok((used, run))) = (decoder.is_done(), decoder.decode(rest)) {
                black_box(&rest[run]);
                rest = &rest[used..];
            }
        });
    });
    group.bench_function("monoio-http", |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(body.as_bytes()),
            |bytes| {
                let mut decoder = ChunkedBodyDecoder::default();
                while let Ok(Decoded::Some(Some(chunk))) = decoder.decode(bytes) {
                    black_box(chunk);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const PIPELINED: usize = 100;

/// hyper's parser cannot be called alone, so it serves requests that have all come, and has to answer them. So do we.
fn connections(criterion: &mut Criterion) {
    let request = b"GET /mcp/weather HTTP/1.1\r\nHost: edge.example.com\r\nUser-Agent: agent/1.0\r\n\
        Accept: text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\nMcp-Session-Id: 0123456789abcdef\r\n\r\n";
    let (requests, answer) = (request.repeat(PIPELINED), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mut group = criterion.benchmark_group(format!("{PIPELINED} requests on a connection, and their answers"));
    let (mut head, mut answer_head, mut out) = (RequestHead::default(), ResponseHead::default(), Vec::new());
    assert!(matches!(answer_head.decode(answer, &LIMITS), Ok(Some(_))));
    group.bench_function("ringway", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(requests.as_slice());
            while !rest.is_empty() {
                head.reset();
                let Ok(Some(end)) = head.decode(rest, &LIMITS) else { panic!("a whole head") };
                rest = &rest[end..];
                out.clear();
                let (session, framing) = (SessionField::Keep, Framing::Length(0));
                http::response_head(&mut out, &answer_head, answer, session, b"", framing, Persistence::Implied);
                black_box(&out);
            }
        });
    });
    group.bench_function("hyper", |bencher| {
        let service = service_fn(|request: Request<_>| {
            black_box(request);
            async { Ok::<_, Infallible>(Response::new(String::new())) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        bencher.iter(|| {
            let mut serving = pin!(server.serve_connection(Memory(black_box(&requests)), service));
            let mut context = Context::from_waker(Waker::noop());
            while serving.as_mut().poll(&mut context).is_pending() {}
        });
    });
    group.finish();
}

/// A connection on which all has come, and which takes everything.
struct Memory<'a>(&'a [u8]);

impl Read for Memory<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

criterion_group!(codec, request_heads, answer_heads, chunks, connections);
criterion_main!(codec);
