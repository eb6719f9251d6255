//! What holds for every input, however hostile. The fuzz targets ask it of what libFuzzer finds, the
//! integration tests of what a generator with a fixed seed makes, so that a plain test run has both.
//!
//! Each function panics when its property does not hold.

use ringway::http::{
    self, AcceptField, BodyDecoder, BodyLength, FieldKind, Forwarded, Framing, HeadLimits, HttpError, RequestHead,
    ResponseHead, Rewrite, SessionField, Target, Trace, Version,
};

/// Small, so that inputs of a few hundred bytes reach them.
pub const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024, target_bytes_max: 128, headers_max: 16 };

/// Fields that reach a backend as they came.
const PASSED_ON: &[FieldKind] = &[
    FieldKind::Other,
    FieldKind::ContentType,
    FieldKind::TraceParent,
    FieldKind::TraceState,
    FieldKind::McpSessionId,
    FieldKind::McpProtocolVersion,
    FieldKind::McpMethod,
    FieldKind::McpName,
];

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
    let whole = payload_of(bytes, usize::MAX);
    for piece in [1, usize::from(piece).max(1)] {
        assert_eq!(whole, payload_of(bytes, piece), "in pieces of {piece}");
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
        let passed = |field: &&http::Field| PASSED_ON.contains(&field.kind);
        let kept: Vec<http::Field> = head.fields().iter().filter(passed).copied().collect();
        let is_other =
            |(name, _): &Header| !OURS_TO_WRITE.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        let seen: Vec<Header> = fields_of(second.headers).into_iter().filter(is_other).collect();
        assert_eq!(seen, fields_of_ours(&kept, bytes));
        let mut again = RequestHead::default();
        let roomy = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, headers_max: 64 };
        assert_eq!(again.decode(&out, &roomy), Ok(Some(out.len())), "we accept what we write");
    }
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
fn payload_of(bytes: &[u8], piece: usize) -> (Vec<u8>, Result<(usize, bool), HttpError>) {
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
