//! What a worker counts of upstreams, each in a cell of its own.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Cell, Durations, WorkerMetrics, add, lock};

/// Upstream, server, outcome.
type Requests = (Arc<str>, Arc<str>, &'static str, Cell);

/// The cells of one worker, as a scrape reads them.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) requests: Mutex<Vec<Requests>>,
    pub(super) durations: Mutex<Vec<(Arc<str>, Arc<Durations>)>>,
}

/// A number that one worker counts; it stays on its thread.
#[derive(Debug)]
pub struct Counter {
    cell: Cell,
    thread: PhantomData<Rc<()>>,
}

impl Counter {
    /// One more.
    pub fn inc(&self) {
        add(&self.cell, 1);
    }
}

/// How long something took, as one worker saw it; it stays on its thread.
#[derive(Debug)]
pub struct Timer {
    durations: Arc<Durations>,
    thread: PhantomData<Rc<()>>,
}

impl Timer {
    /// It took so long.
    pub fn observe(&self, took: Duration) {
        self.durations.observe(took);
    }
}

impl WorkerMetrics {
    /// Counts requests that were sent to a server, by how they ended. The same labels are the same number, so that a server
    /// that is made anew at each reload takes no room.
    pub fn upstream_requests(&self, upstream: &Arc<str>, server: &Arc<str>, outcome: &'static str) -> Counter {
        let mut cells = lock(&self.shared.upstreams.requests);
        let known = cells.iter().find(|(u, s, o, _)| (u, s, *o) == (upstream, server, outcome));
        let known = known.map(|(.., cell)| Arc::clone(cell));
        let cell = known.unwrap_or_else(|| {
            let cell = Cell::default();
            cells.push((Arc::clone(upstream), Arc::clone(server), outcome, Arc::clone(&cell)));
            cell
        });
        Counter { cell, thread: PhantomData }
    }

    /// Times how long an upstream takes to begin its response.
    pub fn upstream_duration(&self, upstream: &Arc<str>) -> Timer {
        let mut cells = lock(&self.shared.upstreams.durations);
        let known = cells.iter().find(|(name, _)| name == upstream).map(|(_, durations)| Arc::clone(durations));
        let durations = known.unwrap_or_else(|| {
            let durations = Arc::<Durations>::default();
            cells.push((Arc::clone(upstream), Arc::clone(&durations)));
            durations
        });
        Timer { durations, thread: PhantomData }
    }
}
