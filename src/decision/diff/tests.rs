//! Rows by examples.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Environment, load_text, load_text_by_name};
use crate::route::Pattern;

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

fn names(people: &People) -> Vec<&str> {
    people.names().collect()
}

/// What `portcullis diff` says of two files that are read in this environment.
fn told_in(environment: &Environment, old: &str, new: &str) -> String {
    let load = |text| load_text(text, Path::new("."), "a.yaml", environment).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let by_name =
        |text| load_text_by_name(text, Path::new("."), "a.yaml", environment).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let mut rows = diff(&load(old), &load(new)).unwrap();
    rows.extend(beyond(&rows, &by_name(old), &by_name(new)).unwrap());
    // whoever reads the log of a reload has its environment
    assert!(for_requests(&load(old), &load(new)).unwrap().len() <= rows.len());
    Printed(&rows).to_string()
}

/// Whoever writes a file can choose a variable that has the old value where it is compared, and not where it is served; or
/// write that value in the place of a variable.
#[test]
fn a_value_that_comes_from_a_variable_now_or_did_before_is_told_whatever_the_variable_is_here() {
    let environment: Environment = [("ROLE", "admin"), ("NAME", "bob"), ("PORT", "9901")].into_iter().collect();
    let file = |role: &str, name: &str, admin: &str| {
        format!(
            "admin: {{ address: '127.0.0.1:{admin}' }}\nbootstrap: {{ users: [{{ name: '{name}', roles: [admin] }}] }}\n{}",
            rules(&[&format!("path: /a, allow: ['{role}'], to: a"), "path: /b, allow: [admin], to: a"])
        )
    };
    let everywhere = |change: &str| format!("/** every method\n    {change}\n");
    let (now, before) =
        ("now, which may be another where it is served", "before, which may be another where it is served");
    let plain = file("admin", "bob", "9901");
    let guest = file("${ROLE:-guest}", "bob", "9901");
    for (name, old, new, expected) in [
        ("a role", &plain, &guest, "/a every method\n    + ${ROLE:-guest}\n    - admin\n".to_owned()),
        ("a role no longer", &guest, &plain, "/a every method\n    + admin\n    - ${ROLE:-guest}\n".to_owned()),
        (
            "another default",
            &guest,
            &file("${ROLE:-boss}", "bob", "9901"),
            "/a every method\n    + ${ROLE:-boss}\n    - ${ROLE:-guest}\n".to_owned(),
        ),
        (
            "an account",
            &plain,
            &file("admin", "${NAME:-mallory}", "9901"),
            everywhere(&format!("+ bootstrap.users.name: comes from ${{NAME}} {now}")),
        ),
        (
            "an account that is not there by itself",
            &plain,
            &file("admin", "${NAME}", "9901"),
            everywhere(&format!("~ bootstrap.users.name: comes from ${{NAME}} {now}")),
        ),
        (
            "where it listens",
            &plain,
            &file("admin", "bob", "${PORT:-80}"),
            everywhere(&format!("+ admin.address: comes from ${{PORT}} {now}")),
        ),
        (
            "where it listens no longer",
            &file("admin", "bob", "${PORT}"),
            &plain,
            everywhere(&format!("+ admin.address: came from ${{PORT}} {before}")),
        ),
        ("the same", &guest, &guest.replace("path: /b, allow: [admin]", "allow: [admin], path: /b"), String::new()),
        (
            "at another route too",
            &guest,
            &guest.replace("path: /b, allow: [admin]", "path: /b, allow: ['${ROLE:-guest}']"),
            "/b every method\n    + ${ROLE:-guest}\n    - admin\n".to_owned(),
        ),
    ] {
        let told = told_in(&environment, old, new);
        assert_eq!(told, expected, "{name}");
        assert!(!told.contains("mallory"), "a default may be a secret");
    }
}

#[test]
fn variables_go_with_what_they_are_of() {
    let environment: Environment = [
        ("X", "y"),
        ("Z", "y"),
        ("API", "http://api"),
        ("T", "1s"),
        ("H", "a.example"),
        ("AUD", "orders"),
        ("WHO", "authenticated"),
        ("N", "10"),
    ]
    .into_iter()
    .collect();
    let issuer = |name: &str, audience: &str| {
        format!(
            "{{ issuer: 'https://{name}', jwks: 'https://{name}/jwks', audience: ['{audience}'], algorithms: [RS256] }}"
        )
    };
    let with_issuers = |one: &str, other: &str| {
        format!(
            "auth: {{ issuers: [{}, {}] }}\n{}",
            issuer("a", one),
            issuer("b", other),
            rules(&[]).replace("routes:\n", "routes: []\n")
        )
    };
    let long = format!("path: /y, allow: ['${{X:-{}}}'], to: a", "l".repeat(300));
    let no_names = rules(&["path: /x, allow: [y], scopes: ['${X:-a b}'], to: a", &long]);
    for (name, old, new, widens, says) in [
        (
            "a placeholder is called otherwise",
            rules(&["path: '/x/{id}', allow: ['${X}'], to: a, timeout: '${T}'"]),
            rules(&["path: '/x/{key}', allow: ['${X}'], to: a, timeout: '${T}'"]),
            false,
            "",
        ),
        (
            "a route is split",
            rules(&["path: /x/**, allow: ['${X}'], to: a"]),
            rules(&["path: /x/a/**, allow: ['${X}'], to: a", "path: /x/**, allow: ['${X}'], to: a"]),
            false,
            "",
        ),
        (
            "an upstream is called otherwise",
            rules(&["path: /x, allow: [y], to: b"]).replace("http://b", "'${API}'"),
            rules(&["path: /x, allow: [y], to: c"]).replace("http://b", "'${API}'").replace("b: {", "c: {"),
            false,
            "",
        ),
        (
            "by method",
            rules(&[
                "path: /x, methods: [GET], allow: [u, '${X}'], to: a",
                "path: /x, methods: [POST], allow: [u, y], to: a",
            ]),
            rules(&[
                "path: /x, methods: [GET], allow: [u, '${X}'], to: a",
                "path: /x, methods: [POST], allow: [u, '${X}'], to: a",
            ]),
            true,
            "/x POST\n    + ${X}",
        ),
        (
            "two that are swapped",
            rules(&[
                "path: /x, methods: [GET], allow: ['${X}'], to: a",
                "path: /x, methods: [POST], allow: ['${Z}'], to: a",
            ]),
            rules(&[
                "path: /x, methods: [GET], allow: ['${Z}'], to: a",
                "path: /x, methods: [POST], allow: ['${X}'], to: a",
            ]),
            true,
            "/x GET, HEAD\n    + ${Z}\n    - ${X}",
        ),
        (
            "who may, as a whole",
            rules(&["path: /x, allow: authenticated, to: a"]),
            rules(&["path: /x, allow: '${WHO}', to: a"]),
            true,
            "routes.allow of the route /x: comes from ${WHO} now",
        ),
        (
            "who might, as a whole",
            rules(&["path: /x, allow: '${WHO}', to: a"]),
            rules(&["path: /x, allow: authenticated, to: a"]),
            true,
            "routes.allow of the route /x: came from ${WHO} before",
        ),
        (
            "another text around it",
            format!("trusted_proxies: ['10.${{N}}.0.0/16']\n{}", rules(&["path: /x, allow: [y], to: a"])),
            format!("trusted_proxies: ['${{N}}.10.0.0/16']\n{}", rules(&["path: /x, allow: [y], to: a"])),
            true,
            "trusted_proxies: comes from ${N} now",
        ),
        ("what is no name", no_names.clone(), no_names, false, ""),
        (
            "of issuers",
            with_issuers("${AUD}", "orders"),
            with_issuers("orders", "${AUD}"),
            true,
            "auth.issuers.audience: comes from ${AUD} now",
        ),
        (
            "a route that is gone, and another takes its requests",
            rules(&["path: /x, hosts: ['${H}'], allow: [y], to: a"]),
            rules(&["path: '/{y}', hosts: [a.example], allow: [y], to: a", "path: '/y', allow: [nobody], to: a"]),
            true,
            "routes.hosts of the route /x: came from ${H} before",
        ),
    ] {
        let told = told_in(&environment, &old, &new);
        assert!(told.contains(says), "{name}: {told}");
        assert_eq!(told.is_empty(), says.is_empty(), "{name}: {told}");
        assert_eq!(told.contains("    + "), widens, "{name}: {told}");
    }
}

/// A pipeline may set the variables with which the file is served, or others.
#[test]
fn what_dotenv_says_is_told_where_the_environment_hides_it() {
    let text = "bootstrap: { users: [{ name: '${NAME}', roles: [admin] }] }\nupstreams: { a: { builtin: echo } }\n\
                routes: [{ path: /, allow: ['${ROLE}'], to: a, timeout: '${TIME}' }]\n";
    let environment: Environment = [("ROLE", "admin"), ("NAME", "bob"), ("TIME", "1s")].into_iter().collect();
    let load = |dotenv: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".env"), dotenv).unwrap();
        load_text(text, folder.path(), "a.yaml", &environment).unwrap_or_else(|e| panic!("{e}"))
    };
    let told = |key: &str, name: &str| {
        format!("{key}: `.env` says something else of ${{{name}}} now, which is hidden by the environment here")
    };
    for (name, old, new, expected) in [
        ("nothing else", "ROLE=guest\n", "#\nROLE='guest'\nROLE=canary\n", String::new()),
        ("a role", "ROLE=admin\n", "ROLE=canary\n", format!("+ {}", told("routes.allow of the route /", "ROLE"))),
        ("a role that is there now", "", "ROLE=canary\n", format!("+ {}", told("routes.allow of the route /", "ROLE"))),
        ("a role that is gone", "ROLE=canary", "", format!("+ {}", told("routes.allow of the route /", "ROLE"))),
        ("an account", "NAME=ann", "NAME=canary", format!("+ {}", told("bootstrap.users.name", "NAME"))),
        ("what gives nothing", "TIME=2s", "TIME=3s", format!("~ {}", told("routes.timeout of the route /", "TIME"))),
        ("what the file does not name", "", "OTHER=canary", String::new()),
    ] {
        let printed = Printed(&diff(&load(old), &load(new)).unwrap()).to_string();
        let changes = printed.strip_prefix("/** every method\n").unwrap_or(&printed);
        assert_eq!(changes.trim(), expected, "{name}");
        assert!(
            for_requests(&load(old), &load(new)).unwrap().is_empty(),
            "{name}: the environment is the one it is served in"
        );
    }
}

#[test]
fn another_budget_of_the_same_rate_is_told() {
    let rate = "to: a, allow: anyone, rate: { rate: 2/h, burst: 2, by: address }";
    let route = |place: &str| format!("{place}, {rate}");
    let file = |places: &[&str]| {
        let routes: Vec<String> = places.iter().map(|place| route(place)).collect();
        rules(&routes.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let one = file(&["path: /o/**"]);
    for (name, old, new, expected) in [
        ("reordered and renamed", file(&["path: '/o/{x}'", "path: /p"]), file(&["path: /p", "path: '/o/{y}'"]), ""),
        (
            "split by path",
            one.clone(),
            file(&["path: /o/**", "path: /o/in"]),
            "/o/in every method\n    ~ rate counts the requests of: /o/** -> /o/in\n",
        ),
        (
            "split by method",
            one.clone(),
            file(&["path: /o/**", "path: /o/**, methods: [POST]"]),
            "/o/** POST\n    ~ rate counts the requests of: /o/** -> /o/** for POST\n",
        ),
        (
            "joined",
            file(&["path: /o/**", "path: /o/in"]),
            one.clone(),
            "/o/in every method\n    ~ rate counts the requests of: /o/in -> /o/**\n",
        ),
        (
            "another rate",
            one.clone(),
            one.replace("2/h", "1/h"),
            "/o/** every method\n    ~ rate: { rate: 2/h, burst: 2, by: address } -> { rate: 1/h, burst: 2, by: address }\n",
        ),
        (
            "without a rate",
            rules(&["path: /o/**, to: a, allow: anyone"]),
            rules(&["path: /o/**, to: a, allow: anyone", "path: /o/in, to: a, allow: anyone"]),
            "",
        ),
    ] {
        assert_eq!(printed(&old, &new), expected, "{name}");
    }
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
        (
            "upstreams that swap their names",
            old.replace("a: {", "c: {")
                .replace("b: {", "a: {")
                .replace("c: {", "b: {")
                .replace("to: a", "to: c")
                .replace("to: b", "to: a")
                .replace("to: c", "to: b"),
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
            "path": "/in", "hosts": [], "methods": ["POST"], "gains": ["@anyone", "@authenticated", "x"], "loses": ["x"],
            "changes": ["answer: route -> endpoint register"],
        })
    );
    assert_eq!((&json[1]["methods"], &json[1]["loses"]), (&json!(["*", "!POST"]), &json!(["x"])));
    let rows = diff(&load(&with), &load(&without)).unwrap();
    assert!(rows.iter().any(|row| row.loses.names().any(|name| name == "@anyone")));
}

/// One endpoint, or a route for its path.
fn answered_by(what: &str) -> String {
    let route = "path: /other, allow: [x], to: a";
    match what {
        "" => format!("endpoints: []\n{}", rules(&[route])),
        allow if allow.starts_with("allow") => {
            format!("endpoints: []\n{}", rules(&[route, &format!("path: /e, methods: [POST], {allow}, to: a")]))
        }
        endpoint => format!("endpoints: [{{ path: /e, action: {endpoint} }}]\n{}", rules(&[route])),
    }
}

#[test]
fn an_endpoint_lets_through_whom_its_action_is_for() {
    let (anyone, principals, none) = (&["@anyone", "@authenticated", "x"][..], &["@authenticated", "x"][..], &[][..]);
    for (old, new, gains, loses) in [
        ("", "register", anyone, none),
        ("", "login", principals, none),
        ("", "oauth_token", principals, none),
        ("", "introspect", &["introspect"], none),
        ("login", "register", anyone, principals),
        ("register", "login", principals, anyone),
        ("login", "client_login", principals, principals),
        ("revoke", "introspect", &["introspect"], &["@authenticated", "introspect", "x"]),
        ("login", "allow: anyone", anyone, principals),
        ("login", "allow: [x]", &["x"], principals),
        ("introspect", "allow: authenticated", &["@authenticated", "introspect", "x"], &["introspect"]),
        ("allow: anyone", "register", anyone, anyone),
        ("allow: [x]", "change_password", principals, &["x"]),
    ] {
        let rows = diff(&load(&answered_by(old)), &load(&answered_by(new))).unwrap();
        let row = rows.iter().find(|row| row.methods.contains("POST")).unwrap();
        // the role that may introspect is a name where that begins or ends
        assert_eq!((&*row.path, &*names(&row.gains), &*names(&row.loses)), ("/e", gains, loses), "{old} -> {new}");
        assert!(rows.iter().any(Row::widens), "{old} -> {new}");
        let json = row.json();
        assert_eq!(json.get("widens"), None, "{json}");
    }
    // whom it was for, nobody has lost to anybody
    let gone = diff(&load(&answered_by("register")), &load(&answered_by(""))).unwrap();
    assert!(!gone.is_empty() && !gone.iter().any(Row::widens), "{}", Printed(&gone));
}

#[test]
fn what_an_endpoint_gives_besides_widens() {
    for (old, new, widens) in [
        ("oauth_token", "oauth_token, password_grant: true", true),
        ("login, from: members", "login", true),
        ("login", "login, from: members", false),
        ("login, reply: { a: '{access}' }", "login, reply: { a: '{access}', r: '{refresh}' }", true),
        ("login, reply: { a: '{access}' }", "login, reply: { t: '{token}' }", true),
        ("login", "login, reply: { a: '{access}' }", false),
        ("login, reply: { a: '{access}' }", "login, reply: { b: '{access}', u: '{user}' }", false),
        ("refresh", "refresh, reply: { a: '{access}' }", true),
        ("refresh, reply: { a: '{access}' }", "refresh, reply: { a: '{access}', r: '{refresh}' }", true),
        ("oauth_token", "oauth_token, reply: { a: '{access}', r: '{refresh}' }", true),
        ("oauth_token", "oauth_token, reply: { t: '{token}', r: '{refresh}' }", true),
        ("oauth_token", "oauth_token, reply: { a: '{access}' }", true),
        ("oauth_token, reply: { t: '{token}', r: '{refresh}' }", "oauth_token", true),
        ("oauth_token, reply: { a: '{access}', r: '{refresh}' }", "oauth_token", false),
        ("revoke", "revoke, ends: refresh", true),
        ("revoke, ends: refresh", "revoke", false),
        ("login", "login, incomplete: credentials", false),
        ("login", "login, fields: { username: email }", false),
        ("register", "register, status: 200", false),
    ] {
        let rows = diff(&load(&answered_by(old)), &load(&answered_by(new))).unwrap();
        let told = Printed(&rows).to_string();
        assert!(!rows.is_empty(), "{old} -> {new}");
        assert_eq!(rows.iter().any(Row::widens), widens, "{old} -> {new}\n{told}");
        assert_eq!(told.contains("\n    + "), widens, "{old} -> {new}\n{told}");
        let said = rows.iter().any(|row| row.json()["widens"].is_array());
        let gains = rows.iter().any(|row| !row.gains.is_empty());
        assert_eq!(said || gains, widens, "{old} -> {new}\n{told}");
    }
}

#[test]
fn an_endpoint_that_more_paths_lead_to_is_for_more() {
    let old = "endpoints: [{ path: /i, action: introspect }]\nupstreams: {}\nroutes: []\n";
    let rows = diff(&load(old), &load(&format!("paths: {{ empty_segments: merge }}\n{old}"))).unwrap();
    let row = rows.iter().find(|row| row.methods.contains("POST")).unwrap();
    assert_eq!((&*row.path, names(&row.gains), row.widens()), ("/i", vec!["introspect"], true));
}

/// What no rule is about, and by what somebody is believed, or becomes somebody, who was or could not before.
#[test]
fn what_holds_for_all_may_widen() {
    let rules = rules(&["path: /a, allow: [x], to: a"]);
    let issuer = "auth: { issuers: [{ issuer: 'https://i', jwks: 'https://i/k', audience: [a], user_prefix: 'i:' }] }";
    let redirects = "listeners: [{ address: '127.0.0.1:1', tls: { self_signed: [a] } }, { address: '10.0.0.1:2', redirect: https }]";
    for (old, new, widens) in [
        ("", issuer, "+ auth.issuers: [] -> [https://i]"),
        (
            "trusted_proxies: [10.0.0.0/8]",
            "trusted_proxies: [10.0.0.0/7]",
            "+ trusted_proxies: [10.0.0.0/8] -> [10.0.0.0/7]",
        ),
        ("", "tokens: { default_role: admin }", "+ tokens.default_role: user -> admin"),
        ("", "bootstrap: { users: [{ name: eve, roles: [x] }] }", "+ bootstrap.users: [] -> [eve (x)]"),
        ("", "limits: { unauthenticated: off }", "+ limits.unauthenticated: { rate: 20/s, burst: 100 } -> off"),
        (redirects, &redirects.replace(", redirect: https", ""), "+ listeners.10.0.0.1:2: redirect: https -> plain"),
        (
            "",
            "listeners: [{ address: '127.0.0.1:8443', tls: { self_signed: [localhost] } }, { address: '0.0.0.0:80' }]",
            "+ listeners: [127.0.0.1:8443] -> [0.0.0.0:80, 127.0.0.1:8443]",
        ),
        ("", "admin: { address: '0.0.0.0:9901' }", "+ admin.address: 127.0.0.1:9901 -> 0.0.0.0:9901"),
        ("", "store: sqlite:other.db", "+ store.url: sqlite:portcullis.db -> sqlite:other.db"),
        (
            "store: postgres://ann:canary@db/app",
            "store: postgres://ann:canary2@db/app",
            "+ store.url: another value (not shown)",
        ),
        ("", "auth: { jwt: { leeway: 1m } }", "+ auth.jwt.leeway: 30s -> 1m"),
    ] {
        let (old, new) = (format!("{old}\n{rules}"), format!("{new}\n{rules}"));
        let rows = diff(&load(&old), &load(&new)).unwrap();
        let (json, text) = (rows[0].json(), widens.strip_prefix("+ ").unwrap());
        assert_eq!((rows.len(), &json["path"], &json["widens"]), (1, &json!("/**"), &json!([text])), "{json}");
        assert_eq!(Printed(&rows).to_string(), format!("/** every method\n    {widens}\n"));
        assert!(!json.to_string().contains("canary"));
    }
    let narrowed = [
        ("trusted_proxies: [10.0.0.0/8]", ""),
        (issuer, ""),
        ("limits: { unauthenticated: off }", ""),
        ("bootstrap: { users: [{ name: eve, roles: [x] }] }", ""),
        ("expect: [{ request: GET /a, as: anyone, is: 401 }]", ""),
        ("", "timeouts: { idle: 1m }"),
        ("", "limits: { header_bytes: 64KiB }"),
        ("", "log: { audit: off }"),
        // nobody but who is on the machine anyhow
        ("", "listeners: [{ address: '127.0.0.1:8080' }, { address: '[::1]:8443', tls: { self_signed: [a] } }]"),
        ("", "listeners: [{ address: '127.0.0.1:8443' }]"),
        ("admin: { address: '0.0.0.0:9901' }", ""),
        ("admin: { address: '127.0.0.1:1' }", "admin: { address: '[::ffff:127.0.0.1]:2' }"),
    ];
    for (old, new) in narrowed {
        let (old, new) = (format!("{old}\n{rules}"), format!("{new}\n{rules}"));
        let rows = diff(&load(&old), &load(&new)).unwrap();
        assert!(rows.len() == 1 && !rows[0].widens(), "{}", Printed(&rows));
        assert!(rows[0].json().get("widens").is_none());
    }
}

/// The first listener with `tls` is the one that redirects lead to.
#[test]
fn where_a_redirect_leads_is_told() {
    let rules = rules(&["path: /a, allow: [x], to: a"]);
    let file = |ports: [u16; 2]| {
        let tls = ports.map(|port| format!("{{ address: '10.0.0.1:{port}', tls: {{ self_signed: [a] }} }}"));
        format!("listeners: [{{ address: '10.0.0.1:1', redirect: https }}, {}]\n{rules}", tls.join(", "))
    };
    let expected = "/** every method\n    ~ listeners.10.0.0.1:1.redirect: port 2 -> port 3\n";
    assert_eq!(printed(&file([2, 3]), &file([3, 2])), expected);
    assert_eq!(printed(&file([2, 3]), &file([2, 3])), "");
    // where nothing redirects, the order means nothing
    let plain = |ports| file(ports).replace(", redirect: https", "");
    assert_eq!(printed(&plain([2, 3]), &plain([3, 2])), "");
    let found = printed(&plain([2, 3]), &file([2, 3]));
    assert_eq!(found, "/** every method\n    ~ listeners.10.0.0.1:1: plain -> redirect: https\n");
}

#[test]
fn networks_are_compared_by_the_addresses_in_them() {
    let rules = rules(&["path: /a, allow: [x], to: a"]);
    let file = |proxies: &str| format!("trusted_proxies: [{proxies}]\n{rules}");
    for (old, new, expected) in [
        ("10.0.0.0/9, 10.128.0.0/9", "10.0.0.0/8", ""),
        ("10.0.0.0/8, 10.1.0.0/16, 10.0.0.7", "10.0.0.0/8", ""),
        ("'fd00::/9', 'fd80::/9', 10.0.0.1", "10.0.0.1, 'fd00::/8'", ""),
        ("10.0.0.0/9, 10.128.0.0/9", "10.0.0.0/7", "+ trusted_proxies: [10.0.0.0/8] -> [10.0.0.0/7]"),
        ("10.0.0.0/8", "10.128.0.0/9", "~ trusted_proxies: [10.0.0.0/8] -> [10.128.0.0/9]"),
        // side by side, and no network together
        (
            "10.64.0.0/10, 10.128.0.0/10",
            "10.0.0.0/9, 10.128.0.0/9",
            "+ trusted_proxies: [10.128.0.0/10, 10.64.0.0/10] -> [10.0.0.0/8]",
        ),
    ] {
        let expected = if expected.is_empty() { String::new() } else { format!("/** every method\n    {expected}\n") };
        assert_eq!(printed(&file(old), &file(new)), expected, "{old} -> {new}");
    }
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
        (with("timeout: 5s"), with("timeout: 10s"), "~ timeout: 5s -> 10s"),
        (old.clone(), with("timeout: 90s"), "~ timeout: 1m -> 90s"),
        (old.clone(), format!("timeouts: {{ response_header: 5s }}\n{old}"), "~ timeouts.response_header: 1m -> 5s"),
        (old.clone(), with("body_bytes: 64KiB"), "~ body_bytes: 0 -> 64KiB"),
        (
            with("rate: { rate: 10/s, burst: 5 }"),
            with("rate: { rate: 10/s, burst: 5, by: address }"),
            "~ rate: { rate: 10/s, burst: 5, by: principal } -> { rate: 10/s, burst: 5, by: address }",
        ),
        (
            old.clone(),
            old.replace("servers: [http://b]", "servers: [http://b], balance: round_robin"),
            "~ upstreams.b.balance: least_requests -> round_robin",
        ),
        (
            old.clone(),
            old.replace("servers: [http://b]", "servers: [http://b], health: { interval: 10s }"),
            "~ upstreams.b.health: none -> { path: /health, interval: 10s, timeout: 1s, unhealthy_after: 3, healthy_after: 2 }",
        ),
        (cors("'https://a', 'https://b'"), cors("'https://b', 'https://a'"), ""),
        (cors("'https://a'"), cors("'https://a'").replace("X-A, X-B", "X-B, X-A"), ""),
        (
            cors("'https://a', 'https://b'"),
            cors("'https://c', 'https://a'"),
            "+ cors.origins: [https://a, https://b] -> [https://a, https://c]",
        ),
        (old.clone(), cors("'*'"), "+ cors.origins: none -> ['*']\n    + cors.headers: [] -> [x-a, x-b]"),
        (with("end_streams_on: []"), old.clone(), "~ end_streams_on: [] -> [revocation]"),
        (
            with("response_headers: { set: { Cache-Control: no-store }, remove: [Server] }"),
            with("response_headers: { set: { Cache-Control: public } }"),
            "~ response_headers.set.cache-control: no-store -> public\n    + response_headers.remove: [server] -> []",
        ),
        // a field that is not written anew any more passes as the other end says it
        (
            with("request_headers: { set: { X-Role: viewer } }"),
            old.clone(),
            "+ request_headers.set.x-role: viewer -> none (the caller's own passes now)",
        ),
        (
            with("request_headers: { set: { X-Role: viewer }, remove: [Cookie] }"),
            with("request_headers: { remove: [Cookie] }"),
            "+ request_headers.set.x-role: viewer -> none (the caller's own passes now)",
        ),
        (
            with("request_headers: { set: { X-Role: viewer } }"),
            with("request_headers: { remove: [X-Role] }"),
            "~ request_headers.remove: [] -> [x-role]\n    ~ request_headers.set.x-role: viewer -> none",
        ),
        (
            with("request_headers: { remove: [X-Internal, Cookie] }"),
            with("request_headers: { remove: [Cookie] }"),
            "+ request_headers.remove: [cookie, x-internal] -> [cookie]",
        ),
        (
            with("request_headers: { remove: [X-Internal, Cookie] }"),
            with("request_headers: { remove: [Cookie, X-More], set: { X-Internal: no } }"),
            "~ request_headers.set.x-internal: none -> no\n    ~ request_headers.remove: [cookie, x-internal] -> [cookie, x-more]",
        ),
        (
            old.clone(),
            old.replace("to: b", "to: a"),
            "~ to: b -> a\n    ~ builtin: none -> echo\n    ~ servers: [http://b] -> none",
        ),
        (old.clone(), old.replace("to: b", "to: c").replace("b: {", "c: {"), ""),
    ] {
        let expected = if expected.is_empty() { String::new() } else { format!("/a every method\n    {expected}\n") };
        assert_eq!(printed(&old, &new), expected, "{new}");
    }
    for (section, expected) in [
        ("identity_headers: { user: X-User }", "+ identity_headers.user: x-auth-user -> x-user"),
        ("trusted_proxies: [10.0.0.0/8, 127.0.0.1]", "+ trusted_proxies: [] -> [10.0.0.0/8, 127.0.0.1/32]"),
        ("auth: { realm: b }", "~ auth.realm: api -> b"),
        (
            "auth: { jwt: { roles: a.b, leeway: 1m } }",
            "+ auth.jwt.leeway: 30s -> 1m\n    + auth.jwt.roles: store -> a.b",
        ),
        ("errors: { messages: { no_route: gone } }", "~ errors.messages.no_route: none -> gone"),
        ("timeouts: { connect: 3s }", "~ timeouts.connect: 2s -> 3s"),
    ] {
        let found = printed(&old, &format!("{section}\n{old}"));
        assert_eq!(found, format!("/** every method\n    {expected}\n"));
    }
}

/// What an upstream says of CORS reaches pages where nothing of the route replaces or removes it.
#[test]
fn what_keeps_an_upstreams_cors_from_pages_widens_where_it_goes() {
    let with = |more: &str| rules(&[&format!("path: /a, allow: [x], to: b{more}")]);
    let none = with("");
    let cors = with(", cors: { origins: ['https://a'], credentials: true }");
    let any = with(", cors: { origins: ['*'] }");
    let origin = with(", response_headers: { set: { Access-Control-Allow-Origin: 'https://a' } }");
    let methods = with(", response_headers: { set: { Access-Control-Allow-Methods: PUT } }");
    let removed = with(", response_headers: { remove: [Access-Control-Allow-Origin] }");
    let both = with(
        ", cors: { origins: ['https://a'], credentials: true }, response_headers: { set: { Access-Control-Allow-Origin: 'https://a' } }",
    );
    for (name, old, new, expected) in [
        (
            "cors is gone",
            &cors,
            &none,
            "+ cors.origins: [https://a] -> none (what the upstream says of CORS passes now)|~ cors.credentials: true -> false",
        ),
        (
            "cors of any origin is gone",
            &any,
            &none,
            "+ cors.origins: ['*'] -> none (what the upstream says of CORS passes now)",
        ),
        (
            "cors is gone and the field is removed",
            &cors,
            &removed,
            "~ response_headers.remove: [] -> [access-control-allow-origin]|~ cors.origins: [https://a] -> none|~ cors.credentials: true -> false",
        ),
        (
            "the field is not removed any more",
            &removed,
            &none,
            "+ response_headers.remove: [access-control-allow-origin] -> []",
        ),
        (
            "the field is not removed, but replaced",
            &removed,
            &cors,
            "~ response_headers.remove: [access-control-allow-origin] -> []|+ cors.origins: none -> [https://a]|+ cors.credentials: false -> true",
        ),
        (
            "a field is not written any more",
            &origin,
            &none,
            "+ response_headers.set.access-control-allow-origin: https://a -> none (the upstream's own passes now)",
        ),
        (
            "another field is not written any more",
            &methods,
            &none,
            "+ response_headers.set.access-control-allow-methods: PUT -> none (the upstream's own passes now)",
        ),
        (
            "another field is not written any more, nor does an origin pass",
            &methods,
            &removed,
            "~ response_headers.remove: [] -> [access-control-allow-origin]|~ response_headers.set.access-control-allow-methods: PUT -> none",
        ),
        (
            "a field is not written any more that cors writes",
            &both,
            &cors,
            "~ response_headers.set.access-control-allow-origin: https://a -> none",
        ),
    ] {
        let rows = diff(&load(old), &load(new)).unwrap();
        let lines = expected.replace('|', "\n    ");
        assert_eq!(Printed(&rows).to_string(), format!("/a every method\n    {lines}\n"), "{name}");
        assert_eq!(rows.iter().any(Row::widens), expected.contains('+'), "{name}");
    }
}

/// A browser asks for one method and may send all that the answer names.
#[test]
fn what_a_preflight_allows_is_told_where_routes_are_split_by_methods() {
    let cors = "cors: { origins: ['https://a'] }";
    let split = |lists: &[&str]| {
        let routes: Vec<String> =
            lists.iter().map(|list| format!("path: /a, methods: [{list}], allow: [x], to: b, {cors}")).collect();
        rules(&routes.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let key = "cors: methods that a preflight allows:";
    for (name, old, new, expected) in [
        ("reordered", &["PUT, DELETE"][..], &["DELETE, PUT"][..], String::new()),
        (
            "split",
            &["PUT, DELETE"],
            &["PUT", "DELETE"],
            format!("/a DELETE, PUT\n    ~ {key} [DELETE, PUT] -> the one asked for\n"),
        ),
        (
            "joined",
            &["PUT", "DELETE"],
            &["PUT, DELETE"],
            format!("/a DELETE, PUT\n    + {key} the one asked for -> [DELETE, PUT]\n"),
        ),
        (
            "joined, of methods for which no preflight is needed",
            &["GET", "POST"],
            &["GET, POST"],
            format!(
                "/a GET, HEAD\n    ~ {key} [GET, HEAD] -> [GET, HEAD, POST]\n/a POST\n    ~ {key} the one asked for -> [GET, HEAD, POST]\n"
            ),
        ),
        (
            "a method more",
            &["PUT"],
            &["PUT, DELETE"],
            format!("/a DELETE\n    + x\n/a PUT\n    + {key} the one asked for -> [DELETE, PUT]\n"),
        ),
    ] {
        assert_eq!(printed(&split(old), &split(new)), expected, "{name}");
    }
    // where a route has no cors at all, there is no preflight to tell of
    let bare = |text: String| text.replace(&format!(", {cors}"), "");
    assert_eq!(printed(&bare(split(&["PUT, DELETE"])), &bare(split(&["PUT", "DELETE"]))), "");
    let found = printed(&bare(split(&["PUT"])), &split(&["PUT"]));
    assert_eq!(found, "/a PUT\n    + cors.origins: none -> [https://a]\n");
}

#[test]
fn another_key_of_the_same_name_is_told_and_not_shown() {
    let file = |secret: &str| {
        let key = format!("{{ id: k, algorithm: HS256, secret: {secret}-canary-canary-canary-canary }}");
        format!("auth: {{ jwt: {{ keys: [{key}] }} }}\n{}", rules(&["path: /a, allow: [x], to: b"]))
    };
    assert_eq!(printed(&file("a"), &file("a")), "");
    assert_eq!(printed(&file("a"), &file("b")), "/** every method\n    + auth.jwt.keys: another value (not shown)\n");
}

/// How many steps a comparison takes, and how many rows it has.
fn work(old: &str, new: &str) -> (u64, usize) {
    let effort = Effort::within(Bounds::COMMAND);
    let rows = by_rule(&load(old), &load(new), &effort).unwrap();
    (Bounds::COMMAND.steps - effort.steps.get(), rows.len())
}

#[test]
fn work_grows_with_the_rules_that_change_and_those_that_cross_them() {
    let file = |prefix: &str, routes: usize, role: &str| {
        let mut text = "upstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
        for n in 0..routes {
            let path = [
                format!("/{prefix}{}/r{n}", n % 50),
                format!("/{prefix}{}/r{n}/{{id}}", n % 50),
                format!("/{prefix}{}/{{kind}}/r{n}/**", n % 50),
                format!("/{prefix}{}/r{n}/**", n % 50),
            ];
            let more = ["methods: [GET, POST], ", "hosts: [h], ", ""][n % 3];
            let who = if n == 7 { role } else { "x" };
            writeln!(text, "  - {{ path: '{}', {more}allow: [{who}], to: a }}", path[n % 4]).unwrap();
        }
        text
    };
    let old = file("s", 1000, "x");
    let (nothing, rows) = work(&old, &old);
    assert!(nothing < 200_000 && rows == 0, "{nothing} steps, {rows} rows");
    let (one, rows) = work(&old, &file("s", 1000, "y"));
    assert!(one < nothing + 2_000 && rows == 1, "{one} steps, {rows} rows; {nothing} without");
    let (all, rows) = work(&old, &file("t", 1000, "x"));
    assert!(all < 2_000_000 && rows > 2_000, "{all} steps, {rows} rows");
    let (half, _) = work(&file("s", 500, "x"), &file("t", 500, "x"));
    assert!(all < half * 4, "{all} steps for 1,000 routes, {half} for 500");
}

#[test]
fn where_rules_cross_the_work_grows_with_the_pairs() {
    let file = |each: usize, path: fn(usize) -> String, role: &str| {
        let routes: Vec<String> =
            (0..each).map(|n| format!("path: '{}', allow: [{role}{n}], to: a", path(n))).collect();
        format!("endpoints: []\n{}", rules(&routes.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let of = |each| work(&file(each, |n| format!("/l{n}/{{x}}"), "r"), &file(each, |n| format!("/{{x}}/m{n}"), "s"));
    let ((half, _), (all, rows)) = (of(20), of(40));
    // each pattern and each pair has one region, and what differs there is one row
    assert_eq!(rows, 40 * 40 + 2 * 40);
    assert!(all < half * 4, "{all} steps for 40 of each kind, {half} for 20");
}

#[test]
fn a_comparison_that_takes_too_much_is_given_up() {
    let (old, new) = (load(&crossing(30, 0, "x")), load(&crossing(30, 29, "y")));
    let effort = Effort::within(Bounds::COMMAND);
    let rows = by_rule(&old, &new, &effort).unwrap();
    let taken =
        Bounds { steps: Bounds::COMMAND.steps - effort.steps.get(), bytes: Bounds::COMMAND.bytes - effort.bytes.get() };
    let within = |bounds| by_rule(&old, &new, &Effort::within(bounds));
    assert_eq!(within(taken), Ok(rows));
    assert_eq!(within(Bounds { steps: taken.steps - 1, ..taken }), Err(TooMuch::Work));
    assert_eq!(within(Bounds { bytes: taken.bytes - 1, ..taken }), Err(TooMuch::Memory));
}

#[test]
fn roles_that_gain_are_counted_for_each_rule() {
    let file = |allow: &dyn Fn(usize) -> String| {
        let routes: Vec<String> =
            (0..60).map(|n| format!("path: /r{n}, allow: {}, timeout: {}s, to: a", allow(n), n + 1)).collect();
        load(&rules(&routes.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let own = |n: usize| format!("[{}]", (0..100).map(|role| format!("r{n}x{role}")).collect::<Vec<_>>().join(", "));
    let (old, new) = (file(&own), file(&|_| "authenticated".to_owned()));
    let within = |bytes| by_rule(&old, &new, &Effort::within(Bounds { bytes, ..Bounds::RELOAD }));
    let rows = within(16 << 20).unwrap();
    assert!(rows.len() == 60 && rows.iter().all(|row| row.gains.len() == 59 * 100 + 1 && row.loses.is_empty()));
    // all the names of each row
    assert_eq!(within(1 << 20), Err(TooMuch::Memory));
    // for people, as many as are read
    assert!(rows[0].effect()[0].ends_with(", and 5801 more"), "{:?}", rows[0].effect());
}

/// Routes of so many segments, each of which names another one of them: more kinds of paths than there are seconds in a
/// thousand years.
fn crossing(routes: usize, changed: usize, role: &str) -> String {
    let mut text = "endpoints: []\nupstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
    for own in 0..routes {
        let segments = (0..routes).map(|n| if n == own { format!("/l{n}") } else { format!("/{{s{n}}}") });
        let (path, role) = (segments.collect::<String>(), if own == changed { role } else { "x" });
        writeln!(text, "  - {{ path: '{path}', allow: [{role}], to: a }}").unwrap();
    }
    text
}

#[test]
fn many_patterns_that_cross_each_other_are_compared_exactly() {
    const ROUTES: usize = 40;
    let old = crossing(ROUTES, 0, "x");
    let pattern = |literals: &[usize]| {
        (0..ROUTES)
            .map(|n| if literals.contains(&n) { format!("/=l{n}") } else { "/{}".to_owned() })
            .collect::<String>()
    };
    let shape = |text: &String| Pattern::parse(text).unwrap().shape();
    // a literal further to the left wins
    let rows = diff(&load(&old), &load(&crossing(ROUTES, 3, "y"))).unwrap();
    let [row] = rows.as_slice() else { panic!("{}", Printed(&rows)) };
    assert_eq!((shape(&row.path), names(&row.gains), names(&row.loses)), (pattern(&[3]), vec!["y"], vec!["x"]));
    let mut except: Vec<String> = row.except.iter().map(shape).collect();
    except.sort();
    let mut expected = vec![pattern(&[0, 3]), pattern(&[1, 3]), pattern(&[2, 3])];
    expected.sort();
    assert_eq!(except, expected);
    // and where each path is read otherwise as well
    let policy = format!("paths: {{ semicolon: keep, encoded_slash: keep, empty_segments: merge }}\n{old}");
    let rows = diff(&load(&old), &load(&policy)).unwrap();
    assert_eq!(rows.len(), 7 * ROUTES, "each kind of mark, for each route");
    assert!(rows.iter().all(|row| names(&row.gains) == ["x"] && row.loses.is_empty() && row.except.is_empty()));
    let swapped = diff(&load(&policy), &load(&old)).unwrap();
    assert!(swapped.len() == 7 * ROUTES && !swapped.iter().any(Row::widens));
}
