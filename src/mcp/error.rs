//! Why a message is refused, and what its sender is told.

use super::ProtocolVersion;

/// A refusal on account of MCP or JSON-RPC. Codes and statuses are those of the transport page of
/// 2026-07-28 ("Server validation", "Protocol version header") and of JSON-RPC 2.0 section 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum McpError {
    /// The body is longer than ranges can say.
    TooLarge,
    /// Messages are UTF-8.
    NotUtf8,
    /// Not JSON, or not one JSON document.
    Syntax,
    /// Nested too deeply to be parsed.
    TooDeep,
    /// JSON, but no JSON-RPC message.
    NotAMessage,
    /// `jsonrpc` is not "2.0".
    JsonRpcVersion,
    /// A member the proxy reads is there twice, so that proxy and backend could disagree on it, or
    /// is no object where it has to be one.
    Members,
    /// An id that is neither string nor integer.
    Id,
    /// An array, of a version that has no batches.
    Batch,
    /// `initialize` within a batch.
    BatchInitialize,
    /// A response from a client whose version has no requests to respond to.
    ClientResponse,
    /// A response that answers nothing: no result or error, or both.
    Response,
    /// No `MCP-Protocol-Version`.
    VersionMissing,
    /// `MCP-Protocol-Version` and the body's version differ.
    VersionMismatch,
    /// No `Mcp-Method`.
    MethodMissing,
    /// `Mcp-Method` and the body's method differ.
    MethodMismatch,
    /// No `Mcp-Name`.
    NameMissing,
    /// `Mcp-Name` and the body differ.
    NameMismatch,
    /// `Mcp-Name` holds bytes no header may hold, or Base64 that cannot be decoded.
    NameEncoding,
    /// A header of MCP's stands twice.
    HeaderRepeated,
    /// `_meta` lacks the protocol version or the client's capabilities.
    Metadata,
    /// A protocol version that is not served.
    UnsupportedVersion,
    /// A method the version does not have.
    MethodNotFound,
    /// An HTTP method, or a combination of it with other headers, that the endpoint does not serve.
    HttpMethod,
}

/// JSON-RPC code of a request whose parameters do not hold.
pub const INVALID_PARAMS: i64 = -32602;

/// MCP's code of a request whose headers and body differ.
pub const HEADER_MISMATCH: i64 = -32020;

/// JSON-RPC error codes; the last two were given out by MCP.
mod code {
    pub(super) const PARSE: i32 = -32700;
    pub(super) const INVALID_REQUEST: i32 = -32600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32601;
    pub(super) const INVALID_PARAMS: i32 = super::INVALID_PARAMS as i32;
    pub(super) const HEADER_MISMATCH: i32 = super::HEADER_MISMATCH as i32;
    pub(super) const UNSUPPORTED_VERSION: i32 = -32022;
}

impl McpError {
    /// JSON-RPC error code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::NotUtf8 | Self::Syntax => code::PARSE,
            Self::TooLarge
            | Self::TooDeep
            | Self::NotAMessage
            | Self::JsonRpcVersion
            | Self::Members
            | Self::Id
            | Self::Batch
            | Self::BatchInitialize
            | Self::ClientResponse
            | Self::Response
            | Self::HttpMethod => code::INVALID_REQUEST,
            Self::VersionMissing
            | Self::VersionMismatch
            | Self::MethodMissing
            | Self::MethodMismatch
            | Self::NameMissing
            | Self::NameMismatch
            | Self::NameEncoding
            | Self::HeaderRepeated => code::HEADER_MISMATCH,
            Self::Metadata => code::INVALID_PARAMS,
            Self::UnsupportedVersion => code::UNSUPPORTED_VERSION,
            Self::MethodNotFound => code::METHOD_NOT_FOUND,
        }
    }

    /// HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotFound => 404,
            Self::HttpMethod => 405,
            Self::TooLarge => 413,
            _ => 400,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::TooLarge => "message too large",
            Self::NotUtf8 => "message is not UTF-8",
            Self::Syntax => "message is not JSON",
            Self::TooDeep => "message is nested too deeply",
            Self::NotAMessage => "not a JSON-RPC message",
            Self::JsonRpcVersion => "jsonrpc is not 2.0",
            Self::Members => "a member is repeated or is not an object",
            Self::Id => "id is neither a string nor an integer",
            Self::Batch => "this protocol version has no batches",
            Self::BatchInitialize => "initialize must not be part of a batch",
            Self::ClientResponse => "this protocol version has no responses by clients",
            Self::Response => "a response has either a result or an error",
            Self::VersionMissing => "header mismatch: no MCP-Protocol-Version header",
            Self::VersionMismatch => "header mismatch: MCP-Protocol-Version and the body differ",
            Self::MethodMissing => "header mismatch: no Mcp-Method header",
            Self::MethodMismatch => "header mismatch: Mcp-Method and the body differ",
            Self::NameMissing => "header mismatch: no Mcp-Name header",
            Self::NameMismatch => "header mismatch: Mcp-Name and the body differ",
            Self::NameEncoding => "header mismatch: Mcp-Name is badly encoded",
            Self::HeaderRepeated => "header mismatch: a header that may stand once stands twice",
            Self::Metadata => "_meta lacks the protocol version or the client's capabilities",
            Self::UnsupportedVersion => "unsupported protocol version",
            Self::MethodNotFound => "method not found",
            Self::HttpMethod => "HTTP method not allowed here",
        }
    }
}

impl std::fmt::Display for McpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for McpError {}

/// A JSON-RPC error response. `id` is JSON text; without one the member is left out, as an error
/// without a request to answer has it from 2025-11-25 on.
#[must_use]
pub fn error_body(id: Option<&[u8]>, code: i32, message: &str) -> Vec<u8> {
    error_with_data(id, code, message, "")
}

/// The answer to a version that is not served (2026-07-28, "Versioning"): what is, and what was
/// asked for.
#[must_use]
pub fn unsupported_version_body(id: Option<&[u8]>, supported: &[ProtocolVersion], requested: &[u8]) -> Vec<u8> {
    let error = McpError::UnsupportedVersion;
    let supported: Vec<_> = supported.iter().map(|version| format!("\"{}\"", version.label())).collect();
    let requested = quoted(&String::from_utf8_lossy(requested));
    let data = format!(r#","data":{{"supported":[{}],"requested":{requested}}}"#, supported.join(","));
    error_with_data(id, error.code(), error.message(), &data)
}

fn error_with_data(id: Option<&[u8]>, code: i32, message: &str, data: &str) -> Vec<u8> {
    let mut body = br#"{"jsonrpc":"2.0","#.to_vec();
    if let Some(id) = id {
        body.extend_from_slice(br#""id":"#);
        body.extend_from_slice(id);
        body.push(b',');
    }
    body.extend_from_slice(format!(r#""error":{{"code":{code},"message":"{message}"{data}}}}}"#).as_bytes());
    body
}

/// A JSON string.
fn quoted(text: &str) -> String {
    // Strings always can be written.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_error_without_an_id_has_no_id_member() {
        assert_eq!(error_body(None, -32600, "m"), br#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"m"}}"#);
        assert_eq!(
            error_body(Some(b"\"a\""), 1, "m"),
            br#"{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":"m"}}"#
        );
    }

    #[test]
    fn p_035_an_unsupported_version_is_told_what_is_supported() {
        for requested in [&b"2030-01-01"[..], b"\"\\\x01", b"\xff\xfe", b""] {
            let body = unsupported_version_body(Some(b"7"), ProtocolVersion::SERVED, requested);
            let error: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(error["id"], 7);
            assert_eq!(error["error"]["code"], -32022);
            assert_eq!(error["error"]["data"]["requested"], String::from_utf8_lossy(requested).as_ref());
            assert_eq!(error["error"]["data"]["supported"][0], "2026-07-28");
        }
    }

    #[test]
    fn p_039_only_codes_that_are_ours_to_give() {
        let header =
            [McpError::VersionMissing, McpError::NameMismatch, McpError::NameEncoding, McpError::MethodMissing];
        assert!(header.iter().all(|error| error.code() == -32020 && error.status() == 400));
        assert_eq!((McpError::MethodNotFound.code(), McpError::MethodNotFound.status()), (-32601, 404));
    }
}
