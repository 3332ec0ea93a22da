//! Drawing on budgets: first on this gateway's own, then on what all gateways share.
//!
//! What a gateway has refused by its own count, all together would refuse too, since they count what it counts and more. So
//! its own comes first, without waiting, and stands for all while nobody else can be asked: an outage gives nobody a fresh
//! budget, and nothing is counted by none.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::shared::{Answer, Cost, ForgottenAt, Name, Purpose, Shared};
use super::under_way::{Begun, Waiter};
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
        match self.ask(Purpose::Request).await {
            Ok(by_all) => Ok(Attempt { drawn: self, by_all, begun: None }),
            Err(refused) => {
                self.cancel();
                Err(refused.why)
            }
        }
    }

    /// The same for an attempt: `begun` is told to others who wait here for how it ends. Where the gateways together have none
    /// left because of attempts under way, waits with `waiter` for some of those to end.
    pub(super) async fn confirm_attempt(
        self,
        mut begun: Begun,
        waiter: &mut Waiter<'_>,
        key: impl Fn(&Exhausted) -> Key,
    ) -> Result<Attempt, Exhausted> {
        // what others here may draw on meanwhile is less by this one: so it is a few that ask again, whoever else waits
        let drawn = Unconfirmed(self);
        loop {
            match drawn.0.ask(Purpose::Attempt).await {
                Ok(by_all) => {
                    if by_all.is_some() {
                        begun.confirm();
                    }
                    return Ok(Attempt { drawn: drawn.confirmed(), by_all, begun: Some(begun) });
                }
                Err(Refused { why, is_held }) => {
                    if !is_held || !waiter.waits_for_all(key(&why)).await {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Draws on the budgets of all gateways, where they are shared. What it says of them is when it is forgotten there;
    /// nothing where they are not shared or do not answer.
    async fn ask(&self, purpose: Purpose) -> Result<Option<ForgottenAt>, Refused> {
        let Some(shared) = &self.shared else { return Ok(None) };
        if self.draws.iter().all(Option::is_none) {
            return Ok(None);
        }
        // boxed, so that who draws on nothing that is shared carries none of it
        match Box::pin(shared.draw(purpose, &self.budgets())).await {
            Answer::Granted(forgotten_at) => Ok(Some(forgotten_at)),
            Answer::Unknown => Ok(None),
            Answer::Exhausted { index, retry_after, is_held } => {
                let draw = self.draws.iter().flatten().nth(index).or(self.draws.iter().flatten().next());
                draw.map_or(Ok(None), |draw| Err(Refused { why: draw.exhausted(retry_after), is_held }))
            }
        }
    }

    /// It is not needed: all is given back.
    pub fn cancel(&self) {
        for draw in self.draws.iter().flatten() {
            draw.bucket.refund(&draw.key);
        }
    }

    fn budgets(&self) -> Vec<(Name, Cost)> {
        let draws = self.draws.iter().flatten();
        draws.filter_map(|draw| Some((draw.name.clone()?, Cost::of(draw.bucket.quota())))).collect()
    }
}

/// Why all gateways together refuse.
struct Refused {
    why: Exhausted,
    /// Whether attempts under way hold some of what is lacking.
    is_held: bool,
}

/// What is given back where it is not confirmed, be it that nobody waits for it any more.
struct Unconfirmed(Reserved);

impl Unconfirmed {
    fn confirmed(mut self) -> Reserved {
        // what is left gives nothing back
        mem::take(&mut self.0)
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An attempt that is counted before it is known how it ends. Dropped without a word, it has failed.
#[derive(Debug, Default)]
#[must_use = "dropped at once, it counts as failed before anything was tried"]
pub struct Attempt {
    drawn: Reserved,
    /// Where it is counted in what all gateways share: when it is forgotten there.
    by_all: Option<ForgottenAt>,
    /// Who waits for how it ends is told once it is dropped.
    begun: Option<Begun>,
}

impl Attempt {
    /// The credential was good: it does not count. Waits for a bounded time until all gateways know.
    pub async fn succeeded(self) {
        self.give_back().await;
    }

    /// Nobody knows whether it was good, for a reason of ours (the store does not answer): it does not count.
    pub async fn abandoned(self) {
        self.give_back().await;
    }

    async fn give_back(mut self) {
        self.drawn.cancel();
        if let Some((shared, forgotten_at)) = self.drawn.shared.as_ref().zip(self.by_all) {
            Box::pin(shared.refund(&self.drawn.budgets(), forgotten_at)).await;
        }
        self.by_all = None;
        // those who wait are told once there is something to be had
        drop(self.begun.take());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let by_all = self.by_all.filter(|forgotten_at| forgotten_at.is_awaited());
        if let Some((shared, forgotten_at)) = self.drawn.shared.take().zip(by_all) {
            shared.failed(self.drawn.budgets(), forgotten_at);
        }
    }
}
