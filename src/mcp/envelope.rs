//! The JSON-RPC envelope: what names a message, as ranges of the received bytes.

use sonic_rs::{Deserialize, JsonType, JsonValueTrait, LazyValue};

/// Nesting deeper than this is not looked into: the parser skips containers by recursion, so depth
/// must be bounded before it runs.
const DEPTH_MAX: usize = 64;

/// The fields that identify a request. Duplicates of them are refused by the derived form, which
/// the parser's own look-up functions would not do.
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    id: LazyValue<'a>,
}

/// The text of a request's `id`, a string or an integer exactly as it came; nothing if the body is
/// no JSON object, or has no such id.
#[must_use]
pub fn request_id(body: &[u8]) -> Option<Vec<u8>> {
    if depth_exceeds(body, DEPTH_MAX) {
        return None;
    }
    // Checked here: with a lazy field inside, the parser's own check panics (0.5.10).
    let body = std::str::from_utf8(body).ok()?;
    let identity: Identity<'_> = sonic_rs::from_str(body).ok()?;
    let text = identity.id.as_raw_str();
    let integer = !text.contains(['.', 'e', 'E']);
    match identity.id.get_type() {
        JsonType::String => Some(text.as_bytes().to_vec()),
        JsonType::Number if integer => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

/// A JSON-RPC error response. `id` is JSON text; without one the member is left out, as an error
/// without a request to answer has it from 2025-11-25 on.
#[must_use]
pub fn error_body(id: Option<&[u8]>, code: i32, message: &str) -> Vec<u8> {
    let mut body = br#"{"jsonrpc":"2.0","#.to_vec();
    if let Some(id) = id {
        body.extend_from_slice(br#""id":"#);
        body.extend_from_slice(id);
        body.push(b',');
    }
    body.extend_from_slice(format!(r#""error":{{"code":{code},"message":"{message}"}}}}"#).as_bytes());
    body
}

/// Whether brackets outside strings nest deeper than `max`.
fn depth_exceeds(text: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_text() {
        for id in ["1", "\"1\"", "123456789012345678901234567890", "-7", r#""a\u0062\"""#, "\"\""] {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"id":9,"x":[1,{{}}]}},"id": {id} }}"#);
            assert_eq!(request_id(body.as_bytes()).as_deref(), Some(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        let deep = format!("{{\"id\":1,\"x\":{}", "[".repeat(200_000));
        let bodies = [
            "",
            "[]",
            "{}",
            r#"{"id":null}"#,
            r#"{"id":1.5}"#,
            r#"{"id":1e3}"#,
            r#"{"id":true}"#,
            r#"{"id":{}}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":1}x"#,
            r#"{"id":1,}"#,
            &deep,
        ];
        for body in bodies {
            assert_eq!(request_id(body.as_bytes()), None, "{:.40}", body);
        }
        assert_eq!(request_id(b"{\"id\":\"\xff\"}"), None);
    }

    #[test]
    fn an_error_without_an_id_has_no_id_member() {
        assert_eq!(error_body(None, -32600, "m"), br#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"m"}}"#);
        assert_eq!(
            error_body(Some(b"\"a\""), 1, "m"),
            br#"{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":"m"}}"#
        );
    }
}
