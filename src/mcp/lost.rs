//! How servers say that they do not know a session.
//!
//! The specification has one way, 404 (2025-03-26 and later, "Session management"). Servers have
//! many; what these rows have in common is that they name a session.

/// Status and part of the text, in lower case.
const DIALECTS: &[(u16, &str)] = &[
    // The TypeScript SDK's examples, the Python SDK before 1.8, and what was copied from them.
    (400, "no valid session id"),
    // The TypeScript SDK's transport after a restart.
    (400, "server not initialized"),
    (400, "session not found"),
    (400, "invalid session"),
    (400, "unknown session"),
    (400, "session expired"),
    (400, "session terminated"),
    (400, "session has been terminated"),
    // The Rust SDK up to 0.7.
    (401, "session not found"),
    (410, "session"),
    // Kits that answer every JSON-RPC error with 200.
    (200, "session not found"),
    (200, "session expired"),
    (200, "invalid session"),
];

/// An answer longer than this says something else.
pub const LOST_SESSION_BYTES_MAX: usize = 4096;

/// Whether an answer with this status may say that a session is unknown, so that its body is worth
/// reading.
#[must_use]
pub fn may_say_session_lost(status: u16) -> bool {
    DIALECTS.iter().any(|(other, _)| *other == status)
}

/// Whether a body, whole, says so. In an answer of 200 only an error does: a result may speak of
/// sessions as it likes.
#[must_use]
pub fn says_session_lost(status: u16, body: &[u8]) -> bool {
    if body.len() > LOST_SESSION_BYTES_MAX {
        return false;
    }
    if status == 200 && memchr::memmem::find(body, b"\"error\"").is_none() {
        return false;
    }
    let text = body.to_ascii_lowercase();
    DIALECTS.iter().any(|(of, words)| *of == status && memchr::memmem::find(&text, words.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_understood() {
        for (status, body) in [
            (
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
            ),
            (400, "Bad Request: Server not initialized"),
            (400, "Invalid session ID"),
            (401, "Unauthorized: Session not found"),
            (410, "Session gone"),
            (200, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"Session not found"}}"#),
        ] {
            assert!(may_say_session_lost(status) && says_session_lost(status, body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn other_refusals_are_not_taken_for_it() {
        for (status, body) in [
            (400, "Bad Request: Unsupported protocol version"),
            (400, r#"{"error":{"code":-32602,"message":"Invalid params"}}"#),
            (401, "Unauthorized: token expired"),
            (200, r#"{"result":{"content":[{"type":"text","text":"session not found"}]}}"#),
            (500, "session not found"),
        ] {
            assert!(!says_session_lost(status, body.as_bytes()), "{body}");
        }
        let long = format!("{}session not found", "x".repeat(LOST_SESSION_BYTES_MAX));
        assert!(!says_session_lost(400, long.as_bytes()));
    }
}
