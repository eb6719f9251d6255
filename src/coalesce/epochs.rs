//! How often what a backend once said became void.
//!
//! An answer remembers the count that stood when it was asked for, and may be used while the count
//! stands. So an invalidation is one addition, seen by all workers at once, and an answer that was
//! under way meanwhile is void when it lands.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mcp::MethodLabel;

/// Slots for `resources/read`: URIs that share one become void together.
const READ_SLOTS: usize = 64;
const LIST_SLOTS: usize = 5;

/// The counts of one backend as configured: a changed backend gets new ones.
#[derive(Debug)]
pub struct Epochs {
    /// Part of every question to the backend. Never given twice in a process.
    pub id: u64,
    counts: [AtomicU64; LIST_SLOTS + READ_SLOTS],
}

/// Which answers become void together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Default for Epochs {
    fn default() -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), counts: [const { AtomicU64::new(0) }; _] }
    }
}

impl Slot {
    /// Of the answers to a method; for `resources/read`, those about `uri`.
    #[must_use]
    pub fn of(method: MethodLabel, uri: &[u8]) -> Self {
        Self(match method {
            MethodLabel::ToolsList => 0,
            MethodLabel::PromptsList => 1,
            MethodLabel::ResourcesList => 2,
            MethodLabel::ResourcesTemplatesList => 3,
            MethodLabel::ResourcesRead => return Self::of_uri(uri),
            _ => 4,
        })
    }

    fn of_uri(uri: &[u8]) -> Self {
        // FNV-1a: the spread of a few dozen slots, the same in every worker.
        let hash = uri
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Self(LIST_SLOTS + (hash >> 32) as usize % READ_SLOTS)
    }
}

impl Epochs {
    /// The count that an answer asked for now will carry.
    #[must_use]
    pub fn current(&self, slot: Slot) -> u64 {
        self.counts[slot.0].load(Ordering::Acquire)
    }

    /// Makes the answers of a slot void.
    pub fn advance(&self, slot: Slot) {
        self.counts[slot.0].fetch_add(1, Ordering::AcqRel);
    }

    /// Makes everything void.
    pub fn advance_all(&self) {
        (0..self.counts.len()).for_each(|slot| self.advance(Slot(slot)));
    }

    /// What a change notification of the backend makes void (2026-07-28, "Caching", invalidation):
    /// whether anything.
    pub fn notified(&self, method: MethodLabel, uri: &[u8]) -> bool {
        let void = |method| self.advance(Slot::of(method, b""));
        match method {
            MethodLabel::ToolsListChanged => void(MethodLabel::ToolsList),
            MethodLabel::PromptsListChanged => void(MethodLabel::PromptsList),
            MethodLabel::ResourcesListChanged => {
                void(MethodLabel::ResourcesList);
                void(MethodLabel::ResourcesTemplatesList);
            }
            MethodLabel::ResourcesUpdated => {
                // The URI may be that of a part of what was read.
                self.advance(Slot::of_uri(uri));
                for slash in memchr::memrchr_iter(b'/', uri) {
                    self.advance(Slot::of_uri(&uri[..slash]));
                    self.advance(Slot::of_uri(&uri[..=slash]));
                }
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voids(epochs: &Epochs, slot: Slot, notification: MethodLabel, uri: &str) -> bool {
        let before = epochs.current(slot);
        epochs.notified(notification, uri.as_bytes());
        epochs.current(slot) != before
    }

    #[test]
    fn p_066_each_notification_voids_what_it_is_about() {
        use MethodLabel as M;
        let epochs = Epochs::default();
        let rows = [
            (M::ToolsListChanged, &[M::ToolsList][..]),
            (M::PromptsListChanged, &[M::PromptsList]),
            (M::ResourcesListChanged, &[M::ResourcesList, M::ResourcesTemplatesList]),
            (M::ToolsCall, &[]),
        ];
        let lists = [
            M::ToolsList,
            M::PromptsList,
            M::ResourcesList,
            M::ResourcesTemplatesList,
            M::ServerDiscover,
            M::ResourcesRead,
        ];
        for (notification, voided) in rows {
            for list in lists {
                let slot = Slot::of(list, b"file:///a");
                assert_eq!(voids(&epochs, slot, notification, ""), voided.contains(&list), "{notification:?} {list:?}");
            }
        }
    }

    #[test]
    fn p_066_an_update_voids_the_resource_and_what_it_is_part_of() {
        let epochs = Epochs::default();
        let read = |uri: &str| Slot::of(MethodLabel::ResourcesRead, uri.as_bytes());
        for uri in ["file:///a/b/c.txt", "file:///a/b", "file:///a/b/", "file:///a"] {
            assert!(voids(&epochs, read(uri), MethodLabel::ResourcesUpdated, "file:///a/b/c.txt"), "{uri}");
        }
        assert!(!voids(&epochs, read("file:///a/b/c.txt"), MethodLabel::ResourcesUpdated, "note://1"));
    }

    #[test]
    fn ids_are_never_given_twice() {
        assert_ne!(Epochs::default().id, Epochs::default().id);
    }
}
