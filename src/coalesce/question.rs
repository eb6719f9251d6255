//! What is asked, and on whose behalf.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use sha2::{Digest, Sha256};

/// All that an answer depends on but the asker's credentials, in bytes. Equal bytes are equal
/// questions; nothing rests on a hash alone.
#[derive(Clone, Debug)]
pub struct Question {
    hash: u64,
    bytes: Arc<[u8]>,
}

impl Question {
    /// Which of `workers` workers owns the question: the same for every asker of a process.
    #[must_use]
    pub fn owner(&self, workers: usize) -> usize {
        // Below `workers`, so it fits.
        (self.hash % workers.max(1) as u64) as usize
    }

    /// Memory it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Puts a question together out of parts. Each is preceded by its length, so that no two lists of
/// parts make the same bytes.
#[derive(Debug)]
pub struct QuestionBuilder<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> QuestionBuilder<'a> {
    /// Builds in `bytes`, whose content is lost.
    #[must_use]
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// Adds a part.
    pub fn part(&mut self, part: &[u8]) {
        // Heads and envelopes have far less than 4 GiB.
        self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(part);
    }

    /// Adds a part in lower case.
    pub fn lower_case_part(&mut self, part: &[u8]) {
        self.part(part);
        let from = self.bytes.len() - part.len();
        self.bytes[from..].make_ascii_lowercase();
    }

    /// The question. `hasher` has to be the same for all workers of a process; its keys are random,
    /// so that nobody outside can pile questions up in one place.
    #[must_use]
    pub fn finish(self, hasher: &RandomState) -> Question {
        Question { hash: hasher.hash_one(&self.bytes[..]), bytes: Arc::from(&self.bytes[..]) }
    }
}

/// Who asks: a digest of the credentials presented, exactly as they were (P-061: a refreshed token of
/// the same user is another one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope([u8; 16]);

impl Scope {
    /// Of the credentials in the order they came, each with the name of its header; nobody's if
    /// there are none.
    #[must_use]
    pub fn of<'a>(credentials: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut digest = None;
        for (name, value) in credentials {
            let digest = digest.get_or_insert_with(|| Sha256::new_with_prefix(b"ringway scope 1\0"));
            let name = name.to_ascii_lowercase();
            for part in [name.as_slice(), value] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        let mut scope = Self::default();
        if let Some(digest) = digest {
            scope.0.copy_from_slice(&digest.finalize()[..16]);
        }
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(hasher: &RandomState, parts: &[&str]) -> Question {
        let mut bytes = Vec::new();
        let mut builder = QuestionBuilder::new(&mut bytes);
        parts.iter().for_each(|part| builder.part(part.as_bytes()));
        builder.finish(hasher)
    }

    #[test]
    fn parts_do_not_run_together() {
        let hasher = RandomState::new();
        assert_eq!(question(&hasher, &["a", "b"]), question(&hasher, &["a", "b"]));
        for other in [&["ab"][..], &["", "ab"], &["a", "b", ""], &["b", "a"], &[]] {
            assert_ne!(question(&hasher, &["a", "b"]), question(&hasher, other));
        }
        let mut bytes = b"old".to_vec();
        let mut builder = QuestionBuilder::new(&mut bytes);
        builder.lower_case_part(b"X-Y");
        assert_eq!(builder.finish(&hasher), question(&hasher, &["x-y"]));
    }

    #[test]
    fn a_scope_is_exactly_what_was_presented() {
        let scope =
            |fields: &[(&str, &str)]| Scope::of(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        assert_eq!(scope(&[]), Scope::default());
        assert_eq!(scope(&[("Authorization", "Bearer a")]), scope(&[("authorization", "Bearer a")]));
        let one = scope(&[("authorization", "Bearer a")]);
        for other in [
            &[("authorization", "Bearer b")][..],
            &[("authorization", "")],
            &[("cookie", "Bearer a")],
            &[("authorization", "Bearer a"), ("cookie", "")],
            &[],
        ] {
            assert_ne!(one, scope(other));
        }
    }
}
