//! What holds for every input, however hostile. The fuzz targets ask it of what libFuzzer finds, the
//! integration tests of what a generator with a fixed seed makes, so that a plain test run has both.
//!
//! Each function panics when its property does not hold.

pub mod readers;

use readers::{Message, Reading};
use ringway::http::{
    self, AcceptField, BodyDecoder, BodyLength, Buffer, FieldKind, Forwarded, Framing, HeadLimits, HttpError,
    RequestHead, ResponseHead, Rewrite, SessionField, Target, Trace, Version,
};
use ringway::mcp::{
    Boundaries, Envelope, EventReader, Kind, NameField, Session, SessionKeys, decode_sentinel, encode_sentinel, same_id,
};
use ringway::relay::reframe;

/// Small, so that inputs of a few hundred bytes reach them.
pub const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024, target_bytes_max: 128, headers_max: 16 };

/// Whether fields of this kind reach a backend as they came.
fn is_passed_on(kind: FieldKind) -> bool {
    !matches!(
        kind,
        FieldKind::Host
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::Expect
            | FieldKind::XForwardedFor
            | FieldKind::XForwardedProto
            | FieldKind::XForwardedHost
            | FieldKind::Forwarded
    )
}

/// Fields that we write in place of the client's.
const OURS_TO_WRITE: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

type Header = (Vec<u8>, Vec<u8>);

/// A head means the same when it comes byte by byte; what we accept, httparse accepts as the same.
pub fn request_head(bytes: &[u8]) {
    let mut whole = RequestHead::default();
    let result = whole.decode(bytes, &LIMITS);
    let mut pieces = RequestHead::default();
    assert_same_verdict(result, |length| pieces.decode(&bytes[..length], &LIMITS), bytes.len());
    let Ok(Some(end)) = result else { return };
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut second = httparse::Request::new(&mut headers);
    assert_eq!(second.parse(bytes), Ok(httparse::Status::Complete(end)));
    assert_eq!(second.method.map(str::as_bytes), Some(whole.method_text(bytes)));
    let target = second.path.unwrap_or_default().as_bytes();
    assert!(target.ends_with(&[whole.path(bytes), whole.query(bytes)].concat()));
    assert_eq!(second.version == Some(1), whole.version == Version::Http11);
    assert_eq!(fields_of_ours(whole.fields(), bytes), fields_of(second.headers));
    assert_eq!(whole.body, framing_in(second.headers).unwrap_or(BodyLength::None));
    assert!(whole.version == Version::Http10 || count(second.headers, "host") == 1);
}

/// The same for an answer's head.
pub fn response_head(bytes: &[u8]) {
    let mut whole = ResponseHead::default();
    let result = whole.decode(bytes, &LIMITS);
    let mut pieces = ResponseHead::default();
    assert_same_verdict(result, |length| pieces.decode(&bytes[..length], &LIMITS), bytes.len());
    let Ok(Some(end)) = result else { return };
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut second = httparse::Response::new(&mut headers);
    assert_eq!(second.parse(bytes), Ok(httparse::Status::Complete(end)));
    assert_eq!(second.code, Some(whole.status));
    assert_eq!(second.reason.unwrap_or_default().as_bytes(), whole.reason(bytes));
    assert_eq!(fields_of_ours(whole.fields(), bytes), fields_of(second.headers));
    if !matches!(whole.status, 100..=199 | 204 | 304) {
        let length = framing_in(second.headers).unwrap_or(BodyLength::UntilClose);
        assert_eq!(whole.body_for(http::Method::Get), length);
    }
    assert_eq!(whole.body_for(http::Method::Head), BodyLength::None);
}

/// The first byte says how long the pieces are; what follows is a body in chunks.
pub fn chunked_body(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let whole = cut_payload_of(bytes, usize::MAX);
    for piece in [1, usize::from(piece).max(1)] {
        assert_eq!(whole, cut_payload_of(bytes, piece), "in pieces of {piece}");
    }
}

/// What we send to a backend re-reads as what was asked for, less what ends here, with our framing.
pub fn reencode(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some(_)) = head.decode(bytes, &LIMITS) else { return };
    for (trusted_hops, framing) in [(0, Framing::Length(7)), (1, Framing::Chunked), (2, Framing::None)] {
        let target = Target { authority: "backend:1", path: "/mcp", rest: b"", query: head.query(bytes) };
        let forwarded = Forwarded { peer: "192.0.2.1", trusted_hops };
        let rewrite = Rewrite { forwarded, session: SessionField::Keep, accept: AcceptField::Keep, trace: Trace::Pass };
        let mut out = Vec::new();
        http::request_head(&mut out, &head, bytes, &target, &rewrite, framing);
        let mut headers = [httparse::EMPTY_HEADER; 24];
        let mut second = httparse::Request::new(&mut headers);
        assert_eq!(second.parse(&out), Ok(httparse::Status::Complete(out.len())));
        assert_eq!(second.method.map(str::as_bytes), Some(head.method_text(bytes)));
        assert_eq!(second.path.map(str::as_bytes), Some([b"/mcp", head.query(bytes)].concat().as_slice()));
        assert_eq!(second.version, Some(1));
        assert_eq!(framing_in(second.headers), framing_as_length(framing));
        assert_eq!(count(second.headers, "host"), 1);
        for name in ["connection", "keep-alive", "te", "trailer", "upgrade", "expect", "proxy-authorization"] {
            assert_eq!(count(second.headers, name), 0, "{name}");
        }
        let kept: Vec<http::Field> = head.fields().iter().filter(|field| is_passed_on(field.kind)).copied().collect();
        let is_other =
            |(name, _): &Header| !OURS_TO_WRITE.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        let seen: Vec<Header> = fields_of(second.headers).into_iter().filter(is_other).collect();
        assert_eq!(seen, fields_of_ours(&kept, bytes));
        let mut again = RequestHead::default();
        let roomy = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, headers_max: 64 };
        assert_eq!(again.decode(&out, &roomy), Ok(Some(out.len())), "we accept what we write");
    }
}

/// The first byte says how long the pieces are; what follows is a request with its body. What we emit
/// of it, `httparse`, monoio-http and hyper read as the same request with the same end, or as one
/// that has not ended if it has not: how many of the three read it (each may refuse what we take).
pub fn reread(bytes: &[u8]) -> usize {
    let Some((&piece, bytes)) = bytes.split_first() else { return 0 };
    let mut head = RequestHead::default();
    let Ok(Some(end)) = head.decode(bytes, &LIMITS) else { return 0 };
    let (head_bytes, body) = bytes.split_at(end);
    let mut read = 0;
    // All at once, and streamed with a first piece beside the head.
    for piece in [usize::MAX, usize::from(piece).max(1)] {
        let Some((out, payload, is_whole)) = emit(&head, head_bytes, body, piece) else { return read };
        let readings = [
            readers::by_httparse(&out),
            readers::by_monoio_http(&out),
            readers::by_hyper(&out, usize::from(bytes[0]), is_whole),
        ];
        let mut ours = RequestHead::default();
        let roomy = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, headers_max: 64 };
        assert!(matches!(ours.decode(&out, &roomy), Ok(Some(_))), "we accept what we write");
        let fields = fields_of_ours(ours.fields(), &out);
        let target = [ours.path(&out), ours.query(&out)].concat();
        let mut message = Message::new(ours.method_text(&out), &target, fields.into_iter());
        message.body = payload;
        let expected = if is_whole { Reading::Whole(message, Vec::new()) } else { Reading::Partial };
        for (reading, reader) in readings.iter().zip(["httparse", "monoio-http", "hyper"]) {
            if *reading != Reading::Refused {
                assert_eq!(*reading, expected, "{reader} reads another request: {:?}", String::from_utf8_lossy(&out));
                read += 1;
            }
        }
    }
    read
}

/// What a backend is sent of a request, the payload that came, and whether it came whole; `None` for a
/// body that is refused. Put together as the worker does it.
fn emit(head: &RequestHead, head_bytes: &[u8], body: &[u8], piece: usize) -> Option<(Vec<u8>, Vec<u8>, bool)> {
    let mut decoder = BodyDecoder::new(head.body);
    let mut payload = payload_of(&mut decoder, body)?;
    let is_whole = decoder.is_done();
    let at_once = piece == usize::MAX && is_whole;
    let framing = match head.body {
        _ if at_once && !payload.is_empty() => Framing::Length(payload.len() as u64),
        BodyLength::Fixed(length) => Framing::Length(length),
        BodyLength::Chunked if !at_once => Framing::Chunked,
        _ if head.method == http::Method::Post => Framing::Length(0),
        _ => Framing::None,
    };
    let mut out = Vec::new();
    let target = Target { authority: "backend:1", path: "/mcp", rest: b"", query: head.query(head_bytes) };
    let forwarded = Forwarded { peer: "192.0.2.1", trusted_hops: 0 };
    let rewrite = Rewrite { forwarded, session: SessionField::Keep, accept: AcceptField::Keep, trace: Trace::Pass };
    http::request_head(&mut out, head, head_bytes, &target, &rewrite, framing);
    let mut decoder = BodyDecoder::new(head.body);
    for part in body.chunks(piece) {
        if decoder.is_done() {
            break;
        }
        let mut buffer = Buffer::with_capacity(part.len());
        buffer.space().copy_from_slice(part);
        buffer.advance(part.len());
        reframe(&mut buffer, &mut decoder, framing).ok()?;
        out.extend_from_slice(buffer.filled());
    }
    if let (false, Framing::Length(length)) = (is_whole, framing) {
        payload.truncate(length as usize);
    }
    Some((out, payload, is_whole))
}

/// The payload as far as it has come; `None` for a fault.
fn payload_of(decoder: &mut BodyDecoder, mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    while !bytes.is_empty() && !decoder.is_done() {
        let (used, run) = decoder.decode(bytes).ok()?;
        payload.extend_from_slice(&bytes[run]);
        bytes = &bytes[used..];
    }
    Some(payload)
}

/// What the envelope says stands in the body as `serde_json` reads it: whether both took it.
pub fn envelope(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(bytes) else { return false };
    // It refuses some of what passes unread: deep nesting, numbers beyond its range.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return false };
    if let Kind::Batch { .. } = envelope.kind {
        assert!(value.is_array());
        return true;
    }
    assert_eq!(value["jsonrpc"], "2.0");
    let parsed = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    assert_eq!(envelope.id(bytes).map(parsed).as_ref(), value.get("id").filter(|id| !id.is_null()));
    if envelope.kind == Kind::Response {
        // Nobody asks it for more.
        return true;
    }
    assert_eq!(envelope.method_text(bytes), value["method"].as_str().map(str::as_bytes));
    for (field, name) in [(NameField::Name, "name"), (NameField::Uri, "uri"), (NameField::TaskId, "taskId")] {
        assert_eq!(envelope.named(field, bytes), value["params"][name].as_str().map(str::as_bytes), "{name}");
    }
    assert_eq!(envelope.cursor(bytes).map(parsed).as_ref(), value["params"].get("cursor"));
    let version = &value["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
    assert_eq!(envelope.protocol_version(bytes), version.as_str().map(str::as_bytes));
    if envelope.kind == Kind::Request {
        let id = ringway::mcp::request_id(bytes).expect("a request has an id");
        assert!(envelope.id(bytes).is_some_and(|found| same_id(found, &id)));
    }
    true
}

/// The first byte says how long the pieces are; what follows is a stream of events. It has the same
/// events however it is cut, and also with a comment of ours wherever there is room for one.
pub fn events(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let events_of = |bytes_max: usize, pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut reader, mut events) = (EventReader::new(bytes_max), Vec::new());
        pieces.for_each(|piece| reader.feed(piece, |event| events.push(format!("{event:?}"))));
        events
    };
    let whole = events_of(64, &mut std::iter::once(bytes));
    for piece in [1, usize::from(piece).max(1)] {
        assert_eq!(whole, events_of(64, &mut bytes.chunks(piece)), "in pieces of {piece}");
    }
    let (mut at_once, mut single) = (Boundaries::default(), Boundaries::default());
    let mut with_comments = Vec::new();
    for byte in bytes.chunks(1) {
        // A byte order mark is one at the very beginning only.
        if single.between_events() && !with_comments.is_empty() {
            with_comments.extend_from_slice(b":\n\n");
        }
        single.feed(byte);
        with_comments.extend_from_slice(byte);
    }
    at_once.feed(bytes);
    assert_eq!(at_once.between_events(), single.between_events());
    // Without a bound: a comment of the backend's that is too long takes the event behind it along, unless
    // one of ours stands between.
    let events = |bytes: &[u8]| events_of(usize::MAX, &mut std::iter::once(bytes));
    assert_eq!(events(bytes), events(&with_comments), "a comment of ours has changed the events");
}

/// What a sentinel hides comes back as it was, and nothing that we encode can end a header line.
pub fn sentinel(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let encoded = encode_sentinel(text);
        assert!(encoded.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{encoded:?}");
        assert_eq!(encoded.trim(), encoded, "white space at an end is lost on the way");
        assert_eq!(decode_sentinel(encoded.as_bytes()).as_deref(), Ok(bytes));
    }
    if let Ok(decoded) = decode_sentinel(bytes) {
        assert!(bytes.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e)));
        // Whatever came out can be put in again, unless it is no text.
        if let Ok(text) = std::str::from_utf8(&decoded) {
            assert_eq!(decode_sentinel(encode_sentinel(text).as_bytes()).as_deref(), Ok(&*decoded));
        }
    }
}

/// A token opens to what it was made of, and to nothing once a character is another. The first byte
/// says which; what follows is the backend's id, and itself a token to open.
pub fn session_token(bytes: &[u8]) {
    let Some((&at, bytes)) = bytes.split_first() else { return };
    let keys = SessionKeys::new([b"a-key-for-fuzzing".as_slice()]);
    if let Some(session) = keys.open(bytes) {
        let again = keys.seal(&session, [7; 24]);
        assert_eq!(keys.open(again.as_bytes()), Some(session));
    }
    let session = Session {
        endpoint: u64::from(at),
        issued_minutes: 7,
        binding: [at; 16],
        upstream_id: bytes[..bytes.len().min(1024)].to_vec(),
    };
    let mut token = keys.seal(&session, [at; 24]).into_bytes();
    assert!(token.iter().all(u8::is_ascii_graphic));
    assert_eq!(keys.open(&token), Some(session));
    let place = usize::from(at) % token.len();
    token[place] = if token[place] == b'A' { b'B' } else { b'A' };
    assert_eq!(keys.open(&token), None, "a forged token was opened");
    token.pop();
    assert_eq!(keys.open(&token), None);
}

/// An id that is found is a JSON string or integer that stands in the body.
pub fn request_id(bytes: &[u8]) {
    let Some(id) = ringway::mcp::request_id(bytes) else { return };
    assert!(bytes.windows(id.len()).any(|window| window == id));
    assert!(id.starts_with(b"\"") && id.ends_with(b"\"") || id.iter().all(|byte| b"-0123456789".contains(byte)));
    let error = ringway::mcp::error_body(Some(&id), -32600, "m");
    let reply = ringway::mcp::Reply::parse(&error).expect("our errors are responses");
    assert_eq!(reply.id(&error), Some(&*id), "our errors carry it back");
    assert_eq!(ringway::mcp::request_id(&error), None, "and are no requests");
}

/// That giving ever more of the input leads to the verdict on the whole, and never back. A limit may
/// show under another name before the fault behind it is seen.
fn assert_same_verdict(
    whole: Result<Option<usize>, HttpError>,
    mut decode: impl FnMut(usize) -> Result<Option<usize>, HttpError>,
    length: usize,
) {
    for length in 0..=length {
        match decode(length) {
            Ok(None) => {}
            Ok(Some(end)) => {
                assert_eq!(length, end, "a head is complete with its last byte");
                assert_eq!(whole, Ok(Some(end)));
                return;
            }
            Err(_) => {
                assert!(whole.is_err(), "refused at {length}, accepted whole: {whole:?}");
                return;
            }
        }
    }
    assert_eq!(whole, Ok(None));
}

fn fields_of(headers: &[httparse::Header<'_>]) -> Vec<Header> {
    headers.iter().map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec())).collect()
}

fn fields_of_ours(fields: &[http::Field], bytes: &[u8]) -> Vec<Header> {
    fields.iter().map(|field| (field.name.of_buffer(bytes).to_vec(), field.value.of_buffer(bytes).to_vec())).collect()
}

fn count(headers: &[httparse::Header<'_>], name: &str) -> usize {
    headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count()
}

/// The framing as a naive reader takes it. Panics where two readers could differ: such heads must
/// not have been accepted.
fn framing_in(headers: &[httparse::Header<'_>]) -> Option<BodyLength> {
    let values = |name: &str| -> Vec<&[u8]> {
        headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect()
    };
    match (values("content-length")[..].as_ref(), values("transfer-encoding")[..].as_ref()) {
        ([], []) => None,
        ([length], []) => {
            let length: u64 = std::str::from_utf8(length).unwrap().parse().unwrap();
            Some(if length == 0 { BodyLength::None } else { BodyLength::Fixed(length) })
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Some(BodyLength::Chunked),
        (lengths, codings) => panic!("ambiguous: {lengths:?} {codings:?}"),
    }
}

fn framing_as_length(framing: Framing) -> Option<BodyLength> {
    match framing {
        Framing::Length(length) => Some(BodyLength::Fixed(length)),
        Framing::Chunked => Some(BodyLength::Chunked),
        Framing::None | Framing::UntilClose => None,
    }
}

/// What a decoder makes of a body: the payload before its end or its fault, how many bytes it took,
/// and whether it ended.
fn cut_payload_of(bytes: &[u8], piece: usize) -> (Vec<u8>, Result<(usize, bool), HttpError>) {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked);
    let (mut payload, mut taken) = (Vec::new(), 0);
    for bytes in bytes.chunks(piece) {
        let mut rest = bytes;
        while !rest.is_empty() && !decoder.is_done() {
            match decoder.decode(rest) {
                Ok((used, run)) => {
                    assert!(used > 0, "no progress");
                    payload.extend_from_slice(&rest[run]);
                    taken += used;
                    rest = &rest[used..];
                }
                Err(error) => return (payload, Err(error)),
            }
        }
    }
    assert_eq!(decoder.payload_bytes(), payload.len() as u64);
    assert_eq!(decoder.end().is_ok(), decoder.is_done());
    (payload, Ok((taken, decoder.is_done())))
}
