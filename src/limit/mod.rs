//! Which budgets a request draws on, and spending them.
//!
//! Every budget is a GCRA cell (governor) in a bounded set; an IPv6 address counts by its /64. What is to count failures
//! only is reserved before the credential is checked and given back where it was good, so that attempts in parallel
//! cannot outrun the count. Where several gateways share their budgets, each also draws on theirs.

pub mod bucket;
mod draw;
mod routes;
pub mod shared;
mod under_way;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::principal::{Subject, SubjectKind};
use crate::record::metrics::Metrics;
use crate::rejection::Exhausted;

pub use bucket::Bucket;
pub use draw::{Attempt, Reserved};
pub use routes::{RouteBudgets, heirs};

use draw::Draw;
use shared::{Name, Shared};
use under_way::{Spent, UnderWay};

/// Keys of each budget of the section `limits`; under 100 bytes each.
const KEYS_MAX: usize = 200_000;

/// How long an attempt at an account waits in all for how others end.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A budget such as `30/m` with a burst: `count` requests per `per`, at most `burst` at once. None of them is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window.
    pub count: NonZeroU32,
    /// The window.
    pub per: Duration,
    /// How many at once.
    pub burst: NonZeroU32,
}

/// The section `limits`, as far as it is about rates. `None`: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests to token endpoints from one address.
    pub per_address: Option<Quota>,
    /// Failed attempts for one account from one address.
    pub per_account: Option<Quota>,
    /// Failed attempts for one account from all addresses.
    pub per_account_anywhere: Option<Quota>,
    /// Failed credentials from one address, on any route.
    pub unauthenticated: Option<Quota>,
}

/// Whose budget: an address, or the digest of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key of an address: IPv4 as it is, also where it comes mapped into IPv6, and IPv6 by its /64.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(address.to_bits())),
            IpAddr::V6(address) => Self(1 << 64 | address.to_bits() >> 64),
        }
    }
}

/// The budgets of a process, but for those of routes. They outlive a reload where their quota does.
#[derive(Debug)]
pub struct Limits {
    clock: Clock,
    budgets: ArcSwap<Budgets>,
    /// The counts of all gateways, where they are shared.
    shared: ArcSwapOption<Shared>,
    /// Attempts at accounts.
    under_way: UnderWay,
    /// Two seeds make keys of accounts 128 bits long: nobody finds two that meet, and a long name takes no more memory.
    seeds: [RandomState; 2],
}

#[derive(Debug, Default)]
struct Budgets {
    per_address: Option<Arc<Bucket<Key>>>,
    per_account: Option<Arc<Bucket<Key>>>,
    per_account_anywhere: Option<Arc<Bucket<Key>>>,
    unauthenticated: Option<Arc<Bucket<Key>>>,
}

impl Budgets {
    fn all(&self) -> impl Iterator<Item = &Arc<Bucket<Key>>> {
        let all = [&self.per_address, &self.per_account, &self.per_account_anywhere, &self.unauthenticated];
        all.into_iter().flatten()
    }
}

/// The names of the limits, as refusals, metrics and `errors.messages` know them.
pub const NAMES: [&str; 5] = [PER_ADDRESS, PER_ACCOUNT, PER_ACCOUNT_ANYWHERE, UNAUTHENTICATED, ROUTE];
const PER_ADDRESS: &str = "per_address";
const PER_ACCOUNT: &str = "per_account";
const PER_ACCOUNT_ANYWHERE: &str = "per_account_anywhere";
const UNAUTHENTICATED: &str = "unauthenticated";
const ROUTE: &str = "route";

impl Limits {
    /// No limits yet; [`Limits::apply`] sets them.
    pub fn new(clock: Clock) -> Self {
        let seeds = [RandomState::new(), RandomState::new()];
        Self {
            clock,
            budgets: ArcSwap::default(),
            shared: ArcSwapOption::empty(),
            under_way: UnderWay::new(WAIT_MAX),
            seeds,
        }
    }

    /// The names of all limits, as metrics and [`Exhausted`] have them.
    pub const fn names() -> [&'static str; 5] {
        [PER_ADDRESS, PER_ACCOUNT, PER_ACCOUNT_ANYWHERE, UNAUTHENTICATED, ROUTE]
    }

    /// Takes over a configuration's limits. What was spent stays spent where the quota is the same; a changed quota begins
    /// anew.
    pub fn apply(&self, settings: &Settings) {
        let old = self.budgets.load();
        let kept = |old: &Option<Arc<Bucket<Key>>>, quota: &Option<Quota>| {
            let quota = quota.as_ref()?;
            let same = old.as_ref().filter(|bucket| bucket.quota() == quota);
            Some(same.cloned().unwrap_or_else(|| Arc::new(Bucket::new(quota, KEYS_MAX, self.clock.clone()))))
        };
        self.budgets.store(Arc::new(Budgets {
            per_address: kept(&old.per_address, &settings.per_address),
            per_account: kept(&old.per_account, &settings.per_account),
            per_account_anywhere: kept(&old.per_account_anywhere, &settings.per_account_anywhere),
            unauthenticated: kept(&old.unauthenticated, &settings.unauthenticated),
        }));
    }

    /// Takes over where the counts of all gateways are; `None`: each counts for itself. A connection lives on where it leads
    /// to the same place; else another is made on `background`, and waited for a bounded time.
    pub async fn share(&self, settings: Option<&shared::Settings>, metrics: &Arc<Metrics>, background: &Handle) {
        // known before the first refusal, which so is an increase
        for name in NAMES {
            metrics.rate_limited.with_label_values(&[name]);
        }
        let known = self.shared.load_full();
        let Some(settings) = settings else {
            self.shared.store(None);
            drop(known);
            metrics.limits_shared_up.reset();
            return;
        };
        if known.is_some_and(|known| known.is_at(settings)) {
            return;
        }
        let shared = Arc::new(Shared::start(settings.clone(), Arc::clone(metrics), background));
        self.shared.store(Some(Arc::clone(&shared)));
        shared.tried().await;
    }

    /// Draws on what an address may ask of the token endpoints.
    ///
    /// # Errors
    /// Where nothing is left.
    pub async fn address(&self, address: IpAddr) -> Result<(), Exhausted> {
        let shared = self.shared.load_full();
        let draw = of_address(self.budgets.load().per_address.as_ref(), PER_ADDRESS, address, shared.is_some());
        drop(Reserved::with(shared).and(draw)?.confirm().await?);
        Ok(())
    }

    /// Reserves an attempt at an account, from this address and from anywhere. It counts unless it is told otherwise. Where
    /// others that are under way have taken all there is, waits a bounded time for how they end.
    ///
    /// # Errors
    /// Where one of the two is used up; the other is not drawn on then.
    pub async fn attempt(&self, account: &Subject, address: IpAddr) -> Result<Attempt, Exhausted> {
        let here = self.account_key(account, Some(Key::address(address)));
        let anywhere = self.account_key(account, None);
        let key_of = |why: &Exhausted| if why.limit == PER_ACCOUNT { here } else { anywhere };
        let mut waiter = self.under_way.waiter();
        let draw = || {
            let reserved = self.with_account(Reserved::with(self.shared.load_full()), account, address);
            reserved.map_err(|why| Spent { key: key_of(&why), why })
        };
        let (reserved, begun) = waiter.begin([here, anywhere], draw).await?;
        reserved.confirm_attempt(begun, &mut waiter, key_of).await
    }

    /// Counts a failed credential of an address.
    ///
    /// # Errors
    /// Where nothing is left.
    pub async fn failed(&self, address: IpAddr) -> Result<(), Exhausted> {
        // often asked, and where it is off, nothing else is looked at
        if self.budgets.load().unauthenticated.is_none() {
            return Ok(());
        }
        drop(self.guess(None, address)?.confirm().await?);
        Ok(())
    }

    /// Reserves a failed credential of an address, and an attempt at the account that it names. Only this gateway's own
    /// budgets are drawn on so far.
    ///
    /// # Errors
    /// Where one of them is used up; the others are not drawn on then.
    pub fn guess(&self, account: Option<&Subject>, address: IpAddr) -> Result<Reserved, Exhausted> {
        let (shared, budgets) = (self.shared.load_full(), self.budgets.load());
        let draw = of_address(budgets.unauthenticated.as_ref(), UNAUTHENTICATED, address, shared.is_some());
        let reserved = Reserved::with(shared).and(draw)?;
        match account {
            Some(account) => self.with_account(reserved, account, address),
            None => Ok(reserved),
        }
    }

    fn with_account(&self, reserved: Reserved, account: &Subject, address: IpAddr) -> Result<Reserved, Exhausted> {
        let budgets = self.budgets.load();
        let here = Some(Key::address(address));
        let is_shared = reserved.is_shared();
        let draw = |bucket: &Option<Arc<Bucket<Key>>>, limit, address| {
            let bucket = Arc::clone(bucket.as_ref()?);
            let name = is_shared.then(|| Whose::account(account, address).name(limit, bucket.quota(), b""));
            Some(Draw { limit, bucket, key: self.account_key(account, address), name })
        };
        let reserved = reserved.and(draw(&budgets.per_account, PER_ACCOUNT, here))?;
        reserved.and(draw(&budgets.per_account_anywhere, PER_ACCOUNT_ANYWHERE, None))
    }

    /// Forgets budgets that are full again. To be called every minute or so.
    pub fn sweep(&self) {
        for bucket in self.budgets.load().all() {
            bucket.sweep();
        }
    }

    /// An existing user table may compare names without regard to case and spaces behind them; other spellings of a name
    /// must not be further attempts at it.
    fn account_key(&self, account: &Subject, address: Option<Key>) -> Key {
        self.digest(&Folded(account, address))
    }

    fn digest(&self, value: &impl Hash) -> Key {
        let [high, low] = self.seeds.each_ref().map(|seed| u128::from(seed.hash_one(value)));
        Key(high << 64 | low)
    }
}

/// An account whose name is hashed without case.
struct Folded<'a>(&'a Subject, Option<Key>);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self(Subject { kind, name }, address) = self;
        (kind, address).hash(state);
        folded(name).for_each(|char| char.hash(state));
    }
}

fn folded(name: &str) -> impl Iterator<Item = char> {
    name.trim_end().chars().flat_map(char::to_lowercase)
}

/// A draw on what an address has in a bucket, where there is one.
fn of_address(
    bucket: Option<&Arc<Bucket<Key>>>,
    limit: &'static str,
    address: IpAddr,
    is_shared: bool,
) -> Option<Draw> {
    let (bucket, key) = (Arc::clone(bucket?), Key::address(address));
    let name = is_shared.then(|| Whose::address(key).name(limit, bucket.quota(), b""));
    Some(Draw { limit, bucket, key, name })
}

/// Whose budget it is, in words that all gateways have in common.
struct Whose {
    kind: &'static str,
    issuer: [u8; 16],
    name: Box<str>,
    address: Option<Key>,
}

impl Whose {
    fn address(address: Key) -> Self {
        Self { kind: "address", issuer: [0; 16], name: "".into(), address: Some(address) }
    }

    fn principal(subject: &Subject) -> Self {
        let issuer = match subject.kind {
            SubjectKind::User | SubjectKind::Client => [0; 16],
            SubjectKind::Foreign(issuer) => issuer.bytes(),
        };
        Self { kind: subject.kind.name(), issuer, name: (&*subject.name).into(), address: None }
    }

    fn account(account: &Subject, address: Option<Key>) -> Self {
        Self { name: folded(&account.name).collect(), address, ..Self::principal(account) }
    }

    /// The name of the budget of this size that they have under `limit`; `of` tells budgets of one limit apart. What is
    /// changed in size begins anew.
    fn name(&self, limit: &str, quota: &Quota, of: &[u8]) -> Name {
        let Quota { count, per, burst } = quota;
        let address = self.address.map(|Key(address)| address.to_be_bytes());
        Name::of(&[
            limit.as_bytes(),
            &count.get().to_be_bytes(),
            &per.as_nanos().to_be_bytes(),
            &burst.get().to_be_bytes(),
            of,
            self.kind.as_bytes(),
            &self.issuer,
            self.name.as_bytes(),
            address.as_ref().map_or(&[], <[u8; 16]>::as_slice),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// Nobody waits for anybody where nothing is shared.
    pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }

    /// A credential that is yet to be looked at.
    fn guessed(limits: &Limits, address: IpAddr) -> Result<Attempt, Exhausted> {
        now(limits.guess(None, address)?.confirm())
    }

    fn quota(count: u32, burst: u32) -> Quota {
        Quota {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_mins(1),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn settings(per_address: u32, per_account: u32, anywhere: u32, unauthenticated: u32) -> Settings {
        let some = |burst: u32| (burst > 0).then(|| quota(1, burst));
        Settings {
            per_address: some(per_address),
            per_account: some(per_account),
            per_account_anywhere: some(anywhere),
            unauthenticated: some(unauthenticated),
        }
    }

    fn limits(settings: &Settings) -> Limits {
        let limits = Limits::new(Clock::system());
        limits.apply(settings);
        limits
    }

    /// How many budgets are kept.
    fn keys(limits: &Limits) -> usize {
        limits.budgets.load().all().map(|bucket| bucket.len()).sum()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_counts_by_what_one_caller_has() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("0.0.0.1", "::1", false),
            ("0.0.0.0", "::", false),
        ] {
            assert_eq!(Key::address(ip(a)) == Key::address(ip(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn a_limit_that_is_used_up_is_named() {
        let limits = limits(&settings(1, 0, 0, 0));
        assert_eq!(now(limits.address(ip("192.0.2.1"))), Ok(()));
        let exhausted = now(limits.address(ip("192.0.2.1"))).unwrap_err();
        assert_eq!((exhausted.limit, exhausted.quota, exhausted.window), ("per_address", 1, Duration::from_mins(1)));
        assert!(exhausted.retry_after > Duration::from_secs(50), "{exhausted:?}");
        assert_eq!(now(limits.address(ip("192.0.2.2"))), Ok(()));
    }

    #[test]
    fn only_failed_attempts_count() {
        let limits = limits(&settings(0, 2, 3, 0));
        let (alice, here, there) = (Subject::user("alice"), ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..10 {
            now(now(limits.attempt(&alice, here)).unwrap().succeeded());
            now(now(limits.attempt(&alice, here)).unwrap().abandoned());
        }
        assert_eq!(keys(&limits), 0);
        for _ in 0..2 {
            drop(now(limits.attempt(&alice, here)).unwrap());
        }
        assert_eq!(now(limits.attempt(&alice, here)).unwrap_err().limit, "per_account");
        assert!(now(limits.attempt(&Subject::client("alice"), here)).is_ok(), "a client of that name is another");
        drop(now(limits.attempt(&alice, there)).unwrap());
        for _ in 0..3 {
            let refused = now(limits.attempt(&alice, there)).unwrap_err();
            assert_eq!(refused.limit, "per_account_anywhere", "and nothing is drawn from the address's");
        }
    }

    /// Right passwords in parallel are no failures, and wrong ones in parallel are as many as in a row.
    #[tokio::test]
    async fn who_finds_all_taken_by_attempts_under_way_waits_for_how_they_end() {
        let (alice, here, there) = (Subject::user("alice"), ip("192.0.2.1"), ip("192.0.2.2"));
        for (name, settings, second) in
            [("from here", settings(0, 2, 0, 0), here), ("from anywhere", settings(0, 0, 2, 0), there)]
        {
            let limits = limits(&settings);
            let [right, wrong] = [limits.attempt(&alice, here), limits.attempt(&alice, second)].map(now);
            let (mut third, mut fourth) =
                (Box::pin(limits.attempt(&alice, here)), Box::pin(limits.attempt(&alice, here)));
            assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none(), "{name}");
            right.unwrap().succeeded().await;
            let third = third.await;
            assert!(third.is_ok() && (&mut fourth).now_or_never().is_none(), "{name}: one place became free");
            drop(wrong);
            assert!((&mut fourth).now_or_never().is_none(), "{name}: one is still under way");
            drop(third);
            assert!(fourth.await.is_err(), "{name}: all failed");
            assert!(now(limits.attempt(&alice, here)).is_err(), "{name}: and nobody is waited for any more");
        }
    }

    #[test]
    fn guesses_in_parallel_cannot_outrun_the_count() {
        let limits = limits(&settings(0, 0, 0, 2));
        let here = ip("192.0.2.1");
        let under_way = [guessed(&limits, here), guessed(&limits, here)];
        assert_eq!(guessed(&limits, here).unwrap_err().limit, "unauthenticated");
        drop(under_way);
        assert!(guessed(&limits, here).is_err());
    }

    #[test]
    fn another_spelling_of_a_name_is_no_further_attempt() {
        let limits = limits(&settings(0, 1, 0, 0));
        drop(now(limits.attempt(&Subject::user("alice"), ip("192.0.2.1"))).unwrap());
        for name in ["alice", "ALICE", "aLice", "alice  "] {
            assert!(now(limits.attempt(&Subject::user(name), ip("192.0.2.1"))).is_err(), "{name}");
        }
        assert!(now(limits.attempt(&Subject::user("alic"), ip("192.0.2.1"))).is_ok());
    }

    #[test]
    fn a_reload_keeps_what_was_spent_where_the_quota_stays() {
        let limits = limits(&settings(1, 1, 1, 1));
        let here = ip("192.0.2.1");
        now(limits.address(here)).unwrap();
        drop(guessed(&limits, here).unwrap());

        limits.apply(&settings(1, 1, 1, 2));
        assert!(now(limits.address(here)).is_err());
        assert!(guessed(&limits, here).is_ok(), "a changed one begins anew");

        limits.apply(&settings(0, 0, 0, 0));
        assert!((0..100).all(|_| now(limits.address(here)).is_ok()), "off is off");
        assert!((0..100).all(|_| now(limits.attempt(&Subject::user("a"), here)).is_ok()));
    }

    #[test]
    fn a_million_addresses_and_accounts_take_no_more_than_is_granted() {
        let limits = limits(&settings(1, 1, 1, 1));
        for number in 0..1_000_000_u32 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            now(limits.address(address)).unwrap();
            drop(guessed(&limits, address).unwrap());
            if number % 4 == 0 {
                drop(now(limits.attempt(&Subject::user(number.to_string()), address)).unwrap());
            }
        }
        assert!(keys(&limits) <= 4 * KEYS_MAX, "{}", keys(&limits));
        assert!(keys(&limits) > 2 * KEYS_MAX, "{}: they are kept while there is room", keys(&limits));
        assert!(size_of::<Key>() <= 16, "and each is small, whatever name it stands for");
    }

    #[test]
    fn what_is_full_again_is_forgotten() {
        let clock = Clock::system();
        let limits = Limits::new(clock.clone());
        limits.apply(&settings(1, 0, 0, 0));
        now(limits.address(ip("192.0.2.1"))).unwrap();
        limits.sweep();
        assert_eq!(keys(&limits), 1);
        clock.advance(Duration::from_secs(61));
        limits.sweep();
        assert_eq!(keys(&limits), 0);
        assert_eq!(now(limits.address(ip("192.0.2.1"))), Ok(()));
    }
}
