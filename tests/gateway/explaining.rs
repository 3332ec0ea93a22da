//! `explain` against the gateway that serves the same file: what is sent, what comes back, for many files and requests.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rules::explain;
use crate::support::RULES;
use crate::support::client::basic;
use crate::support::{Gateway, Request, Response, Setup, Signer, Upstream};

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
fn fields_of(response: &Response) -> Vec<(String, String)> {
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
        assert_eq!(said_fields(&said), fields_of(&response), "{method} {path} {headers:?}");
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

/// A head that is too large, or a listener that redirects: no rule is asked, and `explain` says so.
#[test]
fn what_a_listener_answers_by_itself_is_explained() {
    let free = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [http, https] = free.map(|listener| listener.local_addr().unwrap());
    let limits = "limits: { headers: 5, header_bytes: 4KiB, token_endpoints: { per_address: off } }\n";
    let redirecting = format!(
        "listeners: [{{ address: '{http}', redirect: https }}, {{ address: '{https}', tls: {{ self_signed: [localhost] }} }}]\n"
    );
    let rules = "upstreams: { api: { builtin: echo } }\nroutes: [{ path: '/**', allow: anyone, to: api }]\n";
    let (large, larger) = (format!("X: {}", "a".repeat(4_000)), format!("X: {}", "a".repeat(4_200)));
    let (long, longer) = (format!("/{}", "a".repeat(5_000)), format!("/{}", "a".repeat(70_000)));
    let grpc = "Content-Type: application/grpc";
    let problem = "Accept: application/problem+json";
    let cases = |listeners: &str, expected: &[(&str, &[&str], u16)]| {
        let setup = Setup::new(&format!("{listeners}{limits}{rules}"));
        let gateway = setup.start();
        let port = gateway.address().port();
        for (path, headers, status) in expected {
            let url = format!("http://localhost:{port}{path}");
            let mut arguments = vec!["GET", &url, "--anyone", "--json"];
            arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
            let mut request = Request::new("GET", path).header("Host", &format!("localhost:{port}"));
            for (name, value) in headers.iter().filter_map(|header| header.split_once(": ")) {
                request = request.header(name, value);
            }
            let what = format!("{} {}", &path[..path.len().min(20)], headers.len());
            let response = gateway.send(&request);
            assert_eq!(response.status, *status, "{what}");
            let said = explain(&setup, &arguments).expect(i32::from(*status != 200)).json();
            if *status == 200 {
                assert_eq!(said["outcome"], "forwarded", "{what}: {said}");
                continue;
            }
            assert_eq!((&said["outcome"], &said["status"]), (&json!("refused"), &json!(status)), "{what}: {said}");
            assert_eq!(
                said["error"],
                serde_json::from_slice::<Value>(&response.body).unwrap_or_default()["error"],
                "{what}: {said}"
            );
            assert_eq!(said_fields(&said), fields_of(&response), "{what}");
            arguments.retain(|argument| *argument != "--json");
            let text = explain(&setup, &arguments).expect(1).stdout;
            assert!(text.contains(&format!("\nanswer    {status}")), "{text}");
        }
    };
    cases(
        "",
        &[
            ("/x", &["A: 1", "A: 2", "A: 3", "A: 4"], 200),
            ("/x", &["A: 1", "A: 2", "A: 3", "A: 4", "A: 5"], 431),
            ("/x", &[&large], 200),
            ("/x", &[&larger], 431),
            ("/x", &[grpc, &larger], 431),
            ("/x", &[problem, &larger], 431),
            (&long, &[], 431),
            (&longer, &[], 431),
        ],
    );
    cases(
        &redirecting,
        &[
            ("/x?a=<b>", &[], 308),
            ("/x", &[problem, "A: 1"], 308),
            ("/x", &["A: 1", "A: 2", "A: 3", "A: 4", "A: 5"], 431),
        ],
    );
    let setup = Setup::new(&format!("{redirecting}{limits}{rules}"));
    let said = explain(&setup, &["GET", "http://localhost/x", "--anyone", "--json"]).expect(1).json();
    let location = json!(["location", format!("https://localhost:{}/x", https.port())]);
    assert!(said["response"]["headers"].as_array().unwrap().contains(&location), "{said}");
    explain(&setup, &["GET", "https://localhost/x", "--anyone"]).expect(0);
    // of several in clear the one that has the port
    let beside = redirecting.replace("listeners: [", "listeners: [{ address: '127.0.0.1:8080' }, ");
    let setup = Setup::new(&format!("{beside}{limits}{rules}"));
    for (url, code) in [("http://localhost:8080/x", 0), ("http://localhost/x", 0), ("/x", 0)] {
        explain(&setup, &["GET", url, "--anyone"]).expect(code);
    }
    explain(&setup, &["GET", &format!("http://localhost:{}/x", http.port()), "--anyone"]).expect(1);
}

#[test]
fn a_listener_that_redirects_sends_nothing_on() {
    let listeners = "listeners:
  - { address: '127.0.0.1:80', redirect: https }
  - { address: '127.0.0.1:443', tls: { self_signed: [localhost] } }
";
    let setup = Setup::new(&format!("{listeners}{RULES}"));
    let said = explain(&setup, &["GET", "/health", "--anyone", "--json"]).expect(0).json();
    let head = said["forwarded_head"].as_str().unwrap();
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
}

#[test]
fn whoever_only_asks_makes_no_store() {
    let idp = Signer::eddsa();
    let issuers = "auth: { issuers: [{ issuer: 'https://idp.example', jwks: keys.json }] }\n";
    let setup = Setup::new(&format!("{RULES}{issuers}"));
    setup.write("keys.json", idp.jwks("k1").to_string());
    let mut claims = crate::support::keys::claims("ann");
    claims["iss"] = json!("https://idp.example");
    let files = || {
        let folder = std::fs::read_dir(setup.path(".")).unwrap();
        folder.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    explain(&setup, &["GET", "/me", "--role", "user"]).expect(0);
    let said = explain(&setup, &["GET", "/me", "--user", "user"]).expect(1);
    assert!(said.stderr.contains("there is no user `user`: there is no store at "), "{said:?}");
    let basic = basic("user", "userpassword");
    let said = explain(&setup, &["GET", "/me", "--authorization", &basic, "--json"]).expect(1).json();
    assert_eq!(said["error"], "invalid_credentials");
    let bearer = format!("Bearer {}", idp.token(&claims));
    explain(&setup, &["GET", "/me", "--authorization", &bearer]).expect(0);
    assert_eq!(files(), before);
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
fn what_an_endpoint_says_to_a_head_is_explained() {
    let accounts = "bootstrap:
  users: [{ name: user, password: userpassword, roles: [user] }]
  clients:
    - { id: asker, secret: asker-secret-of-a-client, roles: [introspect] }
    - { id: other, secret: other-secret-of-a-client, roles: [user] }
upstreams: { api: { builtin: echo } }
routes: [{ path: /a, allow: anyone, to: api }]
";
    let by_header = "endpoints:
  - { path: /auth/login, action: login, from: authorization }
  - { path: /auth/client, action: client_login, from: authorization }
  - { path: /auth/refresh, action: refresh, from: authorization }
  - { path: /auth/logout, action: revoke, from: authorization }
";
    let [user, asker, other] =
        [("user", "userpassword"), ("asker", "asker-secret-of-a-client"), ("other", "other-secret-of-a-client")]
            .map(|(name, secret)| basic(name, secret));
    let wrong = basic("user", "wrong");
    let credentials = [
        None,
        Some(&*user),
        Some(&*asker),
        Some(&*other),
        Some(&*wrong),
        Some("Basic !"),
        Some("Bearer x"),
        Some("Token x"),
        Some("Digest x"),
    ];
    let mut met = std::collections::BTreeMap::<(u16, &str), usize>::new();
    for (endpoints, paths) in [
        (
            "",
            &[
                "/auth/login",
                "/auth/refresh",
                "/auth/logout",
                "/auth/change-password",
                "/oauth/token",
                "/oauth/revoke",
                "/oauth/introspect",
                "/.well-known/jwks.json",
                "/auth/docs",
            ][..],
        ),
        (by_header, &["/auth/login", "/auth/client", "/auth/refresh", "/auth/logout"]),
    ] {
        // guesses are counted, and here are many
        let limits = "limits: { token_endpoints: { per_address: off, per_account: off }, unauthenticated: off }\n";
        let setup = Setup::new(&format!("{limits}{endpoints}{accounts}"));
        let gateway = setup.start();
        for (path, method) in
            paths.iter().flat_map(|path| ["GET", "HEAD", "POST", "PUT", "CONNECT"].map(|m| (*path, m)))
        {
            for accept in [None, Some("text/html")] {
                for credential in credentials {
                    let is_usual = ["GET", "POST"].contains(&method);
                    if credential.is_some() && !is_usual
                        || accept.is_some() && (credential.is_some() || method != "GET")
                    {
                        continue;
                    }
                    let url = format!("http://localhost{path}");
                    let mut arguments = vec![method, &url, "--json"];
                    let mut request = Request::new(method, path);
                    if path == "/auth/change-password" && method == "POST" {
                        // what is wrong with its members is said ahead of what is wrong with a credential
                        request = request.json(&json!({ "password": "userpassword", "new_password": "userpassword" }));
                    }
                    let accepted = accept.map(|accept| format!("Accept: {accept}"));
                    if let Some(field) = &accepted {
                        arguments.extend(["--header", field]);
                        request = request.header("Accept", "text/html");
                    }
                    match credential {
                        Some(value) => {
                            arguments.extend(["--authorization", value]);
                            request = request.authorization(value);
                        }
                        None => arguments.push("--anyone"),
                    }
                    let said = explain(&setup, &arguments).json();
                    let response = gateway.send(&request);
                    let what = format!("{method} {path}, {credential:?}, {accept:?}: {said}\n{response:?}");
                    let outcome = said["outcome"].as_str().unwrap();
                    if outcome == "refused" {
                        assert_eq!(said["status"], response.status, "{what}");
                        assert_eq!(said_fields(&said), fields_of(&response), "{what}");
                    } else {
                        assert_eq!(outcome, "answered", "{what}");
                        // what it says then it says of members, or of a token that only the store knows
                        assert!(![403, 405].contains(&response.status), "{what}");
                        let by_body = method == "POST" && [400, 401].contains(&response.status);
                        let by_head = path.ends_with("introspect") || path.ends_with("change-password");
                        let is_unproven = by_head && response.status == 401;
                        assert!(response.status == 200 || by_body && !is_unproven, "{what}");
                    }
                    *met.entry((response.status, if outcome == "refused" { "refused" } else { "answered" }))
                        .or_default() += 1;
                }
            }
        }
    }
    for (status, outcome) in [(405, "refused"), (401, "refused"), (403, "refused"), (400, "refused"), (200, "answered")]
    {
        assert!(met.contains_key(&(status, outcome)), "{outcome} with {status} was not met: {met:?}");
    }
    let setup = Setup::new(accounts);
    for (arguments, code, outcome, status) in [
        (&["GET", "/auth/login", "--anyone"][..], 1, "refused", json!(405)),
        (&["GET", "/auth/login", "--role", "user"], 0, "answered", Value::Null),
        (&["GET", "/auth/login"], 0, "depends", Value::Null),
        (&["POST", "/auth/login", "--anyone"], 0, "answered", Value::Null),
        (&["POST", "/oauth/introspect", "--anyone"], 1, "refused", json!(401)),
        (&["POST", "/oauth/introspect", "--role", "x"], 1, "refused", json!(403)),
        (&["POST", "/oauth/introspect", "--role", "introspect"], 0, "answered", Value::Null),
        (&["POST", "/oauth/introspect", "--user", "user"], 1, "refused", json!(401)),
        (&["POST", "/oauth/introspect"], 0, "depends", Value::Null),
        (&["POST", "/auth/change-password", "--anyone"], 1, "refused", json!(401)),
        (&["POST", "/auth/change-password", "--role", "x", "--scheme", "token"], 1, "refused", json!(401)),
        (&["POST", "/auth/change-password", "--user", "user"], 0, "answered", Value::Null),
    ] {
        let mut all = arguments.to_vec();
        if arguments.contains(&"--user") {
            drop(setup.start());
        }
        all.push("--json");
        let said = explain(&setup, &all).expect(code).json();
        assert_eq!((&said["outcome"], &said["status"]), (&json!(outcome), &status), "{arguments:?}: {said}");
        assert_eq!(said["endpoint"]["path"], arguments[1]);
    }
    let expect = "expect:
  - { request: GET /auth/login, as: anyone, is: 405 }
  - { request: POST /oauth/introspect, as: anyone, is: 401 }
  - { request: POST /oauth/introspect, as: { roles: [user] }, is: 403 }
  - { request: POST /oauth/introspect, as: { roles: [introspect] }, is: 200 }
  - { request: POST /auth/change-password, as: anyone, is: 401 }
  - { request: POST /auth/change-password, as: { roles: [] }, is: 200 }
  - { request: POST /auth/login, as: anyone, is: 200 }
";
    Setup::new(&format!("{accounts}{expect}")).cli(&["check", "gateway.yaml"], "").expect(0);
    let false_one = "expect: [{ request: GET /auth/login, as: anyone, is: 200 }]\n";
    Setup::new(&format!("{accounts}{false_one}")).cli(&["check", "gateway.yaml"], "").expect(1);
}

#[test]
fn no_rule_gives_a_tunnel() {
    let rules = |methods: &str| {
        format!(
            "upstreams: {{ api: {{ builtin: echo }} }}\nroutes:\n  - {{ path: /c/x, methods: [{methods}], allow: anyone, to: api }}\n"
        )
    };
    let setup = Setup::new(&rules("CONNECT, TRACE"));
    let gateway = setup.start();
    for target in ["/c/x", "http://h.example/c/x"] {
        let request = Request::new("CONNECT", target).header("Host", "h.example");
        let response = gateway.send(&request).refused(400, "bad_request");
        let said = explain(&setup, &["CONNECT", "http://h.example/c/x", "--anyone", "--json"]).expect(1).json();
        assert_eq!((&said["outcome"], &said["status"]), (&json!("refused"), &json!(400)), "{said}");
        assert_eq!(said_fields(&said), fields_of(&response), "{target}");
    }
    explain(&setup, &["TRACE", "/c/x", "--anyone"]).expect(0);
    setup.write("without.yaml", rules("GET"));
    setup.write("with.yaml", rules("GET, CONNECT"));
    let told = setup.cli_plain(&["diff", "without.yaml", "with.yaml", "--fail-on-widening"], "").expect(0);
    assert_eq!(told.stdout, "");
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
    text.push_str(random.pick(&[
        "",
        "errors: { member: msg, messages: { no_route: gone, invalid_token.expired: late, insufficient_permissions: no } }\n",
    ]));
    text.push_str(random.pick(&["", "identity_headers: consumer\n", "trusted_proxies: [127.0.0.1]\n"]));
    text.push_str(
        "auth:
  realm: some
  issuers: [{ issuer: 'https://idp.example', jwks: keys.json, audience: [them], roles: groups.of, user: name, user_prefix: 'idp:' }]
",
    );
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
        let edits = random.pick(&[
            "",
            "request_headers: { set: { X-Tenant: blue }, remove: [Accept, X-Own] }, ",
            "response_headers: { set: { X-Frame: deny }, remove: [Content-Type] }, ",
            "forward_credentials: true, ",
            "timeout: 7s, body_bytes: 1KiB, ",
        ]);
        let strip = if path.starts_with("/a/") && path != "/a/" && path != "/a/in" { "strip_prefix: /a, " } else { "" };
        let strip = if random.below(2) == 0 { strip } else { "" };
        let more = format!("{more}{edits}{strip}");
        writeln!(text, "  - {{ path: '{path}', {methods}{hosts}{more}allow: {who}, to: api }}").unwrap();
    }
    writeln!(text, "  - {{ path: /last, allow: [admin], cors: {{ origins: ['*'] }}, to: api }}").unwrap();
    text
}

/// Those who ask: `Authorization`, and what `explain` is told of them.
fn some_callers(idp: &Signer) -> Vec<Option<String>> {
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = crate::support::keys::claims("7");
        for (claim, value) in [
            ("iss", json!("https://idp.example")),
            ("aud", json!(["them", "others"])),
            ("name", json!("ann, of %them")),
            ("groups", json!({ "of": ["user"] })),
        ] {
            claims[claim] = value;
        }
        change(&mut claims);
        format!("Bearer {}", idp.token(&claims))
    };
    vec![
        None,
        Some(basic("user", "userpassword")),
        Some(basic("user", "wrong")),
        Some("Digest x".to_owned()),
        Some(claims(&|_| {})),
        Some(claims(&|claims| claims["groups"] = json!({ "of": "admin, other" }))),
        Some(claims(&|claims| claims["scope"] = json!("w"))),
        Some(claims(&|claims| claims["aud"] = json!("else"))),
        Some(claims(&|claims| claims["exp"] = json!(1_000_000_000))),
        Some(claims(&|claims| claims["iss"] = json!("https://other.example"))),
    ]
}

#[test]
fn explain_never_disagrees_with_the_gateway() {
    let upstream = Upstream::hello();
    let idp = Signer::eddsa();
    let callers = some_callers(&idp);
    let mut random = Random(20_261_121);
    let mut statuses = std::collections::BTreeSet::new();
    let mut heads = 0;
    for _ in 0..6 {
        let rules = some_rules(&mut random);
        let setup = Setup::new(&rules.replace("http://127.0.0.1:9", &upstream.url()));
        setup.write("keys.json", idp.jwks("k1").to_string());
        let gateway = setup.start();
        for _ in 0..40 {
            let method =
                random.pick(&["GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"]);
            let depth = 1 + random.below(3);
            let odd = ["in", "b;c", "%61", "a%2Fb", "", "..", "%2e", "x%00"];
            let plain = ["a", "a", "b", "c", "x", "last"];
            let path: String = (0..depth)
                .map(|_| {
                    let is_odd = random.below(6) == 0;
                    format!("/{}", if is_odd { random.pick(&odd) } else { random.pick(&plain) })
                })
                .collect();
            let host = random.pick(&["localhost", "localhost", "localhost", "other", "LOCALHOST:1", "bad_host!"]);
            let caller = &callers[random.below(callers.len())];
            let preflight = random.below(6) == 0;
            let method = if preflight && random.below(3) > 0 { "OPTIONS" } else { method };
            let mut request = Request::new(method, &path).header("Host", host);
            let url = format!("http://{host}{path}");
            let mut arguments = vec![method, &url, "--json", "--address", "127.0.0.1"];
            match caller {
                Some(field) => arguments.extend(["--authorization", field]),
                None => arguments.push("--anyone"),
            }
            let mut fields = vec!["X-Own: 1", "Accept: text/plain", "X-Forwarded-For: 192.0.2.9", "X-Auth-User: root"];
            fields.truncate(random.below(5));
            if preflight {
                fields.extend(["Origin: https://app.example.com", "Access-Control-Request-Method: GET"]);
            }
            for field in &fields {
                let (name, value) = field.split_once(": ").unwrap();
                request = request.header(name, value);
                arguments.extend(["--header", field]);
            }
            if let Some(field) = caller {
                request = request.header("Authorization", field);
            }
            let said = explain(&gateway.setup, &arguments).json();
            let before = upstream.received().len();
            let response = gateway.send(&request);
            let status = response.status;
            statuses.insert(status);
            let what = format!("{method} {path} on {host}, {caller:?}, {fields:?}, {said}\n{rules}");
            assert_eq!(upstream.received().len() > before, said["outcome"] == "forwarded", "{what}");
            match said["outcome"].as_str().unwrap() {
                "forwarded" => {
                    assert_eq!(status, 200, "{what}");
                    let sent = without_ids(&upstream.last().head);
                    let masked = |line: &str| match line.split_once(": ") {
                        Some((name @ "authorization", value)) => {
                            format!("{name}: {} ********", value.split(' ').next().unwrap())
                        }
                        Some(_) | None => line.to_owned(),
                    };
                    let sent = sent.split("\r\n").map(masked).collect::<Vec<_>>().join("\r\n");
                    assert_eq!(without_ids(said["forwarded_head"].as_str().unwrap()), sent, "{what}");
                    heads += 1;
                }
                "refused" | "preflight" => {
                    assert_eq!(said["status"], status, "{what}");
                    assert_eq!(said_fields(&said), fields_of(&response), "{what}");
                    if said["outcome"] == "refused" && method != "HEAD" {
                        let without_id = |body: &str| {
                            let mut body: Value = serde_json::from_str(body).unwrap();
                            body["request_id"] = Value::Null;
                            body
                        };
                        let body = said["response"]["body"].as_str().unwrap();
                        assert_eq!(without_id(body), without_id(&response.text()), "{what}");
                    }
                }
                // an endpoint refuses in its own words what it was not asked properly
                "answered" => assert!([400, 401, 415].contains(&status), "{status}: {what}"),
                other => panic!("{other}: {what}"),
            }
        }
    }
    for status in [200, 204, 400, 401, 403, 404, 405] {
        assert!(statuses.contains(&status), "no request met {status}: {statuses:?}");
    }
    assert!(heads > 20, "only {heads} requests passed");
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
