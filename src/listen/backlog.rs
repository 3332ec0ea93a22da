//! What is on its way to callers of HTTP/2 who may not take it: bounded for a worker, whatever windows they open.
//!
//! A response is asked for more only while its connection has less than [`SHARE`] that is not written, or the worker's
//! connections together less than [`ALL`]. So who reads has its data at full speed, and who does not has its share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// What one connection may have in any case, in bytes.
const SHARE: usize = 256 * 1024;

/// What the connections of a worker may have together before each is held to its share, in bytes.
const ALL: usize = 64 * 1024 * 1024;

/// What a piece takes beside its data, in bytes: an upstream may send one byte at a time.
const PIECE: usize = 512;

/// Of one worker.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    /// Connections that wait until there is less.
    waiting: Mutex<Vec<Weak<Share>>>,
}

/// Of one connection.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Backlog>,
    bytes: AtomicUsize,
    /// Responses that wait until there is less.
    waiting: Mutex<Vec<Waker>>,
    is_listed: AtomicBool,
}

/// Data on its way, counted until it is written or dropped.
struct OnItsWay {
    data: Bytes,
    share: Arc<Share>,
}

impl Backlog {
    /// The side of one more connection.
    pub(super) fn share(self: &Arc<Self>) -> Arc<Share> {
        let (bytes, waiting, is_listed) = Default::default();
        Arc::new(Share { all: Arc::clone(self), bytes, waiting, is_listed })
    }
}

impl Share {
    /// Ready where a response may be asked for more.
    pub(super) fn poll_room(self: &Arc<Self>, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        let mut waiting = lock(&self.waiting);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        if !self.is_listed.swap(true, Relaxed) {
            lock(&self.all.waiting).push(Arc::downgrade(self));
        }
        // another thread may have written meanwhile, and found nobody to wake
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Relaxed) < SHARE || self.all.bytes.load(Relaxed) < ALL
    }

    /// The same data, which counts until nobody has it any more.
    pub(super) fn count(self: &Arc<Self>, data: Bytes) -> Bytes {
        let bytes = data.len() + PIECE;
        self.bytes.fetch_add(bytes, Relaxed);
        self.all.bytes.fetch_add(bytes, Relaxed);
        Bytes::from_owner(OnItsWay { data, share: Arc::clone(self) })
    }

    fn is_gone(&self, bytes: usize) {
        let own = self.bytes.fetch_sub(bytes, Relaxed);
        let all = self.all.bytes.fetch_sub(bytes, Relaxed);
        if all >= ALL && all - bytes < ALL {
            let waiting = std::mem::take(&mut *lock(&self.all.waiting));
            for share in waiting.iter().filter_map(Weak::upgrade) {
                share.is_listed.store(false, Relaxed);
                share.wake();
            }
        } else if own >= SHARE && own - bytes < SHARE {
            self.wake();
        }
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl AsRef<[u8]> for OnItsWay {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.share.is_gone(self.data.len() + PIECE);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    impl Woken {
        fn polls(self: &Arc<Self>, share: &Arc<Share>) -> bool {
            share.poll_room(&Context::from_waker(&Waker::from(Arc::clone(self)))).is_ready()
        }

        fn is_woken(&self) -> bool {
            self.0.swap(false, Relaxed)
        }
    }

    fn data(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn one_connection_has_what_others_do_not_need_and_each_its_share() {
        let all = Arc::<Backlog>::default();
        let (greedy, modest) = (all.share(), all.share());
        let (one, other) = (Arc::<Woken>::default(), Arc::<Woken>::default());
        let mut taken = Vec::new();
        while one.polls(&greedy) {
            taken.push(greedy.count(data(SHARE)));
        }
        assert_eq!(taken.len(), ALL / SHARE, "all of it, and no more");
        assert!(other.polls(&modest), "its share is its own");
        let own = modest.count(data(SHARE));
        assert!(!other.polls(&modest));
        // its own is written
        drop(own.slice(..1));
        assert!(!other.is_woken(), "as long as there is a part of it");
        drop(own);
        assert!(other.is_woken() && !one.is_woken() && other.polls(&modest));
        // what another had is written
        let _own = modest.count(data(2 * SHARE));
        assert!(!other.polls(&modest) && !one.polls(&greedy));
        taken.truncate(taken.len() - 3);
        assert!(one.is_woken() && other.is_woken());
        assert!(one.polls(&greedy) && other.polls(&modest));
    }

    #[test]
    fn a_piece_counts_however_small_it_is() {
        let all = Arc::<Backlog>::default();
        let (others, share, woken) = (all.share(), all.share(), Arc::<Woken>::default());
        let _others = others.count(data(ALL));
        let mut taken = Vec::new();
        while woken.polls(&share) {
            taken.push(share.count(data(taken.len() % 2)));
        }
        assert!(taken.len() <= SHARE / PIECE, "{}", taken.len());
    }

    #[test]
    fn nobody_is_forgotten_and_nothing_is_kept() {
        let all = Arc::<Backlog>::default();
        let (share, woken) = (all.share(), Arc::<Woken>::default());
        let held = share.count(data(ALL));
        for _ in 0..1000 {
            assert!(!woken.polls(&share));
        }
        assert_eq!((lock(&share.waiting).len(), lock(&all.waiting).len()), (1, 1), "once each");
        drop(held);
        assert!(woken.is_woken());
        assert_eq!((all.bytes.load(Relaxed), share.bytes.load(Relaxed)), (0, 0));
        assert_eq!((lock(&share.waiting).len(), lock(&all.waiting).len()), (0, 0));
    }
}
