//! A client's leave reaches the backend at once, also while the backend is silent; and ten thousand
//! exchanges that were abandoned anywhere leave nothing behind.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use ringway::clock;

use crate::support::backend::{EVENT_STREAM, Exchange, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::random::Random;
use crate::support::{Backend, PATIENCE, Process, Proxy, TempFile, eventually, json};

/// A request of a version in which a closed connection is the cancellation.
fn modern(request: &str) -> String {
    request.replace("Host: test", "Host: test\r\nMCP-Protocol-Version: 2026-07-28")
}

/// What happens at the backend, and when.
enum Seen {
    Silent,
    Ended(Instant),
}

/// Brings an exchange to a point where the backend is silent.
type Reach = fn(&mut Exchange);

#[test]
fn a_silent_backend_sees_its_client_leave() {
    const ROUNDS: usize = 100;
    /// The promise is 50 ms; a machine that is busy with other things may take its time.
    const BOUND: Duration = Duration::from_secs(2);
    let phases: [(&str, Reach); 2] = [
        ("before an answer", |exchange| drop(exchange.request())),
        ("inside a stream", |exchange| {
            exchange.request();
            exchange.send([EVENT_STREAM, &chunk(&event("first"))].concat());
        }),
    ];
    for (phase, reach) in phases {
        let (sender, seen) = unbounded();
        let backend = Backend::scripted(move |exchange| {
            reach(exchange);
            // The test may be over.
            let _ = sender.send(Seen::Silent);
            exchange.wait_for_end();
            let _ = sender.send(Seen::Ended(clock::now()));
        });
        let proxy = Proxy::before(&[backend.address()]);
        let mut taken = Vec::new();
        for round in 0..ROUNDS {
            let mut client = proxy.client();
            client.send(modern(&post(CALL)));
            assert!(matches!(seen.recv_timeout(PATIENCE), Ok(Seen::Silent)));
            if phase == "inside a stream" {
                client.head();
                assert_eq!(client.event(), event("first"));
            }
            let left = clock::now();
            if round % 2 == 0 {
                drop(client)
            } else {
                client.reset()
            }
            let Ok(Seen::Ended(ended)) = seen.recv_timeout(PATIENCE) else { panic!("{phase}: the backend waits") };
            taken.push(ended.duration_since(left));
        }
        taken.sort();
        let (median, slowest) = (taken[ROUNDS / 2], taken[ROUNDS - 1]);
        println!("{phase}: the backend sees the leave after {median:?} (median), {slowest:?} at most");
        assert!(slowest < BOUND, "{phase}: {slowest:?}");
    }
}

/// Answers, streams, or falls silent inside an answer, by chance.
fn unsteady(exchange: &mut Exchange, seed: u64) {
    let mut random = Random::new(seed + exchange.connection as u64);
    while exchange.request().is_some() {
        let one_event = [EVENT_STREAM, &chunk(&event("one"))].concat();
        let (sent, goes_on) = match random.below(8) {
            0..4 => (json("{}"), true),
            4 => (one_event + LAST_CHUNK, true),
            5 => (one_event, false),
            6 => (String::new(), false),
            _ => ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf".to_owned(), false),
        };
        if !exchange.send(sent) || !goes_on {
            exchange.wait_for_end();
            return;
        }
    }
}

/// Abandons one exchange at a random byte of the request, or of its answer.
fn abandon(proxy: &Process, random: &mut Random) {
    let request = match random.below(4) {
        0 => modern(GET),
        1 => "POST /mcp/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        2 => post(&"x".repeat(random.below(100_000))),
        _ => modern(&post(CALL)),
    };
    let mut client = proxy.client();
    let sent = if random.one_in(2) { request.len() } else { random.below(request.len()) };
    // The proxy may have refused it already.
    let _ = client.stream.write_all(&request.as_bytes()[..sent]);
    if sent == request.len() && random.one_in(2) {
        // Whatever comes first of an answer, or nothing for a moment.
        client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let _ = client.stream.peek(&mut [0]);
    }
    if random.one_in(2) { drop(client) } else { client.reset() }
}

#[test]
fn ten_thousand_abandoned_exchanges_leave_nothing_behind() {
    const THREADS: u64 = 4;
    const EACH: usize = 2_500;
    const SEED: u64 = 7;
    const GROWTH_MAX: usize = 8 << 20;
    println!("seed {SEED}");
    let backend = Backend::scripted(|exchange| unsteady(exchange, SEED));
    let proxy = Proxy::builder().backend("b", &[backend.address()]).start_process(&TempFile::new());
    let all = |each: usize| {
        thread::scope(|scope| {
            for number in 0..THREADS {
                let proxy = &proxy;
                scope.spawn(move || {
                    let mut random = Random::new(SEED + number);
                    (0..each).for_each(|_| abandon(proxy, &mut random));
                });
            }
        });
        proxy.admin.comes_to_rest();
        let value = |name| proxy.admin.metric(name) as usize;
        eventually("what is open is idle", || {
            value("ringway_connections{side=\"upstream\"}") == value("ringway_pool_idle")
        });
        // Of them all, what the pool keeps is the only thing that may stay.
        proxy.descriptors() - value("ringway_pool_idle")
    };
    // What is opened and allocated once is there before the count begins.
    let descriptors = all(EACH / 10);
    let memory = proxy.memory();
    let left = all(EACH);
    let grown = proxy.memory().saturating_sub(memory);
    println!("10,000 abandoned exchanges: {descriptors} descriptors before, {left} behind, {grown} bytes more");
    eventually("all descriptors are closed", || {
        proxy.descriptors() - proxy.admin.metric("ringway_pool_idle") as usize <= descriptors
    });
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    eventually("calls are answered as before", || {
        let mut client = proxy.client();
        // The backend may keep this one waiting, as it does by chance.
        client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.send(post(CALL));
        matches!(client.stream.peek(&mut [0]), Ok(1))
    });
}
