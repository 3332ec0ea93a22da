//! Budgets that several gateways have in common, kept in Redis or Valkey.
//!
//! A budget is one key whose value is the time at which it will be full again, by the server's clock, so that gateways whose
//! clocks differ agree; it expires at that time. All budgets that a request draws on are drawn on in one round trip, by one
//! script. Who waits, waits a bounded time, and where there is no answer says so: the caller then has its own budgets.
//!
//! Beside each budget that attempts draw on stands how many of them are under way, for a few seconds each: a gateway that is
//! gone leaves none behind. Nothing is granted by it. Who is refused learns whether it is worth waiting.

mod address;
mod link;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Quota;
use crate::record::metrics::Metrics;

pub use address::{Address, Settings};
use link::{DRAW, END, Link, LinkError, Live};

/// The longest that a request waits for an answer. One that comes later than this is none: the connection is given up.
const ANSWER_MAX: Duration = Duration::from_millis(250);

/// Draws under way at most; where there are more, a gateway counts for itself.
const IN_FLIGHT_MAX: usize = 1024;

/// What all keys begin with. In a cluster what stands in braces decides the slot of a key: all have the same, since the
/// budgets of a request are drawn on by one script, which one server runs.
const KEY_PREFIX: &str = "portcullis:{limits}:";

/// The longest that a budget takes to fill, in microseconds (ten years).
const WHOLE_US_MAX: f64 = 10.0 * 365.0 * 24.0 * 3600.0 * 1e6;

/// What one draw costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// One request's worth of time, in microseconds.
    each_us: f64,
    /// The whole budget's, in microseconds.
    whole_us: f64,
}

impl Cost {
    pub(super) fn of(quota: &Quota) -> Self {
        let each_us = (quota.per.as_secs_f64() * 1e6 / f64::from(quota.count.get())).clamp(0.001, WHOLE_US_MAX);
        Self { each_us, whole_us: (each_us * f64::from(quota.burst.get())).clamp(each_us, WHOLE_US_MAX) }
    }
}

/// The name of a budget that somebody has: a digest, so that whoever reads the keys finds no address and no user there.
/// Names of other things cannot meet it: each part is set off by its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(Box<str>);

impl Name {
    /// `parts`: which budget, and whose.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let digest = context.finish();
        // 128 bits: nobody finds two names that meet
        let half = digest.as_ref().first_chunk::<16>().copied().unwrap_or_default();
        Self(format!("{KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(half)).into())
    }

    /// Where it stands what is under way on it.
    fn under_way(&self) -> String {
        format!("{}:under_way", self.0)
    }
}

/// What is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nobody waits for how it ends.
    Request,
    /// Others may wait for how it ends, which will be told.
    Attempt,
}

/// The second, by the server's clock, at which an attempt counts as under way no longer. Zero for what never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForgottenAt(u64);

impl ForgottenAt {
    /// Whether anybody may wait for how it ends.
    pub(super) const fn is_awaited(self) -> bool {
        self.0 > 0
    }
}

/// What the gateways together have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Each budget had one left, and has one less.
    Granted(ForgottenAt),
    /// One had none; nothing was drawn.
    Exhausted {
        /// Which.
        index: usize,
        /// How long it has none.
        retry_after: Duration,
        /// Whether attempts under way hold some of it, which may give it back.
        is_held: bool,
    },
    /// Nobody answers.
    Unknown,
}

/// What the script returns that draws.
type Drawn = (usize, u64, u64, u64);

/// The counts of all gateways.
pub struct Shared {
    settings: Settings,
    link: Arc<Link>,
    under_way: Semaphore,
    metrics: Arc<Metrics>,
    background: Handle,
    keeper: AbortHandle,
    tried: watch::Receiver<bool>,
}

/// Who counted a draw; the label in metrics.
const SHARED: &str = "shared";
const OWN: &str = "own";

impl Shared {
    /// Connects in the background, now and whenever the connection is lost.
    pub(super) fn start(settings: Settings, metrics: Arc<Metrics>, background: &Handle) -> Self {
        let link = Arc::<Link>::default();
        let (tell, tried) = watch::channel(false);
        for counted in [SHARED, OWN] {
            metrics.limits_shared.with_label_values(&[counted]);
        }
        let keeper = {
            let (link, settings, metrics) = (Arc::clone(&link), settings.clone(), Arc::clone(&metrics));
            background.spawn(async move { link.keep(&settings, &metrics, tell).await }).abort_handle()
        };
        let (under_way, background) = (Semaphore::new(IN_FLIGHT_MAX), background.clone());
        Self { settings, link, under_way, metrics, background, keeper, tried }
    }

    /// Waits until there is a connection, or the first attempt has failed; bounded.
    pub(super) async fn tried(&self) {
        // who has gone tries no more
        drop(self.tried.clone().wait_for(|tried| *tried).await);
    }

    /// Where the counts are.
    pub(super) fn is_at(&self, settings: &Settings) -> bool {
        self.settings.are(settings)
    }

    /// Draws one on each of a few budgets, or on none.
    pub(super) async fn draw(&self, purpose: Purpose, budgets: &[(Name, Cost)]) -> Answer {
        let answer = self.ask(|mut connection| async move {
            let mut call = DRAW.prepare_invoke();
            for (Name(name), Cost { each_us, whole_us }) in budgets {
                call.key(&**name).arg(each_us).arg(whole_us);
            }
            if purpose == Purpose::Attempt {
                for (name, _) in budgets {
                    call.key(name.under_way());
                }
            }
            call.invoke_async::<Drawn>(&mut connection).await
        });
        let (counted, answer) = match answer.await {
            Some((0, _, _, forgotten_at)) => (SHARED, Answer::Granted(ForgottenAt(forgotten_at))),
            Some((number, wait_us, held, _)) => {
                let retry_after = Duration::from_micros(wait_us);
                (SHARED, Answer::Exhausted { index: number - 1, retry_after, is_held: held > 0 })
            }
            None => (OWN, Answer::Unknown),
        };
        self.metrics.limits_shared.with_label_values(&[counted]).inc();
        answer
    }

    /// Puts one back into each of these, of what is under way no more. Where nobody answers it is lost: nothing is given
    /// twice.
    pub(super) async fn refund(&self, budgets: &[(Name, Cost)], forgotten_at: ForgottenAt) {
        self.end(budgets, |cost| cost.each_us, forgotten_at).await;
    }

    /// Tells in the background that an attempt which counts is under way no more. Where nobody answers it is forgotten in time.
    pub(super) fn failed(self: Arc<Self>, budgets: Vec<(Name, Cost)>, forgotten_at: ForgottenAt) {
        let background = self.background.clone();
        background.spawn(async move { self.end(&budgets, |_| 0.0, forgotten_at).await });
    }

    async fn end(&self, budgets: &[(Name, Cost)], back_us: fn(&Cost) -> f64, forgotten_at: ForgottenAt) {
        let done = self.ask(|mut connection| async move {
            let mut call = END.prepare_invoke();
            for (Name(name), cost) in budgets {
                call.key(&**name).arg(back_us(cost));
            }
            if forgotten_at.is_awaited() {
                for (name, _) in budgets {
                    call.key(name.under_way());
                }
            }
            call.arg(forgotten_at.0).invoke_async::<i64>(&mut connection).await
        });
        done.await;
    }

    /// Asks once, for a bounded time. `None` where there is no answer, after which nobody asks until there is another
    /// connection.
    async fn ask<T, F>(&self, question: impl FnOnce(MultiplexedConnection) -> F) -> Option<T>
    where
        T: FromRedisValue,
        F: Future<Output = redis::RedisResult<T>>,
    {
        let live: Arc<Live> = self.link.live()?;
        let _under_way = self.under_way.try_acquire().ok()?;
        let error = match timeout(ANSWER_MAX, question(live.connection.clone())).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.into(),
            Err(_) => LinkError::TooLate,
        };
        self.link.lost(&live, error);
        None
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.settings).finish()
    }
}
