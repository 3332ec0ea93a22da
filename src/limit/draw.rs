//! Drawing on budgets: first on this gateway's own, then on what all gateways share.
//!
//! What a gateway has refused by its own count, all together would refuse too, since they count what it counts and more. So
//! its own comes first, without waiting, and stands for all while nobody else can be asked: an outage gives nobody a fresh
//! budget, and nothing is counted by none.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{Answer, Cost, Name, Shared};
use super::under_way::Begun;
use super::{Bucket, Key, Quota};
use crate::rejection::Exhausted;

/// Budgets that one request draws on at most.
const DRAWS_MAX: usize = 3;

/// One budget to be drawn on.
#[derive(Debug)]
pub(super) struct Draw {
    pub(super) limit: &'static str,
    pub(super) bucket: Arc<Bucket<Key>>,
    pub(super) key: Key,
    /// What it is called among all gateways; `None` where each counts for itself.
    pub(super) name: Option<Name>,
}

impl Draw {
    fn exhausted(&self, retry_after: Duration) -> Exhausted {
        let Quota { count, per, .. } = self.bucket.quota();
        Exhausted { limit: self.limit, quota: count.get(), window: *per, retry_after }
    }
}

/// What was drawn on this gateway's own budgets, and is to be on those of all.
#[derive(Debug, Default)]
#[must_use = "it is neither confirmed nor cancelled, and stays spent here alone"]
pub struct Reserved {
    draws: [Option<Draw>; DRAWS_MAX],
    shared: Option<Arc<Shared>>,
}

impl Reserved {
    pub(super) fn with(shared: Option<Arc<Shared>>) -> Self {
        Self { draws: Default::default(), shared }
    }

    pub(super) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Draws on one more; a failure gives all back.
    pub(super) fn and(mut self, draw: Option<Draw>) -> Result<Self, Exhausted> {
        let Some(draw) = draw else { return Ok(self) };
        if let Err(retry_after) = draw.bucket.spend(&draw.key) {
            self.cancel();
            return Err(draw.exhausted(retry_after));
        }
        if let Some(place) = self.draws.iter_mut().find(|place| place.is_none()) {
            *place = Some(draw);
        }
        Ok(self)
    }

    /// Draws on the budgets of all gateways, where they are shared and answer. Waits for a bounded time.
    ///
    /// # Errors
    /// Where the gateways together have used one up; none is drawn on then.
    pub async fn confirm(self) -> Result<Attempt, Exhausted> {
        let Some(shared) = &self.shared else { return Ok(Attempt::of(self, false)) };
        if self.draws.iter().all(Option::is_none) {
            return Ok(Attempt::of(self, false));
        }
        // boxed, so that who draws on nothing that is shared carries none of it
        match Box::pin(shared.draw(self.names())).await {
            Answer::Granted => Ok(Attempt::of(self, true)),
            Answer::Unknown => Ok(Attempt::of(self, false)),
            Answer::Exhausted(index, retry_after) => {
                let draw = self.draws.iter().flatten().nth(index).or(self.draws.iter().flatten().next());
                let exhausted = draw.map(|draw| draw.exhausted(retry_after));
                self.cancel();
                exhausted.map_or_else(|| Ok(Attempt::default()), Err)
            }
        }
    }

    /// It is not needed: all is given back.
    pub fn cancel(&self) {
        for draw in self.draws.iter().flatten() {
            draw.bucket.refund(&draw.key);
        }
    }

    fn names(&self) -> impl Iterator<Item = (&Name, Cost)> {
        self.draws.iter().flatten().filter_map(|draw| Some((draw.name.as_ref()?, Cost::of(draw.bucket.quota()))))
    }
}

/// An attempt that is counted before it is known how it ends. Dropped without a word, it has failed.
#[derive(Debug, Default)]
#[must_use = "dropped at once, it counts as failed before anything was tried"]
pub struct Attempt {
    drawn: Reserved,
    /// Whether it is counted in what all gateways share.
    by_all: bool,
    /// Who waits for how it ends is told once it is dropped.
    begun: Option<Begun>,
}

impl Attempt {
    const fn of(drawn: Reserved, by_all: bool) -> Self {
        Self { drawn, by_all, begun: None }
    }

    pub(super) fn while_under_way(self, mut begun: Begun) -> Self {
        if self.by_all {
            begun.confirm();
        }
        Self { begun: Some(begun), ..self }
    }

    /// The credential was good: it does not count. Waits for a bounded time until all gateways know.
    pub async fn succeeded(self) {
        self.give_back().await;
    }

    /// Nobody knows whether it was good, for a reason of ours (the store does not answer): it does not count.
    pub async fn abandoned(self) {
        self.give_back().await;
    }

    async fn give_back(self) {
        self.drawn.cancel();
        if let Some(shared) = self.drawn.shared.as_ref().filter(|_| self.by_all) {
            Box::pin(shared.refund(self.drawn.names())).await;
        }
        // those who wait are told once there is something to be had
        drop(self.begun);
    }
}
