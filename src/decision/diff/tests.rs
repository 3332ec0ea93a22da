//! Rows by examples, and against what both sides really decide.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Environment, load_text};
use crate::decision::{Request, claimed, decide};
use crate::principal::{Principal, Role, Scope, Subject};
use crate::wire::target::PathPolicy;

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
            "/a/** GET, HEAD\n    ~ to: a -> b\n    ~ servers: none -> [http://b]\n    ~ builtin: echo -> none\n",
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
            "/a/** GET, HEAD\n    - x, y\n    ~ scopes: [] -> [s]\n",
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
    assert_eq!(
        found,
        "/a/{id} every method, where the path has ; or %3B\n    + x\n    ~ paths.semicolon: refuse -> keep\n"
    );
    let old = format!("endpoints: []\n{old}");
    let found = printed(&format!("paths: {{ empty_segments: merge }}\n{old}"), &old);
    assert_eq!(
        found,
        "/a/{id} every method, where the path has //\n    - x\n    ~ paths.empty_segments: merge -> refuse\n"
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
            "changes": ["answer: route -> endpoint register"],
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
    assert_eq!(found, "/a every method\n    ~ request_headers.set.x-key: another value (not shown)\n");
}

#[test]
fn no_text_of_a_file_is_read_as_a_difference() {
    let old = rules(&["path: /a, allow: anyone, to: a"]);
    let odd = r#"errors: { messages: { no_route: "gone\n/admin/** GET\r    - anyone\u2028\u0007" } }"#;
    assert_eq!(
        printed(&old, &format!("{odd}\n{old}")),
        "/** every method\n    ~ errors.messages.no_route: none -> gone\\n/admin/** GET\\r    - anyone\\u{2028}\\u{7}\n"
    );
}

#[test]
fn rows_about_patterns_that_cross_do_not_contradict_each_other() {
    let old = rules(&["path: /a/**, allow: [x], to: a"]);
    let new = rules(&["path: '/{n}', allow: [x], to: a"]);
    assert_eq!(printed(&old, &new), "/{n} every method, except /a\n    + x\n/a/** every method, except /a\n    - x\n");
    let (old, new) = (load(&old), load(&new));
    let json: Vec<Value> = diff(&old, &new).unwrap().iter().map(Row::json).collect();
    assert_eq!(json[0]["except"], json!(["/a"]));
    assert_eq!((&json[1]["path"], json[1].get("holding")), (&json!("/a/**"), None));
}

#[test]
fn a_pattern_that_matches_nothing_hides_no_difference() {
    let old = rules(&["path: '/a/b;c', allow: anyone, to: a", "path: '/a/{x}/**', allow: [x], to: a"]);
    assert_eq!(
        printed(&old, &rules(&["path: /b, allow: [x], to: a"])),
        "/b every method\n    + x\n/a/{x}/** every method\n    - x\n"
    );
}

#[test]
fn changes_are_told_by_the_keys_and_values_of_the_file() {
    let route = "path: /a, allow: [x], to: b";
    let old = rules(&[route]);
    let with = |more: &str| rules(&[&format!("{route}, {more}")]);
    let cors = |origins: &str| with(&format!("cors: {{ origins: [{origins}], headers: [X-A, X-B] }}"));
    for (old, new, expected) in [
        (with("timeout: 5s"), with("timeout: 10s"), "timeout: 5s -> 10s"),
        (old.clone(), with("timeout: 90s"), "timeout: 1m -> 90s"),
        (old.clone(), format!("timeouts: {{ response_header: 5s }}\n{old}"), "timeouts.response_header: 1m -> 5s"),
        (old.clone(), with("body_bytes: 64KiB"), "body_bytes: 0 -> 64KiB"),
        (
            with("rate: { rate: 10/s, burst: 5 }"),
            with("rate: { rate: 10/s, burst: 5, by: address }"),
            "rate: { rate: 10/s, burst: 5, by: principal } -> { rate: 10/s, burst: 5, by: address }",
        ),
        (
            old.clone(),
            old.replace("servers: [http://b]", "servers: [http://b], balance: round_robin"),
            "upstreams.b.balance: least_requests -> round_robin",
        ),
        (
            old.clone(),
            old.replace("servers: [http://b]", "servers: [http://b], health: { interval: 10s }"),
            "upstreams.b.health: none -> { path: /health, interval: 10s, timeout: 1s, unhealthy_after: 3, healthy_after: 2 }",
        ),
        (cors("'https://a', 'https://b'"), cors("'https://b', 'https://a'"), ""),
        (cors("'https://a'"), cors("'https://a'").replace("X-A, X-B", "X-B, X-A"), ""),
        (
            cors("'https://a', 'https://b'"),
            cors("'https://c', 'https://a'"),
            "cors.origins: [https://a, https://b] -> [https://a, https://c]",
        ),
        (old.clone(), cors("'*'"), "cors.origins: none -> ['*']\n    ~ cors.headers: [] -> [x-a, x-b]"),
        (with("end_streams_on: []"), old.clone(), "end_streams_on: [] -> [revocation]"),
        (
            with("response_headers: { set: { Cache-Control: no-store }, remove: [Server] }"),
            with("response_headers: { set: { Cache-Control: public } }"),
            "response_headers.set.cache-control: no-store -> public\n    ~ response_headers.remove: [server] -> []",
        ),
        (
            old.clone(),
            old.replace("to: b", "to: a"),
            "to: b -> a\n    ~ builtin: none -> echo\n    ~ servers: [http://b] -> none",
        ),
        (old.clone(), old.replace("to: b", "to: c").replace("b: {", "c: {"), ""),
    ] {
        let expected = if expected.is_empty() { String::new() } else { format!("/a every method\n    ~ {expected}\n") };
        assert_eq!(printed(&old, &new), expected, "{new}");
    }
    for (section, expected) in [
        ("identity_headers: { user: X-User }", "identity_headers.user: x-auth-user -> x-user"),
        ("trusted_proxies: [10.0.0.0/8, 127.0.0.1]", "trusted_proxies: [] -> [10.0.0.0/8, 127.0.0.1/32]"),
        ("auth: { realm: b }", "auth.realm: api -> b"),
        ("auth: { jwt: { roles: a.b, leeway: 1m } }", "auth.jwt.leeway: 30s -> 1m\n    ~ auth.jwt.roles: store -> a.b"),
        ("errors: { messages: { no_route: gone } }", "errors.messages.no_route: none -> gone"),
        ("timeouts: { connect: 3s }", "timeouts.connect: 2s -> 3s"),
    ] {
        let found = printed(&old, &format!("{section}\n{old}"));
        assert_eq!(found, format!("/** every method\n    ~ {expected}\n"));
    }
}

#[test]
fn another_key_of_the_same_name_is_told_and_not_shown() {
    let file = |secret: &str| {
        let key = format!("{{ id: k, algorithm: HS256, secret: {secret}-canary-canary-canary-canary }}");
        format!("auth: {{ jwt: {{ keys: [{key}] }} }}\n{}", rules(&["path: /a, allow: [x], to: b"]))
    };
    assert_eq!(printed(&file("a"), &file("a")), "");
    assert_eq!(printed(&file("a"), &file("b")), "/** every method\n    ~ auth.jwt.keys: another value (not shown)\n");
}

/// What one request gets on one side: whether it passes, and what the caller or the upstream can see of it.
fn answer(snapshot: &Snapshot, request: &Request, who: Option<(&str, bool)>) -> (bool, String) {
    let decision = decide(snapshot, request.head(), |route| match who {
        None => Ok(crate::authenticate::Caller::Anyone),
        Some((role, is_scoped)) => {
            let roles = std::iter::once(Role::from(role)).collect();
            let scopes = is_scoped.then(|| Scope::from("w")).into_iter().collect();
            claimed(route, &Principal { subject: Subject::user("u"), user_id: None, roles, scopes }, None)
        }
    });
    let endpoint = match &decision.place {
        Some(Place::Endpoint(endpoint)) => format!("{:?}", endpoint.action),
        Some(Place::Route(_) | Place::Preflight(..)) | None => String::new(),
    };
    match decision.outcome {
        // that a path cannot be read and that nothing is there come to the same
        Err(rejection) if matches!(rejection.status().as_u16(), 400 | 404) => (false, "nothing".to_owned()),
        Err(rejection) => (false, rejection.status().to_string()),
        Ok(Some(permit)) => {
            let route = permit.route();
            (true, format!("{} {:?}", snapshot.upstreams[route.upstream.0].name, route.timeout))
        }
        Ok(None) => (true, endpoint),
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
        row.everybody > 0
            && row.holding == held
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
    let endpoint = "(|[{] path: /a, action: login [}]|[{] path: /a/b, action: jwks [}])";
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
        let rows = diff(&old, &new).unwrap();
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
                    gains |= !before.0 && after.0;
                    loses |= before.0 && !after.0;
                }
                // a role that no rule names is any other principal
                let is_named = |role: &str| [&old, &new].iter().flat_map(|file| file.routes.routes()).any(|route| {
                    matches!(&route.allow, Allow::Roles(roles) if roles.contains(&Role::from(role)))
                });
                let name = role.map_or("@anyone", |role| if is_named(role) { role } else { "@authenticated" });
                for row in &told {
                    let says = |names: &[String]| names.iter().any(|known| known == name);
                    prop_assert_eq!(says(&row.gains), gains, "gains {} {} {} {} {:#?}", method, host, path, name, row);
                    prop_assert_eq!(says(&row.loses), loses, "loses {} {} {} {} {:#?}", method, host, path, name, row);
                }
            }
            prop_assert_eq!(!told.is_empty(), differs, "{} {} {} {:#?}", method, host, path, rows);
            prop_assert!(told.windows(2).all(|pair| pair[0].changes == pair[1].changes), "{:#?}", told);
        }
    }
}
