//! All routes: the one that decides a request, or why none does. Conflicts are found when the table is made.
//!
//! A trie by segments. Children are tried literal, `{name}`, `**`, which is the order of specificity, so the first route
//! that fits in path, host and method is the one that decides. A look-up allocates only where it ends in 405.
//!
//! With many routes each request meets one that the processor has forgotten, so that what counts is how much memory a look-up
//! touches and over how many pages it lies: the nodes are small and in one piece, and so are the edges between them.

use std::collections::hash_map::Entry;
use std::ops::ControlFlow;

use foldhash::{HashMap, HashMapExt as _};
use http::{HeaderValue, Method};

use super::Route;
use super::pattern::Segment;
use super::trie::{NodeId, Trie};
use crate::rejection::Rejection;

/// All routes of a snapshot.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    trie: Trie<Leaf>,
    crowds: Vec<Crowd>,
}

/// What patterns come to at a node.
#[derive(Clone, Copy, Debug, Default)]
struct Leaf {
    /// Routes whose pattern ends here.
    end: Rules,
    /// Routes whose pattern has `**` here.
    below: Rules,
}

/// Routes of one pattern, as indices.
#[derive(Clone, Copy, Debug, Default)]
enum Rules {
    #[default]
    None,
    /// One route, for all hosts: most are.
    One(u32),
    /// Several, or for some hosts: an index into [`Table::crowds`].
    Many(u32),
}

/// Routes of one pattern.
#[derive(Debug, Default)]
struct Crowd {
    by_host: HashMap<Box<str>, Methods>,
    of_any_host: Methods,
}

/// Routes of one pattern and host. Those with methods exclude each other, or the table would not have been made.
#[derive(Debug, Default)]
struct Methods {
    listed: Vec<u32>,
    all: Option<u32>,
}

/// Two routes that could match the same request, with nothing to choose between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the one that stands first.
    pub first: usize,
    /// The index of the other.
    pub second: usize,
}

/// Why no route decides.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss {
    /// None fits path and host.
    NotFound,
    /// Some fit path and host, but not the method; the value of `Allow`.
    MethodNotAllowed(HeaderValue),
}

impl From<Miss> for Rejection {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NotFound => Self::NoRoute,
            Miss::MethodNotAllowed(allow) => Self::MethodNotAllowed(allow),
        }
    }
}

impl Route {
    /// Whether it is for this method. HEAD is allowed where GET is.
    pub fn allows_method(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// The methods it lists, with the HEAD that GET implies.
    pub fn listed_methods(&self) -> impl Iterator<Item = &Method> {
        let implied = self.methods.contains(&Method::GET) && !self.methods.contains(&Method::HEAD);
        self.methods.iter().chain(implied.then_some(&Method::HEAD))
    }
}

impl Table {
    /// Makes the table of these routes.
    ///
    /// # Errors
    /// Every route that conflicts with one before it, with the first of those.
    pub fn new(routes: Vec<Route>) -> Result<Self, Vec<Conflict>> {
        let mut trie = Trie::new();
        let mut crowds = Vec::new();
        let mut conflicts = Vec::new();
        let mut seen = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let at = place(&mut trie, route);
            if let Some(first) = claim(&mut seen, at, index, route) {
                conflicts.push(Conflict { first, second: index });
                continue;
            }
            let Some(leaf) = trie.value_mut(at) else { continue };
            let rules = if route.pattern.is_prefix() { &mut leaf.below } else { &mut leaf.end };
            *rules = rules.with(index, &routes, &mut crowds);
        }
        if conflicts.is_empty() { Ok(Self { routes, trie, crowds }) } else { Err(conflicts) }
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Which of [`Table::routes`] a route of this table is.
    pub fn index(&self, route: &Route) -> Option<usize> {
        self.routes.element_offset(route)
    }

    /// The route that decides a request for a canonical path; `host` in lower case, without port.
    ///
    /// # Errors
    /// A [`Miss`] where there is none.
    pub fn find(&self, host: &str, method: &Method, path: &str) -> Result<&Route, Miss> {
        let found = self.visit(path, &mut |rules| match self.decide(rules, host, method) {
            Some(route) => ControlFlow::Break(route),
            None => ControlFlow::Continue(()),
        });
        match found {
            ControlFlow::Break(route) => Ok(route),
            ControlFlow::Continue(()) => Err(self.miss(host, path)),
        }
    }

    /// All routes that fit path and host, the most specific first: what [`Table::find`] chooses from by the method.
    pub fn candidates(&self, host: &str, path: &str) -> Vec<&Route> {
        let mut candidates = Vec::new();
        let ControlFlow::<std::convert::Infallible>::Continue(()) = self.visit(path, &mut |rules| {
            match rules {
                Rules::None => {}
                Rules::One(index) => candidates.extend(self.route(index)),
                Rules::Many(_) => candidates.extend(self.crowd(rules, host)),
            }
            ControlFlow::Continue(())
        });
        candidates
    }

    fn route(&self, index: u32) -> Option<&Route> {
        self.routes.get(index as usize)
    }

    /// The routes of several that fit the host: first those with hosts, then those without; first those with methods.
    fn crowd(&self, rules: Rules, host: &str) -> impl Iterator<Item = &Route> {
        let crowd = if let Rules::Many(crowd) = rules { self.crowds.get(crowd as usize) } else { None };
        let methods = crowd.into_iter().flat_map(move |crowd| crowd.of_host(host));
        methods.flat_map(Methods::iter).filter_map(|index| self.route(index))
    }

    fn decide(&self, rules: Rules, host: &str, method: &Method) -> Option<&Route> {
        match rules {
            Rules::None => None,
            Rules::One(index) => self.route(index).filter(|route| route.allows_method(method)),
            Rules::Many(_) => self.crowd(rules, host).find(|route| route.allows_method(method)),
        }
    }

    /// A route for the path and host that is for all methods would have been found, so `Allow` is what is listed.
    fn miss(&self, host: &str, path: &str) -> Miss {
        let candidates = self.candidates(host, path);
        if candidates.is_empty() {
            return Miss::NotFound;
        }
        let mut methods: Vec<&Method> = candidates.iter().flat_map(|route| route.listed_methods()).collect();
        methods.sort_unstable_by_key(|method| (usual_place(method), method.as_str()));
        methods.dedup();
        let list = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
        Miss::MethodNotAllowed(HeaderValue::try_from(list).unwrap_or_else(|_| HeaderValue::from_static("")))
    }

    fn visit<T>(&self, path: &str, visit: &mut impl FnMut(Rules) -> ControlFlow<T>) -> ControlFlow<T> {
        match path.strip_prefix('/') {
            Some(rest) => self.descend(Trie::<Leaf>::ROOT, Some(rest), visit),
            None => ControlFlow::Continue(()),
        }
    }

    /// Visits the rules below a node that match what is left of the path, the most specific pattern first.
    ///
    /// A literal and a `{name}` can both lead on, so that this may come back from one to try the other. It meets each node
    /// at most once, only those whose pattern matches the path so far, and never goes deeper than the path has segments: at
    /// most two a segment where routes do not repeat each other's tails, whatever their number.
    fn descend<T>(
        &self,
        at: NodeId,
        rest: Option<&str>,
        visit: &mut impl FnMut(Rules) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let Some(leaf) = self.trie.value(at) else { return ControlFlow::Continue(()) };
        let Some(rest) = rest else {
            visit(leaf.end)?;
            return visit(leaf.below);
        };
        let (segment, rest) = match memchr::memchr(b'/', rest.as_bytes()).and_then(|at| rest.split_at_checked(at)) {
            Some((segment, rest)) => (segment, rest.strip_prefix('/')),
            None => (rest, None),
        };
        if let Some(child) = self.trie.literal(at, segment) {
            self.descend(child, rest, visit)?;
        }
        if let Some(child) = self.trie.any(at).filter(|_| !segment.is_empty()) {
            self.descend(child, rest, visit)?;
        }
        visit(leaf.below)
    }
}

impl Rules {
    /// These and one more.
    fn with(self, index: usize, routes: &[Route], crowds: &mut Vec<Crowd>) -> Self {
        let Some(route) = routes.get(index) else { return self };
        let (place, crowded) = (number(index), number(crowds.len()));
        match self {
            Self::None if route.hosts.is_empty() => return Self::One(place),
            Self::None => crowds.push(Crowd::default()),
            Self::One(first) => {
                let mut crowd = Crowd::default();
                if let Some(first_route) = routes.get(first as usize) {
                    crowd.add(first, first_route);
                }
                crowds.push(crowd);
            }
            Self::Many(known) => {
                if let Some(crowd) = crowds.get_mut(known as usize) {
                    crowd.add(place, route);
                }
                return self;
            }
        }
        if let Some(crowd) = crowds.last_mut() {
            crowd.add(place, route);
        }
        Self::Many(crowded)
    }
}

/// There is no memory for more than fit; one that did not would be found nowhere.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Crowd {
    fn add(&mut self, index: u32, route: &Route) {
        if route.hosts.is_empty() {
            self.of_any_host.add(index, route);
        }
        for host in &route.hosts {
            self.by_host.entry(host.clone()).or_default().add(index, route);
        }
    }

    /// First those with hosts, then those without.
    fn of_host(&self, host: &str) -> impl Iterator<Item = &Methods> {
        self.by_host.get(host).into_iter().chain([&self.of_any_host])
    }
}

impl Methods {
    fn add(&mut self, index: u32, route: &Route) {
        if route.methods.is_empty() {
            self.all = Some(index);
        } else {
            self.listed.push(index);
        }
    }

    /// First those with methods, then the one without.
    fn iter(&self) -> impl Iterator<Item = u32> {
        self.listed.iter().copied().chain(self.all)
    }
}

/// The node where a route's pattern ends, made where it is missing.
fn place(trie: &mut Trie<Leaf>, route: &Route) -> NodeId {
    route.pattern.segments().iter().fold(Trie::<Leaf>::ROOT, |at, segment| match segment {
        Segment::Literal(text) => trie.literal_or_new(at, text),
        Segment::Any(_) => trie.any_or_new(at),
    })
}

/// What a route is for: a pattern (its node, and whether it goes below), a host or any, a method or all.
type Claim<'r> = (NodeId, bool, Option<&'r str>, Option<&'r str>);

/// Takes all that a route is for, unless another has something of it; that one then. Two routes can match the same
/// request with nothing to choose between them exactly where such a claim is the same.
fn claim<'r>(seen: &mut HashMap<Claim<'r>, usize>, at: NodeId, index: usize, route: &'r Route) -> Option<usize> {
    let hosts = || route.hosts.iter().map(|host| Some(&**host)).chain(route.hosts.is_empty().then_some(None));
    let methods = || {
        let listed = route.listed_methods().map(|method| Some(method.as_str()));
        listed.chain(route.methods.is_empty().then_some(None))
    };
    let mut first = None;
    for host in hosts() {
        for method in methods() {
            match seen.entry((at, route.pattern.is_prefix(), host, method)) {
                // the same host or method twice in one route is no conflict
                Entry::Occupied(other) if *other.get() != index => {
                    first = Some(first.map_or(*other.get(), |first: usize| first.min(*other.get())));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert(index);
                }
            }
        }
    }
    first
}

/// Where a method stands in `Allow`: safe ones first, unregistered ones last.
fn usual_place(method: &Method) -> usize {
    let usual = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    usual.iter().position(|name| *name == method.as_str()).unwrap_or(usual.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::test_route;
    use proptest::prelude::*;

    fn route(path: &str, hosts: &str, methods: &str) -> Route {
        let mut route = test_route(path);
        route.hosts = hosts.split_whitespace().map(Box::from).collect();
        route.methods = methods.split_whitespace().map(|method| method.parse().unwrap()).collect();
        route
    }

    fn table(routes: &[(&str, &str, &str)]) -> Result<Table, Vec<Conflict>> {
        Table::new(routes.iter().map(|(path, hosts, methods)| route(path, hosts, methods)).collect())
    }

    fn show(result: Result<&Route, Miss>) -> String {
        match result {
            Ok(route) => {
                let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
                let all = [&*route.name, &route.hosts.join(" "), &methods.join(" ")].join(" ");
                all.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Err(Miss::NotFound) => "404".into(),
            Err(Miss::MethodNotAllowed(allow)) => format!("405 {}", allow.to_str().unwrap()),
        }
    }

    #[test]
    fn the_most_specific_route_that_fits_decides() {
        let table = table(&[
            ("/**", "", "OPTIONS"),
            ("/health", "", ""),
            ("/orders/**", "", "GET"),
            ("/orders/{id}", "", "PUT"),
            ("/orders/{id}/refund", "", "POST"),
            ("/orders/{id}/refund", "api.example.com", "POST DELETE"),
            ("/orders/new", "", "POST"),
            ("/orders/", "", "GET"),
            ("/{a}/new", "", "PATCH"),
            ("/hosts", "a", ""),
            ("/hosts", "", "GET"),
            ("/hosts", "", ""),
        ])
        .unwrap();
        for (method, host, path, expected) in [
            ("GET", "a", "/health", "/health"),
            ("BREW", "a", "/health", "/health"),
            ("GET", "a", "/health/", "405 OPTIONS"),
            ("GET", "a", "/orders", "/orders/** GET"),
            ("HEAD", "a", "/orders", "/orders/** GET"),
            ("GET", "a", "/orders/", "/orders/ GET"),
            ("GET", "a", "/orders/7/x/y/", "/orders/** GET"),
            ("PUT", "a", "/orders/7", "/orders/{id} PUT"),
            // a more specific path does not hide a less specific one
            ("GET", "a", "/orders/7", "/orders/** GET"),
            ("GET", "a", "/orders/new", "/orders/** GET"),
            ("PUT", "a", "/orders/new", "/orders/{id} PUT"),
            ("PATCH", "a", "/orders/new", "/{a}/new PATCH"),
            ("POST", "a", "/orders/7", "405 GET, HEAD, PUT, OPTIONS"),
            ("PATCH", "a", "/orders/7/refund", "405 GET, HEAD, POST, OPTIONS"),
            ("POST", "a", "/orders/7/refund", "/orders/{id}/refund POST"),
            ("POST", "api.example.com", "/orders/7/refund", "/orders/{id}/refund api.example.com POST DELETE"),
            ("DELETE", "a", "/orders/7/refund", "405 GET, HEAD, POST, OPTIONS"),
            ("OPTIONS", "a", "/", "/** OPTIONS"),
            ("GET", "a", "/hosts", "/hosts a"),
            ("GET", "b", "/hosts", "/hosts GET"),
            ("POST", "b", "/hosts", "/hosts"),
            ("GET", "", "/hosts", "/hosts GET"),
        ] {
            let found = show(table.find(host, &method.parse().unwrap(), path));
            assert_eq!(found, expected, "{method} {host} {path}");
        }
        let candidates: Vec<_> =
            table.candidates("a", "/orders/new").iter().map(|route| route.pattern.to_string()).collect();
        assert_eq!(candidates, ["/orders/new", "/orders/{id}", "/orders/**", "/{a}/new", "/**"]);
    }

    #[test]
    fn without_a_route_there_is_nothing() {
        let table = table(&[("/a", "x", "GET")]).unwrap();
        for (host, path, expected) in
            [("x", "/b", "404"), ("y", "/a", "404"), ("x", "", "404"), ("x", "a", "404"), ("x", "/a/", "404")]
        {
            assert_eq!(show(table.find(host, &Method::GET, path)), expected, "{host} {path}");
        }
        assert_eq!(show(Table::new(Vec::new()).unwrap().find("x", &Method::GET, "/")), "404");
    }

    #[test]
    fn routes_that_nothing_chooses_between_conflict() {
        for (name, first, second, conflict) in [
            ("the same", ("/a", "", ""), ("/a", "", ""), true),
            ("the same but for names", ("/{a}", "", ""), ("/{b}", "", ""), true),
            ("another spelling", ("/a", "", ""), ("/%61", "", ""), true),
            ("another literal", ("/a", "", ""), ("/b", "", ""), false),
            ("a trailing slash", ("/a", "", ""), ("/a/", "", ""), false),
            ("more specific in one place each", ("/a/{x}", "", ""), ("/{x}/b", "", ""), false),
            ("below", ("/a", "", ""), ("/a/**", "", ""), false),
            ("below twice", ("/{x}/**", "", ""), ("/{y}/**", "", ""), true),
            ("with hosts and without", ("/a", "h", ""), ("/a", "", ""), false),
            ("a common host", ("/a", "h i", ""), ("/a", "i j", ""), true),
            ("no common host", ("/a", "h", ""), ("/a", "i", ""), false),
            ("with methods and without", ("/a", "", "GET"), ("/a", "", ""), false),
            ("a common method", ("/a", "", "GET PUT"), ("/a", "", "PUT"), true),
            ("no common method", ("/a", "", "GET"), ("/a", "", "PUT"), false),
            ("an implied HEAD", ("/a", "", "GET"), ("/a", "", "HEAD"), true),
            ("methods of one, hosts of the other", ("/a", "h", ""), ("/a", "", "GET"), false),
        ] {
            for (a, b) in [(first, second), (second, first)] {
                let conflicts = table(&[a, b]).err();
                assert_eq!(conflicts, conflict.then(|| vec![Conflict { first: 0, second: 1 }]), "{name}");
            }
        }
        assert!(table(&[("/a", "h h", "GET GET HEAD")]).is_ok(), "a route does not conflict with itself");
        assert_eq!(
            table(&[("/a", "", ""), ("/b", "", ""), ("/a", "", ""), ("/b", "", "")]).unwrap_err(),
            [Conflict { first: 0, second: 2 }, Conflict { first: 1, second: 3 }]
        );
    }

    #[test]
    fn ten_thousand_routes_are_found_each() {
        let routes: Vec<Route> = (0..10_000).map(|n| route(&format!("/r/{n}/{{id}}/**"), "", "GET")).collect();
        let table = Table::new(routes).unwrap();
        for n in [0, 4711, 9_999] {
            let found = table.find("h", &Method::GET, &format!("/r/{n}/7/x")).unwrap();
            assert_eq!(&*found.name, format!("/r/{n}/{{id}}/**"));
        }
        assert_eq!(table.find("h", &Method::GET, "/r/10000/7").unwrap_err(), Miss::NotFound);
    }

    /// What the contract says, word by word, over all routes.
    fn oracle<'r>(routes: &'r [Route], host: &str, method: &Method, path: &str) -> Option<&'r Route> {
        let fitting = routes.iter().filter(|route| {
            route.pattern.matches(path)
                && (route.hosts.is_empty() || route.hosts.iter().any(|own| **own == *host))
                && route.allows_method(method)
        });
        fitting.min_by(|a, b| {
            let key = |route: &Route| (route.hosts.is_empty(), route.methods.is_empty());
            a.pattern.compare(&b.pattern).then_with(|| key(a).cmp(&key(b)))
        })
    }

    fn some_route() -> impl Strategy<Value = Route> {
        let path = "(/([ab]|[{]x[}])){0,3}(/|/[*][*]|/a)";
        (path, "(|h|i|h i)", "(|GET|PUT|GET PUT|HEAD)").prop_filter_map("a name twice", |(path, hosts, methods)| {
            // names are told apart by their place
            let mut text = String::new();
            for (place, part) in path.split("{x}").enumerate() {
                if place > 0 {
                    text.extend(["{x", &place.to_string(), "}"]);
                }
                text.push_str(part);
            }
            crate::route::Pattern::parse(&text).ok().map(|_| route(&text, &hosts, &methods))
        })
    }

    proptest! {
        #[test]
        fn the_table_answers_as_the_rules_say(
            routes in proptest::collection::vec(some_route(), 0..12),
            host in "[hij]",
            path in "(/[abc]{1,2}){0,4}/?",
        ) {
            prop_assume!(path.starts_with('/'));
            // those that conflict with one before them are left out
            let mut kept: Vec<Route> = Vec::new();
            for route in routes {
                kept.push(route);
                if Table::new(kept.clone()).is_err() {
                    kept.pop();
                }
            }
            let table = Table::new(kept.clone()).unwrap();
            let mut reversed = kept.clone();
            reversed.reverse();
            let reversed = Table::new(reversed).unwrap();
            for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
                let found = show(table.find(&host, &method, &path));
                prop_assert_eq!(&found, &show(reversed.find(&host, &method, &path)), "the order of the file");
                match oracle(&kept, &host, &method, &path) {
                    Some(route) => prop_assert_eq!(found, show(Ok(route))),
                    None => prop_assert!(found.starts_with("40"), "{} for {} {}", found, method, path),
                }
            }
        }

        #[test]
        fn what_does_not_conflict_is_never_a_tie(a in some_route(), b in some_route(), path in "(/[ab]){0,4}/?") {
            let (host, method) = ("h", Method::GET);
            let both = a.pattern.matches(&path) && b.pattern.matches(&path) && a.pattern.compare(&b.pattern).is_eq();
            let alike = a.hosts.is_empty() == b.hosts.is_empty() && a.methods.is_empty() == b.methods.is_empty();
            let fits = |route: &Route| {
                (route.hosts.is_empty() || route.hosts.iter().any(|own| &**own == host)) && route.allows_method(&method)
            };
            if both && alike && fits(&a) && fits(&b) {
                prop_assert!(Table::new(vec![a, b]).is_err());
            }
        }
    }
}
