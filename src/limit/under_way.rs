//! Attempts that are counted and not over yet. Who finds a budget spent waits for how they end: those that turn out to be
//! right give back what they took, and right passwords that come at once, as after a restart of a fleet, are no failures.
//!
//! What all gateways share may be spent by attempts at another one, of which nobody here hears: it is asked again a few times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

use super::Key;

/// Requests that wait at once; a further one is refused as if nothing were under way.
const WAITING_MAX: usize = 1_024;

/// Pauses before what all gateways share is asked again.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

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
    pauses: std::slice::Iter<'static, Duration>,
}

impl UnderWay {
    /// Nobody waits for longer than `wait_max` in all.
    pub(super) fn new(wait_max: Duration) -> Self {
        Self { pending: Arc::default(), waiting: Semaphore::new(WAITING_MAX), wait_max }
    }

    pub(super) fn waiter(&self) -> Waiter<'_> {
        Waiter { under_way: self, deadline: Instant::now() + self.wait_max, place: None, pauses: PAUSES.iter() }
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

    /// Waits, where all gateways together have spent a budget, for one of ours that is counted there to end, or else a little
    /// for one of another gateway. False where there is no more waiting. Only those are waited for, or all that are refused
    /// would wake each other to be refused once more.
    pub(super) async fn waits_for_all(&mut self, key: Key) -> bool {
        if !self.has_place() {
            return false;
        }
        let one_is_over = {
            let pending = locked(&self.under_way.pending);
            let confirmed = pending.get(&key).filter(|others| others.confirmed > 0);
            confirmed.map(|others| Arc::clone(&others.a_confirmed_one_is_over).notified_owned())
        };
        if let Some(one_is_over) = one_is_over {
            return timeout_at(self.deadline, one_is_over).await.is_ok();
        }
        let Some(pause) = self.pauses.next() else { return false };
        sleep(*pause).await;
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
    async fn where_all_gateways_have_spent_it_those_that_they_count_are_waited_for_and_else_they_are_asked_again() {
        let granted = || Ok::<u8, Spent<&'static str>>(0);
        let attempts = UnderWay::new(Duration::from_mins(1));
        let (mut first, mut second, mut third) = (attempts.waiter(), attempts.waiter(), attempts.waiter());
        let (_, mut counted) = first.begin([KEY, OTHER], granted).await.unwrap();
        let (_, refused) = second.begin([KEY, OTHER], granted).await.unwrap();
        counted.confirm();
        let mut waiting = Box::pin(third.waits_for_all(KEY));
        assert!((&mut waiting).now_or_never().is_none());
        drop(refused);
        assert!((&mut waiting).now_or_never().is_none(), "one that they did not count is nothing to them");
        drop(counted);
        assert!(waiting.await);
        let mut asked = 0;
        while third.waits_for_all(KEY).await {
            asked += 1;
        }
        assert_eq!(asked, PAUSES.len());
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
