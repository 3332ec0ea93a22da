//! One of two configurations: what decides a request there, and what that means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use http::{HeaderMap, Method, Uri, Version};

use super::effort::{Effort, TooMuch};
use super::meaning::Meaning;
use crate::config::snapshot::Snapshot;
use crate::decision::{Head, Place, place};
use crate::limit;
use crate::rejection::Rejection;
use crate::route::Pattern;
use crate::route::regions::Rule;
use crate::wire::target::Target;

/// What decides a request on one side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Decider {
    Refused(u16),
    Endpoint(Box<str>),
    Route(usize),
}

/// One of the two configurations.
pub(super) struct Side<'s> {
    pub(super) snapshot: &'s Snapshot,
    routes: Vec<Known>,
    endpoints: HashMap<&'s str, Known>,
}

/// A rule, as far as it is looked up over and over.
struct Known {
    pattern: Rc<Pattern>,
    meaning: Numbered,
}

/// How much of a meaning is written and read in the time of a step.
const BYTES_A_STEP: usize = 64;

/// A meaning with its number: equal where rules can stand for each other, on both sides.
#[derive(Clone)]
pub(super) struct Numbered(pub(super) Rc<Meaning>, pub(super) usize);

/// Numbers by what they stand for.
struct Numbers<'e> {
    by_key: HashMap<String, usize>,
    /// Most rules mean what others do, to the letter; each such meaning is kept once.
    known: HashMap<Rc<Meaning>, Numbered>,
    effort: &'e Effort,
}

impl Numbers<'_> {
    fn number(&mut self, meaning: Meaning) -> Result<Numbered, TooMuch> {
        let size = meaning.size();
        self.effort.spend(size / BYTES_A_STEP)?;
        if let Some(known) = self.known.get(&meaning) {
            return Ok(known.clone());
        }
        let (key, next) = (meaning.key(), self.by_key.len());
        self.effort.keep(size + key.len())?;
        let meaning = Rc::new(meaning);
        let numbered = Numbered(Rc::clone(&meaning), *self.by_key.entry(key).or_insert(next));
        self.known.insert(meaning, numbered.clone());
        Ok(numbered)
    }
}

impl<'s> Side<'s> {
    /// Both, with rules that can stand for each other of the same number.
    ///
    /// # Errors
    /// They mean more than can be kept.
    pub(super) fn both(old: &'s Snapshot, new: &'s Snapshot, effort: &Effort) -> Result<[Self; 2], TooMuch> {
        let mut numbers = Numbers { by_key: HashMap::new(), known: HashMap::new(), effort };
        let [old_routes, new_routes] = [old, new].map(|side| side.routes.routes());
        // one budget is one number on both sides
        let olds: Vec<usize> = (0..old_routes.len()).collect();
        let heirs = limit::heirs(new_routes, old_routes).into_iter().zip(old_routes.len()..);
        let news: Vec<usize> = heirs.map(|(heir, own)| heir.unwrap_or(own)).collect();
        Ok([Self::of(old, new, &olds, &mut numbers)?, Self::of(new, old, &news, &mut numbers)?])
    }

    /// `budgets`: the number of each route's budget, where it has one.
    fn of(
        snapshot: &'s Snapshot,
        other: &Snapshot,
        budgets: &[usize],
        numbers: &mut Numbers<'_>,
    ) -> Result<Self, TooMuch> {
        let routes = snapshot.routes.routes().iter().zip(budgets);
        let routes = routes.map(|(route, budget)| {
            let meaning = numbers.number(Meaning::route(route, *budget, snapshot, other))?;
            Ok(Known { pattern: Rc::new(route.pattern.clone()), meaning })
        });
        let routes = routes.collect::<Result<_, _>>()?;
        let endpoints = snapshot.endpoints.iter();
        let endpoints = endpoints.map(|(path, endpoint)| {
            let meaning = numbers.number(Meaning::endpoint(endpoint, snapshot))?;
            Ok((&**path, Known { pattern: Rc::new(Pattern::exact(path)), meaning }))
        });
        Ok(Self { snapshot, routes, endpoints: endpoints.collect::<Result<_, _>>()? })
    }

    /// As rules that tell requests apart: the routes, in the order of the file, and then the endpoints.
    pub(super) fn rules(&self) -> Vec<Rule<'s>> {
        let routes = self.snapshot.routes.routes().iter();
        let routes =
            routes.map(|route| Rule { pattern: route.pattern.clone(), hosts: &route.hosts, methods: &route.methods });
        let endpoints = self.snapshot.endpoints.iter();
        let endpoints = endpoints.map(|(path, endpoint)| Rule {
            pattern: Pattern::exact(path),
            hosts: &[],
            methods: endpoint.methods(),
        });
        routes.chain(endpoints).collect()
    }

    /// Where its rules stand in the space of requests, by the shapes of their patterns.
    pub(super) fn places(&self) -> Places<'s> {
        let mut places = Places::default();
        for (route, known) in self.snapshot.routes.routes().iter().zip(&self.routes) {
            places.add(route.pattern.shape(), &route.hosts, &route.methods, known.meaning.1);
        }
        for known in self.endpoints.values() {
            // what an endpoint does not answer, it refuses
            places.add(known.pattern.shape(), &[], &[], known.meaning.1);
        }
        places.0.values_mut().for_each(|stands| stands.sort_unstable());
        places
    }

    /// The pattern of what decides; `None` where nothing does.
    pub(super) fn pattern(&self, decider: &Decider) -> Option<Rc<Pattern>> {
        self.known(decider).map(|known| Rc::clone(&known.pattern))
    }

    /// The path of a request as it is read here; else what refuses it.
    pub(super) fn target(&self, uri: &Uri) -> Result<Target, Decider> {
        let refused = |error| Decider::Refused(Rejection::from(error).status().as_u16());
        Target::parse(uri, &self.snapshot.paths).map_err(refused)
    }

    /// `target` is that of `uri`.
    pub(super) fn ask(&self, method: &Method, uri: &Uri, headers: &HeaderMap, target: &Target) -> Decider {
        match place(self.snapshot, Head { method, uri, version: Version::HTTP_11, headers }, target) {
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

    pub(super) fn numbered(&self, decider: &Decider) -> Option<&Numbered> {
        self.known(decider).map(|known| &known.meaning)
    }

    fn known(&self, decider: &Decider) -> Option<&Known> {
        match decider {
            Decider::Refused(_) => None,
            Decider::Endpoint(path) => self.endpoints.get(&**path),
            Decider::Route(index) => self.routes.get(*index),
        }
    }

    pub(super) fn meaning(&self, decider: &Decider) -> Cow<'_, Meaning> {
        match (decider, self.numbered(decider)) {
            (Decider::Refused(status), _) => Cow::Owned(Meaning::refused(*status)),
            (_, Some(Numbered(meaning, _))) => Cow::Borrowed(meaning),
            (Decider::Endpoint(_) | Decider::Route(_), None) => Cow::Owned(Meaning::refused(500)),
        }
    }
}

/// Where the rules of one side stand.
#[derive(Default, PartialEq)]
pub(super) struct Places<'s>(HashMap<String, Vec<Stand<'s>>>);

/// One rule: for which hosts and methods, none being all of them, and what it means.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stand<'s> {
    hosts: Vec<&'s str>,
    methods: Vec<&'s str>,
    number: usize,
}

impl<'s> Places<'s> {
    fn add(&mut self, shape: String, hosts: &'s [Box<str>], methods: &'s [Method], number: usize) {
        let mut hosts: Vec<&str> = hosts.iter().map(|host| &**host).collect();
        let mut methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        hosts.sort_unstable();
        methods.sort_unstable();
        self.0.entry(shape).or_default().push(Stand { hosts, methods, number });
    }

    /// Whether both have rules of the same meanings at a shape.
    pub(super) fn agree(&self, other: &Self, shape: &str) -> bool {
        self.of(shape) == other.of(shape)
    }

    /// How many rules stand at a shape.
    pub(super) fn count(&self, shape: &str) -> usize {
        self.of(shape).len()
    }

    fn of(&self, shape: &str) -> &[Stand<'s>] {
        self.0.get(shape).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether what a rule of this shape takes is taken here by rules of the same shape, whatever they mean: where it wins
    /// over a rule of another shape, so do they.
    pub(super) fn take(&self, shape: &str, rule: &Rule<'_>) -> bool {
        let stands = self.of(shape);
        let hosts = rule.hosts.iter().map(|host| Some(&**host)).chain(rule.hosts.is_empty().then_some(None));
        hosts.into_iter().all(|host| {
            let of_host: Vec<&Stand<'_>> = stands.iter().filter(|stand| holds(&stand.hosts, host)).collect();
            let methods = rule.methods.iter().map(|method| Some(method.as_str()));
            let head = rule.methods.contains(&Method::GET).then_some(Some("HEAD"));
            let mut methods = methods.chain(head).chain(rule.methods.is_empty().then_some(None));
            methods.all(|method| of_host.iter().any(|stand| stand.takes(method)))
        })
    }
}

impl Stand<'_> {
    fn takes(&self, method: Option<&str>) -> bool {
        holds(&self.methods, method) || method == Some("HEAD") && self.methods.contains(&"GET")
    }
}

/// Whether `name`, or all names, are among these, of which none are all. They are sorted.
fn holds(names: &[&str], name: Option<&str>) -> bool {
    names.is_empty() || name.is_some_and(|name| names.binary_search(&name).is_ok())
}
