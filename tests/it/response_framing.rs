//! Answers of backends byte by byte: what reaches the client, and that nothing of a bad answer
//! reaches anyone else.
//!
//! Each case runs on a connection that served before. After it two clients with credentials of
//! their own ask, and each must get its own answer, whatever the case left behind.

use std::io::Read;
use std::time::Duration;

use socket2::SockRef;

use crate::support::wire::{Asked, Message, messages};
use crate::support::backend::Exchange;
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

const STATUS_LINES: &[Row] = &[
    ("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("status 099", b"HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("status 600", b"HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("status of letters", b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("status negative", b"HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("no status", b"HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("no version", b"200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("reason joined to the status", b"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("two spaces before the status", b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("tab before the status", b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("HTTP/2", b"HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("version in lower case", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("another protocol", b"ICY 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("an empty line before", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("bare LF behind the reason", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a page without a head", b"<html>\r\n<body>\r\n\r\n", Stays, BadGateway, Dropped),
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("an empty reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("an unknown status", b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(299, "{}"), Kept),
    ("a reason beyond ASCII", b"HTTP/1.1 200 \xc3\xa9\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
];

const FIELDS: &[Row] = &[
    ("bare LF behind a field", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("bare LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n{}", Stays, BadGateway, Dropped),
    ("bare CR in a value", b"HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("NUL in a name", b"HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a folded value", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a folded first line", b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("an empty name", b"HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("no colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("two lengths, equal", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("two lengths, different", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a length with a sign", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("a hexadecimal length", b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("an empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n{}", Closes, BadGateway, Dropped),
    ("a length of 2^64 + 2", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("length and chunked", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("chunked and length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("length and identity", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: identity\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("gzip, chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("chunked, gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("identity, then chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("chunked with space before the colon", b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("chunked behind a vertical tab", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("an empty coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", Closes, BadGateway, Dropped),
    ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stays, BadGateway, Dropped),
    ("Content-Type twice", b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("Mcp-Session-Id twice", b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nMcp-Session-Id: b\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("TRANSFER-ENCODING: CHUNKED", b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING:\t CHUNKED \t\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Stays, Whole(200, "{}"), Kept),
];

const LENGTHS: &[Row] = &[
    ("a length that fits", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("a length of zero", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Stays, Whole(200, ""), Kept),
    ("a length too short", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}garbage", Stays, Whole(200, "{}"), Dropped),
    ("a length of zero and a body", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{}", Stays, Whole(200, ""), Dropped),
    ("two answers", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nfor you", Stays, Whole(200, "{}"), Dropped),
    ("an empty line behind the body", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\r\n", Stays, Whole(200, "{}"), Dropped),
    ("a length too long, then the end", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Closes, Cut("{}"), Dropped),
    ("a length of 2^63 - 1, then the end", b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}", Closes, Cut("{}"), Dropped),
    ("a length and no body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Closes, Cut(""), Dropped),
    ("Connection: close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Dropped),
    ("the end behind an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Closes, Whole(200, "{}"), Dropped),
    ("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Dropped),
    ("HTTP/1.0 kept open", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
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
];

const CHUNKS: &[Row] = &[
    ("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", Stays, Whole(200, "{}"), Kept),
    ("extensions and trailers", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0;c\r\nX: y\r\nContent-Length: 9\r\n\r\n", Stays, Whole(200, "{}"), Kept),
    ("bytes behind the last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\ngarbage", Stays, Whole(200, "{}"), Dropped),
    ("an answer behind the last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Stays, Whole(200, ""), Dropped),
    ("no chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Closes, Cut(""), Dropped),
    ("the end inside a size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2", Closes, Cut(""), Dropped),
    ("the end inside a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}", Closes, Cut("{}"), Dropped),
    ("the end behind a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", Closes, Cut("{}"), Dropped),
    ("the end inside the last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", Closes, Cut("{}"), Dropped),
    ("a reset inside a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}", Resets, Broken, Dropped),
    ("the end inside a trailer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n", Closes, Cut("{}"), Dropped),
    ("a chunk longer than its size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk shorter than its size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk without CRLF", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n", Stays, Broken, Dropped),
    ("a size ends with bare LF", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a chunk ends with bare LF", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n", Stays, Broken, Dropped),
    ("an empty size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a size with a sign", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a size that overflows", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n", Stays, Broken, Dropped),
    ("a body without chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", Closes, Broken, Dropped),
    ("a trailer without a name", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n: y\r\n\r\n", Stays, Broken, Dropped),
];

const BODILESS: &[Row] = &[
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", Stays, Whole(204, ""), Kept),
    ("204 with a body", b"HTTP/1.1 204 No Content\r\n\r\n{}", Stays, Whole(204, ""), Dropped),
    ("204 with a length and a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(204, ""), Dropped),
    ("204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stays, Whole(204, ""), Dropped),
    ("304 with the length of what it stands for", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Stays, Whole(304, ""), Kept),
    ("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(304, ""), Dropped),
    ("100, then an answer", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("103 with fields, then an answer", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, Whole(200, "{}"), Kept),
    ("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nfree bytes", Stays, BadGateway, Dropped),
    ("100 with a body", b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Stays, BadGateway, Dropped),
    ("100, then nothing", b"HTTP/1.1 100 Continue\r\n\r\n", Closes, BadGateway, Dropped),
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
    let tables = [STATUS_LINES, FIELDS, LENGTHS, CHUNKS, BODILESS];
    assert!(tables.iter().all(|table| !table.is_empty()));
    let rows = tables.into_iter().flatten();
    rows.map(|&(name, answer, after, seen, pool)| Case { name: name.into(), answer: answer.into(), after, seen, pool })
        .collect()
}

/// Too much of something.
fn floods() -> Vec<Case> {
    let case = |name: &str, answer: String, seen, pool| Case { name: name.into(), answer: answer.into(), after: Stays, seen, pool };
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
        case("an extension without end", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(1 << 20)), Broken, Dropped),
        case("a trailer without end", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}", "x".repeat(1 << 20)), Broken, Dropped),
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
