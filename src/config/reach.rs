//! What routes do together: which of them decide anything, and what falls from one to another.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use super::snapshot::Snapshot;
use crate::decision::is_tunnel;
use crate::route::regions::{Paths, Region, Regions, Rule, TooMany};
use crate::route::{Allow, Route};
use crate::wire::target::canonical_path;

/// Kinds of paths that are looked at.
const REGIONS_MAX: usize = 200_000;

/// What routes do together. They are meant by their place in the file.
#[derive(Debug)]
pub struct Reach {
    /// Whether each decides any request.
    pub decides: Vec<bool>,
    /// From a restricted route to a wider one: the methods that fall.
    pub falls: BTreeMap<(usize, usize), BTreeSet<String>>,
}

impl Reach {
    /// Looks at a request of every kind that the rules tell apart.
    ///
    /// # Errors
    /// There are too many kinds.
    pub fn of(snapshot: &Snapshot) -> Result<Self, TooMany> {
        let routes = snapshot.routes.routes();
        let rules = routes.iter().enumerate().map(|(meaning, route)| Rule {
            pattern: route.pattern.clone(),
            hosts: &route.hosts,
            methods: &route.methods,
            meaning,
        });
        let regions = Regions::new([rules.collect(), Vec::new()]);
        let mut reach = Self { decides: vec![false; routes.len()], falls: BTreeMap::new() };
        regions.visit(Paths::All, REGIONS_MAX, |region| reach.look(snapshot, region))?;
        Ok(reach)
    }

    fn look(&mut self, snapshot: &Snapshot, region: &Region<'_, '_>) {
        if snapshot.endpoints.contains_key(region.path) || canonical_path(region.path, &snapshot.paths).is_err() {
            return;
        }
        let methods: Vec<&Method> = region.methods().into_iter().filter(|method| !is_tunnel(method)).collect();
        for host in region.hosts() {
            let candidates = snapshot.routes.candidates(host, region.path);
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
