//! What one worker has met of the cache lately, so that most requests ask nothing that other workers ask too.
//!
//! It holds entries of the shelf, each under the same keyed hash and judged by the same rules at every hit: what is void
//! there is void here at the same instant. It is small, and forgets one entry for another without counting who is asked for
//! more often; the shelf knows better, and is told of every [`TOLD_EVERY`]th hit so that it does not take what is used for
//! unused.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::{Cache, CacheKey, Entry, Refusal, Rests};
use super::{Identity, Refused};
use crate::clock::UnixSeconds;

/// Principals, and as many refusals, at most; of 32 bytes each beside what the shelf has of them.
const PLACES: usize = 2048;

/// Hits of an entry until the shelf is asked again.
const TOLD_EVERY: u8 = 64;

/// How long wall time is reckoned from monotonic time before it is read again.
const RECKONED_FOR: Duration = Duration::from_secs(1);

/// Principals and refusals that one worker remembers. A flood of bad credentials pushes no principal out.
#[derive(Debug, Default)]
pub struct Recent {
    accepted: Places<Arc<Identity>>,
    refused: Places<Refusal>,
    /// Of which shelves these are.
    shelves: Cell<u64>,
    wall: Cell<Option<(Instant, Duration)>>,
}

/// By the key's own bits, which nobody outside can choose; made at the first use.
#[derive(Debug)]
struct Places<T>(RefCell<Vec<Option<Place<T>>>>);

#[derive(Debug)]
struct Place<T> {
    key: CacheKey,
    entry: Arc<Entry<T>>,
    hits: u8,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Rests + Clone> Places<T> {
    fn find(&self, key: &CacheKey, is_good: impl FnOnce(&Entry<T>) -> bool) -> Option<T> {
        let mut places = self.0.borrow_mut();
        let place = places.get_mut(index(key))?.as_mut().filter(|place| place.key == *key)?;
        place.hits = place.hits.wrapping_add(1);
        let good = place.hits % TOLD_EVERY != 0 && is_good(&place.entry);
        good.then(|| place.entry.outcome().clone())
    }

    fn note(&self, key: &CacheKey, entry: &Arc<Entry<T>>) {
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            places.resize_with(PLACES, || None);
        }
        if let Some(place) = places.get_mut(index(key)) {
            *place = Some(Place { key: *key, entry: Arc::clone(entry), hits: 0 });
        }
    }

    fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Recent {
    /// A principal or a refusal within its lifetime; `None` where the shelf is to be asked.
    pub(super) fn find(&self, cache: &Cache, key: &CacheKey, now: Instant) -> Option<Result<Arc<Identity>, Refused>> {
        if self.shelves.get() != cache.shelves_number() {
            return None;
        }
        let unix = || self.unix(cache, now);
        let accepted = self.accepted.find(key, |entry| cache.is_fresh(entry, now, unix));
        let refused = || self.refused.find(key, |entry| cache.is_fresh(entry, now, unix));
        accepted.map(Ok).or_else(|| refused().map(|refusal| Err(refusal.refused)))
    }

    /// Notes what the shelf had, `number` being that of the shelves before they were asked.
    pub(super) fn note_accepted(&self, number: u64, key: &CacheKey, entry: &Arc<Entry<Arc<Identity>>>) {
        self.take_shelves(number);
        self.accepted.note(key, entry);
    }

    /// The same of a refusal.
    pub(super) fn note_refused(&self, number: u64, key: &CacheKey, entry: &Arc<Entry<Refusal>>) {
        self.take_shelves(number);
        self.refused.note(key, entry);
    }

    fn take_shelves(&self, number: u64) {
        if self.shelves.replace(number) != number {
            self.accepted.forget();
            self.refused.forget();
        }
    }

    /// Wall time, read once a second: in between it moves as monotonic time does. A clock that was set, or a machine that
    /// slept, is noticed within that second.
    fn unix(&self, cache: &Cache, now: Instant) -> UnixSeconds {
        let passed = |read_at: Instant| now.checked_duration_since(read_at).filter(|passed| *passed < RECKONED_FOR);
        let reckoned = self.wall.get().and_then(|(read_at, wall)| Some(wall + passed(read_at)?));
        let wall = reckoned.unwrap_or_else(|| {
            let wall = cache.since_1970();
            self.wall.set(Some((now, wall)));
            wall
        });
        UnixSeconds::try_from(wall.as_secs()).unwrap_or(UnixSeconds::MAX)
    }
}

fn index(key: &CacheKey) -> usize {
    let [low, high, ..] = *key;
    usize::from(u16::from_le_bytes([low, high])) % PLACES
}
