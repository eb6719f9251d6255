//! No wait without an end: each deadline, what the other side sees of it, and the metric it shows in.
//!
//! What a test waits for is the outcome; how long it took is never asserted.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, BlackHole, Client, Gate, PATIENCE, Proxy, eventually, json};

/// A backend that reads each request and says nothing; it tells when its connection has ended.
fn silent() -> (Backend, crossbeam_channel::Receiver<()>) {
    let (sender, ended) = unbounded();
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() {}
        let _ = sender.send(());
    });
    (backend, ended)
}

#[test]
fn half_a_head_is_refused() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().limits("head_timeout_ms = 200").backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nX-Hal");
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    assert!(client.ended());
    assert_eq!(proxy.refused("head_timeout"), 1.0);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_head_that_drips_is_refused_all_the_same() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().limits("head_timeout_ms = 300").backend("b", &[backend.address()]).start();
    assert_eq!(drip(&proxy, "POST /mcp/b HTTP/1.1\r\nHost: h\r\nX-Drip: "), "HTTP/1.1 408");
    assert_eq!(proxy.refused("head_timeout"), 1.0);
}

/// Sends a beginning, and then a byte now and then until there is an answer: how that begins.
fn drip(proxy: &Proxy, beginning: &str) -> String {
    let mut client = proxy.client();
    client.send(beginning);
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut answer = [0; 12];
    while let Err(error) = client.stream.read_exact(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "closed without an answer");
        // It may close between the two.
        let _ = client.stream.write(b"x");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_that_stops_is_refused_and_the_backend_let_go() {
    let (backend, ended) = silent();
    let proxy = Proxy::builder().limits("body_timeout_ms = 200").backend("b", &[backend.address()]).start();
    for body in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = proxy.client();
        client.send(format!("POST /mcp/b HTTP/1.1\r\nHost: h\r\n{body}"));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (408, Some("close")));
        assert!(client.ended());
        ended.recv_timeout(PATIENCE).expect("the backend to see the end");
    }
    assert_eq!(proxy.refused("body_timeout"), 2.0);
}

#[test]
fn a_body_that_drips_is_the_clients_fault_and_not_the_backends() {
    // Each byte comes within `body_timeout_ms`, the body not within `request_timeout_ms`.
    let (backend, ended) = silent();
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "request_timeout_ms = 300").start();
    let upload = "POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf";
    assert_eq!(drip(&proxy, upload), "HTTP/1.1 408");
    ended.recv_timeout(PATIENCE).expect("the backend to see the end");
    assert_eq!((proxy.refused("body_timeout"), proxy.refused("request_timeout")), (1.0, 0.0));
}

#[test]
fn a_message_that_comes_too_slowly_reaches_no_backend() {
    let backend = Backend::always(json("{}"));
    let start = |limits, keys| {
        let table = "[[routes]]\npath = \"/mcp/b\"\nbackend = \"b\"\nbody = \"envelope\"";
        Proxy::builder().limits(limits).routes(table).backend_with("b", &[backend.address()], keys).start()
    };
    let message = post(CALL);
    let half = &message[..message.len() - 20];
    let stops = start("body_timeout_ms = 200", "");
    let mut client = stops.client();
    client.send(half);
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    let drips = start("", "request_timeout_ms = 300");
    let long = half.replace("Content-Length: ", "Content-Length: 9");
    assert_eq!(drip(&drips, &long), "HTTP/1.1 408");
    for proxy in [stops, drips] {
        assert_eq!((proxy.refused("body_timeout"), proxy.refused("request_timeout")), (1.0, 0.0));
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::builder().limits("idle_timeout_ms = 200").backend("b", &[backend.address()]).start();
    let (mut fresh, mut used) = (proxy.client(), proxy.client());
    assert!(fresh.ended());
    // A first call could come too late on a machine that stands still.
    eventually("a call is served and its connection closed", || {
        used = proxy.client();
        used.stream.write_all(post(CALL).as_bytes()).is_ok() && used.rest().starts_with(b"HTTP/1.1 200")
    });
    assert!(proxy.refused("idle_timeout") >= 2.0);
    proxy.comes_to_rest();
}

#[test]
fn a_backend_that_does_not_accept_is_504() {
    let hole = BlackHole::new();
    let proxy = Proxy::builder().backend_with("b", &[hole.address], "connect_timeout_ms = 200").start();
    let mut client = proxy.client();
    let response = client.call();
    assert_eq!((response.status, response.field("connection")), (504, None));
    assert_eq!(proxy.refused("connect_timeout"), 1.0);
}

#[test]
fn a_backend_that_does_not_accept_is_passed_over_for_one_that_does() {
    let (hole, backend) = (BlackHole::new(), Backend::always(json("{}")));
    let proxy = Proxy::builder()
        .backend_with(
            "b",
            &[hole.address, backend.address()],
            "connect_timeout_ms = 200\nconnect_cooldown_ms = 60000\nbalance = \"round_robin\"",
        )
        .start();
    let mut client = proxy.client();
    for _ in 0..6 {
        assert_eq!(client.call().status, 200);
    }
}

#[test]
fn a_backend_that_does_not_answer_is_504_and_let_go() {
    let (backend, ended) = silent();
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "first_byte_timeout_ms = 200").start();
    let mut client = proxy.client();
    for time in 1..=2 {
        let response = client.call();
        assert_eq!((response.status, response.field("connection")), (504, None), "the client may go on");
        ended.recv_timeout(PATIENCE).expect("the backend to see the end");
        assert_eq!(proxy.refused("first_byte_timeout"), f64::from(time));
    }
}

#[test]
fn half_an_answers_head_is_no_answer() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Le");
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "first_byte_timeout_ms = 200").start();
    assert_eq!(proxy.client().call().status, 504);
}

#[test]
fn a_stream_that_falls_silent_is_cut_off_and_not_ended() {
    let (sender, ended) = bounded(1);
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send([EVENT_STREAM, &chunk(&event("first"))].concat());
        exchange.wait_for_end();
        sender.send(()).unwrap();
    });
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "stream_idle_timeout_ms = 200").start();
    let mut client = proxy.client();
    client.send(GET);
    client.head();
    assert_eq!(client.event(), event("first"));
    assert_eq!(client.rest(), b"", "no last chunk: the client must not take it for the end");
    ended.recv_timeout(PATIENCE).expect("the backend to see the end");
    assert_eq!(proxy.refused("stream_idle_timeout"), 1.0);
    proxy.comes_to_rest();
}

#[test]
fn an_exchange_that_takes_too_long_is_504_before_its_answer_and_cut_off_inside() {
    let backend = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            if request.ends_with("begin") {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            }
        }
    });
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "request_timeout_ms = 300").start();
    let mut client = proxy.client();
    assert_eq!(client.call().status, 504);
    assert_eq!(proxy.refused("request_timeout"), 1.0);
    client.send(post("begin"));
    client.head();
    assert_eq!(client.rest(), b"half");
    assert_eq!(proxy.refused("request_timeout"), 2.0);
}

#[test]
fn a_stream_of_events_may_take_longer_than_a_request() {
    let gate = Gate::new();
    let second = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.starts_with("GET") {
                exchange.send([EVENT_STREAM, &chunk(&event("first"))].concat());
                second.pass();
                exchange.send([&chunk(&event("second")), LAST_CHUNK].concat());
            }
        }
    });
    let proxy = Proxy::builder().backend_with("b", &[backend.address()], "request_timeout_ms = 300").start();
    let mut stream = proxy.client();
    stream.send(GET);
    stream.head();
    assert_eq!(stream.event(), event("first"));
    // A call that begins now and runs into its deadline shows that the time has passed.
    assert_eq!(proxy.client().call().status, 504);
    gate.open();
    assert_eq!(stream.event(), event("second"));
    assert_eq!(stream.chunk(), b"");
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_the_backend_let_go() {
    let (sender, ended) = bounded(1);
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while exchange.send([b'x'; 65_536]) {}
        sender.send(()).unwrap();
    });
    let proxy = Proxy::builder().limits("write_timeout_ms = 300").backend("b", &[backend.address()]).start();
    let mut client = Client::connect_narrow(proxy.address());
    client.send(post(CALL));
    ended.recv_timeout(PATIENCE).expect("the backend's writing to fail");
    proxy.comes_to_rest();
    assert_eq!(proxy.refused("write_timeout"), 1.0);
    client.head();
    assert!(client.rest().len() < 1_000_000_000);
}

#[test]
fn a_backend_that_does_not_read_is_given_up() {
    let over = Gate::new();
    let held = over.clone();
    let backend = Backend::scripted(move |exchange| {
        exchange.head();
        held.pass();
    });
    let proxy = Proxy::builder()
        .limits("write_timeout_ms = 300\nbody_bytes_max = 1000000000")
        .backend("b", &[backend.address()])
        .start();
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
    // It ends when the proxy has answered and closed.
    while client.stream.write(&[b'x'; 65_536]).is_ok() {}
    assert!(proxy.refused("first_byte_timeout") + proxy.refused("write_timeout") >= 1.0);
    drop(client);
    proxy.comes_to_rest();
    over.open();
}

#[test]
fn an_upload_that_the_backend_does_not_take_is_not_the_clients_delay() {
    let (_over, held) = bounded::<()>(0);
    let backend = Backend::scripted(move |exchange| {
        exchange.head();
        let _ = held.recv_timeout(PATIENCE);
    });
    let proxy = Proxy::builder()
        .limits("body_timeout_ms = 300\nbody_bytes_max = 1000000000")
        .backend_with("b", &[backend.address()], "request_timeout_ms = 900")
        .start();
    // On a machine that stands still the client is late too: then it comes again.
    eventually("the backend is blamed", || {
        let mut client = proxy.client();
        client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
        while client.stream.write(&[b'x'; 65_536]).is_ok() {}
        proxy.refused("request_timeout") == 1.0
    });
}

#[test]
fn a_body_too_long_to_look_at_may_wait_for_its_backend() {
    let (hole, silent) = (BlackHole::new(), silent().0);
    let proxy = Proxy::builder()
        .reads_messages()
        .limits("body_timeout_ms = 1500\nlegacy_look_bytes_max = 1024")
        .backend_with("b", &[hole.address], "connect_timeout_ms = 3600000")
        .backend_with("silent", &[silent.address()], "first_byte_timeout_ms = 1700")
        .start();
    let mut client = proxy.client();
    client.send(
        "POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    eventually("its body is waited for", || proxy.metric("ringway_exchanges") == 1.0);
    client.send(chunk(&"x".repeat(2000)));
    // A call that runs into its deadline shows that `body_timeout_ms` has passed.
    let mut clock = proxy.client();
    clock.send(post(CALL).replace("/mcp/b", "/mcp/silent"));
    assert_eq!(clock.response().status, 504);
    let (seen, part) = bounded(1);
    let _backend = Backend::in_place_of(hole, move |exchange| {
        exchange.head();
        exchange.exactly(2000);
        seen.send(()).unwrap();
        let mut rest = Vec::new();
        while !rest.ends_with(LAST_CHUNK.as_bytes())
            && let Some(more) = exchange.read_some()
        {
            rest.extend(more);
        }
        exchange.send(json("\"whole\""));
    });
    part.recv_timeout(PATIENCE).expect("the first part at the backend");
    client.send(LAST_CHUNK);
    assert_eq!(client.response().text(), "\"whole\"");
}

#[test]
fn a_slow_upload_is_not_the_backends_delay() {
    // `first_byte_timeout_ms` runs from the last byte of the request, `write_timeout_ms` while the
    // backend takes nothing: a client that pauses touches neither.
    let (seen, part) = bounded(1);
    let backend = Backend::scripted(move |exchange| {
        while let Some(head) = exchange.head() {
            if head.contains("Content-Length: 10\r\n") {
                exchange.exactly(5);
                seen.send(()).unwrap();
                exchange.exactly(5);
                exchange.send(json("\"whole\""));
            }
        }
    });
    let proxy = Proxy::builder()
        .limits("write_timeout_ms = 100")
        .backend_with("b", &[backend.address()], "first_byte_timeout_ms = 1500")
        .start();
    let mut slow = proxy.client();
    slow.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234");
    part.recv_timeout(PATIENCE).expect("the first part at the backend");
    // A call that begins now and gets no answer shows that the time has passed.
    let mut clock = proxy.client();
    clock.send(GET);
    assert_eq!(clock.response().status, 504);
    slow.send("56789");
    assert_eq!(slow.response().text(), "\"whole\"");
}
