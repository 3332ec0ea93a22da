//! What changed when: the one thing that makes a cached principal invalid before its time.
//!
//! A [`Changes`] gives each change a generation. A cached answer remembers the generation at which its look-up began and
//! the keys of what it depends on, and is good while none of them changed since. Own changes are noted before they are
//! answered; those of other processes are heard by polling the store.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Change;
use crate::principal::IssuerId;

/// What a cached answer depends on: a keyed hash of a subject, a token or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DependencyKey(u64);

/// How many changed things are remembered; past it, everything looked up before is looked up again.
const CHANGED_MAX: usize = 65_536;

/// What changed, and at which generation.
#[derive(Debug)]
pub struct Changes {
    generation: AtomicU64,
    seen: RwLock<Seen>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Seen {
    /// The generation of each thing's last change.
    last: HashMap<DependencyKey, u64>,
    /// Whatever was looked up before this generation is invalid.
    floor: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Self { generation: AtomicU64::new(1), seen: RwLock::default(), hasher: RandomState::new() }
    }
}

impl Changes {
    /// The generation now; read it before a look-up begins.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The key of what `change` is about.
    pub fn key(&self, change: &Change) -> DependencyKey {
        DependencyKey(match change {
            Change::Subject(subject) => self.hasher.hash_one((0_u8, subject)),
            Change::Token(digest) => self.hasher.hash_one((1_u8, digest)),
            Change::Session(id) => self.hasher.hash_one((2_u8, id)),
            Change::Keys => self.hasher.hash_one(3_u8),
            Change::All => self.hasher.hash_one(4_u8),
        })
    }

    /// Notes a change: whatever depends on it and was looked up before is invalid from here on.
    pub fn note(&self, change: &Change) {
        if *change == Change::All {
            return self.note_all();
        }
        self.note_key(self.key(change));
    }

    /// What depends on the keys of another issuer.
    pub fn issuer_key(&self, issuer: IssuerId) -> DependencyKey {
        DependencyKey(self.hasher.hash_one((5_u8, issuer)))
    }

    /// Notes that another issuer has other keys. Each process hears of it from the issuer, so it is in no store.
    pub fn note_issuer(&self, issuer: IssuerId) {
        self.note_key(self.issuer_key(issuer));
    }

    fn note_key(&self, key: DependencyKey) {
        let mut seen = self.seen.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        if seen.last.len() >= CHANGED_MAX {
            seen.last.clear();
            seen.floor = next;
        }
        seen.last.insert(key, next);
        self.generation.store(next, Ordering::Release);
    }

    /// Makes everything invalid that was looked up before now; for when changes may have been missed.
    pub fn note_all(&self) {
        let mut seen = self.seen.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        seen.last.clear();
        seen.floor = next;
        self.generation.store(next, Ordering::Release);
    }

    /// Whether an answer that was looked up at `generation` and depends on `keys` is still good.
    pub fn unchanged(&self, generation: u64, keys: &[DependencyKey]) -> bool {
        if generation == self.generation() {
            return true;
        }
        let seen = self.seen.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        generation >= seen.floor && keys.iter().all(|key| seen.last.get(key).is_none_or(|&last| last <= generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Subject;

    #[test]
    fn only_what_depends_on_a_change_becomes_invalid() {
        let changes = Changes::default();
        let (ann, bob) = (Change::Subject(Subject::user("ann")), Change::Subject(Subject::user("bob")));
        let (at, keys) = (changes.generation(), [changes.key(&ann)]);
        changes.note(&bob);
        assert!(changes.unchanged(at, &keys));
        changes.note(&ann);
        assert!(!changes.unchanged(at, &keys));
        assert!(changes.unchanged(changes.generation(), &keys));
    }

    #[test]
    fn changes_that_were_missed_make_everything_invalid() {
        let changes = Changes::default();
        let (at, keys) = (changes.generation(), [changes.key(&Change::Keys)]);
        changes.note(&Change::All);
        assert!(!changes.unchanged(at, &keys));
        assert!(changes.unchanged(changes.generation(), &keys));
    }

    #[test]
    fn what_was_looked_up_before_the_list_overflowed_is_invalid() {
        let changes = Changes::default();
        let (at, keys) = (changes.generation(), [changes.key(&Change::Keys)]);
        for number in 0..=CHANGED_MAX {
            changes.note(&Change::Session(number.to_string().into()));
        }
        assert!(!changes.unchanged(at, &keys));
    }
}
