//! What a person sees of a mistake, and what a file means that has none.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;
use crate::endpoint::Action;
use crate::forward::{Balance, Protocol, UpstreamKind};
use crate::listen::Mode;
use crate::principal::{Role, Scheme, SchemeSet};
use crate::rejection::texts::Message;
use crate::route::{Allow, RateBy};
use crate::secret::Secret;

/// A file that has nothing but what it must have.
pub(super) const LEAST: &str =
    "upstreams: { demo: { builtin: echo } }\nroutes:\n  - { path: /, allow: anyone, to: demo }\n";

fn environment() -> Environment {
    [("NAME", "value"), ("EMPTY", ""), ("CANARY", "canary"), ("PORT", "9001")].into_iter().collect()
}

fn load(text: &str) -> Result<Snapshot, Problems> {
    let directory = tempfile::tempdir().unwrap();
    load_text(text, directory.path(), "gateway.yaml", &environment())
}

fn problems(text: &str) -> String {
    load(text).map_or_else(|problems| problems.to_string(), |_| String::new())
}

/// `LEAST` with more before it.
fn problems_of(section: &str) -> String {
    problems(&format!("{section}\n{LEAST}"))
}

/// Fails with all that was wrong with a table.
fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn with(section: &str) -> Snapshot {
    load(&format!("{section}\n{LEAST}")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn with_route(more: &str) -> Result<Snapshot, Problems> {
    load(&format!(
        "upstreams: {{ demo: {{ builtin: echo }} }}\nroutes:\n  - path: /orders/{{id}}\n    to: demo\n{more}"
    ))
}

#[test]
fn a_problem_is_shown_with_its_place_its_line_and_what_was_meant() {
    let text = "upstreams:\n  orders: { builtin: echo }\nroutes:\n  - path: /a\n    allow: anyone\n    to: ordesr\n";
    assert_eq!(
        problems(text),
        "gateway.yaml:6:9: unknown upstream `ordesr`\n        to: ordesr\n            ^ did you mean `orders`?\n"
    );
}

#[test]
fn all_problems_of_a_file_are_reported_in_one_run_in_its_order() {
    let text = "limits: { header_byte: 1KiB }\nlog: { level: verbose }\nupstreams:\n  a: { servers: [ftp://x] }\n\
                routes:\n  - { path: b, allow: anyone, to: a }\n  - { path: /c, to: d }\nx: 1\n";
    let printed = problems(text);
    let places: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("gateway.yaml:")).collect();
    let places: Vec<&str> = places.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["1:11", "2:15", "4:18", "6:13", "7:5", "8:1"], "{printed}");
}

#[test]
fn a_route_that_is_wrong_does_not_hide_what_is_wrong_with_others() {
    let text = "upstreams:\n  orders: { servers: ['http://127.0.0.1:9'] }\nroutes:\n  - path: /a\n    alow: anyone\n    \
                to: orders\n  - path: /b\n    allow: anyone\n    to: ordesr\n  \
                - { path: /c/../d, allow: anyone, to: orders }\n  - { path: /d, to: orders }\n  \
                - { path: /e, allow: anyone, to: orders }\n  - { path: /e, allow: anyone, to: orders }\n\
                timeouts: { idle: 30 }\n${UNSET_NAME}: x\n";
    let printed = problems(text);
    for place in
        ["4:5: `allow`", "5:5: unknown key", "9:9: unknown", "10:13: ", "11:5: ", "13:13: ", "14:19: ", "15:1: "]
    {
        assert!(printed.contains(&format!("gateway.yaml:{place}")), "{place}\n{printed}");
    }
}

#[test]
fn every_section_knows_its_keys() {
    let mut wrong = Vec::new();
    for (section, place, message) in [
        ("listener: []", "1:1", "unknown key `listener` in the file"),
        ("listeners:\n  - { adress: 127.0.0.1:1 }", "2:7", "unknown key `adress` in a listener"),
        (
            "listeners:\n  - { address: 127.0.0.1:1, tls: { self_singed: [a] } }",
            "2:36",
            "unknown key `self_singed` in `tls`",
        ),
        ("admin: { addr: 127.0.0.1:1 }", "1:10", "unknown key `addr` in `admin`"),
        ("auth: { relm: a }", "1:9", "unknown key `relm` in `auth`"),
        ("auth: { cache: { tll: 1s } }", "1:18", "unknown key `tll` in `cache`"),
        ("auth: { issuers: [{ isuer: a, jwks: https://a/k }] }", "1:21", "unknown key `isuer` in an issuer"),
        ("auth: { jwt: { isuer: a } }", "1:16", "unknown key `isuer` in `jwt`"),
        ("auth: { jwt: { keys: [{ id: a, algoritm: HS256, secret: b }] } }", "1:32", "unknown key `algoritm` in a key"),
        ("auth: { jwt: { type: { claims: a } } }", "1:24", "unknown key `claims` in `type`"),
        ("tokens: { acess_ttl: 1m }", "1:11", "unknown key `acess_ttl` in `tokens`"),
        ("passwords: { min: 8 }", "1:14", "unknown key `min` in `passwords`"),
        ("identity_headers: { usr: X-A }", "1:21", "unknown key `usr` in `identity_headers`"),
        ("errors: { membre: a }", "1:11", "unknown key `membre` in `errors`"),
        ("errors: { messages: { no_rout: a } }", "1:23", "unknown error code `no_rout`"),
        ("paths: { semi_colon: keep }", "1:10", "unknown key `semi_colon` in `paths`"),
        ("limits: { headrs: 1 }", "1:11", "unknown key `headrs` in `limits`"),
        ("limits: { token_endpoints: { per_acount: off } }", "1:30", "unknown key `per_acount` in `token_endpoints`"),
        ("limits: { unauthenticated: { rat: 1/s } }", "1:30", "unknown key `rat` in `unauthenticated`"),
        ("timeouts: { ilde: 1s }", "1:13", "unknown key `ilde` in `timeouts`"),
        ("endpoints: [{ pth: /a, action: jwks }]", "1:15", "unknown key `pth` in an endpoint"),
        ("log: { acces: off }", "1:8", "unknown key `acces` in `log`"),
        ("bootstrap: { usres: [] }", "1:14", "unknown key `usres` in `bootstrap`"),
        ("bootstrap: { users: [{ name: a, role: b }] }", "1:33", "unknown key `role` in a user"),
        ("bootstrap: { clients: [{ id: a, scope: b }] }", "1:33", "unknown key `scope` in a client"),
    ] {
        let printed = problems_of(section);
        if !printed.contains(&format!("gateway.yaml:{place}: {message}\n")) {
            wrong.push(format!("{section}\nexpected {place}: {message}\n{printed}"));
        }
        assert!(printed.contains("^ did you mean `") || printed.contains("^ expected `"), "{printed}");
    }
    none_wrong(&wrong);
    for (key, section) in [("builtn: echo", "an upstream"), ("servers: [http://a], helth: {}", "an upstream")] {
        let printed = problems(&format!("upstreams: {{ a: {{ {key} }} }}\nroutes: []"));
        assert!(printed.contains(&format!("in {section}\n")), "{printed}");
    }
    let printed = with_route("    allow: anyone\n    method: [GET]\n").unwrap_err().to_string();
    assert!(printed.starts_with("gateway.yaml:6:5: unknown key `method` in a route\n"), "{printed}");
    assert!(printed.contains("did you mean `methods`?"), "{printed}");
}

#[test]
fn what_is_not_built_yet_is_known_and_refused() {
    for (section, message) in [
        ("listeners: [{ address: 127.0.0.1:1, proxy_protocol: true }]", "`proxy_protocol` is not available yet"),
        ("listeners: [{ address: 127.0.0.1:1, tls: { acme: {} } }]", "`acme` is not available yet"),
        (
            "listeners: [{ address: 127.0.0.1:1, tls: { self_signed: [a], client_ca: a } }]",
            "`client_ca` is not available yet",
        ),
        ("identity_headers: { assertion: X-A }", "`assertion` is not available yet"),
    ] {
        let printed = problems_of(section);
        assert!(printed.contains(message), "{section}\n{printed}");
        assert!(!printed.contains("canary"), "{printed}");
    }
    let printed = problems("upstreams: { a: { servers: [http://a], balance: { hash: address } } }\nroutes: []");
    assert!(printed.contains("`balance: hash` is not available yet"), "{printed}");
}

#[test]
fn where_limits_are_shared_is_told_what_was_expected() {
    for (section, message) in [
        ("limits: { shared: redis }", "1:19: expected `redis://HOST`"),
        ("limits: { shared: 7 }", "1:19: expected text, found"),
        ("limits: { shared: [redis://a] }", "1:19: expected text or `{ file: path }`"),
        ("limits: { shared: { file: nowhere } }", "1:27: this file cannot be read"),
        ("limits: { shared: { tls: {} } }", "1:19: `url` is missing"),
        ("limits: { shared: { url: redis://a, tls: {} } }", "1:42: `tls` is for `rediss://`"),
        ("limits: { shared: redis://a/#insecure }", "1:19: this URL has a `?` or `#`"),
    ] {
        let printed = problems_of(section);
        assert!(printed.contains(&format!("gateway.yaml:{message}")), "{section}\n{printed}");
    }
}

#[test]
fn an_issuer_that_cannot_be_one_is_told_what_was_expected() {
    let mut wrong = Vec::new();
    for (section, message) in [
        ("auth: { issuers: [{ jwks: https://a/k }] }", "1:19: `issuer` is missing"),
        ("auth: { issuers: [{ issuer: a }] }", "1:19: `jwks` is missing"),
        (
            "auth: { issuers: [{ issuer: a, jwks: http://a/k }] }",
            "1:38: keys are fetched over `https://`; `http://` is for this machine only",
        ),
        ("auth: { issuers: [{ issuer: a, jwks: keys.json }] }", "1:38: this file cannot be read: "),
        (
            "auth: { issuers: [{ issuer: a, jwks: https://a/k, algorithms: [RS256, HS256] }] }",
            "1:71: what an issuer publishes verifies and is no secret",
        ),
        ("auth: { issuers: [{ issuer: a, jwks: https://a/k, algorithms: [none] }] }", "1:64: unknown word `none`"),
        ("auth: { issuers: [{ issuer: a, jwks: https://a/k, algorithms: [] }] }", "1:63: this list is empty"),
        (
            "auth: { issuers: [{ issuer: portcullis, jwks: https://a/k }] }",
            "1:29: this is what our own tokens name as their issuer",
        ),
        (
            "auth: { issuers: [{ issuer: a, jwks: https://a/k }, { issuer: a, jwks: https://b/k }] }",
            "1:63: this issuer is given above already",
        ),
        (
            "auth: { issuers: [{ issuer: a, jwks: http://127.0.0.1/k, tls: { ca: a.pem } }] }",
            "1:63: `tls` is for `https://`",
        ),
        (
            "auth: { issuers: [{ issuer: a, jwks: https://a/k, user_prefix: \"a\\n\" }] }",
            "1:64: a prefix has no control characters",
        ),
    ] {
        let printed = problems_of(section);
        if !printed.contains(&format!("gateway.yaml:{message}")) {
            wrong.push(format!("{section}\nexpected {message}\n{printed}"));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn a_value_of_the_wrong_kind_says_what_was_expected() {
    let mut wrong = Vec::new();
    for (section, message) in [
        ("auth: []", "1:7: expected a mapping, found a list"),
        ("auth:", "1:5: expected a mapping, found nothing"),
        ("auth: { realm: 5 }", "1:16: expected text; 5 is a number: put it in quotes"),
        ("auth: { realm: true }", "1:16: expected text; true is a boolean: put it in quotes"),
        ("auth: { realm: ~ }", "1:16: expected text, found nothing"),
        ("auth: { realm: [a] }", "1:16: expected text, found a list"),
        ("auth: { realm: '' }", "1:16: this text is empty"),
        ("auth: { realm: \"a\\nb\" }", "1:16: a realm has visible ASCII characters and spaces only"),
        ("auth: { schemes: basic }", "1:18: expected a list, found text"),
        ("auth: { schemes: [] }", "1:18: this list is empty; it needs at least one item"),
        ("auth: { schemes: [digest] }", "1:19: unknown word `digest`"),
        ("auth: { jwt: { require_exp: 'true' } }", "1:29: expected `true` or `false`, found text"),
        ("auth: { jwt: { subject: a..b } }", "1:25: `a..b` is not a claim path"),
        (
            "auth: { jwt: { type: { claim: type, access: a, refresh: a } } }",
            "1:22: `access` and `refresh` are the same",
        ),
        ("auth: { jwt: { keys: [{ id: a, algorithm: none, secret: b }] } }", "1:43: unknown word `none`"),
        ("auth: { jwt: { keys: [{ id: a, algorithm: HS256 }] } }", "1:23: a key has one of"),
        ("auth: { jwt: { keys: [{ id: a, algorithm: HS256, secret: '' }] } }", "1:58: this secret is empty"),
        ("timeouts: { idle: 30 }", "1:19: `30` is not a duration such as `250ms`, `30s`"),
        ("timeouts: { idle: 0s }", "1:19: `0s` is nothing; it must be above zero"),
        ("timeouts: { idle: 9999d }", "1:19: `9999d` is too much; at most `3650d`"),
        ("limits: { header_bytes: 64KB }", "1:25: `64KB` is not a size in bytes"),
        ("limits: { header_bytes: 1 }", "1:25: expected a size from 4096 to 1048576 bytes"),
        ("limits: { headers: 0 }", "1:20: `0` is not a whole number from 1 to 1000"),
        ("limits: { headers: -1 }", "1:20: `-1` is not a whole number from 1 to 1000"),
        ("limits: { headers: 1e2 }", "1:20: `1e2` is not a whole number"),
        ("limits: { unauthenticated: 20/s }", "1:28: expected a mapping, found text"),
        ("limits: { unauthenticated: { rate: 20 } }", "1:36: `20` is not a rate"),
        ("limits: { unauthenticated: { rate: 0/s } }", "1:36: `0/s` is nothing"),
        ("limits: { unauthenticated: { burst: 0 } }", "1:37: `0` is not a whole number"),
        ("workers: many", "1:10: `many` is not a whole number from 1 to 1024"),
        ("workers: 0", "1:10: `0` is not"),
        ("trusted_proxies: [10.0.0.1/8]", "1:19: this network has bits set behind its prefix"),
        ("trusted_proxies: [localhost]", "1:19: `localhost` is not an address or a network"),
        ("listeners: []", "1:12: this list is empty"),
        ("listeners: [{ address: localhost }]", "1:24: `localhost` is not an address with its port"),
        ("listeners: [{ tls: { self_signed: [a] } }]", "1:13: `address` is missing"),
        ("listeners: [{ address: 127.0.0.1:1, redirect: http }]", "1:47: unknown word `http`"),
        ("listeners: [{ address: 127.0.0.1:1, redirect: https }]", "1:47: there is no listener with `tls`"),
        ("listeners: [{ address: 127.0.0.1:1, tls: {} }]", "1:42: expected `certificates` or `self_signed`"),
        ("listeners: [{ address: 127.0.0.1:1 }, { address: 127.0.0.1:1 }]", "1:50: another listener has this address"),
        ("admin: { address: 0.0.0.0:8443 }", "1:19: the address of `admin` and of a listener are the same"),
        ("listeners: [{ address: 0.0.0.0:9901 }]", "1:24: the address of `admin` and of a listener are the same"),
        ("store: portcullis.db", "1:8: expected `sqlite:` with the path of a file"),
        ("store: 'sqlite::memory:'", "1:8: expected `sqlite:` with the path of a file"),
        ("store: mysql://root:canary@db", "1:8: this URL names no database"),
        ("store: postgres://root:canary@db:x/y", "1:8: not a URL such as"),
        ("store: { users: { table: a } }", "1:8: `url` is missing"),
        ("store: { url: sqlite:a, users: { table: a } }", "1:32: `id` is missing"),
        (
            "store: { url: sqlite:a, users: { table: a, id: a, name: a, password: a;b } }",
            "1:70: `a;b` is not the name of a column",
        ),
        (
            "store: { url: sqlite:a, users: { table: 'a\"b', id: a, name: a, password: a } }",
            "1:41: `a\"b` is not the name of a table",
        ),
        ("store: { url: sqlite:a, tokens: { table: a, token: a, user: a } }", "1:33: `tokens` needs `users`"),
        ("tokens: { access_ttl: 500ms }", "1:23: a token's lifetime is in whole seconds"),
        ("tokens: { claims: { exp: 1 } }", "1:21: the claim `exp` is set by the gateway"),
        ("tokens: { claims: { nbf: 1 } }", "1:21: the claim `nbf` is set by the gateway"),
        ("tokens: { claims: { sub_type: user } }", "1:21: the claim `sub_type` is set by the gateway"),
        ("tokens: { claims: { a: '{acess}' } }", "1:21: "),
        ("tokens: { claims: { a: '{access}' } }", "1:21: "),
        ("passwords: { min_bytes: 9, max_bytes: 8 }", "1:12: `min_bytes` is above `max_bytes`"),
        ("identity_headers: { user: X_User }", "1:27: the name of a header has letters, digits and `-` only"),
        ("identity_headers: { user: Host }", "1:27: `host` cannot be an identity header"),
        ("identity_headers: { user: X-Auth-Roles }", "1:19: two identity headers have the same name"),
        ("errors: { member: error }", "1:19: `error` is another member of every error"),
        ("endpoints: [{ path: a, action: jwks }]", "1:21: `a` is not the path of an endpoint"),
        ("endpoints: [{ path: /a/../b, action: jwks }]", "1:21: `/a/../b` is not the path of an endpoint"),
        ("endpoints: [{ path: /a//, action: jwks }]", "1:21: `/a//` is not the path of an endpoint"),
        ("endpoints: [{ path: /, action: jwks }]", "1:21: `/` is not the path of an endpoint"),
        ("endpoints: [{ path: /a, action: log_in }]", "1:33: unknown word `log_in`"),
        (
            "endpoints: [{ path: /a, action: jwks }, { path: /a, action: login }]",
            "1:49: another endpoint has this path",
        ),
        ("endpoints: [{ path: /a, action: login, fields: { usrname: a } }]", "1:50: unknown request member `usrname`"),
        ("endpoints: [{ path: /a, action: login, reply: { a: '{acess}' } }]", "1:49: unknown placeholder `{acess}`"),
        ("endpoints: [{ path: /a, action: login, password_grant: true }]", "1:56: `password_grant` belongs to"),
        ("endpoints: [{ path: /a, action: login, status: 302 }]", "1:48: `302` is not a whole number from 200 to 299"),
        ("endpoints: [{ path: /a, action: jwks, reply: {} }]", "1:46: the reply of this action is fixed"),
        ("bootstrap: { users: [{ name: 'a:b' }] }", "1:30: the name of a user or a client has no colon"),
        ("bootstrap: { users: [{ name: a }, { name: a }] }", "1:43: a user of this name is given above already"),
        ("bootstrap: { clients: [{ id: a, scopes: ['a b'] }] }", "1:42: a scope has visible ASCII"),
    ] {
        let printed = problems_of(section);
        if !printed.starts_with(&format!("gateway.yaml:{message}")) {
            wrong.push(format!("{section}\nexpected {message}\n{printed}"));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn a_route_says_plainly_whom_it_lets_through() {
    let mut wrong = Vec::new();
    for (route, message) in [
        ("", "3:5: `allow` is missing"),
        ("    allow: []\n", "this list is empty"),
        ("    allow:\n", "5:10: expected `anyone`, `authenticated` or a list of roles"),
        ("    allow: admin\n", "5:12: expected `anyone`, `authenticated` or a list of roles"),
        ("    allow: [anyone]\n", "5:13: `anyone` is not a role; write `allow: anyone`"),
        ("    allow: [1]\n", "5:13: expected text; 1 is a number"),
        ("    allow: anyone\n    scopes: [a]\n", "6:13: `scopes` with `allow: anyone`"),
        ("    allow: anyone\n    schemes: [cookie]\n", "6:15: unknown word `cookie`"),
        ("    allow: anyone\n    methods: [get]\n", "6:15: methods are written in upper case"),
        ("    allow: anyone\n    methods: [G T]\n", "6:15: `G T` is not a method"),
        ("    allow: anyone\n    methods: [GET, GET]\n", "6:20: this stands in the list already"),
        ("    allow: anyone\n    hosts: [a, A.]\n", "6:16: this stands in the list already"),
        ("    allow: anyone\n    hosts: [a:80]\n", "6:13: `a:80` is not a host"),
        ("    allow: anyone\n    hosts: ['*.a']\n", "6:13: `*.a` is not a host"),
        ("    allow: anyone\n    strip_prefix: /order\n", "6:19: `/order` is not a prefix of whole literal segments"),
        ("    allow: anyone\n    strip_prefix: /orders/\n", "6:19: `/orders/` is not a prefix of whole"),
        ("    allow: anyone\n    strip_prefix: /orders/7\n", "6:19: `/orders/7` is not a prefix of whole"),
        ("    allow: anyone\n    strip_prefix: '/orders/{id}'\n", "6:19: `/orders/{id}` is not a prefix of whole"),
        ("    allow: anyone\n    rate: { burst: 5 }\n", "6:11: `rate` is missing"),
        ("    allow: anyone\n    request_headers: { set: { X_A: a } }\n", "6:31: the name of a header"),
        ("    allow: anyone\n    request_headers: { set: { Host: a } }\n", "6:31: `host` is made by the gateway"),
        (
            "    allow: anyone\n    request_headers: { remove: [Connection] }\n",
            "6:33: `connection` is made by the gateway",
        ),
        (
            "    allow: anyone\n    request_headers: { set: { X-Auth-User: root } }\n",
            "6:31: `x-auth-user` is an identity header",
        ),
        (
            "    allow: anyone\n    request_headers: { remove: [X-Auth-Roles] }\n",
            "6:33: `x-auth-roles` is an identity header",
        ),
        (
            "    allow: anyone\n    request_headers: { set: { X-A: \"a\\r\\nX-B: b\" } }\n",
            "6:36: the value of a header",
        ),
        (
            "    allow: anyone\n    response_headers: { set: { Content-Length: '5' } }\n",
            "6:32: `content-length` is made",
        ),
    ] {
        let printed = with_route(route).unwrap_err().to_string();
        if !printed.contains(message) {
            wrong.push(format!("{route}\nexpected {message}\n{printed}"));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn routes_that_tie_are_named_both() {
    let text = "upstreams: { demo: { builtin: echo } }\nroutes:\n  - { path: '/a/{x}', allow: [admin], to: demo }\n  \
                - { path: '/a/{y}', allow: anyone, to: demo }\n";
    let printed = problems(text);
    assert!(
        printed.starts_with("gateway.yaml:4:13: `/a/{y}` and `/a/{x}` on line 3 could match the same request"),
        "{printed}"
    );
}

#[test]
fn a_text_that_is_not_the_yaml_we_take_is_refused_at_its_place() {
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    let very_deep = "[".repeat(100_000);
    for (name, text, expected) in [
        ("a tab", "a:\n\tb: c\n", "^ indent with spaces, not with tabs\n"),
        ("bad indentation", "a:\n    b: c\n  d: e\n", "^ indent it like the keys or items beside it\n"),
        (
            "a bracket that is not closed",
            "a: [b\nc: d\n",
            "^ is a bracket, a brace or a quote before this not closed?\n",
        ),
        ("a quote that is not closed", "a: \"b\n", "^ is a bracket, a brace or a quote before this not closed?\n"),
        (
            "a colon in a text",
            "a: b: c\n",
            "^ is it indented like the keys beside it? a text with `: ` in it stands in quotes\n",
        ),
        ("two documents", "a: b\n---\nc: d\n", "a second document begins here"),
        (
            "a duplicate key",
            "routes: []\nupstreams: {}\nroutes: []\n",
            "3:1: duplicate key `routes`; it is given on line 1",
        ),
        ("a merge key", "a: &x { b: c }\nd: { <<: *x }\n", "2:6: merge keys (`<<`) are not supported"),
        ("a tag", "a: !!str 5\n", "tags (`!…`) are not supported"),
        ("a list as a key", "? [a]\n: b\n", "a key must be a plain word"),
        ("an alias inside its anchor", "a: &x [*x]\n", "1:8: "),
        ("an unknown alias", "a: *x\n", "1:4: "),
        ("a directive", "%YAML 1.1\n---\na: b\n", "gateway.yaml:1:"),
        ("a list nested too deep", &deep, "gateway.yaml:1:"),
        ("a list nested far too deep", &very_deep, "gateway.yaml:1:"),
        ("control characters", "\u{0}\u{1}", "gateway.yaml:1:"),
        ("nothing", "", "1:1: expected a mapping, found nothing"),
        ("a comment", "# a\n", "1:1: expected a mapping, found nothing"),
        ("a list", "- a\n", "1:1: expected a mapping, found a list"),
        ("an empty mapping", "{}", "1:1: `routes` is missing"),
    ] {
        let printed = problems(text);
        assert!(printed.contains(expected), "{name}: {printed}");
    }
}

#[test]
fn aliases_stand_for_values_but_cannot_multiply_them_without_end() {
    let snapshot = load(
        "upstreams: { demo: { builtin: echo } }\nroutes:\n  - { path: /a, allow: &staff [user, admin], to: demo }\n  \
         - { path: /b, allow: *staff, to: demo }\n",
    );
    let roles = Allow::Roles(vec![Role::from("user"), Role::from("admin")]);
    assert!(snapshot.unwrap().routes.routes().iter().all(|route| route.allow == roles));

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let printed = problems(&bomb);
    assert!(printed.contains("more than 1000000 values"), "{printed}");

    // few values, each long: in what is anchored, in a key of it, and in anchors inside each other
    let (long, many) = ("x".repeat(100_000), vec!["*n"; 1_000].join(", "));
    let nested = (0..40).fold(long.repeat(20), |inner, level| format!("&a{level} [{inner}]"));
    for bomb in [
        format!("a: &n {long}\nb: [{many}]\n"),
        format!("a: &n {{ {}: 1 }}\nb: [{}]\n", "k".repeat(1_000), vec!["*n"; 100_000].join(", ")),
        format!("a: {nested}\n"),
    ] {
        let printed = problems(&bomb);
        let told = printed.contains("aliases stand for more than 67108864 bytes");
        assert!(told, "{}", printed.chars().take(300).collect::<String>());
    }
}

#[test]
fn a_file_that_is_not_utf8_or_not_there_is_said_to_be_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    let missing = super::load(&path, &environment()).unwrap_err();
    assert!(missing.is_unreadable());
    assert!(missing.to_string().ends_with("gateway.yaml: cannot be read: there is no such file\n"), "{missing}");
    std::fs::write(&path, b"a: b\nc: \xc3\xa9\xff\n").unwrap();
    let broken = super::load(&path, &environment()).unwrap_err();
    assert!(!broken.is_unreadable());
    assert!(broken.to_string().contains("gateway.yaml:2:5: a byte here is not UTF-8"), "{broken}");
}

#[test]
fn variables_are_replaced_and_missing_ones_named_at_their_place() {
    let snapshot = with("auth: { realm: 'a ${NAME} ${UNSET:-default} $${NAME}' }");
    assert_eq!(&*snapshot.auth.realm, "a value default ${NAME}");
    let upstreams =
        "upstreams: { a: { servers: ['http://127.0.0.1:${PORT}'], keep_alive: '${EMPTY:-5}' } }\nroutes: []\n";
    let UpstreamKind::Servers(group) = &load(upstreams).unwrap().upstreams[0].kind else { panic!("servers") };
    assert_eq!((group.servers[0].port, group.keep_alive), (9001, 5));
    for (section, place, message) in [
        ("auth: { realm: a ${UNSET} }", "1:18", "the environment variable `UNSET` is not set"),
        ("auth: { realm: '${NAME' }", "1:17", "`${` without `}`"),
        ("auth: { realm: '${NA-ME}' }", "1:17", "expected `${NAME}` or `${NAME:-default}`"),
    ] {
        let printed = problems_of(section);
        assert!(printed.starts_with(&format!("gateway.yaml:{place}: {message}")), "{section}\n{printed}");
    }
}

#[test]
fn text_from_the_environment_is_text_whatever_it_looks_like() {
    assert_eq!(&*with("auth: { realm: '${PORT}' }").auth.realm, "9001");
    assert_eq!(&*with("auth: { realm: ${PORT} }").auth.realm, "9001");
    let least = LEAST.replace("anyone", "[${NAME}, '${EMPTY:-a, b]: #c}']").replace("path: /", "path: /${NAME}");
    let Ok(snapshot) = load(&least) else { panic!("{}", problems(&least)) };
    let route = &snapshot.routes.routes()[0];
    assert_eq!((&*route.name, &route.allow), ("/value", &Allow::Roles(vec!["value".into(), "a, b]: #c".into()])));
    // a variable cannot bring structure either
    let environment: Environment = std::iter::once(("ALLOW", "anyone\n    to: other")).collect();
    let text = "upstreams: { demo: { builtin: echo } }\nroutes: [{ path: /, allow: '${ALLOW}', to: demo }]\n";
    assert!(load_text(text, Path::new("."), "gateway.yaml", &environment).is_err());
}

#[test]
fn dotenv_adds_to_the_environment_and_never_overrides_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".env"), "NAME=other\nMORE=\"more\"\n").unwrap();
    let path = directory.path().join("gateway.yaml");
    std::fs::write(&path, format!("auth: {{ realm: '${{NAME}} ${{MORE}}' }}\n{LEAST}")).unwrap();
    let snapshot = super::load(&path, &environment()).unwrap();
    assert_eq!(&*snapshot.auth.realm, "value more");
    assert_eq!(snapshot.files, [directory.path().join(".env")]);
    std::fs::write(directory.path().join(".env"), "A=b\nSECRET canary\n").unwrap();
    let printed = super::load(&path, &environment()).unwrap_err().to_string();
    assert!(printed.contains("`.env` line 2: expected NAME=value"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn no_problem_shows_a_secret() {
    for text in [
        "bootstrap: { clients: [{ id: a, secret: canary, rols: [b] }] }",
        "bootstrap: { clients: [{ id: a, secert: canary }] }",
        "bootstrap: { users: [{ name: a, pasword: canary }] }",
        "bootstrap: { users: [{ name: a, password: [canary] }] }",
        "bootstrap: { users: [{ name: a, password: { value: canary } }] }",
        "bootstrap: { users: [{ name: a, password: \"canary\\u0001\" }] }",
        "bootstrap: { users: [{ name: a, password: 'canary', password: 'canary' }] }",
        "bootstrap:\n  users:\n    - name: a\n      password: |\n        canary\n        canary\n      x: 1",
        "bootstrap:\n  users:\n    - name: a\n      password: \"canary\n",
        "bootstrap:\n  users:\n    - name: a\n      password: can: canary\n",
        "bootstrap: { users: [{ name: a, password: '${UNSET:-canary', x: 1 }] }",
        "bootstrap: { users: [{ name: a, password: '${NONE:-canary}', x: 1 }] }",
        "bootstrap: { users: [{ name: '${CANARY}:' }] }",
        "auth: { jwt: { keys: [{ id: a, algorithm: '${CANARY}', secret: canary }] } }",
        "auth: { jwt: { keys: [{ id: a, algorithm: HS256, secret: canary, private_key: b }] } }",
        "timeouts: { idle: '${CANARY}' }",
        "log: { level: '${CANARY}' }",
        "workers: '${CANARY}'",
        "store: mysql://root:canary@db:x/y",
        "store: { url: mysql://root:canary@db:x/y }",
        "limits: { shared: 'redis://:a#canary@redis' }",
        "limits: { shared: { url: 'http://:canary@redis' } }",
        "listeners: [{ address: '${CANARY}' }]",
        "endpoints: [{ path: '${CANARY}', action: '${CANARY}' }]",
        "errors: { member: '${CANARY}\n' }\nx: 1",
    ] {
        let printed = problems_of(text);
        assert!(!printed.is_empty() && !printed.contains("canary"), "{text}\n{printed}");
    }
    for upstream in ["servers: ['http://root:canary@a']", "servers: ['${CANARY}']"] {
        let printed = problems(&format!("upstreams: {{ a: {{ {upstream} }} }}\nroutes: []"));
        assert!(!printed.is_empty() && !printed.contains("canary"), "{printed}");
    }
    for route in
        ["request_headers: { set: { X_Api_Key: canary } }", "methods: ['${CANARY}']", "strip_prefix: '${CANARY}'"]
    {
        let printed = with_route(&format!("    allow: anyone\n    {route}\n")).unwrap_err().to_string();
        assert!(!printed.contains("canary"), "{printed}");
    }
}

#[test]
fn secrets_come_from_the_file_the_environment_or_another_file() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("good", &b"from file\r\n"[..]), ("empty", b"\n"), ("binary", b"\xff")] {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let load = |secret: &str| {
        let text = format!("bootstrap: {{ clients: [{{ id: a, secret: {secret} }}] }}\n{LEAST}");
        load_text(&text, directory.path(), "gateway.yaml", &environment())
    };
    for (secret, expected) in [("abc", "abc"), ("'${CANARY}'", "canary"), ("{ file: good }", "from file")] {
        let snapshot = load(secret).unwrap();
        let found = snapshot.bootstrap.clients[0].secret.as_ref().map(Secret::expose);
        assert_eq!(found.map(String::as_str), Some(expected), "{secret}");
    }
    assert_eq!(load("{ file: good }").unwrap().files, [directory.path().join("good")]);
    for (secret, message) in [
        ("{ file: none }", "1:49: this file cannot be read: there is no such file"),
        ("{ file: . }", "1:49: this file cannot be read: it is a directory"),
        ("{ file: empty }", "1:49: the secret in this file is empty"),
        ("{ file: binary }", "1:49: this file is not UTF-8"),
        ("123", "1:41: expected text, found a number: put it in quotes"),
    ] {
        let printed = load(secret).unwrap_err().to_string();
        assert!(printed.contains(message), "{secret}\n{printed}");
    }
}

#[test]
fn files_that_are_named_must_be_there_and_be_what_they_should() {
    for (section, message) in [
        (
            "listeners: [{ address: 127.0.0.1:1, tls: { certificates: [{ cert: a, key: b }] } }]",
            "1:67: this file cannot be read",
        ),
        (
            "auth: { jwt: { keys: [{ id: a, algorithm: HS256, secret: { file: a } }] } }",
            "1:66: this file cannot be read",
        ),
    ] {
        let printed = problems_of(section);
        assert!(printed.contains(message), "{section}\n{printed}");
    }
    let printed = problems("upstreams: { a: { servers: ['https://a'], tls: { ca: none } } }\nroutes: []\n");
    assert!(printed.contains("1:54: this file cannot be read"), "{printed}");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let snapshot = load(LEAST).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(snapshot.listeners[0].address.to_string(), "127.0.0.1:8443");
    assert!(matches!(&snapshot.listeners[0].mode, Mode::Tls(_)));
    assert_eq!(snapshot.admin.to_string(), "127.0.0.1:9901");
    assert!(snapshot.workers >= 1 && snapshot.terms.bounds.connections_max >= 1);
    assert!(snapshot.trusted_proxies.0.is_empty());
    assert_eq!((&*snapshot.auth.realm, snapshot.schemes), ("api", SchemeSet::all()));
    let cache = &snapshot.auth.cache;
    assert_eq!((cache.ttl, cache.capacity), (seconds(30), 100_000));
    assert_eq!((cache.negative_ttl, cache.stale_if_store_down), (seconds(2), seconds(300)));
    let jwt = &snapshot.auth.jwt;
    assert_eq!((&*jwt.issuer, jwt.leeway), ("portcullis", seconds(30)));
    assert!(jwt.require_exp && jwt.require_iss);
    assert!(jwt.audience.is_empty() && jwt.keys.is_none());
    let tokens = &snapshot.tokens;
    assert_eq!(
        (tokens.access_ttl, tokens.refresh_ttl, tokens.opaque_ttl),
        (seconds(900), seconds(604_800), seconds(86_400))
    );
    assert_eq!((tokens.password_bytes_min, tokens.password_bytes_max), (8, 1024));
    assert_eq!(tokens.default_role.as_str(), "user");
    assert_eq!(snapshot.identity.scheme.as_ref().unwrap(), "x-auth-scheme");
    assert_eq!(&*snapshot.texts.member, "message");
    let limit = |quota: &Option<crate::limit::Quota>| {
        let quota = quota.as_ref().unwrap();
        (quota.count.get(), quota.per.as_secs(), quota.burst.get())
    };
    assert_eq!(limit(&snapshot.limits.per_address), (30, 60, 10));
    assert_eq!(limit(&snapshot.limits.per_account), (5, 60, 5));
    assert_eq!(limit(&snapshot.limits.per_account_anywhere), (100, 3600, 100));
    assert_eq!(limit(&snapshot.limits.unauthenticated), (20, 1, 100));
    assert_eq!((snapshot.terms.bounds.header_bytes_max, snapshot.terms.bounds.headers_max), (32_768, 100));
    assert_eq!(snapshot.body_bytes_max, 0);
    assert_eq!((snapshot.terms.timeouts.idle, snapshot.terms.timeouts.drain), (seconds(75), seconds(30)));
    assert_eq!(
        (snapshot.upstream_timeouts.connect, snapshot.upstream_timeouts.response_header),
        (seconds(2), seconds(60))
    );
    assert!(snapshot.log.access && snapshot.log.audit);
    assert_eq!(snapshot.log.level, tracing::Level::INFO);
    assert!(snapshot.bootstrap.users.is_empty() && snapshot.files.is_empty());
    // twelve, and the parts of the page
    assert_eq!(snapshot.endpoints.len(), 16);
    assert!(snapshot.endpoints.values().all(|endpoint| endpoint.texts.oauth && endpoint.action != Action::Register));
    assert!(snapshot.endpoints["/auth/token"].reply.is_some());
}

/// Everything of contract 2 that is built.
pub(super) const WHOLE: &str = r#"
listeners:
  - address: 0.0.0.0:8443
    tls:
      certificates:
        - { cert: certs/api.pem, key: certs/api.key }
      min_version: "1.3"
  - address: 0.0.0.0:8080
    redirect: https
workers: auto
trusted_proxies: [10.0.0.0/8, "::1", 192.0.2.7]
admin:
  address: 127.0.0.1:9901
store: sqlite:data/portcullis.db
auth:
  realm: api
  schemes: [basic, token, bearer]
  cache: { ttl: 30s, capacity: 100000, negative_ttl: 2s, stale_if_store_down: 5m }
  jwt:
    issuer: https://api.example.com
    audience: [orders-api]
    leeway: 30s
    roles: realm_access.roles
    subject: sub.username
    type: { claim: type, access: access, refresh: refresh, missing: access }
    require_exp: true
    require_iss: true
    require_jti: true
    require_account: true
    subject_kind: user
    keys:
      - { id: k1, algorithm: HS256, secret: ${JWT_SECRET_KEY} }
      - { id: k0, algorithm: ES256, private_key: keys/es256.pem }
  issuers:
    - issuer: https://idp.example.com/realms/main
      jwks: https://idp.example.com/realms/main/protocol/openid-connect/certs
      tls: { ca: certs/api.pem, server_name: idp.example.com, cert: certs/api.pem, key: certs/api.key }
      audience: [orders-api]
      algorithms: [RS256, ES256]
      roles: realm_access.roles
      user: preferred_username
      user_prefix: "main:"
tokens:
  access_ttl: 15m
  refresh_ttl: 7d
  opaque_ttl: 24h
  default_role: user
  refresh_format: jwt
  refresh_grace: 10s
  claims: { user_id: "{user_id}", sub: { username: "{user}", role: "{role}" } }
  sub_as: json_text
passwords: { min_bytes: 8, max_bytes: 1024 }
identity_headers:
  user: X-Auth-User
  roles: X-Auth-Roles
  scheme: X-Auth-Scheme
errors:
  member: message
  messages: { missing_credentials: Missing Authorization Header, invalid_token.expired: Token has expired }
paths:
  encoded_slash: refuse
  encoded_query: refuse
  semicolon: refuse
  empty_segments: merge
limits:
  token_endpoints:
    per_address: { rate: 30/m, burst: 10 }
    per_account: { rate: 5/m, burst: 5 }
    per_account_anywhere: { rate: 100/h, burst: 100 }
  unauthenticated: { rate: 20/s, burst: 100 }
  header_bytes: 32KiB
  headers: 100
  body_bytes: 0
  connections: auto
  shared: { url: 'rediss://:secret@redis/1', tls: { ca: certs/api.pem, server_name: localhost, cert: certs/api.pem, key: certs/api.key } }
timeouts: { handshake: 10s, request_header: 10s, idle: 75s, connect: 2s, response_header: 60s, drain: 30s }
endpoints:
  - { path: /oauth/token, action: oauth_token }
  - { path: /login/, action: login, from: members, incomplete: member }
  - { path: /revoke, action: revoke, fields: { token: refresh }, ends: refresh }
upstreams:
  orders:
    servers: [http://127.0.0.1:9001, http://127.0.0.1:9002]
    balance: least_requests
    health: { path: /health, interval: 5s, timeout: 1s, unhealthy_after: 3, healthy_after: 2 }
    keep_alive: 64
  inner:
    servers: [https://10.0.0.7]
    tls: { ca: certs/api.pem, server_name: localhost, cert: certs/api.pem, key: certs/api.key }
  demo: { builtin: echo }
routes:
  - path: /health
    allow: anyone
    to: orders
  - path: /orders/**
    methods: [GET, HEAD]
    allow: [user, admin]
    to: orders
  - path: /orders/{id}/refund
    methods: [POST]
    hosts: [api.example.com]
    allow: [admin]
    scopes: [orders:write]
    schemes: [bearer]
    strip_prefix: /orders
    request_headers: { set: { X-Tenant: blue }, remove: [Cookie] }
    response_headers: { set: { Cache-Control: no-store } }
    forward_credentials: false
    rate: { rate: 100/s, burst: 50, by: principal }
    timeout: 5s
    body_bytes: 1MiB
    to: orders
log: { access: json, audit: json, level: info }
bootstrap:
  users:
    - { name: admin, roles: [admin] }
    - { name: guest, password: { file: guest.txt }, roles: [guest] }
  clients:
    - { id: ${API_CLIENT_ID}, secret: ${API_CLIENT_SECRET}, roles: [user] }
"#;

#[test]
fn a_file_that_says_all_there_is_to_say_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    write("certs/api.pem", &certificate.pem());
    write("certs/api.key", &key.serialize_pem());
    write("keys/es256.pem", &key.serialize_pem());
    write("guest.txt", "guest-password\n");
    write(".env", "API_CLIENT_ID=cron\nAPI_CLIENT_SECRET=cron-secret\n");
    let environment: Environment = std::iter::once(("JWT_SECRET_KEY", "short")).collect();
    let snapshot = load_text(WHOLE, directory.path(), "gateway.yaml", &environment);
    let snapshot = snapshot.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(snapshot.listeners.len(), 2);
    assert!(matches!(snapshot.listeners[1].mode, Mode::Redirect));
    assert_eq!(snapshot.trusted_proxies.0.len(), 3);
    assert_eq!(snapshot.store, snapshot::StoreLocation::Sqlite(directory.path().join("data/portcullis.db")));
    assert!(snapshot.auth.jwt.keys.is_some() && snapshot.tokens.sub_as_json_text);
    assert_eq!((snapshot.upstreams.len(), snapshot.routes.routes().len()), (3, 3));
    assert_eq!(&*snapshot.bootstrap.clients[0].id, "cron");
    let names = [".env", "certs/api.key", "certs/api.pem", "guest.txt", "keys/es256.pem"];
    assert_eq!(snapshot.files, names.map(|name| directory.path().join(name)));

    write("certs/api.key", "no key");
    let printed = load_text(WHOLE, directory.path(), "gateway.yaml", &environment).unwrap_err().to_string();
    assert!(printed.contains("gateway.yaml:6:39: this file cannot be used: "), "{printed}");
    assert!(printed.contains(": this file is not a private key in PEM"), "{printed}");
}

/// What [`WHOLE`] leaves out, because something else stands in its place.
pub(super) const OTHER_WAYS: &str = r"
store:
  url: sqlite:a.db
  users: { table: user, id: id, name: username, password: hash, roles: { table: r, user: u, role: r, names: { table: n, id: i, name: n } } }
  tokens: { table: token, token: token, user: user }
listeners: [{ address: 127.0.0.1:1, tls: { self_signed: [localhost] } }]
endpoints: [{ path: /a, action: login, fields: { username: email }, errors: { member: msg } }]
upstreams: { demo: { builtin: echo } }
routes:
  - { path: /a, allow: anyone, to: demo, cors: { origins: ['*'] }, end_streams_on: [] }
expect:
  - { request: GET /a, as: { roles: [a] }, is: 200 }
";

#[test]
fn the_schema_knows_exactly_the_keys_that_are_read() {
    // what is wrong with the values does not matter here
    drop((load(WHOLE), load(OTHER_WAYS)));
    let mut described = std::collections::BTreeSet::new();
    let mut left = vec![schema::schema()];
    while let Some(value) = left.pop() {
        if let (Some(title), Some(keys)) = (value["title"].as_str(), value["properties"].as_object()) {
            let mut keys: Vec<String> = keys.keys().cloned().collect();
            keys.sort();
            described.insert((title.to_owned(), keys));
            assert_eq!(value["additionalProperties"], false, "{title}");
        }
        match value {
            serde_json::Value::Object(members) => left.extend(members.into_iter().map(|(_, member)| member)),
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }
    let read = decode::opened::all();
    let only = |a: &std::collections::BTreeSet<_>, b: &_| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(
        (only(&read, &described), only(&described, &read)),
        (vec![], vec![]),
        "read, but not described; and the other way"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn no_text_breaks_the_reader_and_none_shows_the_secret(
        from in 0..WHOLE.len(),
        length in 0_usize..40,
        inserted in r##"[\x20-\x7e\n\t\u{e9}]{0,6}|\$\{|[\[\]{}&*!|>:'"#-]{1,3}"##,
    ) {
        let secret = WHOLE.replace("${API_CLIENT_SECRET}", "canary-canary");
        let (start, rest) = secret.split_at(from.min(secret.len()));
        let rest: String = rest.chars().skip(length).collect();
        let text = format!("{start}{inserted}{rest}");
        if let Err(problems) = load(&text) {
            let printed = problems.to_string();
            // what is left of the secret may stand where nothing says any more that it is one
            let intact = text.contains("secret: canary-canary");
            proptest::prop_assert!(!intact || !printed.contains("canary-canary"), "{}", printed);
            proptest::prop_assert!(problems.count() > 0);
        }
    }
}

#[test]
fn a_route_means_what_it_says() {
    let snapshot = with_route(
        "    methods: [GET, PURGE]\n    hosts: [API.Example.com.]\n    allow: [admin]\n    scopes: [orders:write]\n    \
         schemes: [bearer]\n    strip_prefix: /orders\n    \
         request_headers: { set: { X-Tenant: blue }, remove: [Cookie] }\n    \
         response_headers: { set: { Cache-Control: no-store } }\n    rate: { rate: 100/m, by: address }\n    \
         timeout: 5s\n    body_bytes: 1MiB\n",
    )
    .unwrap();
    let route = &snapshot.routes.routes()[0];
    assert_eq!((&*route.name, route.line), ("/orders/{id}", 3));
    assert_eq!(route.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(), ["GET", "PURGE"]);
    assert_eq!(&*route.hosts[0], "api.example.com");
    assert_eq!(route.allow, Allow::Roles(vec!["admin".into()]));
    assert_eq!(route.scopes[0].as_str(), "orders:write");
    assert_eq!(route.schemes.iter().collect::<Vec<_>>(), [Scheme::Bearer]);
    assert_eq!(route.strip_prefix.as_deref(), Some("/orders"));
    assert_eq!(route.request_fields.set[0].1, "blue");
    assert_eq!(route.request_fields.remove[0], "cookie");
    let rate = route.rate.as_ref().unwrap();
    assert_eq!((rate.quota.count.get(), rate.quota.burst.get(), rate.by), (100, 2, RateBy::Address));
    assert_eq!((route.timeout, route.body_bytes_max), (Some(Duration::from_secs(5)), Some(1 << 20)));
    assert!(!route.forward_credentials);
}

#[test]
fn an_upstream_has_servers_and_ways_to_use_them() {
    let text = "upstreams:\n  a:\n    servers: [http://127.0.0.1:1, 'h2c://[::1]:2', https://b]\n    \
                balance: round_robin\n    health: { interval: 1s }\nroutes: []\n";
    let snapshot = load(text).unwrap();
    let UpstreamKind::Servers(group) = &snapshot.upstreams[0].kind else { panic!("servers") };
    let protocols: Vec<_> = group.servers.iter().map(|server| server.protocol).collect();
    assert_eq!(protocols, [Protocol::Http1, Protocol::H2c, Protocol::Https]);
    assert_eq!((group.balance, group.keep_alive), (Balance::RoundRobin, 64));
    let health = group.health.as_ref().unwrap();
    assert_eq!((&*health.path, health.unhealthy_after, health.healthy_after), ("/health", 3, 2));
    assert!(group.tls.is_some());
    for (upstream, message) in [
        ("{}", "`servers` is missing"),
        ("{ servers: [] }", "this list is empty"),
        ("{ servers: [http://a, http://a:80] }", "this server is given above already"),
        ("{ servers: [http://a], tls: {} }", "no server of this upstream is `https://`"),
        ("{ servers: [https://a], tls: { cert: a } }", "`cert` and `key` go together"),
        ("{ servers: [http://a], builtin: echo }", "an upstream is either `builtin` or has `servers`"),
        ("{ servers: [http://a], balance: least }", "unknown word `least`"),
        ("{ servers: [http://a], health: { path: health } }", "the path of a probe begins with `/`"),
        ("{ servers: [http://a], health: { unhealthy_after: 0 } }", "is not a whole number from 1 to 1000"),
    ] {
        let printed = problems(&format!("upstreams: {{ a: {upstream} }}\nroutes: []\n"));
        assert!(printed.contains(message), "{upstream}\n{printed}");
    }
}

#[test]
fn limits_and_words_can_be_turned_off() {
    let limits = with("limits: { token_endpoints: off, unauthenticated: { rate: 5/s } }").limits;
    assert!(limits.per_address.is_none() && limits.per_account.is_none() && limits.per_account_anywhere.is_none());
    let unauthenticated = limits.unauthenticated.unwrap();
    assert_eq!((unauthenticated.count.get(), unauthenticated.burst.get()), (5, 100));
    let log = with("log: { access: off, audit: 'off', level: debug }").log;
    assert!(!log.access && !log.audit);
    let identity = with("identity_headers: remote").identity;
    assert_eq!((identity.user.unwrap().as_str(), identity.scheme), ("remote-user", None));
    assert!(with("paths: { semicolon: keep }").paths.keep_semicolon);
    assert_eq!(with("workers: '3'").workers, 3);
    assert_eq!(with("store: sqlite:///var/a.db").store, snapshot::StoreLocation::Sqlite("/var/a.db".into()));
}

#[test]
fn a_message_is_a_text_or_members_of_a_refusal_that_there_is() {
    for (section, told) in [
        ("messages: { invalid_token.expird: a }", "1:23: unknown reason `expird`"),
        ("messages: { invalid_token.basic: a }", "1:23: unknown reason `basic`"),
        ("messages: { no_route.expired: a }", "1:23: unknown reason `expired`"),
        ("messages: { invalid_token: { request_id: a } }", "1:40: `request_id` is another member of every error"),
        ("messages: { invalid_token: { a: '{field}' } }", "1:38: `{field}` can stand in `invalid_request` only"),
        ("messages: { invalid_token: { a: [{ b: '{x}' }] } }", "1:38: unknown placeholder `{x}`"),
        ("messages: { invalid_token: [a] }", "1:38: expected text, found a list"),
    ] {
        let printed = problems_of(&format!("errors: {{ {section} }}"));
        assert!(printed.contains(&format!("gateway.yaml:{told}")), "{told}\n{printed}");
    }
    for good in [
        "rate_limited.per_account: a",
        "invalid_token.bearer.expired: a",
        "invalid_request.missing: { '{field}': [a] }",
    ] {
        with(&format!("errors: {{ messages: {{ {good} }} }}"));
    }
}

#[test]
fn keys_of_endpoints_belong_to_their_actions() {
    for (keys, told) in [
        ("action: jwks, from: members", "`from` belongs to `action: login`, `client_login`, `refresh`, `revoke`"),
        ("action: revoke, incomplete: member", "`incomplete` belongs to `action: login`, `client_login`, `refresh`"),
        ("action: login, ends: family", "`ends` belongs to `action: revoke`"),
        ("action: login, password_grant: true", "`password_grant` belongs to `action: oauth_token`"),
        ("action: revoke, fields: { tokn: t }", "unknown request member `tokn`"),
    ] {
        let printed = problems_of(&format!("endpoints: [{{ path: /a/, {keys} }}]"));
        assert!(printed.contains(told), "{told}\n{printed}");
    }
    assert!(problems_of("endpoints: [{ path: /a//, action: login }]").contains("is not the path of an endpoint"));
    assert!(problems_of("tokens: { refresh_grace: 11s }").contains("1:26: `refresh_grace` is at most 10s"));
}

#[test]
fn endpoints_that_are_given_replace_the_standard_ones() {
    let snapshot = with(
        "errors: { member: msg, messages: { invalid_token: no } }\nendpoints:\n  - path: /login\n    action: login\n    \
         fields: { username: email }\n    reply: { jwt: '{access}', fixed: 5 }\n    status: 201\n    \
         errors: { messages: { invalid_credentials: nope } }\n  - { path: /token, action: oauth_token, password_grant: true }\n",
    );
    assert_eq!(snapshot.endpoints.len(), 2);
    let login = &snapshot.endpoints["/login"];
    assert_eq!((login.action, &*login.fields["username"]), (Action::Login, "email"));
    assert_eq!((&*login.texts.member, login.texts.oauth), ("msg", false));
    assert_eq!(
        (&login.texts.messages["invalid_token"], &login.texts.messages["invalid_credentials"]),
        (&Message::Text("no".into()), &Message::Text("nope".into()))
    );
    assert!(snapshot.endpoints["/token"].texts.oauth && snapshot.endpoints["/token"].password_grant);
}

#[test]
fn the_first_configuration_that_is_shipped_is_good() {
    let snapshot = load(include_str!("../../gateway.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(snapshot.bootstrap.users[0].password.is_none());
    let admin = snapshot.routes.find("", &http::Method::GET, "/admin/x").unwrap();
    assert_eq!(admin.allow, Allow::Roles(vec!["admin".into()]));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn ten_thousand_routes_load_in_little_time() {
    let mut text = "upstreams: { demo: { builtin: echo } }\nroutes:\n".to_owned();
    for number in 0..10_000 {
        let more = "methods: [GET, POST], request_headers: { set: { X-A: b } }";
        writeln!(text, "  - {{ path: '/a{number}/{{id}}/**', allow: [user, admin], to: demo, {more} }}").unwrap();
    }
    let start = Instant::now();
    assert_eq!(load(&text).unwrap().routes.routes().len(), 10_000);
    // a generous bound for an unoptimized build on a busy machine; a quadratic step takes minutes
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
