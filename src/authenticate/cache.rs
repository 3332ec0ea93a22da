//! Looked-up principals, so that not every request asks the store.
//!
//! An entry is bound to what it was looked up from: any noted change of its subject, token, session or keys makes it
//! void at once, whatever its lifetime. One flight a key; refusals have a shelf and a lifetime of their own, so that a
//! flood of bad credentials cannot push good ones out; failures are never kept. No credential is held, only a keyed
//! hash of it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use http::HeaderValue;
use siphasher::sip128::{Hasher128, SipHasher24};
use tokio::runtime::Handle;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::shelf::{Shelf, Shelved};
use super::{CacheSettings, Failure, Fault, Identity, Refused};
use crate::clock::{Clock, UnixSeconds};
use crate::principal::{IssuerId, Role, Scheme};
use crate::rejection::TokenFault;
use crate::store::Change;
use crate::store::changes::{Changes, DependencyKey};

/// The longest that one look-up may take, queue of the password pool included.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the store is left alone after it did not answer, where a stale principal can be served instead.
const STORE_RESPITE: Duration = Duration::from_secs(1);

/// Look-ups under way, at most; each holds one credential of at most 8 KiB.
const FLIGHTS_MAX: usize = 8192;

/// Refusals kept, at most.
const REFUSED_MAX: u64 = 16_384;

/// Lists of roles that principals share, at most; past it, sharing begins anew.
const ROLE_LISTS_MAX: usize = 1024;

/// What stands for a credential: 128 bits of SipHash-2-4 under a key made at start. It must be a PRF with a secret key and
/// not a hash for tables: who could make two credentials collide would be served another's principal. At 2^-128 a guess,
/// and no way to compute guesses outside, that is no way in. A fifth of what HMAC-SHA256 costs on a token of 300 bytes.
pub(super) type CacheKey = [u8; 16];

/// What a verdict depends on; unused places repeat the first. What finds no place any more is not dropped: the verdict
/// then depends on everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depends {
    keys: [DependencyKey; 4],
    used: u8,
    anything: bool,
}

impl Depends {
    pub(super) fn on(changes: &Changes, change: &Change) -> Self {
        Self::on_key(changes.key(change))
    }

    /// On what another issuer signs with.
    pub(super) fn on_issuer(changes: &Changes, issuer: IssuerId) -> Self {
        Self::on_key(changes.issuer_key(issuer))
    }

    const fn on_key(key: DependencyKey) -> Self {
        Self { keys: [key; 4], used: 1, anything: false }
    }

    /// And on everything else: any change at all makes the verdict void.
    pub(super) const fn and_anything(self) -> Self {
        Self { anything: true, ..self }
    }

    fn hold(&self, changes: &Changes, since: u64) -> bool {
        if self.anything { changes.generation() == since } else { changes.unchanged(since, &self.keys) }
    }

    /// And on this one. There are four places since no credential has more today: keys, subject, `jti`, `sid`.
    pub(super) fn and(mut self, changes: &Changes, change: &Change) -> Self {
        let Some(place) = self.keys.get_mut(usize::from(self.used)) else { return self.and_anything() };
        *place = changes.key(change);
        self.used += 1;
        self
    }
}

/// What an identity rests on, so that what is open for long can ask whether it still stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    depends: Depends,
    /// The newest generation of changes at which it was known to stand.
    generation: u64,
    valid_until: UnixSeconds,
}

impl Tie {
    /// Past it the credential is no longer taken, in unix seconds; `None` for one that does not end.
    pub fn ends_at(self) -> Option<UnixSeconds> {
        Some(self.valid_until).filter(|&end| end != UnixSeconds::MAX)
    }

    /// Whether nothing of it has changed; moves on, so that old changes are not looked at again.
    pub(super) fn holds(&mut self, changes: &Changes) -> bool {
        // read before the check: what is noted during it has a later generation
        let current = changes.generation();
        let holds = self.depends.hold(changes, self.generation);
        if holds {
            self.generation = current;
        }
        holds
    }
}

/// What a look-up found, and what that rests on.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    outcome: Result<Arc<Identity>, Refused>,
    /// The generation of changes when the look-up began.
    generation: u64,
    depends: Depends,
    /// Past it the credential has ended, in unix seconds.
    valid_until: UnixSeconds,
}

impl Verdict {
    pub(super) fn accepted(identity: Identity, generation: u64, depends: Depends) -> Self {
        Self { outcome: Ok(Arc::new(identity)), generation, depends, valid_until: UnixSeconds::MAX }
    }

    pub(super) const fn refused(refused: Refused, generation: u64, depends: Depends) -> Self {
        Self { outcome: Err(refused), generation, depends, valid_until: UnixSeconds::MAX }
    }

    /// No longer than the credential itself; `None` for one that does not end.
    pub(super) fn until(self, end: Option<UnixSeconds>) -> Self {
        Self { valid_until: end.unwrap_or(UnixSeconds::MAX), ..self }
    }

    /// Whether the credential is no good.
    pub(super) const fn is_refusal(&self) -> bool {
        self.outcome.is_err()
    }

    /// Whether it may be remembered. A token that is not valid yet becomes so without any change being noted.
    fn lasts(&self) -> bool {
        !matches!(self.outcome, Err(Refused { fault: Fault::Token(_, TokenFault::NotYetValid), .. }))
    }
}

/// What an entry is about, and what that rests on.
pub(super) trait Rests {
    /// `None` where it was not tied to anything, and so cannot be remembered.
    fn tie(&self) -> Option<&Tie>;
}

impl Rests for Arc<Identity> {
    fn tie(&self) -> Option<&Tie> {
        self.tie.as_ref()
    }
}

/// That a credential is no good.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) refused: Refused,
    tie: Tie,
}

impl Rests for Refusal {
    fn tie(&self) -> Option<&Tie> {
        Some(&self.tie)
    }
}

/// A verdict as remembered.
#[derive(Debug)]
pub(super) struct Entry<T> {
    outcome: T,
    /// Past it another look-up is due.
    fresh_until: Instant,
    /// The newest generation at which it was known to be good; moves on, so that a hit need not look at old changes again.
    generation: AtomicU64,
    voided: AtomicBool,
    /// Whether the shelf was asked for it lately.
    asked: AtomicBool,
}

impl<T: Rests> Entry<T> {
    fn new(outcome: T, generation: u64, fresh_until: Instant) -> Self {
        let (voided, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { outcome, fresh_until, generation: AtomicU64::new(generation), voided, asked }
    }

    pub(super) const fn outcome(&self) -> &T {
        &self.outcome
    }

    /// Ends it before its time.
    fn void(&self) {
        self.voided.store(true, Ordering::Release);
    }

    fn holds(&self, changes: &Changes, unix: impl FnOnce() -> UnixSeconds) -> bool {
        let Some(Tie { depends, valid_until, .. }) = self.outcome.tie() else { return false };
        // read before the check: what is noted during it has a later generation, and is seen by the next hit
        let current = changes.generation();
        let known_good = self.generation.load(Ordering::Acquire);
        if self.voided.load(Ordering::Acquire) || !depends.hold(changes, known_good) {
            return false;
        }
        if known_good < current {
            self.generation.store(current, Ordering::Release);
        }
        *valid_until == UnixSeconds::MAX || unix() < *valid_until
    }
}

impl<T: Rests> Shelved for Arc<Entry<T>> {
    fn fresh_until(&self) -> Instant {
        self.fresh_until
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}

/// What the cache has for a credential.
#[derive(Debug)]
pub(super) enum Found {
    /// A principal within its lifetime.
    Fresh(Arc<Entry<Arc<Identity>>>),
    /// A refusal within its lifetime.
    Refused(Arc<Entry<Refusal>>),
    /// A principal past its lifetime that serves where the store does not answer.
    Stale(Arc<Identity>),
    /// Nothing that can be used.
    Nothing,
}

impl Found {
    /// The principal, be it within its lifetime or past it.
    pub(super) fn principal(&self) -> Option<Arc<Identity>> {
        match self {
            Self::Fresh(entry) => Some(Arc::clone(entry.outcome())),
            Self::Stale(identity) => Some(Arc::clone(identity)),
            Self::Refused(_) | Self::Nothing => None,
        }
    }
}

#[derive(Debug)]
struct Shelves {
    settings: CacheSettings,
    accepted: Shelf<Arc<Entry<Arc<Identity>>>>,
    refused: Shelf<Arc<Entry<Refusal>>>,
}

impl Shelves {
    fn new(settings: &CacheSettings) -> Self {
        Self {
            settings: settings.clone(),
            accepted: Shelf::new(settings.capacity, settings.stale_if_store_down),
            refused: Shelf::new(settings.capacity.min(REFUSED_MAX), Duration::ZERO),
        }
    }
}

/// The longest that an entry is fresh: what is added to a point in time has to have an end.
const LIFETIME_MAX: Duration = Duration::from_hours(10 * 365 * 24);

type Landed = Result<Verdict, Failure>;
type Flight = watch::Receiver<Option<Landed>>;

/// The cache; shared by all workers.
#[derive(Debug)]
pub(super) struct Cache {
    secret: SipHasher24,
    shelves: ArcSwap<Shelves>,
    /// How often there were new shelves.
    shelves_number: AtomicU64,
    flights: Mutex<HashMap<CacheKey, Flight>>,
    /// Lists of roles, with the field that tells an upstream of each.
    roles: Mutex<HashMap<Arc<[Role]>, HeaderValue>>,
    changes: Arc<Changes>,
    clock: Clock,
    background: Handle,
    started: Instant,
    /// When the store may be asked again, in milliseconds since `started`; 0 while it answers.
    ask_again_ms: AtomicU64,
}

impl Cache {
    /// # Errors
    /// No randomness.
    pub(super) fn new(
        settings: &CacheSettings,
        changes: Arc<Changes>,
        clock: Clock,
        background: Handle,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            secret: keyed_hasher()?,
            shelves: ArcSwap::from_pointee(Shelves::new(settings)),
            shelves_number: AtomicU64::new(0),
            flights: Mutex::default(),
            roles: Mutex::default(),
            changes,
            started: clock.now(),
            clock,
            background,
            ask_again_ms: AtomicU64::new(0),
        })
    }

    /// Takes new settings; what was remembered is kept where they are the same.
    pub(super) fn configure(&self, settings: &CacheSettings) {
        if self.shelves.load().settings != *settings {
            self.shelves.store(Arc::new(Shelves::new(settings)));
            // after the shelves: what was found on the old ones is never taken for the new ones'
            self.shelves_number.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Which shelves there are; another number after the settings have changed. Read it before the shelves are asked.
    pub(super) fn shelves_number(&self) -> u64 {
        self.shelves_number.load(Ordering::Acquire)
    }

    /// Whether a principal that was found on the present shelves is within its lifetime still.
    pub(super) fn is_fresh<T: Rests>(
        &self,
        entry: &Entry<T>,
        now: Instant,
        unix: impl FnOnce() -> UnixSeconds,
    ) -> bool {
        now < entry.fresh_until && entry.holds(&self.changes, unix)
    }

    /// Wall time.
    pub(super) fn since_1970(&self) -> Duration {
        self.clock.since_1970()
    }

    /// How many principals and refusals are remembered.
    pub(super) fn entries(&self) -> u64 {
        let shelves = self.shelves.load();
        (shelves.accepted.len() + shelves.refused.len()) as u64
    }

    /// Forgets what cannot serve any more. To be called every minute or so.
    pub(super) fn sweep(&self) {
        let (shelves, now) = (self.shelves.load(), self.clock.now());
        shelves.accepted.sweep(now);
        shelves.refused.sweep(now);
    }

    /// Makes keys of credentials that are presented in this `scheme`, where all that verdicts on them are made under comes
    /// to `context`.
    pub(super) fn keys(&self, scheme: Scheme, context: &[u8]) -> Keying {
        let mut hasher = self.secret;
        for part in [scheme.name().as_bytes(), context] {
            // each is set off from the next by its length
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        Keying(hasher)
    }

    /// What there is for `key` now.
    pub(super) fn find(&self, key: &CacheKey) -> Found {
        let (shelves, now) = (self.shelves.load(), self.clock.now());
        let settings = &shelves.settings;
        let unix = || self.clock.unix();
        let accepted = shelves.accepted.get(key).filter(|entry| entry.holds(&self.changes, unix));
        if let Some(entry) = &accepted
            && now < entry.fresh_until
        {
            return Found::Fresh(Arc::clone(entry));
        }
        if let Some(entry) = shelves.refused.get(key)
            && now < entry.fresh_until
            && entry.holds(&self.changes, unix)
        {
            return Found::Refused(entry);
        }
        match accepted {
            Some(entry) if now.saturating_duration_since(entry.fresh_until) < settings.stale_if_store_down => {
                Found::Stale(Arc::clone(&entry.outcome))
            }
            Some(_) | None => Found::Nothing,
        }
    }

    /// Whether somebody is looking `key` up at present.
    pub(super) fn is_looking_up(&self, key: &CacheKey) -> bool {
        self.flights().contains_key(key)
    }

    /// Whether the store should be asked although something stale could be served: while it answers, and where it did
    /// not, once in a while by one request.
    pub(super) fn may_ask(&self) -> bool {
        let again = self.ask_again_ms.load(Ordering::Relaxed);
        let now = self.now_ms();
        again == 0
            || now >= again
                && self
                    .ask_again_ms
                    .compare_exchange(again, now + respite_ms(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
    }

    /// Notes that the store did not answer in time.
    pub(super) fn store_is_down(&self) {
        self.ask_again_ms.store(self.now_ms() + respite_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Looks `key` up, or waits for whoever is doing so. The work runs in the background and is finished even where
    /// everybody who waits goes away; it has to bound its time itself.
    pub(super) async fn look_up<F>(
        self: &Arc<Self>,
        key: CacheKey,
        load: impl FnOnce() -> F,
    ) -> Result<Arc<Identity>, Failure>
    where
        F: Future<Output = Landed> + Send + 'static,
    {
        let mut load = Some(load);
        let mut second_try = false;
        loop {
            let (flight, joined) = match self.board(key, &mut load)? {
                Boarding::Landed(outcome) => return outcome.map_err(Failure::Refused),
                Boarding::Joined(flight) => (flight, true),
                Boarding::Started(flight) => (flight, false),
            };
            let verdict = landed(flight).await?;
            // A flight that was joined may have begun before a change that this request came after. One that is joined
            // after it landed began after this request came.
            if joined && !second_try && !verdict.depends.hold(&self.changes, verdict.generation) {
                second_try = true;
                continue;
            }
            return verdict.outcome.map_err(Failure::Refused);
        }
    }

    fn board<F>(self: &Arc<Self>, key: CacheKey, load: &mut Option<impl FnOnce() -> F>) -> Result<Boarding, Failure>
    where
        F: Future<Output = Landed> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            return Ok(Boarding::Joined(flight.clone()));
        }
        // a flight is taken off the list after its verdict was put on the shelf: one that has just landed is seen here
        match self.find(&key) {
            Found::Fresh(entry) => return Ok(Boarding::Landed(Ok(Arc::clone(entry.outcome())))),
            Found::Refused(entry) => return Ok(Boarding::Landed(Err(entry.outcome.refused.clone()))),
            Found::Stale(_) | Found::Nothing => {}
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(Failure::Busy);
        }
        let work = load.take().ok_or(Failure::Internal)?();
        let (tell, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        drop(flights);
        let takeoff = TakeOff { cache: Arc::clone(self), key };
        self.background.spawn(async move {
            let mut result = work.await;
            if let Ok(Verdict { outcome: Ok(identity), generation, depends, valid_until }) = &mut result {
                let tie = Tie { depends: *depends, generation: *generation, valid_until: *valid_until };
                takeoff.cache.finish(identity, tie);
            }
            takeoff.cache.keep(key, &result);
            drop(takeoff);
            tell.send_replace(Some(result));
        });
        Ok(Boarding::Started(flight))
    }

    fn keep(&self, key: CacheKey, result: &Landed) {
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(Failure::Unavailable) => return self.store_is_down(),
            Err(Failure::NoKeys | Failure::Busy | Failure::Internal | Failure::Refused(_) | Failure::Exhausted(_)) => {
                return;
            }
        };
        let (shelves, now) = (self.shelves.load(), self.clock.now());
        let CacheSettings { ttl, negative_ttl, .. } = shelves.settings;
        let Verdict { generation, depends, valid_until, .. } = *verdict;
        match &verdict.outcome {
            Ok(identity) => {
                // a refusal may have been decided without the store; a principal never is
                self.ask_again_ms.store(0, Ordering::Relaxed);
                let entry = Entry::new(Arc::clone(identity), generation, now + ttl.min(LIFETIME_MAX));
                shelves.accepted.insert(key, Arc::new(entry), now);
                if let Some(entry) = shelves.refused.remove(&key) {
                    entry.void();
                }
            }
            Err(refused) => {
                if let Some(entry) = shelves.accepted.remove(&key) {
                    // workers have it too
                    entry.void();
                }
                if verdict.lasts() {
                    let refusal = Refusal { refused: refused.clone(), tie: Tie { depends, generation, valid_until } };
                    let entry = Entry::new(refusal, generation, now + negative_ttl.min(LIFETIME_MAX));
                    shelves.refused.insert(key, Arc::new(entry), now);
                }
            }
        }
    }

    /// Ties an identity to what it rests on. Most principals have one of a few lists of roles: each is kept once.
    fn finish(&self, identity: &mut Arc<Identity>, tie: Tie) {
        let Some(identity) = Arc::get_mut(identity) else { return };
        identity.tie = Some(tie);
        let mut lists = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shared, field)) = lists.get_key_value(&identity.principal.roles) {
            identity.principal.roles = Arc::clone(shared);
            identity.roles_field = field.clone();
            return;
        }
        if lists.len() >= ROLE_LISTS_MAX {
            lists.clear();
        }
        lists.insert(Arc::clone(&identity.principal.roles), identity.roles_field.clone());
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<CacheKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes keys. All that credentials of one scheme have in common was hashed before they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keying(SipHasher24);

impl Keying {
    /// The key of a credential as it came: nothing is decoded before the cache was asked.
    pub(super) fn key(self, credential: &[u8]) -> CacheKey {
        let Self(mut hasher) = self;
        hasher.write_usize(credential.len());
        hasher.write(credential);
        hasher.finish128().as_bytes()
    }
}

fn keyed_hasher() -> Result<SipHasher24, aws_lc_rs::error::Unspecified> {
    let mut key = Zeroizing::new([0; 16]);
    rand::fill(&mut *key)?;
    Ok(SipHasher24::new_with_key(&key))
}

const fn respite_ms() -> u64 {
    STORE_RESPITE.as_secs() * 1000
}

enum Boarding {
    Landed(Result<Arc<Identity>, Refused>),
    Joined(Flight),
    Started(Flight),
}

/// A sender that is gone without a word panicked, or its runtime ended.
async fn landed(mut flight: Flight) -> Landed {
    match flight.wait_for(Option::is_some).await {
        Ok(result) => (*result).clone().unwrap_or(Err(Failure::Internal)),
        Err(_) => Err(Failure::Internal),
    }
}

/// Takes a flight off the list however it ends.
struct TakeOff {
    cache: Arc<Cache>,
    key: CacheKey,
}

impl Drop for TakeOff {
    fn drop(&mut self) {
        self.cache.flights().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `benches/growth.rs` measures is these, a name twice, and a place on a shelf: 512 bytes at most.
    #[test]
    fn what_is_remembered_of_a_principal_is_small() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Identity>() + counts <= 256, "{}", size_of::<Identity>());
        assert!(size_of::<Entry<Arc<Identity>>>() + counts <= 64, "{}", size_of::<Entry<Arc<Identity>>>());
    }

    #[test]
    fn no_dependency_is_ever_lost() {
        let sessions: Vec<_> = (0..6).map(|n| Change::Session(n.to_string().into())).collect();
        let another = Change::Session("another".into());
        for number in 1..=sessions.len() {
            let (mine, changes) = (&sessions[..number], Changes::default());
            let depends = mine.iter().fold(None, |depends: Option<Depends>, change| {
                Some(depends.map_or_else(|| Depends::on(&changes, change), |depends| depends.and(&changes, change)))
            });
            let depends = depends.unwrap();
            changes.note(&another);
            let since = changes.generation();
            assert!(depends.hold(&changes, since), "{number}");
            for change in mine {
                let since = changes.generation();
                changes.note(change);
                assert!(!depends.hold(&changes, since), "{change:?} of {number}");
            }
        }
    }
}
