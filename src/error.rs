//! What the spine sees when an exchange fails: whose fault, what the client is told, what is counted.
//!
//! One table. Messages are fixed texts: nothing of a backend (its address least of all) and nothing
//! of the request is in them.

use crate::http::HttpError;
use crate::mcp::McpError;
use crate::policy::Denial;
use crate::upstream::UpstreamError;

/// Who has to change something for the next request to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Client,
    /// The backend.
    Upstream,
    /// Nobody: too much at once, or the operator's limits.
    Load,
}

/// Defines an enum whose variants are all values of one label.
macro_rules! closed_set {
    ($(#[$doc:meta])* pub enum $name:ident; $($variant:ident = $label:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $label] $variant,)+
        }

        impl $name {
            /// All of them, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its text.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

pub(crate) use closed_set;

closed_set! {
    /// Reasons in `ringway_refused_total{reason}`.
    pub enum Refusal;
    Malformed = "malformed",
    Version = "version",
    HeadTooLarge = "head_too_large",
    TooManyHeaders = "too_many_headers",
    TargetTooLong = "target_too_long",
    TransferEncoding = "transfer_encoding",
    Expectation = "expectation",
    Method = "method",
    BodyTooLarge = "body_too_large",
    HeadTimeout = "head_timeout",
    BodyTimeout = "body_timeout",
    IdleTimeout = "idle_timeout",
    WriteTimeout = "write_timeout",
    NoRoute = "no_route",
    SessionUnknown = "session_unknown",
    SessionLost = "session_lost",
    MethodNotAllowed = "method_not_allowed",
    ConnectionsMax = "connections_max",
    ConnectionsPerIp = "connections_per_ip",
    ExchangesMax = "exchanges_max",
    MemoryMax = "memory_max",
    DescriptorsExhausted = "descriptors_exhausted",
    NoLocalPort = "no_local_port",
    NoEndpoint = "no_endpoint",
    ConnectFailed = "connect_failed",
    ConnectTimeout = "connect_timeout",
    FirstByteTimeout = "first_byte_timeout",
    RequestTimeout = "request_timeout",
    StreamIdleTimeout = "stream_idle_timeout",
    UpstreamClosed = "upstream_closed",
    UpstreamMalformed = "upstream_malformed",
    UpstreamTruncated = "upstream_truncated",
    ClientGone = "client_gone",
    Origin = "origin",
    Host = "host",
    ContentType = "content_type",
    NotUtf8 = "not_utf8",
    NotJson = "not_json",
    TooDeep = "too_deep",
    NotAMessage = "not_a_message",
    RepeatedMember = "repeated_member",
    BadId = "bad_id",
    Batch = "batch",
    ClientResponse = "client_response",
    VersionMissing = "version_missing",
    VersionMismatch = "version_mismatch",
    VersionUnsupported = "version_unsupported",
    MethodHeaderMissing = "method_header_missing",
    MethodHeaderMismatch = "method_header_mismatch",
    NameHeaderMissing = "name_header_missing",
    NameHeaderMismatch = "name_header_mismatch",
    NameHeaderEncoding = "name_header_encoding",
    Metadata = "metadata",
    MethodUnknown = "method_unknown",
}

/// Why an exchange got no answer from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The request's framing.
    Http(HttpError),
    /// The message, or the headers that mirror it.
    Mcp(McpError),
    /// `Origin` or `Host`.
    Denied(Denial),
    /// A POST whose body is not said to be JSON.
    ContentType,
    /// `body_bytes_max`.
    BodyTooLarge,
    /// `head_timeout_ms`.
    HeadTimeout,
    /// `body_timeout_ms`.
    BodyTimeout,
    /// No route for host and path.
    NoRoute,
    /// The same for a request with a session id, to which a 404 would say that its session is gone.
    NoRouteInSession,
    /// A session id that is not ours, too old, bound to somebody else, or whose endpoint is gone.
    SessionUnknown,
    /// The backend does not know the session any more.
    SessionLost,
    /// The route does not take this method.
    MethodNotAllowed,
    /// `exchanges_per_worker_max`.
    Overloaded,
    /// `memory_hard_bytes`.
    MemoryMax,
    /// `connections_per_worker_max`.
    ConnectionsMax,
    /// `connections_per_ip_max`.
    ConnectionsPerIp,
    /// The backend.
    Upstream(UpstreamError),
    /// The client left: nobody to tell.
    ClientGone,
}

/// JSON-RPC codes for errors of our own (JSON-RPC 2.0 section 5.1). Codes of the MCP range are not
/// ours to give here.
mod code {
    pub(super) const INVALID_REQUEST: i32 = -32600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32601;
    pub(super) const INTERNAL: i32 = -32603;
}

impl From<HttpError> for ProxyError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<McpError> for ProxyError {
    fn from(error: McpError) -> Self {
        Self::Mcp(error)
    }
}

impl From<Denial> for ProxyError {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<UpstreamError> for ProxyError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl ProxyError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::Http(_)
            | Self::Mcp(_)
            | Self::Denied(_)
            | Self::ContentType
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::NoRoute
            | Self::NoRouteInSession
            | Self::SessionUnknown
            | Self::SessionLost
            | Self::MethodNotAllowed
            | Self::ClientGone => Fault::Client,
            Self::Overloaded | Self::MemoryMax | Self::ConnectionsMax | Self::ConnectionsPerIp => Fault::Load,
            Self::Upstream(error) if error.is_ours() => Fault::Load,
            Self::Upstream(_) => Fault::Upstream,
        }
    }

    /// HTTP status. 499 (nginx's word) stands for a client that left, and is never sent.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Http(error) => error.status(),
            Self::Mcp(error) => error.status(),
            Self::Denied(_) => 403,
            Self::ContentType => 415,
            Self::BodyTooLarge => 413,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::NoRouteInSession => 400,
            Self::NoRoute | Self::SessionUnknown | Self::SessionLost => 404,
            Self::MethodNotAllowed => 405,
            Self::Overloaded
            | Self::MemoryMax
            | Self::ConnectionsMax
            | Self::ConnectionsPerIp
            | Self::Upstream(UpstreamError::NoEndpoint) => 503,
            Self::Upstream(
                UpstreamError::ConnectTimeout | UpstreamError::FirstByteTimeout | UpstreamError::RequestTimeout,
            ) => 504,
            Self::Upstream(
                UpstreamError::ConnectFailed
                | UpstreamError::DescriptorsExhausted
                | UpstreamError::NoLocalPort
                | UpstreamError::Closed
                | UpstreamError::Malformed(_),
            ) => 502,
            Self::ClientGone => 499,
        }
    }

    /// JSON-RPC error code.
    #[must_use]
    pub fn json_rpc_code(self) -> i32 {
        match self.fault() {
            // A 404 with this code tells a modern client that it did reach a modern server.
            Fault::Client if self == Self::NoRoute => code::METHOD_NOT_FOUND,
            Fault::Client => match self {
                Self::Mcp(error) => error.code(),
                _ => code::INVALID_REQUEST,
            },
            Fault::Upstream | Fault::Load => code::INTERNAL,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Http(error) => error.message(),
            Self::Mcp(error) => error.message(),
            Self::Denied(Denial::Origin) => "origin not allowed",
            Self::Denied(Denial::Host) => "host not allowed",
            Self::ContentType => "content type is not application/json",
            Self::BodyTooLarge => "request body too large",
            Self::HeadTimeout => "request head took too long",
            Self::BodyTimeout => "request body took too long",
            Self::NoRoute | Self::NoRouteInSession => "no such route",
            Self::SessionUnknown | Self::SessionLost => "session not found",
            Self::MethodNotAllowed => "method not allowed on this route",
            Self::Overloaded => "too many requests in flight",
            Self::MemoryMax => "too much in memory",
            Self::ConnectionsMax => "too many connections",
            Self::ConnectionsPerIp => "too many connections from this address",
            Self::Upstream(error) => error.message(),
            Self::ClientGone => "client closed the connection",
        }
    }

    /// Metric label.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Http(error) => match error {
                HttpError::HeadTooLarge => Refusal::HeadTooLarge,
                HttpError::TooManyFields => Refusal::TooManyHeaders,
                HttpError::TargetTooLong => Refusal::TargetTooLong,
                HttpError::Version => Refusal::Version,
                HttpError::TransferEncoding | HttpError::TransferEncodingMisuse | HttpError::LengthAndEncoding => {
                    Refusal::TransferEncoding
                }
                HttpError::Expectation => Refusal::Expectation,
                HttpError::Method => Refusal::Method,
                HttpError::BareLineFeed
                | HttpError::LeadingEmptyLines
                | HttpError::StartLine
                | HttpError::Field
                | HttpError::Target
                | HttpError::Host
                | HttpError::HostMismatch
                | HttpError::DuplicateField
                | HttpError::DuplicateMcpField
                | HttpError::ContentLength
                | HttpError::Chunk
                | HttpError::ChunkOverhead
                | HttpError::Truncated
                | HttpError::Interim => Refusal::Malformed,
            },
            Self::Mcp(error) => match error {
                McpError::TooLarge => Refusal::BodyTooLarge,
                McpError::NotUtf8 => Refusal::NotUtf8,
                McpError::Syntax => Refusal::NotJson,
                McpError::TooDeep => Refusal::TooDeep,
                McpError::NotAMessage | McpError::JsonRpcVersion | McpError::Response => Refusal::NotAMessage,
                McpError::Members => Refusal::RepeatedMember,
                McpError::Id => Refusal::BadId,
                McpError::Batch | McpError::BatchInitialize => Refusal::Batch,
                McpError::ClientResponse => Refusal::ClientResponse,
                McpError::VersionMissing => Refusal::VersionMissing,
                McpError::VersionMismatch => Refusal::VersionMismatch,
                McpError::UnsupportedVersion => Refusal::VersionUnsupported,
                McpError::MethodMissing => Refusal::MethodHeaderMissing,
                McpError::MethodMismatch => Refusal::MethodHeaderMismatch,
                McpError::NameMissing => Refusal::NameHeaderMissing,
                McpError::NameMismatch => Refusal::NameHeaderMismatch,
                McpError::NameEncoding => Refusal::NameHeaderEncoding,
                McpError::HeaderRepeated => Refusal::Malformed,
                McpError::Metadata => Refusal::Metadata,
                McpError::MethodNotFound => Refusal::MethodUnknown,
                McpError::HttpMethod => Refusal::MethodNotAllowed,
            },
            Self::Denied(Denial::Origin) => Refusal::Origin,
            Self::Denied(Denial::Host) => Refusal::Host,
            Self::ContentType => Refusal::ContentType,
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::HeadTimeout => Refusal::HeadTimeout,
            Self::BodyTimeout => Refusal::BodyTimeout,
            Self::NoRoute | Self::NoRouteInSession => Refusal::NoRoute,
            Self::SessionUnknown => Refusal::SessionUnknown,
            Self::SessionLost => Refusal::SessionLost,
            Self::MethodNotAllowed => Refusal::MethodNotAllowed,
            Self::Overloaded => Refusal::ExchangesMax,
            Self::MemoryMax => Refusal::MemoryMax,
            Self::ConnectionsMax => Refusal::ConnectionsMax,
            Self::ConnectionsPerIp => Refusal::ConnectionsPerIp,
            Self::Upstream(error) => match error {
                UpstreamError::NoEndpoint => Refusal::NoEndpoint,
                UpstreamError::ConnectFailed => Refusal::ConnectFailed,
                UpstreamError::DescriptorsExhausted => Refusal::DescriptorsExhausted,
                UpstreamError::NoLocalPort => Refusal::NoLocalPort,
                UpstreamError::ConnectTimeout => Refusal::ConnectTimeout,
                UpstreamError::FirstByteTimeout => Refusal::FirstByteTimeout,
                UpstreamError::RequestTimeout => Refusal::RequestTimeout,
                UpstreamError::Closed => Refusal::UpstreamClosed,
                UpstreamError::Malformed(_) => Refusal::UpstreamMalformed,
            },
            Self::ClientGone => Refusal::ClientGone,
        }
    }

    /// `Retry-After` in seconds, where waiting may help.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        (self.status() == 503).then_some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_numbered_in_order() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, index);
            assert!(Refusal::ALL[..index].iter().all(|other| other.label() != refusal.label()));
        }
    }
}
