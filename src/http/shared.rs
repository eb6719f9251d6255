//! An answer's fields for askers other than the one it was made for.

use super::encode::line;
use super::{FieldKind, ResponseHead};

/// Fields that tell of one exchange and not of the answer.
const OF_ONE_EXCHANGE: [&[u8]; 6] = [b"date", b"age", b"x-request-id", b"traceparent", b"tracestate", b"server-timing"];

/// Fields that describe a stream of events, and not the message taken out of it.
const OF_A_STREAM: [&[u8]; 3] = [b"content-type", b"cache-control", b"x-accel-buffering"];

/// The header lines of an answer as everybody may get them, without framing. `from_stream`: the
/// message was taken out of a stream of events.
///
/// Nothing if the answer is for its asker alone: it sets a cookie, challenges, is encoded in a way that
/// one asker has agreed to, or varies by what is no part of the question.
#[must_use]
pub fn shared_fields(head: &ResponseHead, buffer: &[u8], from_stream: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for field in head.fields() {
        let (name, value) = (field.name.of_buffer(buffer), field.value.of_buffer(buffer));
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match field.kind {
            FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::McpSessionId => continue,
            _ if is(b"set-cookie") || is(b"www-authenticate") => return None,
            _ if is(b"content-encoding") && !value.eq_ignore_ascii_case(b"identity") => return None,
            _ if is(b"vary") && varies_by_more(value) => return None,
            _ if OF_ONE_EXCHANGE.iter().any(|other| is(other)) => continue,
            _ if from_stream && OF_A_STREAM.iter().any(|other| is(other)) => continue,
            _ => line(&mut out, name, value),
        }
    }
    if from_stream {
        line(&mut out, b"Content-Type", b"application/json");
    }
    Some(out)
}

/// Whether an answer varies by who asks: whatever else it says of itself, it is for its asker's
/// credentials only.
#[must_use]
pub fn varies_by_credential(head: &ResponseHead, buffer: &[u8]) -> bool {
    head.fields().iter().filter(|field| field.name.of_buffer(buffer).eq_ignore_ascii_case(b"vary")).any(|field| {
        let names = field.value.of_buffer(buffer).split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.map(FieldKind::of).any(|kind| kind == FieldKind::Credential)
    })
}

/// Whether a `Vary` names what askers of one question may differ in.
fn varies_by_more(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|name| {
        let kind = FieldKind::of(name);
        name == b"*" || kind.is_neutral()
    })
}

#[cfg(test)]
mod tests {
    use super::super::HeadLimits;
    use super::*;

    fn lines(fields: &str, from_stream: bool) -> Option<String> {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 64, headers_max: 32 };
        let mut head = ResponseHead::default();
        head.decode(bytes.as_bytes(), &limits).expect("a head").expect("whole");
        shared_fields(&head, bytes.as_bytes(), from_stream).map(|lines| String::from_utf8(lines).expect("UTF-8"))
    }

    #[test]
    fn what_concerns_everybody_is_kept() {
        let fields = "Content-Type: application/json\r\nDate: x\r\nContent-Length: 5\r\nMcp-Session-Id: s\r\n\
            Connection: X-Hop\r\nX-Hop: 1\r\nAccess-Control-Allow-Origin: https://a\r\nVary: Origin, Accept\r\n\
            X-Request-Id: 7\r\nContent-Encoding: identity\r\n";
        let kept = "Content-Type: application/json\r\nAccess-Control-Allow-Origin: https://a\r\n\
            Vary: Origin, Accept\r\nContent-Encoding: identity\r\n";
        assert_eq!(lines(fields, false).as_deref(), Some(kept));
        let stream = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nX: y\r\n";
        assert_eq!(lines(stream, true).as_deref(), Some("X: y\r\nContent-Type: application/json\r\n"));
    }

    #[test]
    fn what_varies_by_credential_is_seen() {
        let varies = |vary: &str| {
            let bytes = format!("HTTP/1.1 200 OK\r\nVary: {vary}\r\n\r\n");
            let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 64, headers_max: 32 };
            let mut head = ResponseHead::default();
            head.decode(bytes.as_bytes(), &limits).expect("a head").expect("whole");
            varies_by_credential(&head, bytes.as_bytes())
        };
        assert!(varies("Accept, authorization") && varies("Cookie"));
        assert!(!varies("Accept, Origin"));
    }

    #[test]
    fn what_is_one_askers_own_is_not_shared() {
        for field in [
            "Set-Cookie: a=b",
            "WWW-Authenticate: Bearer",
            "Content-Encoding: gzip",
            "Vary: *",
            "Vary: Accept, User-Agent",
            "Vary: X-Forwarded-For",
        ] {
            assert_eq!(lines(&format!("{field}\r\n"), false), None, "{field}");
        }
    }
}
