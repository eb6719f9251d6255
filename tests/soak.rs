//! Mixed traffic through the real binary for some minutes, while backends die and come back and the
//! configuration changes: `scripts/soak [minutes]`.
//!
//! Two credentials ask for everything at once, in turn on the same connections: modern calls and lists, lists
//! that are shared and kept for their credential, legacy sessions, streams of events, and exchanges abandoned
//! anywhere. Every answer says whom it is for; the backends note every call that they execute. It fails at the first answer that belongs to another request, at a call
//! executed twice, when something hangs, when the proxy logs an error or panics, and when its memory
//! or its descriptors grow.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use nix::sys::signal::Signal;
use ringway::clock;
use socket2::{Domain, Protocol, Socket, Type};

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use all of it")]
mod support;

use support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event, json};
use support::mcp::{Ask, result};
use support::process::Process;
use support::random::Random;
use support::{Client, Proxy, ProxyBuilder, TempFile, eventually};

const CREDENTIALS: [&str; 2] = ["Bearer one", "Bearer two"];
/// Askers of each kind.
const EACH: u64 = 4;
/// Resident memory that the second half of the run may have more than the first.
const GROWTH_MAX: usize = 16 << 20;

fn main() {
    let minutes = std::env::args().nth(1).map_or(5.0, |text| text.parse::<f64>().expect("minutes"));
    let seed = std::env::var("SOAK_SEED").map_or(1, |text| text.parse().expect("a number"));
    println!("soak: {minutes} minutes, seed {seed}");
    let seen = soak(Duration::from_secs_f64(60.0 * minutes), seed);
    println!("{seen:#?}\nsoak: no wrong answer, no call twice, memory and descriptors flat");
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    calls: u64,
    lists: u64,
    /// Lists that may be shared and kept.
    shared: u64,
    sessions: u64,
    session_calls: u64,
    streams: u64,
    events: u64,
    abandoned: u64,
    /// Answers of the proxy's own, while backends were down.
    refused: u64,
    /// Answers cut off, and connections ended without one.
    cut_off: u64,
    kills: u64,
    reloads: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.lists += other.lists;
        self.shared += other.shared;
        self.sessions += other.sessions;
        self.session_calls += other.session_calls;
        self.streams += other.streams;
        self.events += other.events;
        self.abandoned += other.abandoned;
        self.refused += other.refused;
        self.cut_off += other.cut_off;
        self.kills += other.kills;
        self.reloads += other.reloads;
    }
}

/// What all threads share.
struct Stage {
    proxy: Process,
    over: AtomicBool,
    /// One number for each request, so that no two have the same.
    next: AtomicU64,
}

fn soak(length: Duration, seed: u64) -> Seen {
    let executed = Arc::new(Executed::default());
    let servers: Vec<Server> = (0..4).map(|_| Server::new(&executed)).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let file = TempFile::new();
    let stage = Stage {
        proxy: configuration(&addresses, 0).start_process(&file),
        over: AtomicBool::new(false),
        next: AtomicU64::new(0),
    };
    let kinds: [fn(&mut Asker<'_>); 6] = [
        |asker| asker.call(),
        |asker| asker.list(),
        |asker| asker.shared_list(),
        |asker| asker.use_session(),
        |asker| asker.follow_stream(),
        |asker| asker.abandon(),
    ];
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let mut askers = Vec::new();
        for (number, &kind) in kinds.iter().enumerate() {
            for asker in 0..EACH {
                let seed = seed + 100 * number as u64 + asker;
                let stage = &stage;
                askers.push(scope.spawn(move || Asker::new(stage, seed).run(kind)));
            }
        }
        seen += trouble(&stage, servers, &addresses, &file, length, seed);
        stage.over.store(true, Ordering::SeqCst);
        askers.into_iter().for_each(|asker| seen += asker.join().expect("an asker without a complaint"));
    });
    assert_eq!(executed.twice.load(Ordering::SeqCst), 0, "calls executed twice");
    let answered = [seen.calls, seen.lists, seen.shared, seen.session_calls];
    assert!(!answered.contains(&0) && seen.events > 0, "{seen:#?}");
    assert!(seen.refused + seen.cut_off < answered.iter().sum::<u64>() / 2, "{seen:#?}");
    let admin = stage.proxy.admin;
    let (kept, joined) = (r#"ringway_cache_total{result="hit"}"#, r#"ringway_coalesced_total{result="follower"}"#);
    let (kept, joined) = (admin.metric(kept), admin.metric(joined));
    println!("of {} shared lists {kept} came from the cache and {joined} from another's exchange", seen.shared);
    assert!(kept > 0.0 && joined > 0.0, "nothing was shared: there was nothing to mix up");
    admin.comes_to_rest();
    for name in ["ringway_panics_total", "ringway_worker_restarts_total"] {
        assert_eq!(admin.metric(name), 0.0, "{name}");
    }
    seen
}

fn configuration(addresses: &[SocketAddr], turn: usize) -> ProxyBuilder {
    // Endpoints, limits and backends come and go; what is asked for stays.
    let more = if turn.is_multiple_of(2) { &addresses[..2] } else { &addresses[..1] };
    let builder = Proxy::builder()
        .limits(&format!("headers_max = {}", 90 + turn % 10))
        .defaults("connect_cooldown_ms = 100")
        .backend("modern", more)
        .backend_with("shared", more, "coalesce = { enabled = true }\ncache = { enabled = true }")
        // A session ends with its endpoint, so these stay.
        .backend("legacy", &addresses[2..]);
    if turn.is_multiple_of(3) { builder.backend("extra", more) } else { builder }
}

/// Kills and restarts backends and changes the configuration until the time is over, and watches the
/// proxy's memory, descriptors and log meanwhile.
fn trouble(
    stage: &Stage,
    mut servers: Vec<Server>,
    addresses: &[SocketAddr],
    file: &TempFile,
    length: Duration,
    seed: u64,
) -> Seen {
    let (mut seen, mut random, began) = (Seen::default(), Random::new(seed), clock::now());
    // Most memory and fewest descriptors in the first half, without its first quarter in which all is new, and in
    // the second. How many descriptors there are at most depends on how many connections wait on a busy machine;
    // one that leaks is always there.
    let mut seen_of_half = [(0, usize::MAX); 2];
    let (mut turn, mut looked) = (0, 0);
    while clock::now().duration_since(began) < length {
        turn += 1;
        let index = random.below(servers.len());
        servers[index].kill();
        thread::park_timeout(Duration::from_millis(100 + random.below(200) as u64));
        servers[index].restart();
        seen.kills += 1;
        file.write(&configuration(addresses, turn).text());
        stage.proxy.signal(Signal::SIGHUP);
        stage.proxy.logs("configuration reloaded");
        seen.reloads += 1;
        thread::park_timeout(Duration::from_millis(500));
        for line in stage.proxy.logged() {
            assert_ne!(line["level"], "ERROR", "{line}");
        }
        let part = clock::now().duration_since(began).as_secs_f64() / length.as_secs_f64();
        let (memory, descriptors) = (stage.proxy.memory(), stage.proxy.descriptors());
        if let Some(half) = if part < 0.25 { None } else { Some(usize::from(part >= 0.5)) } {
            let (most, fewest) = seen_of_half[half];
            seen_of_half[half] = (memory.max(most), descriptors.min(fewest));
        }
        if (part * 10.0) as usize > looked {
            looked = (part * 10.0) as usize;
            println!("{:3.0} %: {} KiB of memory, {descriptors} descriptors", part * 100.0, memory / 1024);
        }
    }
    let [first, second] = seen_of_half;
    println!("most memory and fewest descriptors, up to half-time {first:?}, then {second:?}");
    assert!(second.0 < first.0 + GROWTH_MAX, "memory grows");
    assert!(second.1 < 2 * first.1 + 50, "descriptors grow");
    seen
}

/// One client, whose requests have this or that credential.
struct Asker<'a> {
    stage: &'a Stage,
    credential: &'static str,
    random: Random,
    client: Client,
    session: Option<String>,
    seen: Seen,
}

impl<'a> Asker<'a> {
    fn new(stage: &'a Stage, seed: u64) -> Self {
        let (random, client) = (Random::new(seed), stage.proxy.client());
        Self { stage, credential: CREDENTIALS[0], random, client, session: None, seen: Seen::default() }
    }

    fn run(mut self, kind: fn(&mut Self)) -> Seen {
        while !self.stage.over.load(Ordering::SeqCst) {
            // A session is its credential's.
            if self.session.is_none() {
                self.credential = CREDENTIALS[self.random.below(CREDENTIALS.len())];
            }
            kind(&mut self);
            // The machine has other things to do, and a connection to be idle now and then.
            thread::park_timeout(Duration::from_millis(self.random.below(4) as u64));
        }
        self.seen
    }

    /// A request of method `method`, with its number.
    fn request(&mut self, backend: &str, method: &str, fields: &str) -> (u64, String) {
        let number = self.stage.next.fetch_add(1, Ordering::SeqCst);
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let meta = if backend == "modern" { meta } else { "" };
        let comma = if meta.is_empty() { "" } else { "," };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{{"name":"echo","arguments":{{}}{comma}{meta}}}}}"#
        );
        let modern = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\nMcp-Name: echo\r\n");
        let modern = if backend == "modern" { &modern } else { "" };
        let (credential, length) = (self.credential, body.len());
        let head = format!(
            "POST /mcp/{backend} HTTP/1.1\r\nHost: soak\r\nAuthorization: {credential}\r\nX-Number: {number}\r\nX-Method: {method}\r\n{modern}{fields}"
        );
        (number, format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    /// Asks; the answer if it came whole and from a backend, after checking that it is ours.
    fn ask(&mut self, number: u64, request: &str) -> Option<support::Response> {
        let expected = format!("\"{} {number}\"", self.credential);
        self.exchange(request.as_bytes(), &expected)
    }

    /// The answer if it came whole and from a backend, after checking that it says what is expected.
    fn exchange(&mut self, request: &[u8], expected: &str) -> Option<support::Response> {
        let _asked = Asked(request);
        // The connection may have ended with the answer before.
        let sent = self.client.stream.write_all(request).is_ok();
        let answer = if sent { self.client.try_response() } else { None };
        match answer {
            Some(response) if response.status == 200 => {
                assert!(response.text().contains(expected), "not {expected}: {response:?}");
                Some(response)
            }
            Some(response) => {
                assert!(matches!(response.status, 502..=504), "{response:?}");
                self.seen.refused += 1;
                None
            }
            None => {
                self.seen.cut_off += 1;
                self.client = self.stage.proxy.client();
                None
            }
        }
    }

    fn call(&mut self) {
        let (number, request) = self.request("modern", "tools/call", "");
        self.seen.calls += u64::from(self.ask(number, &request).is_some());
    }

    fn list(&mut self) {
        let backend = if self.random.one_in(2) { "modern" } else { "legacy" };
        let (number, request) = self.request(backend, "tools/list", "");
        self.seen.lists += u64::from(self.ask(number, &request).is_some());
    }

    /// A list that the proxy may share and keep, which is another one for each credential.
    fn shared_list(&mut self) {
        let number = self.stage.next.fetch_add(1, Ordering::SeqCst);
        let ask = Ask::list().at("/mcp/shared").id(number).field(&format!("Authorization: {}", self.credential));
        let expected = format!("\"for\":\"{}\"", self.credential);
        if let Some(response) = self.exchange(&ask.bytes(), &expected) {
            response.answers(&ask);
            self.seen.shared += 1;
        }
    }

    /// Opens a session, calls within it, and leaves it now and then.
    fn use_session(&mut self) {
        let Some(session) = &self.session else {
            let (number, request) = self.request("legacy", "initialize", "");
            let answer = self.ask(number, &request);
            self.session = answer.map(|answer| answer.field("mcp-session-id").expect("a session id").to_owned());
            self.seen.sessions += u64::from(self.session.is_some());
            return;
        };
        let (number, request) = {
            let field = format!("Mcp-Session-Id: {session}\r\n");
            self.request("legacy", "tools/call", &field)
        };
        self.seen.session_calls += u64::from(self.ask(number, &request).is_some());
        if self.random.one_in(50) {
            self.session = None;
        }
        if self.random.one_in(10) {
            self.client = self.stage.proxy.client();
        }
    }

    /// Reads a stream of events to its end, or leaves before.
    fn follow_stream(&mut self) {
        let (number, request) = self.request("modern", "subscriptions/listen", "");
        let mut client = self.stage.proxy.client();
        let _asked = Asked(request.as_bytes());
        client.send(&request);
        let Some(head) = client.try_head() else { return self.seen.cut_off += 1 };
        if !head.starts_with("HTTP/1.1 200") {
            assert!(head.starts_with("HTTP/1.1 50"), "{head}");
            self.seen.refused += 1;
            return;
        }
        self.seen.streams += 1;
        let leave_after = if self.random.one_in(2) { self.random.below(EVENTS) } else { EVENTS };
        for place in 0..leave_after {
            let Some(event) = client.try_event() else { return self.seen.cut_off += 1 };
            let expected = format!("\"{} {number}\",\"place\":{place}", self.credential);
            assert!(event.contains(&expected), "asked for {expected}, got {event}");
            self.seen.events += 1;
        }
    }

    /// Sends a part of something, or all of it, and leaves.
    fn abandon(&mut self) {
        let method = if self.random.one_in(2) { "tools/list" } else { "subscriptions/listen" };
        let (_, request) = self.request("modern", method, "");
        let mut client = self.stage.proxy.client();
        let sent = if self.random.one_in(2) { request.len() } else { self.random.below(request.len()) };
        let _ = client.stream.write_all(&request.as_bytes()[..sent]);
        if self.random.one_in(2) {
            client.reset();
        }
        self.seen.abandoned += 1;
    }
}

/// Tells what was asked when the answer fails the test, or does not come.
struct Asked<'a>(&'a [u8]);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("asked {}", String::from_utf8_lossy(self.0));
        }
    }
}

/// How long a shared list is kept: often asked for anew, and more often not.
const KEPT_MS: u64 = 20;

/// Events of one stream.
const EVENTS: usize = 20;

/// Which calls were executed.
struct Executed {
    bits: Vec<AtomicU64>,
    twice: AtomicU64,
}

impl Default for Executed {
    fn default() -> Self {
        // For 64 million requests: more than this test can send in a day.
        Self { bits: (0..1 << 20).map(|_| AtomicU64::new(0)).collect(), twice: AtomicU64::new(0) }
    }
}

impl Executed {
    fn note(&self, number: u64) {
        let bit = 1 << (number % 64);
        let before = self.bits[(number / 64) as usize].fetch_or(bit, Ordering::SeqCst);
        self.twice.fetch_add(u64::from(before & bit != 0), Ordering::SeqCst);
    }
}

/// A backend that can be killed and comes back at the same address.
struct Server {
    address: SocketAddr,
    /// Holds the port while nobody listens.
    _port: Socket,
    executed: Arc<Executed>,
    /// While it lives: the end of this channel ends it.
    running: Option<Sender<()>>,
}

impl Server {
    fn new(executed: &Arc<Executed>) -> Self {
        let port = shared(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let mut server = Self { address, _port: port, executed: Arc::clone(executed), running: None };
        server.restart();
        server
    }

    fn restart(&mut self) {
        let socket = shared(self.address);
        socket.listen(1024).unwrap();
        let (listener, executed) = (std::net::TcpListener::from(socket), Arc::clone(&self.executed));
        let (running, ended) = unbounded::<()>();
        thread::spawn(move || {
            listener.set_nonblocking(true).unwrap();
            let mut connections: Vec<TcpStream> = Vec::new();
            while ended.recv_timeout(Duration::from_millis(2)) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                // Bounded: on a busy machine there may be more of them all the time.
                for (stream, _) in (0..64).map_while(|_| listener.accept().ok()) {
                    stream.set_nonblocking(false).unwrap();
                    connections.push(stream.try_clone().unwrap());
                    let (peer, executed) = (Client::over(stream), Arc::clone(&executed));
                    // In the pool a connection may wait for long.
                    peer.stream.set_read_timeout(None).unwrap();
                    thread::spawn(move || serve(peer, &executed));
                }
                // Those that have ended are let go now and then.
                if connections.len() > 1000 {
                    connections.retain(|stream| stream.take_error().is_ok() && stream.peer_addr().is_ok());
                }
            }
            connections.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        });
        self.running = Some(running);
    }

    /// Ends all its connections, wherever they stand, and listens no more.
    fn kill(&mut self) {
        self.running = None;
        eventually("nobody listens", || support::refuses(self.address));
    }
}

fn shared(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Answers every request with its credential and number.
fn serve(mut peer: Client, executed: &Executed) {
    while let Some(request) = request(&mut peer) {
        let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let (credential, number, method) = (field("Authorization: "), field("X-Number: "), field("X-Method: "));
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"for":"{credential} {number}"}}}}"#);
        let sent = match method {
            "subscriptions/listen" => {
                let events = (0..EVENTS)
                    .map(|place| chunk(&event(format!(r#"{{"for":"{credential} {number}","place":{place}}}"#))));
                peer.stream.write_all(EVENT_STREAM.as_bytes()).is_ok()
                    && events.into_iter().all(|event| {
                        thread::park_timeout(Duration::from_millis(2));
                        peer.stream.write_all(event.as_bytes()).is_ok()
                    })
                    && peer.stream.write_all(LAST_CHUNK.as_bytes()).is_ok()
            }
            "initialize" => {
                let head = format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: session-{number}\r\n");
                peer.stream.write_all(json(&answer).replace("HTTP/1.1 200 OK\r\n", &head).as_bytes()).is_ok()
            }
            // A list to be shared: the request has no number, and whose it is the credential alone says.
            "" => {
                let list = format!(r#""ttlMs":{KEPT_MS},"cacheScope":"private""#);
                peer.stream.write_all(json(&result(&request, &list)).as_bytes()).is_ok()
            }
            _ => {
                if method == "tools/call" {
                    executed.note(number.parse().expect("a number"));
                }
                peer.stream.write_all(json(&answer).as_bytes()).is_ok()
            }
        };
        if !sent {
            return;
        }
    }
}

/// A whole request, with its body.
fn request(peer: &mut Client) -> Option<String> {
    let head = peer.try_head()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
    let body = peer.try_exactly(length.parse().expect("a length"))?;
    Some(head + &String::from_utf8_lossy(&body))
}
