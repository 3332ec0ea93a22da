//! What changes between two configurations, by what their rules mean: who gains, who loses, what else.
//!
//! Exact, not sampled: both are asked about one request of every kind that either tells apart ([`regions`]), by the
//! function that serves requests. What differs is told by the pattern that decides it.
//!
//! [`regions`]: crate::route::regions

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use serde_json::{Value, json};

use super::meaning::{Meaning, Who};
use super::{Head, Place, place};
use crate::config::snapshot::Snapshot;
use crate::rejection::Rejection;
use crate::route::regions::{Paths, Region, Regions, Rule, TooMany};
use crate::route::{Allow, Pattern, Route};
use crate::wire::target::Target;

/// Kinds of paths that are compared.
const REGIONS_MAX: usize = 400_000;

/// A difference, on the paths that one pattern decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The pattern of the route that decides; of the more specific one where that is another than before.
    pub path: String,
    /// For which hosts.
    pub hosts: Names,
    /// For which methods.
    pub methods: Names,
    /// Who is let through by the new rules and was not by the old: roles, `@anyone`, `@authenticated`.
    pub gains: Vec<String>,
    /// Who was and is not any more.
    pub loses: Vec<String>,
    /// What else changes.
    pub changes: Vec<String>,
    /// Everybody of whom the rules know; for the printed form.
    everybody: usize,
    deciders: Vec<(Decider, Decider)>,
}

/// A set of names: these, or all but these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Names {
    /// These.
    Only(BTreeSet<String>),
    /// All but these.
    AllBut(BTreeSet<String>),
}

/// What decides a request on one side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Decider {
    Refused(u16),
    Endpoint(Box<str>),
    Route(usize),
}

/// All that differs, what lets more people through first.
///
/// # Errors
/// The rules tell more kinds of paths apart than can be compared in reasonable time.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMany> {
    let mut numbers = Numbers::default();
    let sides = [Side::of(old, &mut numbers), Side::of(new, &mut numbers)];
    let regions = Regions::new(sides.each_ref().map(|side| side.rules(&mut numbers)));
    let mut found = Found { sides: &sides, everybody: everybody(&sides), rows: BTreeMap::new() };
    for Walk { paths, note, doubled } in walks(old, new) {
        regions.visit(paths, REGIONS_MAX, |region| found.look(region, note.as_deref(), doubled))?;
    }
    Ok(found.into_rows(old, new))
}

/// One walk over paths of a kind.
struct Walk {
    paths: Paths,
    /// What is different for paths of this kind.
    note: Option<String>,
    /// Whether each path is asked for with its first slash doubled.
    doubled: bool,
}

/// Ordinary paths, and for each way in which `paths` differs those that it concerns.
fn walks(old: &Snapshot, new: &Snapshot) -> Vec<Walk> {
    let mut walks = vec![Walk { paths: Paths::WhereSidesDiffer, note: None, doubled: false }];
    let (before, after) = (&old.paths, &new.paths);
    let word = |kept: bool, word: &'static str| if kept { word } else { "refuse" };
    let note = |key: &str, before, after, kept| format!("paths.{key}: {} → {}", word(before, kept), word(after, kept));
    for (key, before, after, marks) in [
        ("encoded_slash", before.keep_encoded_slash, after.keep_encoded_slash, &["%2F"][..]),
        ("encoded_query", before.keep_encoded_query, after.keep_encoded_query, &["%3F", "%23"]),
        ("semicolon", before.keep_semicolon, after.keep_semicolon, &[";", "%3B"]),
    ] {
        if before != after {
            let note = Some(note(key, before, after, "keep"));
            walks.push(Walk { paths: Paths::Holding(marks), note, doubled: false });
        }
    }
    if before.merge_empty_segments != after.merge_empty_segments {
        let note = Some(note("empty_segments", before.merge_empty_segments, after.merge_empty_segments, "merge"));
        walks.push(Walk { paths: Paths::All, note, doubled: true });
    }
    walks
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
    fn of(snapshot: &'s Snapshot, numbers: &mut Numbers) -> Self {
        let routes = snapshot.routes.routes().iter().map(|route| numbers.number(Meaning::route(snapshot, route)));
        let routes = routes.collect();
        let endpoints = snapshot.endpoints.iter();
        let endpoints = endpoints.map(|(path, endpoint)| (&**path, numbers.number(Meaning::endpoint(endpoint))));
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
                methods: endpoint.action.methods(),
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
            Ok(Place::Endpoint(endpoint)) => match endpoint.action.takes(method) {
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

    fn route(&self, decider: &Decider) -> Option<&'s Route> {
        match decider {
            Decider::Route(index) => self.snapshot.routes.routes().get(*index),
            Decider::Refused(_) | Decider::Endpoint(_) => None,
        }
    }
}

fn everybody(sides: &[Side<'_>; 2]) -> Vec<Who> {
    let routes = sides.iter().flat_map(|side| side.snapshot.routes.routes());
    let roles: BTreeSet<Who> = routes
        .flat_map(|route| match &route.allow {
            Allow::Anyone | Allow::Authenticated => &[],
            Allow::Roles(roles) => roles.as_slice(),
        })
        .map(|role| Who::Role(role.clone()))
        .collect();
    [Who::Anyone, Who::Authenticated].into_iter().chain(roles).collect()
}

/// Requests of the same deciders, told under the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    deciders: (Decider, Decider),
    path: String,
    note: Option<String>,
}

struct Found<'d, 's> {
    sides: &'d [Side<'s>; 2],
    everybody: Vec<Who>,
    /// For which methods, by hosts.
    rows: BTreeMap<Key, BTreeMap<Names, Names>>,
}

impl Found<'_, '_> {
    fn look(&mut self, region: &Region<'_, '_>, note: Option<&str>, doubled: bool) {
        let path = if doubled { format!("/{}", region.path) } else { region.path.to_owned() };
        let Ok(uri) = path.parse::<Uri>() else { return };
        let (hosts, methods) = (region.hosts(), region.methods());
        let mut met: BTreeMap<Key, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for host in &hosts {
            let Ok(value) = HeaderValue::from_str(host) else { continue };
            let headers: HeaderMap = std::iter::once((HOST, value)).collect();
            for method in &methods {
                let [old, new] = self.sides.each_ref().map(|side| side.ask(method, &uri, &headers));
                if self.same(&old, &new) {
                    continue;
                }
                let path = self.path(region, &old, &new);
                let key = Key { deciders: (old, new), path, note: note.map(str::to_owned) };
                met.entry(key).or_default().entry(host).or_default().insert(method.as_str());
            }
        }
        let all_methods: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
        for (key, by_host) in met {
            let mut by_methods: BTreeMap<Names, BTreeSet<&str>> = BTreeMap::new();
            for (host, set) in by_host {
                by_methods.entry(Names::of(&set, &all_methods)).or_default().insert(host);
            }
            let row = self.rows.entry(key).or_default();
            for (methods, set) in by_methods {
                let hosts = Names::of(&set, &hosts);
                let merged = row.remove(&hosts).map_or_else(|| methods.clone(), |known| known.union(&methods));
                row.insert(hosts, merged);
            }
        }
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

    /// The pattern under which a difference is told.
    fn path(&self, region: &Region<'_, '_>, old: &Decider, new: &Decider) -> String {
        let [before, after] = self.sides;
        if let Decider::Endpoint(path) = new {
            return path.to_string();
        }
        if let Decider::Endpoint(path) = old {
            return path.to_string();
        }
        match (before.route(old), after.route(new)) {
            (Some(old), Some(new)) if old.pattern.compare(&new.pattern).is_lt() => old.name.to_string(),
            (_, Some(route)) | (Some(route), None) => route.name.to_string(),
            (None, None) => {
                let patterns = region.rules.iter().map(|rule| &rule.pattern);
                patterns.min_by(|a, b| a.compare(b)).map(ToString::to_string).unwrap_or_default()
            }
        }
    }

    fn into_rows(self, old: &Snapshot, new: &Snapshot) -> Vec<Row> {
        let [before, after] = self.sides;
        let mut rows: Vec<Row> = Vec::new();
        let mut known = HashMap::new();
        for (Key { deciders, path, note }, by_hosts) in self.rows {
            let (was, is) = (before.meaning(&deciders.0), after.meaning(&deciders.1));
            let names = |who: Vec<&Who>| who.iter().map(|who| who.name().to_owned()).collect::<Vec<_>>();
            let gains = names(was.opens(&is, &self.everybody));
            let loses = names(is.opens(&was, &self.everybody));
            let changes: Vec<String> = note.into_iter().chain(was.changes(&is)).collect();
            for (hosts, methods) in by_hosts {
                let like = (path.clone(), hosts.clone(), gains.clone(), loses.clone(), changes.clone());
                let next = rows.len();
                let index = *known.entry(like).or_insert(next);
                if let Some(row) = rows.get_mut(index) {
                    row.methods = row.methods.union(&methods);
                    row.deciders.push(deciders.clone());
                    continue;
                }
                rows.push(Row {
                    path: path.clone(),
                    hosts,
                    methods,
                    gains: gains.clone(),
                    loses: loses.clone(),
                    changes: changes.clone(),
                    everybody: self.everybody.len(),
                    deciders: vec![deciders.clone()],
                });
            }
        }
        rows.extend(everywhere(old, new));
        rows.sort_by_key(|row| (row.gains.is_empty(), row.loses.is_empty(), row.path.clone()));
        rows
    }
}

fn nothing_there(decider: &Decider) -> bool {
    matches!(decider, Decider::Refused(400 | 404))
}

/// What changes for all requests alike.
fn everywhere(old: &Snapshot, new: &Snapshot) -> Option<Row> {
    let mut changes = Vec::new();
    let mut compare = |section: &str, same: bool| {
        if !same {
            changes.push(format!("{section} changed"));
        }
    };
    compare("identity_headers", old.identity == new.identity);
    compare("trusted_proxies", old.trusted_proxies.0 == new.trusted_proxies.0);
    compare("auth.realm", old.auth.realm == new.auth.realm);
    compare("auth.jwt", format!("{:?}", old.auth.jwt) == format!("{:?}", new.auth.jwt));
    compare("errors", old.texts == new.texts);
    if changes.is_empty() {
        return None;
    }
    let everything = Names::AllBut(BTreeSet::new());
    Some(Row {
        path: "/**".to_owned(),
        hosts: everything.clone(),
        methods: everything,
        gains: Vec::new(),
        loses: Vec::new(),
        changes,
        everybody: 0,
        deciders: Vec::new(),
    })
}

impl Names {
    /// Those of `all` that are in `set`; the last of `all` stands for every name that is not among them.
    fn of(set: &BTreeSet<&str>, all: &[&str]) -> Self {
        let (rest, named) = all.split_last().unwrap_or((&"", &[]));
        let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect();
        if set.contains(rest) {
            Self::AllBut(owned(named.iter().filter(|name| !set.contains(**name)).collect()))
        } else {
            Self::Only(owned(named.iter().filter(|name| set.contains(**name)).collect()))
        }
    }

    /// What is in either.
    fn union(&self, other: &Self) -> Self {
        let without = |set: &BTreeSet<String>, other: &BTreeSet<String>| set.difference(other).cloned().collect();
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a.union(b).cloned().collect()),
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(a.intersection(b).cloned().collect()),
            (Self::AllBut(a), Self::Only(b)) | (Self::Only(b), Self::AllBut(a)) => Self::AllBut(without(a, b)),
        }
    }

    /// Whether a name is in it.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }

    /// As a list: empty for all, `*` and each exception behind `!` for all but some.
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::Only(names) => names.iter().cloned().collect(),
            Self::AllBut(names) if names.is_empty() => Vec::new(),
            Self::AllBut(names) => {
                std::iter::once("*".to_owned()).chain(names.iter().map(|name| format!("!{name}"))).collect()
            }
        }
    }

    fn words(&self, every: &str) -> String {
        match self {
            Self::Only(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            Self::AllBut(names) if names.is_empty() => every.to_owned(),
            Self::AllBut(names) => {
                format!("{every} but {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Row {
    /// For tools, with the members of contract 7.
    pub fn json(&self) -> Value {
        json!({
            "path": self.path,
            "hosts": self.hosts.list(),
            "methods": self.methods.list(),
            "gains": self.gains,
            "loses": self.loses,
            "changes": self.changes,
        })
    }

    /// Where it applies, in one line.
    pub fn place(&self) -> String {
        let hosts = if self.hosts == Names::AllBut(BTreeSet::new()) {
            String::new()
        } else {
            format!(" on {}", self.hosts.words("every host"))
        };
        format!("{} {}{hosts}", self.path, self.methods.words("every method"))
    }

    /// What it is, each in one line.
    pub fn effect(&self) -> Vec<String> {
        let gains = (!self.gains.is_empty()).then(|| format!("+ {}", self.people(&self.gains)));
        let loses = (!self.loses.is_empty()).then(|| format!("- {}", self.people(&self.loses)));
        gains.into_iter().chain(loses).chain(self.changes.iter().map(|change| format!("~ {change}"))).collect()
    }

    fn people(&self, names: &[String]) -> String {
        let anyone = names.iter().any(|name| name == Who::Anyone.name());
        if names.len() == self.everybody {
            return "anyone".to_owned();
        }
        if names.len() + 1 == self.everybody && !anyone {
            return "any principal".to_owned();
        }
        let word = |name: &String| match name.as_str() {
            "@anyone" => "callers without credentials".to_owned(),
            "@authenticated" => "principals of any other role".to_owned(),
            role => role.to_owned(),
        };
        names.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// All rows for people; those of the same effect stand together.
#[derive(Debug)]
pub struct Printed<'r>(pub &'r [Row]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        let mut known: HashMap<Vec<String>, usize> = HashMap::new();
        for row in self.0 {
            let next = groups.len();
            let index = *known.entry(row.effect()).or_insert(next);
            match groups.get_mut(index) {
                Some((_, places)) => places.push(row.place()),
                None => groups.push((row.effect(), vec![row.place()])),
            }
        }
        for (effect, places) in groups {
            places.iter().try_for_each(|place| writeln!(f, "{place}"))?;
            effect.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use crate::decision::{Request, claimed, decide};
    use crate::principal::{Principal, Role, Subject};
    use proptest::prelude::*;
    use std::fmt::Write as _;
    use std::path::Path;

    fn load(text: &str) -> Snapshot {
        load_text(text, Path::new("."), "a.yaml", &Environment::default()).unwrap_or_else(|e| panic!("{text}\n{e}"))
    }

    fn rules(routes: &[&str]) -> String {
        let mut text = "upstreams: { a: { builtin: echo }, b: { servers: [http://b] } }\nroutes:\n".to_owned();
        for route in routes {
            writeln!(text, "  - {{ {route} }}").unwrap();
        }
        text
    }

    fn printed(old: &str, new: &str) -> String {
        Printed(&diff(&load(old), &load(new)).unwrap()).to_string()
    }

    #[test]
    fn what_has_no_effect_prints_nothing() {
        let old = rules(&[
            "path: '/a/{id}', methods: [GET, POST], allow: [x, y], to: a",
            "path: /b/**, hosts: [h, i], allow: anyone, to: b",
            "path: /c, allow: authenticated, to: a",
        ]);
        for (name, new) in [
            ("the same", old.clone()),
            (
                "reordered and renamed",
                rules(&[
                    "path: /c, to: a, allow: authenticated",
                    "path: /b/**, hosts: [i, h], allow: anyone, to: b",
                    "path: '/a/{order}', methods: [POST, GET], allow: [y, x], to: a",
                ]),
            ),
            (
                "split by method and host",
                rules(&[
                    "path: '/a/{id}', methods: [GET], allow: [x, y], to: a",
                    "path: '/a/{id}', methods: [POST], allow: [x, y], to: a",
                    "path: /b/**, hosts: [h], allow: anyone, to: b",
                    "path: /b/**, hosts: [i], allow: anyone, to: b",
                    "path: /c, allow: authenticated, to: a",
                ]),
            ),
            (
                "said twice",
                rules(&[
                    "path: '/a/{id}', methods: [GET, POST], allow: [x, y], to: a",
                    "path: /a/7, methods: [GET], allow: [x, y], to: a",
                    "path: /b/**, hosts: [h, i], allow: anyone, to: b",
                    "path: /b/c/**, hosts: [h], allow: anyone, to: b",
                    "path: /c, allow: authenticated, to: a",
                ]),
            ),
            (
                "defaults written out",
                format!("timeouts: {{ response_header: 60s }}\n{}", old.replace("path: /c,", "path: /c, timeout: 1m,")),
            ),
        ] {
            assert_eq!(printed(&old, &new), "", "{name}");
        }
    }

    #[test]
    fn who_gains_and_who_loses_is_told_by_the_pattern_that_decides() {
        let old = rules(&["path: /a/**, methods: [GET], allow: [x, y], to: a", "path: /h, allow: anyone, to: a"]);
        for (name, routes, expected) in [
            (
                "a role more",
                &["path: /a/**, methods: [GET], allow: [x, y, z], to: a", "path: /h, allow: anyone, to: a"][..],
                "/a/** GET, HEAD\n    + z\n",
            ),
            (
                "a role less",
                &["path: /a/**, methods: [GET], allow: [y], to: a", "path: /h, allow: anyone, to: a"],
                "/a/** GET, HEAD\n    - x\n",
            ),
            (
                "opened in one place",
                &[
                    "path: /a/**, methods: [GET], allow: [x, y], to: a",
                    "path: /a/b, methods: [GET], allow: anyone, to: a",
                    "path: /h, allow: anyone, to: a",
                ],
                "/a/b GET, HEAD\n    + callers without credentials, principals of any other role\n",
            ),
            (
                "another method",
                &["path: /a/**, methods: [GET, PUT], allow: [x, y], to: a", "path: /h, allow: anyone, to: a"],
                "/a/** PUT\n    + x, y\n",
            ),
            (
                "another upstream",
                &["path: /a/**, methods: [GET], allow: [x, y], to: b", "path: /h, allow: anyone, to: a"],
                "/a/** GET, HEAD\n    ~ upstream: a → b\n    ~ servers: echo → http://b\n",
            ),
            (
                "closed",
                &["path: /a/**, methods: [GET], allow: [x, y], to: a", "path: /h, allow: authenticated, to: a"],
                "/h every method\n    - callers without credentials\n",
            ),
            ("gone", &["path: /a/**, methods: [GET], allow: [x, y], to: a"], "/h every method\n    - anyone\n"),
            (
                "a scope more",
                &["path: /a/**, methods: [GET], allow: [x, y], scopes: [s], to: a", "path: /h, allow: anyone, to: a"],
                "/a/** GET, HEAD\n    - x, y\n    ~ scopes: none → s\n",
            ),
            (
                "a scheme more on another host",
                &[
                    "path: /a/**, methods: [GET], allow: [x, y], to: a",
                    "path: /h, hosts: [i], allow: [x], to: a",
                    "path: /h, allow: anyone, to: a",
                ],
                "/h every method on i\n    - callers without credentials, principals of any other role, y\n",
            ),
        ] {
            let found = printed(&old, &rules(routes));
            assert!(found.starts_with(expected), "{name}\n{found}");
        }
    }

    #[test]
    fn a_policy_for_paths_lets_more_through_too() {
        let old = rules(&["path: '/a/{id}', allow: [x], to: a"]);
        let found = printed(&old, &format!("paths: {{ semicolon: keep }}\n{old}"));
        assert_eq!(found, "/a/{id} every method\n    + x\n    ~ paths.semicolon: refuse → keep\n");
        let found = printed(&format!("paths: {{ empty_segments: merge }}\n{old}"), &old);
        assert!(
            found.contains("/a/{id} every method\n    - x\n    ~ paths.empty_segments: merge → refuse\n"),
            "{found}"
        );
    }

    #[test]
    fn an_endpoint_stands_before_routes() {
        let routes = rules(&["path: /**, allow: [x], to: a"]);
        let without = format!("endpoints: []\n{routes}");
        let with = format!("endpoints: [{{ path: /in, action: register }}]\n{routes}");
        let rows = diff(&load(&without), &load(&with)).unwrap();
        let json: Vec<Value> = rows.iter().map(Row::json).collect();
        assert_eq!(
            json[0],
            json!({
                "path": "/in", "hosts": [], "methods": ["POST"], "gains": ["@anyone", "@authenticated"], "loses": [],
                "changes": ["answer: route → endpoint register"],
            })
        );
        assert_eq!((&json[1]["methods"], &json[1]["loses"]), (&json!(["*", "!POST"]), &json!(["x"])));
        let rows = diff(&load(&with), &load(&without)).unwrap();
        assert!(rows.iter().any(|row| row.loses.contains(&"@anyone".to_owned())));
    }

    #[test]
    fn no_value_of_a_header_is_shown() {
        let old = rules(&["path: /a, allow: anyone, to: a, request_headers: { set: { X-Key: canary1 } }"]);
        let found = printed(&old, &old.replace("canary1", "canary2"));
        assert_eq!(found, "/a every method\n    ~ request_headers: other values\n");
    }

    /// What one request gets on one side: whether it passes, and what the caller or the upstream can see of it.
    fn answer(snapshot: &Snapshot, request: &Request, who: Option<&str>) -> (bool, String, Decider) {
        let decision = decide(snapshot, request.head(), |route| match who {
            None => Ok(crate::authenticate::Caller::Anyone),
            Some(role) => {
                let roles = std::iter::once(Role::from(role)).collect();
                let scopes = std::iter::empty().collect();
                claimed(route, &Principal { subject: Subject::user("u"), user_id: None, roles, scopes }, None)
            }
        });
        let decider = match (&decision.place, &decision.outcome) {
            (Some(Place::Endpoint(endpoint)), Ok(_)) => Decider::Endpoint((*endpoint.path).into()),
            (Some(Place::Route(route) | Place::Preflight(route, _)), _) => {
                Decider::Route(snapshot.routes.index(route).unwrap())
            }
            (None | Some(Place::Endpoint(_)), Err(rejection)) => Decider::Refused(rejection.status().as_u16()),
            (None, Ok(_)) => unreachable!(),
        };
        match decision.outcome {
            Err(rejection) => (false, rejection.status().to_string(), decider),
            Ok(Some(permit)) => (true, format!("upstream {}", permit.route().upstream.0), decider),
            Ok(None) => (true, "endpoint".to_owned(), decider),
        }
    }

    fn some_file() -> impl Strategy<Value = String> {
        let path = "(/([ab]|[{]q[}])){0,2}(/|/[*][*]|/a|/b;c)";
        let route = (path, "(|h|i)", "(|GET|PUT)", "(anyone|authenticated|\\[r\\]|\\[s\\]|\\[r, s\\])", "[ab]");
        let policy = "(|paths: [{] semicolon: keep [}]|paths: [{] empty_segments: merge [}])";
        let endpoint = "(|[{] path: /a, action: login [}]|[{] path: /a/b, action: jwks [}])";
        (proptest::collection::vec(route, 0..6), policy, endpoint).prop_map(|(routes, policy, endpoint)| {
            let mut seen = BTreeSet::new();
            let mut text = format!("{policy}\nendpoints: [{endpoint}]\nupstreams: {{ a: {{ builtin: echo }}, b: {{ builtin: echo }} }}\nroutes:\n");
            for (path, host, method, allow, to) in routes {
                if !seen.insert((path.clone(), host.clone(), method.clone())) {
                    continue;
                }
                // names are told apart by their place
                let mut named = String::new();
                for (place, part) in path.split("{q}").enumerate() {
                    if place > 0 {
                        write!(named, "{{q{place}}}").unwrap();
                    }
                    named.push_str(part);
                }
                writeln!(text, "  - {{ path: '{named}', hosts: [{host}], methods: [{method}], allow: {allow}, to: {to} }}").unwrap();
            }
            text.replace("hosts: [], ", "").replace("methods: [], ", "").replace("routes:\n\n", "routes: []\n")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn exactly_the_requests_whose_decision_differs_are_predicted(
            old in some_file(),
            new in some_file(),
            requests in proptest::collection::vec(("(/{1,2}([abc]|b;c|c;)){1,4}/?|/", "[hij]", "(GET|HEAD|PUT|POST)"), 20),
        ) {
            let read = |text: &str| load_text(text, Path::new("."), "a.yaml", &Environment::default());
            let (Ok(old), Ok(new)) = (read(&old), read(&new)) else { return Ok(()) };
            let rows = diff(&old, &new).unwrap();
            for (path, host, method) in requests {
                let request = Request::parse(&method.parse().unwrap(), &format!("http://{host}{path}")).unwrap();
                for who in [None, Some("r"), Some("s"), Some("t")] {
                    let before = answer(&old, &request, who);
                    let after = answer(&new, &request, who);
                    let name = match who { None => "@anyone", Some("t") => "@authenticated", Some(role) => role };
                    let deciders = (before.2, after.2);
                    let row = rows.iter().find(|row| {
                        row.deciders.contains(&deciders) && row.hosts.contains(&host) && row.methods.contains(&method)
                    });
                    let differs = (before.0, &before.1) != (after.0, &after.1)
                        && !(nothing_there(&deciders.0) && nothing_there(&deciders.1));
                    prop_assert!(!differs || row.is_some(), "{method} {host} {path} {name}: {before:?} {after:?}\n{rows:#?}",
                        before = before.1, after = after.1);
                    // a role that no rule names is any other principal
                    let told = |names: &[String]| names.iter().any(|known| known == name)
                        || (names.iter().any(|known| known == "@authenticated") && who.is_some() && !rows_name(&rows, name));
                    if let Some(row) = row {
                        prop_assert_eq!(told(&row.gains), !before.0 && after.0, "gains {} {} {} {}", method, host, path, name);
                        prop_assert_eq!(told(&row.loses), before.0 && !after.0, "loses {} {} {} {}", method, host, path, name);
                    }
                }
            }
        }
    }

    fn rows_name(rows: &[Row], role: &str) -> bool {
        rows.iter().any(|row| row.gains.iter().chain(&row.loses).any(|name| name == role))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
    fn a_thousand_routes_against_a_thousand_take_little_time() {
        let file = |role: &str| {
            let routes: Vec<String> = (0..1000)
                .map(|number| {
                    format!(
                        "path: '/s{}/r{number}/{{id}}/**', methods: [GET, POST], hosts: [h{}], allow: [{role}], to: a",
                        number % 50,
                        number % 3
                    )
                })
                .collect();
            rules(&routes.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let (old, new) = (load(&file("x")), load(&file("y")));
        let start = std::time::Instant::now();
        assert_eq!(diff(&old, &new).unwrap().len(), 1000);
        // a generous bound for an unoptimized build on a busy machine
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
