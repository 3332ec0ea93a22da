//! Metrics, the access log, health: what is said of requests, and what never is (contract 8).

use serde_json::{Value, json};

use crate::support::client::{Connection, delete, put};
use crate::support::outside::curl;
use crate::support::{Gateway, HS256, Request, SECRET, Signer, USERS, Upstream, eventually, get, post, routes};

/// Every metric of contract 8, but those of `process_*`.
const NAMES: [&str; 25] = [
    "portcullis_requests_total",
    "portcullis_request_duration_seconds",
    "portcullis_upstream_duration_seconds",
    "portcullis_auth_total",
    "portcullis_decisions_total",
    "portcullis_auth_cache_total",
    "portcullis_auth_cache_entries",
    "portcullis_store_duration_seconds",
    "portcullis_password_queue",
    "portcullis_rate_limited_total",
    "portcullis_tokens_issued_total",
    "portcullis_tokens_revoked_total",
    "portcullis_refresh_reuse_total",
    "portcullis_requests_in_flight",
    "portcullis_open_streams",
    "portcullis_connections",
    "portcullis_tls_handshakes_total",
    "portcullis_certificate_expiry_seconds",
    "portcullis_upstream_healthy",
    "portcullis_upstream_requests_total",
    "portcullis_config_reloads_total",
    "portcullis_config_loaded_timestamp_seconds",
    "portcullis_build_info",
    "process_resident_memory_bytes",
    "process_open_fds",
];

/// What a capability's name would be in a list of labels.
fn labels(name: &str) -> &'static [&'static str] {
    match name {
        "portcullis_requests_total" => &["route", "method", "status"],
        "portcullis_request_duration_seconds_count" => &["route"],
        "portcullis_upstream_duration_seconds_count" => &["upstream"],
        "portcullis_auth_total" => &["scheme", "outcome"],
        "portcullis_decisions_total" => &["route", "outcome", "reason"],
        "portcullis_auth_cache_total" | "portcullis_config_reloads_total" => &["result"],
        "portcullis_store_duration_seconds_count" => &["operation"],
        "portcullis_rate_limited_total" => &["limit"],
        "portcullis_tokens_issued_total" | "portcullis_tokens_revoked_total" | "portcullis_open_streams" => &["kind"],
        "portcullis_connections" => &["listener"],
        "portcullis_tls_handshakes_total" => &["listener", "version", "result"],
        "portcullis_certificate_expiry_seconds" => &["name"],
        "portcullis_upstream_healthy" => &["upstream", "server"],
        "portcullis_upstream_requests_total" => &["upstream", "server", "outcome"],
        _ => &[],
    }
}

/// A gateway with TLS beside the plain listener, a budget, health checks: something for each metric to count.
fn busy() -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "
listeners:
  - {{ address: '127.0.0.1:0' }}
  - {{ address: '127.0.0.1:0', tls: {{ self_signed: [localhost] }} }}
{USERS}{HS256}
upstreams: {{ api: {{ servers: ['{}'], health: {{ path: /health }} }} }}
routes:
  - {{ path: /open/**, allow: anyone, to: api }}
  - {{ path: /user/**, allow: [user], to: api }}
  - {{ path: /tight, allow: anyone, rate: {{ rate: 1/h, burst: 1, by: address }}, to: api }}
",
        upstream.url()
    ));
    gateway.send(&get("/open/x")).expect(200);
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
    gateway.send(&get("/user/x").basic("user", "nope")).expect(401);
    gateway.send(&get("/user/x").basic("guest", "guestpassword")).expect(403);
    gateway.send(&get("/user/x").bearer(&Signer::hs256(SECRET).good("user"))).expect(200);
    let token = gateway.opaque("user");
    gateway.send(&get("/user/x").token(&token)).expect(200);
    gateway.send(&post("/auth/logout").token(&token)).expect(200);
    gateway.access("user");
    gateway.send(&get("/tight")).expect(200);
    gateway.send(&get("/tight")).expect(429);
    gateway.send(&get("/nowhere")).expect(404);
    crate::support::outside::curl(&["--insecure", &format!("https://{}/open/x", gateway.listeners[1].1)]);
    gateway.signal("HUP");
    eventually("a reload is counted", || if gateway.reloads() > 0 { Ok(()) } else { Err(gateway.stderr()) });
    (gateway, upstream)
}

#[test]
fn every_metric_is_there_with_its_labels_after_traffic() {
    let (gateway, _upstream) = busy();
    let response = gateway.admin("/metrics").expect(200);
    assert!(response.header("Content-Type").unwrap().starts_with("text/plain"));
    let text = response.text();
    for name in NAMES {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} has no type");
        let mut series = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        assert!(series.next().is_some(), "{name} has no value");
    }
    for line in text.lines().filter(|line| line.starts_with("portcullis_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let expected = labels(name);
        if expected.is_empty() {
            continue;
        }
        for label in expected {
            assert!(line.contains(&format!("{label}=\"")), "{label} is not in {line}");
        }
        assert_eq!(line.matches("=\"").count(), expected.len(), "{line}");
    }
    for (name, labels, least) in [
        ("portcullis_requests_total", &[("route", "/user/**"), ("method", "GET"), ("status", "200")][..], 4.0),
        ("portcullis_requests_total", &[("route", "/user/**"), ("method", "GET"), ("status", "401")], 1.0),
        ("portcullis_requests_total", &[("route", "-"), ("method", "GET"), ("status", "404")], 1.0),
        ("portcullis_requests_total", &[("route", "/auth/login"), ("method", "POST"), ("status", "200")], 1.0),
        ("portcullis_auth_total", &[("scheme", "basic"), ("outcome", "accepted")], 2.0),
        ("portcullis_auth_total", &[("scheme", "basic"), ("outcome", "refused")], 1.0),
        ("portcullis_auth_total", &[("scheme", "bearer"), ("outcome", "accepted")], 1.0),
        ("portcullis_auth_total", &[("scheme", "token"), ("outcome", "accepted")], 1.0),
        ("portcullis_auth_cache_total", &[("result", "hit")], 1.0),
        ("portcullis_auth_cache_total", &[("result", "miss")], 1.0),
        ("portcullis_tokens_issued_total", &[("kind", "access")], 1.0),
        ("portcullis_tokens_issued_total", &[("kind", "refresh")], 1.0),
        ("portcullis_rate_limited_total", &[("limit", "route")], 1.0),
    ] {
        let seen = gateway.metric(name, labels);
        assert!(seen >= least, "{name} {labels:?}: {seen}\n{text}");
    }
}

#[test]
fn what_may_happen_is_counted_from_nothing_on() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "
listeners:
  - {{ address: '127.0.0.1:0' }}
  - {{ address: '127.0.0.1:0', tls: {{ self_signed: [localhost] }} }}
{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /user/**, allow: [user], to: api }}]
",
        upstream.url()
    ));
    let url = upstream.url();
    let [plain, tls] = [0, 1].map(|index: usize| gateway.listeners[index].1.to_string());
    let mut expected = Vec::new();
    for scheme in ["basic", "token", "bearer"] {
        for outcome in ["accepted", "refused", "unavailable"] {
            expected.push(("portcullis_auth_total", vec![("scheme", scheme), ("outcome", outcome)]));
        }
    }
    for result in ["hit", "miss", "stale"] {
        expected.push(("portcullis_auth_cache_total", vec![("result", result)]));
    }
    for limit in ["per_address", "per_account", "per_account_anywhere", "unauthenticated", "route"] {
        expected.push(("portcullis_rate_limited_total", vec![("limit", limit)]));
    }
    for kind in ["access", "refresh", "token"] {
        expected.push(("portcullis_tokens_issued_total", vec![("kind", kind)]));
        expected.push(("portcullis_tokens_revoked_total", vec![("kind", kind)]));
    }
    for result in ["ok", "failed"] {
        expected.push(("portcullis_config_reloads_total", vec![("result", result)]));
    }
    for kind in ["websocket", "sse", "grpc"] {
        expected.push(("portcullis_open_streams", vec![("kind", kind)]));
    }
    for listener in [&plain, &tls] {
        expected.push(("portcullis_connections", vec![("listener", listener)]));
    }
    for (version, result) in [("1.2", "ok"), ("1.3", "ok"), ("-", "failed"), ("-", "timeout")] {
        let labels = vec![("listener", &*tls), ("version", version), ("result", result)];
        expected.push(("portcullis_tls_handshakes_total", labels));
    }
    for outcome in ["ok", "error", "timeout", "connect_failed"] {
        let labels = vec![("upstream", "api"), ("server", &*url), ("outcome", outcome)];
        expected.push(("portcullis_upstream_requests_total", labels));
    }
    expected.push(("portcullis_upstream_duration_seconds_count", vec![("upstream", "api")]));
    let text = gateway.admin("/metrics").text();
    for (name, labels) in &expected {
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let line =
            lines.find(|line| labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\""))));
        assert!(line.is_some_and(|line| line.ends_with(" 0")), "{name} {labels:?}: {line:?}\n{text}");
    }
    // nobody shakes hands where there is no TLS
    let handshakes = |text: &str| {
        let of_plain = |line: &&str| line.starts_with("portcullis_tls_handshakes_total{") && line.contains(&plain);
        text.lines().filter(of_plain).count()
    };
    assert_eq!(handshakes(&text), 0, "{text}");
}

#[test]
fn a_line_of_the_access_log_says_who_has_logged_in() {
    let upstream = Upstream::hello();
    let endpoints = "
endpoints:
  - { path: /auth/login, action: login }
  - { path: /client/login, action: client_login }
  - { path: /auth/refresh, action: refresh }
  - { path: /oauth/token, action: oauth_token, password_grant: true }
  - { path: /auth/logout, action: revoke }
  - { path: /auth/register, action: register }
  - { path: /auth/change-password, action: change_password }
";
    let gateway = Gateway::start(&format!("{USERS}{endpoints}log: {{ access: json }}\n{}", routes(&upstream)));
    let secret = "robot-secret-1";
    let who = |path: &str, request: &Request, status: u16| {
        let before = gateway.access_log(path).len();
        let response = gateway.send(request).expect(status);
        let line = eventually("the line", || {
            let lines = gateway.access_log(path);
            lines.get(before).cloned().ok_or_else(|| gateway.stdout())
        });
        (line["user"].clone(), response)
    };
    let login = post("/auth/login").form("username=user&password=userpassword");
    let (user, tokens) = who("/auth/login", &login, 200);
    assert_eq!(user, json!("user"));
    let refresh = post("/auth/refresh").form(&format!("refresh_token={}", tokens.member("refresh_token")));
    assert_eq!(who("/auth/refresh", &refresh, 200).0, json!("user"));
    let robot = post("/client/login").form(&format!("client_id=robot&client_secret={secret}"));
    assert_eq!(who("/client/login", &robot, 200).0, json!("robot"));
    for (grant, expected) in [
        (post("/oauth/token").basic("robot", secret).form("grant_type=client_credentials"), "robot"),
        (post("/oauth/token").form("grant_type=password&username=user&password=userpassword"), "user"),
    ] {
        assert_eq!(who("/oauth/token", &grant, 200).0, json!(expected));
    }
    let register = post("/auth/register").form("username=newcomer&password=newcomer-password");
    assert_eq!(who("/auth/register", &register, 201).0, json!("newcomer"));
    let change = post("/auth/change-password")
        .basic("newcomer", "newcomer-password")
        .form("password=newcomer-password&new_password=another-password");
    assert_eq!(who("/auth/change-password", &change, 200).0, json!("newcomer"));
    let logout = post("/auth/logout").bearer(&tokens.member("access_token"));
    assert_eq!(who("/auth/logout", &logout, 200).0, json!("user"));
    // nobody is said to be who they only say they are
    let wrong = post("/auth/login").form("username=user&password=wrong-password");
    assert_eq!(who("/auth/login", &wrong, 401).0, Value::Null);
}

#[test]
fn what_callers_send_makes_no_new_series() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let series = || gateway.admin("/metrics").text().lines().filter(|line| line.starts_with("portcullis_")).count();
    let ask = |n: usize| {
        gateway.send(&get(&format!("/open/{n}?q={n}")));
        gateway.send(&get(&format!("/nowhere/{n}")));
        gateway.send(&Request::new(&format!("BREW{n}"), "/open/x"));
        gateway.send(&get("/user/x").basic(&format!("nobody{n}"), "x"));
        gateway.send(&get("/open/x").header("Host", &format!("host{n}.example.com")));
    };
    ask(0);
    let before = series();
    for n in 1..30 {
        ask(n);
    }
    assert_eq!(series(), before);
    let text = gateway.admin("/metrics").text();
    assert!(text.contains("method=\"other\"") && !text.contains("BREW") && !text.contains("nobody"), "{text}");
}

#[test]
fn a_line_of_the_access_log_says_what_happened() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}log: {{ access: json }}\n{}", routes(&upstream)));
    let passed = gateway.send(&get("/user/logged?secret=in-the-query").basic("user", "userpassword")).expect(200);
    let refused = gateway.send(&get("/admin/logged").basic("user", "userpassword")).expect(403);
    let line = |path: &str| {
        eventually("the line", || gateway.access_log(path).first().cloned().ok_or_else(|| gateway.stdout()))
    };
    let seen = line("/user/logged");
    for member in [
        "time",
        "request_id",
        "address",
        "method",
        "path",
        "route",
        "status",
        "duration",
        "bytes",
        "scheme",
        "user",
        "upstream",
    ] {
        let found = seen.as_object().unwrap().keys().any(|key| key.starts_with(member));
        assert!(found, "{member} is not in {seen}");
    }
    assert_eq!(Some(seen["request_id"].as_str().unwrap()), passed.header("X-Request-Id"));
    assert_eq!(
        (&seen["method"], &seen["route"], &seen["status"], &seen["scheme"], &seen["user"], &seen["address"]),
        (&json!("GET"), &json!("/user/**"), &json!(200), &json!("basic"), &json!("user"), &json!("127.0.0.1"))
    );
    let seen = line("/admin/logged");
    assert_eq!(Some(seen["request_id"].as_str().unwrap()), refused.header("X-Request-Id"));
    assert_eq!(seen["status"], 403);
    assert!(seen.to_string().contains("insufficient_permissions"), "{seen}");
    assert!(!gateway.stdout().contains("in-the-query"));
}

#[test]
fn what_is_answered_before_it_is_routed_is_recorded_as_what_it_was() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "listeners:
  - {{ address: '127.0.0.1:0' }}
  - {{ address: '127.0.0.1:0', redirect: https }}
  - {{ address: '127.0.0.1:0', tls: {{ self_signed: [localhost] }} }}
trusted_proxies: [127.0.0.1]
limits: {{ headers: 10 }}
{}",
        routes(&upstream)
    ));
    let (redirecting, url) = (gateway.listeners[1].1, gateway.url("/h2-many"));
    let behind =
        |request: Request| request.header("X-Request-Id", "of-the-caller").header("X-Forwarded-For", "203.0.113.9");
    let many = |request: Request| (0..10).fold(request, |request, n| request.header(&format!("A-{n}"), "b"));
    let problem = |request: Request| request.header("Accept", "application/problem+json");

    let moved = Connection::plain(redirecting).send(&behind(post("/moved"))).expect(308);
    let refused = Connection::plain(redirecting).send(&behind(put("/astray")).header("Host", "a@b")).expect(400);
    let large = gateway.send(&many(problem(behind(put("/many"))))).expect(431);
    let framed = gateway.send(&problem(behind(delete("/framed"))).header("Transfer-Encoding", "gzip")).expect(400);
    let mut fields = vec!["X-Request-Id: of-the-caller".to_owned(), "X-Forwarded-For: 203.0.113.9".to_owned()];
    fields.extend((0..10).map(|number| format!("A-{number}: b")));
    let fields = fields.iter().flat_map(|field| ["--header", field]);
    let arguments: Vec<&str> =
        ["--http2-prior-knowledge", "--request", "PATCH", &url].into_iter().chain(fields).collect();
    let streamed = curl(&arguments).0.expect(431);
    for (path, method, status, response) in [
        ("/moved", "POST", 308, moved),
        ("/astray", "PUT", 400, refused),
        ("/many", "PUT", 431, large),
        ("/framed", "DELETE", 400, framed),
        ("/h2-many", "PATCH", 431, streamed),
    ] {
        assert_eq!(response.header("X-Request-Id"), Some("of-the-caller"), "{path}");
        if ["/many", "/framed"].contains(&path) {
            assert_eq!(response.header("Content-Type"), Some("application/problem+json"), "{path}");
        }
        let line = eventually("the line", || gateway.access_log(path).pop().ok_or_else(|| gateway.stdout()));
        assert_eq!(
            (&line["method"], &line["status"], &line["address"], &line["request_id"]),
            (&json!(method), &json!(status), &json!("203.0.113.9"), &json!("of-the-caller")),
        );
        let status = status.to_string();
        let labels = [("route", "-"), ("method", method), ("status", status.as_str())];
        assert!(gateway.metric("portcullis_requests_total", &labels) >= 1.0, "{path}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_line_cannot_be_forged() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    gateway.send(&get("/open/%22,%22user%22:%22admin").header("User-Agent", "a\",\"x\":\"\u{1b}[31m"));
    gateway.send(&get("/user/x").basic("a\",\"b", "x"));
    eventually("two lines", || {
        let text = gateway.stdout();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let requests = lines.iter().filter(|line| line.get("status").is_some()).count();
        if requests >= 2 { Ok(()) } else { Err(text) }
    });
    let text = gateway.stdout();
    for line in text.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn the_access_log_can_be_off() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("log: {{ access: off, audit: off }}\n{}", routes(&upstream)));
    gateway.send(&get("/open/x")).expect(200);
    gateway.signal("TERM");
    gateway.wait();
    assert_eq!(gateway.stdout(), "");
}

#[test]
fn health_is_told_on_the_admin_address_alone() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    assert_eq!((gateway.admin("/healthz").status, gateway.admin("/readyz").status), (200, 200));
    assert_eq!(gateway.admin("/nothing").status, 404);
    for path in ["/metrics", "/healthz", "/readyz"] {
        gateway.send(&get(path)).refused(404, "no_route");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn the_audit_log_tells_of_logins_failures_and_reloads() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}log: {{ access: off, audit: json }}\n{}", routes(&upstream)));
    gateway.access("user");
    gateway.send(&post("/auth/login").json(&json!({ "username": "guest", "password": "nope" }))).expect(401);
    gateway.signal("HUP");
    eventually("three events", || {
        let text = gateway.stdout();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let tells = |word: &str| lines.iter().any(|line| line.to_string().contains(word));
        if tells("\"user\"") && tells("guest") && tells("reload") { Ok(()) } else { Err(text) }
    });
}
