//! Answers of backends byte by byte: what reaches the client, and that nothing of a bad answer
//! reaches anyone else.
//!
//! Each case runs on a connection that served before. After it two clients with credentials of
//! their own ask, and each must get its own answer, whatever the case left behind.

use std::io::Read;
use std::time::Duration;

use socket2::SockRef;

use crate::support::backend::Exchange;
use crate::support::wire::{Asked, Message, messages};
use crate::support::{Backend, Client, Proxy, eventually, json};

/// What the backend does behind its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Waits for the next request.
    Stays,
    Closes,
    Resets,
}

/// What the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// An answer of our own.
    BadGateway,
    /// A complete message with this status and payload.
    Whole(u16, &'static str),
    /// A message that breaks off behind this payload.
    Cut(&'static str),
    /// An answer of our own if the fault shows before the head has gone out, else a message that
    /// breaks off: never a complete one.
    Broken,
}

/// What becomes of the connection to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Kept,
    Dropped,
}

use After::{Closes, Resets, Stays};
use Pool::{Dropped, Kept};
use Seen::{BadGateway, Broken, Cut, Whole};

/// Name, answer, what follows.
type Row = (&'static str, &'static [u8], After, Seen, Pool);

/// Before `\r\nContent-Length: 2\r\n\r\n{}`.
const BAD_STATUS_LINES: &[(&str, &[u8])] = &[
    ("status of two digits", b"HTTP/1.1 20 OK"),
    ("status of four digits", b"HTTP/1.1 2000 OK"),
    ("status 099", b"HTTP/1.1 099 Low"),
    ("status 600", b"HTTP/1.1 600 High"),
    ("status of letters", b"HTTP/1.1 abc OK"),
    ("status negative", b"HTTP/1.1 -20 OK"),
    ("no status", b"HTTP/1.1"),
    ("no version", b"200 OK"),
    ("reason joined to the status", b"HTTP/1.1 200OK"),
    ("two spaces before the status", b"HTTP/1.1  200 OK"),
    ("tab before the status", b"HTTP/1.1\t200 OK"),
    ("HTTP/1.2", b"HTTP/1.2 200 OK"),
    ("HTTP/2", b"HTTP/2 200"),
    ("version in lower case", b"http/1.1 200 OK"),
    ("another protocol", b"ICY 200 OK"),
    ("an empty line before", b"\r\nHTTP/1.1 200 OK"),
    ("NUL in the reason", b"HTTP/1.1 200 O\0K"),
    ("bare CR in the reason", b"HTTP/1.1 200 O\rK"),
    ("bare LF behind the reason", b"HTTP/1.1 200 OK\nX: y"),
    ("a page without a head", b"<html>\r\n<body>"),
];

const GOOD_STATUS_LINES: &[Row] = &[
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("an empty reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("an unknown status", b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(299, "{}"), Kept),
    ("a reason beyond ASCII", b"HTTP/1.1 200 \xc3\xa9\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
];

/// Between `HTTP/1.1 200 OK\r\n` and `\r\n\r\n{}`.
const BAD_FIELDS: &[(&str, &[u8])] = &[
    ("bare LF behind a field", b"X: y\nContent-Length: 2"),
    ("bare LF as the empty line", b"Content-Length: 2\r\n\n{}"),
    ("bare CR in a value", b"X: y\rz\r\nContent-Length: 2"),
    ("NUL in a value", b"X: \0\r\nContent-Length: 2"),
    ("NUL in a name", b"X\0: y\r\nContent-Length: 2"),
    ("a folded value", b"X: y\r\n z\r\nContent-Length: 2"),
    ("a folded first line", b" X: y\r\nContent-Length: 2"),
    ("space before the colon", b"Content-Length : 2"),
    ("an empty name", b": y\r\nContent-Length: 2"),
    ("no colon", b"X\r\nContent-Length: 2"),
    ("two lengths, equal", b"Content-Length: 2\r\nContent-Length: 2"),
    ("two lengths, different", b"Content-Length: 2\r\nContent-Length: 9"),
    ("a list of lengths", b"Content-Length: 2, 2"),
    ("a length with a sign", b"Content-Length: +2"),
    ("a negative length", b"Content-Length: -2"),
    ("a hexadecimal length", b"Content-Length: 0x2"),
    ("an empty length", b"Content-Length:"),
    ("a length of 2^64 + 2", b"Content-Length: 18446744073709551618"),
    ("length and chunked", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
    ("chunked and length", b"Transfer-Encoding: chunked\r\nContent-Length: 2"),
    ("length and identity", b"Content-Length: 2\r\nTransfer-Encoding: identity"),
    ("gzip, chunked", b"Transfer-Encoding: gzip, chunked"),
    ("chunked, gzip", b"Transfer-Encoding: chunked, gzip"),
    ("xchunked", b"Transfer-Encoding: xchunked"),
    ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("identity, then chunked", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    ("chunked with space before the colon", b"Transfer-Encoding : chunked"),
    ("chunked behind a vertical tab", b"Transfer-Encoding: \x0bchunked"),
    ("an empty coding", b"Transfer-Encoding:"),
    ("Content-Type twice", b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 2"),
    ("Mcp-Session-Id twice", b"Mcp-Session-Id: a\r\nMcp-Session-Id: b\r\nContent-Length: 2"),
];

const LENGTHS: &[Row] = &[
    ("a length that fits", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("a length of zero", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Stays, Whole(200, ""), Kept),
    ("a length too short", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}garbage", Stays, Whole(200, "{}"), Dropped),
    ("a length of zero and a body", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{}", Stays, Whole(200, ""), Dropped),
    (
        "two answers",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nfor you",
        Stays,
        Whole(200, "{}"),
        Dropped,
    ),
    (
        "an empty line behind the body",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\r\n",
        Stays,
        Whole(200, "{}"),
        Dropped,
    ),
    ("a length too long, then the end", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Closes, Cut("{}"), Dropped),
    (
        "a length of 2^63 - 1, then the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}",
        Closes,
        Cut("{}"),
        Dropped,
    ),
    ("a length and no body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Closes, Cut(""), Dropped),
    (
        "Connection: close",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        Stays,
        Whole(200, "{}"),
        Dropped,
    ),
    ("the end behind an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Closes, Whole(200, "{}"), Dropped),
    ("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Dropped),
    (
        "HTTP/1.0 kept open",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
        Stays,
        Whole(200, "{}"),
        Kept,
    ),
    ("a body up to the end", b"HTTP/1.1 200 OK\r\n\r\n{}", Closes, Whole(200, "{}"), Dropped),
    ("no body up to the end", b"HTTP/1.1 200 OK\r\n\r\n", Closes, Whole(200, ""), Dropped),
    ("HTTP/1.0 up to the end", b"HTTP/1.0 200 OK\r\n\r\n{}", Closes, Whole(200, "{}"), Dropped),
    ("a reset inside a body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Resets, Broken, Dropped),
    ("a reset inside a body up to the end", b"HTTP/1.1 200 OK\r\n\r\n{}", Resets, Broken, Dropped),
    ("nothing", b"", Closes, BadGateway, Dropped),
    ("a reset instead of an answer", b"", Resets, BadGateway, Dropped),
    ("half a status line", b"HTTP/1.1 20", Closes, BadGateway, Dropped),
    ("half a head", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Closes, BadGateway, Dropped),
    ("a reset inside the head", b"HTTP/1.1 200 OK\r\nContent-", Resets, BadGateway, Dropped),
    (
        "chunked in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Stays,
        BadGateway,
        Dropped,
    ),
    (
        "TRANSFER-ENCODING: CHUNKED",
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING:\t CHUNKED \t\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        Stays,
        Whole(200, "{}"),
        Kept,
    ),
];

/// Behind `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n`.
const CHUNKS: &[Row] = &[
    ("chunks", b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", Stays, Whole(200, "{}"), Kept),
    (
        "extensions and trailers",
        b"2;a=b\r\n{}\r\n0;c\r\nX: y\r\nContent-Length: 9\r\n\r\n",
        Stays,
        Whole(200, "{}"),
        Kept,
    ),
    ("bytes behind the last chunk", b"2\r\n{}\r\n0\r\n\r\ngarbage", Stays, Whole(200, "{}"), Dropped),
    (
        "an answer behind the last chunk",
        b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Stays,
        Whole(200, ""),
        Dropped,
    ),
    ("no chunk", b"", Closes, Cut(""), Dropped),
    ("the end inside a size", b"2", Closes, Cut(""), Dropped),
    ("the end inside a chunk", b"9\r\n{}", Closes, Cut("{}"), Dropped),
    ("the end behind a chunk", b"2\r\n{}\r\n", Closes, Cut("{}"), Dropped),
    ("the end inside the last chunk", b"2\r\n{}\r\n0\r\n", Closes, Cut("{}"), Dropped),
    ("a reset inside a chunk", b"9\r\n{}", Resets, Broken, Dropped),
    ("the end inside a trailer", b"2\r\n{}\r\n0\r\nX: y\r\n", Closes, Cut("{}"), Dropped),
    ("a chunk longer than its size", b"1\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk shorter than its size", b"3\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk without CRLF", b"2\r\n{}0\r\n\r\n", Stays, Broken, Dropped),
    ("a size ends with bare LF", b"2\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk ends with bare LF", b"2\r\n{}\n0\r\n\r\n", Stays, Broken, Dropped),
    ("an empty size", b"\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a size with a sign", b"+2\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a size that overflows", b"10000000000000002\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a body without chunks", b"{}", Closes, Broken, Dropped),
    ("a trailer without a name", b"2\r\n{}\r\n0\r\n: y\r\n\r\n", Stays, Broken, Dropped),
];

/// Behind `HTTP/1.1 `.
const BODILESS: &[Row] = &[
    ("204", b"204 No Content\r\n\r\n", Stays, Whole(204, ""), Kept),
    ("204 with a body", b"204 No Content\r\n\r\n{}", Stays, Whole(204, ""), Dropped),
    ("204 with a length and a body", b"204 No Content\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(204, ""), Dropped),
    (
        "204 with chunks",
        b"204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Stays,
        Whole(204, ""),
        Dropped,
    ),
    (
        "304 with the length of what it stands for",
        b"304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        Stays,
        Whole(304, ""),
        Kept,
    ),
    ("304 with a body", b"304 Not Modified\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(304, ""), Dropped),
    (
        "100, then an answer",
        b"100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        Stays,
        Whole(200, "{}"),
        Kept,
    ),
    (
        "103 with fields, then an answer",
        b"103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        Stays,
        Whole(200, "{}"),
        Kept,
    ),
    (
        "101",
        b"101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nfree bytes",
        Stays,
        BadGateway,
        Dropped,
    ),
    (
        "100 with a body",
        b"100 Continue\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        Stays,
        BadGateway,
        Dropped,
    ),
    ("100, then nothing", b"100 Continue\r\n\r\n", Closes, BadGateway, Dropped),
];

/// A row that may hold what was made at run time.
struct Case {
    name: String,
    answer: Vec<u8>,
    after: After,
    seen: Seen,
    pool: Pool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |before: &[u8], rows: &[Row], behind: &[u8]| {
        assert!(!rows.is_empty());
        for &(name, part, after, seen, pool) in rows {
            cases.push(Case { name: name.into(), answer: [before, part, behind].concat(), after, seen, pool });
        }
    };
    let bad = |&(name, part): &(&'static str, &'static [u8])| (name, part, Stays, BadGateway, Dropped);
    add(b"", &BAD_STATUS_LINES.iter().map(bad).collect::<Vec<Row>>(), b"\r\nContent-Length: 2\r\n\r\n{}");
    add(b"", GOOD_STATUS_LINES, b"");
    add(b"HTTP/1.1 200 OK\r\n", &BAD_FIELDS.iter().map(bad).collect::<Vec<Row>>(), b"\r\n\r\n{}");
    add(b"", LENGTHS, b"");
    add(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS, b"");
    add(b"HTTP/1.1 ", BODILESS, b"");
    cases
}

/// Too much of something.
fn floods() -> Vec<Case> {
    let case = |name: &str, answer: String, seen, pool| Case {
        name: name.into(),
        answer: answer.into(),
        after: Stays,
        seen,
        pool,
    };
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\n{{}}");
    let interim = |count: usize| "HTTP/1.1 100 Continue\r\n\r\n".repeat(count) + &head("");
    vec![
        case("16 interim answers", interim(16), Whole(200, "{}"), Kept),
        case("17 interim answers", interim(17), BadGateway, Dropped),
        case("10,000 interim answers", interim(10_000), BadGateway, Dropped),
        case("100 fields", head(&"X: y\r\n".repeat(99)), Whole(200, "{}"), Kept),
        case("101 fields", head(&"X: y\r\n".repeat(100)), BadGateway, Dropped),
        case("fields without end", head(&"X: y\r\n".repeat(100_000)), BadGateway, Dropped),
        case("a value of 30 kB", head(&format!("X: {}\r\n", "v".repeat(30_000))), Whole(200, "{}"), Kept),
        case("a value of 40 kB", head(&format!("X: {}\r\n", "v".repeat(40_000))), BadGateway, Dropped),
        case("a value without end", format!("HTTP/1.1 200 OK\r\nX: {}", "v".repeat(1 << 20)), BadGateway, Dropped),
        case("a name of 65,536 bytes", head(&format!("{}: v\r\n", "n".repeat(65_536))), BadGateway, Dropped),
        case("a reason without end", format!("HTTP/1.1 200 {}", "r".repeat(1 << 20)), BadGateway, Dropped),
        case(
            "an extension without end",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(1 << 20)),
            Broken,
            Dropped,
        ),
        case(
            "a trailer without end",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}", "x".repeat(1 << 20)),
            Broken,
            Dropped,
        ),
    ]
}

/// Answers requests with `X-Case` as that case has it, and all others with their credential and the
/// number of their connection.
fn play(exchange: &mut Exchange, cases: &[Case], piece: usize) {
    while let Some(request) = exchange.request() {
        let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name));
        let Some(number) = field("X-Case: ") else {
            let credential = field("Authorization: ").unwrap_or_default();
            exchange.send(json(&format!("{credential} {}", exchange.connection)));
            continue;
        };
        let case = &cases[number.parse::<usize>().unwrap()];
        for bytes in case.answer.chunks(piece) {
            exchange.send(bytes);
            std::thread::yield_now();
        }
        match case.after {
            Stays => continue,
            Closes => {}
            Resets => SockRef::from(&exchange.stream).set_linger(Some(Duration::ZERO)).unwrap(),
        }
        return;
    }
}

/// Asks with a credential of its own on a connection of its own: which connection to the backend
/// carried it.
fn ask_as(proxy: &Proxy, credential: &str) -> Result<String, String> {
    let mut client = proxy.client();
    client.send(format!("GET /mcp/b HTTP/1.1\r\nHost: test\r\nAuthorization: {credential}\r\n\r\n"));
    let response = client.response();
    match response.text().split_once(' ') {
        Some((whose, connection)) if response.status == 200 && whose == credential => Ok(connection.to_owned()),
        _ => Err(format!("{credential} was given {response:?}")),
    }
}

/// All bytes up to the end of the connection. A reset is an end here: it may follow a cut answer.
fn everything(client: &mut Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    match client.stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => bytes,
    }
}

fn is_bad_gateway(message: &Message) -> bool {
    let body = String::from_utf8_lossy(&message.body);
    message.status == 502
        && message.whole
        && message.fields("content-type") == ["application/json"]
        && body.starts_with(r#"{"jsonrpc":"2.0","error":{"code":-32603,"message":"#)
}

fn is_as_expected(seen: Seen, messages: &[Message]) -> bool {
    let [message] = messages else { return false };
    match seen {
        BadGateway => is_bad_gateway(message),
        Whole(status, body) => message.whole && message.status == status && message.body == body.as_bytes(),
        Cut(body) => !message.whole && message.status == 200 && message.body == body.as_bytes(),
        Broken => is_bad_gateway(message) || !message.whole,
    }
}

fn run(proxy: &Proxy, number: usize, case: &Case) -> Result<(), String> {
    let before = ask_as(proxy, &format!("before-{number}"))?;
    let mut client = proxy.client();
    client.send(format!(
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX-Case: {number}\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    let bytes = everything(&mut client);
    let answers = messages(&bytes, Asked::Get)?;
    if !is_as_expected(case.seen, &answers) {
        return Err(format!("{:?} expected, came {:.300?}", case.seen, String::from_utf8_lossy(&bytes)));
    }
    let behind = ask_as(proxy, &format!("behind-{number}"))?;
    ask_as(proxy, &format!("other-{number}"))?;
    let pool = if behind == before { Kept } else { Dropped };
    if pool == case.pool { Ok(()) } else { Err(format!("the connection was {pool:?}")) }
}

/// One worker, so that the case and those who ask around it share its pool.
fn run_all(cases: impl Fn() -> Vec<Case>, piece: usize) {
    let played = cases();
    let backend = Backend::scripted(move |exchange| play(exchange, &played, piece));
    let proxy = Proxy::builder().backend("b", &[backend.address()]).workers(1).start();
    let cases = cases();
    let results = cases.iter().enumerate().map(|(number, case)| (case, run(&proxy, number, case)));
    let faults: Vec<String> =
        results.filter_map(|(case, result)| Some(format!("{}: {}", case.name, result.err()?))).collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn a_bad_answer_harms_nobody_but_its_asker() {
    run_all(cases, usize::MAX);
}

#[test]
fn a_bad_answer_in_single_bytes_harms_nobody_but_its_asker() {
    // Bytes behind an answer that arrive when its connection serves the next request cannot be told
    // from that request's answer: here they would, so those cases stay with the test above.
    let ends_with_its_end = |case: &Case| case.pool == Kept || case.after != Stays || !matches!(case.seen, Whole(..));
    run_all(|| cases().into_iter().filter(ends_with_its_end).collect(), 1);
}

#[test]
fn a_flood_ends_at_its_limit() {
    run_all(floods, usize::MAX);
}

#[test]
fn a_fault_in_the_first_read_is_an_answer_of_ours() {
    let backend = Backend::always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n");
    let proxy = Proxy::before(&[backend.address()]);
    assert_eq!(proxy.client().call().status, 502);
    assert_eq!(proxy.refused("upstream_malformed"), 1.0);
}

#[test]
fn an_answer_to_head_ends_with_its_head() {
    let answers: &[(&str, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
    ];
    for (answer, kept) in answers {
        let backend = Backend::always(*answer);
        let proxy = Proxy::builder().backend("b", &[backend.address()]).workers(1).start();
        let mut client = proxy.client();
        for _ in 0..2 {
            client.send("HEAD /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n");
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}: {head}");
            assert_eq!(head.contains("Content-Length"), answer.contains("Content-Length"), "{answer}: {head}");
        }
        assert_eq!(backend.connections() == 1, *kept, "{answer}");
    }
}

#[test]
fn an_http_10_client_gets_a_body_of_unknown_length_up_to_the_end() {
    let answers = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
    ];
    for answer in answers {
        let backend = Backend::always_then_close(answer);
        let proxy = Proxy::before(&[backend.address()]);
        let mut client = proxy.client();
        client.send("GET /mcp/b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!((response.text().as_str(), response.field("connection")), ("{}", Some("close")), "{answer}");
        assert_eq!(response.field("transfer-encoding"), None);
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_passed_on_and_both_connections_end() {
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let backend = Backend::scripted(|exchange| {
            if exchange.connection > 0 {
                while exchange.request().is_some() && exchange.send(json("\"next\"")) {}
                return;
            }
            exchange.head();
            exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}");
            exchange.wait_for_end();
        });
        let proxy = Proxy::builder().backend("b", &[backend.address()]).workers(1).start();
        let mut client = proxy.client();
        client.send(format!("POST /mcp/b HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (413, "{}"), "{framing}");
        assert_eq!(response.field("connection"), Some("close"), "{framing}");
        assert!(client.ended());
        assert_eq!(proxy.client().call().text(), "\"next\"", "{framing}");
    }
}

#[test]
fn a_session_is_told_also_when_the_request_came_in_two_reads() {
    // The head's bytes were gone when the answer's session id asked for them.
    let backend = Backend::always("HTTP/1.1 200 OK\r\nMcp-Session-Id: s-1\r\nContent-Length: 2\r\n\r\n{}");
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("POST /mcp/b HTTP/1.1\r\nHost: test\r\nMCP-Protocol-Version: 2025-06-18\r\nContent-Length: 2\r\n\r\n");
    eventually("the backend is connected to", || backend.connections() == 1);
    client.send("{}");
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(response.field("mcp-session-id").is_some());
}

#[test]
fn a_read_is_not_repeated_when_part_of_an_answer_has_come() {
    // The part that had come was taken for the beginning of the second answer.
    for part in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: ", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let backend = Backend::scripted(move |exchange| {
            if exchange.connection > 0 {
                while exchange.request().is_some() && exchange.send("HTTP/1.1 204 N\r\n\r\n") {}
                return;
            }
            exchange.request();
            exchange.send(json("{}"));
            exchange.request();
            exchange.send(part);
        });
        let proxy = Proxy::builder().backend("b", &[backend.address()]).workers(1).start();
        let mut client = proxy.client();
        let get = "GET /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n";
        client.send(get);
        assert_eq!(client.response().status, 200);
        client.send(get);
        assert_eq!(client.response().status, 502, "{part}");
        client.send(get);
        assert_eq!(client.response().status, 204);
        assert_eq!(backend.requests(), 3);
    }
}
