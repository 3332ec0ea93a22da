//! What routes do together: which of them decide anything, and what falls from one to another.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use http::Method;

use super::snapshot::Snapshot;
use crate::decision::is_tunnel;
use crate::route::regions::{Region, Regions, Rule};
use crate::route::{Allow, Pattern, Route};
use crate::wire::target::canonical_path;

/// Nodes of patterns that a check looks at, and routes that it asks; less than a second.
const STEPS_MAX: usize = 20_000_000;
/// Pairs of routes that are told; a person reads the first few.
const FALLS_MAX: usize = 1_000;

/// What routes do together. They are meant by their place in the file.
#[derive(Debug)]
pub struct Reach {
    /// Whether each may decide some request; where `unseen` says so, that it may is not known.
    pub decides: Vec<bool>,
    /// From a restricted route to a wider one: the methods that fall.
    pub falls: BTreeMap<(usize, usize), BTreeSet<String>>,
    /// From which route on it was not looked at all of this, because there is too much.
    pub unseen: Unseen,
}

/// What was not looked at, from which route on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Whether it can match.
    pub decides: Option<usize>,
    /// Whether its methods fall to another.
    pub falls: Option<usize>,
}

impl Reach {
    /// Looks at a request of every kind that a route, or two of them together, can decide.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self::within(snapshot, STEPS_MAX)
    }

    fn within(snapshot: &Snapshot, steps_max: usize) -> Self {
        let routes = snapshot.routes.routes();
        let rules = routes.iter().map(|route| Rule {
            pattern: route.pattern.clone(),
            hosts: &route.hosts,
            methods: &route.methods,
        });
        let endpoints = snapshot.endpoints.keys();
        let endpoints = endpoints.map(|path| Rule { pattern: Pattern::exact(path), hosts: &[], methods: &[] });
        let regions = Regions::new([rules.collect(), endpoints.collect()]);
        let mut search = Search {
            snapshot,
            regions: &regions,
            seen: HashSet::new(),
            steps_left: steps_max,
            decides: vec![false; routes.len()],
            falls: BTreeMap::new(),
        };
        // what a route decides at all, it decides at a request that fits it and as few others as can be
        let decides = routes.iter().position(|route| !search.look(&route.pattern));
        for may_decide in search.decides.iter_mut().skip(decides.unwrap_or(routes.len())) {
            *may_decide = true;
        }
        let falls = routes.iter().position(|route| !search.look_for_falls(route));
        Self { decides: search.decides, falls: search.falls, unseen: Unseen { decides, falls } }
    }
}

/// What is found so far.
struct Search<'s> {
    snapshot: &'s Snapshot,
    regions: &'s Regions<'s>,
    /// The shapes of the patterns that were looked at.
    seen: HashSet<String>,
    steps_left: usize,
    decides: Vec<bool>,
    falls: BTreeMap<(usize, usize), BTreeSet<String>>,
}

impl Search<'_> {
    /// Looks where methods of this route can fall to a wider one: where both match. Whether it came to the end.
    fn look_for_falls(&mut self, route: &Route) -> bool {
        if route.methods.is_empty() || route.allow == Allow::Anyone {
            return true;
        }
        let crossing = self.regions.crossing(&route.pattern, 0);
        if !self.takes(self.regions.take_work() + crossing.len()) {
            return false;
        }
        let routes = self.snapshot.routes.routes();
        for other in crossing.into_iter().filter_map(|index| routes.get(index)) {
            if !comes_before(route, other) {
                continue;
            }
            if !self.takes(comparisons(route, other)) {
                return false;
            }
            if !may_fall(route, other) {
                continue;
            }
            let Some(both) = route.pattern.meet(&other.pattern) else { continue };
            if self.falls.len() >= FALLS_MAX || !self.look(&both) {
                return false;
            }
        }
        true
    }

    /// Counts; whether so much may still be looked at.
    fn takes(&mut self, steps: usize) -> bool {
        let left = self.steps_left.checked_sub(steps);
        self.steps_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Looks at the requests of a pattern, if it is the first time. Whether it came to the end.
    fn look(&mut self, pattern: &Pattern) -> bool {
        if !self.seen.insert(pattern.shape()) {
            return true;
        }
        let regions = self.regions;
        let found = regions.of(pattern, &[], 0);
        self.takes(regions.take_work()) && found.iter().all(|region| self.look_at(region))
    }

    fn look_at(&mut self, region: &Region<'_>) -> bool {
        let snapshot = self.snapshot;
        if snapshot.endpoints.contains_key(&*region.path) || canonical_path(&region.path, &snapshot.paths).is_err() {
            return true;
        }
        let methods: Vec<&Method> = region.methods().into_iter().filter(|method| !is_tunnel(method)).collect();
        // a look-up passes the nodes along the path, and each method may be the last that the last route lists
        let each = region.work + region.listed() * methods.len();
        for host in region.hosts() {
            if !self.takes(each) {
                return false;
            }
            let candidates = snapshot.routes.candidates(host, &region.path);
            let Some(&first) = candidates.first() else { continue };
            for method in &methods {
                let Some(winner) = candidates.iter().find(|route| route.allows_method(method)) else { continue };
                let Some(index) = snapshot.routes.index(winner) else { continue };
                if let Some(won) = self.decides.get_mut(index) {
                    *won = true;
                }
                // who lists methods of one path in several routes has said what each gets
                let is_split = first.pattern.compare(&winner.pattern).is_eq() && !winner.methods.is_empty();
                if is_split || first.allows_method(method) {
                    continue;
                }
                if !self.takes(comparisons(first, winner)) {
                    return false;
                }
                if is_wider(first, winner)
                    && let Some(from) = snapshot.routes.index(first)
                {
                    let is_rest = methods.last().is_some_and(|last| last == method);
                    let shown = if is_rest { "every other method" } else { method.as_str() };
                    self.falls.entry((from, index)).or_default().insert(shown.to_owned());
                }
            }
        }
        true
    }
}

/// Whether `route` comes first for some request that fits both. Where `other` matches all of its paths, what falls was seen
/// when it was looked whether `route` can match.
fn comes_before(route: &Route, other: &Route) -> bool {
    route.pattern.compare(&other.pattern).is_lt() && !other.pattern.covers(&route.pattern)
}

/// How often something of one route is held against something of the other, where it is asked what may fall.
fn comparisons(route: &Route, other: &Route) -> usize {
    let roles = |route: &Route| if let Allow::Roles(roles) = &route.allow { roles.len() } else { 0 };
    let pairs = |of: &dyn Fn(&Route) -> usize| of(route).saturating_mul(of(other));
    let lists = [
        pairs(&roles),
        pairs(&|route| route.scopes.len()),
        pairs(&|route| route.methods.len()),
        pairs(&|route| route.hosts.len()),
    ];
    lists.into_iter().fold(1, usize::saturating_add)
}

/// Whether a method of some request that fits both can fall from `route` to `other`.
fn may_fall(route: &Route, other: &Route) -> bool {
    is_wider(route, other)
        && (other.methods.is_empty() || other.listed_methods().any(|method| !route.allows_method(method)))
        && (route.hosts.is_empty()
            || other.hosts.is_empty()
            || other.hosts.iter().any(|host| route.hosts.contains(host)))
}

/// Whether `other` lets somebody pass whom the restricted `route` does not: of another role, without a scope, or by a
/// credential of another scheme.
fn is_wider(route: &Route, other: &Route) -> bool {
    let drops_a_condition = route.scopes.iter().any(|scope| !other.scopes.contains(scope))
        || other.schemes.iter().any(|scheme| !route.schemes.contains(scheme));
    if route.allow != Allow::Anyone && drops_a_condition {
        return true;
    }
    match (&route.allow, &other.allow) {
        (Allow::Authenticated | Allow::Roles(_), Allow::Anyone) | (Allow::Roles(_), Allow::Authenticated) => true,
        (Allow::Anyone | Allow::Authenticated, _) => false,
        (Allow::Roles(roles), Allow::Roles(others)) => others.iter().any(|role| !roles.contains(role)),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Environment, load_text};

    fn reach(routes: &[String]) -> Reach {
        Reach::of(&snapshot(routes))
    }

    /// By the lines of the routes that come last.
    fn snapshot(routes: &[String]) -> Snapshot {
        read(routes).unwrap()
    }

    fn read(routes: &[String]) -> Option<Snapshot> {
        let mut text =
            "endpoints: [{ path: /x, action: jwks }]\nupstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
        for route in routes {
            writeln!(text, "  - {{ {route}, to: a }}").unwrap();
        }
        if routes.is_empty() {
            text = text.replace("routes:", "routes: []");
        }
        load_text(&text, Path::new("."), "a.yaml", &Environment::default()).ok()
    }

    #[test]
    fn a_route_that_is_beaten_in_every_length_decides_nothing() {
        for (routes, decides) in [
            (&["path: '/{a}', allow: [r]"][..], &[true][..]),
            (&["path: /x, allow: [r]", "path: '/{a}', allow: [r]"], &[false, true]),
            (
                &["path: /a/**, allow: [r]", "path: /a, allow: [r]", "path: '/a/{b}/**', allow: [r]"],
                // what is left is `/a/`
                &[true, true, true],
            ),
            (
                &[
                    "path: /a/**, allow: [r]",
                    "path: /a, allow: [r]",
                    "path: /a/, allow: [r]",
                    "path: '/a/{b}/**', allow: [r]",
                ],
                &[false, true, true, true],
            ),
            (&["path: '/a/{b}', allow: [r], hosts: [h]", "path: '/a/{b}', allow: [r], hosts: [i]"], &[true, true]),
        ] {
            let routes: Vec<String> = routes.iter().map(|&route| route.to_owned()).collect();
            assert_eq!(reach(&routes).decides, decides, "{routes:?}");
        }
    }

    #[test]
    fn many_patterns_that_cross_each_other_are_looked_at_in_pairs() {
        const ROUTES: usize = 40;
        let path = |own: usize| -> String {
            (0..ROUTES).map(|n| if n == own { format!("/l{n}") } else { format!("/{{s{n}}}") }).collect()
        };
        let route = |own| format!("path: '{}', methods: [GET], allow: [r]", path(own));
        let mut routes: Vec<String> = (0..ROUTES).map(route).collect();
        routes[7] = format!("path: '{}', allow: anyone", path(7));
        let found = reach(&routes);
        assert_eq!(found.decides, [true; ROUTES]);
        // to what is less specific, where both match
        let falls: Vec<_> = found.falls.keys().copied().collect();
        assert_eq!(falls, (0..7).map(|from| (from, 7)).collect::<Vec<_>>());
        assert_eq!(found.unseen, Unseen::default());
    }

    /// What `find` answers for each request is what was found.
    fn holds(snapshot: &Snapshot, reach: &Reach, host: &str, method: &Method, path: &str) {
        let routes = &snapshot.routes;
        let Ok(winner) = routes.find(host, method, path) else { return };
        let (first, index) = (routes.candidates(host, path)[0], routes.index(winner).unwrap());
        assert!(reach.decides[index], "{method} {host} {path} is decided by {index}");
        let is_split = first.pattern.compare(&winner.pattern).is_eq() && !winner.methods.is_empty();
        if !first.allows_method(method) && !is_split && is_wider(first, winner) {
            let pair = (routes.index(first).unwrap(), index);
            let told = reach.falls.get(&pair).unwrap_or_else(|| panic!("{method} {host} {path} falls: {pair:?}"));
            let is_told = told.contains(method.as_str()) || told.contains("every other method");
            assert!(is_told, "{method} {host} {path} falls: {told:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_request_shows_is_found(
            routes in proptest::collection::vec(
                (
                    "(/([ab]|[{]q[}])){0,3}(/|/[*][*]|/a)",
                    "(|hosts: \\[h\\], |hosts: \\[h, i\\], )",
                    "(|methods: \\[GET\\], |methods: \\[PUT, GET\\], |methods: \\[HEAD\\], )",
                    "(anyone|authenticated|\\[r\\]|\\[s\\]|\\[r, s\\]|authenticated, scopes: \\[w\\]|\\[r\\], schemes: \\[token\\])",
                ),
                0..7,
            ),
            requests in proptest::collection::vec(("(/[abc]){1,4}/?|/", "[hij]", "(GET|HEAD|PUT|POST)"), 40),
        ) {
            let mut seen = BTreeSet::new();
            let mut lines = Vec::new();
            for (path, hosts, methods, allow) in routes {
                if !seen.insert((path.clone(), hosts.clone(), methods.clone())) {
                    continue;
                }
                // names are told apart by their place
                let parts: Vec<&str> = path.split("{q}").collect();
                let (first, rest) = parts.split_first().unwrap();
                let named = rest.iter().enumerate().fold((*first).to_owned(), |path, (n, part)| path + &format!("{{q{n}}}{part}"));
                lines.push(format!("path: '{named}', {hosts}{methods}allow: {allow}"));
            }
            let Some(snapshot) = read(&lines) else { return Ok(()) };
            let reach = Reach::of(&snapshot);
            prop_assert_eq!(reach.unseen, Unseen::default());
            for (path, host, method) in requests {
                holds(&snapshot, &reach, &host, &method.parse().unwrap(), &path);
            }
        }
    }

    /// `/l0/{x}`, `/{x}/m1`, `/l2/{x}` and so on: of each two kinds, all cross each other.
    fn two_kinds(routes: usize, first: &str, second: &str) -> Vec<String> {
        let route = |n: usize| match n % 2 {
            0 => format!("path: '/l{n}/{{x}}', {first}"),
            _ => format!("path: '/{{x}}/m{n}', {second}"),
        };
        (0..routes).map(route).collect()
    }

    #[test]
    fn a_route_that_was_not_looked_at_is_never_said_not_to_match() {
        let mut routes = two_kinds(40, "methods: [GET], allow: [r]", "allow: anyone");
        // nothing is left for it
        routes.extend(["/{y}", "/{y}/", "/{y}/{z}/**"].map(|path| format!("path: '{path}', allow: [r]")));
        routes.push("path: '/{y}/**', allow: [r], methods: [GET]".to_owned());
        let snapshot = snapshot(&routes);
        let all = Reach::of(&snapshot);
        assert_eq!((all.decides.iter().position(|decides| !decides), all.falls.len()), (Some(43), 20 * 20));
        assert_eq!(all.unseen, Unseen::default());
        let mut last = 0;
        for steps_max in [0, 200, 1_000, 4_000, 8_000] {
            let some = Reach::within(&snapshot, steps_max);
            assert!(some.unseen.falls.is_some(), "{steps_max}");
            assert!(some.falls.len() >= last && some.falls.iter().all(|(pair, _)| all.falls.contains_key(pair)));
            last = some.falls.len();
            for (index, decides) in some.decides.iter().enumerate() {
                let is_seen = some.unseen.decides.is_none_or(|unseen| index < unseen);
                assert_eq!(*decides, !is_seen || all.decides[index], "{index} of {steps_max}");
            }
        }
        assert!(last > 0);
    }

    #[test]
    fn what_patterns_take_that_lie_along_a_path_is_counted_too() {
        const BITS: usize = 7;
        let routes = |crossing: &dyn Fn(usize, usize) -> String| -> Vec<String> {
            let above = (0..1 << BITS).map(|n| (0..BITS).map(|at| crossing(n, at)).collect());
            let below = (0..50).map(|n| format!("{}/x{n}", "/b".repeat(BITS)));
            above.chain(below).map(|path: String| format!("path: '{path}', allow: [r]")).collect()
        };
        // each path below matches one route, along all of the others or along none
        let along = routes(&|n, at| if n >> at & 1 == 1 { "/b".to_owned() } else { format!("/{{s{at}}}") });
        let aside = routes(&|n, at| if n >> at & 1 == 1 { "/b".to_owned() } else { format!("/c{at}") });
        for (routes, is_seen) in [(along, false), (aside, true)] {
            let found = Reach::within(&snapshot(&routes), 20_000);
            assert_eq!(found.unseen == Unseen::default(), is_seen, "{:?}", found.unseen);
        }
    }

    #[test]
    fn roles_that_are_compared_are_counted_too() {
        let roles = (0..100).map(|role| format!("r{role}")).collect::<Vec<_>>().join(", ");
        let routes = two_kinds(2, &format!("methods: [GET], allow: [{roles}]"), &format!("allow: [{roles}]"));
        for (steps, unseen) in [(5_000, Some(0)), (15_000, None)] {
            let found = Reach::within(&snapshot(&routes), steps);
            assert_eq!((found.unseen.falls, found.unseen.decides), (unseen, None), "{steps}");
        }
    }

    #[test]
    fn pairs_that_cannot_fall_are_not_looked_at() {
        let pairs = 100 * 100;
        for (name, first, second, steps) in [
            ("nobody else passes", "methods: [GET], allow: [r, s]", "allow: [r]", 8 * pairs),
            ("no other method", "methods: [GET], allow: [r]", "methods: [GET], allow: anyone", 8 * pairs),
            ("no common host", "hosts: [a], methods: [GET], allow: [r]", "hosts: [b], allow: anyone", 8 * pairs),
            ("no methods", "allow: [r]", "allow: anyone", pairs),
            ("the other is more specific", "allow: anyone", "methods: [GET], allow: [r]", 8 * pairs),
        ] {
            let found = Reach::within(&snapshot(&two_kinds(200, first, second)), steps);
            assert_eq!((found.unseen, found.falls.len()), (Unseen::default(), 0), "{name}");
        }
        // and no more of them than are read
        let many = Reach::of(&snapshot(&two_kinds(200, "methods: [GET], allow: [r]", "allow: anyone")));
        assert!(many.falls.len() == FALLS_MAX && many.unseen.falls.is_some() && many.unseen.decides.is_none());
    }
}
