//! Who does not read stops who sends, through the proxy, which holds next to nothing meanwhile.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::support::backend::{EVENT_STREAM, FLOOD, LAST_CHUNK, STALL, chunk, event, send_until_stalled};
use crate::support::client::{CALL, GET, post};
use crate::support::random::Random;
use crate::support::{Backend, Client, Gate, PATIENCE, Proxy, TempFile, eventually, json};

const MEGABYTE: usize = 1 << 20;

/// More than the kernel's buffers of two connections hold, and far less than what is to be sent.
const HELD_MAX: usize = 64 * MEGABYTE;

#[test]
fn a_reader_that_stalls_on_a_large_stream_of_events_pauses_the_backend_for_as_long() {
    const PAUSE: Duration = Duration::from_secs(20);
    let one = chunk(&event("x".repeat(1000)));
    let (stalled, count) = bounded(2);
    let block = one.repeat(64);
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            exchange.send(EVENT_STREAM);
            if request.contains("X-Short") {
                exchange.send(block.clone() + LAST_CHUNK);
                continue;
            }
            let mut sent = 0;
            // Once the buffers are full nothing is taken for the whole pause.
            for stall in [STALL, PAUSE] {
                sent = send_until_stalled(&mut exchange.stream, block.as_bytes(), sent, stall);
                stalled.send(sent).unwrap();
            }
            exchange.send(&block[sent % block.len()..]);
            exchange.wait_for_end();
        }
    });
    let proxy = Proxy::builder()
        .workers(1)
        .limits("write_timeout_ms = 3600000")
        .backend("b", &[backend.address()])
        .start_process(&TempFile::new());
    // The buffers of one stream are there before the count begins.
    for _ in 0..10 {
        let mut first = proxy.client();
        first.send(GET.replace("Accept", "X-Short: 1\r\nAccept"));
        assert_eq!(first.response().status, 200);
    }
    let before = proxy.memory();
    let mut client = Client::connect_narrow(proxy.address);
    client.send(GET);
    let filled = count.recv_timeout(PATIENCE).expect("the backend to stall");
    assert!(filled < HELD_MAX, "the backend could send {filled} bytes to nobody");
    let mut largest = 0;
    let sent = loop {
        largest = largest.max(proxy.memory());
        match count.recv_timeout(Duration::from_millis(100)) {
            Ok(sent) => break sent,
            Err(error) => assert_eq!(error, RecvTimeoutError::Timeout),
        }
    };
    let grown = largest.saturating_sub(before);
    println!(
        "a reader that stalls for {PAUSE:?}: the backend could write {filled} bytes of {FLOOD}, then {}; Ringway held {grown} more at most",
        sent - filled
    );
    assert!(sent < HELD_MAX, "the backend could send {sent} bytes to nobody");
    assert!(grown < MEGABYTE, "one stalled stream holds {grown} bytes");
    // The pause ends with the client's, and nothing is lost.
    client.head();
    for _ in 0..=sent / one.len() {
        assert_eq!(client.event().len(), event("x".repeat(1000)).len());
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_backend_and_loses_nothing() {
    let bytes = Random::new(1).bytes(4 * MEGABYTE);
    let (stalled, count) = bounded(1);
    let flood = bytes.clone();
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n"));
        stalled.send(send_until_stalled(&mut exchange.stream, &flood, 0, STALL)).unwrap();
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder().backend("b", &[backend.address()]).start_process(&TempFile::new());
    let before = proxy.memory();
    let mut client = Client::connect_narrow(proxy.address);
    client.send(post(CALL));
    let sent = count.recv_timeout(PATIENCE).expect("the backend to stall");
    assert!(sent < HELD_MAX, "the backend could send {sent} bytes to nobody");
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "one stalled stream holds {grown} bytes");
    client.head();
    let mut expected = bytes.repeat(sent / bytes.len() + 1);
    expected.truncate(sent);
    assert!(client.exactly(sent) == expected, "bytes were lost or changed on the way");
}

#[test]
fn a_backend_that_does_not_read_stops_the_client() {
    let gate = Gate::new();
    let answer = gate.clone();
    let backend = Backend::scripted(move |exchange| {
        exchange.head();
        answer.pass();
        exchange.send(json("\"enough\""));
    });
    let proxy = Proxy::builder()
        .limits(&format!("body_bytes_max = {FLOOD}"))
        .backend("b", &[backend.address()])
        .start_process(&TempFile::new());
    let before = proxy.memory();
    let mut client = proxy.client();
    client.send(format!("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: {FLOOD}\r\n\r\n"));
    let sent = send_until_stalled(&mut client.stream, &Random::new(1).bytes(MEGABYTE), 0, STALL);
    assert!(sent < HELD_MAX, "the client could send {sent} bytes to nobody");
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "one stalled upload holds {grown} bytes");
    gate.open();
    assert_eq!(client.response().text(), "\"enough\"");
}

/// Requests that a client sends before it reads any answer: more than the kernel holds answers for.
const MANY: usize = 700;

/// Answers with the request's number, and at a length that is sent with others when a turn of the loop ends.
fn counting() -> Backend {
    Backend::scripted(|exchange| {
        while let Some(request) = exchange.request() {
            let (_, number) = request.split_once("X-Number: ").unwrap();
            exchange.send(json(&numbered(&number[..4])));
        }
    })
}

fn numbered(number: &str) -> String {
    format!("\"{}\"", number.repeat(2500))
}

/// Sends so many requests, with `last_field` in the last of them, and gives how many the backend has had when
/// no more come.
fn ask_and_not_read(client: &mut Client, backend: &Backend, requests: usize, last_field: &str) -> usize {
    backend.waiting_requests();
    for number in 0..requests {
        let field = if number + 1 == requests { last_field } else { "" };
        client.send(GET.replace("\r\n\r\n", &format!("\r\n{field}X-Number: {number:04}\r\n\r\n")));
    }
    backend.requests_until_quiet_for(STALL)
}

#[test]
fn a_client_that_asks_for_everything_first_and_reads_late_gets_every_answer_whole() {
    let backend = counting();
    let proxy = Proxy::builder().workers(1).limits("write_timeout_ms = 3600000").backend("b", &[backend.address()]);
    let proxy = proxy.start();
    let asked = |requests: usize| {
        let mut client = Client::connect_narrow(proxy.address());
        let asked = ask_and_not_read(&mut client, &backend, requests, "Connection: close\r\n");
        for number in 0..requests {
            let text = client.response().text();
            assert!(text == numbered(&format!("{number:04}")), "answer {number} of {requests}");
        }
        assert!(client.ended());
        asked
    };
    let held = asked(MANY);
    assert!(held < MANY, "the kernel has room for all {MANY} answers");
    // The last one fits, fits partly, or has to wait.
    for requests in held - 3..=held {
        asked(requests);
    }
}

#[test]
fn a_client_that_asks_and_never_reads_is_cut_off_whatever_it_has_not_taken() {
    let backend = counting();
    let proxy = Proxy::builder().workers(1).limits("write_timeout_ms = 300").backend("b", &[backend.address()]).start();
    let mut first = Client::connect_narrow(proxy.address());
    let held = ask_and_not_read(&mut first, &backend, MANY, "");
    let mut others = Vec::new();
    for requests in held - 3..=held {
        let mut client = Client::connect_narrow(proxy.address());
        ask_and_not_read(&mut client, &backend, requests, "");
        others.push(client);
    }
    // What is left of an answer between two requests, too.
    eventually("nothing is held for them", || proxy.metric("ringway_memory_bytes") == 0.0);
    assert!(proxy.refused("write_timeout") >= 2.0);
}
