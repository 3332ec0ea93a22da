//! Attempts that are counted and not over yet. Who finds a budget spent waits for how they end: those that turn out to be
//! right give back what they took, and right passwords that come at once, as after a restart of a fleet, are no failures.
//!
//! What all gateways share says whether attempts under way hold some of it, at whichever gateway. Of those elsewhere nobody
//! here hears: it is asked again and again while it says so, for as long as anybody waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Key;

/// Requests that wait at once; a further one is refused as if nothing were under way.
const WAITING_MAX: usize = 1_024;

/// Pauses before what all gateways share is asked again: the first, each further one being twice as long, and the longest.
/// A password takes some tens of milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// Budgets that one attempt draws on.
const KEYS: usize = 2;

/// The attempts of a process that are under way, by the budgets that they draw on.
#[derive(Debug)]
pub(super) struct UnderWay {
    pending: Arc<Mutex<HashMap<Key, Pending>>>,
    waiting: Semaphore,
    wait_max: Duration,
}

/// Attempts on one budget.
#[derive(Debug, Default)]
struct Pending {
    attempts: usize,
    one_is_over: Arc<Notify>,
    /// Those that all gateways count too.
    confirmed: usize,
    a_confirmed_one_is_over: Arc<Notify>,
}

/// One attempt, until it is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    keys: [Key; KEYS],
    confirmed: bool,
    pending: Arc<Mutex<HashMap<Key, Pending>>>,
}

/// Why an attempt cannot begin: its reason, and the budget that is spent.
pub(super) struct Spent<E> {
    pub(super) why: E,
    pub(super) key: Key,
}

/// A request that may have to wait, for a bounded time in all.
pub(super) struct Waiter<'a> {
    under_way: &'a UnderWay,
    deadline: Instant,
    place: Option<SemaphorePermit<'a>>,
    pause: Duration,
}

impl UnderWay {
    /// Nobody waits for longer than `wait_max` in all.
    pub(super) fn new(wait_max: Duration) -> Self {
        Self { pending: Arc::default(), waiting: Semaphore::new(WAITING_MAX), wait_max }
    }

    pub(super) fn waiter(&self) -> Waiter<'_> {
        Waiter { under_way: self, deadline: Instant::now() + self.wait_max, place: None, pause: PAUSE_MIN }
    }

    /// Under one lock: nothing that ends between a look at the budget and a look at what is under way is missed.
    fn try_once<T, E>(
        &self,
        keys: [Key; KEYS],
        draw: &mut impl FnMut() -> Result<T, Spent<E>>,
    ) -> Result<(T, Begun), (E, Option<OwnedNotified>)> {
        let mut pending = locked(&self.pending);
        let drawn = match draw() {
            Ok(drawn) => drawn,
            Err(Spent { why, key }) => {
                let others = pending.get(&key).map(|others| Arc::clone(&others.one_is_over).notified_owned());
                return Err((why, others));
            }
        };
        for key in keys {
            pending.entry(key).or_default().attempts += 1;
        }
        Ok((drawn, Begun { keys, confirmed: false, pending: Arc::clone(&self.pending) }))
    }
}

impl Waiter<'_> {
    /// Begins an attempt once `draw` succeeds. It is tried again each time that another on the same budget ends, while there
    /// are others.
    ///
    /// # Errors
    /// That of `draw`, where there is nothing to wait for any more.
    pub(super) async fn begin<T, E>(
        &mut self,
        keys: [Key; KEYS],
        mut draw: impl FnMut() -> Result<T, Spent<E>>,
    ) -> Result<(T, Begun), E> {
        loop {
            match self.under_way.try_once(keys, &mut draw) {
                Ok(begun) => return Ok(begun),
                Err((why, None)) => return Err(why),
                Err((why, Some(one_is_over))) => {
                    if !self.has_place() || timeout_at(self.deadline, one_is_over).await.is_err() {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Waits, where attempts under way hold what is left of a budget of all gateways, for one of ours that is counted there to
    /// end, or a little for those of others. False where there is no more waiting.
    pub(super) async fn waits_for_all(&mut self, key: Key) -> bool {
        if !self.has_place() {
            return false;
        }
        let one_is_over = {
            let pending = locked(&self.under_way.pending);
            let confirmed = pending.get(&key).filter(|others| others.confirmed > 0);
            confirmed.map(|others| Arc::clone(&others.a_confirmed_one_is_over).notified_owned())
        };
        let end = self.deadline.min(Instant::now() + self.pause);
        self.pause = PAUSE_MAX.min(self.pause * 2);
        match one_is_over {
            // be it that it is over, or that one of another gateway may be
            Some(one_is_over) => drop(timeout_at(end, one_is_over).await),
            None => sleep_until(end).await,
        }
        Instant::now() < self.deadline
    }

    fn has_place(&mut self) -> bool {
        if self.place.is_none() {
            self.place = self.under_way.waiting.try_acquire().ok();
        }
        self.place.is_some()
    }
}

impl Begun {
    /// All gateways count it.
    pub(super) fn confirm(&mut self) {
        let mut pending = locked(&self.pending);
        self.confirmed = true;
        for key in self.keys {
            pending.entry(key).or_default().confirmed += 1;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut pending = locked(&self.pending);
        for key in self.keys {
            let Some(others) = pending.get_mut(&key) else { continue };
            others.attempts -= 1;
            others.one_is_over.notify_waiters();
            if self.confirmed {
                others.confirmed -= 1;
                others.a_confirmed_one_is_over.notify_waiters();
            }
            if others.attempts == 0 {
                pending.remove(&key);
            }
        }
    }
}

/// Counts are as good after a panic as before.
fn locked(pending: &Mutex<HashMap<Key, Pending>>) -> MutexGuard<'_, HashMap<Key, Pending>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const KEY: Key = Key(1);
    const OTHER: Key = Key(2);

    fn spent<T>(key: Key) -> Result<T, Spent<&'static str>> {
        Err(Spent { why: "spent", key })
    }

    #[tokio::test]
    async fn a_wait_has_an_end() {
        let granted = || Ok::<u8, Spent<&'static str>>(0);
        let attempts = UnderWay::new(Duration::from_millis(20));
        let (mut first, mut second) = (attempts.waiter(), attempts.waiter());
        let (_, mut endless) = first.begin([KEY, OTHER], granted).await.unwrap();
        assert_eq!(second.begin([KEY, OTHER], || spent::<u8>(KEY)).await.unwrap_err(), "spent");
        endless.confirm();
        assert!(!attempts.waiter().waits_for_all(KEY).await);
        drop(endless);
    }

    #[tokio::test]
    async fn only_those_on_the_budget_that_is_spent_are_waited_for() {
        let granted = || Ok::<u8, Spent<&'static str>>(0);
        let attempts = UnderWay::new(Duration::from_mins(1));
        let (mut first, mut second) = (attempts.waiter(), attempts.waiter());
        let (_, another) = first.begin([OTHER, OTHER], granted).await.unwrap();
        let refused = second.begin([KEY, OTHER], || spent::<u8>(KEY)).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err(), "spent");
        let mut waiting = Box::pin(second.begin([KEY, OTHER], || spent::<u8>(OTHER)));
        assert!((&mut waiting).now_or_never().is_none());
        drop(another);
        assert_eq!(waiting.await.unwrap_err(), "spent");
        assert!(locked(&attempts.pending).is_empty());
    }

    #[tokio::test]
    async fn all_gateways_are_asked_again_once_one_of_ours_is_over_or_after_a_pause_for_a_bounded_time() {
        let granted = || Ok::<u8, Spent<&'static str>>(0);
        let wait_max = Duration::from_millis(500);
        let attempts = UnderWay::new(wait_max);
        let (mut first, mut second, mut third) = (attempts.waiter(), attempts.waiter(), attempts.waiter());
        let (_, mut counted) = first.begin([KEY, OTHER], granted).await.unwrap();
        let (_, refused) = second.begin([KEY, OTHER], granted).await.unwrap();
        counted.confirm();
        let begin = Instant::now();
        let mut waiting = Box::pin(third.waits_for_all(KEY));
        assert!((&mut waiting).now_or_never().is_none());
        drop(refused);
        assert!((&mut waiting).now_or_never().is_none(), "one that they did not count is nothing to them");
        drop(counted);
        assert_eq!((&mut waiting).now_or_never(), Some(true));
        drop(waiting);
        let mut asked = 0;
        while third.waits_for_all(KEY).await {
            asked += 1;
        }
        assert!(begin.elapsed() >= wait_max && (1..=5).contains(&asked), "{asked} in {:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn no_more_wait_than_there_is_room_for() {
        let granted = || Ok::<u8, Spent<&'static str>>(0);
        let attempts = UnderWay::new(Duration::from_mins(1));
        let mut first = attempts.waiter();
        let _endless = first.begin([KEY, KEY], granted).await.unwrap();
        let mut waiters: Vec<_> = (0..WAITING_MAX).map(|_| attempts.waiter()).collect();
        for waiter in &mut waiters {
            assert!(waiter.begin([KEY, KEY], || spent::<u8>(KEY)).now_or_never().is_none());
        }
        let mut last = attempts.waiter();
        assert!(last.begin([KEY, KEY], || spent::<u8>(KEY)).now_or_never().unwrap().is_err());
        waiters.pop();
        assert!(last.begin([KEY, KEY], || spent::<u8>(KEY)).now_or_never().is_none());
    }
}
