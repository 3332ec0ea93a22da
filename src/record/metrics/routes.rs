//! What a worker counts of each route: a block of a few lines of memory, all blocks in few pieces.
//!
//! With many routes each request meets one that the processor has forgotten, so that what counts is how much memory a count
//! touches and over how many pages it lies. A block has room for the ways in which nearly all requests of its route end;
//! what is rarer has a cell elsewhere.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;

use super::{Cell, Durations, METHODS, OTHER_METHOD, add, lock};

/// What was decided of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An upstream answered, or should have.
    Forwarded,
    /// The gateway answered itself.
    Answered,
    /// It was refused.
    Refused,
    /// The caller went away before there was an answer.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Forwarded, Self::Answered, Self::Refused, Self::Abandoned];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Where a worker counts a route's requests; good for as long as the worker, and for it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// Blocks that are made at once.
const PIECE: usize = 32;

/// Ways to end that a block has room for.
const WAYS: usize = 4;

/// Everything that is counted of one route.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Block {
    ways: [Counted; WAYS],
    durations: Durations,
}

/// How often requests ended one way.
#[derive(Debug, Default)]
struct Counted {
    /// A [`Way`], written once; 0 while there is none.
    way: AtomicU64,
    number: AtomicU64,
}

/// How a request ended, in a number that is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way(u64);

impl Way {
    /// `method`: an index into [`METHODS`], or past them. `reason`: a number of the worker's.
    fn new(method: usize, status: u16, outcome: Outcome, reason: u16) -> Self {
        let method = u8::try_from(method).unwrap_or(u8::MAX);
        let [status_low, status_high] = status.to_le_bytes();
        let [reason_low, reason_high] = reason.to_le_bytes();
        Self(u64::from_le_bytes([1, method, outcome as u8, status_low, status_high, reason_low, reason_high, 0]))
    }

    fn labels(self, reasons: &[&'static str]) -> Ended {
        let [_, method, outcome, status_low, status_high, reason_low, reason_high, _] = self.0.to_le_bytes();
        let reason = u16::from_le_bytes([reason_low, reason_high]);
        Ended {
            method: METHODS.get(usize::from(method)).map_or(OTHER_METHOD, Method::as_str),
            status: u16::from_le_bytes([status_low, status_high]),
            outcome: Outcome::ALL.get(usize::from(outcome)).map_or("", |outcome| outcome.name()),
            reason: reason.checked_sub(1).map_or("-", |index| reasons.get(usize::from(index)).copied().unwrap_or("-")),
        }
    }
}

/// How requests ended, as a scrape tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
}

type Piece = Arc<[Block; PIECE]>;

/// What one worker has counted, as a scrape reads it. Its locks are taken where something is seen first, and at a scrape.
#[derive(Debug, Default)]
pub(super) struct Shared {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The routes' names, in the order of their blocks.
    names: Vec<Arc<str>>,
    pieces: Vec<Piece>,
    /// The ways that found no room, by the number of their route.
    further: Vec<(u32, Way, Cell)>,
    reasons: Vec<&'static str>,
}

/// One worker's side of it; not shared between threads.
#[derive(Debug, Default)]
pub(super) struct Routes {
    places: RefCell<HashMap<Arc<str>, Place, foldhash::fast::RandomState>>,
    pieces: RefCell<Vec<Piece>>,
    further: RefCell<HashMap<(u32, Way), Cell, foldhash::fast::RandomState>>,
    reasons: RefCell<Vec<&'static str>>,
}

impl Routes {
    /// Where requests of this route are counted.
    pub(super) fn place(&self, shared: &Shared, name: &Arc<str>) -> Place {
        let mut places = self.places.borrow_mut();
        if let Some(known) = places.get(name) {
            return *known;
        }
        let place = Place(u32::try_from(places.len()).unwrap_or(u32::MAX));
        let mut known = lock(&shared.known);
        if places.len() == known.pieces.len() * PIECE {
            let piece = Piece::default();
            known.pieces.push(Arc::clone(&piece));
            self.pieces.borrow_mut().push(piece);
        }
        known.names.push(Arc::clone(name));
        places.insert(Arc::clone(name), place);
        place
    }

    /// Counts a request that has ended; `reason` is why it was refused.
    pub(super) fn count(
        &self,
        shared: &Shared,
        place: Place,
        (method, status): (&Method, u16),
        (outcome, reason): (Outcome, Option<&'static str>),
        took: Duration,
    ) {
        let method = METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len());
        let reason = reason.map_or(0, |reason| self.reason(shared, reason));
        let way = Way::new(method, status, outcome, reason);
        let pieces = self.pieces.borrow();
        let (piece, index) = place.at();
        let Some(block) = pieces.get(piece).and_then(|piece| piece.get(index)) else { return };
        block.durations.observe(took);
        for counted in &block.ways {
            match counted.way.load(Ordering::Relaxed) {
                known if known == way.0 => return add(&counted.number, 1),
                0 => {
                    add(&counted.number, 1);
                    return counted.way.store(way.0, Ordering::Release);
                }
                _ => {}
            }
        }
        let mut further = self.further.borrow_mut();
        let cell = further.entry((place.0, way)).or_insert_with(|| {
            let cell = Cell::default();
            lock(&shared.known).further.push((place.0, way, Arc::clone(&cell)));
            cell
        });
        add(cell, 1);
    }

    /// The number of a reason, from 1. There are as many as the program has words for them.
    fn reason(&self, shared: &Shared, reason: &'static str) -> u16 {
        let mut reasons = self.reasons.borrow_mut();
        // the same word at two places of memory is the same label at a scrape
        let known = reasons.iter().position(|known| std::ptr::eq(*known, reason));
        let index = known.unwrap_or_else(|| {
            reasons.push(reason);
            lock(&shared.known).reasons.push(reason);
            reasons.len() - 1
        });
        u16::try_from(index + 1).unwrap_or(0)
    }
}

impl Place {
    fn at(self) -> (usize, usize) {
        let number = self.0 as usize;
        (number / PIECE, number % PIECE)
    }
}

impl Shared {
    /// Tells how many requests of which route ended how.
    pub(super) fn each_way(&self, mut tell: impl FnMut(&Arc<str>, Ended, &AtomicU64)) {
        let known = lock(&self.known);
        for (name, block) in known.blocks() {
            for counted in &block.ways {
                let way = counted.way.load(Ordering::Acquire);
                if way != 0 {
                    tell(name, Way(way).labels(&known.reasons), &counted.number);
                }
            }
        }
        for (place, way, cell) in &known.further {
            if let Some(name) = known.names.get(*place as usize) {
                tell(name, way.labels(&known.reasons), cell);
            }
        }
    }

    /// Tells how long requests of which route took.
    pub(super) fn each_duration(&self, mut tell: impl FnMut(&Arc<str>, &Durations)) {
        let known = lock(&self.known);
        known.blocks().for_each(|(name, block)| tell(name, &block.durations));
    }
}

impl Known {
    /// The blocks in use, with their routes' names.
    fn blocks(&self) -> impl Iterator<Item = (&Arc<str>, &Block)> {
        self.names.iter().zip(self.pieces.iter().flat_map(|piece| piece.iter()))
    }
}
