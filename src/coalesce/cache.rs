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

/// The cache of one worker. Keeps no time: `now` comes with each question.
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
    /// The last answer was public and not to be kept: what is known is that askers may share.
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
    /// Keeps nothing before [`Cache::resize`].
    #[must_use]
    pub fn new() -> Self {
        Self { entries: None, bytes_max: 0 }
    }

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
        // An error neither is kept (P-058) nor says anything of the answer before it.
        if shared.reply.outcome != Outcome::Complete {
            return;
        }
        let everybody = Key { question: question.clone(), scope: None };
        let kept = !shared.ttl.is_zero();
        match (shared.scope, kept) {
            (CacheScope::Public, true) => entries.insert(everybody, Entry::Kept(Arc::clone(shared))),
            (CacheScope::Public, false) => entries.insert(everybody, Entry::Public),
            (CacheScope::Private, _) => {
                entries.remove(&everybody);
                if kept {
                    entries.insert(Key { scope: Some(shared.asker), ..everybody }, Entry::Kept(Arc::clone(shared)));
                }
            }
        }
    }

    /// Drops what can never be served again: void, or beyond every grace.
    pub fn sweep(&mut self, now: Instant) {
        if let Some(entries) = &mut self.entries {
            entries.retain(|_, entry| match entry {
                Entry::Kept(shared) => {
                    let grace = shared.stale_if_error.max(shared.stale_while_revalidate);
                    !shared.validity.is_void() && shared.age(now) < shared.ttl + grace
                }
                Entry::Public => true,
            });
        }
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
