//! What one worker counted, as plain values.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ahash::AHashMap;
use hdrhistogram::Histogram;

use super::{Cached, Coalesced, Era, ErasSeen, Invalidation, Label, SessionEvent};
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

/// A count for each member of a closed set, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Counts<const N: usize>([u64; N]);

impl<const N: usize> Deref for Counts<N> {
    type Target = [u64; N];

    fn deref(&self) -> &[u64; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Counts<N> {
    fn deref_mut(&mut self) -> &mut [u64; N] {
        &mut self.0
    }
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self([0; N])
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
    /// What its answers were seen to be of.
    pub eras: ErasSeen,
}

/// Everything one worker counted since it started. Counters only grow; gauges are of now.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    /// Answered or abandoned requests.
    pub requests: AHashMap<Series, u64>,
    /// Refusals by reason, indexed by [`Refusal`].
    pub refused: Counts<{ Refusal::COUNT }>,
    /// The same requests as in `requests`, indexed by [`Era`].
    pub by_era: [u64; Era::COUNT],
    /// Requests that may share an answer, indexed by [`Coalesced`].
    pub coalesced: [u64; Coalesced::COUNT],
    /// Requests that may be answered from the cache, indexed by [`Cached`].
    pub cached: [u64; Cached::COUNT],
    /// Cache entries thrown away before their time, indexed by [`Invalidation`].
    pub invalidated: [u64; Invalidation::COUNT],
    /// Bytes in the cache (gauge).
    pub cache_bytes: u64,
    /// Buffers, queued and cached bytes (gauge).
    pub memory_bytes: u64,
    /// Entries in the cache (gauge).
    pub cache_entries: usize,
    /// Legacy sessions, indexed by [`SessionEvent`].
    pub sessions: [u64; SessionEvent::COUNT],
    /// Connections handed to another worker as soon as they were accepted.
    pub handed_over: u64,
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

impl WorkerStats {
    /// Counts so many of a kind.
    pub fn add(&mut self, what: impl Counted, count: u64) {
        *what.place(self) += count;
    }
}

/// A value of a closed set that is counted for each value by itself.
pub trait Counted {
    /// Where.
    fn place(self, stats: &mut WorkerStats) -> &mut u64;
}

macro_rules! counted {
    ($($kind:ident in $field:ident,)+) => {
        $(impl Counted for $kind {
            fn place(self, stats: &mut WorkerStats) -> &mut u64 {
                &mut stats.$field[self as usize]
            }
        })+
    };
}

counted! {
    Refusal in refused,
    Era in by_era,
    Coalesced in coalesced,
    Cached in cached,
    Invalidation in invalidated,
    SessionEvent in sessions,
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
