//! Answers of one worker that are kept for a while, in a bounded number of bytes.
//!
//! Eviction is quick_cache's (Clock-PRO, in its unsynchronised form): what was asked for once makes
//! room before what is asked for again, so that one asker who walks through many pages or URIs does
//! not push out what the others share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use quick_cache::Weighter;
use quick_cache::unsync;

use super::{Question, Scope, Shared};
use crate::mcp::{CacheScope, Outcome};

/// The cache of one worker. Keeps no time: `now` comes with each question; and nothing before
/// [`Cache::resize`].
#[derive(Default)]
pub struct Cache {
    entries: Option<unsync::Cache<Key, Entry, ByBytes, RandomState>>,
    bytes_max: u64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("entries", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

/// An answer for everybody has no scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    question: Question,
    scope: Option<Scope>,
}

#[derive(Clone, Debug)]
enum Entry {
    Kept(Arc<Shared>),
    /// The last answer was public and is not kept, or no longer: what is known is that askers may share.
    Public,
}

#[derive(Clone, Copy, Debug)]
struct ByBytes;

/// Of the tables' own bookkeeping, per entry; measured with quick_cache's `memory_used`, rounded up.
const ENTRY_BYTES: usize = 160;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let kept = match entry {
            Entry::Kept(shared) => shared.bytes(),
            Entry::Public => 0,
        };
        (ENTRY_BYTES + key.question.bytes() + kept) as u64
    }
}

/// What the cache has for a question.
#[derive(Clone, Debug)]
pub enum Found {
    /// An answer within its time.
    Fresh(Arc<Shared>),
    /// One beyond it.
    Stale {
        /// The answer.
        shared: Arc<Shared>,
        /// May be served while a new one is fetched.
        while_revalidate: bool,
        /// May be served if the backend fails.
        if_error: bool,
    },
    /// None.
    Nothing,
}

impl Cache {
    /// Sets the bound, in bytes; what lies beyond it goes. Zero keeps nothing.
    pub fn resize(&mut self, bytes_max: u64) {
        if bytes_max == self.bytes_max {
            return;
        }
        self.bytes_max = bytes_max;
        match &mut self.entries {
            _ if bytes_max == 0 => self.entries = None,
            Some(entries) => entries.set_capacity(bytes_max),
            None => {
                // An estimate: the table grows and shrinks with what it holds.
                let items = 1024;
                let hasher = RandomState::new();
                self.entries =
                    Some(unsync::Cache::with(items, bytes_max, ByBytes, hasher, unsync::DefaultLifecycle::default()));
            }
        }
    }

    /// What is there for an asker.
    #[must_use]
    pub fn find(&self, question: &Question, scope: Scope, now: Instant) -> Found {
        let Some(entries) = &self.entries else {
            return Found::Nothing;
        };
        let everybody = Key { question: question.clone(), scope: None };
        let own = Key { scope: Some(scope), ..everybody.clone() };
        let mut stale = Found::Nothing;
        for key in [everybody, own] {
            let Some(Entry::Kept(shared)) = entries.get(&key) else {
                continue;
            };
            if shared.validity.is_void() {
                continue;
            }
            let age = shared.age(now);
            if age < shared.ttl {
                return Found::Fresh(Arc::clone(shared));
            }
            let within = |grace: Duration| age < shared.ttl + grace;
            let (while_revalidate, if_error) = (within(shared.stale_while_revalidate), within(shared.stale_if_error));
            if while_revalidate || if_error {
                stale = Found::Stale { shared: Arc::clone(shared), while_revalidate, if_error };
            }
        }
        stale
    }

    /// Whether the last complete answer to the question was public, so that askers of several scopes
    /// may wait for one.
    #[must_use]
    pub fn is_known_public(&self, question: &Question) -> bool {
        let key = Key { question: question.clone(), scope: None };
        self.entries.as_ref().is_some_and(|entries| entries.peek(&key).is_some())
    }

    /// Keeps an answer, or what is to be learnt of it.
    pub fn keep(&mut self, question: &Question, shared: &Arc<Shared>) {
        let Some(entries) = &mut self.entries else {
            return;
        };
        // An error neither is kept (P-058) nor says anything of the answer before it. What has become
        // void under way may come behind an answer that was asked for later.
        if shared.reply.outcome != Outcome::Complete || shared.validity.is_void() {
            return;
        }
        let everybody = Key { question: question.clone(), scope: None };
        let kept = !shared.ttl.is_zero();
        match (shared.scope, kept) {
            (CacheScope::Public, true) => entries.insert(everybody, Entry::Kept(Arc::clone(shared))),
            (CacheScope::Public, false) => entries.insert(everybody, Entry::Public),
            (CacheScope::Private, _) => {
                entries.remove(&everybody);
                let own = Key { scope: Some(shared.asker), ..everybody };
                if kept {
                    entries.insert(own, Entry::Kept(Arc::clone(shared)));
                } else {
                    entries.remove(&own);
                }
            }
        }
    }

    /// Drops answers that can never be served again: void, or beyond every grace. Of one that was public
    /// it stays known that it was: most are dropped when many are about to ask again.
    pub fn sweep(&mut self, now: Instant) {
        let Some(entries) = &mut self.entries else {
            return;
        };
        let is_over = |entry: &Entry| match entry {
            Entry::Kept(shared) => {
                let grace = shared.stale_if_error.max(shared.stale_while_revalidate);
                shared.validity.is_void() || shared.age(now) >= shared.ttl + grace
            }
            Entry::Public => false,
        };
        let public = entries.iter().filter(|(key, entry)| key.scope.is_none() && is_over(entry));
        for key in public.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            entries.insert(key, Entry::Public);
        }
        entries.retain(|_, entry| !is_over(entry));
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.as_ref().map_or(0, unsync::Cache::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, unsync::Cache::weight)
    }
}

#[cfg(test)]
mod tests {
    use ahash::AHashMap;

    use super::*;
    use crate::coalesce::{Epochs, QuestionBuilder, Slot, Validity};
    use crate::mcp::MethodLabel;
    use crate::mcp::random::Random;

    const PUBLIC: CacheScope = CacheScope::Public;
    const PRIVATE: CacheScope = CacheScope::Private;

    struct Fixture {
        cache: Cache,
        hasher: RandomState,
        epochs: Arc<Epochs>,
        now: Instant,
    }

    impl Fixture {
        fn new(bytes_max: u64) -> Self {
            let mut cache = Cache::default();
            cache.resize(bytes_max);
            Self {
                cache,
                hasher: RandomState::with_seeds(1, 2, 3, 4),
                epochs: Arc::default(),
                now: crate::clock::now(),
            }
        }

        fn question(&self, name: &str) -> Question {
            let mut bytes = Vec::new();
            let mut question = QuestionBuilder::new(&mut bytes);
            question.part(name.as_bytes());
            question.finish(&self.hasher)
        }

        fn validity(&self) -> Validity {
            Validity::begin(&self.epochs, Slot::of(MethodLabel::ToolsList, b""))
        }

        fn answer(&self, scope: CacheScope, ttl_ms: u64, text: &str) -> Shared {
            let scope = if scope == PUBLIC { "public" } else { "private" };
            let body = format!(r#"{{"id":1,"result":{{"ttlMs":{ttl_ms},"cacheScope":"{scope}","text":"{text}"}}}}"#);
            Shared::of_body(&body, Scope::default(), self.validity(), self.now)
        }

        fn keep(&mut self, question: &str, asker: &str, answer: Shared) -> Arc<Shared> {
            let answer = Arc::new(Shared { asker: scope(asker), ..answer });
            self.cache.keep(&self.question(question), &answer);
            answer
        }

        fn find(&self, question: &str, asker: &str, after_ms: u64) -> Found {
            self.cache.find(&self.question(question), scope(asker), self.now + Duration::from_millis(after_ms))
        }

        /// The answer there, if it is fresh.
        fn fresh(&self, question: &str, asker: &str) -> Option<Arc<Shared>> {
            match self.find(question, asker, 0) {
                Found::Fresh(shared) => Some(shared),
                Found::Stale { .. } | Found::Nothing => None,
            }
        }
    }

    fn scope(name: &str) -> Scope {
        Scope::of(std::iter::once((&b"authorization"[..], name.as_bytes())))
    }

    fn is(found: Option<Arc<Shared>>, answer: &Arc<Shared>) -> bool {
        found.is_some_and(|found| Arc::ptr_eq(&found, answer))
    }

    #[test]
    fn p_063_an_answer_is_fresh_then_stale_then_gone_at_the_exact_times() {
        for scope in [PUBLIC, PRIVATE] {
            let mut fixture = Fixture::new(1 << 20);
            let mut answer = fixture.answer(scope, 1_000, "");
            answer.stale_while_revalidate = Duration::from_millis(500);
            answer.stale_if_error = Duration::from_millis(2_000);
            fixture.keep("q", "alice", answer);
            let state = |age_ms| match fixture.find("q", "alice", age_ms) {
                Found::Fresh(_) => "fresh",
                Found::Stale { while_revalidate: true, if_error: true, .. } => "may be refreshed",
                Found::Stale { while_revalidate: false, if_error: true, .. } => "stands in",
                Found::Stale { .. } => "never with these times",
                Found::Nothing => "gone",
            };
            let states = [0, 999, 1_000, 1_499, 1_500, 2_999, 3_000, 1_000_000].map(state);
            let expected = ["fresh", "fresh", "may be refreshed", "may be refreshed", "stands in", "stands in"];
            assert_eq!(states[..6], expected);
            assert_eq!(states[6..], ["gone", "gone"]);
            assert_eq!(fixture.cache.len(), 1, "looking changes nothing");
            fixture.cache.sweep(fixture.now + Duration::from_millis(2_999));
            assert!(matches!(fixture.find("q", "alice", 2_999), Found::Stale { .. }), "swept too early");
            fixture.cache.sweep(fixture.now + Duration::from_millis(3_000));
            assert!(matches!(fixture.find("q", "alice", 0), Found::Nothing));
        }
    }

    #[test]
    fn p_061_a_private_answer_is_for_its_own_scope_only() {
        let mut fixture = Fixture::new(1 << 20);
        let to_alice = fixture.answer(PRIVATE, 1_000, "a");
        let to_alice = fixture.keep("q", "alice", to_alice);
        assert!(is(fixture.fresh("q", "alice"), &to_alice));
        assert!(fixture.fresh("q", "bob").is_none());
        assert!(fixture.fresh("other", "alice").is_none());
        assert!(!fixture.cache.is_known_public(&fixture.question("q")));
        let to_bob = fixture.answer(PRIVATE, 1_000, "b");
        let to_bob = fixture.keep("q", "bob", to_bob);
        assert!(is(fixture.fresh("q", "alice"), &to_alice) && is(fixture.fresh("q", "bob"), &to_bob));
    }

    #[test]
    fn p_062_a_public_answer_is_for_all() {
        let mut fixture = Fixture::new(1 << 20);
        let answer = fixture.answer(PUBLIC, 1_000, "");
        let answer = fixture.keep("q", "alice", answer);
        assert!(is(fixture.fresh("q", "alice"), &answer) && is(fixture.fresh("q", "bob"), &answer));
        assert!(fixture.fresh("other", "alice").is_none());
        assert!(fixture.cache.is_known_public(&fixture.question("q")));
    }

    #[test]
    fn p_073_a_private_answer_ends_what_was_known_to_be_public() {
        for ttl_ms in [0, 1_000] {
            let mut fixture = Fixture::new(1 << 20);
            let answer = fixture.answer(PUBLIC, 1_000, "");
            fixture.keep("q", "alice", answer);
            let surprise = fixture.answer(PRIVATE, ttl_ms, "");
            let surprise = fixture.keep("q", "bob", surprise);
            assert!(!fixture.cache.is_known_public(&fixture.question("q")));
            assert!(fixture.fresh("q", "alice").is_none());
            assert_eq!(is(fixture.fresh("q", "bob"), &surprise), ttl_ms > 0);
        }
    }

    #[test]
    fn p_063_the_newest_answer_says_whether_one_is_kept() {
        for scope in [PUBLIC, PRIVATE] {
            let mut fixture = Fixture::new(1 << 20);
            for ttl_ms in [1_000, 0] {
                let answer = fixture.answer(scope, ttl_ms, "");
                fixture.keep("q", "alice", answer);
                assert_eq!(fixture.fresh("q", "alice").is_some(), ttl_ms > 0);
            }
        }
    }

    #[test]
    fn p_073_a_public_answer_without_time_says_that_it_is_public() {
        let mut fixture = Fixture::new(1 << 20);
        let answer = fixture.answer(PUBLIC, 0, "");
        fixture.keep("q", "alice", answer);
        assert!(fixture.cache.is_known_public(&fixture.question("q")));
        assert!(matches!(fixture.find("q", "alice", 0), Found::Nothing));
    }

    #[test]
    fn p_066_an_invalidation_ends_every_use_of_an_answer() {
        let mut fixture = Fixture::new(1 << 20);
        let mut answer = fixture.answer(PUBLIC, 1_000, "");
        answer.stale_if_error = Duration::from_secs(60);
        fixture.keep("q", "alice", answer);
        let slot = Slot::of(MethodLabel::ToolsList, b"");
        fixture.epochs.advance(slot);
        assert!(matches!(fixture.find("q", "alice", 0), Found::Nothing));
        assert!(matches!(fixture.find("q", "alice", 2_000), Found::Nothing));
        fixture.cache.sweep(fixture.now);
        assert!(fixture.cache.is_known_public(&fixture.question("q")), "what made it void did not make it private");
        let next = fixture.answer(PUBLIC, 1_000, "");
        let next = fixture.keep("q", "alice", next);
        assert!(is(fixture.fresh("q", "bob"), &next));
    }

    #[test]
    fn p_066_what_became_void_under_way_does_not_displace_what_was_asked_later() {
        let mut fixture = Fixture::new(1 << 20);
        let late = [PUBLIC, PRIVATE].map(|scope| fixture.answer(scope, 1_000, "old"));
        fixture.epochs.advance(Slot::of(MethodLabel::ToolsList, b""));
        let valid = fixture.answer(PUBLIC, 1_000, "new");
        let valid = fixture.keep("q", "alice", valid);
        for late in late {
            fixture.keep("q", "alice", late);
            assert!(is(fixture.fresh("q", "alice"), &valid));
        }
    }

    #[test]
    fn p_058_errors_are_not_kept_and_say_nothing_of_the_answer_before() {
        let mut fixture = Fixture::new(1 << 20);
        let answer = fixture.answer(PUBLIC, 1_000, "");
        let answer = fixture.keep("q", "alice", answer);
        for body in [
            r#"{"id":1,"error":{"code":-32603,"message":""}}"#,
            r#"{"id":1,"result":{"resultType":"input_required","ttlMs":9}}"#,
        ] {
            let mut failure = Shared::of_body(body, Scope::default(), fixture.validity(), fixture.now);
            failure.ttl = Duration::from_secs(9);
            fixture.keep("q", "alice", failure);
            assert!(is(fixture.fresh("q", "bob"), &answer), "{body}");
        }
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing_and_one_that_shrinks_lets_go() {
        let mut fixture = Fixture::new(0);
        let fill = |fixture: &mut Fixture| {
            for number in 0..100 {
                let answer = fixture.answer(PUBLIC, 1_000, "");
                fixture.keep(&format!("q{number}"), "alice", answer);
            }
        };
        fill(&mut fixture);
        assert!(fixture.cache.is_empty() && fixture.cache.bytes() == 0);
        fixture.cache.resize(1 << 20);
        fill(&mut fixture);
        assert_eq!(fixture.cache.len(), 100);
        let all = fixture.cache.bytes();
        fixture.cache.resize(all / 2);
        assert!((1..=50).contains(&fixture.cache.len()), "{}", fixture.cache.len());
        assert!(fixture.cache.bytes() <= all / 2);
        fixture.cache.resize(1 << 20);
        fill(&mut fixture);
        assert_eq!(fixture.cache.len(), 100, "it grows again");
        fixture.cache.resize(0);
        assert!(fixture.cache.is_empty() && fixture.fresh("q1", "alice").is_none());
        fixture.cache.sweep(fixture.now);
    }

    #[test]
    fn what_is_asked_again_outlives_a_walk_through_many() {
        let mut fixture = Fixture::new(64 * 1024);
        let hot: Vec<String> = (0..8).map(|number| format!("hot {number}")).collect();
        // Ten times as much as there is room for, each page asked for once. The others come when the
        // cache is full already, and are fetched again if they have gone.
        let mut misses = Vec::new();
        for page in 0..1_000 {
            let answer = fixture.answer(PRIVATE, 1_000_000, &"y".repeat(300));
            fixture.keep(&format!("page {page}"), "mallory", answer);
            if page < 300 || page % 20 != 0 {
                continue;
            }
            for name in &hot {
                if fixture.fresh(name, "bob").is_none() {
                    misses.push(page);
                    let answer = fixture.answer(PUBLIC, 1_000_000, &"x".repeat(500));
                    fixture.keep(name, "alice", answer);
                }
            }
        }
        assert!(misses.iter().all(|page| *page <= 320), "missed at pages {misses:?}");
        assert!(fixture.cache.len() < 200, "the walk did not fill the cache");
    }

    /// Every answer that is found is the newest that was kept for such an asker; with room for all, it is
    /// always found. The bound holds after each step.
    #[test]
    fn p_061_whatever_happens_an_answer_found_is_the_right_one_and_the_bound_holds() {
        let (names, askers) = (["q0", "q1", "q2", "q3", "q4", "q5"], ["alice", "bob", "carol"]);
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let roomy = random.once_in(2);
            let mut bytes_max = if roomy { 1 << 20 } else { 4096 };
            let mut fixture = Fixture::new(bytes_max);
            // By question and asker; nobody stands for everybody.
            let mut model: AHashMap<(usize, Option<usize>), Arc<Shared>> = AHashMap::new();
            for step in 0..300 {
                let (name, asker) = (random.below(names.len()), random.below(askers.len()));
                match random.below(20) {
                    0 => fixture.epochs.advance(Slot::of(MethodLabel::ToolsList, b"")),
                    1 => fixture.now += Duration::from_millis(random.below(1_500) as u64),
                    2 => fixture.cache.sweep(fixture.now),
                    3 if !roomy => {
                        bytes_max = *random.of(&[0, 600, 2048, 4096, 8192]);
                        fixture.cache.resize(bytes_max);
                    }
                    4..10 => {
                        let answer_scope = *random.of(&[PUBLIC, PRIVATE]);
                        let text = "z".repeat(random.below(1_200));
                        let answer = fixture.answer(answer_scope, *random.of(&[0, 1_000, 2_000]), &text);
                        let answer = fixture.keep(names[name], askers[asker], answer);
                        model.remove(&(name, None));
                        model.insert((name, Some(asker).filter(|_| answer_scope == PRIVATE)), answer);
                    }
                    _ => {
                        let usable = |key| {
                            let shared: Option<&Arc<Shared>> = model.get(&key);
                            shared.filter(|shared| !shared.validity.is_void() && shared.age(fixture.now) < shared.ttl)
                        };
                        let expected = [usable((name, None)), usable((name, Some(asker)))];
                        let mut expected = expected.into_iter().flatten();
                        match fixture.fresh(names[name], askers[asker]) {
                            // Without room for the first, the second may be there.
                            Some(found) if !roomy => {
                                assert!(expected.any(|shared| Arc::ptr_eq(shared, &found)), "seed {seed} step {step}");
                            }
                            found => {
                                let as_expected = found.as_ref().map(Arc::as_ptr) == expected.next().map(Arc::as_ptr);
                                assert!(!roomy || as_expected, "seed {seed} step {step}: {found:?}");
                            }
                        }
                    }
                }
                assert!(fixture.cache.bytes() <= bytes_max, "seed {seed} step {step}: {:?}", fixture.cache);
            }
        }
    }

    /// The tables of a cache that is full of the smallest entries: where their share is greatest.
    #[test]
    fn the_tables_take_no_more_than_is_reckoned_for_them() {
        let bytes_max = 1 << 20;
        let mut fixture = Fixture::new(bytes_max);
        for number in 0..10_000 {
            let answer = fixture.answer(PUBLIC, 0, "");
            fixture.keep(&number.to_string(), "alice", answer);
        }
        let entries = fixture.cache.entries.as_ref().expect("it has a bound");
        assert!(entries.len() > 5_000 && fixture.cache.bytes() > bytes_max * 9 / 10, "{:?}", fixture.cache);
        let used = entries.memory_used();
        let per_entry = (used.entries + used.map) / entries.len();
        assert!((ENTRY_BYTES / 2..=ENTRY_BYTES).contains(&per_entry), "{used:?} for {} entries", entries.len());
    }
}
