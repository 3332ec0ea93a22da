//! `explain` against the gateway that serves the same file: what is sent, what comes back, for many files and requests.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rules::explain;
use crate::support::RULES;
use crate::support::{Gateway, Request, Response, Setup, Upstream};

/// A head with the values of its ids left out: each request has its own.
fn without_ids(head: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name @ ("x-request-id" | "traceparent"), _)) => format!("{name}: …"),
        Some(_) | None => line.to_owned(),
    };
    head.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn what_is_explained_to_be_sent_is_sent_byte_for_byte() {
    let upstream = Upstream::hello();
    let routes = "
  - path: /edited/**
    allow: authenticated
    strip_prefix: /edited
    request_headers: { set: { X-Tenant: blue, X-B: '1' }, remove: [Accept, X-Gone] }
    to: api
  - { path: /open, allow: anyone, to: api }
";
    for trusted in ["", "trusted_proxies: [127.0.0.1]\n"] {
        let rules = format!("{trusted}{RULES}{routes}").replace("http://127.0.0.1:9", &upstream.url());
        let gateway = Gateway::start(&rules);
        for (method, path, fields) in [
            ("GET", "/orders/%37?a=b%20c", &[][..]),
            ("HEAD", "/orders", &["X-A: 1", "X-A: 2", "Accept: text/html;q=0.5"]),
            ("POST", "/edited/x/%41/?q", &["Accept: */*", "X-Gone: 1", "X-B: 2", "X-Tenant: red"]),
            ("PUT", "/edited", &["Connection: close, X-Gone", "X-Gone: 1", "Keep-Alive: 5", "X-Auth-User: root"]),
            ("GET", "/me", &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Request-Id: mine", "X_Y: 1"]),
            ("DELETE", "/me", &["Te: trailers", "Trailer: X-A", "Content-Type: a/b", "X-Real-Ip: ::1"]),
            (
                "GET",
                "/open",
                &["Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate: a=b"],
            ),
            ("PATCH", "/open", &["Cache-Control: no-cache", "Forwarded: for=192.0.2.1"]),
        ] {
            let url = format!("http://localhost{path}");
            let mut arguments = vec![method, &url, "--user", "user", "--json"];
            arguments.extend(fields.iter().flat_map(|field| ["--header", field]));
            let said = explain(&gateway.setup, &arguments).expect(0).json();
            let mut request = Request::new(method, path);
            for field in fields {
                let (name, value) = field.split_once(": ").unwrap();
                request = request.header(name, value);
            }
            let response = gateway.send(&request.basic("user", "userpassword")).expect(200);
            let head = said["forwarded_head"].as_str().unwrap();
            assert_eq!(without_ids(head), without_ids(&upstream.last().head), "{method} {path} {trusted}");
            if head.contains("x-request-id: mine") {
                assert_eq!(response.header("X-Request-Id"), Some("mine"));
            }
        }
    }
}

/// The fields of a response that the gateway makes, but for what is of the connection or the moment.
fn fields(response: &Response) -> Vec<(String, String)> {
    let of_the_moment = ["date", "content-length", "x-request-id", "connection"];
    let lower = response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields: Vec<_> = lower.filter(|(name, _)| !of_the_moment.contains(&name.as_str())).collect();
    fields.sort();
    fields
}

fn said_fields(said: &Value) -> Vec<(String, String)> {
    let list = said["response"]["headers"].as_array().unwrap_or_else(|| panic!("{said}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut fields: Vec<_> = list.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    fields.retain(|(name, _)| name != "x-request-id");
    fields.sort();
    fields
}

#[test]
fn what_the_caller_is_explained_to_get_is_what_comes() {
    let upstream = Upstream::hello();
    let routes = "
  - path: /page
    allow: [user]
    methods: [GET, PUT]
    response_headers: { set: { Cache-Control: no-store, X-Frame-Options: DENY }, remove: [Server, Content-Type] }
    cors: { origins: ['https://app.example.com'], headers: [X-A], max_age: 10m, credentials: true }
    to: api
";
    let gateway = Gateway::start(&format!("{RULES}{routes}").replace("http://127.0.0.1:9", &upstream.url()));
    let origin = "Origin: https://app.example.com";
    let asked = "Access-Control-Request-Method: PUT";
    for (outcome, method, path, headers) in [
        ("preflight", "OPTIONS", "/page", &[origin, asked][..]),
        ("preflight", "OPTIONS", "/page", &["Origin: https://evil.example", asked]),
        ("refused", "OPTIONS", "/page", &[origin]),
        ("refused", "GET", "/page", &[origin]),
        ("refused", "GET", "/page", &[]),
        ("refused", "GET", "/page", &[origin, "Accept: application/problem+json"]),
        ("refused", "POST", "/orders/7", &[]),
        ("refused", "GET", "/orders//7", &[]),
        ("refused", "GET", "/x", &["Accept: application/problem+json"]),
        ("refused", "GET", "/oauth/token", &[]),
    ] {
        let mut arguments = vec![method, path, "--anyone", "--json"];
        arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
        let said = explain(&gateway.setup, &arguments).json();
        assert_eq!(said["outcome"], outcome, "{method} {path} {headers:?}: {said}");
        let request = headers.iter().filter_map(|header| header.split_once(": "));
        let request = request.fold(Request::new(method, path), |request, (name, value)| request.header(name, value));
        let response = gateway.send(&request);
        assert_eq!(said["status"], response.status, "{method} {path}: {said}");
        assert_eq!(said["response"]["status"], response.status);
        assert_eq!(said_fields(&said), fields(&response), "{method} {path} {headers:?}");
    }
    let passed =
        explain(&gateway.setup, &["GET", "/page", "--user", "user", "--header", origin, "--json"]).expect(0).json();
    let response = gateway
        .send(&Request::new("GET", "/page").header("Origin", "https://app.example.com").basic("user", "userpassword"));
    for (name, value) in said_fields(&passed) {
        assert_eq!(response.header(&name), Some(&*value), "{name}");
    }
    assert_eq!(passed["response"]["appended"], json!([["vary", "Origin"]]));
    assert_eq!(response.header("Vary"), Some("Origin"));
    let removed = passed["response"]["removed"].as_array().unwrap();
    assert!(removed.contains(&json!("content-type")) && removed.contains(&json!("access-control-allow-methods")));
    assert_eq!(response.header("Content-Type"), None);
    let text = explain(&gateway.setup, &["GET", "/page", "--user", "user", "--header", origin]).expect(0).stdout;
    for part in ["x-frame-options: DENY", "access-control-allow-origin: https://app.example.com", "vary: Origin"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn outcomes_are_a_closed_set() {
    let setup = Setup::new(RULES);
    for (arguments, code, outcome) in [
        (&["GET", "/health"][..], 0, "forwarded"),
        (&["GET", "/me", "--role", "x"], 0, "forwarded"),
        (&["GET", "/me", "--anyone"], 1, "refused"),
        (&["GET", "/me"], 0, "depends"),
        (&["POST", "/oauth/token"], 0, "answered"),
        (&["PUT", "/oauth/token"], 1, "refused"),
    ] {
        let mut all = arguments.to_vec();
        all.push("--json");
        assert_eq!(explain(&setup, &all).expect(code).json()["outcome"], outcome, "{arguments:?}");
    }
    let answered = explain(&setup, &["POST", "/oauth/token", "--json"]).json();
    assert_eq!(answered["endpoint"], json!({ "path": "/oauth/token", "action": "oauth_token" }));
    let depends = explain(&setup, &["GET", "/orders/7", "--json"]).json();
    assert_eq!((&depends["allow"], &depends["scopes"]), (&json!(["user", "admin"]), &json!([])));
    assert_eq!(depends["schemes"], json!(["basic", "token", "bearer"]));
    let refused = explain(&setup, &["GET", "/orders/7", "--role", "guest", "--json"]).json();
    assert_eq!(refused["lacks"]["roles"], json!(["user", "admin"]));
    assert_eq!(refused["caller"]["roles"], json!(["guest"]));
    for header in ["Host: a", "Authorization: Basic x", "Transfer-Encoding: chunked", "no field", ": a", "A: \u{7f}"] {
        explain(&setup, &["GET", "/me", "--header", header]).expect(2);
    }
}

#[test]
fn a_role_does_not_reach_what_decides_nothing() {
    let routes = "
  - { path: /oauth/token, allow: [user], to: api }
  - { path: '/m/{x}', allow: [user], to: api }
  - { path: /m/a, methods: [GET], allow: [user], to: api }
  - { path: /m/a, methods: [GET], hosts: [h], allow: [user], to: api }
";
    let reach = explain(&Setup::new(&format!("{RULES}{routes}")), &["--role", "user"]).expect(0).stdout;
    assert!(!reach.contains("/oauth/token"), "{reach}");
    assert!(reach.contains("/m/{x}") && reach.contains("/m/a") && reach.contains("/orders/**"), "{reach}");
}

/// A small generator of its own, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn pick<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len())]
    }
}

/// Routes of distinct patterns, so that none ties with another.
fn some_rules(random: &mut Random) -> String {
    let policies = ["", "paths: { semicolon: keep }\n", "paths: { encoded_slash: keep, empty_segments: merge }\n"];
    let mut text = random.pick(&policies).to_owned();
    text.push_str("endpoints: [{ path: /a/in, action: login }]\n");
    text.push_str("bootstrap: { users: [{ name: user, password: '${PW:-userpassword}', roles: [user] }] }\n");
    text.push_str("upstreams: { api: { servers: ['http://127.0.0.1:9'] } }\nroutes:\n");
    let patterns = [
        "/", "/a", "/a/", "/a/b", "/a/{x}", "/{x}/b", "/a/**", "/{x}/**", "/**", "/a/{x}/c", "/b;c", "/a/in", "/a%2Fb",
    ];
    for path in patterns {
        if random.below(3) == 0 {
            continue;
        }
        let methods = random.pick(&["", "", "methods: [GET], ", "methods: [POST, PUT], ", "methods: [OPTIONS], "]);
        let hosts = random.pick(&["", "", "", "hosts: [localhost], ", "hosts: [other], "]);
        let who = random.pick(&["anyone", "authenticated", "[user]", "[admin]", "[user, admin]"]);
        let more = random.pick(&[
            "",
            "",
            "scopes: [w], ",
            "schemes: [bearer], ",
            "cors: { origins: ['*'] }, ",
            "cors: { origins: ['*'] }, ",
        ]);
        let more = if who == "anyone" && !more.starts_with("cors") { "" } else { more };
        writeln!(text, "  - {{ path: '{path}', {methods}{hosts}{more}allow: {who}, to: api }}").unwrap();
    }
    writeln!(text, "  - {{ path: /last, allow: [admin], cors: {{ origins: ['*'] }}, to: api }}").unwrap();
    text
}

#[test]
fn explain_never_disagrees_with_the_gateway() {
    let upstream = Upstream::hello();
    let mut random = Random(20_261_121);
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let rules = some_rules(&mut random);
        let gateway = Gateway::start(&rules.replace("http://127.0.0.1:9", &upstream.url()));
        for _ in 0..30 {
            let method = random.pick(&["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"]);
            let depth = 1 + random.below(3);
            let segments = ["a", "b", "c", "in", "b;c", "%61", "a%2Fb", "", "..", "%2e", "x%00", "x", "last", "last"];
            let path: String = (0..depth).map(|_| format!("/{}", random.pick(&segments))).collect();
            let host = random.pick(&["localhost", "other", "LOCALHOST:1", "bad_host!"]);
            let (user, preflight) = (random.below(2) == 0, random.below(4) == 0);
            let method = if preflight && random.below(3) > 0 { "OPTIONS" } else { method };
            let mut request = Request::new(method, &path).header("Host", host);
            let url = format!("http://{host}{path}");
            let mut arguments = vec![method, &url, "--json"];
            arguments.extend(if user { &["--user", "user", "--scheme", "basic"][..] } else { &["--anyone"] });
            if preflight {
                let fields = [("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "GET")];
                request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
                arguments.extend(["--header", "Origin: https://app.example.com"]);
                arguments.extend(["--header", "Access-Control-Request-Method: GET"]);
            }
            if user {
                request = request.basic("user", "userpassword");
            }
            let said = explain(&gateway.setup, &arguments).json();
            let status = gateway.send(&request).status;
            statuses.insert(status);
            let what = format!("{method} {path} on {host}, user: {user}, preflight: {preflight}, {said}\n{rules}");
            match said["outcome"].as_str().unwrap() {
                "forwarded" => assert_eq!(status, 200, "{what}"),
                "refused" | "preflight" => assert_eq!(said["status"], status, "{what}"),
                // an endpoint refuses in its own words what it was not asked properly
                "answered" => assert!([400, 401, 415].contains(&status), "{status}: {what}"),
                other => panic!("{other}: {what}"),
            }
        }
    }
    for status in [200, 204, 400, 401, 403, 404, 405] {
        assert!(statuses.contains(&status), "no request met {status}: {statuses:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_stops_no_command() {
    let setup = Setup::new(RULES);
    setup.write("wider.yaml", RULES.replace("[user, admin]", "[user, admin, guest]"));
    setup.write("bad.yaml", "routes: []\nx: 1\n");
    setup.write("api.yaml", "openapi: 3.1.0\npaths: { /a: { get: {} } }\n");
    for (arguments, code) in [
        (&["check", "gateway.yaml"][..], 0),
        (&["check", "bad.yaml"], 1),
        (&["check", "bad.yaml", "--format", "sarif"], 1),
        (&["diff", "gateway.yaml", "wider.yaml"], 0),
        (&["diff", "gateway.yaml", "wider.yaml", "--json", "--fail-on-widening"], 1),
        (&["test", "gateway.yaml", "--coverage"], 0),
        (&["explain", "gateway.yaml", "GET", "/me"], 0),
        (&["explain", "bad.yaml", "GET", "/me"], 2),
        (&["explain", "gateway.yaml", "--role", "user"], 0),
        (&["schema"], 0),
        (&["import", "openapi", "api.yaml"], 0),
        (&["user", "list", "--config", "gateway.yaml"], 0),
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let mut command = setup.command();
        command.args(arguments).stdin(std::process::Stdio::null());
        let end = command.stdout(closed()).output().unwrap();
        let complaint = String::from_utf8_lossy(&end.stderr);
        assert_eq!(end.status.code(), Some(code), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("panicked") && !complaint.contains("pipe"), "{arguments:?}: {complaint}");
        let mut command = setup.command();
        command.args(arguments).stdin(std::process::Stdio::null());
        let end = command.stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(end.code(), Some(code), "{arguments:?}, nobody hears of anything");
    }
}
