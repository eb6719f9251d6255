//! What one worker counted, as plain values.

use std::time::Duration;

use ahash::AHashMap;
use hdrhistogram::Histogram;

use super::Label;
use crate::error::Refusal;
use crate::mcp::MethodLabel;
use crate::upstream::EndpointId;

/// Identifies one line of `ringway_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// Route label.
    pub route: Label,
    /// Backend label.
    pub backend: Label,
    /// Method, from a closed set.
    pub method: MethodLabel,
    /// Class of the status that went to the client.
    pub class: StatusClass,
}

/// Class of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirect,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
    /// The client left before an answer began.
    Gone,
}

impl StatusClass {
    /// Of a status code; outside 200 to 499 counts as a server error.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// Metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Gone => "gone",
        }
    }
}

/// Latencies in microseconds: 2 significant digits from 1 µs to one hour, about 20 KiB.
#[derive(Clone, Debug)]
pub struct Latency(pub Histogram<u64>);

const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

impl Default for Latency {
    fn default() -> Self {
        // The bounds are constants, valid by the crate's own rules (a test builds one).
        Self(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 2).expect("constant bounds"))
    }
}

impl Latency {
    /// Counts one; longer than the range counts as its end.
    pub fn record(&mut self, elapsed: Duration) {
        // Not `as_micros`, which divides 128-bit integers.
        let micros = elapsed.as_secs().saturating_mul(1_000_000).saturating_add(elapsed.subsec_micros().into());
        self.0.saturating_record(micros.max(1));
    }
}

/// One endpoint as one worker sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Exchanges in flight.
    pub active: usize,
    /// Idle pooled connections.
    pub idle: usize,
    /// Exchanges begun.
    pub requests: u64,
    /// Failed connects.
    pub connect_failures: u64,
    /// Passed over for now after a failed connect.
    pub cooling: bool,
}

/// Everything one worker counted since it started. Counters only grow; gauges are of now.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    /// Answered or abandoned requests.
    pub requests: AHashMap<Series, u64>,
    /// Refusals by reason, indexed by [`Refusal`].
    pub refused: [u64; Refusal::COUNT],
    /// Client connections accepted.
    pub accepted: u64,
    /// Client connections open (gauge).
    pub client_connections: usize,
    /// Upstream connections open (gauge).
    pub upstream_connections: usize,
    /// Exchanges in flight (gauge).
    pub exchanges: usize,
    /// Of these, answers that are event streams (gauge).
    pub streams: usize,
    /// Upstream connections made.
    pub connects: u64,
    /// Exchanges that used a pooled connection.
    pub reused: u64,
    /// Exchanges repeated on a fresh connection.
    pub retries: u64,
    /// Bytes of bodies relayed to backends and to clients.
    pub request_body_bytes: u64,
    /// See above.
    pub response_body_bytes: u64,
    /// Connections ended by a panic.
    pub panics: u64,
    /// Request's first byte read to answer's last byte written.
    pub request_duration: Latency,
    /// Request sent to first byte of the answer.
    pub upstream_duration: Latency,
    /// Time in the proxy itself: the head's arrival to the send, and the answer's arrival to its relay.
    pub overhead: Latency,
    /// How late the worker's loop came to each tick.
    pub stalls: Latency,
    /// By endpoint.
    pub endpoints: AHashMap<EndpointId, EndpointStats>,
    /// CPU time of the worker's thread.
    pub cpu: Duration,
    /// Age of the worker.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_bounds_hold() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.0.len(), 2);
    }
}
