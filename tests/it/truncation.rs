//! A backend's answer that is cut, at every second byte, by an end or by a reset: the client never
//! takes what it has for the whole, and never waits for the rest.
//!
//! What the client has is read as strictly as the standard allows, and once more by curl.

use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::support::backend::{EVENT_STREAM, LAST_CHUNK, chunk, event};
use crate::support::client::{CALL, post};
use crate::support::wire::{Asked, messages};
use crate::support::{Backend, Proxy, json};

/// How the backend ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    End,
    Reset,
}

fn of_known_length() -> String {
    json(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"four chunks"}]}}"#)
}

fn chunked() -> String {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let parts = [r#"{"jsonrpc":"2.0","#, r#""id":1,"result":{"#, r#""content":[]}"#, "}"];
    head.to_owned() + &parts.map(chunk).concat() + LAST_CHUNK
}

fn events() -> String {
    let progress = event(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#);
    let last = event(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    [EVENT_STREAM, &chunk(&progress), &chunk(&last), LAST_CHUNK].concat()
}

/// A backend that sends so much of the answer as the request's `X-Cut` says, and ends as `X-Way` does.
fn cutting(answer: String) -> Backend {
    Backend::scripted(move |exchange| {
        let Some(request) = exchange.request() else { return };
        let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let length = field("X-Cut: ").expect("where to cut").parse().expect("a number");
        if field("X-Way: ").as_deref() == Some("Reset") {
            SockRef::from(&exchange.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        exchange.send(&answer.as_bytes()[..length]);
    })
}

/// Cuts the answer at every second byte, both ways, for a client that reads what comes and for one
/// that has read the beginning when the rest breaks off.
fn at_every_second_byte(answer: fn() -> String) {
    let whole = answer();
    let backend = cutting(whole.clone());
    let proxy = Proxy::before(&[backend.address()]);
    let payload = payload_of(&whole);
    let mut cut_off = 0;
    for length in (0..whole.len()).step_by(2) {
        for way in [Way::End, Way::Reset] {
            let mut client = proxy.client();
            client.send(post(CALL).replace("Host: test", &format!("Host: test\r\nX-Cut: {length}\r\nX-Way: {way:?}")));
            // A client that waited for the rest would run into its time limit, and panic.
            let what = format!("cut at {length} of {} by {way:?}", whole.len());
            let Some(seen) = answer_or_end(&mut client) else { continue };
            let answers = messages(&seen, Asked::Get).unwrap_or_else(|fault| panic!("{what}: {fault}"));
            let [message] = &answers[..] else { panic!("{what}: {answers:?}") };
            match message.status {
                502 => assert!(message.whole, "{what}: {message:?}"),
                200 => {
                    assert!(!message.whole, "{what}: looks complete: {message:?}");
                    assert!(payload.starts_with(&message.body), "{what}: other bytes: {message:?}");
                    cut_off += 1;
                }
                status => panic!("{what}: {status}"),
            }
        }
    }
    assert!(cut_off > 20, "only {cut_off} answers were cut off inside their body");
    proxy.comes_to_rest();
}

/// All that comes until the proxy ends the connection or has given an answer of its own, which leaves
/// it open. `None`: a reset took everything with it.
fn answer_or_end(client: &mut crate::support::Client) -> Option<Vec<u8>> {
    let mut first = [0];
    match client.stream.peek(&mut first) {
        Ok(1..) => {}
        Ok(_) => return None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
        Err(error) => panic!("no answer and no end: {error}"),
    }
    let head = client.head();
    let mut seen = head.clone().into_bytes();
    if head.starts_with("HTTP/1.1 502 ") {
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        seen.extend(client.exactly(length.parse().unwrap()));
    } else {
        seen.extend(client.rest());
    }
    Some(seen)
}

fn payload_of(answer: &str) -> Vec<u8> {
    let messages = messages(answer.as_bytes(), Asked::Get).expect("an answer");
    assert!(messages.len() == 1 && messages[0].whole);
    messages[0].body.clone()
}

#[test]
fn an_answer_of_known_length() {
    at_every_second_byte(of_known_length);
}

#[test]
fn an_answer_in_chunks() {
    at_every_second_byte(chunked);
}

#[test]
fn a_stream_of_events() {
    at_every_second_byte(events);
}

#[test]
fn curl_says_so_too() {
    let mut failed = 0;
    for answer in [of_known_length, chunked, events] {
        let whole = answer();
        let backend = cutting(whole.clone());
        let proxy = Proxy::before(&[backend.address()]);
        let ask = |length: usize| {
            let url = format!("http://{}/mcp/b", proxy.address());
            let output = Command::new("curl")
                .args(["-sS", "--max-time", "20", "--write-out", "\n%{http_code}", "--data", CALL, "--header"])
                .args([&format!("X-Cut: {length}"), &url])
                .stdin(Stdio::null())
                .output()
                .expect("curl");
            let said = String::from_utf8(output.stdout).unwrap();
            let (body, status) = said.rsplit_once('\n').expect("a status");
            (output.status.code(), status.to_owned(), body.to_owned())
        };
        let (code, status, body) = ask(whole.len());
        assert_eq!((code, status.as_str()), (Some(0), "200"));
        assert_eq!(body.into_bytes(), payload_of(&whole));
        // A process for each: at every eighth byte, beginning where the test above does.
        for length in (0..whole.len()).step_by(8) {
            match ask(length) {
                (Some(0), status, _) => assert_eq!(status, "502", "cut at {length}: curl takes it for whole"),
                // 18: fewer bytes than announced; 56: a chunk or the last one is missing.
                (Some(18 | 56), _, _) => failed += 1,
                other => panic!("cut at {length}: {other:?}"),
            }
        }
    }
    assert!(failed > 20, "only {failed} answers were cut off inside their body");
}
