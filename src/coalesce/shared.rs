//! An answer that goes to more than the one who asked first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Epochs, Scope, Slot};
use crate::mcp::{CacheScope, Reply};

/// A backend's answer, complete, in the form that is served again.
#[derive(Debug)]
pub struct Shared {
    /// HTTP status and reason, as on the status line.
    pub status: u16,
    /// See above.
    pub reason: Box<[u8]>,
    /// Header lines that concern every asker, without framing.
    pub head: Box<[u8]>,
    /// The JSON-RPC response.
    pub body: Box<[u8]>,
    /// What `body` says of itself, by range.
    pub reply: Reply,
    /// Whom it may go to, the operator's bound applied.
    pub scope: CacheScope,
    /// By whose credentials it was fetched: a private one goes to these only.
    pub asker: Scope,
    /// When it came.
    pub received: Instant,
    /// How long it may be served from then on; zero: to those who wait for it only.
    pub ttl: Duration,
    /// How long beyond `ttl` it may stand in: for a failure, and while a new one is fetched.
    pub stale_if_error: Duration,
    /// See above.
    pub stale_while_revalidate: Duration,
    /// What makes it void.
    pub validity: Validity,
    /// When a new one may be fetched in the background.
    pub refresh: Refresh,
}

/// The count of an answer's slot when it was asked for.
#[derive(Clone, Debug)]
pub struct Validity {
    epochs: Arc<Epochs>,
    slot: Slot,
    epoch: u64,
}

impl Validity {
    /// Of an answer that is asked for now.
    #[must_use]
    pub fn begin(epochs: &Arc<Epochs>, slot: Slot) -> Self {
        Self { epochs: Arc::clone(epochs), slot, epoch: epochs.current(slot) }
    }

    /// The count.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether something has made the answer void since.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.epochs.current(self.slot) != self.epoch
    }

    /// Makes it void, with all of its slot.
    pub fn end(&self) {
        self.epochs.advance(self.slot);
    }
}

/// Background refreshes of one answer: one at a time in a process, and after failures ever fewer.
#[derive(Debug, Default)]
pub struct Refresh {
    /// Milliseconds after `received` before which none begins.
    not_before: AtomicU64,
    failures: AtomicU64,
}

/// Between a failed refresh and the next: doubled with each failure from the first of these to the
/// second.
const BACKOFF_MS: (u64, u64) = (1_000, 60_000);

impl Refresh {
    /// Takes the right to refresh an answer of this age, if it is free. Until [`Refresh::failed`] or the
    /// bound of one attempt, nobody else gets it.
    pub fn begin(&self, age_ms: u64) -> bool {
        let not_before = self.not_before.load(Ordering::Relaxed);
        let next = age_ms + self.backoff_ms();
        age_ms >= not_before
            && self.not_before.compare_exchange(not_before, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The attempt brought nothing to keep.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn backoff_ms(&self) -> u64 {
        let (first, last) = BACKOFF_MS;
        let doublings = self.failures.load(Ordering::Relaxed).min(16);
        (first << doublings).min(last)
    }
}

impl Shared {
    /// Whether an asker of this scope may have it.
    #[must_use]
    pub fn is_for(&self, scope: Scope) -> bool {
        self.scope == CacheScope::Public || self.asker == scope
    }

    /// What is left of the backend's `ttlMs` at `now`. Whoever is served takes it as beginning then:
    /// there is no counterpart of HTTP's `Age` (P-065).
    #[must_use]
    pub fn ttl_ms_left(&self, now: Instant) -> u64 {
        let age = self.age(now).as_millis();
        self.reply.ttl_ms.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// Its age.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.received)
    }

    /// Memory it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.reason.len() + self.head.len() + self.body.len()
    }
}
