//! The leaves, each ready to be run over and over: criterion times them, callgrind counts their instructions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use ringway::clock;
use ringway::coalesce::{Cache, Epochs, Found, Question, QuestionBuilder, Refresh, Scope, Shared, Slot, Validity};
use ringway::config;
use ringway::http::{
    self, AcceptField, BodyDecoder, BodyLength, FieldKind, Forwarded, Framing, HeadLimits, Persistence, RequestHead,
    ResponseHead, Rewrite, SessionField, Target, Trace,
};
use ringway::mcp::{Boundaries, Envelope, EventReader, MethodLabel, Mirrored, Reply, Role, Session, SessionKeys};
use ringway::seam::{Snapshot, SnapshotCell};

/// One thing that a request pays for.
pub(crate) struct Leaf {
    pub(crate) name: &'static str,
    /// What it needs is set up once; what comes out runs it once.
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

pub(crate) const LEAVES: &[Leaf] = &[
    Leaf { name: "head/decode request", prepare: decode_request },
    Leaf { name: "head/decode answer", prepare: decode_answer },
    Leaf { name: "head/encode request", prepare: encode_request },
    Leaf { name: "head/encode answer", prepare: encode_answer },
    Leaf { name: "chunks/decode 20 of 200 bytes", prepare: decode_chunks },
    Leaf { name: "route/find among 10", prepare: || find_route(10) },
    Leaf { name: "route/find among 10000", prepare: || find_route(10_000) },
    Leaf { name: "snapshot/read", prepare: read_snapshot },
    Leaf { name: "envelope/request id", prepare: read_id },
    Leaf { name: "envelope/parse a small call and check its headers", prepare: check_envelope },
    Leaf { name: "envelope/parse a small answer", prepare: parse_answer },
    Leaf { name: "sentinel/decode, plain", prepare: || decode_sentinel(b"forecast") },
    Leaf { name: "sentinel/decode, encoded", prepare: || decode_sentinel(b"=?base64?ZsO4cnN0ZSB2w6Zydm9sdA==?=") },
    Leaf { name: "session/seal", prepare: seal_session },
    Leaf { name: "session/open", prepare: open_session },
    Leaf { name: "events/boundaries of 64 KiB", prepare: find_boundaries },
    Leaf { name: "events/events of 64 KiB", prepare: read_events },
    Leaf { name: "sharing/question of a list", prepare: ask_question },
    Leaf { name: "sharing/scope of a credential", prepare: find_scope },
    Leaf { name: "cache/find, there", prepare: || find_in_cache(true) },
    Leaf { name: "cache/find, not there", prepare: || find_in_cache(false) },
];

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

fn request() -> RequestHead {
    let mut head = RequestHead::default();
    assert!(matches!(head.decode(REQUEST, &LIMITS), Ok(Some(_))), "a whole head");
    head
}

fn decode_request() -> Box<dyn FnMut()> {
    let mut head = RequestHead::default();
    Box::new(move || {
        head.reset();
        assert!(matches!(head.decode(black_box(REQUEST), &LIMITS), Ok(Some(_))));
    })
}

fn decode_answer() -> Box<dyn FnMut()> {
    let mut head = ResponseHead::default();
    Box::new(move || {
        head.reset();
        assert!(matches!(head.decode(black_box(ANSWER), &LIMITS), Ok(Some(_))));
    })
}

fn encode_request() -> Box<dyn FnMut()> {
    let (head, mut out) = (request(), Vec::new());
    let target = Target { authority: "10.0.0.7:9001", path: "/mcp", rest: b"", query: b"" };
    let forwarded = Forwarded { peer: "192.0.2.1", trusted_hops: 0 };
    let rewrite = Rewrite { forwarded, session: SessionField::Keep, accept: AcceptField::Complete, trace: Trace::Pass };
    Box::new(move || {
        out.clear();
        http::request_head(&mut out, black_box(&head), REQUEST, &target, &rewrite, Framing::Length(64));
        black_box(&out);
    })
}

fn encode_answer() -> Box<dyn FnMut()> {
    let (mut head, mut out) = (ResponseHead::default(), Vec::new());
    assert!(matches!(head.decode(ANSWER, &LIMITS), Ok(Some(_))), "a whole head");
    Box::new(move || {
        out.clear();
        let (session, framing) = (SessionField::Keep, Framing::Length(200));
        http::response_head(&mut out, black_box(&head), ANSWER, session, b"", framing, Persistence::Implied);
        black_box(&out);
    })
}

fn decode_chunks() -> Box<dyn FnMut()> {
    let body = [format!("{:x}\r\n{}\r\n", 200, "x".repeat(200)).repeat(20), "0\r\n\r\n".into()].concat();
    Box::new(move || {
        let (mut decoder, mut rest) = (BodyDecoder::new(BodyLength::Chunked), black_box(body.as_bytes()));
        while !decoder.is_done() {
            let Ok((used, run)) = decoder.decode(rest) else { panic!("the body is well formed") };
            black_box(&rest[run]);
            rest = &rest[used..];
        }
    })
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

fn find_route(backends: usize) -> Box<dyn FnMut()> {
    let snapshot = snapshot(backends);
    let path = format!("/tenant/{}/mcp", backends - 1);
    Box::new(move || {
        let found = snapshot.routes.find(b"mcp.example.com:443", black_box(path.as_bytes()), b"POST");
        assert!(black_box(found).is_ok());
    })
}

fn read_snapshot() -> Box<dyn FnMut()> {
    let mut published = arc_swap::Cache::new(Arc::new(SnapshotCell::from_pointee(snapshot(10))));
    Box::new(move || {
        black_box(black_box(&mut published).load().generation);
    })
}

fn read_id() -> Box<dyn FnMut()> {
    Box::new(|| {
        black_box(ringway::mcp::request_id(black_box(CALL)));
    })
}

fn check_envelope() -> Box<dyn FnMut()> {
    let mirrored = Mirrored { version: Some(b"2026-07-28"), method: Some(b"tools/call"), name: Some(b"forecast") };
    Box::new(move || {
        let envelope = Envelope::parse(black_box(MODERN_CALL)).expect("a message");
        mirrored.check(&envelope, MODERN_CALL, Role::Relay).expect("headers that agree");
        black_box(envelope.method);
    })
}

fn parse_answer() -> Box<dyn FnMut()> {
    Box::new(|| {
        black_box(Reply::parse(black_box(TOOLS)).expect("a response").ttl_ms);
    })
}

fn decode_sentinel(value: &'static [u8]) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(ringway::mcp::decode_sentinel(black_box(value)).expect("a name").len());
    })
}

fn session() -> (SessionKeys, Session) {
    let upstream_id = b"6f1c2a64-7f0e-4f57-9c1d-0d9d3a5b2c11".to_vec();
    let session = Session { endpoint: 7, issued_minutes: 29_000_000, binding: [3; 16], upstream_id };
    (SessionKeys::new([&b"the key of this bench"[..]]), session)
}

fn seal_session() -> Box<dyn FnMut()> {
    let ((keys, session), mut nonce) = (session(), [0_u8; 24]);
    Box::new(move || {
        nonce[0] = nonce[0].wrapping_add(1);
        black_box(keys.seal(black_box(&session), nonce));
    })
}

fn open_session() -> Box<dyn FnMut()> {
    let (keys, session) = session();
    let token = keys.seal(&session, [0; 24]);
    Box::new(move || {
        black_box(keys.open(black_box(token.as_bytes())).expect("our own token").endpoint);
    })
}

fn stream() -> Vec<u8> {
    let event = format!("event: message\ndata: {}\n\n", "x".repeat(200));
    event.bytes().cycle().take(64 * 1024).collect()
}

fn find_boundaries() -> Box<dyn FnMut()> {
    let stream = stream();
    Box::new(move || {
        let mut boundaries = Boundaries::default();
        boundaries.feed(black_box(&stream));
        black_box(boundaries.between_events());
    })
}

fn read_events() -> Box<dyn FnMut()> {
    let stream = stream();
    Box::new(move || {
        let (mut reader, mut bytes) = (EventReader::new(64 * 1024), 0);
        reader.feed(black_box(&stream), |event| bytes += event.data.len());
        black_box(bytes);
    })
}

/// A modern list, and what tells it from others. The same keys in every process, so that counts agree.
struct Asked {
    head: RequestHead,
    message: Envelope,
    bytes: Vec<u8>,
    hasher: RandomState,
}

impl Asked {
    fn new() -> Self {
        let mut head = RequestHead::default();
        assert!(matches!(head.decode(MODERN_LIST, &LIMITS), Ok(Some(_))), "a whole head");
        let message = Envelope::parse(LIST).expect("a message");
        assert!(message.is_coalescable());
        Self { head, message, bytes: Vec::new(), hasher: RandomState::with_seeds(1, 2, 3, 4) }
    }

    /// As `worker::message` puts it together, the parts it takes from route and backend aside.
    fn question(&mut self) -> Question {
        let mut question = QuestionBuilder::new(&mut self.bytes);
        question.part(self.head.protocol_version(MODERN_LIST).unwrap_or_default());
        question.part(self.head.host(MODERN_LIST));
        question.part(self.head.query(MODERN_LIST));
        question.part(self.message.method.label().as_bytes());
        self.message.question(LIST).for_each(|piece| question.part(piece));
        for field in self.head.fields().iter().filter(|field| field.kind.describes()) {
            question.lower_case_part(field.name.of_buffer(MODERN_LIST));
            question.part(field.value.of_buffer(MODERN_LIST));
        }
        question.finish(&self.hasher)
    }

    fn scope(&self) -> Scope {
        let credentials = self.head.fields().iter().filter(|field| field.kind == FieldKind::Credential);
        Scope::of(credentials.map(|field| (field.name.of_buffer(MODERN_LIST), field.value.of_buffer(MODERN_LIST))))
    }

    /// Another one.
    fn other(&mut self, number: u32) -> Question {
        let mut question = QuestionBuilder::new(&mut self.bytes);
        question.part(&number.to_le_bytes());
        question.finish(&self.hasher)
    }
}

fn ask_question() -> Box<dyn FnMut()> {
    let mut asked = Asked::new();
    Box::new(move || {
        black_box(black_box(&mut asked).question());
    })
}

fn find_scope() -> Box<dyn FnMut()> {
    let asked = Asked::new();
    Box::new(move || {
        black_box(black_box(&asked).scope());
    })
}

fn find_in_cache(is_there: bool) -> Box<dyn FnMut()> {
    let (mut asked, mut cache, now, epochs) =
        (Asked::new(), Cache::default(), clock::now(), Arc::new(Epochs::default()));
    let scope = asked.scope();
    cache.resize(64 << 20);
    // Many, so that the table is not one line of the processor's cache.
    for number in 0..10_000 {
        cache.keep(&asked.other(number), &Arc::new(answer(&epochs, scope)));
    }
    let question = asked.question();
    if is_there {
        cache.keep(&question, &Arc::new(answer(&epochs, scope)));
    }
    Box::new(move || {
        let found = cache.find(black_box(&question), scope, now);
        assert_eq!(matches!(found, Found::Fresh(_)), is_there);
    })
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
