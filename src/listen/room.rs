//! Room for so many connections, over all workers; how many may change while they are open.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    /// Places that are taken beyond what there is room for, since the room has shrunk: not free again once they are left.
    excess: Arc<AtomicUsize>,
    size: Mutex<usize>,
}

/// A place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    excess: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        let size = possible(size);
        Self { free: Arc::new(Semaphore::new(size)), excess: Arc::default(), size: Mutex::new(size) }
    }

    /// Makes room for as many. Where more are open, none is closed, and none is taken before enough have ended.
    pub(super) fn resize(&self, size: usize) {
        let size = possible(size);
        let mut current = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = size.checked_sub(*current) {
            let repaid = (0..more).take_while(|_| take_one(&self.excess)).count();
            self.free.add_permits(more - repaid);
        } else {
            let fewer = *current - size;
            let taken = fewer - self.free.forget_permits(fewer);
            self.excess.fetch_add(taken, Relaxed);
        }
        *current = size;
    }

    /// A place, once there is one.
    pub(super) async fn enter(&self) -> Place {
        // as a semaphore that nobody closes, it always gives one in the end
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        Place { permit, excess: Arc::clone(&self.excess) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && take_one(&self.excess)
        {
            permit.forget();
        }
    }
}

fn possible(size: usize) -> usize {
    size.clamp(1, Semaphore::MAX_PERMITS)
}

fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Enters until there is no room.
    fn fill(room: &Room, places: &mut Vec<Place>) -> usize {
        let before = places.len();
        places.extend(std::iter::from_fn(|| room.enter().now_or_never()));
        places.len() - before
    }

    #[test]
    fn room_grows_and_shrinks_under_those_who_are_in() {
        let (room, mut places) = (Room::new(3), Vec::new());
        assert_eq!(fill(&room, &mut places), 3);
        room.resize(5);
        assert_eq!(fill(&room, &mut places), 2);
        room.resize(2);
        for left in [4, 3, 2] {
            places.pop();
            assert_eq!((places.len(), fill(&room, &mut places)), (left, 0), "nobody was sent away, nobody comes in");
        }
        places.pop();
        assert_eq!(fill(&room, &mut places), 1);
        room.resize(1);
        room.resize(4);
        assert_eq!(fill(&room, &mut places), 2, "what was owed is given back first");
        room.resize(1);
        places.clear();
        assert_eq!(fill(&room, &mut places), 1);
    }

    #[test]
    fn there_is_always_room_for_one() {
        let (room, mut places) = (Room::new(0), Vec::new());
        assert_eq!(fill(&room, &mut places), 1);
        places.clear();
        room.resize(0);
        assert_eq!(fill(&room, &mut places), 1);
    }
}
