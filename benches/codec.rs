//! Our codec beside monoio-http's on the same bytes, in one run: only the ratio counts.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{ChunkedBodyDecoder, RequestHeadDecoder, ResponseHeadDecoder};
use ringway::http::{BodyDecoder, BodyLength, HeadLimits, RequestHead, ResponseHead};

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

criterion_group!(codec, request_heads, answer_heads, chunks);
criterion_main!(codec);
