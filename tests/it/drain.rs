//! Ending well: nothing new, what runs is finished, and not for ever.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringway::control::Exit;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::{Backend, Gate, PATIENCE, Proxy, eventually, json};

/// A backend that answers when told.
fn holding() -> (Backend, Gate) {
    let gate = Gate::new();
    let answer = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        while exchange.request().is_some() {
            answer.pass();
            exchange.send(json("\"late\""));
        }
    });
    (backend, gate)
}

/// A backend that answers with a stream of events, and sends what it is given.
fn streaming() -> (Backend, Sender<String>) {
    let (sender, parts) = unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(EVENT_STREAM);
        while let Ok(part) = parts.recv_timeout(PATIENCE)
            && exchange.send(part)
        {}
    });
    (backend, sender)
}

/// Says when the proxy has ended.
fn ending(mut proxy: Proxy) -> Receiver<Exit> {
    let (sender, ended) = bounded(1);
    thread::spawn(move || sender.send(proxy.server().wait().unwrap()).unwrap());
    ended
}

#[test]
fn what_is_in_flight_is_finished_and_nothing_new_is_taken() {
    let (backend, gate) = holding();
    let mut proxy = Proxy::before(&[backend.address()]);
    let (mut busy, mut idle, mut fresh) = (proxy.client(), proxy.client(), proxy.client());
    busy.send(post(CALL));
    backend.next_request();
    idle.send("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(idle.response().status, 404);

    let operator = proxy.operator();
    proxy.begin_drain();
    assert_eq!(operator.ask("GET", "/readyz").status, 503);
    assert_eq!(operator.ask("GET", "/livez").status, 200);
    assert!(idle.ended(), "a connection between requests");
    assert!(fresh.ended(), "a connection before its first");
    assert_eq!(operator.metric("ringway_exchanges"), 1.0);

    let ended = ending(proxy);
    assert!(ended.try_recv().is_err(), "it waits for the call");
    gate.open();
    let response = busy.response();
    assert_eq!((response.status, response.text().as_str()), (200, "\"late\""));
    assert_eq!(response.field("connection"), Some("close"));
    assert!(busy.ended());
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(Exit::Clean));
}

#[test]
fn without_exchanges_it_ends_at_once() {
    let backend = Backend::always(json("{}"));
    let mut proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    assert_eq!(client.call().status, 200);
    assert_eq!(proxy.server().stop().unwrap(), Exit::Clean);
    assert!(client.ended());
}

#[test]
fn an_upload_that_has_begun_is_finished() {
    let backend = Backend::always(json("{}"));
    let mut proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234");
    eventually("the exchange has begun", || proxy.metric("ringway_exchanges") == 1.0);
    proxy.begin_drain();
    client.send("56789");
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    assert_eq!(ending(proxy).recv_timeout(PATIENCE), Ok(Exit::Clean));
}

#[test]
fn a_stream_may_come_to_its_end() {
    let (backend, sender) = streaming();
    let mut proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    client.head();
    proxy.begin_drain();
    sender.send(chunk(&event("still"))).unwrap();
    assert_eq!(client.event(), event("still"));
    sender.send(LAST_CHUNK.to_owned()).unwrap();
    assert_eq!(client.chunk(), b"");
    assert!(client.ended());
    assert_eq!(ending(proxy).recv_timeout(PATIENCE), Ok(Exit::Clean));
}

#[test]
fn a_stream_that_would_never_end_is_ended_between_two_events() {
    let (backend, sender) = streaming();
    let mut proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(GET);
    client.head();
    let whole = event("whole");
    let (begun, rest) = whole.split_at(9);
    sender.send(chunk(begun)).unwrap();
    assert_eq!(client.chunk(), begun.as_bytes());
    proxy.begin_drain();
    sender.send(chunk(rest)).unwrap();
    assert_eq!(client.chunk(), rest.as_bytes(), "an event that has begun is not torn");
    assert_eq!(client.chunk(), b"", "the body ends as a body does");
    assert!(client.ended());
    assert_eq!(ending(proxy).recv_timeout(PATIENCE), Ok(Exit::Clean));
}

#[test]
fn p_081_a_subscription_ends_with_its_result() {
    let backend = Backend::scripted(|exchange| {
        exchange.request();
        exchange.send(EVENT_STREAM);
        exchange.wait_for_end();
    });
    let mut proxy = Proxy::builder().reads_messages().backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    let listen = r#"{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let fields = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\nContent-Type";
    client.send(post(listen).replacen("Content-Type", fields, 1));
    client.head();
    proxy.server().control.stop();
    let last = client.event();
    let data = last.strip_prefix("event: message\ndata: ").expect("an event");
    let data: serde_json::Value = serde_json::from_str(data.trim_end()).expect("JSON");
    assert_eq!(data["id"], "sub-1");
    assert_eq!(data["result"]["resultType"], "complete");
    assert_eq!(data["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub-1");
    assert_eq!(client.chunk(), b"");
    assert!(client.ended());
    assert_eq!(ending(proxy).recv_timeout(PATIENCE), Ok(Exit::Clean));
}

#[test]
fn what_outlasts_the_drain_is_cut_off() {
    let (backend, _gate) = holding();
    let mut proxy = Proxy::builder().server("drain_timeout_ms = 200").backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    client.send(post(CALL));
    backend.next_request();
    assert_eq!(proxy.server().stop().unwrap(), Exit::Clean);
    assert!(client.ended());
}

#[test]
fn the_answer_that_says_close_is_the_last() {
    let (backend, gate) = holding();
    let mut proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL) + &post(CALL));
    backend.next_request();
    proxy.begin_drain();
    gate.open();
    // The client may send its second request again elsewhere: it has not been begun.
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    assert!(client.ended());
    assert_eq!(ending(proxy).recv_timeout(PATIENCE), Ok(Exit::Clean));
}
