//! A keyed, bounded set of budgets over a [`Clock`].
//!
//! Each is a GCRA cell (governor) in a store of ours: sharded, so that workers seldom meet, and of a fixed size, so that
//! no flood of keys takes more memory. A cell is one point in time: when the budget will be full again.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as _;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota as Cells, RateLimiter};
use indexmap::IndexMap;

use super::Quota;
use crate::clock::Clock;

/// Locks over which the keys are spread.
const SHARDS: usize = 64;

/// Keys that are looked at when one has to go.
const PROBES: usize = 8;

/// The longest time that is counted in nanoseconds (146 years), and the longest that a budget takes to fill (half of it):
/// their sum cannot overflow.
const NANOS_MAX: u64 = u64::MAX / 4;

/// Budgets of one size, one a key.
pub struct Bucket<K: Hash + Eq + Clone> {
    quota: Quota,
    /// One request's worth of time, in nanoseconds.
    each: u64,
    limiter: RateLimiter<K, Kept<K>, Ticks, StateInformationMiddleware>,
    shards: Arc<Shards<K>>,
}

impl<K: Hash + Eq + Clone> Bucket<K> {
    /// Budgets of this size, for at most `keys_max` keys at once (at least one in each of 64 shards).
    pub fn new(quota: &Quota, keys_max: usize, clock: Clock) -> Self {
        let span_max = NANOS_MAX / 2;
        let each = nanos(quota.per / quota.count.get()).clamp(1, span_max);
        // A burst that would take more than a lifetime to fill is as good as endless, and cut there.
        let burst = u32::try_from(span_max / each).unwrap_or(u32::MAX).min(quota.burst.get()).max(1);
        let cells = Cells::with_period(Duration::from_nanos(each))
            .unwrap_or(Cells::per_second(quota.count)) // `each` is not zero
            .allow_burst(std::num::NonZeroU32::new(burst).unwrap_or(quota.burst)); // nor is `burst`
        let shards = Arc::new(Shards::new(keys_max));
        let ticks = Ticks { base: clock.now(), clock };
        Self { quota: quota.clone(), each, limiter: RateLimiter::new(cells, Kept(Arc::clone(&shards)), ticks), shards }
    }

    /// The size of each budget.
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes one from the budget of `key`; what is left then.
    ///
    /// # Errors
    /// Where nothing is left: how long until there is.
    pub fn spend(&self, key: &K) -> Result<u32, Duration> {
        match self.limiter.check_key(key) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(self.limiter.clock().now())),
        }
    }

    /// Puts one back; a budget never becomes more than full.
    pub fn refund(&self, key: &K) {
        let now = self.now();
        let mut shard = self.shards.of(key);
        let full = shard.keys.get_mut(key).is_none_or(|full_at| {
            *full_at = full_at.saturating_sub(self.each);
            *full_at <= now
        });
        if full {
            shard.keys.swap_remove(key);
        }
    }

    /// How many keys are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.all.iter().map(|shard| locked(shard).keys.len()).sum()
    }

    /// Sets how many keys are kept at most; surplus ones go with the next that comes.
    pub fn set_keys_max(&self, keys_max: usize) {
        self.shards.keys_max.store(keys_max, Ordering::Relaxed);
    }

    /// Forgets keys whose budget is full again, and gives their memory back. To be called every minute or so.
    pub fn sweep(&self) {
        let now = self.now();
        for shard in &self.shards.all {
            let mut shard = locked(shard);
            shard.keys.retain(|_, full_at| *full_at > now);
            if shard.keys.len() < shard.keys.capacity() / 4 {
                shard.keys.shrink_to_fit();
            }
        }
    }

    /// Time as the cells have it; the limiter's zero is nanoseconds later than that of its clock, which does not matter.
    fn now(&self) -> u64 {
        self.limiter.clock().now().as_u64()
    }
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Bucket<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("quota", &self.quota).finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(NANOS_MAX)
}

/// Our clock as governor reads it.
struct Ticks {
    clock: Clock,
    base: Instant,
}

impl governor::clock::Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(nanos(self.clock.now().saturating_duration_since(self.base)))
    }
}

struct Shards<K> {
    all: Box<[Mutex<Shard<K>>]>,
    keys_max: AtomicUsize,
    /// Seeded for each bucket: nobody can choose keys that meet in one shard.
    hasher: RandomState,
}

struct Shard<K> {
    /// When the budget of a key will be full again.
    keys: IndexMap<K, u64, RandomState>,
    /// Where the search for a key that can go was left.
    hand: usize,
}

impl<K: Hash + Eq> Shards<K> {
    fn new(keys_max: usize) -> Self {
        let shard = || Mutex::new(Shard { keys: IndexMap::default(), hand: 0 });
        Self {
            all: (0..SHARDS).map(|_| shard()).collect(),
            keys_max: AtomicUsize::new(keys_max),
            hasher: RandomState::new(),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "an index below SHARDS, the number of shards")]
    fn of(&self, key: &K) -> MutexGuard<'_, Shard<K>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        locked(&self.all[hash])
    }
}

/// A panic elsewhere leaves a map of numbers as good as it was.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq> Shard<K> {
    /// Makes room for one more key.
    ///
    /// Of a few keys, that goes whose budget is full again or will be soonest: little or nothing is forgotten with it. Who
    /// floods us with a million keys spends little on each, so the flood displaces itself; a budget that somebody has
    /// exhausted is the last to go, and nobody is refused because the table is full.
    fn make_room(&mut self, keys_max: usize) {
        while self.keys.len() >= keys_max {
            let len = self.keys.len();
            let probed = (0..PROBES.min(len)).map(|step| (self.hand + step) % len);
            let Some(victim) = probed.min_by_key(|&at| self.keys.get_index(at).map(|(_, full_at)| *full_at)) else {
                return;
            };
            self.keys.swap_remove_index(victim);
            self.hand = (self.hand + PROBES) % len;
        }
    }
}

/// The shards as governor's store.
struct Kept<K>(Arc<Shards<K>>);

impl<K: Hash + Eq + Clone> StateStore for Kept<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.0.of(key);
        if let Some(full_at) = shard.keys.get_mut(key) {
            let (granted, next) = decide(Some(Nanos::new(*full_at)))?;
            *full_at = next.as_u64();
            return Ok(granted);
        }
        let (granted, next) = decide(None)?;
        shard.make_room((self.0.keys_max.load(Ordering::Relaxed) / SHARDS).max(1));
        shard.keys.insert(key.clone(), next.as_u64());
        Ok(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn quota(count: u32, per: Duration, burst: u32) -> Quota {
        Quota { count: NonZeroU32::new(count).unwrap(), per, burst: NonZeroU32::new(burst).unwrap() }
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_budget_holds_its_burst_and_refills() {
        let clock = Clock::system();
        let bucket = Bucket::new(&quota(30, MINUTE, 3), 100, clock.clone());
        assert_eq!([2, 1, 0].map(Ok), std::array::from_fn(|_| bucket.spend(&'a')));
        let wait = bucket.spend(&'a').unwrap_err();
        assert!(wait <= Duration::from_secs(2) && wait > Duration::from_secs(1), "{wait:?}");
        assert_eq!(bucket.spend(&'b'), Ok(2), "another's budget is its own");
        clock.advance(wait);
        assert!(bucket.spend(&'a').is_ok());
        assert!(bucket.spend(&'a').is_err());
        clock.advance(MINUTE);
        assert_eq!([2, 1, 0].map(Ok), std::array::from_fn(|_| bucket.spend(&'a')), "but no more than full");
        assert!(bucket.spend(&'a').is_err());
    }

    #[test]
    fn what_is_refunded_can_be_spent_again() {
        let bucket = Bucket::new(&quota(1, MINUTE, 2), 100, Clock::system());
        for _ in 0..10 {
            assert!(bucket.spend(&'a').is_ok());
            bucket.refund(&'a');
        }
        assert_eq!(bucket.len(), 0, "a full budget is not kept");
        bucket.refund(&'a');
        assert_eq!([bucket.spend(&'a'), bucket.spend(&'a')], [Ok(1), Ok(0)], "and is not more than full");
        assert!(bucket.spend(&'a').is_err());
        bucket.refund(&'a');
        assert_eq!(bucket.spend(&'a'), Ok(0));
    }

    #[test]
    fn full_budgets_are_forgotten() {
        let clock = Clock::system();
        let bucket = Bucket::new(&quota(60, MINUTE, 60), 1000, clock.clone());
        for key in 0..100 {
            bucket.spend(&key).unwrap();
        }
        while bucket.spend(&7).is_ok() {}
        clock.advance(Duration::from_secs(2));
        bucket.sweep();
        assert_eq!(bucket.len(), 1);
        clock.advance(MINUTE);
        bucket.sweep();
        assert_eq!(bucket.len(), 0);
    }

    #[test]
    fn a_flood_of_keys_frees_nobody_and_locks_nobody_out() {
        const KEYS_MAX: usize = 64 * 20;
        let bucket = Bucket::new(&quota(5, MINUTE, 5), KEYS_MAX, Clock::system());
        let guessed = 2_000_000;
        while bucket.spend(&guessed).is_ok() {}
        for key in 0..200_000 {
            assert!(bucket.spend(&key).is_ok(), "{key}");
        }
        assert!(bucket.len() <= KEYS_MAX, "{}", bucket.len());
        assert!(bucket.spend(&guessed).is_err(), "an exhausted budget stays exhausted");
        bucket.set_keys_max(64 * 2);
        assert!((0..100_000).all(|key| bucket.spend(&key).is_ok()));
        assert!(bucket.len() <= 64 * 2);
    }

    #[test]
    fn no_quota_overflows() {
        for (count, per, burst) in [
            (1, Duration::MAX, u32::MAX),
            (u32::MAX, Duration::from_nanos(1), u32::MAX),
            (u32::MAX, Duration::ZERO, 1),
            (1, Duration::from_hours(7 * 24), u32::MAX),
        ] {
            let clock = Clock::system();
            let bucket = Bucket::new(&quota(count, per, burst), 1, clock.clone());
            assert!(bucket.spend(&'a').is_ok());
            clock.advance(Duration::from_hours(24 * 365 * 100));
            assert!(bucket.spend(&'a').is_ok());
            bucket.refund(&'a');
            assert!(bucket.spend(&'a').is_ok());
        }
    }

    #[test]
    fn threads_spend_no_more_than_there_is() {
        let bucket = Bucket::new(&quota(1, Duration::from_hours(1), 100), 100, Clock::system());
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if bucket.spend(&'a').is_ok() {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 100);
    }
}
