//! The budgets of a snapshot's routes. They belong to the snapshot: a request draws on those of the rules it began under.
//!
//! A route of the next snapshot takes over the budget of the route that it was: of the same path, whatever its placeholders
//! are called, and rate, and as alike in
//! hosts and methods as there is one. So a reload that changes who may ask, or how, gives nobody a fresh budget.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::draw::{Draw, Reserved};
use super::{Bucket, Key, Limits, ROUTE, Whose};
use crate::principal::Subject;
use crate::rejection::Exhausted;
use crate::route::{RateBy, Route};

/// Keys of all routes' budgets together; each has an equal share, but not fewer than [`KEYS_MIN`].
const KEYS_ALL_MAX: usize = 1_000_000;

/// Keys of one route's budget where many routes have one.
const KEYS_MIN: usize = 1_024;

/// How alike an earlier route of the same path and rate is, the most alike first.
const LIKENESSES: [fn(&Route, &Route) -> bool; 4] = [
    |new, old| new.hosts == old.hosts && new.methods == old.methods,
    |new, old| new.hosts == old.hosts,
    |new, old| new.methods == old.methods,
    |_, _| true,
];

/// Whose requests draw on a budget, and the budget.
#[derive(Clone, Debug)]
struct RouteBudget {
    by: RateBy,
    bucket: Arc<Bucket<Key>>,
    /// What tells it apart from other routes' budgets, in all gateways.
    identity: Arc<[u8]>,
}

/// One for each route of a snapshot that has a rate, in the order of its routes.
#[derive(Debug)]
pub struct RouteBudgets(Vec<Option<RouteBudget>>);

impl RouteBudgets {
    /// The budgets of a snapshot's routes, taken over from those of the snapshot before it where there is one.
    pub fn of(routes: &[Route], before: Option<(&[Route], &Self)>, limits: &Limits) -> Self {
        let mut limited: HashMap<String, Vec<&Route>> = HashMap::new();
        for route in routes.iter().filter(|route| route.rate.is_some()) {
            limited.entry(route.pattern.shape()).or_default().push(route);
        }
        let number = limited.values().map(Vec::len).sum::<usize>();
        let keys_max = (KEYS_ALL_MAX / number.max(1)).clamp(KEYS_MIN, super::KEYS_MAX);
        let mut carried = before.map_or_else(Vec::new, |(old_routes, old)| carried(routes, old_routes, old));
        let budgets = routes.iter().enumerate().map(|(index, route)| {
            let rate = route.rate.as_ref()?;
            let carried = carried.get_mut(index).and_then(Option::take);
            let bucket = carried.unwrap_or_else(|| Arc::new(Bucket::new(&rate.quota, keys_max, limits.clock.clone())));
            bucket.set_keys_max(keys_max);
            Some(RouteBudget { by: rate.by, bucket, identity: identity(limited.get(&route.pattern.shape())?, route) })
        });
        Self(budgets.collect())
    }

    /// Draws on the budget of the route at `index`: the principal's, or the address's where the route says so or knows
    /// nobody.
    ///
    /// # Errors
    /// Where nothing is left.
    pub async fn draw(
        &self,
        index: Option<usize>,
        limits: &Limits,
        principal: Option<&Subject>,
        address: IpAddr,
    ) -> Result<(), Exhausted> {
        let Some(budget) = index.and_then(|index| self.0.get(index)?.as_ref()) else { return Ok(()) };
        let RouteBudget { by, bucket, identity } = budget;
        let subject = principal.filter(|_| *by == RateBy::Principal);
        let key = subject.map_or_else(|| Key::address(address), |subject| limits.digest(subject));
        let shared = limits.shared.load_full();
        let name = shared.is_some().then(|| {
            let whose = subject.map_or_else(|| Whose::address(key), Whose::principal);
            whose.name(ROUTE, bucket.quota(), identity)
        });
        let draw = Draw { limit: ROUTE, bucket: Arc::clone(bucket), key, name };
        drop(Reserved::with(shared).and(Some(draw))?.confirm().await?);
        Ok(())
    }

    /// Forgets budgets that are full again. To be called every minute or so.
    pub fn sweep(&self) {
        for budget in self.0.iter().flatten() {
            budget.bucket.sweep();
        }
    }
}

/// What a route's budget is called in all gateways that have these routes, whatever their order: its path, whom it counts
/// by, and which of several such routes it is. Of one route alone hosts and methods do not matter: a reload that changes
/// them gives nobody a fresh budget. `named`: the routes of its path that have a rate.
fn identity(named: &[&Route], route: &Route) -> Arc<[u8]> {
    let own = place(route);
    let alike = named.iter().filter(|other| other.rate == route.rate);
    let number = alike.filter(|other| place(other) < own).count();
    let by: u8 = match route.rate.as_ref().map(|rate| rate.by) {
        Some(RateBy::Principal) => b'p',
        Some(RateBy::Address) | None => b'a',
    };
    let parts = (number as u64).to_be_bytes().into_iter().chain([by]).chain(route.pattern.shape().into_bytes());
    parts.collect()
}

/// Hosts and methods, which are sets. No two routes of one path have the same.
fn place(route: &Route) -> (BTreeSet<&str>, BTreeSet<&str>) {
    (route.hosts.iter().map(|host| &**host).collect(), route.methods.iter().map(Method::as_str).collect())
}

/// For each route which of the old ones it was, by its place: of those that have a rate, the most alike of the same path, of
/// the same rate before others. Each is one route at most: a rule that is split has two budgets, as it says.
pub fn heirs(routes: &[Route], old_routes: &[Route]) -> Vec<Option<usize>> {
    let mut left: HashMap<String, Vec<(usize, &Route)>> = HashMap::new();
    for (index, route) in old_routes.iter().enumerate().filter(|(_, route)| route.rate.is_some()) {
        left.entry(route.pattern.shape()).or_default().push((index, route));
    }
    let mut heirs = vec![None; routes.len()];
    for same_rate in [true, false] {
        for alike in LIKENESSES {
            for (route, heir) in routes.iter().zip(&mut heirs) {
                let Some(left) = left.get_mut(&route.pattern.shape()) else { continue };
                if heir.is_some() || route.rate.is_none() {
                    continue;
                }
                let is_it = |old: &Route| (!same_rate || old.rate == route.rate) && alike(route, old);
                if let Some(at) = left.iter().position(|(_, old)| is_it(old)) {
                    *heir = Some(left.remove(at).0);
                }
            }
        }
    }
    heirs
}

/// For each route the budget that it takes over, which is one of its rate.
fn carried(routes: &[Route], old_routes: &[Route], old: &RouteBudgets) -> Vec<Option<Arc<Bucket<Key>>>> {
    let taken = routes.iter().zip(heirs(routes, old_routes)).map(|(route, heir)| {
        let heir = heir?;
        old_routes.get(heir).filter(|old| old.rate == route.rate)?;
        Some(Arc::clone(&old.0.get(heir)?.as_ref()?.bucket))
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::limit::Quota;
    use crate::limit::tests::now;
    use crate::route::{RouteRate, test_route};

    const ONE_AN_HOUR: u32 = 1;

    fn route(path: &str, hosts: &str, methods: &str, rate: Option<(u32, RateBy)>) -> Route {
        let mut route = test_route(path);
        route.hosts = hosts.split_whitespace().map(Box::from).collect();
        route.methods = methods.split_whitespace().map(|name| Method::from_bytes(name.as_bytes()).unwrap()).collect();
        route.rate = rate.map(|(burst, by)| {
            let burst = NonZeroU32::new(burst).unwrap();
            Box::new(RouteRate { quota: Quota { count: NonZeroU32::MIN, per: Duration::from_hours(1), burst }, by })
        });
        route
    }

    fn here() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn limits() -> Limits {
        Limits::new(Clock::system())
    }

    /// Spends all that this caller has of every route.
    fn spent(routes: &[Route], limits: &Limits) -> RouteBudgets {
        let budgets = RouteBudgets::of(routes, None, limits);
        for (index, route) in routes.iter().enumerate() {
            let spent = (0..10).any(|_| now(budgets.draw(Some(index), limits, None, here())).is_err());
            assert_eq!(spent, route.rate.is_some());
        }
        budgets
    }

    /// Which of the new routes this caller has nothing left of.
    fn used_up(old: &[Route], new: &[Route]) -> Vec<bool> {
        let limits = limits();
        let before = spent(old, &limits);
        let after = RouteBudgets::of(new, Some((old, &before)), &limits);
        (0..new.len()).map(|index| now(after.draw(Some(index), &limits, None, here())).is_err()).collect()
    }

    #[test]
    fn a_route_has_its_own_budget() {
        let limits = limits();
        let routes = [
            route("/p", "", "", Some((ONE_AN_HOUR, RateBy::Principal))),
            route("/a", "", "", Some((ONE_AN_HOUR, RateBy::Address))),
            route("/free", "", "", None),
        ];
        let budgets = RouteBudgets::of(&routes, None, &limits);
        let (alice, bob) = (Subject::user("alice"), Subject::user("bob"));
        for (name, index, principal, address, granted) in [
            ("the first of a principal", 0, Some(&alice), "192.0.2.1", true),
            ("the second, from elsewhere", 0, Some(&alice), "192.0.2.2", false),
            ("another principal", 0, Some(&bob), "192.0.2.1", true),
            ("nobody, by address", 0, None, "192.0.2.1", true),
            ("nobody, again", 0, None, "192.0.2.1", false),
            ("the first of an address", 1, Some(&alice), "192.0.2.1", true),
            ("another principal from there", 1, Some(&bob), "192.0.2.1", false),
            ("no limit", 2, Some(&alice), "192.0.2.1", true),
        ] {
            let result = now(budgets.draw(Some(index), &limits, principal, address.parse().unwrap()));
            assert_eq!(result.map_err(|exhausted| exhausted.limit), granted.then_some(()).ok_or("route"), "{name}");
        }
    }

    #[test]
    fn what_was_spent_stays_spent_where_the_rate_stays() {
        let by = |burst| Some((burst, RateBy::Address));
        let (x, y) = ("/x", "/y");
        for (name, old, new, expected) in [
            ("nothing changed", vec![route(x, "", "", by(1))], vec![route(x, "", "", by(1))], vec![true]),
            ("a method more", vec![route(x, "", "GET", by(1))], vec![route(x, "", "GET POST", by(1))], vec![true]),
            ("other methods", vec![route(x, "", "GET", by(1))], vec![route(x, "", "POST", by(1))], vec![true]),
            ("hosts came", vec![route(x, "", "", by(1))], vec![route(x, "a b", "", by(1))], vec![true]),
            ("hosts and methods", vec![route(x, "a", "GET", by(1))], vec![route(x, "", "", by(1))], vec![true]),
            (
                "a placeholder's other name",
                vec![route("/q/{id}/**", "", "", by(1))],
                vec![route("/q/{key}/**", "", "", by(1))],
                vec![true],
            ),
            (
                "a prefix is another path",
                vec![route("/q/{id}", "", "", by(1))],
                vec![route("/q/{id}/**", "", "", by(1))],
                vec![false],
            ),
            ("another rate", vec![route(x, "", "", by(1))], vec![route(x, "", "", by(2))], vec![false]),
            (
                "for others",
                vec![route(x, "", "", by(1))],
                vec![route(x, "", "", Some((1, RateBy::Principal)))],
                vec![false],
            ),
            ("another path", vec![route(x, "", "", by(1))], vec![route(y, "", "", by(1))], vec![false]),
            ("one that had none", vec![route(x, "", "", None)], vec![route(x, "", "", by(1))], vec![false]),
            (
                "split in two, which have one each",
                vec![route(x, "", "", by(1))],
                vec![route(x, "", "GET", by(1)), route(x, "", "POST", by(1))],
                vec![true, false],
            ),
            (
                "one between them goes",
                vec![route(x, "", "GET", by(1)), route(y, "", "", None), route(x, "", "POST", by(1))],
                vec![route(x, "", "POST PUT", by(1)), route(x, "", "GET", by(1))],
                vec![true, true],
            ),
        ] {
            assert_eq!(used_up(&old, &new), expected, "{name}");
        }
    }

    #[test]
    fn a_route_takes_over_from_the_one_that_is_most_alike() {
        let limits = limits();
        let rate = Some((ONE_AN_HOUR, RateBy::Address));
        let old = [route("/x", "a", "GET", rate), route("/x", "b", "GET", rate)];
        let before = RouteBudgets::of(&old, None, &limits);
        now(before.draw(Some(1), &limits, None, here())).unwrap();
        for (name, new, expected) in [
            (
                "the same in another order",
                [route("/x", "b", "GET", rate), route("/x", "a", "GET", rate)],
                [true, false],
            ),
            (
                "other methods of each host",
                [route("/x", "b", "PUT", rate), route("/x", "a", "PUT", rate)],
                [true, false],
            ),
            ("one stays, one is new", [route("/x", "c", "GET", rate), route("/x", "b", "GET", rate)], [false, true]),
        ] {
            let after = RouteBudgets::of(&new, Some((&old, &before)), &limits);
            let kept: Vec<_> = after.0.iter().flatten().map(|budget| budget.bucket.len() > 0).collect();
            assert_eq!(kept, expected, "{name}");
        }
    }

    #[test]
    fn a_request_under_the_old_rules_draws_on_the_same_budget() {
        let limits = limits();
        let rate = Some((2, RateBy::Address));
        let (old, new) = ([route("/x", "", "GET", rate)], [route("/x", "", "", rate)]);
        let before = RouteBudgets::of(&old, None, &limits);
        let after = RouteBudgets::of(&new, Some((&old, &before)), &limits);
        now(before.draw(Some(0), &limits, None, here())).unwrap();
        now(after.draw(Some(0), &limits, None, here())).unwrap();
        assert!(now(before.draw(Some(0), &limits, None, here())).is_err());
        // and one whose route is gone still has its own
        let gone = RouteBudgets::of(&[], Some((&new, &after)), &limits);
        assert!(now(gone.draw(Some(0), &limits, None, here())).is_ok());
        assert!(now(after.draw(Some(0), &limits, None, here())).is_err());
    }

    fn any_route() -> impl Strategy<Value = Route> {
        let rate = prop_oneof![Just(None), (1..3_u32).prop_map(|burst| Some((burst, RateBy::Address)))];
        ("/[ab]", "[ab ]{0,3}", prop_oneof![Just(""), Just("GET"), Just("POST")], rate)
            .prop_map(|(path, hosts, methods, rate)| route(&path, &hosts, methods, rate))
    }

    proptest! {
        /// However a file is changed, no budget serves two routes, and none that could be taken over is left behind while
        /// a route of its path and rate begins anew.
        #[test]
        fn every_budget_goes_on_once(
            old in proptest::collection::vec(any_route(), 0..6),
            new in proptest::collection::vec(any_route(), 0..6),
        ) {
            let limits = limits();
            let before = RouteBudgets::of(&old, None, &limits);
            let after = RouteBudgets::of(&new, Some((&old, &before)), &limits);
            let buckets = |budgets: &RouteBudgets| -> Vec<_> {
                budgets.0.iter().flatten().map(|budget| Arc::as_ptr(&budget.bucket)).collect()
            };
            let (mut kept, had) = (buckets(&after), buckets(&before));
            kept.sort_unstable();
            let all = kept.len();
            kept.dedup();
            prop_assert_eq!(kept.len(), all);
            for route in new.iter().filter(|route| route.rate.is_some()) {
                let same = |other: &&Route| other.name == route.name && other.rate == route.rate;
                let (were, are) = (old.iter().filter(same).count(), new.iter().filter(same).count());
                let carried = new.iter().zip(&after.0).filter(|(other, budget)| {
                    same(other) && budget.as_ref().is_some_and(|budget| had.contains(&Arc::as_ptr(&budget.bucket)))
                });
                prop_assert_eq!(carried.count(), were.min(are));
            }
        }
    }
}
