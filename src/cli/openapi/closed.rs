//! What a document closes and printed routes would open: it is given to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use http::Method;

use super::{Bare, METHODS_OF_RULES, Operation, UPSTREAM, quoted, shape};
use crate::config::Snapshot;
use crate::principal::Role;
use crate::route::pattern::Segment;
use crate::route::patterns::Patterns;
use crate::route::{Allow, Pattern, Route};

/// Routes that are looked at for what they have in common with what is left out; a few seconds. What is left out behind that
/// is closed without a look.
const WORK_MAX: usize = 5_000_000;

/// Routes that nobody may use, for requests that another route would take though the document does not mean it to: for a
/// path without placeholders, every method that it has no operation of (a path that is spelt out is matched first, `OpenAPI`
/// "Paths Object"), and all where it has none, which are the `bare` ones; for others, what was left out.
pub(super) fn closed(operations: &[Operation<'_>], bare: &[Bare<'_>], snapshot: &Snapshot) -> String {
    let mut all: BTreeMap<String, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for (_, pattern) in bare.iter().filter(|(path, _)| !path.contains(['{', '}'])) {
        all.insert(shape(pattern), (pattern, METHODS_OF_RULES.into()));
    }
    for operation in operations {
        let Ok(pattern) = &operation.pattern else { continue };
        let (_, methods) = all.entry(shape(pattern)).or_insert_with(|| (pattern, BTreeSet::new()));
        if operation.path.contains(['{', '}']) {
            methods.insert(&operation.method);
            if operation.method == "GET" {
                methods.insert("HEAD");
            }
        } else {
            methods.extend(METHODS_OF_RULES);
        }
    }
    let nobody = role_of_nobody(snapshot);
    let mut open = Open::of(snapshot, all.values().map(|(pattern, _)| pattern.len()).max().unwrap_or_default());
    let mut printed = String::new();
    for (pattern, methods) in all.values() {
        let Ok(parsed) = Pattern::parse(pattern) else { continue };
        let mut why = "a wider route would take this";
        let mut taken: Vec<&str> = Vec::new();
        for name in methods {
            let Ok(method) = Method::from_bytes(name.as_bytes()) else { continue };
            match open.takes(&parsed, &method) {
                Taken::No => continue,
                Taken::Whole => {}
                Taken::Part => why = "another route would take some of this",
                Taken::Unknown => why = "another route may take some of this",
            }
            taken.push(name);
        }
        // GET takes HEAD along
        if taken.contains(&"GET") {
            taken.retain(|name| *name != "HEAD");
        }
        if !taken.is_empty() {
            let (path, methods) = (quoted(pattern), taken.join(", "));
            writeln!(printed, "  # closed: {why}, which the document does not say; nobody has this role").ok();
            write!(printed, "  - path: {path}\n    methods: [{methods}]\n    allow: [{nobody}]\n    to: {UPSTREAM}\n")
                .ok();
        }
    }
    printed
}

/// A role that the document does not name.
fn role_of_nobody(snapshot: &Snapshot) -> String {
    let roles: BTreeSet<&str> = (snapshot.routes.routes().iter())
        .flat_map(|route| match &route.allow {
            Allow::Anyone | Allow::Authenticated => &[],
            Allow::Roles(roles) => roles.as_slice(),
        })
        .map(Role::as_str)
        .collect();
    let mut names =
        (1..).map(|number| format!("nobody{}", if number > 1 { number.to_string() } else { String::new() }));
    names.find(|name| !roles.contains(name.as_str())).unwrap_or_default()
}

/// How much of what is left out another route would take.
#[derive(Debug)]
enum Taken {
    No,
    Whole,
    Part,
    /// It was not looked at any more.
    Unknown,
}

/// What is printed, to ask what it takes.
struct Open<'s> {
    snapshot: &'s Snapshot,
    patterns: Patterns<usize>,
    /// A segment that no rule spells out.
    filler: String,
    work: usize,
}

impl<'s> Open<'s> {
    /// `longest` is the longest pattern of the document in bytes.
    fn of(snapshot: &'s Snapshot, longest: usize) -> Self {
        let mut patterns = Patterns::default();
        for (index, route) in snapshot.routes.routes().iter().enumerate() {
            patterns.insert(&route.pattern, index);
        }
        Self { snapshot, patterns, filler: "z".repeat(longest + 1), work: 0 }
    }

    /// Whether requests go to another route that a route of this pattern would decide, if there were one.
    fn takes(&mut self, left_out: &Pattern, method: &Method) -> Taken {
        if let Some(route) = self.decides(left_out, method) {
            // whatever has the filler wherever this one has a placeholder has all of its paths
            return if left_out.compare(&route.pattern).is_lt() { Taken::Whole } else { Taken::No };
        }
        if left_out.segments().iter().all(|segment| matches!(segment, Segment::Literal(_))) {
            return Taken::No; // of one path there is no part
        }
        if self.work > WORK_MAX {
            return Taken::Unknown;
        }
        let crossing = self.patterns.crossing(left_out);
        self.work += self.patterns.take_work() + crossing.len();
        for route in crossing.into_iter().filter_map(|index| self.snapshot.routes.routes().get(index)) {
            if !route.allows_method(method) || left_out.compare(&route.pattern).is_ge() {
                continue;
            }
            let Some(common) = left_out.meet(&route.pattern) else { continue };
            // all that they have in common may be decided by a route that comes before both
            if self.decides(&common, method).is_some_and(|route| left_out.compare(&route.pattern).is_lt()) {
                return Taken::Part;
            }
        }
        Taken::No
    }

    /// What decides those paths of a pattern that no rule spells out further.
    fn decides(&mut self, pattern: &Pattern, method: &Method) -> Option<&'s Route> {
        self.work += 1;
        let segments = pattern.segments().iter().map(|segment| match segment {
            Segment::Literal(text) => text,
            Segment::Any(_) => &*self.filler,
        });
        let path: String = segments.flat_map(|segment| ["/", segment]).collect();
        self.snapshot.routes.find("localhost", method, &path).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};

    #[test]
    fn what_is_not_looked_at_any_more_is_closed() {
        let route = |path: &str, method: &str| {
            format!("\n  - {{ path: '{path}', methods: [{method}], allow: anyone, to: api }}")
        };
        let routes = [route("/{a}/c", "GET"), route("/a/{b}", "PUT"), route("/{a}/{b}", "POST")].concat();
        let text = format!("upstreams: {{ api: {{ builtin: echo }} }}\nroutes:{routes}\n");
        let snapshot = load_text(&text, std::path::Path::new("."), "a.yaml", &Environment::default()).unwrap();
        let left_out = Pattern::parse("/a/{b}").unwrap();
        let mut open = Open::of(&snapshot, left_out.to_string().len());
        for (work, method, expected) in [
            (0, Method::GET, "Part"),
            (WORK_MAX + 1, Method::GET, "Unknown"),
            // a route of the same paths, and one of all of them, are found at once
            (WORK_MAX + 1, Method::PUT, "No"),
            (WORK_MAX + 1, Method::POST, "Whole"),
            (0, Method::DELETE, "No"),
        ] {
            open.work = work;
            assert_eq!(format!("{:?}", open.takes(&left_out, &method)), expected, "{method}");
        }
    }
}
