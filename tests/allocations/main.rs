//! How often a request allocates once everything is warm: both connections open, every table grown.
//!
//! A binary of its own, since its allocator counts. Client and backend are in this process, too, so they
//! reuse what they have and allocate nothing while it counts. Ticks and the control thread may; that only adds,
//! and less than one block a request, so the least of several batches tells.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use all of it")]
mod support;

use support::mcp::Ask;
use support::session::initialize;
use support::{PATIENCE, Proxy};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const REQUESTS_PER_BATCH: u64 = 100;
const BATCHES: usize = 5;
const WARM_UP: u64 = 50;

/// Room for a whole message of either side.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// How a request, and an answer, ends; only there.
const END: &[u8] = b"}}";

/// Reads until a message has ended; `false` when the other side has gone.
fn read_message(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while !buffer[..filled].ends_with(END) {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(read) => filled += read,
        }
    }
    true
}

/// Gives every request the same answer, without allocating.
fn backend(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut buffer = [0; MESSAGE_BYTES_MAX];
                while read_message(&mut stream, &mut buffer) && stream.write_all(&answer).is_ok() {}
            });
        }
    });
    address
}

/// One client that asks the same again and again.
struct Asker {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Asker {
    fn new(address: SocketAddr, request: Vec<u8>) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, request, buffer: vec![0; MESSAGE_BYTES_MAX].into() }
    }

    fn ask(&mut self, times: u64) {
        for _ in 0..times {
            self.stream.write_all(&self.request).unwrap();
            assert!(read_message(&mut self.stream, &mut self.buffer), "the proxy has hung up");
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&self.buffer));
    }
}

const RESULT: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":""#,
    r#"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}]}}"#
);
const LIST: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","ttlMs":3600000,"cacheScope":"public","#,
    r#""tools":[{"name":"t","inputSchema":{"type":"object"}}]}}"#
);

/// A way through the proxy, and how many blocks a request may take on it.
struct Case {
    name: &'static str,
    /// The route's `body`.
    mode: &'static str,
    ask: Ask,
    answer: &'static str,
    in_session: bool,
    blocks_max: u64,
}

fn cases() -> [Case; 5] {
    let call = |ask: Ask| ask.named("name", "t");
    let modern = |name, mode, blocks_max| {
        let ask = call(Ask::modern("tools/call"));
        Case { name, mode, ask, answer: RESULT, in_session: false, blocks_max }
    };
    let legacy = call(Ask::legacy("tools/call"));
    [
        // The future of the request.
        modern("stream", "stream", 1),
        modern("headers", "headers", 1),
        // And the message.
        modern("envelope", "envelope", 2),
        // And the look into the answer, whether it says that the session is lost.
        Case { name: "session", mode: "headers", ask: legacy, answer: RESULT, in_session: true, blocks_max: 2 },
        // The future, that of sharing, the message, the question, the asker and its id.
        Case { name: "cached", mode: "headers", ask: Ask::list(), answer: LIST, in_session: false, blocks_max: 6 },
    ]
}

/// Blocks allocated so far.
fn blocks() -> u64 {
    dhat::HeapStats::get().total_blocks
}

/// The least that a request of a batch took.
fn blocks_each(case: &Case, driver: &str) -> f64 {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n",
        if case.in_session { "Mcp-Session-Id: s-1\r\n" } else { "" },
        case.answer.len()
    );
    let backend = backend((head + case.answer).into_bytes());
    let proxy = Proxy::builder()
        .reads_messages()
        .workers(1)
        .server(&format!("io_driver = \"{driver}\""))
        .backend("b", &[backend])
        .routes(&format!("[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"{}\"", case.mode))
        .start();
    let ask = if case.in_session {
        let token = initialize(&mut proxy.client());
        case.ask.clone().field(&format!("Mcp-Session-Id: {token}"))
    } else {
        case.ask.clone()
    };
    let mut asker = Asker::new(proxy.address(), ask.bytes());
    asker.ask(WARM_UP);
    let batches = (0..BATCHES).map(|_| {
        let before = blocks();
        asker.ask(REQUESTS_PER_BATCH);
        blocks() - before
    });
    batches.min().expect("batches") as f64 / REQUESTS_PER_BATCH as f64
}

#[test]
fn a_warm_request_allocates_no_more_than_is_known() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for driver in ["auto", "epoll"] {
        for case in cases() {
            let each = blocks_each(&case, driver);
            println!("{driver}, {}: {each} blocks a request, {} allowed", case.name, case.blocks_max);
            assert!(each < (case.blocks_max + 1) as f64, "{driver}, {}: {each} blocks a request", case.name);
        }
    }
}
