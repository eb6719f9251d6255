//! Workers share the load, and none falls with one bad request; one that falls is replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringway::server::Hooks;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, Client, PATIENCE, Proxy, eventually, json};

#[test]
fn connections_spread_over_all_workers() {
    for workers in [1, 2, 4] {
        let backend = Backend::always(json("{}"));
        let proxy = Proxy::builder().workers(workers).backend("b", &[backend.address()]).start();
        let mut clients: Vec<Client> = (0..128).map(|_| proxy.client()).collect();
        for client in &mut clients {
            assert_eq!(client.call().status, 200);
        }
        let stats = proxy.operator().page("/stats");
        let counts = stats["workers"].as_array().unwrap().iter().map(|worker| &worker["counted"]);
        let held: Vec<u64> = counts.map(|counted| counted["client_connections"].as_u64().unwrap()).collect();
        assert_eq!((held.len(), held.iter().sum::<u64>()), (workers, 128));
        // By the kernel's hash; that one of four gets none of 128 has a chance of 10^-16.
        assert!(held.iter().all(|count| *count > 0), "{held:?}");
        assert_eq!(proxy.metric("ringway_worker_up"), workers as f64);
        assert_eq!(proxy.metric("ringway_requests_total"), 128.0);
    }
}

static STAND_STILL: AtomicBool = AtomicBool::new(false);
static STANDING: AtomicBool = AtomicBool::new(false);

fn stand_still() {
    while STAND_STILL.load(Ordering::SeqCst) {
        STANDING.store(true, Ordering::SeqCst);
        thread::yield_now();
    }
}

#[test]
fn more_connections_than_one_turn_takes_are_all_served() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder()
        .workers(1)
        .backend("b", &[backend.address()])
        .hooks(Hooks { tick: Some(stand_still), ..Hooks::default() })
        .start();
    STAND_STILL.store(true, Ordering::SeqCst);
    eventually("the worker stands still", || STANDING.load(Ordering::SeqCst));
    let mut clients: Vec<Client> = (0..400).map(|_| proxy.client()).collect();
    STAND_STILL.store(false, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.call().status, 200);
    }
    assert_eq!(proxy.metric("ringway_connections{side=\"client\"}"), 400.0);
}

#[test]
fn calls_from_many_threads_get_their_own_answers() {
    let backend = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            let body = request.split("\r\n\r\n").nth(1).unwrap().to_owned();
            exchange.send(json(&body));
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    thread::scope(|scope| {
        for name in 0..16 {
            let mut client = proxy.client();
            scope.spawn(move || {
                for number in 0..50 {
                    let body = format!("{{\"id\":\"{name}-{number}\"}}");
                    client.send(post(&body));
                    assert_eq!(client.response().text(), body);
                }
            });
        }
    });
    assert_eq!(proxy.metric("ringway_requests_total"), 800.0);
}

fn panic_at_trap(path: &[u8]) {
    assert!(path != b"/mcp/trap", "the test's own panic");
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let (sender, parts) = crossbeam_channel::unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.starts_with("POST") {
                exchange.send(json("{}"));
                continue;
            }
            exchange.send(EVENT_STREAM);
            while let Ok(part) = parts.recv_timeout(PATIENCE)
                && exchange.send(part)
            {}
        }
    });
    let proxy = Proxy::builder()
        .workers(1)
        .backend("b", &[backend.address()])
        .hooks(Hooks { request: Some(panic_at_trap), ..Hooks::default() })
        .start();
    let (mut caller, mut listener) = (proxy.client(), proxy.client());
    assert_eq!(caller.call().status, 200);
    listener.send(GET);
    listener.head();
    for time in 1..=3 {
        let mut victim = proxy.client();
        victim.send(post(CALL).replace("/mcp/b", "/mcp/trap"));
        assert!(victim.ended());
        sender.send(chunk(&event(time))).unwrap();
        assert_eq!(listener.event(), event(time), "the stream goes on");
        assert_eq!(caller.call().status, 200, "and so do calls");
        assert_eq!(proxy.metric("ringway_panics_total"), f64::from(time));
    }
    sender.send(LAST_CHUNK.to_owned()).unwrap();
    drop(listener);
    drop(caller);
    proxy.comes_to_rest();
    assert_eq!(proxy.metric("ringway_worker_restarts_total"), 0.0);
}

static FALL: AtomicBool = AtomicBool::new(false);

fn fall_once() {
    assert!(!FALL.swap(false, Ordering::SeqCst), "the test's own panic");
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let backend = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            if request.starts_with("POST") {
                exchange.send(json("{}"));
            }
        }
    });
    let proxy = Proxy::builder()
        .workers(2)
        .backend("b", &[backend.address()])
        .hooks(Hooks { tick: Some(fall_once), ..Hooks::default() })
        .start();
    let mut clients: Vec<Client> = (0..32).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    (0..32).for_each(|_| drop(backend.next_request()));
    let counted = proxy.metric("ringway_connections_accepted_total");

    FALL.store(true, Ordering::SeqCst);
    eventually("a worker was started again", || proxy.metric("ringway_worker_restarts_total") == 1.0);
    eventually("all workers answer", || proxy.metric("ringway_worker_up") == 2.0);
    // The dead worker's clients see the end; the other's wait on.
    let survivors = proxy.metric("ringway_connections{side=\"client\"}") as usize;
    assert!((1..32).contains(&survivors), "{survivors} of 32");
    let ended = clients
        .iter()
        .filter(|client| {
            client.stream.set_nonblocking(true).unwrap();
            matches!(client.stream.peek(&mut [0]), Ok(0)) || client.stream.take_error().unwrap().is_some()
        })
        .count();
    assert_eq!(ended, 32 - survivors);
    // Whichever worker they come to, new clients are served.
    for _ in 0..32 {
        assert_eq!(proxy.client().call().status, 200);
    }
    assert!(proxy.metric("ringway_connections_accepted_total") >= counted, "counters do not go down");
}

/// The kernel spreads connections by their addresses and ports, and knows nothing of what they carry.
#[test]
fn a_worker_with_far_more_streams_than_another_hands_new_connections_over() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.send(EVENT_STREAM);
        // As long as the test takes.
        exchange.stream.set_read_timeout(None).unwrap();
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder().workers(2).backend("b", &[backend.address()]).start();
    let streams = || {
        let stats = proxy.operator().page("/stats");
        [0, 1].map(|index: usize| stats["workers"][index]["counted"]["streams"].as_u64().expect("a number"))
    };
    // Streams gather on one worker: those that meet the other one are let go.
    let (mut held, mut before) = (Vec::new(), [0, 0]);
    loop {
        let mut client = proxy.client();
        client.send(GET);
        client.head();
        // Its head is sent before it is counted.
        let mut after = before;
        eventually("it is counted", || {
            after = streams();
            after != before
        });
        if after[0] > before[0] {
            held.push(client);
            before = after;
            assert!(held.len() < 200, "none was handed over: {after:?}");
        } else if proxy.metric("ringway_connections_handed_over_total") > 0.0 {
            assert_eq!(after, [before[0], before[1] + 1], "it is served where it went");
            return;
        } else {
            drop(client);
            eventually("it is let go", || streams() == before);
        }
    }
}
