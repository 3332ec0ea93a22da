//! A bounded table of verdicts, under keyed hashes of credentials; shared by all workers.
//!
//! What it adds to each entry is some sixty bytes: a place in a table, and one in an index of it. It is sharded, and each
//! shard full on its own, which keys that nobody outside can choose fill alike. Where there is no room, what goes is found by
//! a hand that moves on (second chance): what is past its time, or else what nobody has asked for since the hand was there
//! last. So what is used stays, however many come that are used once.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::cache::CacheKey;

/// Locks over which large tables are spread.
const SHARDS: usize = 64;

/// Entries of a shard, at least: a small table has fewer shards, so that chance does not fill one of them early.
const SHARD_ENTRIES_MIN: usize = 256;

/// Entries at which the hand looks before it takes the next as it comes.
const LOOKS_MAX: usize = 64;

/// What a shelf asks its entries.
pub(super) trait Shelved: Clone {
    /// Until when it serves as it is.
    fn fresh_until(&self) -> Instant;

    /// Notes that it was asked for.
    fn ask(&self);

    /// Whether it was asked for since this was last called.
    fn take_asked(&self) -> bool;
}

/// Entries by key, no more than there is room for.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    /// Of each shard.
    entries_max: usize,
    kept_for: Duration,
}

#[derive(Debug)]
struct Shard<T> {
    entries: IndexMap<CacheKey, T, BuildHasherDefault<KeyBits>>,
    /// Where the search for an entry that can go was left.
    hand: usize,
}

impl<T: Shelved> Shelf<T> {
    /// For at most so many entries; each is kept for some time after it is no longer fresh.
    pub(super) fn new(capacity: u64, kept_for: Duration) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let shards = (capacity / SHARD_ENTRIES_MIN).clamp(1, SHARDS);
        let shard = |_| Mutex::new(Shard { entries: IndexMap::default(), hand: 0 });
        Self { shards: (0..shards).map(shard).collect(), entries_max: capacity / shards, kept_for }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<T> {
        let shard = self.shard(key);
        let entry = shard.entries.get(key)?;
        entry.ask();
        Some(entry.clone())
    }

    /// Puts it there, in the place of what there was.
    pub(super) fn insert(&self, key: CacheKey, entry: T, now: Instant) {
        let mut shard = self.shard(&key);
        if !shard.entries.contains_key(&key) {
            shard.make_room(self.entries_max, self.kept_for, now);
            if shard.entries.len() >= self.entries_max {
                return;
            }
        }
        shard.entries.insert(key, entry);
    }

    pub(super) fn remove(&self, key: &CacheKey) -> Option<T> {
        self.shard(key).entries.swap_remove(key)
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).entries.len()).sum()
    }

    /// Forgets what is over, and gives its memory back.
    pub(super) fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = locked(shard);
            shard.entries.retain(|_, entry| !is_over(entry, self.kept_for, now));
            if shard.entries.len() < shard.entries.capacity() / 4 {
                shard.entries.shrink_to_fit();
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "an index below the number of shards, which is not zero")]
    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard<T>> {
        let [.., low, high] = *key;
        // not the bits by which the table of the shard is ordered
        locked(&self.shards[usize::from(u16::from_le_bytes([low, high])) % self.shards.len()])
    }
}

impl<T: Shelved> Shard<T> {
    fn make_room(&mut self, entries_max: usize, kept_for: Duration, now: Instant) {
        let mut looks = 0;
        while self.entries.len() >= entries_max && !self.entries.is_empty() {
            self.hand %= self.entries.len();
            let Some((_, entry)) = self.entries.get_index(self.hand) else { return };
            looks += 1;
            if is_over(entry, kept_for, now) || !entry.take_asked() || looks > LOOKS_MAX {
                // the last one comes to this place, and the hand goes on behind it
                self.entries.swap_remove_index(self.hand);
            }
            self.hand += 1;
        }
    }
}

/// Whether it cannot serve any more.
fn is_over(entry: &impl Shelved, kept_for: Duration, now: Instant) -> bool {
    entry.fresh_until().checked_add(kept_for).is_some_and(|end| now >= end)
}

/// A panic elsewhere leaves a table of whole entries as good as it was.
fn locked<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key is a keyed hash already: eight of its bytes are as good as any hash of it.
#[derive(Default)]
struct KeyBits(u64);

impl Hasher for KeyBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of the key, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone)]
    struct Lasting(Rc<Cell<bool>>, Instant);

    impl Shelved for Lasting {
        fn fresh_until(&self) -> Instant {
            self.1
        }

        fn ask(&self) {
            self.0.set(true);
        }

        fn take_asked(&self) -> bool {
            self.0.take()
        }
    }

    fn key(number: u32) -> CacheKey {
        // as spread as those of the cache are
        let mixed = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        mixed.rotate_left(64).wrapping_mul(0xd1b5_4a32_d192_ed03_9e37_79b9_7f4a_7c15).to_le_bytes()
    }

    #[test]
    fn there_are_never_more_than_there_is_room_for() {
        let now = Clock::system().now();
        for capacity in [0, 1, 10, 255, 256, 1000, 100_000] {
            let shelf = Shelf::new(capacity, Duration::ZERO);
            for number in 0..20_000 {
                shelf.insert(key(number), Lasting(Rc::default(), now + Duration::from_secs(1)), now);
            }
            let most = usize::try_from(capacity).unwrap();
            assert!(shelf.len() <= most, "{} of {capacity}", shelf.len());
            assert!(shelf.len() >= most.min(20_000) * 9 / 10, "{} of {capacity}", shelf.len());
        }
    }

    #[test]
    fn what_is_asked_for_outlives_a_flood_of_what_is_not() {
        let now = Clock::system().now();
        let shelf = Shelf::new(1000, Duration::ZERO);
        let entry = || Lasting(Rc::default(), now + Duration::from_secs(1));
        (0..50).for_each(|number| shelf.insert(key(number), entry(), now));
        for number in 50..20_000 {
            if number % 100 == 0 {
                assert!((0..50).all(|known| shelf.get(&key(known)).is_some()), "{number}");
            }
            shelf.insert(key(number), entry(), now);
        }
    }

    #[test]
    fn room_is_made_where_everything_was_asked_for() {
        let now = Clock::system().now();
        let shelf = Shelf::new(200, Duration::ZERO);
        for number in 0..2000 {
            shelf.insert(key(number), Lasting(Rc::default(), now + Duration::from_secs(1)), now);
            for known in 0..=number {
                shelf.get(&key(known));
            }
            assert!(shelf.get(&key(number)).is_some(), "{number}");
        }
        assert_eq!(shelf.len(), 200);
    }

    #[test]
    fn what_is_over_goes_first_and_is_swept() {
        let now = Clock::system().now();
        let later = now + Duration::from_secs(2);
        let shelf = Shelf::new(100, Duration::ZERO);
        for number in 0..100 {
            let seconds = if number % 2 == 0 { 1 } else { 10 };
            shelf.insert(key(number), Lasting(Rc::default(), now + Duration::from_secs(seconds)), now);
            shelf.get(&key(number));
        }
        (100..120).for_each(|number| {
            shelf.insert(key(number), Lasting(Rc::default(), later + Duration::from_secs(9)), later);
        });
        assert!((100..120).all(|number| shelf.get(&key(number)).is_some()));
        shelf.sweep(later);
        assert!((0..100).step_by(2).all(|number| shelf.get(&key(number)).is_none()));
        assert!(shelf.len() >= 60, "{}", shelf.len());
        assert!(shelf.remove(&key(119)).is_some() && shelf.get(&key(119)).is_none());
    }
}
