//! Where and how to send: clusters, the choice of an endpoint, connections and their pools.
//!
//! One [`Upstreams`] a worker; nothing of it is shared. Addresses come resolved in the snapshot.

mod balance;
mod cluster;
mod connect;
mod pool;

pub use balance::Affinity;
pub use cluster::{Cluster, ClusterTable, Endpoint, EndpointId};
pub use pool::{Freshness, Lease, Upstreams};

use crate::http::HttpError;

/// Why a backend gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No address is known, or all that are known refused connections a moment ago.
    NoEndpoint,
    /// Refused, reset or unreachable.
    ConnectFailed,
    /// No descriptor is left to connect with.
    DescriptorsExhausted,
    /// No local port is free towards that address.
    NoLocalPort,
    /// `connect_timeout_ms`.
    ConnectTimeout,
    /// `first_byte_timeout_ms`.
    FirstByteTimeout,
    /// `request_timeout_ms`.
    RequestTimeout,
    /// The connection ended before an answer began.
    Closed,
    /// The answer's head is not HTTP as we accept it.
    Malformed(HttpError),
}

impl UpstreamError {
    /// Whether it is our own want: no reason to pass an endpoint over.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::DescriptorsExhausted | Self::NoLocalPort)
    }

    /// What the client is told; never where the backend is.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::NoEndpoint => "backend unavailable",
            Self::ConnectFailed => "backend refused the connection",
            Self::DescriptorsExhausted => "proxy out of descriptors",
            Self::NoLocalPort => "proxy out of local ports",
            Self::ConnectTimeout => "backend did not accept the connection in time",
            Self::FirstByteTimeout => "backend did not answer in time",
            Self::RequestTimeout => "request took too long",
            Self::Closed => "backend closed the connection",
            Self::Malformed(_) => "backend sent a malformed answer",
        }
    }
}
