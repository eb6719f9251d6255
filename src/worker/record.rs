//! What is counted of one exchange.

use std::time::Instant;

use super::core::Core;
use crate::clock;
use crate::http::{RequestHead, Trace};
use crate::mcp::{self, MethodLabel, ProtocolVersion};
use crate::seam::{Era, Label, Series, Snapshot, StatusClass};

/// What is counted of one exchange.
pub(super) struct Record {
    started: Instant,
    pub(super) sent: Option<Instant>,
    pub(super) answered: Option<Instant>,
    /// When the answer's beginning was written, if more of it came later.
    pub(super) relayed: Option<Instant>,
    pub(super) route: Label,
    pub(super) backend: Label,
    pub(super) method: MethodLabel,
    /// What its head tells, until more is known.
    pub(super) era: Era,
    /// Of the answer that began; none for a client that left before.
    pub(super) status: Option<u16>,
    /// What the backend is told of the trace the request belongs to.
    pub(super) trace: Trace,
}

impl Record {
    pub(super) fn new(core: &Core, snapshot: &Snapshot, head: &RequestHead, bytes: &[u8]) -> Self {
        // The head names the MCP method from 2026-07-28 on; before, only the body does.
        let method = head.mcp_method(bytes).unwrap_or_else(|| head.method_text(bytes));
        Self {
            started: clock::now(),
            sent: None,
            answered: None,
            relayed: None,
            route: Label::NONE,
            backend: Label::NONE,
            method: MethodLabel::of(method),
            era: era_of(head, bytes).into(),
            status: None,
            trace: core.trace(snapshot.trace_headers, head, bytes),
        }
    }

    pub(super) fn count(self, core: &Core) {
        let ended = clock::now();
        let mut stats = core.stats.borrow_mut();
        let class = self.status.map_or(StatusClass::Gone, StatusClass::of);
        let series = Series { route: self.route, backend: self.backend, method: self.method, class };
        *stats.requests.entry(series).or_default() += 1;
        stats.add(self.era, 1);
        let whole = ended.duration_since(self.started);
        stats.request_duration.record(whole);
        if let (Some(sent), Some(answered)) = (self.sent, self.answered) {
            let upstream = answered.duration_since(sent);
            stats.upstream_duration.record(upstream);
            let relayed = self.relayed.unwrap_or(ended);
            stats.overhead.record(sent.duration_since(self.started) + relayed.duration_since(answered));
        }
    }
}

/// As far as a head tells: a version, or a session, which only the legacy era has.
fn era_of(head: &RequestHead, bytes: &[u8]) -> Option<mcp::Era> {
    match head.protocol_version(bytes) {
        Some(version) => ProtocolVersion::of(version).era(),
        None => head.session_id(bytes).map(|_| mcp::Era::Legacy),
    }
}
