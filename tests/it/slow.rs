//! Slow peers cost themselves time and nobody else: they are cut off at their deadline, and others
//! are served as if they were not there.
//!
//! That nothing happens before its deadline is asserted; how long after it is printed.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, unbounded};
use ringway::clock;

use crate::support::client::{CALL, post};
use crate::support::{Backend, BlackHole, Client, Proxy, eventually, json};

/// A client that does not come to an end.
struct Slow {
    client: Client,
    /// Whether it sends a byte now and then.
    drips: bool,
    since: Instant,
    expected: (Duration, &'static str),
    /// When it was answered, and how.
    answer: Option<(Duration, String)>,
}

impl Slow {
    fn begin(proxy: &Proxy, bytes: &str, drips: bool, expected: (Duration, &'static str)) -> Self {
        let mut client = proxy.client();
        let since = clock::now();
        client.send(bytes);
        client.stream.set_nonblocking(true).unwrap();
        Self { client, drips, since, expected, answer: None }
    }

    /// Sends a byte if that is its way, and looks for an answer.
    fn go_on(&mut self) {
        let mut bytes = [0; 512];
        match self.client.stream.read(&mut bytes) {
            Ok(read) => {
                let status = String::from_utf8_lossy(&bytes[..read]).chars().skip(9).take(3).collect();
                self.answer = Some((clock::now().duration_since(self.since), status));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if self.drips {
                    // It may be closed between the two.
                    let _ = self.client.stream.write(b"x");
                }
            }
            Err(error) => panic!("closed without an answer: {error}"),
        }
    }
}

/// The time that a call of an honest client takes at most, for 50 and for 99 of 100 calls.
fn percentiles(mut taken: Vec<Duration>) -> (Duration, Duration) {
    assert!(!taken.is_empty());
    taken.sort();
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

/// Calls until told to stop: how long each took.
fn honest(proxy: &Proxy, over: &Receiver<()>) -> Vec<Duration> {
    let mut client = proxy.client();
    let mut taken = Vec::new();
    while over.try_recv().is_err() {
        let began = clock::now();
        assert_eq!(client.call().status, 200);
        taken.push(clock::now().duration_since(began));
    }
    taken
}

#[test]
fn slow_heads_and_bodies_are_cut_at_their_deadline_while_others_are_served() {
    const EACH: usize = 40;
    let (head, body, whole) = (Duration::from_millis(1000), Duration::from_millis(1200), Duration::from_millis(1500));
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .workers(1)
        .limits("head_timeout_ms = 1000\nbody_timeout_ms = 1200")
        .backend_with("b", &[backend.address()], "request_timeout_ms = 1500")
        .start();
    let alone = {
        let (stop, over) = bounded(0);
        thread::scope(|scope| {
            let calls = scope.spawn(|| honest(&proxy, &over));
            eventually("some calls", || proxy.metric("ringway_requests_total") > 300.0);
            stop.send(()).unwrap();
            percentiles(calls.join().unwrap())
        })
    };
    let upload = "POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf";
    let kinds = [
        ("POST /mcp/b HTTP/1.1\r\nHost: h\r\nX-Half", false, (head, "408")),
        ("POST /mcp/b HTTP/1.1\r\nHost: h\r\nX-Drip: ", true, (head, "408")),
        (upload, false, (body, "408")),
        // One that goes on sending is within `body_timeout_ms`; the whole exchange is not.
        (upload, true, (whole, "408")),
    ];
    let (stop, over) = bounded(0);
    let (mut slow, beside) = thread::scope(|scope| {
        let calls = scope.spawn(|| honest(&proxy, &over));
        let each = kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, EACH));
        let mut slow: Vec<Slow> =
            each.map(|&(bytes, drips, expected)| Slow::begin(&proxy, bytes, drips, expected)).collect();
        eventually("all are cut off", || {
            slow.iter_mut().filter(|slow| slow.answer.is_none()).for_each(Slow::go_on);
            slow.iter().all(|slow| slow.answer.is_some())
        });
        stop.send(()).unwrap();
        (slow, percentiles(calls.join().unwrap()))
    });
    let mut late = Duration::ZERO;
    for Slow { expected: (deadline, status), answer, .. } in &mut slow {
        let (after, answer) = answer.take().unwrap();
        assert_eq!(answer, *status);
        assert!(after >= *deadline, "{status} after {after:?}, before its deadline of {deadline:?}");
        late = late.max(after - *deadline);
    }
    println!("{} slow clients were cut off, the last {late:?} behind its deadline", slow.len());
    println!("calls of others, (p50, p99): alone {alone:?}, beside them {beside:?}");
    assert_eq!(proxy.refused("head_timeout") as usize, 2 * EACH);
    assert_eq!((proxy.refused("body_timeout") as usize, proxy.refused("request_timeout") as usize), (2 * EACH, 0));
}

#[test]
fn a_hundred_stuck_calls_do_not_delay_the_next() {
    let (hole, good) = (BlackHole::new(), Backend::always(json("{}")));
    // Silent to some, and quick for others.
    let moody = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            if !request.contains("X-Stuck") {
                exchange.send(json("{}"));
            }
        }
    });
    let proxy = Proxy::builder()
        .workers(1)
        .defaults("connect_timeout_ms = 3600000\nfirst_byte_timeout_ms = 3600000")
        .backend("hole", &[hole.address])
        .backend("moody", &[moody.address()])
        .backend("b", &[good.address()])
        .start();
    let to = |backend: &str| post(CALL).replace("/mcp/b", &format!("/mcp/{backend}"));
    let stuck: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = proxy.client();
            let request = if number % 2 == 0 { to("hole") } else { to("moody") };
            client.send(request.replace("Host", "X-Stuck: 1\r\nHost"));
            client
        })
        .collect();
    eventually("a hundred are stuck", || proxy.metric("ringway_exchanges") == 100.0);
    for backend in ["b", "moody"] {
        let mut client = proxy.client();
        for _ in 0..20 {
            client.send(to(backend));
            assert_eq!(client.response().status, 200, "{backend}");
        }
    }
    assert_eq!(proxy.metric("ringway_exchanges"), 100.0, "they are stuck still");
    drop(stuck);
    proxy.comes_to_rest();
}

#[test]
fn a_black_hole_is_504_at_its_deadline() {
    let deadline = Duration::from_millis(700);
    let hole = BlackHole::new();
    let (sender, _silent) = unbounded();
    let silent = Backend::scripted(move |exchange| {
        exchange.request();
        let _ = sender.send(());
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder()
        .defaults("connect_timeout_ms = 700\nfirst_byte_timeout_ms = 700")
        .backend("hole", &[hole.address])
        .backend("b", &[silent.address()])
        .start();
    for backend in ["hole", "b"] {
        let began = clock::now();
        let mut calls: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = proxy.client();
                client.send(post(CALL).replace("/mcp/b", &format!("/mcp/{backend}")));
                client
            })
            .collect();
        for client in &mut calls {
            assert_eq!(client.response().status, 504);
            assert!(clock::now().duration_since(began) >= deadline, "504 before the deadline");
        }
        let late = clock::now().duration_since(began).saturating_sub(deadline);
        println!("20 calls to {backend}: all 504, the last {late:?} behind its deadline");
    }
}
