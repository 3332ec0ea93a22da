//! What a person sees of a mistake.

use std::fmt::Write as _;

use super::*;
use crate::principal::Role;
use crate::route::Allow;

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
    assert_eq!(places, ["1:11", "2:15", "4:18", "6:13", "7:5", "7:21", "8:1"], "{printed}");
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
fn what_is_wrong_with_a_part_does_not_hide_what_is_wrong_with_the_rest_of_it() {
    let text = "upstreams: { a: { servers: ['http://127.0.0.1:9'] } }\n\
                endpoints:\n  - { path: /x, action: logn }\n  - { path: /x, action: jwks }\n\
                routes:\n  - { path: /a, to: zz }\n  - { path: '/{b}', allow: anyon, to: a }\n  \
                - { path: '/{c}', allow: anyone, to: a }\n  - { path: d, allow: anyone, to: zz }\n  \
                - { path: '/e/{b}', allow: anyone, to: zz }\n  - { path: '/e/{c}', allow: anyone, to: zz }\n\
                auth:\n  jwt:\n    keys:\n      - { id: k, algorithm: HS1, secret: '${UNSET}' }\n      \
                - { id: k, algorithm: HS256, secret: 1 }\n      - { id: k }\n";
    let printed = problems(text);
    let places = printed.lines().filter_map(|line| line.strip_prefix("gateway.yaml:"));
    let places: Vec<&str> = places.map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "3:25", "4:13", "6:5", "6:21", "7:28", "8:13", "9:13", "9:35", "10:42", "11:13", "11:42", "15:29", "15:43",
        "16:15", "16:44", "17:9", "17:9", "17:15",
    ];
    assert_eq!(places, expected, "{printed}");
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
        ("limits: { shared: { file: nowhere } }", "1:27: the file `nowhere` cannot be read"),
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
        ("auth: { issuers: [{ issuer: a, jwks: keys.json }] }", "1:38: the file `keys.json` cannot be read: "),
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
fn a_claim_path_is_a_text_or_a_list_of_names() {
    for (path, message) in [
        ("a..b", "1:25: `a..b` is not a claim path"),
        ("[]", "1:25: this list is empty"),
        ("[a, '']", "1:29: this text is empty"),
        ("[a, [b]]", "1:29: expected text, found a list"),
        ("{ a: b }", "1:25: expected text, found a mapping"),
    ] {
        let printed = problems_of(&format!("auth: {{ jwt: {{ subject: {path} }} }}"));
        assert!(printed.contains(&format!("gateway.yaml:{message}")), "{path}\n{printed}");
    }
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
        ("endpoints: [{ path: '/a/**', action: jwks }]", "1:21: `/a/**` is not the path of an endpoint"),
        ("endpoints: [{ path: '/*/a', action: jwks }]", "1:21: `/*/a` is not the path of an endpoint"),
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
fn no_text_of_the_file_makes_a_line_of_its_own() {
    for (what, text) in [
        ("a path", "routes: [{ path: \"/{a}\\nX: ok (9 routes)\", allow: anyone, to: a }]"),
        ("a segment", "routes: [{ path: \"/a\\u2028X\", allow: anyone, to: a }]"),
        (
            "an upstream in a hint",
            "upstreams: { \"a\\nX\": { builtin: echo } }\nroutes: [{ path: /a, allow: anyone, to: aX }]",
        ),
        ("a role", "routes: [{ path: /a, allow: [\"a\\nX\"], to: a }]"),
        ("a key", "\"a\\nX\": 1"),
        ("a variable", "log: \"${A\\nX}\""),
        ("a direction", "routes: [{ path: \"/{a}\\u202eX\", allow: anyone, to: a }]"),
    ] {
        let printed = problems(text);
        assert!(printed.contains('X'), "{what}: {printed}");
        assert!(!printed.lines().any(|line| line.starts_with('X')), "{what}: {printed}");
        let unseen = |letter: &char| *letter != '\n' && crate::config::report::is_unseen(*letter);
        assert_eq!(printed.chars().find(unseen), None, "{what}: {printed:?}");
    }
}

#[test]
fn braces_in_a_mapping_on_one_line_are_told_of() {
    for text in ["routes:\n  - { path: /orders/{id}, allow: anyone, to: a }\n", "routes: [{ path: [/a/{id}] }]"] {
        let printed = problems(text);
        assert!(printed.contains("put it in quotes: `path: \"/orders/{id}\"`"), "{printed}");
    }
    let printed = problems("routes: \0\n");
    assert!(printed.contains("not YAML: unexpected character: `\\u{0}`\n"), "{printed}");
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
        ("    allow: [Authenticated]\n", "5:13: `Authenticated` is not a role; write `allow: authenticated`"),
        ("    allow: ['*']\n", "5:13: `*` is not a role"),
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
        ("a tab", "a:\n\tb: c\n", "2:1: not YAML: tabs disallowed"),
        ("a tab", "a:\n\tb: c\n", "     b: c\n    ^ indent with spaces, not with tabs\n"),
        ("a tab behind spaces", "a:\n  b: [\n  ]\n  \tc: d\n", "4:3: "),
        ("a tab behind a text", "a: b\n\tc: d\n", "2:1: not YAML: while scanning a plain scalar, found a tab\n"),
        ("a tab behind a text and lines without any", "a: b\n\n  \tc: d\n", "3:3: not YAML: "),
        ("a tab in a text of several lines", "a: |\n  b\n\tc\n", "3:1: "),
        ("a tab where a text of several lines begins", "a: >\n\tb\n", "2:1: "),
        ("a tab that is not to blame", "a:\tb\nb: [c\nd: e\n", "3:2: "),
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
        ("nothing", "", "1:1: there is nothing in this file\n    \n    ^ expected at least `upstreams` and `routes`\n"),
        ("a comment", "# a\n", "1:1: there is nothing in this file"),
        ("a list", "- a\n", "1:1: expected a mapping, found a list"),
        ("an empty mapping", "{}", "1:1: `routes` is missing"),
    ] {
        let printed = problems(text);
        assert!(printed.contains(expected), "{name}: {printed}");
    }
}

#[test]
fn what_else_is_wrong_is_told_beside_a_merge_key_and_a_tag() {
    let route = "upstreams: { demo: { builtin: echo } }\nroutes:\n  - { path: /, allow: anyone, to: demo }\n";
    let merged = format!("{route}  - {{ <<: *d, path: /a, to: dmeo }}\n  - {{ <<: [*d, *e], path: /b, bogus: 1 }}\n");
    let anchors = "auth: &d { realm: 5 }\ntokens: &e { realm: a, default_role: b }\n";
    let mut wrong = Vec::new();
    for (name, text, expected) in [
        (
            "each, once",
            format!(
                "timeouts: {{ <<: &t {{ idle: 30 }}, connect: 2s }}\nworkers: !!int x\nlog: {{ acces: off }}\n{route}"
            ),
            &["1:13: merge keys", "1:28: `30` is", "2:10: tags (`!…`)", "3:8: unknown key `acces`"][..],
        ),
        // the keys that are merged are what the mapping would have
        (
            "what is merged is read in its place",
            merged
                .replace("*d, path: /a", "&r { allow: [user] }, path: /a")
                .replace("[*d, *e]", "*r")
                .replace("path: /b,", "path: /b, to: demo,"),
            &["4:7: merge keys", "4:47: unknown upstream `dmeo`", "5:7: merge keys", "5:35: unknown key `bogus`"],
        ),
        (
            "and nothing where it cannot be merged",
            route.replace("{ path: /, allow: anyone, to: demo }", "{ <<: !inc common.yaml, to: dmeo }"),
            &["3:7: merge keys", "3:11: tags (`!…`)", "3:33: unknown upstream `dmeo`"],
        ),
        (
            "a list of mappings is merged",
            format!("{anchors}{route}passwords: {{ <<: [*d, *e] }}\n"),
            &[
                "1:12: unknown key `realm` in `passwords`",
                "1:19: expected text; 5 is",
                "2:14: unknown key `realm` in `passwords`",
                "2:14: unknown key `realm` in `tokens`",
                "2:24: unknown key `default_role` in `passwords`",
                "6:14: merge keys",
            ],
        ),
        (
            "a key that stands beside it wins",
            format!("limits: {{ <<: {{ headers: x }}, headers: 100 }}\n{route}"),
            &["1:11: merge keys"],
        ),
        ("a tag makes a value unknown", route.replace("to: demo", "to: !ref other"), &["3:35: tags (`!…`)"]),
        (
            "a name that nobody can know",
            route.replace("{ demo: { builtin: echo } }", "!include up.yaml"),
            &["1:12: tags"],
        ),
        ("one of several", route.replace("{ demo:", "!include { other:"), &["1:12: tags"]),
        ("a whole route", route.replace("- { path", "- !route { pth"), &["3:5: tags"]),
        (
            "a tag of YAML's own says nothing else",
            route.replace("- { path", "- !!map { pth"),
            &["3:5: tags", "3:11: `path` is missing", "3:13: unknown key `pth`"],
        ),
        (
            "a tag at a key",
            route.replace("path: /,", "!!str path: /, bogus: 1,"),
            &["3:7: tags", "3:22: unknown key `bogus`"],
        ),
    ] {
        let printed = problems(&text);
        let told: Vec<&str> = printed.lines().filter(|line| line.starts_with("gateway.yaml:")).collect();
        let fits =
            told.iter().zip(expected).all(|(line, expected)| line.starts_with(&format!("gateway.yaml:{expected}")));
        if told.len() != expected.len() || !fits {
            wrong.push(format!("{name}: {printed}"));
        }
    }
    none_wrong(&wrong);
    // what is masked stays masked
    let secret = format!(
        "store: !env {{ secret: canary }}\nbootstrap: !x {{ clients: [{{ id: a, secret: !y canary, rols: [] }}] }}\n{route}"
    );
    assert!(!problems(&secret).contains("canary"), "{}", problems(&secret));
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
fn a_pattern_of_another_program_is_warned_of() {
    let warned = |path: &str| {
        let text = format!(
            "upstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  - {{ path: '{path}', allow: authenticated, to: a }}\n"
        );
        check_text(&text, Path::new("."), "a.yaml", &Environment::default()).unwrap().1.to_string()
    };
    for (path, sign) in
        [("/o/*", '*'), ("/orders/:id", ':'), ("/p/.*", '*'), ("/static/*.css", '*'), ("/:v/{id}/x", ':')]
    {
        let printed = warned(path);
        let expected = format!("a.yaml:3:13: warning: `{path}` has a segment with `{sign}`, which stands for itself\n");
        assert!(printed.starts_with(&expected) && printed.contains("`{name}`"), "{printed}");
    }
    for path in ["/o/**", "/{id}", "/v1/orders:cancel", "/a/:", "/a.b/:7"] {
        assert_eq!(warned(path), "", "{path}");
    }
}

/// What is warned of in a file: the place, and what is said with what was meant.
pub(super) fn warnings(text: &str) -> Vec<String> {
    let checked = check_text(text, Path::new("."), "a.yaml", &environment());
    let printed = checked.unwrap_or_else(|problems| panic!("{text}\n{problems}")).1.to_string();
    let lines: Vec<&str> = printed.lines().collect();
    let hint = |line: &str| line.trim().trim_start_matches('^').trim().to_owned();
    let place = |line: &str| line.trim_start_matches("a.yaml:").replace(" warning:", "");
    lines.chunks(3).map(|three| format!("{}; {}", place(three[0]), hint(three[2]))).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_role_that_is_misspelt_is_warned_of_where_it_stands_for_nobody() {
    let route = |path: &str, roles: &str| format!("  - {{ path: {path}, allow: [{roles}], to: a }}\n");
    let expects = |roles: &str| format!("expect: [{{ request: GET /a, as: {{ roles: [{roles}] }}, is: 403 }}]\n");
    let users = |roles: &str| format!("bootstrap: {{ users: [{{ name: u, roles: [{roles}] }}] }}\n");
    let file = |more: &str, routes: &[String]| {
        format!("{more}upstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n{}", routes.concat())
    };
    let issuer = "auth: { issuers: [{ issuer: i, jwks: 'https://i/k', user_prefix: 'i:' }] }\n";
    let nobody = "no route, user or client of this file names the role";
    let mut wrong = Vec::new();
    for (name, text, expected) in [
        (
            "in an expectation",
            file(&expects("amin"), &[route("/a", "admin")]),
            vec![format!("1:43: {nobody} `amin`; did you mean `admin`?")],
        ),
        (
            "in a rule, as it is expected",
            file(&expects("admin"), &[route("/a", "amdin")]),
            vec![format!("1:43: {nobody} `admin`; did you mean `amdin`?")],
        ),
        (
            "in one of two rules",
            file(&expects("admin"), &[route("/a", "admin"), route("/b", "amdin")]),
            vec![
                "5:25: no expectation names the role `amdin`; did you mean `admin`? an expectation that names it says that it is meant".to_owned(),
            ],
        ),
        (
            "like none",
            file(&expects("guest"), &[route("/a", "admin")]),
            vec![format!(
                "1:43: {nobody} `guest`; is it spelt right? for somebody with none of the roles write `{{ roles: [] }}`"
            )],
        ),
        ("nobody at all", file(&expects(""), &[route("/a", "admin")]), vec![]),
        (
            "in one of several rules, of which nothing else says who has what",
            file("", &[route("/a", "admin"), route("/b", "admin"), route("/c", "amdin, admin")]),
            vec!["5:25: no other route names the role `amdin`; did you mean `admin`? an expectation that names it says that it is meant".to_owned()],
        ),
        ("as often as it is not", file("", &[route("/a", "admin"), route("/b", "admins")]), vec![]),
        (
            "a short one, and one that is not nearly the same",
            file("", &["user", "user, uses", "editor", "editor, auditor"].map(|roles| route(&format!("/{}", roles.len()), roles))),
            vec![],
        ),
        (
            "where tokens of others bear roles, in one rule",
            file(issuer, &[route("/a", "admin"), route("/b", "admin"), route("/c", "amin")]),
            vec!["6:25: no other route names the role `amin`; did you mean `admin`? an expectation that names it says that it is meant".to_owned()],
        ),
        (
            "that it is meant is expected",
            file(&expects("amin, admin"), &[route("/a", "admin"), route("/b", "admin"), route("/c", "amin")]),
            vec![],
        ),
        (
            "several expectations",
            file(&expects("amin").replace("}]\n", "}, { request: GET /b, as: { roles: [admin, amin] }, is: 403 }]\n"), &[
                route("/a", "admin"),
            ]),
            vec![format!("1:43: {nobody} `amin`; did you mean `admin`?")],
        ),
        (
            "where tokens of others bear roles",
            file(&format!("{issuer}{}", expects("amin")), &[route("/a", "admin")]),
            vec![format!("2:43: {nobody} `amin`; did you mean `admin`?")],
        ),
        (
            "what is only expected is never suggested",
            file(&format!("{}{}", users("boss"), expects("amin, boss")), &[route("/a", "admin, boss")]),
            vec![
                format!("2:43: {nobody} `amin`; did you mean `admin`?"),
                "5:25: no user or client of this file ever has the role `admin`; is it spelt right? an expectation that names it says that it is meant".to_owned(),
            ],
        ),
        (
            "what a user has, and what is given by default, is named",
            file(&format!("{}{}", users("boss"), expects("boss, user")), &[route("/a", "boss")]),
            vec![],
        ),
        ("what an endpoint is for", file(&expects("introspect"), &[route("/a", "user")]), vec![]),
        (
            "two that differ in case",
            file("", &[route("/a", "admin"), route("/b", "Admin")]),
            vec![
                "4:25: `Admin` and `admin` on line 3 differ in case only, and are two roles; write both alike if they are one".to_owned(),
            ],
        ),
        (
            "of a rule and a user, once",
            file(&users("Admin"), &[route("/a", "admin"), route("/b", "Admin, admin")]),
            vec![
                "4:25: `admin` and `Admin` on line 1 differ in case only, and are two roles; write both alike if they are one".to_owned(),
            ],
        ),
        (
            "of a rule and the default",
            file("tokens: { default_role: User }\n", &[route("/a", "user")]),
            vec![
                "4:25: `user` and `User` on line 1 differ in case only, and are two roles; write both alike if they are one".to_owned(),
            ],
        ),
        (
            "of a rule and an expectation",
            file(&expects("Admin"), &[route("/a", "admin")]),
            vec![
                "4:25: `admin` and `Admin` on line 1 differ in case only, and are two roles; write both alike if they are one".to_owned(),
            ],
        ),
    ] {
        let told = warnings(&text);
        if told != expected {
            wrong.push(format!("{name}: {told:#?}"));
        }
    }
    none_wrong(&wrong);
    // what a variable holds is in no message
    let text = file(&expects("canari"), &[route("/a", "'${CANARY}'")]);
    assert!(!warnings(&text).join("\n").contains("canary"), "{:?}", warnings(&text));
}

#[test]
fn how_many_roles_are_compared_is_bounded_and_each_that_is_wrong_is_told_all_the_same() {
    let many: Vec<String> = (0..3_000).map(|n| format!("r{n:04}")).collect();
    let text = format!(
        "expect: [{{ request: GET /a, as: {{ roles: [{}] }}, is: 403 }}]\nupstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  \
         - {{ path: /a, allow: [{}, guest], to: a }}\n",
        many.join("x, "),
        many.join(", ")
    );
    let told = check_text(&text, Path::new("."), "a.yaml", &environment()).unwrap().1;
    let hints = || told.iter().filter_map(|problem| problem.hint.as_deref());
    let suggested = hints().filter(|hint| hint.contains("did you mean `r")).count();
    assert!((50..100).contains(&suggested), "{suggested}");
    assert!(hints().any(|hint| hint.starts_with("is it spelt right?")));
    assert!(told.count() >= 2_999, "{}", told.count());
}

#[test]
fn each_further_spelling_of_a_role_is_counted_and_the_first_ones_are_told() {
    const SPELLINGS: usize = 2_000;
    let role = "roleofmanyspellings";
    let spelt = |bits: usize| -> String {
        let upper = |index: usize| bits >> index & 1 == 1;
        role.char_indices().map(|(at, c)| if upper(at) { c.to_ascii_uppercase() } else { c }).collect()
    };
    let roles: Vec<String> = (0..SPELLINGS).map(spelt).collect();
    let text = format!(
        "upstreams: {{ a: {{ builtin: echo }} }}\nroutes: [{{ path: /a, to: a, allow: [{}, {role}] }}]\n",
        roles.join(", ")
    );
    let told = check_text(&text, Path::new("."), "a.yaml", &environment()).unwrap().1;
    assert_eq!(told.count(), SPELLINGS - 1);
    assert_eq!(told.iter().count(), 200);
}

#[test]
fn a_default_role_that_no_route_asks_for_is_told_at_itself_and_misleads_nobody() {
    let file = |default: &str, more: &str, roles: &str| {
        format!(
            "tokens: {{ default_role: {default} }}\n{more}endpoints: [{{ path: /r, action: register }}]\nupstreams: {{ a: {{ builtin: echo }} }}\n\
             routes:\n  - {{ path: /a, allow: {roles}, to: a }}\n"
        )
    };
    let users = |roles: &str| format!("bootstrap: {{ users: [{{ name: u, roles: [{roles}] }}] }}\n");
    let expects = |role: &str| format!("expect: [{{ request: GET /a, as: {{ roles: [{role}] }}, is: 200 }}]\n");
    let meant = "an expectation that names it says that it is meant";
    let unasked = |hint: &str| format!("1:25: no route asks for the role `uesr`; {hint} {meant}");
    let mut wrong = Vec::new();
    for (name, text, expected) in [
        (
            "beside a user who has another",
            file("uesr", &users("admin"), "[user, admin]"),
            vec![unasked("did you mean `user`?")],
        ),
        ("beside an expectation", file("uesr", &expects("user"), "[user]"), vec![unasked("did you mean `user`?")]),
        ("where all are had", file("uesr", &users("user, admin"), "[user, admin]"), vec![unasked("did you mean `user`?")]),
        ("like none", file("uesr", &users("admin"), "[admin]"), vec![unasked("is it spelt right?")]),
        (
            "and never suggested for an expectation",
            file("uesr", &expects("usre").replace("200", "403"), "[admin]"),
            vec![
                unasked("is it spelt right?"),
                "2:43: no route, user or client of this file names the role `usre`; is it spelt right? for somebody with none of the roles write `{ roles: [] }`".to_owned(),
            ],
        ),
        (
            "and others are told all the same",
            file("uesr", &users("admin"), "[user, admin, guest]"),
            vec![
                unasked("did you mean `user`?"),
                format!("6:38: no user or client of this file ever has the role `guest`; is it spelt right? {meant}"),
            ],
        ),
        ("that an expectation names", file("uesr", &expects("uesr").replace("200", "403"), "[admin]"), vec![]),
        ("that a route asks for", file("user", &users("admin"), "[user, admin]"), vec![]),
        ("where no route asks for any", file("uesr", "", "authenticated"), vec![]),
        ("that the file leaves out", file("uesr", &users("admin"), "[admin]").replace("default_role: uesr", ""), vec![]),
    ] {
        let told = warnings(&text);
        if told != expected {
            wrong.push(format!("{name}: {told:#?}"));
        }
    }
    none_wrong(&wrong);
    let text = file("'${CANARY}'", "", "[canari]");
    let told = warnings(&text).join("\n");
    assert!(told.contains("no route asks for the role") && !told.contains("canary"), "{told}");
}

#[test]
fn a_role_of_a_client_that_is_nearly_the_one_of_introspection_is_told() {
    let file = |kind: &str, more: &str, allow: &str| {
        let (kind, id) = if kind == "clients" { (kind, "id") } else { (kind, "name") };
        format!(
            "bootstrap: {{ {kind}: [{{ {id}: c, roles: [{more}] }}] }}\nupstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  \
             - {{ path: /a, allow: {allow}, to: a }}\n"
        )
    };
    let told_of = |column: usize, role: &str| {
        format!(
            "1:{column}: no route asks for the role `{role}`; did you mean `introspect`? it is what token introspection asks of a client"
        )
    };
    for (text, expected) in [
        (file("clients", "introspct", "authenticated"), vec![told_of(41, "introspct")]),
        (file("clients", "user, Introspect", "[user]"), vec![told_of(47, "Introspect")]),
        (file("clients", "user, introspection", "[user]"), vec![told_of(47, "introspection")]),
        (file("clients", "user, introspct", "[user, introspct]"), vec![]),
        (file("clients", "introspect", "authenticated"), vec![]),
        (file("clients", "inspect", "authenticated"), vec![]),
        (file("users", "introspct", "authenticated"), vec![]),
    ] {
        assert_eq!(warnings(&text), expected, "{text}");
    }
    let issuer = "auth: { issuers: [{ issuer: i, jwks: 'https://i/k', user_prefix: 'i:' }] }\n";
    let text = file("clients", "introspct", "authenticated");
    assert_eq!(warnings(&format!("{text}{issuer}")), [told_of(41, "introspct")]);
}

#[test]
fn an_admin_listener_off_loopback_is_told() {
    let at = |address: &str| warnings(&format!("admin: {{ address: '{address}' }}\n{LEAST}"));
    for address in ["0.0.0.0:9901", "[::]:9901", "192.0.2.7:0"] {
        let expected = format!(
            "1:19: the admin listener {address} is without TLS and is not loopback; whoever reaches it reads the metrics; \
             keep it on a network that no caller reaches"
        );
        assert_eq!(at(address), [expected]);
    }
    for address in ["127.0.0.1:9901", "127.8.0.1:0", "[::1]:0"] {
        assert_eq!(at(address), Vec::<String>::new(), "{address}");
    }
    assert_eq!(warnings(LEAST), Vec::<String>::new());
}

#[test]
fn a_method_that_no_client_sends_is_told() {
    let with = |methods: &str| with_route(&format!("    allow: authenticated\n    methods: {methods}\n"));
    for name in ["'*'", "ALL", "ANY"] {
        let printed = with(&format!("[{name}]")).unwrap_err().to_string();
        let shown = name.trim_matches('\'');
        let expected = format!("gateway.yaml:6:15: `{shown}` is not a method that anybody sends\n");
        assert!(printed.starts_with(&expected), "{printed}");
        assert!(printed.contains("^ leave `methods` out for all methods\n"), "{printed}");
    }
    let printed = with("['${CANARY}']").unwrap_err().to_string();
    assert!(printed.contains("methods are written in upper case") && !printed.contains("CANARY`"), "{printed}");
    let warned = |methods: &str| {
        warnings(&format!(
            "upstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  - {{ path: /a, allow: authenticated, to: a, methods: {methods} }}\n"
        ))
    };
    for (name, meant) in
        [("GETT", "GET"), ("PSOT", "POST"), ("DELET", "DELETE"), ("OPTION", "OPTIONS"), ("PATHC", "PATCH")]
    {
        let expected = format!("3:62: `{name}` is not a registered method; did you mean `{meant}`?");
        assert_eq!(warned(&format!("[HEAD, {name}]")), [expected]);
    }
    let registered =
        "[GET, POST, PROPFIND, MKCOL, VERSION-CONTROL, QUERY, UNLOCK, PURGE, M-SEARCH, SUBSCRIBE, LIST, BAN]";
    assert_eq!(warned(registered), Vec::<String>::new());
    // an expectation about a method that nobody sends would be met by a 405, and one in lower case gets a 400
    let rules = LEAST.replace("allow", "methods: [GET], allow");
    for (request, status, told) in [
        ("GTE /", 405, vec!["1:21: `GTE` is not a registered method; did you mean `GET`?"]),
        ("ALL /", 405, vec!["1:21: `ALL` is not a method that anybody sends; name one, such as `GET`"]),
        ("'* /'", 405, vec!["1:21: `*` is not a method that anybody sends; name one, such as `GET`"]),
        ("get /", 400, vec![]),
        ("PUT /", 405, vec![]),
    ] {
        let text = format!("expect: [{{ request: {request}, as: anyone, is: {status} }}]\n{rules}");
        assert_eq!(warnings(&text), told);
    }
}
