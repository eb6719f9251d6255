//! Requests byte by byte: what is refused, and what passes in which form.
//!
//! A refusal is one answer with a JSON-RPC error in it, a closed connection and a count under its
//! reason; neither the refused request nor anything sent behind it reaches the backend.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use crate::support::wire::{Asked, Message, messages};
use crate::support::{Backend, Client, Proxy, ProxyBuilder, eventually, json};

/// A request that must be refused.
struct Refused {
    name: String,
    bytes: Vec<u8>,
    status: u16,
    /// Label in `ringway_refused_total`.
    reason: &'static str,
}

/// Name, a part of the request, status, reason.
type Row = (&'static str, &'static [u8], u16, &'static str);

/// Sent behind every refused request: it must not be seen by anyone.
const HIDDEN: &[u8] = b"GET /mcp/b?hidden HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sent before a refused request: it must be served.
const GOOD: &[u8] = b"GET /mcp/b?good HTTP/1.1\r\nHost: test\r\n\r\n";

/// Before `\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}`.
const START_LINES: &[Row] = &[
    ("HTTP/0.9", b"GET /mcp/b", 400, "malformed"),
    ("HTTP/1.2", b"POST /mcp/b HTTP/1.2", 505, "version"),
    ("HTTP/2.0 preface", b"PRI * HTTP/2.0", 505, "version"),
    ("HTTP/3", b"POST /mcp/b HTTP/3", 505, "version"),
    ("HTTP/1.10", b"POST /mcp/b HTTP/1.10", 400, "malformed"),
    ("HTTP/01.1", b"POST /mcp/b HTTP/01.1", 505, "version"),
    ("version in lower case", b"POST /mcp/b http/1.1", 505, "version"),
    ("version of another protocol", b"POST /mcp/b ICAP/1.1", 505, "version"),
    ("space behind the version", b"POST /mcp/b HTTP/1.1 ", 400, "malformed"),
    ("two spaces before the target", b"POST  /mcp/b HTTP/1.1", 400, "malformed"),
    ("two spaces before the version", b"POST /mcp/b  HTTP/1.1", 505, "version"),
    ("tabs between the parts", b"POST\t/mcp/b\tHTTP/1.1", 400, "malformed"),
    ("space before the method", b" POST /mcp/b HTTP/1.1", 400, "malformed"),
    ("no method", b"/mcp/b HTTP/1.1", 400, "malformed"),
    ("no spaces", b"POST/mcp/bHTTP/1.1", 400, "malformed"),
    ("method is no token", b"PO(ST /mcp/b HTTP/1.1", 400, "malformed"),
    ("method of 33 letters", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA /mcp/b HTTP/1.1", 501, "method"),
    ("CONNECT", b"CONNECT test:443 HTTP/1.1", 501, "method"),
    ("CONNECT with a path", b"CONNECT /mcp/b HTTP/1.1", 501, "method"),
    ("TRACE", b"TRACE /mcp/b HTTP/1.1", 501, "method"),
    ("authority as target", b"POST test:80 HTTP/1.1", 400, "malformed"),
    ("asterisk for a method other than OPTIONS", b"POST * HTTP/1.1", 400, "malformed"),
    ("asterisk and more", b"OPTIONS *x HTTP/1.1", 400, "malformed"),
    ("relative target", b"POST mcp/b HTTP/1.1", 400, "malformed"),
    ("query alone", b"POST ?mcp HTTP/1.1", 400, "malformed"),
    ("other scheme", b"POST ftp://test/mcp/b HTTP/1.1", 400, "malformed"),
    ("absolute target of another host", b"POST http://other/mcp/b HTTP/1.1", 400, "malformed"),
    ("absolute target of another port", b"POST http://test:81/mcp/b HTTP/1.1", 400, "malformed"),
    ("absolute target without a host", b"POST http:///mcp/b HTTP/1.1", 400, "malformed"),
    ("absolute target without a path", b"POST http://test HTTP/1.1", 400, "malformed"),
    ("absolute target with user", b"POST http://user@test/mcp/b HTTP/1.1", 400, "malformed"),
    ("fragment", b"POST /mcp/b#x HTTP/1.1", 400, "malformed"),
    ("fragment in the query", b"POST /mcp/b?a#x HTTP/1.1", 400, "malformed"),
    ("two dots", b"POST /mcp/x/../b HTTP/1.1", 400, "malformed"),
    ("two dots at the end", b"POST /mcp/b/.. HTTP/1.1", 400, "malformed"),
    ("one dot", b"POST /mcp/./b HTTP/1.1", 400, "malformed"),
    ("two encoded dots", b"POST /mcp/x/%2e%2E/b HTTP/1.1", 400, "malformed"),
    ("a dot and an encoded one", b"POST /mcp/x/.%2e/b HTTP/1.1", 400, "malformed"),
    ("one encoded dot", b"POST /mcp/%2E/b HTTP/1.1", 400, "malformed"),
    ("two dots before an encoded slash", b"POST /mcp/b/..%2Fx HTTP/1.1", 400, "malformed"),
    ("two dots between encoded slashes", b"POST /mcp/b%2f..%2fx HTTP/1.1", 400, "malformed"),
    ("two dots before a backslash", b"POST /mcp/b/..\\x HTTP/1.1", 400, "malformed"),
    ("two dots before an encoded backslash", b"POST /mcp/b/..%5cx HTTP/1.1", 400, "malformed"),
    ("dots in an absolute target", b"POST http://test/mcp/../b HTTP/1.1", 400, "malformed"),
    ("control character in the target", b"POST /mcp/b\x01 HTTP/1.1", 400, "malformed"),
    ("NUL in the target", b"POST /mcp/b\0 HTTP/1.1", 400, "malformed"),
    ("DEL in the target", b"POST /mcp/b\x7f HTTP/1.1", 400, "malformed"),
    ("bare CR in the target", b"POST /mcp/b\rx HTTP/1.1", 400, "malformed"),
    ("bytes beyond ASCII in the target", b"POST /mcp/b\xc3\xa9 HTTP/1.1", 400, "malformed"),
    ("bare LF behind the start line", b"POST /mcp/b HTTP/1.1\nX: y", 400, "malformed"),
    ("LF alone before the request", b"\nPOST /mcp/b HTTP/1.1", 400, "malformed"),
    ("three empty lines before the request", b"\r\n\r\n\r\nPOST /mcp/b HTTP/1.1", 400, "malformed"),
    ("CR alone before the request", b"\rPOST /mcp/b HTTP/1.1", 400, "malformed"),
    ("NUL before the request", b"\0POST /mcp/b HTTP/1.1", 400, "malformed"),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed"),
];

/// The `Host` lines of `POST /mcp/b HTTP/1.1`.
const HOSTS: &[Row] = &[
    ("no Host", b"", 400, "malformed"),
    ("Host twice, equal", b"Host: test\r\nHost: test\r\n", 400, "malformed"),
    ("Host twice, different", b"Host: test\r\nHost: other\r\n", 400, "malformed"),
    ("Host twice, other case", b"Host: test\r\nhOST: test\r\n", 400, "malformed"),
    ("Host empty", b"Host:\r\n", 400, "malformed"),
    ("Host of blanks", b"Host: \t \r\n", 400, "malformed"),
    ("Host with user", b"Host: user@test\r\n", 400, "malformed"),
    ("Host with user and password", b"Host: user:secret@test\r\n", 400, "malformed"),
    ("Host with a path", b"Host: test/mcp\r\n", 400, "malformed"),
    ("Host with a backslash", b"Host: test\\x\r\n", 400, "malformed"),
    ("Host with a query", b"Host: test?x\r\n", 400, "malformed"),
    ("Host with a fragment", b"Host: test#x\r\n", 400, "malformed"),
    ("Host with a blank inside", b"Host: te st\r\n", 400, "malformed"),
    ("Host with a quote", b"Host: te\"st\r\n", 400, "malformed"),
    ("Host with angle brackets", b"Host: <test>\r\n", 400, "malformed"),
    ("Host beyond ASCII", b"Host: t\xc3\xa9st\r\n", 400, "malformed"),
    ("Host with NUL", b"Host: test\0\r\n", 400, "malformed"),
    ("Host as URL", b"Host: http://test\r\n", 400, "malformed"),
    ("Host as list", b"Host: test, other\r\n", 400, "malformed"),
    ("port of letters", b"Host: test:http\r\n", 400, "malformed"),
    ("port negative", b"Host: test:-1\r\n", 400, "malformed"),
    ("port of six digits", b"Host: test:123456\r\n", 400, "malformed"),
    ("two ports", b"Host: test:80:81\r\n", 400, "malformed"),
    ("port alone", b"Host: :80\r\n", 400, "malformed"),
    ("IPv6 not closed", b"Host: [::1\r\n", 400, "malformed"),
    ("IPv6 with more behind it", b"Host: [::1]x\r\n", 400, "malformed"),
    ("IPv6 with letters", b"Host: [::g]\r\n", 400, "malformed"),
    ("IPv6 without brackets", b"Host: ::1\r\n", 400, "malformed"),
    ("brackets alone", b"Host: []\r\n", 400, "malformed"),
    ("space before the colon", b"Host : test\r\n", 400, "malformed"),
    ("space before the name", b" Host: test\r\n", 400, "malformed"),
];

/// Lines behind `Host` that say how long the body `hello` is.
const LENGTHS: &[Row] = &[
    ("Content-Length twice, equal", b"Content-Length: 5\r\nContent-Length: 5", 400, "malformed"),
    ("Content-Length twice, different", b"Content-Length: 5\r\nContent-Length: 0", 400, "malformed"),
    ("Content-Length twice, other case", b"Content-Length: 5\r\ncontent-lengtH: 5", 400, "malformed"),
    ("Content-Length zero twice", b"Content-Length: 0\r\nContent-Length: 0", 400, "malformed"),
    ("list of equal lengths", b"Content-Length: 5, 5", 400, "malformed"),
    ("list of different lengths", b"Content-Length: 5,0", 400, "malformed"),
    ("plus sign", b"Content-Length: +5", 400, "malformed"),
    ("minus sign", b"Content-Length: -5", 400, "malformed"),
    ("minus zero", b"Content-Length: -0", 400, "malformed"),
    ("hexadecimal", b"Content-Length: 0x5", 400, "malformed"),
    ("hexadecimal digit", b"Content-Length: a", 400, "malformed"),
    ("fraction", b"Content-Length: 5.0", 400, "malformed"),
    ("exponent", b"Content-Length: 5e0", 400, "malformed"),
    ("underscore", b"Content-Length: 0_5", 400, "malformed"),
    ("blank inside", b"Content-Length: 5 5", 400, "malformed"),
    ("quotes", b"Content-Length: \"5\"", 400, "malformed"),
    ("semicolon", b"Content-Length: 5;", 400, "malformed"),
    ("no digits", b"Content-Length:", 400, "malformed"),
    ("digits beyond ASCII", b"Content-Length: \xd9\xa5", 400, "malformed"),
    ("2^63", b"Content-Length: 9223372036854775808", 400, "malformed"),
    ("2^64 - 1", b"Content-Length: 18446744073709551615", 400, "malformed"),
    ("2^64 + 5", b"Content-Length: 18446744073709551621", 400, "malformed"),
    ("40 digits", b"Content-Length: 1000000000000000000000000000000000000005", 400, "malformed"),
    ("2^63 - 1", b"Content-Length: 9223372036854775807", 413, "body_too_large"),
    ("space before the colon of a length", b"Content-Length : 5", 400, "malformed"),
    ("tab before the colon of a length", b"Content-Length\t: 5", 400, "malformed"),
    ("folded length", b"Content-Length: 5\r\n 0", 400, "malformed"),
    ("length hidden behind a bare CR", b"X: y\rContent-Length: 5", 400, "malformed"),
    ("length hidden behind a bare LF", b"X: y\nContent-Length: 5", 400, "malformed"),
    ("length hidden behind NUL", b"X: y\0Content-Length: 5", 400, "malformed"),
];

/// Lines behind `Host` that say something of transfer codings; the body is `0\r\n\r\n`.
const CODINGS: &[Row] = &[
    ("length and chunked", b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400, "transfer_encoding"),
    ("chunked and length", b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, "transfer_encoding"),
    ("length and chunked, other case", b"content-length: 5\r\ntRANSFER-eNCODING: CHUNKED", 400, "transfer_encoding"),
    ("length and tab before chunked", b"Content-Length: 5\r\nTransfer-Encoding:\tchunked", 400, "transfer_encoding"),
    ("length zero and chunked", b"Content-Length: 0\r\nTransfer-Encoding: chunked", 400, "transfer_encoding"),
    ("length and identity", b"Content-Length: 5\r\nTransfer-Encoding: identity", 501, "transfer_encoding"),
    (
        "length and chunked with space before the colon",
        b"Content-Length: 5\r\nTransfer-Encoding : chunked",
        400,
        "malformed",
    ),
    ("length and chunked on a folded line", b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked", 400, "malformed"),
    (
        "length and chunked behind a vertical tab",
        b"Content-Length: 5\r\nTransfer-Encoding: \x0bchunked",
        400,
        "malformed",
    ),
    ("length and chunked behind a bare CR", b"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked", 400, "malformed"),
    ("length and chunked behind a bare LF", b"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked", 400, "malformed"),
    (
        "length named away",
        b"Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        400,
        "transfer_encoding",
    ),
    (
        "coding named away",
        b"Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        400,
        "transfer_encoding",
    ),
    ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "transfer_encoding"),
    ("chunked, then identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400, "transfer_encoding"),
    ("identity, then chunked", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 501, "transfer_encoding"),
    ("chunked, then gzip", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400, "transfer_encoding"),
    ("identity", b"Transfer-Encoding: identity", 501, "transfer_encoding"),
    ("gzip", b"Transfer-Encoding: gzip", 501, "transfer_encoding"),
    ("gzip, chunked", b"Transfer-Encoding: gzip, chunked", 501, "transfer_encoding"),
    ("chunked, identity", b"Transfer-Encoding: chunked, identity", 501, "transfer_encoding"),
    ("chunked, chunked", b"Transfer-Encoding: chunked, chunked", 501, "transfer_encoding"),
    ("chunked with an empty element", b"Transfer-Encoding: ,chunked", 501, "transfer_encoding"),
    ("chunked with a parameter", b"Transfer-Encoding: chunked;q=1", 501, "transfer_encoding"),
    ("chunked in quotes", b"Transfer-Encoding: \"chunked\"", 501, "transfer_encoding"),
    ("xchunked", b"Transfer-Encoding: xchunked", 501, "transfer_encoding"),
    ("chunkedx", b"Transfer-Encoding: chunkedx", 501, "transfer_encoding"),
    ("chunk", b"Transfer-Encoding: chunk", 501, "transfer_encoding"),
    ("no coding", b"Transfer-Encoding:", 501, "transfer_encoding"),
    ("chunked with a long s", b"Transfer-Encoding: chun\xc5\xbfked", 501, "transfer_encoding"),
    ("chunked with NUL", b"Transfer-Encoding: chunked\0", 400, "malformed"),
    ("chunked with a form feed", b"Transfer-Encoding: chunked\x0c", 400, "malformed"),
    ("name with a vertical tab", b"Transfer-Encoding\x0b: chunked", 400, "malformed"),
    ("name with a blank inside", b"Transfer Encoding: chunked", 400, "malformed"),
];

/// Lines behind `Host`, without a body.
const FIELDS: &[Row] = &[
    ("bare LF behind a field", b"X: y\nZ: z", 400, "malformed"),
    ("bare LF as the empty line", b"X: y\n\nZ: z", 400, "malformed"),
    ("bare CR in a name", b"X\rY: z", 400, "malformed"),
    ("bare CR in a value", b"X: y\rz", 400, "malformed"),
    ("two CR before LF", b"X: y\r\r\nZ: z", 400, "malformed"),
    ("NUL in a name", b"X\0Y: z", 400, "malformed"),
    ("NUL in a value", b"X: y\0", 400, "malformed"),
    ("DEL in a value", b"X: y\x7f", 400, "malformed"),
    ("escape in a value", b"X: \x1b[31m", 400, "malformed"),
    ("folded value", b"X: y\r\n z", 400, "malformed"),
    ("folded with a tab", b"X: y\r\n\tz", 400, "malformed"),
    ("a fold alone", b"X: y\r\n \r\nZ: z", 400, "malformed"),
    ("space before the colon", b"X : y", 400, "malformed"),
    ("tab before the colon", b"X\t: y", 400, "malformed"),
    ("empty name", b": y", 400, "malformed"),
    ("no colon", b"X", 400, "malformed"),
    ("name beyond ASCII", b"X\xc3\xa9: y", 400, "malformed"),
    ("name with brackets", b"X[]: y", 400, "malformed"),
    ("name with a slash", b"X/Y: z", 400, "malformed"),
    ("name in quotes", b"\"X\": y", 400, "malformed"),
    ("another request line", b"GET /mcp/b?hidden HTTP/1.1", 400, "malformed"),
    ("an unknown expectation", b"Expect: 200-ok", 417, "expectation"),
    ("an empty expectation", b"Expect:", 417, "expectation"),
    ("two expectations in one field", b"Expect: 100-continue, 100-continue", 417, "expectation"),
    ("two Expect fields", b"Expect: 100-continue\r\nExpect: 100-continue", 400, "malformed"),
    ("Mcp-Session-Id twice", b"Mcp-Session-Id: a\r\nmcp-session-id: b", 400, "malformed"),
    (
        "MCP-Protocol-Version twice",
        b"MCP-Protocol-Version: 2025-06-18\r\nMCP-Protocol-Version: 2025-06-18",
        400,
        "malformed",
    ),
    ("Mcp-Method twice", b"Mcp-Method: tools/list\r\nMcp-Method: tools/call", 400, "malformed"),
    ("Mcp-Name twice", b"Mcp-Name: a\r\nMcp-Name: b", 400, "malformed"),
    ("Content-Type twice", b"Content-Type: application/json\r\nContent-Type: text/plain", 400, "malformed"),
];

/// Bodies in chunks.
const CHUNKS: &[Row] = &[
    ("no size", b"\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size is no number", b"x\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size negative", b"-5\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size with plus", b"+5\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("blank before the size", b" 5\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("blank behind the size", b"5 \r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("tab behind the size", b"5\t\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("blank before an extension", b"5 ;x\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size of 16 digits", b"0000000000000005\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size that wraps to 5", b"10000000000000005\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size near 2^64", b"fffffffffffffffd\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size ends with bare LF", b"5\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size ends with bare CR", b"5\rhello\r\n0\r\n\r\n", 400, "malformed"),
    ("size ends with two CR", b"5\r\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("extension ends with bare LF", b"5;x\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("NUL in an extension", b"5;x\0\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("bare CR in an extension", b"5;x\ry\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("payload longer than its size", b"4\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("payload shorter than its size", b"6\r\nhello\r\n0\r\n\r\n", 400, "malformed"),
    ("payload without CRLF", b"5\r\nhello0\r\n\r\n", 400, "malformed"),
    ("payload ends with bare LF", b"5\r\nhello\n0\r\n\r\n", 400, "malformed"),
    ("payload ends with bare CR", b"5\r\nhello\r0\r\n\r\n", 400, "malformed"),
    ("last chunk ends with bare LF", b"5\r\nhello\r\n0\n\r\n", 400, "malformed"),
    ("body ends with bare LF", b"5\r\nhello\r\n0\r\n\n", 400, "malformed"),
    ("trailer without a colon", b"5\r\nhello\r\n0\r\nX\r\n\r\n", 400, "malformed"),
    ("trailer without a name", b"5\r\nhello\r\n0\r\n: y\r\n\r\n", 400, "malformed"),
    ("trailer with a blank before the colon", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", 400, "malformed"),
    ("trailer folded", b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", 400, "malformed"),
    ("trailer with NUL", b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n", 400, "malformed"),
    ("trailer ends with bare LF", b"5\r\nhello\r\n0\r\nX: y\n\r\n", 400, "malformed"),
    ("a request as trailer", b"5\r\nhello\r\n0\r\nGET /mcp/b?hidden HTTP/1.1\r\n\r\n", 400, "malformed"),
];

/// Everything that is known to be wrong once its head and the first bytes behind it are there.
fn refused() -> Vec<Refused> {
    let mut cases = Vec::new();
    let mut add = |rows: &[Row], before: &[u8], behind: &[u8]| {
        assert!(!rows.is_empty());
        for (name, part, status, reason) in rows {
            let bytes = [before, part, behind].concat();
            cases.push(Refused { name: (*name).to_owned(), bytes, status: *status, reason });
        }
    };
    add(START_LINES, b"", b"\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}");
    add(HOSTS, b"POST /mcp/b HTTP/1.1\r\n", b"Content-Length: 2\r\n\r\n{}");
    add(LENGTHS, b"POST /mcp/b HTTP/1.1\r\nHost: test\r\n", b"\r\n\r\nhello");
    add(CODINGS, b"POST /mcp/b HTTP/1.1\r\nHost: test\r\n", b"\r\n\r\n0\r\n\r\n");
    add(FIELDS, b"GET /mcp/b HTTP/1.1\r\nHost: test\r\n", b"\r\n\r\n");
    add(CHUNKS, CHUNKED_HEAD, b"");
    let http_10: &[Row] = &[
        ("HTTP/1.0 with chunks", b"Host: test\r\nTransfer-Encoding: chunked", 400, "transfer_encoding"),
        ("HTTP/1.0 with Host twice", b"Host: test\r\nHost: test", 400, "malformed"),
    ];
    add(http_10, b"POST /mcp/b HTTP/1.0\r\n", b"\r\n\r\n0\r\n\r\n");
    cases
}

const CHUNKED_HEAD: &[u8] = b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Tight limits, so that the cases that go beyond them are short.
fn tight() -> ProxyBuilder {
    Proxy::builder().limits("head_bytes_max = 2048\ntarget_bytes_max = 128\nheaders_max = 10\nbody_bytes_max = 1024")
}

/// Beyond the limits of [`tight`] by no more than needed, and by far.
fn oversize() -> Vec<Refused> {
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n").into_bytes();
    let chunked = |body: &str| [CHUNKED_HEAD, body.as_bytes()].concat();
    let case = |name: &str, bytes: Vec<u8>, status, reason| Refused { name: name.to_owned(), bytes, status, reason };
    let head = |length: usize| {
        let rest = get("/mcp/b", "X: \r\n").len();
        get("/mcp/b", &format!("X: {}\r\n", "v".repeat(length - rest)))
    };
    let target = |length: usize| get(&format!("/mcp/b?{}", "q".repeat(length - "/mcp/b?".len())), "");
    vec![
        case("a head one byte too long", head(2049), 431, "head_too_large"),
        case("a value of 1 MiB", head(1 << 20), 431, "head_too_large"),
        case("a name of 4 kB", get("/mcp/b", &format!("{}: v\r\n", "n".repeat(4000))), 431, "head_too_large"),
        case("a name of 65,536 bytes", get("/mcp/b", &format!("{}: v\r\n", "n".repeat(65_536))), 431, "head_too_large"),
        case("lines without end", get("/mcp/b", &"X: y\r\n".repeat(10_000)), 431, "head_too_large"),
        case("one field too many", get("/mcp/b", &"X: y\r\n".repeat(10)), 431, "too_many_headers"),
        case("a target one byte too long", target(129), 414, "target_too_long"),
        case("a target of 1 MiB", target(1 << 20), 414, "target_too_long"),
        case("a method without end", "A".repeat(10_000).into_bytes(), 414, "target_too_long"),
        case("a length one byte too long", body_of_length(1025), 413, "body_too_large"),
        case(
            "a chunk one byte too long",
            chunked(&format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025))),
            413,
            "body_too_large",
        ),
        case(
            "chunks one byte too long",
            chunked(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1025))),
            413,
            "body_too_large",
        ),
        case("extensions without end", chunked(&format!("1;{}", "x".repeat(20_000))), 400, "malformed"),
        case(
            "an extension on each of many chunks",
            chunked(&format!("1;{}\r\nx\r\n", "x".repeat(30)).repeat(700)),
            400,
            "malformed",
        ),
        case("a trailer without end", chunked(&format!("0\r\nX: {}", "x".repeat(20_000))), 400, "malformed"),
        case("trailers without end", chunked(&format!("0\r\n{}", "X: y\r\n".repeat(3_000))), 400, "malformed"),
    ]
}

fn body_of_length(length: usize) -> Vec<u8> {
    let body = "x".repeat(length);
    format!("POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Sends, and leaves it at that when the proxy has hung up meanwhile: what it said before is what counts.
fn try_send(client: &mut Client, bytes: &[u8]) {
    let _ = client.stream.write_all(bytes);
}

/// All bytes up to the end of the connection.
fn everything(client: &mut Client) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).map_err(|error| format!("{error} after {} bytes", bytes.len()))?;
    Ok(bytes)
}

/// Whether this is the one refusal the case asks for.
fn is_refusal(answer: &Message, case: &Refused) -> Result<(), String> {
    let text = String::from_utf8_lossy(&answer.body);
    let body_is_an_error = text.starts_with("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"");
    let checks = [
        (answer.status == case.status, "status"),
        (answer.whole, "an incomplete answer"),
        (answer.fields("connection") == ["close"], "Connection"),
        (answer.fields("content-type") == ["application/json"], "Content-Type"),
        (body_is_an_error, "body"),
    ];
    match checks.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(format!("{what}: {}{text}", answer.head)),
        None => Ok(()),
    }
}

/// How a case's bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In one go, with a hidden request behind.
    Whole,
    /// The same behind a good request.
    Pipelined,
    /// In pieces of this many bytes, each read before the next is sent.
    Pieces(usize),
}

fn refuse(proxy: &Proxy, case: &Refused, way: Way) -> Result<(), String> {
    let mut client = proxy.client();
    match way {
        Way::Whole => try_send(&mut client, &[&case.bytes, HIDDEN].concat()),
        Way::Pipelined => try_send(&mut client, &[GOOD, &case.bytes, HIDDEN].concat()),
        Way::Pieces(length) => case.bytes.chunks(length).for_each(|piece| client.send_and_let_read(piece)),
    }
    let answers = messages(&everything(&mut client)?, Asked::Get)?;
    let answers = match (way, &answers[..]) {
        (Way::Pipelined, [good, rest @ ..]) if good.status == 200 => rest,
        (Way::Pipelined, _) => return Err(format!("the good request was not served: {answers:?}")),
        (_, answers) => answers,
    };
    match answers {
        [answer] => is_refusal(answer, case),
        _ => Err(format!("{} answers: {answers:?}", answers.len())),
    }
}

/// Runs all cases and tells of every one that fails; then checks that each was counted.
fn refuse_all(proxy: &Proxy, cases: &[Refused], way: Way) {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    let mut faults = Vec::new();
    for case in cases {
        *counts.entry(case.reason).or_default() += 1.0;
        if let Err(fault) = refuse(proxy, case, way) {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    for (reason, count) in counts {
        assert_eq!(proxy.refused(reason), count, "{reason}");
    }
}

#[test]
fn what_is_malformed_is_refused_and_nothing_of_it_reaches_the_backend() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    refuse_all(&proxy, &refused(), Way::Whole);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_bad_request_behind_a_good_one_is_refused_all_the_same() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let cases = refused();
    refuse_all(&proxy, &cases, Way::Pipelined);
    assert_eq!(backend.requests(), cases.len());
    for _ in &cases {
        assert!(backend.next_request().starts_with("GET /mcp?good HTTP/1.1\r\n"));
    }
}

#[test]
fn what_is_too_large_is_refused_in_one_go() {
    let backend = Backend::always(json("{}"));
    let proxy = tight().backend("b", &[backend.address()]).start();
    refuse_all(&proxy, &oversize(), Way::Whole);
    assert_eq!(backend.requests(), 0);
}

#[test]
fn what_is_too_large_is_refused_when_it_comes_slowly() {
    let backend = Backend::always(json("{}"));
    let proxy = tight().backend("b", &[backend.address()]).start();
    refuse_all(&proxy, &oversize(), Way::Pieces(500));
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_chunk_found_bad_while_it_streams_ends_both_sides() {
    let backend = Backend::scripted(|exchange| while exchange.request().is_some() {});
    let proxy = Proxy::before(&[backend.address()]);
    assert!(!CHUNKS.is_empty());
    for (name, body, status, reason) in CHUNKS {
        let connections = backend.connections();
        let mut client = proxy.client();
        client.send(CHUNKED_HEAD);
        eventually("the backend is connected to", || backend.connections() > connections);
        client.send(body);
        let answers = messages(&everything(&mut client).unwrap(), Asked::Get).unwrap();
        let case = Refused { name: (*name).to_owned(), bytes: Vec::new(), status: *status, reason };
        assert_eq!(answers.len(), 1, "{name}: {answers:?}");
        is_refusal(&answers[0], &case).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_client_that_leaves_inside_a_request_gets_no_answer_and_the_backend_no_request() {
    let backend = Backend::scripted(|exchange| while exchange.request().is_some() {});
    let proxy = Proxy::before(&[backend.address()]);
    let heads: &[&[u8]] = &[b"P", b"POST /mcp/b HTTP/1.1\r\n", b"POST /mcp/b HTTP/1.1\r\nHost: test\r\n\r"];
    let bodies: &[&[u8]] = &[
        b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n",
        b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhell",
        b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for bytes in heads.iter().chain(bodies) {
        let mut client = proxy.client();
        client.send(bytes);
        client.finish_sending();
        assert_eq!(everything(&mut client).as_deref(), Ok(&b""[..]), "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(backend.requests(), 0);
    assert_eq!(proxy.refused("client_gone"), bodies.len() as f64);
}

/// A request that passes, and what the backend sees of it, without the fields we add.
type Passes = (&'static str, &'static str, &'static str);

const PASSES: &[Passes] = &[
    (
        "a length",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a length with leading zeros, trimmed",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: \t 0005 \t\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a body of no bytes",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a POST without a length",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "chunks",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "chunk sizes in either case with leading zeros",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\nb\r\n0123456789a\r\n000\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 21\r\n\r\n01234567890123456789a",
    ),
    (
        "chunk extensions, skipped",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;a;b=c;d=\"e f\"\r\nhello\r\n0;z\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "trailers, dropped",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 9\r\nAuthorization: z\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "chunked without a chunk",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "chunked in capitals behind a tab",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nTRANSFER-ENCODING:\t CHUNKED \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a request in a body",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 37\r\n\r\nGET /mcp/b HTTP/1.1\r\nHost: hidden\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nContent-Length: 37\r\n\r\nGET /mcp/b HTTP/1.1\r\nHost: hidden\r\n\r\n",
    ),
    ("GET", "GET /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    (
        "GET with a body",
        "GET /mcp/b HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}",
        "GET /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    ),
    ("DELETE", "DELETE /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "DELETE /mcp HTTP/1.1\r\n\r\n"),
    ("OPTIONS", "OPTIONS /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "OPTIONS /mcp HTTP/1.1\r\n\r\n"),
    (
        "PUT without a length",
        "PUT /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n",
        "PUT /mcp HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ),
    ("an unknown method", "BREW /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "BREW /mcp HTTP/1.1\r\n\r\n"),
    ("a method in lower case", "get /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "get /mcp HTTP/1.1\r\n\r\n"),
    ("one empty line before", "\r\nGET /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    ("two empty lines before", "\r\n\r\nGET /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    ("an absolute target", "GET http://test/mcp/b?q HTTP/1.1\r\nHost: test\r\n\r\n", "GET /mcp?q HTTP/1.1\r\n\r\n"),
    (
        "an absolute target in other case",
        "GET HTTP://TEST/mcp/b HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /mcp HTTP/1.1\r\n\r\n",
    ),
    (
        "an absolute target of https",
        "GET https://test/mcp/b HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /mcp HTTP/1.1\r\n\r\n",
    ),
    (
        "a query of all kinds, as it came",
        "GET /mcp/b?a=%zz&b=/../%2e%2e/&c=[]{}|^`\"<>\\%00 HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /mcp?a=%zz&b=/../%2e%2e/&c=[]{}|^`\"<>\\%00 HTTP/1.1\r\n\r\n",
    ),
    ("an empty query", "GET /mcp/b? HTTP/1.1\r\nHost: test\r\n\r\n", "GET /mcp? HTTP/1.1\r\n\r\n"),
    ("Host with a port", "GET /mcp/b HTTP/1.1\r\nHost: test:8080\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    ("Host with an empty port", "GET /mcp/b HTTP/1.1\r\nHost: test:\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    ("Host IPv6", "GET /mcp/b HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "GET /mcp HTTP/1.1\r\n\r\n"),
    (
        "fields in order, trimmed, with their case",
        "GET /mcp/b HTTP/1.1\r\nX-a:1\r\nHost: test\r\nx-B: \t two  words \t\r\nX-Empty:\r\nX-a: 3\r\n\r\n",
        "GET /mcp HTTP/1.1\r\nX-a: 1\r\nx-B: two  words\r\nX-Empty: \r\nX-a: 3\r\n\r\n",
    ),
    (
        "a value beyond ASCII and a name of all token characters",
        "GET /mcp/b HTTP/1.1\r\nHost: test\r\n!#$%&'*+-.^_`|~09: \u{e9}\u{1f980}\r\n\r\n",
        "GET /mcp HTTP/1.1\r\n!#$%&'*+-.^_`|~09: \u{e9}\u{1f980}\r\n\r\n",
    ),
    (
        "hop-by-hop fields, stripped",
        "GET /mcp/b HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, X-Hop,,x-other \r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: websocket\r\nProxy-Authorization: p\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\nX-OTHER: 2\r\nX-End: 3\r\n\r\n",
        "GET /mcp HTTP/1.1\r\nX-End: 3\r\n\r\n",
    ),
    (
        "framing cannot be named away",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nConnection: content-length, host, connection\r\nContent-Length: 5\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "HTTP/1.0 with keep-alive and without Host",
        "POST /mcp/b HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "HTTP/1.0 with an expectation, which is ignored",
        "POST /mcp/b HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "an expectation",
        "POST /mcp/b HTTP/1.1\r\nHost: test\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello",
        "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ),
];

/// What a backend saw, without `Host` and what says who asked (`relay` tests those).
fn without_ours(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let ours = ["Host: ", "X-Forwarded-For: ", "X-Forwarded-Proto: ", "X-Forwarded-Host: ", "Forwarded: "];
    let mut text = String::new();
    for line in head.lines().filter(|line| !ours.iter().any(|name| line.starts_with(name))) {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text + "\r\n" + body
}

/// The same with a body in chunks put into one, under its length.
fn without_chunks(request: &str) -> String {
    let Some((head, mut rest)) = request.split_once("Transfer-Encoding: chunked\r\n\r\n") else {
        return request.to_owned();
    };
    let mut body = String::new();
    loop {
        let (digits, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap();
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(rest, "");
            return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    }
}

/// Reads the final answer to a request of [`PASSES`].
fn final_answer(client: &mut Client) -> u16 {
    match client.response().status {
        100 => client.response().status,
        status => status,
    }
}

#[test]
fn what_passes_reaches_the_backend_in_our_framing() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for (name, sent, seen) in PASSES {
        client.send(sent);
        assert_eq!(client.response().status, 200, "{name}");
        assert_eq!(without_ours(&backend.next_request()), *seen, "{name}");
    }
}

/// A head in hundreds of pieces takes its time on a busy machine.
fn unhurried() -> ProxyBuilder {
    Proxy::builder().limits("head_timeout_ms = 3600000")
}

#[test]
fn what_passes_passes_wherever_it_is_cut() {
    let backend = Backend::always(json("{}"));
    let proxy = unhurried().backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    for (name, sent, seen) in PASSES {
        for at in 1..sent.len() {
            let (first, second) = sent.as_bytes().split_at(at);
            client.send_and_let_read(first);
            client.send(second);
            assert_eq!(final_answer(&mut client), 200, "{name}, cut at {at}");
            let request = without_chunks(&without_ours(&backend.next_request()));
            assert_eq!(
                request.replace("Content-Length: 0\r\n", ""),
                seen.replace("Content-Length: 0\r\n", ""),
                "{name}, cut at {at}"
            );
        }
    }
}

#[test]
fn what_passes_passes_byte_by_byte() {
    let backend = Backend::always(json("{}"));
    let proxy = unhurried().backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    for (name, sent, seen) in PASSES {
        for byte in sent.as_bytes().chunks(1) {
            client.send_and_let_read(byte);
        }
        assert_eq!(final_answer(&mut client), 200, "{name}");
        let request = without_chunks(&without_ours(&backend.next_request()));
        assert_eq!(request.replace("Content-Length: 0\r\n", ""), seen.replace("Content-Length: 0\r\n", ""), "{name}");
    }
}

#[test]
fn what_is_just_small_enough_passes_in_one_go_and_in_pieces() {
    let backend = Backend::always(json("{}"));
    let proxy = tight().backend("b", &[backend.address()]).start();
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n").into_bytes();
    let rest = get("/mcp/b", "X: \r\n").len();
    let body = "x".repeat(1024);
    let cases: [(&str, Vec<u8>); 6] = [
        ("a head at the limit", get("/mcp/b", &format!("X: {}\r\n", "v".repeat(2048 - rest)))),
        ("as many fields as allowed", get("/mcp/b", &"X: y\r\n".repeat(9))),
        ("a target at the limit", get(&format!("/mcp/b?{}", "q".repeat(128 - 7)), "")),
        ("a length at the limit", body_of_length(1024)),
        ("a chunk at the limit", [CHUNKED_HEAD, format!("400\r\n{body}\r\n0\r\n\r\n").as_bytes()].concat()),
        ("small chunks at the limit", [CHUNKED_HEAD, "1\r\nx\r\n".repeat(1024).as_bytes(), b"0\r\n\r\n"].concat()),
    ];
    for (name, bytes) in cases {
        let mut client = proxy.client();
        client.send(&bytes);
        assert_eq!(client.response().status, 200, "{name}");
        backend.next_request();
        let mut client = proxy.client();
        bytes.chunks(100).for_each(|piece| client.send_and_let_read(piece));
        assert_eq!(client.response().status, 200, "{name}, in pieces");
        let request = without_chunks(&without_ours(&backend.next_request()));
        if bytes.ends_with(b"x") || bytes.ends_with(b"0\r\n\r\n") {
            assert!(request.ends_with(&format!("Content-Length: 1024\r\n\r\n{body}")), "{name}: {request}");
        }
    }
}

#[test]
fn a_client_that_waits_to_be_told_is_told_to_continue() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client.send(format!("POST /mcp/b HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
        assert_eq!(client.response().status, 200);
        let request = without_chunks(&without_ours(&backend.next_request()));
        assert_eq!(request, "POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    }
}

#[test]
fn a_client_that_waits_for_what_will_be_refused_is_refused_at_once() {
    let backend = Backend::always(json("{}"));
    let proxy = tight().backend("b", &[backend.address()]).start();
    let cases = [("/mcp/b", "Content-Length: 1025", 413), ("/nowhere", "Content-Length: 5", 404)];
    for (path, length, status) in cases {
        let mut client = proxy.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n{length}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (status, Some("close")));
        assert!(client.ended());
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn an_http_10_connection_closes_unless_the_client_asks_to_keep_it() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("GET /mcp/b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("keep-alive"));
    client.send("GET /mcp/b HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    assert!(client.ended());
}

#[test]
fn the_whole_server_may_be_asked_for_its_options_but_has_none() {
    let backend = Backend::always(json("{}"));
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 404);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let backend = Backend::scripted(|exchange| {
        while exchange.request().is_some() {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
        }
    });
    let proxy = Proxy::before(&[backend.address()]);
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("HEAD /mcp/b HTTP/1.1\r\nHost: test\r\n\r\n");
        assert!(client.head().contains("\r\nContent-Length: 7\r\n"));
        assert!(without_ours(&backend.next_request()).starts_with("HEAD /mcp HTTP/1.1\r\n"));
    }
    assert_eq!(backend.connections(), 1);
}
