//! Bodies pass as they come: at once, whole, with back-pressure, and in bounded memory.
//!
//! "At once" is shown in lockstep: the next part is sent only when the one before has arrived.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, GET, post};
use crate::support::random::Random;
use crate::support::{Backend, Client, PATIENCE, Proxy, TempFile, json};

const MEGABYTE: usize = 1 << 20;

/// A backend that answers each request with this head and then with every part that it is given.
fn fed(head: &'static str) -> (Backend, Sender<String>) {
    let (sender, parts) = unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        if exchange.request().is_some() && exchange.send(head) {
            while let Ok(part) = parts.recv_timeout(PATIENCE)
                && exchange.send(part)
            {}
        }
    });
    (backend, sender)
}

#[test]
fn each_event_arrives_before_the_next_one_is_sent() {
    let (backend, parts) = fed(EVENT_STREAM);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    let head = client.head();
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && !head.contains("Content-Length"), "{head}");
    for number in 0..100 {
        let sent = event(number);
        parts.send(chunk(&sent)).unwrap();
        assert_eq!(client.event(), sent);
    }
    parts.send(LAST_CHUNK.to_owned()).unwrap();
    assert_eq!(client.chunk(), b"");
}

#[test]
fn an_event_larger_than_every_buffer_arrives_whole_and_alone() {
    let (backend, parts) = fed(EVENT_STREAM);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    client.head();
    for length in [1, 65_535, 65_536, 65_537, 3 * MEGABYTE] {
        let sent = event("x".repeat(length));
        parts.send(chunk(&sent)).unwrap();
        assert_eq!(client.event(), sent);
    }
}

#[test]
fn an_event_sent_in_pieces_arrives_in_pieces() {
    let (backend, parts) = fed(EVENT_STREAM);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    client.head();
    for piece in ["data: on", "e\n", "\n: a comment", "\n\n"] {
        parts.send(chunk(piece)).unwrap();
        assert_eq!(client.chunk(), piece.as_bytes());
    }
}

#[test]
fn a_stream_that_ends_with_its_connection_gets_chunks_and_an_end() {
    let (backend, parts) = fed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send(post(CALL));
    client.head();
    for number in 0..10 {
        let sent = event(number);
        parts.send(sent.clone()).unwrap();
        assert_eq!(client.event(), sent);
    }
    drop(parts);
    // The script ends, and with it the backend's connection.
    assert_eq!(client.chunk(), b"");
}

#[test]
fn the_next_call_follows_a_stream_on_the_same_connection() {
    let stream = [EVENT_STREAM, &chunk(&event("only")), LAST_CHUNK].concat();
    let backend = Backend::always(stream);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.call().text(), event("only"));
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_held_stream_carries_what_later_calls_cause() {
    let (sender, notices) = unbounded::<String>();
    let backend = Backend::scripted(move |exchange| {
        while let Some(request) = exchange.request() {
            if request.starts_with("POST") {
                let number = request.rsplit("\r\n").next().unwrap().to_owned();
                sender.send(chunk(&event(&number))).unwrap();
                exchange.send(json(&number));
                continue;
            }
            exchange.send(EVENT_STREAM);
            while let Ok(notice) = notices.recv_timeout(PATIENCE)
                && exchange.send(notice)
            {}
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    let (mut listener, mut caller) = (proxy.client(), proxy.client());
    listener.send(GET);
    listener.head();
    assert_eq!(proxy.metric("ringway_streams"), 1.0);
    for number in 0..20 {
        caller.send(post(&number.to_string()));
        assert_eq!(caller.response().text(), number.to_string());
        assert_eq!(listener.event(), event(number));
    }
}

/// A backend that says what it has of a body, piece by piece, and answers when it has `length` bytes.
fn reading(length: usize) -> (Backend, Receiver<Vec<u8>>) {
    let (sender, pieces) = unbounded();
    let backend = Backend::scripted(move |exchange| {
        let mut left = length;
        if exchange.head().is_none() {
            return;
        }
        while left > 0
            && let Some(piece) = exchange.read_some()
        {
            left -= piece.len();
            sender.send(piece).unwrap();
        }
        exchange.send(json("\"read\""));
    });
    (backend, pieces)
}

#[test]
fn a_request_body_reaches_the_backend_before_it_is_complete() {
    let (backend, pieces) = reading(10);
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    for part in ["0123", "45", "6789"] {
        client.send(part);
        let mut seen = Vec::new();
        while seen.len() < part.len() {
            seen.extend(pieces.recv_timeout(PATIENCE).expect("the part at the backend"));
        }
        assert_eq!(seen, part.as_bytes());
    }
    assert_eq!(client.response().text(), "\"read\"");
}

#[test]
fn a_chunked_request_body_reaches_the_backend_chunk_by_chunk() {
    let framed = |part: &str| chunk(part);
    let (backend, pieces) = reading("4\r\n0123\r\n2\r\n45\r\n0\r\n\r\n".len());
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in [framed("0123"), framed("45"), LAST_CHUNK.to_owned()] {
        client.send(&part);
        let mut seen = Vec::new();
        while seen.len() < part.len() {
            seen.extend(pieces.recv_timeout(PATIENCE).expect("the chunk at the backend"));
        }
        assert_eq!(String::from_utf8_lossy(&seen), part);
    }
    assert_eq!(client.response().text(), "\"read\"");
}

#[test]
fn an_answer_that_comes_before_the_body_is_read_reaches_the_client() {
    let backend = Backend::scripted(|exchange| {
        exchange.head();
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nless");
        exchange.close();
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\nbegins");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "less"));
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.ended());
}

/// 50 MB there and back through one exchange; `frame` says how a body is framed.
fn fifty_megabytes(frame: fn(&[u8]) -> Vec<u8>, length_field: fn(usize) -> String) {
    const LENGTH: usize = 50 * MEGABYTE;
    let whole = Random::new(1).bytes(LENGTH);
    let sent = frame(&whole);
    let (field, framed_length) = (length_field(LENGTH), sent.len());
    let (done, body) = bounded(1);
    let head = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
    let back = sent.clone();
    let backend = Backend::scripted(move |exchange| {
        exchange.head();
        // Chunks are cut anew on the way, so a chunked body may be longer here.
        let mut seen = exchange.exactly(framed_length).expect("a whole body");
        while head.contains("chunked") && !seen.ends_with(b"\r\n0\r\n\r\n") {
            seen.extend(exchange.read_some().expect("the end of the body"));
        }
        done.send(seen).unwrap();
        exchange.send(&head);
        exchange.send(&back);
        exchange.wait_for_end();
    });
    let proxy = Proxy::builder().limits("body_bytes_max = 100000000").backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    let mut uploading = client.stream.try_clone().unwrap();
    let upload = thread::spawn(move || {
        use std::io::Write;
        uploading.write_all(format!("POST /mcp/b HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n").as_bytes())?;
        uploading.write_all(&sent)
    });
    let seen = body.recv_timeout(PATIENCE).expect("the body at the backend");
    upload.join().unwrap().unwrap();
    assert!(unframed(&seen) == whole, "the backend got other bytes");
    assert!(client.response().body == whole, "the client got other bytes");
}

/// The payload of a body, chunked or not.
fn unframed(body: &[u8]) -> Vec<u8> {
    if !body.ends_with(b"\r\n0\r\n\r\n") {
        return body.to_vec();
    }
    let (mut rest, mut payload) = (body, Vec::new());
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        payload.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    payload
}

#[test]
fn fifty_megabytes_of_known_length_pass_unchanged_both_ways() {
    fifty_megabytes(<[u8]>::to_vec, |length| format!("Content-Length: {length}"));
}

#[test]
fn fifty_megabytes_in_chunks_pass_unchanged_both_ways() {
    let in_chunks = |bytes: &[u8]| {
        let mut framed = Vec::new();
        for part in bytes.chunks(100_003) {
            framed.extend(format!("{:x}\r\n", part.len()).into_bytes());
            framed.extend_from_slice(part);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(LAST_CHUNK.as_bytes());
        framed
    };
    fifty_megabytes(in_chunks, |_| "Transfer-Encoding: chunked".to_owned());
}

#[test]
fn streams_that_wait_hold_no_buffers() {
    const STREAMS: usize = 400;
    let (backend, _parts) = fed(EVENT_STREAM);
    let proxy = Proxy::builder().backend("b", &[backend.address()]).start_process(&TempFile::new());
    let open = || {
        let mut client = proxy.client();
        client.send(GET);
        client.head();
        client
    };
    // What is allocated once is there before the count begins.
    let _first: Vec<Client> = (0..16).map(|_| open()).collect();
    let before = proxy.memory();
    let _held: Vec<Client> = (0..STREAMS).map(|_| open()).collect();
    let each = proxy.memory().saturating_sub(before) / STREAMS;
    assert!(each < 32 * 1024, "a waiting stream holds {each} bytes");
}
