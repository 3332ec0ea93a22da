//! The keys of one issuer, fetched ahead of need and kept when that fails.
//!
//! One task fetches: when it is time, and when a token names a key that is not known. Whoever waits for the latter waits
//! for the one fetch that is under way. One that was asked for and brought nothing new is not repeated for a while,
//! whatever tokens name: or anybody could make us ask without end. One that did bring new keys costs no such pause, so
//! that keys may be changed as often as their owner likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::super::bearer::Header;
use super::super::keys::Algorithm;
use super::fetch::{FetchError, Fetched, Location, fetch};
use super::jwks::{KeySet, Match};
use crate::clock::Clock;
use crate::principal::IssuerId;
use crate::record::metrics::Metrics;
use crate::rejection::TokenFault;
use crate::store::changes::Changes;

/// How often things are done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between fetches, where the issuer does not say; and the most and the least where it does.
    pub(super) refresh: Duration,
    pub(super) refresh_min: Duration,
    pub(super) refresh_max: Duration,
    /// After a fetch for the sake of an unknown key that brought none.
    pub(super) cool_down: Duration,
    /// After a failure; doubled with each further one.
    pub(super) retry: Duration,
    pub(super) retry_max: Duration,
    /// For one fetch in all.
    pub(super) timeout: Duration,
}

impl Pace {
    pub(super) const USUAL: Self = Self {
        refresh: Duration::from_mins(5),
        refresh_min: Duration::from_secs(30),
        refresh_max: Duration::from_mins(15),
        cool_down: Duration::from_secs(10),
        retry: Duration::from_secs(1),
        retry_max: Duration::from_secs(30),
        // a look-up of a principal may take ten
        timeout: Duration::from_secs(5),
    };
}

/// What tells of new keys, and counts.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) changes: Arc<Changes>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) pace: Pace,
}

/// The keys of one issuer.
pub(super) struct Remote {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    id: IssuerId,
    /// The issuer, as labels and the log have it.
    label: Box<str>,
    algorithms: Vec<Algorithm>,
    location: ArcSwap<Location>,
    /// None until the first fetch that succeeds.
    keys: ArcSwapOption<KeySet>,
    desk: Mutex<Desk>,
    wake: Notify,
    /// The number of the last fetch that has ended.
    finished: watch::Sender<u64>,
    around: Surroundings,
}

/// Where fetches are asked for.
#[derive(Debug, Default)]
struct Desk {
    /// The number of the last fetch that has begun.
    round: u64,
    running: bool,
    /// A fetch is wanted now.
    asked: bool,
    /// A fetch is wanted once the pause is over.
    asked_in_pause: bool,
    pause_until: Option<Instant>,
    /// What is left of [`FREE_MAX`], and until when that counts.
    free: u32,
    free_until: Option<Instant>,
}

impl Desk {
    /// What a fetch that has ended means for those who ask next.
    fn ended(&mut self, asked: bool, news: bool, now: Instant, cool_down: Duration) {
        self.running = false;
        if news && self.free_until.is_none_or(|until| now >= until) {
            (self.free, self.free_until) = (FREE_MAX, Some(now + cool_down));
        }
        if news && self.free > 0 {
            self.free -= 1;
            self.pause_until = None;
        } else if asked {
            self.pause_until = Some(now + cool_down);
        }
    }
}

/// What the keys say of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    Bad(TokenFault),
    /// It is by none of the keys, of which none is the one that it names.
    UnknownKey,
    /// There are no keys yet: nobody can say.
    NoKeys,
}

/// How often one token has the keys fetched: it may join a fetch that began before the key was there, and ask for another.
const ASKS_MAX: usize = 2;

/// Fetches within one pause that were asked for and brought new keys, and so cost no pause themselves. Past it they do: the
/// servers of an issuer may disagree about its keys, each fetch seeing others.
const FREE_MAX: u32 = 30;

impl Remote {
    pub(super) fn start(
        id: IssuerId,
        label: &str,
        location: Arc<Location>,
        algorithms: &[Algorithm],
        around: Surroundings,
        background: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            id,
            label: label.into(),
            algorithms: algorithms.to_vec(),
            location: ArcSwap::new(location),
            keys: ArcSwapOption::empty(),
            desk: Mutex::default(),
            wake: Notify::new(),
            finished: watch::Sender::new(0),
            around,
        });
        for result in ["ok", "failed"] {
            shared.around.metrics.jwks_fetches.with_label_values(&[label, result]);
        }
        let task = background.spawn(keep_fresh(Arc::clone(&shared))).abort_handle();
        Self { shared, task }
    }

    /// Whether its keys are those of such settings.
    pub(super) fn is_of(&self, location: &Location, algorithms: &[Algorithm]) -> bool {
        self.shared.location.load().url == location.url && self.shared.algorithms == algorithms
    }

    /// Fetches from here on by these settings, which may trust other certificates.
    pub(super) fn follow(&self, location: Arc<Location>) {
        self.shared.location.store(location);
    }

    pub(super) fn label(&self) -> &str {
        &self.shared.label
    }

    /// Whether a signature is by one of the keys; for a key that is not known, they are fetched anew first.
    pub(super) async fn verify(&self, header: &Header, input: &[u8], signature: &[u8]) -> Answer {
        for _ in 0..ASKS_MAX {
            let answer = self.shared.answer(header, input, signature);
            if !matches!(answer, Answer::NoKeys | Answer::UnknownKey) || !self.shared.ask().await {
                return answer;
            }
        }
        self.shared.answer(header, input, signature)
    }
}

impl Shared {
    fn answer(&self, header: &Header, input: &[u8], signature: &[u8]) -> Answer {
        match self.keys.load_full().map(|keys| keys.verify(header, input, signature)) {
            Some(Match::Good) => Answer::Good,
            Some(Match::Bad(fault)) => Answer::Bad(fault),
            Some(Match::UnknownKey) => Answer::UnknownKey,
            None => Answer::NoKeys,
        }
    }

    /// Asks for the keys anew, and returns when that has ended; false where it was in vain a short while ago.
    async fn ask(&self) -> bool {
        let mut finished = self.finished.subscribe();
        let awaited = {
            let mut desk = self.desk();
            if desk.running {
                desk.round
            } else if desk.pause_until.is_some_and(|until| self.around.clock.now() < until) {
                if !std::mem::replace(&mut desk.asked_in_pause, true) {
                    self.wake.notify_one();
                }
                return false;
            } else {
                desk.asked = true;
                self.wake.notify_one();
                desk.round + 1
            }
        };
        // the sender is ours
        finished.wait_for(|&done| done >= awaited).await.is_ok()
    }

    /// How long until the next fetch, where nobody asks.
    fn waits(&self, next: Instant) -> Duration {
        let desk = self.desk();
        let due = desk.pause_until.filter(|_| desk.asked_in_pause).map_or(next, |until| until.min(next));
        due.saturating_duration_since(self.around.clock.now())
    }

    /// Begins a fetch; whether it was asked for, now or while a pause lasted.
    fn begin(&self) -> bool {
        let mut desk = self.desk();
        desk.round += 1;
        desk.running = true;
        let put_off = std::mem::take(&mut desk.asked_in_pause);
        std::mem::take(&mut desk.asked) || put_off
    }

    fn end(&self, asked: bool, news: bool) {
        let mut desk = self.desk();
        desk.ended(asked, news, self.around.clock.now(), self.around.pace.cool_down);
        self.finished.send_replace(desk.round);
    }

    /// Takes the keys of a set; whether it has any that were not known.
    fn take(&self, fetched: &Fetched) -> Result<bool, FetchError> {
        let new = KeySet::parse(&fetched.body, &self.algorithms)?;
        let old = self.keys.load_full();
        let news = old.as_ref().is_none_or(|old| new.has_more_than(old));
        let changed = news || old.is_some_and(|old| old.has_more_than(&new));
        if changed {
            tracing::info!(issuer = %self.label, keys = new.len(), left_out = new.left_out(), "keys of an issuer");
            let gauge = self.around.metrics.jwks_keys.with_label_values(&[&*self.label]);
            gauge.set(i64::try_from(new.len()).unwrap_or(i64::MAX));
            self.keys.store(Some(Arc::new(new)));
            // afterwards: in the other order a token of a removed key could be verified by the old set and be remembered
            self.around.changes.note_issuer(self.id);
        }
        Ok(news)
    }

    fn count(&self, result: &str) {
        self.around.metrics.jwks_fetches.with_label_values(&[&*self.label, result]).inc();
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep_fresh(shared: Arc<Shared>) {
    let pace = shared.around.pace;
    let (mut next, mut failures) = (shared.around.clock.now(), 0_u32);
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.waits(next)) => {}
            () = shared.wake.notified() => {
                if !shared.desk().asked {
                    continue;
                }
            }
        }
        let asked = shared.begin();
        let location = shared.location.load_full();
        let fetched = tokio::time::timeout(pace.timeout, fetch(&location)).await.unwrap_or(Err(FetchError::TooLate));
        let taken = fetched.and_then(|fetched| Ok((shared.take(&fetched)?, fetched.max_age)));
        let (news, wait) = match taken {
            Ok((news, max_age)) => {
                shared.count("ok");
                failures = 0;
                (news, max_age.map_or(pace.refresh, |age| age.clamp(pace.refresh_min, pace.refresh_max)))
            }
            Err(error) => {
                shared.count("failed");
                let kept = shared.keys.load().is_some();
                tracing::warn!(issuer = %shared.label, %error, kept, "keys of an issuer not fetched");
                let wait = pace.retry.saturating_mul(1 << failures.min(10)).min(pace.retry_max);
                failures = failures.saturating_add(1);
                (false, wait)
            }
        };
        next = shared.around.clock.now() + spread(wait);
        shared.end(asked, news);
    }
}

/// Up to a tenth earlier, so that gateways do not ask in step.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(1.0 - fastrand::f64() / 10.0)
}
