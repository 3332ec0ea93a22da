//! What changes between two configurations, by what their rules mean: who gains, who loses, what else.
//!
//! Exact, not sampled: both are asked about one request of every kind that either tells apart ([`regions`]), by the
//! function that serves requests. What differs is then said by patterns, each for exactly the requests for which it is so.
//!
//! [`regions`]: crate::route::regions

mod fact;
mod meaning;
mod facts;
mod accounts;
mod whole;
mod names;
mod cover;
mod row;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod agreement;
#[cfg(test)]
mod every_key;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use self::cover::{Block, Effect, Spot, Statement, cover};
use self::meaning::{Meaning, Who};
use super::{Head, Place, place};
use crate::config::snapshot::Snapshot;
use crate::endpoint::{Action, Endpoints};
use crate::rejection::Rejection;
use crate::route::regions::{Paths, Region, Regions, Rule, TooMany};
use crate::route::{Allow, Pattern};
use crate::wire::target::{Target, canonical_path};

pub use fact::{Change, joined};
pub use names::Names;
pub use row::{Printed, Row};

/// Kinds of paths that are compared.
const REGIONS_MAX: usize = 400_000;

/// What a path can hold that `paths` says something of, in the order of [`facts::of_paths`]. The last is no mark within a
/// segment.
const MARKS: [&[&str]; 4] = [&["%2F"], &["%3F", "%23"], &[";", "%3B"], &["//"]];

/// All that differs, what lets more people through first; last, what no rule is about.
///
/// # Errors
/// The rules tell more kinds of paths apart than can be compared in reasonable time.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMany> {
    let mut rows = by_rule(old, new)?;
    let mut changes = of_all_requests(old, new);
    changes.extend(beside(old, new));
    changes.extend(fact::changes(&whole::of_start(old), &whole::of_start(new)));
    rows.extend(everywhere(changes));
    Ok(rows)
}

/// What differs for requests.
///
/// # Errors
/// As [`diff`].
pub fn for_requests(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMany> {
    let mut rows = by_rule(old, new)?;
    rows.extend(everywhere(of_all_requests(old, new)));
    Ok(rows)
}

/// What the process does otherwise beside answering requests: where it listens, what is logged, what it expects of rules.
pub fn beside(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    fact::changes(&whole::of_process(old), &whole::of_process(new))
}

fn of_all_requests(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    fact::changes(&whole::of_requests(old), &whole::of_requests(new))
}

/// The row of what holds for all requests alike, or for none of them.
fn everywhere(changes: Vec<Change>) -> Option<Row> {
    (!changes.is_empty()).then(|| Row {
        path: "/**".to_owned(),
        except: Vec::new(),
        holding: Vec::new(),
        hosts: Names::all(),
        methods: Names::all(),
        gains: Vec::new(),
        loses: Vec::new(),
        changes,
        everybody: 0,
    })
}

fn by_rule(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMany> {
    let mut numbers = Numbers::default();
    let sides = [Side::of(old, new, &mut numbers), Side::of(new, old, &mut numbers)];
    let regions = Regions::new(sides.each_ref().map(|side| side.rules(&mut numbers)));
    let policies = Policies::of(old, new);
    let mut judge = Judge::of(&sides);
    let (mut spots, mut seen) = (Vec::new(), HashSet::new());
    regions.visit(policies.paths(), REGIONS_MAX, |region| {
        let pattern = region.pattern();
        for (path, marks) in policies.spellings(region) {
            // what neither side can read matches nothing; and several kinds of paths may match the same patterns
            let is_readable = [old, new].iter().any(|side| canonical_path(&path, &side.paths).is_ok());
            if is_readable && seen.insert((pattern.shape(), marks)) {
                let blocks = judge.blocks(region, &path);
                let (pattern, path) = (pattern.clone(), region.path.to_owned());
                spots.push(Spot { pattern, path, rules: region.rules.len(), marks, blocks });
            }
        }
    })?;
    let row = |statement: Statement| judge.row(statement, &policies);
    let mut rows: Vec<Row> = cover(spots)?.into_iter().filter_map(row).collect();
    let widens_least = |row: &Row| (row.gains.is_empty(), !row.widens(), row.loses.is_empty(), row.path.clone());
    rows.sort_by_cached_key(widens_least);
    Ok(rows)
}

/// Where the two files do not treat ambiguous paths alike.
struct Policies {
    /// What the paths hold, and what changes for them.
    differing: Vec<(&'static [&'static str], String)>,
    /// The marks among them that stand within a segment.
    within: Vec<&'static [&'static str]>,
}

impl Policies {
    fn of(old: &Snapshot, new: &Snapshot) -> Self {
        let both = facts::of_paths(old.paths).into_iter().zip(facts::of_paths(new.paths)).zip(MARKS);
        let differing = both.filter(|((old, new), _)| old != new);
        let differing: Vec<_> =
            differing.map(|(((key, old), (_, new)), marks)| (marks, format!("{key}: {old} -> {new}"))).collect();
        let within = differing.iter().map(|(marks, _)| *marks).filter(|marks| !marks.contains(&"//")).collect();
        Self { differing, within }
    }

    fn paths(&self) -> Paths<'_> {
        if self.differing.is_empty() { Paths::WhereSidesDiffer } else { Paths::Marked(&self.within) }
    }

    /// The path of a region, and the same with an empty segment where that makes a difference; with their marks.
    fn spellings(&self, region: &Region<'_, '_>) -> impl Iterator<Item = (String, u8)> + use<> {
        let doubled = (self.within.len() < self.differing.len())
            .then(|| (format!("/{}", region.path), region.marks | 1 << self.within.len()));
        std::iter::once((region.path.to_owned(), region.marks)).chain(doubled)
    }

    fn held(&self, marks: u8) -> impl Iterator<Item = &(&'static [&'static str], String)> {
        self.differing.iter().enumerate().filter(move |(bit, _)| marks & 1 << bit != 0).map(|(_, held)| held)
    }
}

/// What decides a request on one side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Decider {
    Refused(u16),
    Endpoint(Box<str>),
    Route(usize),
}

/// One of the two configurations.
struct Side<'s> {
    snapshot: &'s Snapshot,
    routes: Vec<Numbered>,
    endpoints: HashMap<&'s str, Numbered>,
}

/// A meaning with its number: equal where rules can stand for each other, on both sides.
struct Numbered(Meaning, usize);

/// Numbers by what they stand for.
#[derive(Default)]
struct Numbers(HashMap<String, usize>);

impl Numbers {
    fn of(&mut self, key: String) -> usize {
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }

    fn number(&mut self, meaning: Meaning) -> Numbered {
        let number = self.of(meaning.key());
        Numbered(meaning, number)
    }
}

impl<'s> Side<'s> {
    fn of(snapshot: &'s Snapshot, other: &Snapshot, numbers: &mut Numbers) -> Self {
        let routes = snapshot.routes.routes().iter();
        let routes = routes.map(|route| numbers.number(Meaning::route(route, snapshot, other))).collect();
        let endpoints = snapshot.endpoints.iter();
        let endpoints =
            endpoints.map(|(path, endpoint)| (&**path, numbers.number(Meaning::endpoint(endpoint, snapshot))));
        Self { snapshot, routes, endpoints: endpoints.collect() }
    }

    /// As rules that tell requests apart: what they mean, and for what they are.
    fn rules(&self, numbers: &mut Numbers) -> Vec<Rule<'s>> {
        let routes = self.snapshot.routes.routes().iter().zip(&self.routes).map(|(route, Numbered(_, number))| {
            let mut hosts = route.hosts.clone();
            let mut methods: Vec<&Method> = route.listed_methods().collect();
            hosts.sort_unstable();
            methods.sort_unstable_by_key(|method| method.as_str());
            Rule {
                pattern: route.pattern.clone(),
                hosts: &route.hosts,
                methods: &route.methods,
                meaning: numbers.of(format!("{hosts:?} {methods:?} {number}")),
            }
        });
        let mut rules: Vec<Rule<'s>> = routes.collect();
        rules.extend(self.snapshot.endpoints.iter().map(|(path, endpoint)| {
            let number = self.endpoints.get(&**path).map(|numbered| numbered.1);
            Rule {
                pattern: Pattern::exact(path),
                hosts: &[],
                methods: endpoint.methods(),
                meaning: numbers.of(format!("endpoint {number:?}")),
            }
        }));
        rules
    }

    fn ask(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Decider {
        let target = match Target::parse(uri, &self.snapshot.paths) {
            Ok(target) => target,
            Err(error) => return Decider::Refused(Rejection::from(error).status().as_u16()),
        };
        match place(self.snapshot, Head { method, uri, version: Version::HTTP_11, headers }, &target) {
            Err(rejection) => Decider::Refused(rejection.status().as_u16()),
            Ok(Place::Endpoint(endpoint)) => match endpoint.takes(method) {
                Ok(()) => Decider::Endpoint((*endpoint.path).into()),
                Err(rejection) => Decider::Refused(rejection.status().as_u16()),
            },
            Ok(Place::Route(route) | Place::Preflight(route, _)) => {
                Decider::Route(self.snapshot.routes.index(route).unwrap_or_default())
            }
        }
    }

    fn numbered(&self, decider: &Decider) -> Option<&Numbered> {
        match decider {
            Decider::Refused(_) => None,
            Decider::Endpoint(path) => self.endpoints.get(&**path),
            Decider::Route(index) => self.routes.get(*index),
        }
    }

    fn meaning(&self, decider: &Decider) -> Meaning {
        if let Decider::Refused(status) = decider {
            return Meaning::refused(*status);
        }
        let known = self.numbered(decider).map(|Numbered(meaning, _)| meaning.clone());
        known.unwrap_or_else(|| Meaning::refused(500))
    }
}

/// What differs for a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Difference {
    gains: Vec<String>,
    loses: Vec<String>,
    changes: Vec<Change>,
}

/// Asks both sides, and numbers what differs.
struct Judge<'d, 's> {
    sides: &'d [Side<'s>; 2],
    everybody: Vec<Who>,
    by_deciders: HashMap<(Decider, Decider), Option<Effect>>,
    known: HashMap<Difference, Effect>,
    differences: Vec<Difference>,
}

impl<'d, 's> Judge<'d, 's> {
    fn of(sides: &'d [Side<'s>; 2]) -> Self {
        let roles: BTreeSet<Who> = sides
            .iter()
            .flat_map(|side| side.snapshot.routes.routes())
            .map(|route| route.allow.clone())
            .chain(endpoints_of_one(sides).map(Action::for_whom))
            .flat_map(|allow| match allow {
                Allow::Anyone | Allow::Authenticated => Vec::new(),
                Allow::Roles(roles) => roles,
            })
            .map(Who::Role)
            .collect();
        let everybody = [Who::Anyone, Who::Authenticated].into_iter().chain(roles).collect();
        Self { sides, everybody, by_deciders: HashMap::new(), known: HashMap::new(), differences: Vec::new() }
    }

    /// What differs for which requests of a region, whose paths are like this one.
    fn blocks(&mut self, region: &Region<'_, '_>, path: &str) -> Vec<Block> {
        let Ok(uri) = path.parse::<Uri>() else { return Vec::new() };
        let (hosts, methods) = (region.hosts(), region.methods());
        let mut met: BTreeMap<Effect, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for host in &hosts {
            let Ok(value) = HeaderValue::from_str(host) else { continue };
            let headers: HeaderMap = std::iter::once((HOST, value)).collect();
            for method in &methods {
                let [old, new] = self.sides.each_ref().map(|side| side.ask(method, &uri, &headers));
                if let Some(effect) = self.effect(old, new) {
                    met.entry(effect).or_default().entry(host).or_default().insert(method.as_str());
                }
            }
        }
        let all_methods: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
        let mut blocks = Vec::new();
        for (effect, by_host) in met {
            let mut by_methods: BTreeMap<Names, BTreeSet<&str>> = BTreeMap::new();
            for (host, set) in by_host {
                by_methods.entry(Names::of(&set, &all_methods)).or_default().insert(host);
            }
            let named = by_methods.into_iter();
            blocks.extend(named.map(|(methods, set)| Block { hosts: Names::of(&set, &hosts), methods, effect }));
        }
        blocks
    }

    fn effect(&mut self, old: Decider, new: Decider) -> Option<Effect> {
        if let Some(known) = self.by_deciders.get(&(old.clone(), new.clone())) {
            return *known;
        }
        let effect = (!self.same(&old, &new)).then(|| {
            let [before, after] = self.sides;
            let (was, is) = (before.meaning(&old), after.meaning(&new));
            let names = |who: Vec<&Who>| who.iter().map(|who| who.name().to_owned()).collect::<Vec<_>>();
            let difference = Difference {
                gains: names(was.opens(&is, &self.everybody)),
                loses: names(is.opens(&was, &self.everybody)),
                changes: was.changes(&is),
            };
            let next = self.differences.len();
            let effect = *self.known.entry(difference.clone()).or_insert(next);
            if effect == next {
                self.differences.push(difference);
            }
            effect
        });
        self.by_deciders.insert((old, new), effect);
        effect
    }

    fn same(&self, old: &Decider, new: &Decider) -> bool {
        let [before, after] = self.sides;
        match (before.numbered(old), after.numbered(new)) {
            (Some(Numbered(_, old)), Some(Numbered(_, new))) => old == new,
            // that a path cannot be read and that nothing is there come to the same
            (None, None) => old == new || nothing_there(old) && nothing_there(new),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    fn row(&self, statement: Statement, policies: &Policies) -> Option<Row> {
        let Statement { pattern, except, marks, block: Block { hosts, methods, effect } } = statement;
        let Difference { gains, loses, changes } = self.differences.get(effect)?.clone();
        let held = || policies.held(marks);
        Some(Row {
            path: pattern.to_string(),
            except: except.iter().map(ToString::to_string).collect(),
            holding: held().map(|(marks, _)| marks.join(" or ")).collect(),
            hosts,
            methods,
            gains,
            loses,
            changes: held().map(|(_, change)| Change::besides(change.clone())).chain(changes).collect(),
            everybody: self.everybody.len(),
        })
    }
}

/// What endpoints do for which there is none that does the same on the other side. Of those that there are on both, it is
/// not told whom they are for.
fn endpoints_of_one(sides: &[Side<'_>; 2]) -> impl Iterator<Item = Action> {
    let [old, new] = sides.each_ref().map(|side| &side.snapshot.endpoints);
    let alone = |own: &'_ Endpoints, other: &'_ Endpoints| -> Vec<Action> {
        let is_there = |path: &str, action| other.get(path).is_some_and(|endpoint| endpoint.action == action);
        let own = own.iter().filter(|(path, endpoint)| !is_there(path, endpoint.action));
        own.map(|(_, endpoint)| endpoint.action).collect()
    };
    [alone(old, new), alone(new, old)].into_iter().flatten()
}

fn nothing_there(decider: &Decider) -> bool {
    matches!(decider, Decider::Refused(400 | 404))
}
