//! The headers that mirror a message's body (2026-07-28, "Request metadata", "Value encoding" and
//! "Server validation").

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Envelope, Era, Kind, McpError, ProtocolVersion};

const SENTINEL_START: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

/// The mirrored headers of one request, as they came, without the white space around them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirrored<'a> {
    /// `MCP-Protocol-Version`
    pub version: Option<&'a [u8]>,
    /// `Mcp-Method`
    pub method: Option<&'a [u8]>,
    /// `Mcp-Name`
    pub name: Option<&'a [u8]>,
}

/// Who answers the request, and so has to refuse one whose `_meta` is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A backend does; its own refusal is relayed.
    Relay,
    /// The proxy does, or translates (P-034).
    Answer,
}

impl Mirrored<'_> {
    /// Compares the headers of a modern message with its body. When several things are wrong, the
    /// order of the checks is the one the conformance suite expects.
    ///
    /// # Errors
    /// The first disagreement; all but `_meta` and an unserved version are -32020.
    pub fn check(&self, envelope: &Envelope, body: &[u8], role: Role) -> Result<(), McpError> {
        match envelope.kind {
            Kind::Request | Kind::Notification => {}
            Kind::Response => return Err(McpError::ClientResponse),
            Kind::Batch { .. } => return Err(McpError::Batch),
        }
        let is_request = envelope.kind == Kind::Request;
        let version = self.version.ok_or(McpError::VersionMissing)?;
        let stated = envelope.protocol_version(body);
        let complete = stated.is_some() && envelope.client_capabilities(body).is_some();
        if is_request && role == Role::Answer && !complete {
            return Err(McpError::Metadata);
        }
        if stated.is_some_and(|stated| stated != version) {
            return Err(McpError::VersionMismatch);
        }
        if ProtocolVersion::of(version).era() != Some(Era::Modern) {
            return Err(McpError::UnsupportedVersion);
        }
        self.check_method(envelope, body)?;
        if is_request { self.check_name(envelope, body) } else { Ok(()) }
    }

    /// A notification may come without the header (P-029).
    fn check_method(&self, envelope: &Envelope, body: &[u8]) -> Result<(), McpError> {
        match self.method {
            Some(method) if !is_field_value(method) => Err(McpError::MethodMismatch),
            Some(method) if envelope.method_text(body) != Some(method) => Err(McpError::MethodMismatch),
            None if envelope.kind == Kind::Request => Err(McpError::MethodMissing),
            _ => Ok(()),
        }
    }

    fn check_name(&self, envelope: &Envelope, body: &[u8]) -> Result<(), McpError> {
        let Some(field) = envelope.method.name_field() else {
            return Ok(());
        };
        let name = decode_sentinel(self.name.ok_or(McpError::NameMissing)?)?;
        if envelope.named(field, body) == Some(&*name) { Ok(()) } else { Err(McpError::NameMismatch) }
    }
}

/// The value of an `Mcp-Name` or `Mcp-Param-*` header: as it is, or out of `=?base64?…?=`.
///
/// The shortest sentinel has eleven bytes: in `=?base64?=` the two marks share one.
///
/// # Errors
/// `NameEncoding`: bytes that such a header may not hold, or what is between the marks is no
/// Base64 with padding.
pub fn decode_sentinel(value: &[u8]) -> Result<Cow<'_, [u8]>, McpError> {
    if !is_field_value(value) {
        return Err(McpError::NameEncoding);
    }
    let inner =
        value.strip_prefix(SENTINEL_START.as_bytes()).and_then(|rest| rest.strip_suffix(SENTINEL_END.as_bytes()));
    match inner {
        Some(inner) => STANDARD.decode(inner).map(Cow::Owned).map_err(|_| McpError::NameEncoding),
        None => Ok(Cow::Borrowed(value)),
    }
}

/// A value as it goes into an `Mcp-Name` or `Mcp-Param-*` header of ours: behind the sentinel if it
/// could not stand there as it is, or would be taken for one (P-022).
#[must_use]
pub fn encode_sentinel(value: &str) -> Cow<'_, str> {
    let is_printable = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let is_padded = value.starts_with(' ') || value.ends_with(' ');
    // Without the eleven bytes: whoever reads it may count differently.
    let is_sentinel = value.starts_with(SENTINEL_START) && value.ends_with(SENTINEL_END);
    if is_printable && !is_padded && !is_sentinel {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{SENTINEL_START}{}{SENTINEL_END}", STANDARD.encode(value)))
}

/// Visible ASCII, spaces and tabs.
fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    const META: &str = concat!(
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}"#
    );

    fn body(method: &str, members: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{members}{META}}}}}"#)
    }

    fn mirrored<'a>(version: &'a str, method: &'a str, name: &'a str) -> Mirrored<'a> {
        let header = |text: &'a str| (text != "-").then_some(text.as_bytes());
        Mirrored { version: header(version), method: header(method), name: header(name) }
    }

    /// The verdict on a message; `-` stands for a header that is not there.
    fn verdict_of(version: &str, method: &str, name: &str, body: &str) -> Result<(), McpError> {
        let envelope = Envelope::parse(body.as_bytes())?;
        mirrored(version, method, name).check(&envelope, body.as_bytes(), Role::Answer)
    }

    fn verdict(method: &str, name: &str, body: &str) -> Result<(), McpError> {
        verdict_of("2026-07-28", method, name, body)
    }

    fn call(name: &str) -> String {
        body("tools/call", &format!(r#""name":"{name}","#))
    }

    #[test]
    fn p_013_a_version_header_is_asked_for() {
        assert_eq!(verdict_of("-", "tools/list", "-", &body("tools/list", "")), Err(McpError::VersionMissing));
        assert_eq!((McpError::VersionMissing.status(), McpError::VersionMissing.code()), (400, -32020));
    }

    #[test]
    fn p_014_the_version_header_is_the_bodys() {
        let other = body("tools/list", "").replace("2026-07-28", "2026-07-29");
        assert_eq!(verdict("tools/list", "-", &other), Err(McpError::VersionMismatch));
        assert_eq!(
            verdict_of("2026-07-29", "tools/list", "-", &body("tools/list", "")),
            Err(McpError::VersionMismatch)
        );
        assert_eq!(verdict("tools/list", "-", &body("tools/list", "")), Ok(()));
    }

    #[test]
    fn p_015_p_016_method_header_case() {
        let call = call("foo");
        assert_eq!(verdict("-", "foo", &call), Err(McpError::MethodMissing));
        for method in ["TOOLS/CALL", "Tools/call", "tools/list", "", "tools/call "] {
            assert_eq!(verdict(method, "foo", &call), Err(McpError::MethodMismatch), "{method}");
        }
        assert_eq!(verdict("tools/call", "foo", &call), Ok(()));
        assert_eq!((McpError::MethodMismatch.status(), McpError::MethodMismatch.code()), (400, -32020));
    }

    #[test]
    fn p_017_p_018_p_084_the_name_header_is_what_the_method_acts_on() {
        let rows = [
            ("tools/call", "name"),
            ("prompts/get", "name"),
            ("resources/read", "uri"),
            ("tasks/get", "taskId"),
            ("tasks/update", "taskId"),
            ("tasks/cancel", "taskId"),
        ];
        for (method, key) in rows {
            let body_of = |value: &str| body(method, &format!(r#""{key}":{value},"#));
            let named = body_of("\"foo\"");
            assert_eq!(verdict(method, "-", &named), Err(McpError::NameMissing), "{method}");
            for name in ["bar", "Foo", "", "fo"] {
                assert_eq!(verdict(method, name, &named), Err(McpError::NameMismatch), "{method} {name}");
            }
            assert_eq!(verdict(method, "foo", &named), Ok(()), "{method}");
            assert_eq!(verdict(method, "foo", &body_of(r#""\u0066oo""#)), Ok(()), "{method}");
            assert_eq!(verdict(method, "5", &body_of("5")), Err(McpError::NameMismatch), "{method}");
            assert_eq!(verdict(method, "", &body(method, "")), Err(McpError::NameMismatch), "{method}");
            assert_eq!(verdict(method, "", &body_of("\"\"")), Ok(()), "{method}");
        }
        for method in ["tools/list", "completion/complete", "server/discover", "subscriptions/listen", "vendor/x"] {
            assert_eq!(verdict(method, "-", &body(method, "")), Ok(()), "{method}");
        }
    }

    #[test]
    fn p_020_a_sentinel_is_decoded_and_nothing_else_is() {
        assert_eq!(verdict("tools/call", "=?base64?SGVsbG8=?=", &call("Hello")), Ok(()));
        assert_eq!(verdict("tools/call", "=?base64?w6k=?=", &call("é")), Ok(()));
        assert_eq!(verdict("tools/call", "=?base64??=", &call("")), Ok(()));
        for literal in ["SGVsbG8=", "=?base64?SGVsbG8=", "=?BASE64?SGVsbG8=?=", "SGVsbG8=?=", "=?base64?="] {
            assert_eq!(verdict("tools/call", literal, &call("Hello")), Err(McpError::NameMismatch), "{literal}");
            assert_eq!(verdict("tools/call", literal, &call(literal)), Ok(()), "{literal}");
        }
    }

    #[test]
    fn p_021_a_bad_sentinel_is_a_mismatch() {
        for name in
            ["=?base64?SGVsbG8?=", "=?base64?SGV bG8=?=", "=?base64?SGVsbG9=?=", "=?base64?_-==?=", "=?base64?=?="]
        {
            assert_eq!(verdict("tools/call", name, &call("Hello")), Err(McpError::NameEncoding), "{name}");
        }
        assert_eq!((McpError::NameEncoding.status(), McpError::NameEncoding.code()), (400, -32020));
        assert_eq!(verdict("tools/call", "é", &call("é")), Err(McpError::NameEncoding));
        assert_eq!(verdict("tools/call", "a\tb", &call("a\\tb")), Ok(()));
    }

    #[test]
    fn p_022_a_value_is_encoded_if_it_has_to_be() {
        for plain in ["", "get_weather", "a b", "=?base64?", "?=", "=?BASE64?eA==?=", "~!"] {
            assert_eq!(encode_sentinel(plain), plain);
        }
        for unsafe_value in [" a", "a ", "\ta", "a\tb", "é", "a\nb", "\u{7f}", "=?base64?eA==?=", "=?base64?="] {
            let encoded = encode_sentinel(unsafe_value);
            assert!(encoded.starts_with(SENTINEL_START) && encoded.len() >= 11, "{unsafe_value:?}");
        }
        let mut random = Random::new(5);
        let pieces = ["=?base64?", "?=", "=", " ", "\t", "a", "é", "\r\n", "\u{1f600}", "+/", "\0"];
        for _ in 0..5_000 {
            let value: String = (0..random.below(6)).map(|_| *random.of(&pieces)).collect();
            let encoded = encode_sentinel(&value);
            assert!(encoded.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{encoded:?}");
            assert_eq!(encoded.trim_matches([' ', '\t']), encoded);
            assert_eq!(decode_sentinel(encoded.as_bytes()).as_deref(), Ok(value.as_bytes()));
        }
    }

    #[test]
    fn sentinel_decoding_never_panics() {
        let mut random = Random::new(6);
        for _ in 0..20_000 {
            let mut value: Vec<u8> = (0..random.below(24)).map(|_| *random.of(b"=?base64ABC+/\xff\x00 ")).collect();
            if random.once_in(2) {
                value.splice(0..0, *b"=?base64?");
            }
            if random.once_in(2) {
                value.extend(b"?=");
            }
            let _ = decode_sentinel(&value);
        }
    }

    #[test]
    fn p_029_a_notification_may_come_without_its_method_header() {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;
        assert_eq!(verdict("-", "-", note), Ok(()));
        assert_eq!(verdict("notifications/progress", "-", note), Ok(()));
        assert_eq!(verdict("notifications/message", "-", note), Err(McpError::MethodMismatch));
    }

    #[test]
    fn p_005_a_modern_client_sends_no_responses_and_p_004_no_batches() {
        let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(verdict("tools/list", "-", response), Err(McpError::ClientResponse));
        assert_eq!((McpError::ClientResponse.status(), McpError::ClientResponse.code()), (400, -32600));
        let batch = format!("[{}]", body("tools/list", ""));
        assert_eq!(verdict("tools/list", "-", &batch), Err(McpError::Batch));
        assert_eq!((McpError::Batch.status(), McpError::Batch.code()), (400, -32600));
    }

    #[test]
    fn p_034_metadata_is_asked_for_where_the_proxy_answers() {
        let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let capabilities = r#""io.modelcontextprotocol/clientCapabilities":"#;
        let of = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list"{params}}}"#);
        for params in [
            String::new(),
            r#","params":{}"#.to_owned(),
            r#","params":{"_meta":{}}"#.to_owned(),
            format!(r#","params":{{"_meta":{{{version}}}}}"#),
            format!(r#","params":{{"_meta":{{{capabilities}{{}}}}}}"#),
            format!(r#","params":{{"_meta":{{{version},{capabilities}null}}}}"#),
        ] {
            let body = of(&params);
            assert_eq!(verdict("tools/list", "-", &body), Err(McpError::Metadata), "{body}");
            let envelope = Envelope::parse(body.as_bytes()).expect("a request");
            let relayed = mirrored("2026-07-28", "tools/list", "-").check(&envelope, body.as_bytes(), Role::Relay);
            assert_eq!(relayed, Ok(()), "{body}");
        }
        assert_eq!((McpError::Metadata.status(), McpError::Metadata.code()), (400, -32602));
    }

    #[test]
    fn p_035_other_versions_are_refused_after_they_were_compared() {
        for version in ["2027-01-01", "2025-11-25", "x"] {
            let body = body("tools/list", "").replace("2026-07-28", version);
            assert_eq!(verdict_of(version, "-", "-", &body), Err(McpError::UnsupportedVersion), "{version}");
        }
        assert_eq!((McpError::UnsupportedVersion.status(), McpError::UnsupportedVersion.code()), (400, -32022));
    }
}
