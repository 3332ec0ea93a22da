//! Room for connections to servers: bounded for all upstreams together, and none may take it all.
//!
//! An upstream may open a connection while it has fewer than [`SHARE`] for each place that is free. So one whose servers
//! are slow, and which fills up, leaves a fifth to the others; two of that kind leave a ninth; and what nobody else needs
//! is not kept from anybody. An upstream that is alone has all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one upstream for each free place.
const SHARE: usize = 4;

/// The room of the process.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    upstreams: Arc<AtomicUsize>,
}

/// One upstream's side of it.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    taken: Arc<AtomicUsize>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(places: usize) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(places)), upstreams: Arc::default() }
    }

    /// The places that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> &Semaphore {
        &self.free
    }

    /// The side of one more upstream.
    pub(super) fn share(&self) -> Share {
        self.upstreams.fetch_add(1, Relaxed);
        Share { room: self.clone(), taken: Arc::default() }
    }
}

impl Share {
    /// A place, where there is one for this upstream. Workers that ask at the same instant may take one each too many.
    pub(super) fn enter(&self) -> Option<Place> {
        let Room { free, upstreams } = &self.room;
        let fair = free.available_permits().saturating_mul(SHARE);
        if upstreams.load(Relaxed) > 1 && self.taken.load(Relaxed) >= fair {
            return None;
        }
        let permit = Arc::clone(free).try_acquire_owned().ok()?;
        self.taken.fetch_add(1, Relaxed);
        Some(Place { taken: Arc::clone(&self.taken), _permit: permit })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.upstreams.fetch_sub(1, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(share: &Share) -> Vec<Place> {
        std::iter::from_fn(|| share.enter()).collect()
    }

    #[test]
    fn none_takes_all_where_there_are_others() {
        let room = Room::new(100);
        let first = room.share();
        assert_eq!(fill(&first).len(), 100, "alone it has all, and gives it back");
        let (second, third) = (room.share(), room.share());
        let greedy = fill(&first);
        assert_eq!(greedy.len(), 80);
        let greedy_too = fill(&second);
        assert_eq!(greedy_too.len(), 16);
        assert_eq!(fill(&third).len(), 4, "there is always some left for one that has none");
        drop(greedy);
        assert!(fill(&third).len() > 60, "what is given back is there for whoever needs it");
        drop((greedy_too, second, third));
        assert_eq!(fill(&first).len(), 100);
    }

    #[test]
    fn one_place_is_enough_to_begin_with() {
        let room = Room::new(1);
        let (first, second) = (room.share(), room.share());
        let only = first.enter();
        assert!(only.is_some() && second.enter().is_none());
        drop(only);
        assert!(second.enter().is_some());
    }
}
