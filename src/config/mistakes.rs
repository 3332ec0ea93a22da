//! Every kind of mistake that a person makes, with exactly what the person is told; kept in `tests/data`.

use std::fmt::Write as _;
use std::path::Path;

use super::tests::{LEAST, OTHER_WAYS, WHOLE};
use super::tree::{Node, Value};
use super::{Environment, check, load_text, report, tree};

/// What is printed of a file: its problems, or else what is probably a mistake.
fn told(text: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    std::fs::write(&file, text).unwrap();
    let printed = match check(&file, &Environment::default()) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(problems) => problems.to_string(),
    };
    printed.replace(&format!("{}/", directory.path().display()), "")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mistake_is_told_with_its_place_and_what_was_expected() {
    let route = |more: &str| {
        format!(
            "upstreams:\n  orders: {{ builtin: echo }}\nroutes:\n  - path: /orders/{{id}}\n    to: orders\n{more}\n"
        )
    };
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let mut all = String::new();
    for (mistake, text) in [
        ("an unknown upstream", LEAST.replace("to: demo", "to: dmeo")),
        ("an unknown scheme", route("    allow: authenticated\n    schemes: [bearrer]")),
        (
            "a role that nobody has",
            format!("bootstrap: {{ users: [{{ name: a, roles: [admin] }}] }}\n{}", route("    allow: [amdin]")),
        ),
        (
            "a role that looks like one of an expectation",
            format!(
                "expect: [{{ request: GET /orders/7, as: {{ roles: [admin] }}, is: 403 }}]\n{}",
                route("    allow: [amdin, editor]")
            ),
        ),
        (
            "a role that nothing but an expectation names",
            format!(
                "expect: [{{ request: GET /orders/7, as: {{ roles: [amin] }}, is: 403 }}, {{ request: GET /orders/7, as: {{ roles: [guest] }}, is: 403 }}]\n{}",
                route("    allow: [admin]")
            ),
        ),
        ("roles that differ in case only", route("    allow: [admin, Admin]")),
        (
            "a default role that no route asks for",
            format!("tokens: {{ default_role: uesr }}\n{}", route("    allow: [user, admin]")),
        ),
        ("nobody is named", route("")),
        ("a role where a list belongs", route("    allow: admin")),
        ("an impossible pattern", LEAST.replace("path: /", "path: /a/../b")),
        ("a placeholder in a part of a segment", LEAST.replace("path: /", "path: '/a{id}'")),
        ("a prefix in the middle", LEAST.replace("path: /", "path: /**/a")),
        ("a method in lower case", route("    allow: anyone\n    methods: [get]")),
        ("a method that stands for all", route("    allow: anyone\n    methods: ['*']")),
        ("a method that is misspelt", route("    allow: authenticated\n    methods: [GETT, HEAD]")),
        ("routes that tie", route("    allow: anyone\n  - { path: '/orders/{other}', allow: [admin], to: orders }")),
        ("a duration without its unit", format!("timeouts: {{ idle: 30 }}\n{LEAST}")),
        ("a size with another unit", format!("limits: {{ header_bytes: 64KB }}\n{LEAST}")),
        ("a rate without its unit", route("    allow: anyone\n    rate: { rate: 10 }")),
        ("an address without its port", format!("listeners: [{{ address: localhost }}]\n{LEAST}")),
        ("a number where text belongs", format!("auth: {{ realm: 5 }}\n{LEAST}")),
        ("an environment variable that is not set", format!("auth: {{ realm: '${{REALM}}' }}\n{LEAST}")),
        (
            "a file that is not there",
            format!("bootstrap: {{ users: [{{ name: a, password: {{ file: password.txt }} }}] }}\n{LEAST}"),
        ),
        ("a secret in clear text", format!("bootstrap: {{ clients: [{{ id: a, secret: canary-canary }}] }}\n{LEAST}")),
        (
            "a secret in clear text as a default",
            format!("bootstrap: {{ clients: [{{ id: a, secret: '${{UNSET:-canary-canary}}' }}] }}\n{LEAST}"),
        ),
        ("a password in a URL as a default", format!("store: 'postgres://u:${{UNSET:-canary}}@db/x'\n{LEAST}")),
        ("a password in a URL", format!("store: postgres://gate:canary-canary@db/gate\n{LEAST}")),
        (
            "a password in a URL's query",
            format!("store: {{ url: 'mysql://db/gate?user=gate&password=canary' }}\n{LEAST}"),
        ),
        (
            "a password in a URL that nothing escapes",
            format!("store: {{ url: 'postgres://gate:can/ary-canary@db/gate' }}\n{LEAST}"),
        ),
        (
            "a credential that a route sets",
            route(
                "    allow: anyone\n    request_headers: { set: { Authorization: Basic canary, X-Api-Key: '${KEY:-canary}' } }",
            ),
        ),
        (
            "a password that nobody could choose later",
            format!(
                "bootstrap: {{ users: [{{ name: a, password: '${{P:-canary}}' }}, {{ name: b, password: '${{P:-canary12}}' }}] }}\n{LEAST}"
            ),
        ),
        (
            "a secret of tokens that is short",
            format!(
                "auth: {{ jwt: {{ keys: [{{ id: a, algorithm: HS256, secret: '${{KEY:-canary}}' }}] }} }}\n{LEAST}"
            ),
        ),
        (
            "an issuer whose users may be called as ours",
            format!(
                "bootstrap: {{ users: [{{ name: a, roles: [user] }}] }}\nauth:\n  issuers:\n    - {{ issuer: one, jwks: \
                 'https://one/k', audience: [a] }}\n    - {{ issuer: two, jwks: 'https://two/k', audience: [a], user_prefix: 'two:' }}\n{LEAST}"
            ),
        ),
        ("a listener without TLS", format!("listeners: [{{ address: '0.0.0.0:80' }}]\n{LEAST}")),
        ("an admin listener off loopback", format!("admin: {{ address: '0.0.0.0:9901' }}\n{LEAST}")),
        (
            "an open path below a closed one",
            route(
                "    allow: [admin]\n  - { path: /orders/**, allow: [admin], to: orders }\n  - { path: /orders/x, allow: anyone, to: orders }",
            ),
        ),
        (
            "an open path below a closed prefix with a placeholder, and of one of two hosts",
            route(
                "    allow: [admin]\n  - { path: '/{tenant}/admin/**', allow: [admin], to: orders }\n  - { path: /acme/admin/export, allow: anyone, to: orders }\n  - { path: /acme/**, allow: anyone, to: orders }\n  - { path: /x/**, hosts: [a.example], allow: [admin], to: orders }\n  - { path: /x/**, hosts: [b.example], allow: [admin], to: orders }\n  - { path: /x/y, hosts: [b.example], allow: anyone, to: orders }\n  - { path: '/{any}/**', allow: anyone, to: orders }",
            ),
        ),
        (
            "a route that never matches",
            route("    allow: anyone\n  - { path: /oauth/token, allow: anyone, to: orders }"),
        ),
        (
            "methods that fall to a route of the same path",
            route("    methods: [GET]\n    allow: [admin]\n  - { path: '/orders/{key}', allow: anyone, to: orders }"),
        ),
        (
            "methods that are split",
            route(
                "    methods: [GET]\n    allow: [admin]\n  - { path: '/orders/{id}', methods: [POST], allow: anyone, to: orders }",
            ),
        ),
        ("everybody as a role", route("    allow: ['@anyone', '@authenticated', a@b]")),
        ("several roles as one", route("    allow: ['admin, user']")),
        (
            "access by variables",
            format!(
                "tokens: {{ default_role: '${{R:-user}}' }}\nbootstrap: {{ users: [{{ name: a, roles: [user, '${{R:-user}}'] }}] }}\n{}",
                route("    methods: ['${M:-GET}']\n    hosts: ['${H:-a.example}']\n    allow: '${A:-anyone}'")
            ),
        ),
        (
            "access by variables, of credentials and of what is done",
            format!(
                "trusted_proxies: ['${{P:-10.0.0.0/8}}']\nauth: {{ schemes: ['${{S:-bearer}}'] }}\n{}",
                route(
                    "    allow: authenticated\n    scopes: ['${C:-read}']\n    schemes: ['${S:-bearer}']\n    strip_prefix: '${X:-/orders}'"
                )
                .replace("to: orders", "to: '${T:-orders}'")
                // where servers are is what variables are for
                .replace("builtin: echo", "servers: ['${U:-http://127.0.0.1:9}']")
            ),
        ),
        (
            "access by variables, of what is believed and answered",
            format!(
                "auth: {{ jwt: {{ audience: ['${{A:-orders}}'], require_exp: '${{E:-false}}' }} }}\npaths: {{ semicolon: '${{S:-keep}}' }}\n\
                 limits: {{ unauthenticated: '${{U:-off}}' }}\nidentity_headers: '${{I:-remote}}'\n\
                 endpoints: [{{ path: /t, action: '${{T:-oauth_token}}', password_grant: '${{G:-true}}' }}]\n\
                 expect: [{{ request: GET /x, as: anyone, is: '${{X:-404}}' }}]\n{}",
                route(
                    "    allow: anyone\n    forward_credentials: '${F:-true}'\n    cors: { origins: ['${O:-https://a.example}'] }\n    timeout: '${N:-5s}'"
                )
            ),
        ),
        ("a tunnel", route("    methods: [GET, CONNECT]\n    allow: anyone")),
        ("nothing but a tunnel", route("    methods: [CONNECT]\n    allow: anyone")),
        (
            "methods that fall",
            route("    methods: [POST]\n    allow: [admin]\n  - { path: /orders/**, allow: [user], to: orders }"),
        ),
        (
            "methods that fall to a route without the scope",
            route(
                "    methods: [DELETE]\n    allow: [user]\n    scopes: [w]\n  - { path: /orders/**, allow: [user], to: orders }",
            ),
        ),
        ("an expectation of another status", format!("expect: [{{ request: GET /, as: anyone, is: 201 }}]\n{LEAST}")),
        ("an expectation without a method", format!("expect: [{{ request: /a, as: anyone, is: 200 }}]\n{LEAST}")),
        ("a tab", "routes:\n\t- path: /a\n".to_owned()),
        ("a wrong indent", "routes:\n    - path: /a\n  - path: /b\n".to_owned()),
        ("a bracket that is not closed", "routes: [a\nb: c\n".to_owned()),
        ("a quote that is not closed", "routes: \"a\n".to_owned()),
        ("a colon in a text", "store: sqlite: a\n".to_owned()),
        ("a tab beside spaces", "upstreams:\n  a: { builtin: echo }\n\tb: { builtin: echo }\n".to_owned()),
        ("a tab behind a text", "routes:\n  - path: /a\n\tallow: anyone\n".to_owned()),
        ("an indent too deep", "routes:\n  - path: /a\n      allow: anyone\n    to: a\n".to_owned()),
        ("a duplicate key", format!("{LEAST}upstreams: {{}}\n")),
        ("two documents", format!("{LEAST}---\na: b\n")),
        (
            "an anchor that is used",
            LEAST.replace("demo: { builtin: echo }", "demo: &demo { builtin: echo }, other: *demo"),
        ),
        ("a merge key", format!("a: &x {{ b: c }}\nd: {{ <<: *x }}\n{LEAST}")),
        ("a tag", "routes: !!seq []\n".to_owned()),
        (
            "a merge key and a tag among other mistakes",
            format!(
                "timeouts: {{ idle: !!int 30, connect: 2 }}\nlimits: {{ <<: !include limits.yaml, headrs: 5 }}\n{}",
                LEAST.replace("builtin: echo", "servers: !secret servers").replace("to: demo", "to: dmeo")
            ),
        ),
        ("an alias of nothing", "routes: *x\n".to_owned()),
        ("aliases that multiply", bomb),
        ("nesting without end", deep),
        ("nothing at all", String::new()),
        ("nothing but a comment", "# later\n".to_owned()),
        ("no routes", "upstreams: {}\n".to_owned()),
        ("a text where a list belongs", route("    allow: anyone\n    methods: GET\n    hosts: a.example")),
        ("several in one text", route("    allow: anyone\n    methods: ['GET, POST']")),
        ("a mapping where a list belongs", "upstreams: {}\nroutes:\n  /orders:\n    allow: anyone\n".to_owned()),
        ("a list where names belong", "upstreams:\n  - servers: ['http://127.0.0.1:9']\nroutes: []\n".to_owned()),
        (
            "a word where a mapping belongs",
            format!(
                "admin: 127.0.0.1:9901\nlimits: {{ unauthenticated: 10/s }}\n{}",
                route("    allow: anyone\n    rate: 10/s\n    cors: true\n  -")
            ),
        ),
        ("a name where an address belongs", format!("listeners: [{{ address: 'localhost:8080' }}, {{ address: 8080 }}]\n{LEAST}")),
        ("a pattern of hosts", route("    allow: anyone\n    hosts: ['*.example.com']")),
        ("an expectation of a word", format!("expect: [{{ request: GET /, as: anyone, is: refused }}]\n{LEAST}")),
        ("a colon without a space", route("    allow:anyone")),
        ("characters that mean something to YAML", format!("{LEAST}tokens: {{ default_role: @user }}\n")),
        ("a star that is no text", format!("{LEAST}trusted_proxies: [*]\n")),
        ("a percent sign", format!("{LEAST}store: %2F\n")),
        ("a space that is none", "upstreams: {}\nroutes:\n  - path: /a\n   \u{a0}to: api\n".to_owned()),
        ("typographic quotes", route("    allow: [“admin”, ‘a’, editor]")),
        ("a path in typographic quotes", LEAST.replace("path: /", "path: “/a”")),
        ("a role with a character that nobody sees", route("    allow: ['adm\u{200b}in', 'first\u{a0}line']")),
        ("a role in letters that look like others", route("    allow: [\u{430}dmin]")),
        (
            "what says nothing where anyone may",
            route("    allow: anyone\n    schemes: [basic]\n    rate: { rate: 1/s, burst: 1, by: principal }"),
        ),
        (
            "placeholders that nobody knows",
            format!(
                "tokens: {{ claims: {{ id: '{{usr}}' }} }}\nerrors: {{ messages: {{ no_route: {{ text: '{{methd}}' }} }} }}\n\
                 endpoints: [{{ path: /l, action: login, reply: {{ t: '{{acess}}', x: '{{id}}' }} }}]\n{LEAST}"
            ),
        ),
        (
            "a variable without braces",
            format!(
                "auth: {{ realm: cost-in-$ }}\nbootstrap: {{ users: [{{ name: a, password: $ADMIN_PASSWORD, roles: [user] }}] }}\n{}",
                route("    allow: [user]\n    request_headers: { set: { X-A: 'a/$(TENANT)', X-B: 'US$5 $a' } }")
            ),
        ),
        ("an upstream without servers", LEAST.replace("builtin: echo", "balance: round_robin")),
        ("a list", "- a\n".to_owned()),
    ] {
        writeln!(all, "# {mistake}\n{}", told(text.as_bytes())).unwrap();
    }
    let latin1 = b"upstreams: { b\xfcro: { builtin: echo } }\nroutes: []\n";
    writeln!(all, "# a file that is not UTF-8\n{}", told(latin1)).unwrap();
    assert!(!all.contains("canary"), "{all}");
    same_as_kept("mistakes.txt", &all);
}

#[test]
fn what_was_not_looked_at_is_told() {
    let mut text = "upstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
    for n in 0..60 {
        writeln!(text, "  - {{ path: '/l{n}/{{x}}', methods: [GET], allow: [r], to: a }}").unwrap();
        writeln!(text, "  - {{ path: '/{{x}}/m{n}', allow: anyone, to: a }}").unwrap();
    }
    // 60 times 60 pairs fall, and no more than 200 are printed
    let told_of = |text: &str| told(text.as_bytes());
    let falls =
        "warning: which methods fall to a wider route was not looked at from `/l16/{x}` on: too many routes overlap\n";
    assert!(told_of(&text).contains(falls), "{}", told_of(&text));
    assert!(told_of(&text).ends_with("and 801 more\n"));
    let mut text = "upstreams: { a: { builtin: echo } }\nroutes:\n".to_owned();
    for n in 0..1_450 {
        writeln!(text, "  - {{ path: '/l{n}/{{x}}/**', allow: [r], to: a }}").unwrap();
        writeln!(text, "  - {{ path: '/{{x}}/m{n}', allow: anyone, to: a }}").unwrap();
    }
    let open =
        "warning: which open routes lie below a restricted prefix was not looked at from `/{x}/m1379` on: too many";
    assert!(told_of(&text).contains(open), "{}", told_of(&text));
}

/// Compares with what is kept in `tests/data`. What is told now is written beside, to be taken over where it is better.
fn same_as_kept(name: &str, told: &str) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = std::fs::read_to_string(project.join("tests/data").join(name)).unwrap_or_default();
    if kept != told {
        let now = project.join("target").join(name);
        std::fs::write(&now, told).unwrap();
        panic!("tests/data/{name} is not what is told now: see {}", now.display());
    }
}

/// The place of every key, deepest last.
fn keys<'n>(node: &'n Node, path: &str, found: &mut Vec<(String, report::Place, &'n str)>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                found.push((path.clone(), entry.place, &entry.key));
                keys(&entry.value, &path, found);
            }
        }
        Value::List(items) => items.iter().for_each(|item| keys(item, path, found)),
        Value::Scalar(_) => {}
    }
}

#[test]
fn a_typing_mistake_in_any_key_is_told_at_that_key() {
    let mut all = String::new();
    for text in [WHOLE, OTHER_WAYS] {
        let root = tree::parse(text, &mut report::Report::default()).unwrap();
        let mut found = Vec::new();
        keys(&root, "", &mut found);
        for (path, place, key) in found {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let line = &mut lines[place.line - 1];
            let end = place.column - 1 + key.len();
            line.insert(end, key.chars().next_back().unwrap());
            let result = load_text(&lines.join("\n"), Path::new("/nowhere"), "gateway.yaml", &Environment::default());
            let problems = result.map_or_else(|problems| problems.to_string(), |_| String::new());
            let start = format!("gateway.yaml:{}:{}: ", place.line, place.column);
            // names that the user chooses have no wrong spelling
            let mut told = problems.lines().skip_while(|line| !line.starts_with(&start));
            if let Some(message) =
                told.next().and_then(|line| line.strip_prefix(&start)).filter(|text| text.contains("unknown"))
            {
                let hint = told.nth(1).unwrap_or_default().trim().trim_start_matches("^ ");
                writeln!(all, "{path}: {message}; {hint}").unwrap();
            }
        }
    }
    same_as_kept("misspelt_keys.txt", &all);
}
