//! Answers of the admin listener.

use serde_json::{Value, json};

/// One answer; the connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    content_type: &'static str,
    /// A field beyond those that every answer has.
    field: Option<(&'static str, &'static str)>,
    pub(super) body: String,
}

impl Response {
    pub(super) fn text(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, field: None, body }
    }

    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", format!("{value:#}\n"))
    }

    pub(super) fn error(status: u16, problem: &str) -> Self {
        Self::json(status, &json!({ "error": problem }))
    }

    pub(super) fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { field: Some((name, value)), ..self }
    }

    /// The bytes to send; an answer to HEAD goes without its body.
    pub(super) fn encode(&self, with_body: bool) -> Vec<u8> {
        let Self { status, content_type, field, body } = self;
        let field = field.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nx-content-type-options: nosniff\r\n{field}connection: close\r\n\r\n",
            reason(*status),
            body.len(),
        );
        let mut bytes = head.into_bytes();
        if with_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// The phrases that people see in tools; elsewhere the status says it all.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_head_keeps_the_length_of_the_body_it_leaves_out() {
        let response = Response::error(405, "no").with("allow", "GET, HEAD");
        let whole = String::from_utf8(response.encode(true)).expect("text");
        let (head, body) = whole.split_once("\r\n\r\n").expect("head ends");
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(head.contains("\r\nallow: GET, HEAD\r\n"));
        assert_eq!(response.encode(false), format!("{head}\r\n\r\n").into_bytes());
    }
}
