//! Deadlines of requests, kept without a timer each.
//!
//! A runtime's timer per request costs 3-4 % of a small request. A worker's deadlines stand in one list instead, which a
//! single task looks through every [`TICK`] while there are any. A deadline is never early and at most one tick late.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock::Clock;

const TICK: Duration = Duration::from_millis(20);

/// Ticks without a deadline after which the task ends; the next deadline starts another.
const IDLE_TICKS: u32 = 50;

/// A deadline passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elapsed;

/// The deadlines of one worker.
pub(super) struct Deadlines {
    list: Rc<List>,
    clock: Clock,
}

#[derive(Default)]
struct List {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<usize>>,
    ticking: Cell<bool>,
}

struct Entry {
    at: Instant,
    waker: Waker,
}

/// An entry of the list; taken out when dropped.
struct Place<'a> {
    list: &'a List,
    index: usize,
    at: Instant,
}

impl Deadlines {
    pub(super) fn new(clock: Clock) -> Self {
        Self { list: Rc::default(), clock }
    }

    /// The output of `future`, unless `deadline` passes first. `deadline` is asked when the future waits, and again when
    /// the time it gave has come, so that progress may move it.
    pub(super) async fn within<F: Future>(
        &self,
        deadline: impl Fn() -> Instant,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        let mut place: Option<Place<'_>> = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match &mut place {
                None => place = Some(self.enter(deadline(), cx.waker())),
                Some(place) => {
                    let now = self.clock.now();
                    if now >= place.at {
                        place.at = deadline();
                        if now >= place.at {
                            return Poll::Ready(Err(Elapsed));
                        }
                    }
                    place.wait(cx.waker());
                }
            }
            Poll::Pending
        })
        .await
    }

    fn enter(&self, at: Instant, waker: &Waker) -> Place<'_> {
        let entry = Some(Entry { at, waker: waker.clone() });
        let mut entries = self.list.entries.borrow_mut();
        let free = self.list.free.borrow_mut().pop();
        let reused = free.and_then(|index| entries.get_mut(index).map(|slot| (index, slot)));
        let index = if let Some((index, slot)) = reused {
            *slot = entry;
            index
        } else {
            entries.push(entry);
            entries.len() - 1
        };
        if !self.list.ticking.replace(true) {
            tokio::task::spawn_local(tick(Rc::downgrade(&self.list), self.clock.clone()));
        }
        Place { list: &self.list, index, at }
    }
}

impl Place<'_> {
    fn wait(&self, waker: &Waker) {
        if let Some(Some(entry)) = self.list.entries.borrow_mut().get_mut(self.index) {
            entry.at = self.at;
            entry.waker.clone_from(waker);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.list.entries.borrow_mut().get_mut(self.index) {
            *slot = None;
            self.list.free.borrow_mut().push(self.index);
        }
    }
}

async fn tick(list: Weak<List>, clock: Clock) {
    let mut idle = 0;
    while idle < IDLE_TICKS {
        tokio::time::sleep(TICK).await;
        let Some(list) = list.upgrade() else { return };
        let now = clock.now();
        idle += 1;
        for entry in list.entries.borrow().iter().flatten() {
            idle = 0;
            if now >= entry.at {
                entry.waker.wake_by_ref();
            }
        }
        if idle == IDLE_TICKS {
            // a burst's list is not kept for ever
            list.entries.take();
            list.free.take();
            list.ticking.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::forward::tests::local;

    #[test]
    fn what_is_ready_is_had_and_what_is_late_is_not() {
        local(async {
            let clock = Clock::system();
            let deadlines = Deadlines::new(clock.clone());
            let in_an_hour = clock.now() + Duration::from_hours(1);
            assert_eq!(deadlines.within(|| in_an_hour, pin!(async { 7 })).await, Ok(7));
            let late = async {
                clock.advance(Duration::from_secs(3601));
                std::future::pending::<()>().await;
            };
            assert_eq!(deadlines.within(|| in_an_hour, pin!(late)).await, Err(Elapsed));
            assert!(deadlines.list.entries.borrow().iter().all(Option::is_none));
        });
    }

    #[test]
    fn progress_moves_a_deadline() {
        local(async {
            let clock = Clock::system();
            let deadlines = Deadlines::new(clock.clone());
            let at = Cell::new(clock.now() + Duration::from_mins(1));
            let ends = async {
                clock.advance(Duration::from_secs(61));
                at.set(clock.now() + Duration::from_mins(1));
                tokio::time::sleep(TICK * 3).await;
            };
            assert_eq!(deadlines.within(|| at.get(), pin!(ends)).await, Ok(()));
        });
    }
}
