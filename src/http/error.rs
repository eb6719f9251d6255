//! What can be wrong with a message.

use std::fmt;

/// A framing fault. Of a request: one answer, then the connection is closed. Of an answer: 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpError {
    /// A line feed without a carriage return before it.
    BareLineFeed,
    /// More empty lines before the request line than anyone needs.
    LeadingEmptyLines,
    /// The request or status line is not one.
    StartLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// A field name, a field value, a fold or a stray control character.
    Field,
    /// More fields than allowed.
    TooManyFields,
    /// A head longer than allowed.
    HeadTooLarge,
    /// A request target longer than allowed.
    TargetTooLong,
    /// A request target that is no path or absolute URL, has a fragment or dot segments.
    Target,
    /// No `Host`, several, or not a host.
    Host,
    /// The authority of an absolute target and `Host` disagree.
    HostMismatch,
    /// Two copies of a field that may stand once.
    DuplicateField,
    /// The same of one of MCP's fields.
    DuplicateMcpField,
    /// `Content-Length` that is not one number.
    ContentLength,
    /// `Content-Length` and `Transfer-Encoding` together.
    LengthAndEncoding,
    /// A transfer coding other than exactly `chunked`.
    TransferEncoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message, or several.
    TransferEncodingMisuse,
    /// An expectation other than `100-continue`.
    Expectation,
    /// A method that a proxy of this kind does not serve: CONNECT, TRACE.
    Method,
    /// Chunk framing.
    Chunk,
    /// Chunk extensions or trailers beyond their limits.
    ChunkOverhead,
    /// The connection ended inside a message.
    Truncated,
    /// An interim answer where none is allowed, or too many.
    Interim,
}

impl HttpError {
    /// Status for a request with this fault.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Version => 505,
            Self::TransferEncoding | Self::Method => 501,
            Self::Expectation => 417,
            _ => 400,
        }
    }

    /// What the sender is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::BareLineFeed => "a line ends without CR",
            Self::LeadingEmptyLines => "too many empty lines before the request",
            Self::StartLine => "malformed start line",
            Self::Version => "HTTP version not supported",
            Self::Field => "malformed header field",
            Self::TooManyFields => "too many header fields",
            Self::HeadTooLarge => "header section too large",
            Self::TargetTooLong => "request target too long",
            Self::Target => "malformed request target",
            Self::Host => "exactly one valid Host is required",
            Self::HostMismatch => "Host and request target disagree",
            Self::DuplicateField | Self::DuplicateMcpField => "a header field that may stand once stands twice",
            Self::ContentLength => "malformed or repeated Content-Length",
            Self::LengthAndEncoding => "Content-Length and Transfer-Encoding together",
            Self::TransferEncoding => "transfer coding not supported",
            Self::TransferEncodingMisuse => "Transfer-Encoding repeated or in HTTP/1.0",
            Self::Expectation => "expectation not supported",
            Self::Method => "method not supported",
            Self::Chunk => "malformed chunk",
            Self::ChunkOverhead => "chunk extensions or trailers too large",
            Self::Truncated => "message ended early",
            Self::Interim => "unexpected interim response",
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for HttpError {}
