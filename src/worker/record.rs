//! What is counted and logged of one exchange.

use std::time::Instant;

use super::access::{Asked, Entry, Times};
use super::core::Core;
use crate::clock;
use crate::error::Refusal;
use crate::http::{RequestHead, Trace};
use crate::mcp::{self, MethodLabel, ProtocolVersion};
use crate::seam::{Era, Label, Series, Share, Snapshot, StatusClass};

/// What is counted and logged of one exchange.
pub(super) struct Record {
    pub(super) started: Instant,
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
    /// Payload of the request, as far as it was read.
    pub(super) request_bytes: u64,
    /// Payload of the answer, as far as it was there; none of an error of our own.
    pub(super) response_bytes: u64,
    /// What coalescer or cache had to do with the answer.
    pub(super) share: Share,
    /// What the backend is told of the trace the request belongs to.
    pub(super) trace: Trace,
    refused: Option<Refusal>,
    /// Kept for the access log; none while it is off.
    asked: Option<Box<Asked>>,
}

impl Record {
    pub(super) fn new(core: &Core, snapshot: &Snapshot, head: &RequestHead, bytes: &[u8]) -> Self {
        // The head names the MCP method from 2026-07-28 on; before, only the body does.
        let method = head.mcp_method(bytes).unwrap_or_else(|| head.method_text(bytes));
        let era = Era::from(era_of(head, bytes));
        let mut record = Self {
            started: clock::now(),
            sent: None,
            answered: None,
            relayed: None,
            route: Label::NONE,
            backend: Label::NONE,
            method: MethodLabel::of(method),
            era,
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            share: Share::None,
            trace: core.trace(snapshot.trace_headers, head, bytes),
            refused: None,
            asked: None,
        };
        if snapshot.access_log {
            record.asked = Some(Box::new(Asked::of(head, bytes)));
            let mirrored = head.mcp_name(bytes).filter(|_| era == Era::Modern);
            if let Some(Ok(name)) = mirrored.map(mcp::decode_sentinel) {
                record.set_name(&name);
            }
        }
        record
    }

    /// Notes the tool, prompt, resource or task that is asked for, decoded.
    pub(super) fn set_name(&mut self, name: &[u8]) {
        if let Some(asked) = &mut self.asked {
            asked.set_name(name);
        }
    }

    /// Counts why the exchange fails, or is cut off.
    pub(super) fn refuse(&mut self, core: &Core, reason: Refusal) {
        core.count_refusal(reason);
        self.refused = Some(reason);
    }

    /// Counts the exchange, which has ended, and logs it.
    pub(super) fn close(self, core: &Core, snapshot: &Snapshot, client: &str) {
        let times = self.times(clock::now());
        self.count(core, &times);
        if let Some(asked) = &self.asked {
            let name = |label: Label| (label != Label::NONE).then(|| snapshot.names.name(label));
            core.access.write(&Entry {
                ended: clock::wall(),
                client,
                asked,
                mcp_method: (!self.method.is_http()).then(|| self.method.label()),
                status: self.status,
                refused: self.refused,
                route: name(self.route),
                backend: name(self.backend),
                era: self.era,
                share: self.share,
                times,
                request_bytes: self.request_bytes,
                response_bytes: self.response_bytes,
                trace: self.trace.parent(),
            });
        }
    }

    fn count(&self, core: &Core, times: &Times) {
        let mut stats = core.stats.borrow_mut();
        let class = self.status.map_or(StatusClass::Gone, StatusClass::of);
        let series = Series { route: self.route, backend: self.backend, method: self.method, class };
        *stats.requests.entry(series).or_default() += 1;
        stats.add(self.era, 1);
        stats.request_duration.record(times.whole);
        if self.answered.is_some()
            && let Some(upstream) = times.upstream
        {
            stats.upstream_duration.record(upstream);
            stats.overhead.record(times.own);
        }
    }

    /// Where the time went of an exchange that ends now.
    fn times(&self, ended: Instant) -> Times {
        let whole = ended.duration_since(self.started);
        let Some(sent) = self.sent else {
            return Times { whole, own: whole, upstream: None };
        };
        let before = sent.duration_since(self.started);
        let Some(answered) = self.answered else {
            return Times { whole, own: before, upstream: Some(ended.duration_since(sent)) };
        };
        let behind = self.relayed.unwrap_or(ended).duration_since(answered);
        Times { whole, own: before + behind, upstream: Some(answered.duration_since(sent)) }
    }
}

/// As far as a head tells: a version, or a session, which only the legacy era has.
fn era_of(head: &RequestHead, bytes: &[u8]) -> Option<mcp::Era> {
    match head.protocol_version(bytes) {
        Some(version) => ProtocolVersion::of(version).era(),
        None => head.session_id(bytes).map(|_| mcp::Era::Legacy),
    }
}
