//! Rows of random files against what both really decide.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::policies::MARKS;
use super::*;
use crate::config::model::endpoints::action_name;
use crate::config::{Environment, load_text};
use crate::decision::{Place, Request, claimed, decide};
use crate::principal::{Principal, Role, Scope, Subject};
use crate::route::{Allow, Pattern};
use crate::wire::target::{PathPolicy, canonical_path};

/// What one request gets on one side.
#[derive(PartialEq)]
struct Got {
    passes: bool,
    /// What answers: another one is another thing, whoever could ask the one before.
    by: &'static str,
    /// What the caller or the upstream can see of it.
    seen: String,
}

fn answer(snapshot: &Snapshot, request: &Request, who: Option<(&str, bool)>) -> Got {
    let decision = decide(snapshot, request.head(), |schemes, _| match who {
        None => Ok(crate::authenticate::Caller::Anyone),
        Some((role, is_scoped)) => {
            let roles = std::iter::once(Role::from(role)).collect();
            let scopes = is_scoped.then(|| Scope::from("w")).into_iter().collect();
            claimed(schemes, &Principal { subject: Subject::user("u"), user_id: None, roles, scopes }, None)
        }
    });
    match decision.outcome {
        // that a path cannot be read and that nothing is there come to the same
        Err(rejection) if matches!(rejection.status().as_u16(), 400 | 404) => {
            Got { passes: false, by: "nothing", seen: String::new() }
        }
        Err(rejection) => Got { passes: false, by: "refusal", seen: rejection.status().to_string() },
        Ok(Some(permit)) => {
            let route = permit.route();
            let seen = format!("{} {:?}", snapshot.upstreams[route.upstream.index()].name, route.timeout);
            Got { passes: true, by: "route", seen }
        }
        Ok(None) => {
            let Some(Place::Endpoint(endpoint)) = &decision.place else { panic!("nothing else answers") };
            // there are no others in these files
            let by = ["login", "register", "jwks"].into_iter().find(|name| *name == action_name(endpoint.action));
            let by = by.unwrap();
            let passes = by != "login" || who.is_some();
            Got { passes, by, seen: String::new() }
        }
    }
}

/// The rows about a request, but for the one of what holds for all.
fn about<'r>(rows: &'r [Row], files: [&Snapshot; 2], path: &str, host: &str, method: &str) -> Vec<&'r Row> {
    let policy = PathPolicy { merge_empty_segments: true, ..PathPolicy::KEEP_ALL };
    let Ok(canonical) = canonical_path(path, &policy) else { return Vec::new() };
    // what both refuse to read matches no pattern
    if files.iter().all(|file| canonical_path(path, &file.paths).is_err()) {
        return Vec::new();
    }
    let [old, new] = files.map(|file| facts::of_paths(file.paths));
    let held: Vec<String> = MARKS
        .iter()
        .zip(old.iter().zip(&new))
        .filter(|(marks, (old, new))| old != new && marks.iter().any(|mark| path.contains(mark)))
        .map(|(marks, _)| marks.join(" or "))
        .collect();
    let matches = |pattern: &String| Pattern::parse(pattern).unwrap().matches(&canonical);
    let is_about = |row: &&Row| {
        row.holding == held
            && matches(&row.path)
            && !row.except.iter().any(matches)
            && row.hosts.contains(host)
            && row.methods.contains(method)
    };
    rows.iter().filter(is_about).collect()
}

fn some_file() -> impl Strategy<Value = String> {
    let path = "(/([ab]|[{]q[}])){0,3}(/|/[*][*]|/a|/b;c)";
    let who = "(anyone|authenticated|\\[r\\]|\\[s\\]|\\[r, s\\])(|, scopes: \\[w\\])";
    let route = (path, "(|h|i|h, i)", "(|GET|PUT|GET, PUT|HEAD|OPTIONS, PUT)", who, "[ab](|, timeout: 5s)");
    let policy = "(|paths: [{] semicolon: keep [}]|paths: [{] empty_segments: merge [}]|paths: [{] encoded_slash: keep, semicolon: keep, empty_segments: merge [}])";
    let endpoint = "(|[{] path: /a, action: (login|register) [}]|[{] path: /a/b, action: jwks [}])";
    (proptest::collection::vec(route, 0..7), policy, endpoint).prop_map(|(routes, policy, endpoint)| {
        let mut seen = BTreeSet::new();
        let upstreams = "upstreams: { a: { builtin: echo }, b: { builtin: echo } }";
        let mut text = format!("{policy}\nendpoints: [{endpoint}]\n{upstreams}\nroutes:\n");
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
            writeln!(text, "  - {{ path: '{named}', hosts: [{host}], methods: [{method}], allow: {allow}, to: {to} }}")
                .unwrap();
        }
        text.replace("hosts: [], ", "").replace("methods: [], ", "").replace("routes:\n\n", "routes: []\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn exactly_the_requests_whose_decision_differs_are_predicted(
        old in some_file(),
        new in some_file(),
        requests in proptest::collection::vec(
            ("(/{1,2}([abc]|b;c|c;|c%2Fc|c;%2F)){1,4}/?|/", "[hij]", "(GET|HEAD|PUT|POST|OPTIONS)"),
            30,
        ),
    ) {
        let read = |text: &str| load_text(text, Path::new("."), "a.yaml", &Environment::default());
        let (Ok(old), Ok(new)) = (read(&old), read(&new)) else { return Ok(()) };
        let rows = by_rule(&old, &new, &Effort::within(Bounds::COMMAND)).unwrap();
        for (path, host, method) in requests {
            let request = Request::parse(&method.parse().unwrap(), &format!("http://{host}{path}")).unwrap();
            let told = about(&rows, [&old, &new], &path, &host, &method);
            let mut differs = false;
            for role in [None, Some("r"), Some("s"), Some("t")] {
                let (mut gains, mut loses) = (false, false);
                for scoped in [false, true] {
                    let who = role.map(|role| (role, scoped));
                    let (before, after) = (answer(&old, &request, who), answer(&new, &request, who));
                    differs |= before != after;
                    let is_another = before.by != after.by;
                    gains |= after.passes && (is_another || !before.passes);
                    loses |= before.passes && (is_another || !after.passes);
                }
                // a role that no rule names is any other principal
                let is_named = |role: &str| [&old, &new].iter().flat_map(|file| file.routes.routes()).any(|route| {
                    matches!(&route.allow, Allow::Roles(roles) if roles.contains(&Role::from(role)))
                });
                let name = role.map_or("@anyone", |role| if is_named(role) { role } else { "@authenticated" });
                for row in &told {
                    let says = |people: &People| people.names().any(|known| known == name);
                    prop_assert_eq!(says(&row.gains), gains, "gains {} {} {} {} {:#?}", method, host, path, name, row);
                    prop_assert_eq!(says(&row.loses), loses, "loses {} {} {} {} {:#?}", method, host, path, name, row);
                }
            }
            prop_assert_eq!(!told.is_empty(), differs, "{} {} {} {:#?}", method, host, path, rows);
            prop_assert!(told.windows(2).all(|pair| pair[0].changes == pair[1].changes), "{:#?}", told);
        }
    }
}
