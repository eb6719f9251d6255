//! Our codec against others on inputs from a generator with a fixed seed: what we accept they re-read
//! as the same. The properties are those of the fuzz targets, asked here of every test run. The other
//! readers are httparse, monoio-http where it does not panic (a header name of 64 KiB), and hyper.

use bytes::BytesMut;
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{ChunkedBodyDecoder, RequestHeadDecoder};
use ringway::http::{BodyDecoder, BodyLength, RequestHead};

use crate::support::random::Random;

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library where it is at home")]
mod properties;

const INPUTS: usize = 20_000;

type Property = fn(&[u8]);

/// Damages a few bytes, mostly none.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    const NASTY: &[u8] = b"\r\n\0\t :;,%./\\#?*\x0b\x7f\x80\xff015afAFhHtTcC";
    while !bytes.is_empty() && random.one_in(2) {
        let at = random.below(bytes.len());
        let byte = NASTY[random.below(NASTY.len())];
        match random.below(4) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
}

const TARGETS: &[&[u8]] = &[
    b"/mcp/b",
    b"/",
    b"/mcp/b?x=1&y=%zz",
    b"*",
    b"http://test/mcp/b",
    b"https://TEST:80/a/b?c",
    b"/a/../b",
    b"/%2e%2e",
    b"/a..b/.../c",
    b"//x",
    b"/a?b#c",
    b"test:80",
    b"/a/..%2fb",
    b"/a;b=c/d",
    b"/~a!$&'()*+,=:@",
];

const FIELDS: &[&[u8]] = &[
    b"Host: test",
    b"Host: test",
    b"host:TEST:80",
    b"Host: a@b",
    b"Host:",
    b"Content-Length: 5",
    b"content-length: 0",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tCHUNKED ",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked",
    b"Connection: close, x-hop",
    b"X-Hop: 1",
    b"Connection: keep-alive",
    b"TE: trailers",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"X-A:",
    b"x-a: \t b c \t",
    b"X-Forwarded-For: 1.1.1.1, 2.2.2.2",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: h",
    b"Forwarded: for=x",
    b"Mcp-Session-Id: s",
    b"MCP-Protocol-Version: 2026-07-28",
    b"Mcp-Method: tools/call",
    b"Content-Type: text/plain",
    b" folded",
    b"X-\xc3\xa9: y",
    b"X-Y: \xc3\xa9",
    b": empty",
    b"X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn request(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.one_in(10) {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(random.one_of(&[b"GET", b"POST", b"POST", b"DELETE", b"OPTIONS", b"CONNECT", b"get"]));
    bytes.push(b' ');
    bytes.extend_from_slice(random.one_of(TARGETS));
    bytes.extend_from_slice(random.one_of(&[
        b" HTTP/1.1\r\n",
        b" HTTP/1.1\r\n",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"\r\n",
    ]));
    if !random.one_in(4) {
        bytes.extend_from_slice(b"Host: test\r\n");
    }
    for _ in 0..random.below(5) {
        bytes.extend_from_slice(random.one_of(FIELDS));
        bytes.extend_from_slice(if random.one_in(20) { b"\n" } else { b"\r\n" });
    }
    bytes.extend_from_slice(b"\r\n");
    damage(random, &mut bytes);
    bytes.extend_from_slice(random.one_of(&[b"", b"hello", b"GET / HTTP/1.1\r\n\r\n", b"\n\n"]));
    bytes
}

fn response(random: &mut Random) -> Vec<u8> {
    let mut bytes = random.one_of(&[b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2 "]).to_vec();
    bytes.extend_from_slice(random.one_of(&[
        b"200 OK",
        b"200",
        b"204 ",
        b"304 x",
        b"100 Continue",
        b"099 x",
        b"200 \xc3\xa9",
    ]));
    bytes.extend_from_slice(b"\r\n");
    for _ in 0..random.below(5) {
        bytes.extend_from_slice(random.one_of(FIELDS));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    damage(random, &mut bytes);
    bytes.extend_from_slice(random.one_of(&[b"", b"hello"]));
    bytes
}

fn chunks(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(4) {
        let size = 1 + random.below(20);
        let line = match random.below(6) {
            0 => format!("{size:X};name=\"value\"\r\n"),
            1 => format!("00{size:x}\r\n"),
            _ => format!("{size:x}\r\n"),
        };
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend(std::iter::repeat_with(|| random.next() as u8).take(size));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(random.one_of(&[b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0;z\r\n\r\n"]));
    damage(random, &mut bytes);
    bytes.extend_from_slice(random.one_of(&[b"", b"GET / HTTP/1.1\r\n\r\n"]));
    bytes
}

fn body(random: &mut Random) -> Vec<u8> {
    let ids: &[&[u8]] = &[b"1", b"\"a\"", b"null", b"1.5", b"\"\\u0062\"", b"[1]", b"-9", b"1e3", b"{\"id\":2}"];
    let id = random.one_of(ids);
    let before = random.one_of(&[b"\"jsonrpc\":\"2.0\",", b"\"params\":{\"id\":7},", b"\"id\":3,", b" "]);
    let mut bytes = [b"{".as_slice(), before, b"\"id\":", id, b",\"method\":\"ping\"}"].concat();
    damage(random, &mut bytes);
    bytes
}

/// Runs a property on generated inputs; a failure names its input.
fn on_inputs(seed: u64, generate: impl Fn(&mut Random) -> Vec<u8>, mut property: impl FnMut(&[u8])) {
    let mut random = Random::new(seed);
    for number in 0..INPUTS {
        let input = generate(&mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&input)));
        assert!(outcome.is_ok(), "input {number} of seed {seed}: {:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn requests_are_read_as_httparse_reads_them_however_they_are_cut() {
    on_inputs(1, request, properties::request_head);
}

#[test]
fn answers_are_read_as_httparse_reads_them_however_they_are_cut() {
    on_inputs(2, response, properties::response_head);
}

#[test]
fn what_a_backend_is_sent_re_reads_as_what_was_asked() {
    on_inputs(3, request, properties::reencode);
}

#[test]
fn chunks_have_one_payload_however_they_are_cut() {
    on_inputs(4, |random| [vec![random.next() as u8], chunks(random)].concat(), properties::chunked_body);
}

#[test]
fn ids_are_what_stands_in_the_body() {
    on_inputs(5, body, properties::request_id);
}

#[test]
fn what_a_backend_is_sent_is_one_request_to_three_other_parsers() {
    let with_body = |random: &mut Random| {
        let body = if random.one_in(2) { chunks(random) } else { b"hello".to_vec() };
        [vec![random.next() as u8], request(random), body].concat()
    };
    let mut read = 0;
    on_inputs(8, with_body, |bytes| read += properties::reread(bytes));
    assert!(read > INPUTS / 4, "only {read} readings");
}

#[test]
fn envelopes_are_read_as_serde_json_reads_them() {
    let mut read = 0;
    on_inputs(9, envelope, |bytes| read += usize::from(properties::envelope(bytes)));
    assert!(read > INPUTS / 4, "only {read} inputs were accepted by both");
}

fn envelope(random: &mut Random) -> Vec<u8> {
    let members: &[&[u8]] = &[
        b"\"jsonrpc\":\"2.0\"",
        b"\"jsonrpc\" : \"2.0\"",
        b"\"id\":1",
        b"\"id\":\"\\u0061\\\"\"",
        b"\"id\":null",
        b"\"method\":\"tools/call\"",
        b"\"m\\u0065thod\":\"ping\"",
        b"\"params\":{\"name\":\"n\\n\",\"uri\":5,\"cursor\":null,\"arguments\":{\"x\":[1e3,{}]}}",
        b"\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"progressToken\":1}}",
        b"\"result\":{}",
        b"\"other\":[[[]]]",
    ];
    let mut parts =
        vec![b"\"jsonrpc\":\"2.0\"".as_slice(), random.one_of(&members[2..5]), random.one_of(&members[5..7])];
    for _ in 0..random.below(3) {
        parts.insert(random.below(parts.len()), random.one_of(&members[7..]));
    }
    if random.one_in(8) {
        parts.push(random.one_of(members));
    }
    let mut bytes = [b"{".as_slice(), &parts.join(b",".as_slice()), b"}"].concat();
    if random.one_in(8) {
        bytes = [b"[".as_slice(), &bytes, b"]"].concat();
    }
    if random.one_in(3) {
        damage(random, &mut bytes);
    }
    bytes
}

#[test]
fn a_stream_has_the_same_events_however_it_is_cut() {
    let stream = |random: &mut Random| {
        let parts: &[&[u8]] = &[
            b"data: x",
            b"data",
            b": c",
            b"event: e",
            b"id: 1",
            b"\n",
            b"\n\n",
            b"\r\n",
            b"\r",
            b"\xef\xbb\xbf",
            b" ",
        ];
        let mut bytes = vec![random.next() as u8];
        (0..random.below(30)).for_each(|_| bytes.extend_from_slice(random.one_of(parts)));
        bytes
    };
    on_inputs(10, stream, properties::events);
}

#[test]
fn sentinels_and_tokens_hold_for_any_bytes() {
    let any = |random: &mut Random| -> Vec<u8> {
        let length = random.below(40);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.next() as u8).take(length).collect();
        match random.below(3) {
            0 => bytes,
            1 => [b"=?base64?".as_slice(), random.one_of(&[b"YQ==", b"DQo=", b"", b"Y", b"5pyI"]), b"?="].concat(),
            _ => String::from_utf8_lossy(&bytes).into_owned().into_bytes(),
        }
    };
    on_inputs(11, any, properties::sentinel);
    // A seal costs tens of microseconds, and more without optimisation.
    let mut left = INPUTS / 20;
    on_inputs(12, any, |bytes| {
        if left > 0 {
            properties::session_token(bytes);
            left -= 1;
        }
    });
}

#[test]
fn the_corpus_holds_too() {
    let targets: [(&str, Property); 10] = [
        ("request_head", properties::request_head),
        ("response_head", properties::response_head),
        ("chunked_body", properties::chunked_body),
        ("reencode", properties::reencode),
        ("request_id", properties::request_id),
        ("reread", |bytes| _ = properties::reread(bytes)),
        ("envelope", |bytes| _ = properties::envelope(bytes)),
        ("events", properties::events),
        ("sentinel", properties::sentinel),
        ("session_token", properties::session_token),
    ];
    for (name, property) in targets {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{folder}");
        files.iter().for_each(|file| property(&std::fs::read(file).unwrap()));
    }
}

#[test]
fn requests_are_read_as_monoio_http_reads_them() {
    let mut compared = 0;
    on_inputs(6, request, |bytes| {
        let mut ours = RequestHead::default();
        let Ok(Some(end)) = ours.decode(bytes, &properties::LIMITS) else { return };
        // It waits for a second request behind an empty line, and so does not see the first.
        let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap();
        let mut rest = BytesMut::from(&bytes[start..]);
        // Targets that its URI type does not take are legal for us, or not its to judge.
        let Ok(Decoded::Some(theirs)) = RequestHeadDecoder.decode(&mut rest) else { return };
        compared += 1;
        assert_eq!(rest, bytes[end..], "the head ends elsewhere");
        assert_eq!(theirs.method.as_str().as_bytes(), ours.method_text(bytes));
        assert_eq!(theirs.uri.path().as_bytes(), ours.path(bytes));
        assert_eq!(
            theirs.uri.query().unwrap_or_default().as_bytes(),
            ours.query(bytes).strip_prefix(b"?").unwrap_or_default()
        );
        assert_eq!(theirs.headers.len(), ours.fields().len());
        for name in theirs.headers.keys() {
            let theirs: Vec<&[u8]> = theirs.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
            let is_it = |field: &&ringway::http::Field| {
                field.name.of_buffer(bytes).eq_ignore_ascii_case(name.as_str().as_bytes())
            };
            let ours: Vec<&[u8]> =
                ours.fields().iter().filter(is_it).map(|field| field.value.of_buffer(bytes)).collect();
            assert_eq!(theirs, ours);
        }
    });
    assert!(compared > INPUTS / 20, "only {compared} inputs were accepted by both");
}

#[test]
fn chunks_are_read_as_monoio_http_reads_them() {
    let mut compared = 0;
    on_inputs(7, chunks, |bytes| {
        let (mut ours, mut payload, mut taken) = (BodyDecoder::new(BodyLength::Chunked), Vec::new(), 0);
        while taken < bytes.len() && !ours.is_done() {
            let Ok((used, run)) = ours.decode(&bytes[taken..]) else { return };
            payload.extend_from_slice(&bytes[taken..][run]);
            taken += used;
        }
        if !ours.is_done() {
            return;
        }
        let (mut decoder, mut rest, mut theirs) = (ChunkedBodyDecoder::default(), BytesMut::from(bytes), Vec::new());
        loop {
            match decoder.decode(&mut rest) {
                Ok(Decoded::Some(Some(chunk))) => theirs.extend_from_slice(&chunk),
                Ok(Decoded::Some(None)) => break,
                // Extensions and trailers are legal, but not for it.
                _ => return,
            }
        }
        compared += 1;
        assert_eq!(payload, theirs);
        assert_eq!(rest, bytes[taken..], "the body ends elsewhere");
    });
    assert!(compared > INPUTS / 20, "only {compared} inputs were accepted by both");
}
