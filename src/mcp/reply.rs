//! What a backend's JSON answer says of itself, and the same answer for somebody else.

use std::str::FromStr;

use super::json::{self, Members, Scanner, Span};
use super::{McpError, ProtocolVersion};

/// What a response reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result, final. Servers before 2026-07-28 do not say so.
    Complete,
    /// A result that asks for input.
    InputRequired,
    /// A result of a type of some extension.
    Extension,
    /// An error, with its code if that is an integer.
    Error(Option<i64>),
}

/// Whom a cached result may be served to (2026-07-28, "Caching").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// Anybody the proxy admits to the route.
    Public,
    /// The same credential only; also what is meant when nothing is said, or something unknown (P-064).
    Private,
}

/// A response, one JSON object, as far as a cache reads it. Holds no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// What it reports.
    pub outcome: Outcome,
    /// `result.ttlMs`: 0 if it is absent, negative or no integer (P-063).
    pub ttl_ms: u64,
    /// `result.cacheScope`.
    pub scope: CacheScope,
    id: Option<Span>,
    ttl: Option<Span>,
}

impl Reply {
    /// Reads a response.
    ///
    /// # Errors
    /// A body that is no single response, or one with a repeated member: nothing to share.
    pub fn parse(body: &[u8]) -> Result<Self, McpError> {
        let mut message = Message::default();
        json::object(body, &mut message)?;
        if message.method.is_some() {
            return Err(McpError::NotAMessage);
        }
        let has = |value: Option<Span>| value.is_some_and(|value| value.is_object(body));
        let id = message.id;
        match (has(message.result), has(message.error)) {
            (true, false) => {
                let result = &message.in_result;
                let ttl_ms = number(result.ttl_ms, body).unwrap_or(0);
                Ok(Self { outcome: result.outcome(body)?, ttl_ms, scope: result.scope(body)?, id, ttl: result.ttl_ms })
            }
            (false, true) => {
                let code = number(message.in_error.code, body);
                Ok(Self { outcome: Outcome::Error(code), ttl_ms: 0, scope: CacheScope::Private, id, ttl: None })
            }
            _ => Err(McpError::Response),
        }
    }

    /// The JSON text of its id.
    #[must_use]
    pub fn id<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.id.map(|span| span.of(body))
    }

    /// The same answer to another request, piece by piece: with that request's id, and `ttl_ms` in place
    /// of what was left when it came, if it said anything (P-065). Both are JSON text. Every other byte
    /// is the backend's.
    ///
    /// `body` is the one that was parsed. A body without an id stays as it is.
    #[must_use]
    pub fn splice<'a>(&self, body: &'a [u8], id: &'a [u8], ttl_ms: &'a [u8]) -> [&'a [u8]; 5] {
        // Without a place for it a text takes none: at the end, and empty.
        let edit = |span: Option<Span>, text| match span {
            Some(span) => (span.range(), text),
            None => (body.len()..body.len(), &[] as &[u8]),
        };
        let (mut first, mut second) = (edit(self.id, id), edit(self.ttl, ttl_ms));
        if second.0.start < first.0.start {
            std::mem::swap(&mut first, &mut second);
        }
        [&body[..first.0.start], first.1, &body[first.0.end..second.0.start], second.1, &body[second.0.end..]]
    }
}

/// Whether an answer may have a `ttlMs` other than 0, seen without parsing it. One whose key is written
/// with escapes is not seen, and not kept then.
#[must_use]
pub fn may_have_ttl(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"\"ttlMs\"").any(|at| {
        let value = body[at + b"\"ttlMs\"".len()..].trim_ascii_start();
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii_start();
        !matches!(value, [b'0', rest @ ..] if !rest.first().is_some_and(u8::is_ascii_digit))
    })
}

/// The version that an answer to `initialize` settles on; nothing if it is none.
#[must_use]
pub fn negotiated_version(body: &[u8]) -> Option<ProtocolVersion> {
    let mut message = Message::default();
    json::object(body, &mut message).ok()?;
    let version = message.in_result.protocol_version?.string(body).ok()??;
    Some(ProtocolVersion::of(&version))
}

/// A value, if it is a number that fits.
fn number<N: FromStr>(value: Option<Span>, body: &[u8]) -> Option<N> {
    std::str::from_utf8(value?.of(body)).ok()?.parse().ok()
}

#[derive(Default)]
struct Message {
    id: Option<Span>,
    method: Option<Span>,
    result: Option<Span>,
    in_result: ResultMembers,
    error: Option<Span>,
    in_error: ErrorMembers,
}

impl Members for Message {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"id" => value.once(&mut self.id),
            b"method" => value.once(&mut self.method),
            b"result" => value.inner(&mut self.result, &mut self.in_result),
            b"error" => value.inner(&mut self.error, &mut self.in_error),
            _ => value.skip(),
        }
    }
}

#[derive(Default)]
struct ResultMembers {
    result_type: Option<Span>,
    ttl_ms: Option<Span>,
    cache_scope: Option<Span>,
    protocol_version: Option<Span>,
}

impl Members for ResultMembers {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"resultType" => value.once(&mut self.result_type),
            b"ttlMs" => value.once(&mut self.ttl_ms),
            b"cacheScope" => value.once(&mut self.cache_scope),
            b"protocolVersion" => value.once(&mut self.protocol_version),
            _ => value.skip(),
        }
    }
}

impl ResultMembers {
    fn outcome(&self, body: &[u8]) -> Result<Outcome, McpError> {
        let Some(value) = self.result_type else {
            return Ok(Outcome::Complete);
        };
        Ok(match value.string(body)?.as_deref() {
            Some(b"complete") => Outcome::Complete,
            Some(b"input_required") => Outcome::InputRequired,
            _ => Outcome::Extension,
        })
    }

    fn scope(&self, body: &[u8]) -> Result<CacheScope, McpError> {
        let text = self.cache_scope.map_or(Ok(None), |value| value.string(body))?;
        Ok(if text.as_deref() == Some(b"public") { CacheScope::Public } else { CacheScope::Private })
    }
}

#[derive(Default)]
struct ErrorMembers {
    code: Option<Span>,
}

impl Members for ErrorMembers {
    fn member(&mut self, name: &[u8], value: &mut Scanner<'_>) -> Result<(), McpError> {
        match name {
            b"code" => value.once(&mut self.code),
            _ => value.skip(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::random::{Random, json_text, value};
    use super::*;

    fn parse(body: &str) -> Result<Reply, McpError> {
        Reply::parse(body.as_bytes())
    }

    fn spliced(body: &str, id: &str, ttl_ms: u64) -> String {
        let reply = parse(body).expect("a reply");
        let copy = reply.splice(body.as_bytes(), id.as_bytes(), ttl_ms.to_string().as_bytes()).concat();
        String::from_utf8(copy).expect("UTF-8")
    }

    #[test]
    fn p_065_a_copy_has_its_own_id_and_the_time_that_is_left() {
        let body =
            r#" {"jsonrpc":"2.0", "id" : 12 ,"result":{"ttlMs": 5000,"tools":[{"id":1,"ttlMs":2}],"x":"\u0061"}}"#;
        let expected =
            r#" {"jsonrpc":"2.0", "id" : "a\"b" ,"result":{"ttlMs": 17,"tools":[{"id":1,"ttlMs":2}],"x":"\u0061"}}"#;
        assert_eq!(spliced(body, r#""a\"b""#, 17), expected);
        let id_last = r#"{"result":{"ttlMs":5000},"id":"\u0061"}"#;
        assert_eq!(spliced(id_last, "1", 0), r#"{"result":{"ttlMs":0},"id":1}"#);
        assert_eq!(spliced(r#"{"result":{},"id":1}"#, "2", 9), r#"{"result":{},"id":2}"#);
        assert_eq!(spliced(r#"{"result":{}}"#, "1", 0), r#"{"result":{}}"#);
    }

    #[test]
    fn p_058_what_a_reply_reports() {
        let outcome =
            |members: &str| parse(&format!(r#"{{"jsonrpc":"2.0","id":1,{members}}}"#)).map(|reply| reply.outcome);
        assert_eq!(outcome(r#""result":{}"#), Ok(Outcome::Complete));
        assert_eq!(outcome(r#""result":{"resultType":"complete"}"#), Ok(Outcome::Complete));
        assert_eq!(outcome(r#""result":{"resultType":"input_r\u0065quired"}"#), Ok(Outcome::InputRequired));
        assert_eq!(outcome(r#""result":{"resultType":"task"}"#), Ok(Outcome::Extension));
        assert_eq!(outcome(r#""result":{"resultType":null}"#), Ok(Outcome::Extension));
        assert_eq!(outcome(r#""error":{"code":-32020,"message":"m"}"#), Ok(Outcome::Error(Some(-32020))));
        assert_eq!(outcome(r#""error":{"code":"x"}"#), Ok(Outcome::Error(None)));
        assert_eq!(outcome(r#""result":{},"error":{}"#), Err(McpError::Response));
        assert_eq!(outcome(r#""result":null"#), Err(McpError::Response));
        assert_eq!(outcome(r#""result":[]"#), Err(McpError::Members));
        assert_eq!(outcome(r#""method":"m","result":{}"#), Err(McpError::NotAMessage));
    }

    #[test]
    fn p_063_a_lifetime_that_is_none_is_zero() {
        let ttl = |text: &str| parse(&format!(r#"{{"id":1,"result":{{"ttlMs":{text}}}}}"#)).expect("a reply").ttl_ms;
        assert_eq!(ttl("60000"), 60_000);
        for text in ["-1", "1.5", "1e3", "null", "\"5\"", "99999999999999999999", "{}"] {
            assert_eq!(ttl(text), 0, "{text}");
        }
        assert_eq!(parse(r#"{"id":1,"result":{}}"#).expect("a reply").ttl_ms, 0);
    }

    #[test]
    fn a_lifetime_is_seen_without_parsing() {
        for body in [r#"{"ttlMs":5}"#, r#"{"ttlMs" :\n 60000}"#, r#"{"ttlMs":0,"x":{"ttlMs":7}}"#, r#""ttlMs":09"#] {
            assert!(may_have_ttl(body.as_bytes()), "{body}");
        }
        for body in [r#"{"ttlMs":0}"#, r#"{"ttlMs": 0 ,"a":1}"#, r#"{"ttl":5}"#, "", r#"{"result":{}}"#] {
            assert!(!may_have_ttl(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn p_064_a_scope_that_is_unknown_is_private() {
        let scope = |text: &str| parse(&format!(r#"{{"id":1,"result":{{{text}}}}}"#)).expect("a reply").scope;
        assert_eq!(scope(r#""cacheScope":"public""#), CacheScope::Public);
        for text in
            ["", r#""cacheScope":"private""#, r#""cacheScope":"PUBLIC""#, r#""cacheScope":null"#, r#""x":"public""#]
        {
            assert_eq!(scope(text), CacheScope::Private, "{text}");
        }
    }

    #[test]
    fn what_is_no_single_response_is_not_shared() {
        for body in [
            r#"{"id":1,"id":2,"result":{}}"#,
            r#"{"id":1,"result":{"ttlMs":1,"ttl\u004ds":2}}"#,
            r#"{"id":1,"result":{"cacheScope":"private","cacheScope":"public"}}"#,
            r#"[{"id":1,"result":{}}]"#,
            r#"{"id":1,"result":{}}{}"#,
            r#"{"id":1,"result":{}"#,
            "",
        ] {
            assert!(parse(body).is_err(), "{body}");
        }
        assert!(Reply::parse(b"{\"id\":1,\"result\":{\"x\":\"\xff\"}}").is_err());
    }

    /// Only the id and the lifetime change: the oracle says the same of everything else, and the
    /// bytes around them are the same bytes.
    #[test]
    fn p_010_every_other_byte_is_untouched() {
        let mut random = Random::new(7);
        for _ in 0..3_000 {
            let mut result = json!({"x": value(&mut random, 3), "ttlMs": random.below(100_000)});
            if random.once_in(2) {
                result["id"] = value(&mut random, 1);
            }
            let id = random.of(&[json!(1), json!("a\"é"), json!(""), json!(-40)]).clone();
            let message = json!({"jsonrpc": "2.0", "id": id, "result": result, "_": value(&mut random, 2)});
            let body = json_text(&mut random, &message);
            // Numbers that occur nowhere else, so that they can be found.
            let copy = spliced(&body, "987654321987", 123_456_789_123);
            let mut expected: Value = serde_json::from_str(&body).expect("JSON");
            expected["id"] = json!(987_654_321_987_u64);
            expected["result"]["ttlMs"] = json!(123_456_789_123_u64);
            assert_eq!(serde_json::from_str::<Value>(&copy).expect("JSON"), expected);
            let reply = parse(&body).expect("a reply");
            let old_id = reply.id(body.as_bytes()).expect("an id");
            let old_id = std::str::from_utf8(old_id).expect("UTF-8");
            let old_ttl = message["result"]["ttlMs"].to_string();
            let restored = copy.replacen("987654321987", old_id, 1).replacen("123456789123", &old_ttl, 1);
            assert_eq!(restored, body);
        }
    }
}
