//! Attempts that are counted and not over yet. Who finds a budget spent waits for how they end: those that turn out to be
//! right give back what they took, and right passwords that come at once, as after a restart of a fleet, are no failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Key;

/// Requests that wait at once; a further one is refused as if nothing were under way.
const WAITING_MAX: usize = 1_024;

/// Budgets that one attempt draws on.
const KEYS: usize = 2;

/// The attempts of a process that are under way, by the budgets that they draw on.
#[derive(Debug)]
pub(super) struct UnderWay {
    pending: Arc<Mutex<HashMap<Key, Pending>>>,
    waiting: Semaphore,
    wait_max: Duration,
}

#[derive(Debug, Default)]
struct Pending {
    attempts: usize,
    one_is_over: Arc<Notify>,
}

/// One attempt, until it is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    keys: [Key; KEYS],
    pending: Arc<Mutex<HashMap<Key, Pending>>>,
}

/// Why an attempt cannot begin: its reason, and the budget that is spent.
pub(super) struct Spent<E> {
    pub(super) why: E,
    pub(super) key: Key,
}

impl UnderWay {
    /// Nobody waits for longer than `wait_max` in all.
    pub(super) fn new(wait_max: Duration) -> Self {
        Self { pending: Arc::default(), waiting: Semaphore::new(WAITING_MAX), wait_max }
    }

    /// Begins an attempt once `draw` succeeds. It is tried again each time that another on the same budget ends, while there
    /// are others.
    ///
    /// # Errors
    /// That of `draw`, where there is nothing to wait for any more.
    pub(super) async fn begin<T, E>(
        &self,
        keys: [Key; KEYS],
        mut draw: impl FnMut() -> Result<T, Spent<E>>,
    ) -> Result<(T, Begun), E> {
        let deadline = Instant::now() + self.wait_max;
        let mut place = None;
        loop {
            let (why, one_is_over) = match self.try_once(keys, &mut draw) {
                Ok(begun) => return Ok(begun),
                Err((why, None)) => return Err(why),
                Err((why, Some(one_is_over))) => (why, one_is_over),
            };
            if place.is_none() {
                place = self.waiting.try_acquire().ok();
            }
            if place.is_none() || timeout_at(deadline, one_is_over).await.is_err() {
                return Err(why);
            }
        }
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
        Ok((drawn, Begun { keys, pending: Arc::clone(&self.pending) }))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut pending = locked(&self.pending);
        for key in self.keys {
            let Some(others) = pending.get_mut(&key) else { continue };
            others.attempts -= 1;
            others.one_is_over.notify_waiters();
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
        let attempts = UnderWay::new(Duration::from_millis(20));
        let endless = attempts.begin([KEY, OTHER], || Ok::<_, Spent<&str>>(())).await.unwrap();
        assert_eq!(attempts.begin([KEY, OTHER], || spent::<()>(KEY)).await.unwrap_err(), "spent");
        drop(endless);
    }

    #[tokio::test]
    async fn only_those_on_the_budget_that_is_spent_are_waited_for() {
        let attempts = UnderWay::new(Duration::from_mins(1));
        let another = attempts.begin([OTHER, OTHER], || Ok::<_, Spent<&str>>(())).await.unwrap();
        assert_eq!(attempts.begin([KEY, OTHER], || spent::<()>(KEY)).now_or_never().unwrap().unwrap_err(), "spent");
        let mut waiting = Box::pin(attempts.begin([KEY, OTHER], || spent::<()>(OTHER)));
        assert!((&mut waiting).now_or_never().is_none());
        drop(another);
        assert_eq!(waiting.await.unwrap_err(), "spent");
        assert!(locked(&attempts.pending).is_empty());
    }

    #[tokio::test]
    async fn no_more_wait_than_there_is_room_for() {
        let attempts = UnderWay::new(Duration::from_mins(1));
        let _endless = attempts.begin([KEY, KEY], || Ok::<_, Spent<&str>>(())).await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| Box::pin(attempts.begin([KEY, KEY], || spent::<()>(KEY)))).collect();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        assert!(attempts.begin([KEY, KEY], || spent::<()>(KEY)).now_or_never().unwrap().is_err());
        waiting.pop();
        assert!(attempts.begin([KEY, KEY], || spent::<()>(KEY)).now_or_never().is_none());
    }
}
