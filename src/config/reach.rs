//! What routes do together: which of them decide anything, and what falls from one to another.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use http::Method;

use super::snapshot::Snapshot;
use crate::decision::is_tunnel;
use crate::route::regions::{Region, Regions, Rule};
use crate::route::{Allow, Pattern, Route};
use crate::wire::target::canonical_path;

/// What routes do together. They are meant by their place in the file.
#[derive(Debug)]
pub struct Reach {
    /// Whether each decides any request.
    pub decides: Vec<bool>,
    /// From a restricted route to a wider one: the methods that fall.
    pub falls: BTreeMap<(usize, usize), BTreeSet<String>>,
}

impl Reach {
    /// Looks at a request of every kind that a route, or two of them together, can decide.
    pub fn of(snapshot: &Snapshot) -> Self {
        let routes = snapshot.routes.routes();
        let rules = routes.iter().map(|route| Rule {
            pattern: route.pattern.clone(),
            hosts: &route.hosts,
            methods: &route.methods,
        });
        let endpoints = snapshot.endpoints.keys();
        let endpoints = endpoints.map(|path| Rule { pattern: Pattern::exact(path), hosts: &[], methods: &[] });
        let regions = Regions::new([rules.collect(), endpoints.collect()]);
        let mut reach = Self { decides: vec![false; routes.len()], falls: BTreeMap::new() };
        let mut seen = HashSet::new();
        let mut look = |pattern: &Pattern| {
            if seen.insert(pattern.shape()) {
                for region in regions.of(pattern, &[], 0) {
                    reach.look(snapshot, &region);
                }
            }
        };
        for route in routes {
            look(&route.pattern);
            // its methods fall to a wider one where both match
            if route.methods.is_empty() {
                continue;
            }
            for other in regions.crossing(&route.pattern, 0).into_iter().filter_map(|index| routes.get(index)) {
                if is_wider(route, other)
                    && let Some(both) = route.pattern.meet(&other.pattern)
                {
                    look(&both);
                }
            }
        }
        reach
    }

    fn look(&mut self, snapshot: &Snapshot, region: &Region<'_>) {
        if snapshot.endpoints.contains_key(&*region.path) || canonical_path(&region.path, &snapshot.paths).is_err() {
            return;
        }
        let methods: Vec<&Method> = region.methods().into_iter().filter(|method| !is_tunnel(method)).collect();
        for host in region.hosts() {
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
                if !is_split
                    && !first.allows_method(method)
                    && is_wider(first, winner)
                    && let Some(from) = snapshot.routes.index(first)
                {
                    let is_rest = methods.last().is_some_and(|last| last == method);
                    let shown = if is_rest { "every other method" } else { method.as_str() };
                    self.falls.entry((from, index)).or_default().insert(shown.to_owned());
                }
            }
        }
    }
}

/// Whether `other` lets somebody pass whom the restricted `route` does not: of another role, or without a scope.
fn is_wider(route: &Route, other: &Route) -> bool {
    if route.allow != Allow::Anyone && route.scopes.iter().any(|scope| !other.scopes.contains(scope)) {
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

    use super::*;
    use crate::config::{Environment, load_text};

    /// By the lines of the routes that come last.
    fn reach(routes: &[String]) -> Reach {
        let mut text =
            "endpoints: [{ path: /x, action: jwks }]\nupstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
        for route in routes {
            writeln!(text, "  - {{ {route}, to: a }}").unwrap();
        }
        Reach::of(&load_text(&text, Path::new("."), "a.yaml", &Environment::default()).unwrap())
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
    }
}
