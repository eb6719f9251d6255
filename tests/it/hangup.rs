//! Who leaves, leaves at once: a client's end closes its upstream exchange in every phase, a backend's
//! end inside its answer is seen by the client, and nothing stays behind.
//!
//! All deadlines that could end an exchange are longer than `PATIENCE`: what ends it is the leave.

use crossbeam_channel::{Receiver, bounded, unbounded};

use crate::support::backend::{EVENT_STREAM, Exchange, LAST_CHUNK, STALL, chunk, event, send_until_stalled};
use crate::support::client::{CALL, DELETE, GET, post};
use crate::support::{Backend, BlackHole, Client, PATIENCE, Proxy, TempFile, eventually, json};

/// How a client leaves.
const WAYS: [fn(Client); 2] = [drop, Client::reset];

const UPLOAD: &str = "POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";

/// A backend that says when it has come to the point (`reach`), and when its client's end got there.
fn watched(reach: impl Fn(&mut Exchange) + Send + Sync + 'static) -> (Backend, Receiver<&'static str>) {
    let (sender, said) = unbounded();
    let backend = Backend::scripted(move |exchange| {
        reach(exchange);
        // The test may be over.
        let _ = sender.send("reached");
        exchange.wait_for_end();
        let _ = sender.send("ended");
    });
    (backend, said)
}

/// A client sends `request` and leaves when the backend has come to the point.
fn leaves_when(request: &str, reach: impl Fn(&mut Exchange) + Send + Sync + 'static) {
    let (backend, said) = watched(reach);
    let proxy = Proxy::before(&[backend.address()]);
    for (time, leave) in WAYS.into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(request);
        assert_eq!(said.recv_timeout(PATIENCE), Ok("reached"));
        leave(client);
        assert_eq!(said.recv_timeout(PATIENCE), Ok("ended"), "the backend still waits");
        proxy.comes_to_rest();
        assert_eq!(proxy.refused("client_gone"), (time + 1) as f64);
    }
    eventually("no upstream connection stays", || proxy.metric("ringway_connections{side=\"upstream\"}") == 0.0);
}

#[test]
fn inside_the_head() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    for leave in WAYS {
        for sent in ["", "P", "POST /mcp/b HTTP/1.1\r\nHost: h\r\nX-Ha"] {
            let mut client = proxy.client();
            client.send(sent);
            eventually("the client is connected", || proxy.metric("ringway_connections{side=\"client\"}") == 1.0);
            leave(client);
            proxy.comes_to_rest();
        }
    }
    assert_eq!(backend.connections(), 0);
    assert_eq!(proxy.metric("ringway_requests_total"), 0.0);
}

#[test]
fn between_head_and_body() {
    leaves_when(UPLOAD, |exchange| drop(exchange.head()));
}

#[test]
fn inside_the_body() {
    leaves_when(&format!("{UPLOAD}{}", "x".repeat(100_000)), |exchange| {
        exchange.head();
        exchange.exactly(100_000);
    });
}

#[test]
fn inside_a_chunked_body() {
    let request = "POST /mcp/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5";
    leaves_when(request, |exchange| {
        exchange.head();
        exchange.exactly("5\r\nhello\r\n".len());
    });
}

#[test]
fn while_the_backend_is_silent() {
    for request in [post(CALL).as_str(), GET, DELETE] {
        leaves_when(request, |exchange| drop(exchange.request()));
    }
}

#[test]
fn while_the_backend_is_silent_after_an_upload() {
    let body = "x".repeat(200_000);
    leaves_when(&post(&body), |exchange| drop(exchange.request()));
}

#[test]
fn after_a_request_that_fills_its_buffer_to_the_last_byte() {
    // The proxy reads requests of this size into a buffer with no byte to spare, in which the
    // client's end was not looked for.
    let empty = post("").len();
    for length in [4096, 65_536] {
        let digits = length.to_string().len();
        let request = post(&"x".repeat(length - empty - digits + 1));
        assert_eq!(request.len(), length);
        leaves_when(&request, |exchange| drop(exchange.request()));
    }
}

#[test]
fn with_more_requests_sent_behind_the_one_that_waits() {
    for behind in [post(CALL), post(&"x".repeat(20_000))] {
        leaves_when(&format!("{}{behind}", post(CALL)), |exchange| drop(exchange.request()));
    }
}

#[test]
fn between_an_interim_answer_and_the_final_one() {
    leaves_when(&post(CALL), |exchange| {
        exchange.request();
        exchange.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    });
}

/// As [`leaves_when`], but for a client that has read the beginning of its answer.
fn leaves_inside_the_answer(answer: impl Fn(&mut Exchange) + Send + Sync + 'static, read: fn(&mut Client)) {
    let (backend, said) = watched(move |exchange| {
        exchange.request();
        answer(exchange);
    });
    let proxy = Proxy::before(&[backend.address()]);
    for leave in WAYS {
        let mut client = proxy.client();
        client.send(post(CALL));
        assert_eq!(said.recv_timeout(PATIENCE), Ok("reached"));
        read(&mut client);
        leave(client);
        assert_eq!(said.recv_timeout(PATIENCE), Ok("ended"), "the backend still waits");
        proxy.comes_to_rest();
    }
    assert_eq!(proxy.refused("client_gone"), 2.0);
}

#[test]
fn while_a_stream_is_silent() {
    leaves_inside_the_answer(
        |exchange| {
            exchange.send([EVENT_STREAM, &chunk(&event("first"))].concat());
        },
        |client| {
            client.head();
            assert_eq!(client.event(), event("first"));
        },
    );
}

#[test]
fn before_the_first_event_of_a_stream() {
    leaves_inside_the_answer(
        |exchange| {
            exchange.send(EVENT_STREAM);
        },
        |client| drop(client.head()),
    );
}

#[test]
fn inside_an_answer_of_known_length() {
    leaves_inside_the_answer(
        |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        },
        |client| {
            client.head();
            client.exactly(4);
        },
    );
}

#[test]
fn without_reading_the_flood_that_it_asked_for() {
    let (stalled, told) = unbounded();
    let (done, ended) = unbounded();
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        send_until_stalled(&mut exchange.stream, &[b'x'; 65_536], 0, STALL);
        let _ = stalled.send(());
        while exchange.send([b'x'; 65_536]) {}
        let _ = done.send(());
    });
    let proxy = Proxy::before(&[backend.address()]);
    for leave in WAYS {
        let mut client = Client::connect_narrow(proxy.address());
        client.send(post(CALL));
        told.recv_timeout(PATIENCE).expect("the backend to stall");
        leave(client);
        ended.recv_timeout(PATIENCE).expect("the backend's writing to fail");
        proxy.comes_to_rest();
    }
    assert_eq!(proxy.refused("client_gone"), 2.0);
}

#[test]
fn no_request_is_made_up_for_the_backend() {
    let (backend, said) = watched(|exchange| drop(exchange.request()));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    assert_eq!(said.recv_timeout(PATIENCE), Ok("reached"));
    drop(client);
    assert_eq!(said.recv_timeout(PATIENCE), Ok("ended"));
    assert_eq!((backend.connections(), backend.requests()), (1, 1), "no cancel was invented");
}

#[test]
fn a_stream_can_be_opened_again_once_its_holder_has_left() {
    // As real servers do: one GET stream a session, 409 while it is held.
    let (held, place) = bounded::<()>(1);
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        if held.try_send(()).is_err() {
            exchange.send("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        exchange.send(EVENT_STREAM);
        exchange.wait_for_end();
        place.try_recv().unwrap();
    });
    let proxy = Proxy::before(&[backend.address()]);
    for _ in 0..5 {
        eventually("the stream is free again", || {
            let mut client = proxy.client();
            client.send(GET);
            client.head().starts_with("HTTP/1.1 200")
        });
    }
}

/// Answers that end too early, each with how many bytes of body the client gets to see.
#[test]
fn a_backend_that_breaks_off_is_not_taken_for_one_that_has_finished() {
    let broken = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf".to_owned(),
        [EVENT_STREAM, &chunk(&event("first"))].concat(),
    ];
    for (time, answer) in broken.into_iter().enumerate() {
        let backend = Backend::always_then_close(answer);
        let proxy = Proxy::before(&[backend.address()]);
        let mut client = proxy.client();
        client.send(post(CALL));
        let head = client.head();
        let body = String::from_utf8(client.rest()).unwrap();
        let whole = match head.contains("chunked") {
            true => body.ends_with(LAST_CHUNK),
            false => body.len() == 100,
        };
        assert!(!whole, "answer {time} looks complete: {head}{body}");
        assert_eq!(proxy.refused("upstream_truncated"), 1.0);
        proxy.comes_to_rest();
    }
}

#[test]
fn five_hundred_abandoned_exchanges_leave_nothing_behind() {
    let backend = Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            match request.starts_with("GET") {
                true => exchange.send([EVENT_STREAM, &chunk(&event("first"))].concat()),
                false => exchange.read_some().is_some(),
            };
        }
    });
    let proxy = Proxy::builder()
        .defaults("idle_conns_max = 0")
        .backend("b", &[backend.address()])
        .start_process(&TempFile::new());
    // One of each kind first: what is opened once stays open.
    let abandon = |number: usize| {
        let mut client = proxy.client();
        match number % 5 {
            0 => client.send("POST /mcp/b HT"),
            1 => client.send(UPLOAD),
            2 => client.send(post(CALL)),
            3 => client.send(GET),
            _ => {
                client.send(GET);
                client.head();
                assert_eq!(client.event(), event("first"));
            }
        }
        WAYS[number / 5 % 2](client);
    };
    (0..10).for_each(abandon);
    proxy.admin.comes_to_rest();
    let upstream = || proxy.admin.metric("ringway_connections{side=\"upstream\"}");
    eventually("no upstream connection stays", || upstream() == 0.0);
    let base = proxy.descriptors();
    (0..500).for_each(abandon);
    proxy.admin.comes_to_rest();
    eventually("no upstream connection stays", || upstream() == 0.0);
    eventually("all descriptors are closed", || proxy.descriptors() <= base);
}

#[test]
fn a_client_that_leaves_while_a_connection_is_made_runs_nothing() {
    let hole = BlackHole::new();
    let proxy = Proxy::builder().backend_with("b", &[hole.address], "connect_timeout_ms = 3600000").start();
    let mut client = proxy.client();
    client.send(post(CALL));
    eventually("begun", || proxy.metric("ringway_exchanges") == 1.0);
    drop(client);
    proxy.comes_to_rest();
    assert_eq!(proxy.refused("client_gone"), 1.0);
}
