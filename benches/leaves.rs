//! What each leaf costs a request.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway::clock;
use ringway::coalesce::{Cache, Epochs, Found, Question, QuestionBuilder, Refresh, Scope, Shared, Slot, Validity};
use ringway::config;
use ringway::http::{
    self, AcceptField, BodyDecoder, BodyLength, FieldKind, Forwarded, Framing, HeadLimits, Persistence, RequestHead,
    ResponseHead, Rewrite, SessionField, Target, Trace,
};
use ringway::mcp::{Boundaries, Envelope, EventReader, MethodLabel, Mirrored, Reply, Role, Session, SessionKeys};
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

/// Of 2026-07-28: everything that decides the answer is in headers too.
const MODERN_LIST: &[u8] = b"POST /mcp/weather HTTP/1.1\r\nHost: edge.example.com\r\nUser-Agent: agent/1.0\r\n\
    Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nMCP-Protocol-Version: 2026-07-28\r\n\
    Mcp-Method: tools/list\r\nContent-Length: 256\r\n\r\n";

const LIST: &[u8] = br#"{"jsonrpc":"2.0","id":17,"method":"tools/list","params":{"_meta":{
    "io.modelcontextprotocol/protocolVersion":"2026-07-28",
    "io.modelcontextprotocol/clientInfo":{"name":"agent","version":"1.0"},
    "io.modelcontextprotocol/clientCapabilities":{}}}}"#;

const MODERN_CALL: &[u8] = br#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{
    "name":"forecast","arguments":{"city":"Oslo","days":3},"_meta":{
    "io.modelcontextprotocol/protocolVersion":"2026-07-28",
    "io.modelcontextprotocol/clientInfo":{"name":"agent","version":"1.0"},
    "io.modelcontextprotocol/clientCapabilities":{}}}}"#;

const TOOLS: &[u8] = br#"{"jsonrpc":"2.0","id":17,"result":{"resultType":"complete","ttlMs":60000,
    "cacheScope":"public","tools":[{"name":"forecast","inputSchema":{"type":"object"}}]}}"#;

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
    let mut published = arc_swap::Cache::new(Arc::new(SnapshotCell::from_pointee(snapshot(10))));
    criterion.bench_function("snapshot/read", |bencher| bencher.iter(|| black_box(published.load()).generation));
}

fn envelope(criterion: &mut Criterion) {
    criterion.bench_function("envelope/request id", |bencher| {
        bencher.iter(|| black_box(ringway::mcp::request_id(black_box(CALL))));
    });
    let mirrored = Mirrored { version: Some(b"2026-07-28"), method: Some(b"tools/call"), name: Some(b"forecast") };
    criterion.bench_function("envelope/parse a small call and check its headers", |bencher| {
        bencher.iter(|| {
            let envelope = Envelope::parse(black_box(MODERN_CALL)).expect("a message");
            mirrored.check(&envelope, MODERN_CALL, Role::Relay).expect("headers that agree");
            black_box(envelope.method)
        });
    });
    criterion.bench_function("envelope/parse a small answer", |bencher| {
        bencher.iter(|| Reply::parse(black_box(TOOLS)).expect("a response").ttl_ms);
    });
    for (what, value) in [("plain", &b"forecast"[..]), ("encoded", b"=?base64?ZsO4cnN0ZSB2w6Zydm9sdA==?=")] {
        criterion.bench_function(&format!("sentinel/decode, {what}"), |bencher| {
            bencher.iter(|| ringway::mcp::decode_sentinel(black_box(value)).expect("a name").len());
        });
    }
}

fn sessions(criterion: &mut Criterion) {
    let keys = SessionKeys::new([&b"the key of this bench"[..]]);
    let upstream_id = b"6f1c2a64-7f0e-4f57-9c1d-0d9d3a5b2c11".to_vec();
    let session = Session { endpoint: 7, issued_minutes: 29_000_000, binding: [3; 16], upstream_id };
    let mut nonce = [0_u8; 24];
    criterion.bench_function("session/seal", |bencher| {
        bencher.iter(|| {
            nonce[0] = nonce[0].wrapping_add(1);
            black_box(keys.seal(black_box(&session), nonce))
        });
    });
    let token = keys.seal(&session, nonce);
    criterion.bench_function("session/open", |bencher| {
        bencher.iter(|| keys.open(black_box(token.as_bytes())).expect("our own token").endpoint);
    });
}

fn events(criterion: &mut Criterion) {
    let event = format!("event: message\ndata: {}\n\n", "x".repeat(200));
    let stream: Vec<u8> = event.bytes().cycle().take(64 * 1024).collect();
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("boundaries of 64 KiB", |bencher| {
        bencher.iter(|| {
            let mut boundaries = Boundaries::default();
            boundaries.feed(black_box(&stream));
            boundaries.between_events()
        });
    });
    group.bench_function("events of 64 KiB", |bencher| {
        bencher.iter(|| {
            let (mut reader, mut bytes) = (EventReader::new(64 * 1024), 0);
            reader.feed(black_box(&stream), |event| bytes += event.data.len());
            bytes
        });
    });
    group.finish();
}

/// As `worker::message` puts it together, the parts it takes from route and backend aside.
fn question(bytes: &mut Vec<u8>, hasher: &RandomState, head: &RequestHead, message: &Envelope) -> Question {
    let mut question = QuestionBuilder::new(bytes);
    question.part(head.protocol_version(MODERN_LIST).unwrap_or_default());
    question.part(head.host(MODERN_LIST));
    question.part(head.query(MODERN_LIST));
    question.part(message.method.label().as_bytes());
    message.question(LIST).for_each(|piece| question.part(piece));
    for field in head.fields().iter().filter(|field| field.kind.describes()) {
        question.lower_case_part(field.name.of_buffer(MODERN_LIST));
        question.part(field.value.of_buffer(MODERN_LIST));
    }
    question.finish(hasher)
}

fn sharing(criterion: &mut Criterion) {
    let (mut head, mut bytes, hasher) = (RequestHead::default(), Vec::new(), RandomState::new());
    assert!(matches!(head.decode(MODERN_LIST, &LIMITS), Ok(Some(_))), "a whole head");
    let message = Envelope::parse(LIST).expect("a message");
    assert!(message.is_coalescable());
    criterion.bench_function("sharing/question of a list", |bencher| {
        bencher.iter(|| black_box(question(&mut bytes, &hasher, black_box(&head), &message)));
    });
    let scope_of = || {
        let credentials = head.fields().iter().filter(|field| field.kind == FieldKind::Credential);
        Scope::of(credentials.map(|field| (field.name.of_buffer(MODERN_LIST), field.value.of_buffer(MODERN_LIST))))
    };
    criterion.bench_function("sharing/scope of a credential", |bencher| bencher.iter(|| black_box(scope_of())));

    let (mut cache, now, epochs, scope) = (Cache::default(), clock::now(), Arc::new(Epochs::default()), scope_of());
    cache.resize(64 << 20);
    let asked = question(&mut bytes, &hasher, &head, &message);
    cache.keep(&asked, &Arc::new(answer(&epochs, scope)));
    // Others, so that the table is not one line of the processor's cache.
    for number in 0..10_000_u32 {
        let mut other = QuestionBuilder::new(&mut bytes);
        other.part(&number.to_le_bytes());
        cache.keep(&other.finish(&hasher), &Arc::new(answer(&epochs, scope)));
    }
    assert!(matches!(cache.find(&asked, scope, now), Found::Fresh(_)), "kept");
    criterion.bench_function("cache/find, there", |bencher| {
        bencher.iter(|| black_box(cache.find(black_box(&asked), scope, now)));
    });
    let missing = QuestionBuilder::new(&mut bytes).finish(&hasher);
    assert!(matches!(cache.find(&missing, scope, now), Found::Nothing), "not kept");
    criterion.bench_function("cache/find, not there", |bencher| {
        bencher.iter(|| black_box(cache.find(black_box(&missing), scope, now)));
    });
}

fn answer(epochs: &Arc<Epochs>, asker: Scope) -> Shared {
    let reply = Reply::parse(TOOLS).expect("a response");
    Shared {
        status: 200,
        reason: b"OK"[..].into(),
        head: b"Content-Type: application/json\r\n"[..].into(),
        body: TOOLS.into(),
        scope: reply.scope,
        asker,
        reply,
        received: clock::now(),
        ttl: Duration::from_secs(60),
        stale_if_error: Duration::ZERO,
        stale_while_revalidate: Duration::ZERO,
        validity: Validity::begin(epochs, Slot::of(MethodLabel::ToolsList, b"")),
        refresh: Refresh::default(),
    }
}

criterion_group!(leaves, heads, chunks, routes, envelope, sessions, events, sharing);
criterion_main!(leaves);
