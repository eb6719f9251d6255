//! What each leaf costs a request.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::Cache;
use criterion::{Criterion, criterion_group, criterion_main};
use ringway::config;
use ringway::http::{
    self, AcceptField, BodyDecoder, BodyLength, Forwarded, Framing, HeadLimits, Persistence, RequestHead, ResponseHead,
    Rewrite, SessionField, Target, Trace,
};
use ringway::seam::{Snapshot, SnapshotCell};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 32 * 1024, target_bytes_max: 8 * 1024, headers_max: 100 };

const REQUEST: &[u8] = b"POST /mcp/weather HTTP/1.1\r\nHost: edge.example.com\r\nUser-Agent: agent/1.0\r\n\
    Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nMCP-Protocol-Version: 2025-06-18\r\n\
    Mcp-Session-Id: 0123456789abcdef\r\nContent-Length: 64\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 01 Aug 2026 00:00:00 GMT\r\nServer: mcp\r\n\
    Content-Type: application/json\r\nContent-Length: 200\r\n\r\n";

const CALL: &[u8] =
    br#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"forecast","arguments":{"city":"Oslo"}}}"#;

fn heads(criterion: &mut Criterion) {
    let mut request = RequestHead::default();
    criterion.bench_function("head/decode request", |bencher| {
        bencher.iter(|| {
            request.reset();
            black_box(request.decode(black_box(REQUEST), &LIMITS))
        });
    });
    let mut answer = ResponseHead::default();
    criterion.bench_function("head/decode answer", |bencher| {
        bencher.iter(|| {
            answer.reset();
            black_box(answer.decode(black_box(ANSWER), &LIMITS))
        });
    });
    let target = Target { authority: "10.0.0.7:9001", path: "/mcp", rest: b"", query: b"" };
    let forwarded = Forwarded { peer: "192.0.2.1", trusted_hops: 0 };
    let rewrite = Rewrite { forwarded, session: SessionField::Keep, accept: AcceptField::Complete, trace: Trace::Pass };
    let mut out = Vec::new();
    criterion.bench_function("head/encode request", |bencher| {
        bencher.iter(|| {
            out.clear();
            http::request_head(&mut out, &request, REQUEST, &target, &rewrite, Framing::Length(64));
            black_box(out.len())
        });
    });
    criterion.bench_function("head/encode answer", |bencher| {
        bencher.iter(|| {
            out.clear();
            let (session, framing) = (SessionField::Keep, Framing::Length(200));
            http::response_head(&mut out, &answer, ANSWER, session, b"", framing, Persistence::Implied);
            black_box(out.len())
        });
    });
}

fn chunks(criterion: &mut Criterion) {
    let body = [format!("{:x}\r\n{}\r\n", 200, "x".repeat(200)).repeat(20), "0\r\n\r\n".into()].concat();
    criterion.bench_function("chunks/decode 20 of 200 bytes", |bencher| {
        bencher.iter(|| {
            let (mut decoder, mut rest) = (BodyDecoder::new(BodyLength::Chunked), black_box(body.as_bytes()));
            while !decoder.is_done() {
                let Ok((used, run)) = decoder.decode(rest) else { panic!("the body is well formed") };
                black_box(&rest[run]);
                rest = &rest[used..];
            }
        });
    });
}

fn snapshot(backends: usize) -> Snapshot {
    let mut text = String::new();
    for number in 0..backends {
        let host = if number % 2 == 0 { "" } else { "host = \"mcp.example.com\"\n" };
        // Writing into a String does not fail.
        let _ = write!(
            text,
            "[backends.b{number}]\nendpoints = [\"http://127.0.0.1:9/mcp\"]\n\
             [[routes]]\n{host}path = \"/tenant/{number}/mcp\"\nbackend = \"b{number}\"\n"
        );
    }
    let config = config::load_str("bench.toml", &text).expect("a valid configuration");
    let address: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    let endpoints = config.backends.values().flat_map(|backend| &backend.endpoints);
    let addresses: BTreeMap<_, _> = endpoints.map(|url| (url.clone(), address.clone())).collect();
    Snapshot::build(&config, &addresses, None).expect("a snapshot")
}

fn routes(criterion: &mut Criterion) {
    for count in [10, 10_000] {
        let snapshot = snapshot(count);
        let path = format!("/tenant/{}/mcp", count - 1);
        criterion.bench_function(&format!("route/find among {count}"), |bencher| {
            bencher
                .iter(|| black_box(snapshot.routes.find(b"mcp.example.com:443", black_box(path.as_bytes()), b"POST")));
        });
    }
    let mut published = Cache::new(Arc::new(SnapshotCell::from_pointee(snapshot(10))));
    criterion.bench_function("snapshot/read", |bencher| bencher.iter(|| black_box(published.load()).generation));
}

fn envelope(criterion: &mut Criterion) {
    criterion.bench_function("envelope/request id", |bencher| {
        bencher.iter(|| black_box(ringway::mcp::request_id(black_box(CALL))));
    });
}

criterion_group!(leaves, heads, chunks, routes, envelope);
criterion_main!(leaves);
