//! What one connection costs: tens of thousands of them against the real binary, on both drivers.
//!
//! A binary of its own, since it takes all descriptors that a process may have. It asks for more than
//! that; where the machine does not allow 20,000 connections it opens as many as it may and says so.
//! What is asserted is the memory of one.
//!
//! Memory is counted as the growth of `RssAnon`, the process's own resident pages, divided by the
//! number of connections: buffers, tasks, timers, the driver's state for each descriptor, and what the
//! allocator loses between them. The kernel's sockets are not in it; they are printed beside it, as
//! the growth of `Slab` in `/proc/meminfo` for both ends of each connection together.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};

#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use all of it")]
mod support;

use support::client::{GET, post};
use support::process::{Process, serving};
use support::{Proxy, TempFile, eventually};

/// How many connections the promise is about.
const WANTED: usize = 20_000;
/// Resident bytes that one of them may cost.
const EACH_MAX: usize = 4 * 1024;
/// Descriptors of either process that are not connections.
const OTHER_DESCRIPTORS: usize = 200;
/// Connections from one source address: below the number of its ports.
const FROM_ONE_ADDRESS: usize = 5_000;

const DRIVERS: [&str; 2] = ["auto", "epoll"];

/// One test at a time: each takes all descriptors.
#[expect(clippy::disallowed_types, reason = "tests wait for one another")]
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone(test: impl FnOnce()) {
    // A test that failed has closed its connections.
    let _held = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    test();
}

/// Descriptors that a process may have, after asking for enough for `WANTED` pairs.
fn descriptors() -> usize {
    let enough = (2 * WANTED + OTHER_DESCRIPTORS) as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Only who is privileged may go beyond the hard limit.
    if hard >= enough || setrlimit(Resource::RLIMIT_NOFILE, enough, enough).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(enough), hard).unwrap();
    }
    getrlimit(Resource::RLIMIT_NOFILE).unwrap().0 as usize
}

/// A server on one thread: gives every connection this answer to its first request, and holds it open.
struct Holder {
    address: SocketAddr,
}

impl Holder {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                match stream.read(&mut request) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => stream.write_all(answer.as_bytes()).unwrap(),
                }
                held.push(stream);
            }
        });
        Self { address }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A connection without a request ends it, and closes all that it holds.
        let _ = TcpStream::connect(self.address);
    }
}

/// The `number`th connection, from an address that has ports left.
fn connect(number: usize, to: SocketAddr) -> TcpStream {
    let from = [127, 0, 1, 1 + (number / FROM_ONE_ADDRESS) as u8];
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    // A port taken by `bind` is nobody else's, whatever the address; the proxy needs as many.
    setsockopt(&socket, IpBindAddressNoPort, &true).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream
}

/// Asks, and reads a beginning of the answer that ends so.
fn ask(stream: &mut TcpStream, request: &str, end: &str) {
    stream.write_all(request.as_bytes()).unwrap();
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    while !seen.ends_with(end.as_bytes()) {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..read]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&seen));
}

fn start(backend: SocketAddr, driver: &str, file: &TempFile) -> Process {
    let text = Proxy::builder()
        .workers(2)
        .limits("idle_timeout_ms = 3600000\nconnections_per_worker_max = 100000\nconnections_per_ip_max = 100000\nexchanges_per_worker_max = 100000")
        .backend_with("b", &[backend], "stream_idle_timeout_ms = 3600000")
        .text();
    file.write(&text);
    let mut command = serving(file.path());
    command.env("RINGWAY_IO_DRIVER", driver);
    let process = Process::start(command);
    process.wait_for_workers();
    process
}

/// Kernel memory for objects such as sockets, of the whole machine.
fn slab() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).expect("a size");
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Opens `count` connections with `open` and asserts what one costs. Gives those that it counted.
#[must_use]
fn cost(
    what: &str,
    driver: &str,
    process: &Process,
    count: usize,
    open: impl Fn(usize) -> TcpStream,
) -> Vec<TcpStream> {
    // What is allocated once is there before the count begins.
    let mut all: Vec<TcpStream> = (0..64).map(&open).collect();
    let (before, kernel) = (process.memory(), slab());
    all.extend((64..count).map(open));
    eventually("all are counted", || process.admin.metric("ringway_connections{side=\"client\"}") as usize == count);
    let each = process.memory().saturating_sub(before) / (count - 64);
    let kernel = slab().saturating_sub(kernel) / (count - 64);
    println!("{driver}: {count} {what}: {each} bytes each, and some {kernel} of the kernel's for both ends");
    assert!(each < EACH_MAX, "{driver}: one of {count} {what} holds {each} bytes");
    all
}

#[test]
fn an_idle_connection_costs_less_than_a_page() {
    alone(|| {
        let count = WANTED.min(descriptors() - OTHER_DESCRIPTORS);
        for driver in DRIVERS {
            let backend = Holder::new("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
            let file = TempFile::new();
            let process = start(backend.address, driver, &file);
            // The backend holds a descriptor for each call that it answered: few call, all wait.
            let _held = cost("idle connections", driver, &process, count, |number| {
                let mut stream = connect(number, process.address);
                ask(&mut stream, "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", "such route\"}}");
                stream
            });
        }
    });
}

#[test]
fn an_open_stream_of_events_costs_less_than_a_page() {
    alone(|| {
        let count = WANTED.min((descriptors() - OTHER_DESCRIPTORS) / 2);
        for driver in DRIVERS {
            let backend = Holder::new(concat!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                "b\r\ndata: one\n\n\r\n"
            ));
            let file = TempFile::new();
            let process = start(backend.address, driver, &file);
            let held = cost("open streams", driver, &process, count, |number| {
                let mut stream = connect(number, process.address);
                ask(&mut stream, GET, "data: one\n\n\r\n");
                stream
            });
            eventually("all are counted", || process.admin.metric("ringway_streams") as usize == held.len());
        }
    });
}

#[test]
fn sessions_cost_nothing() {
    const SESSIONS: usize = 10_000;
    const ALL_MAX: usize = 1 << 20;
    alone(|| {
        for driver in DRIVERS {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let backend = listener.local_addr().unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    thread::spawn(move || give_sessions(stream.unwrap()));
                }
            });
            let file = TempFile::new();
            let process = start(backend, driver, &file);
            let mut client = process.client();
            let mut open = || {
                client.send(post(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#));
                let response = client.response();
                assert!(response.field("mcp-session-id").is_some_and(|id| id.len() > 40), "{response:?}");
            };
            (0..200).for_each(|_| open());
            let before = process.memory();
            (0..SESSIONS).for_each(|_| open());
            let grown = process.memory().saturating_sub(before);
            println!("{driver}: {SESSIONS} sessions opened one after the other: {grown} bytes");
            assert!(grown < ALL_MAX, "{driver}: {grown} bytes");
        }
    });
}

/// Answers each request with a session of its own.
fn give_sessions(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let mut number = 0;
    while let Ok(1..) = stream.read(&mut request) {
        number += 1;
        let answer =
            format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: session-number-{number}\r\nContent-Length: 2\r\n\r\n{{}}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
