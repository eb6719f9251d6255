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

/// Background refreshes of one answer: after failures ever fewer. That two do not run at once, should
/// one last longer than the pause behind it, is for those who share its flight.
#[derive(Debug, Default)]
pub struct Refresh {
    /// Milliseconds after `received` before which none begins.
    not_before: AtomicU64,
    failures: AtomicU64,
}

/// From the beginning of one refresh to that of the next: doubled with each failure from the first of
/// these to the second.
const BACKOFF_MS: (u64, u64) = (1_000, 60_000);

impl Refresh {
    /// Takes the right to refresh an answer of this age. Nobody else gets it before the pause is over,
    /// which begins now.
    pub fn begin(&self, age_ms: u64) -> bool {
        let not_before = self.not_before.load(Ordering::Relaxed);
        let next = age_ms.saturating_add(self.backoff_ms());
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

#[cfg(test)]
impl Shared {
    /// An answer of `body`, fetched for `asker` and received now.
    pub(crate) fn of_body(body: &str, asker: Scope, validity: Validity, received: Instant) -> Self {
        let reply = Reply::parse(body.as_bytes()).expect("a response");
        Self {
            status: 200,
            reason: Box::default(),
            head: Box::default(),
            body: body.as_bytes().into(),
            reply,
            scope: reply.scope,
            asker,
            received,
            ttl: Duration::from_millis(reply.ttl_ms),
            stale_if_error: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            validity,
            refresh: Refresh::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::MethodLabel;

    /// Ages at which a refresh may begin if one is tried every 100 ms and all fail.
    fn attempts(refresh: &Refresh, until_ms: u64) -> Vec<u64> {
        let tried = (0..until_ms).step_by(100).filter(|age| {
            let begins = refresh.begin(*age);
            if begins {
                refresh.failed();
            }
            begins
        });
        tried.collect()
    }

    #[test]
    fn p_069_the_pause_grows_with_each_failure_up_to_a_bound() {
        let ages = attempts(&Refresh::default(), 400_000);
        let pauses: Vec<u64> = ages.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(ages[0], 0, "the first begins at once");
        assert_eq!(pauses[..8], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert!(pauses[8..].iter().all(|pause| *pause == 60_000));
    }

    #[test]
    fn p_069_only_one_of_those_who_come_together_refreshes() {
        let refresh = Refresh::default();
        assert!(refresh.begin(5_000));
        assert!(!refresh.begin(5_000) && !refresh.begin(5_999), "not before the pause is over");
        assert!(refresh.begin(6_000), "an attempt that never ended does not hold up others for ever");
        // Workers' clocks are read one after the other.
        assert!(!refresh.begin(4_999));
        assert!(refresh.begin(u64::MAX) && !refresh.begin(u64::MAX - 1));
    }

    #[test]
    fn p_069_of_many_threads_one_refreshes() {
        let refresh = Refresh::default();
        let begun = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| refresh.begin(100))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|begun| *begun).count()
        });
        assert_eq!(begun, 1);
    }

    #[test]
    fn p_069_a_new_answer_has_no_failures_behind_it() {
        let old = Refresh::default();
        attempts(&old, 60_000);
        assert!(!old.begin(60_000), "in the middle of a long pause");
        let (epochs, now) = (Arc::default(), crate::clock::now());
        let validity = Validity::begin(&epochs, Slot::of(MethodLabel::ToolsList, b""));
        let new = Shared::of_body(r#"{"id":1,"result":{"ttlMs":5}}"#, Scope::default(), validity, now);
        assert_eq!(attempts(&new.refresh, 2_000), [0, 1_000]);
    }

    #[test]
    fn p_065_what_is_left_of_its_time_is_served() {
        let (epochs, now) = (Arc::default(), crate::clock::now());
        let validity = Validity::begin(&epochs, Slot::of(MethodLabel::ToolsList, b""));
        let answer = Shared::of_body(r#"{"id":1,"result":{"ttlMs":1500}}"#, Scope::default(), validity, now);
        let left = |age_ms| answer.ttl_ms_left(now + Duration::from_millis(age_ms));
        assert_eq!([left(0), left(1), left(1499), left(1500), left(100_000)], [1500, 1499, 1, 0, 0]);
        assert_eq!(answer.ttl_ms_left(now - Duration::from_millis(5)), 1500, "a clock that was read before");
    }

    #[test]
    fn p_066_validity_ends_with_its_slot_and_no_other() {
        let epochs = Arc::default();
        let of = |method| Validity::begin(&epochs, Slot::of(method, b""));
        let (tools, prompts) = (of(MethodLabel::ToolsList), of(MethodLabel::PromptsList));
        tools.end();
        assert!(tools.is_void() && !prompts.is_void());
        let next = of(MethodLabel::ToolsList);
        assert!(!next.is_void() && next.epoch() > tools.epoch());
    }
}
