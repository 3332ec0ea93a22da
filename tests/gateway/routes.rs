//! Which route decides, and what it does to the request (contract 3).

use crate::support::{Gateway, HS256, Reply, Request, SECRET, Signer, USERS, Upstream, delete, get, post};

/// An upstream that says which one it is.
fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Reply::text(name))
}

#[test]
fn the_most_specific_route_decides_whatever_the_order_in_the_file() {
    let upstreams: Vec<(&str, Upstream)> =
        ["rest", "segment", "literal", "deep", "host", "method"].map(|name| (name, named(name))).into();
    let servers: String =
        upstreams.iter().map(|(name, upstream)| format!("  {name}: {{ servers: ['{}'] }}\n", upstream.url())).collect();
    let mut routes = [
        "{ path: /a/**, allow: anyone, to: rest }",
        "{ path: '/a/{id}', allow: anyone, to: segment }",
        "{ path: /a/b, allow: anyone, to: literal }",
        "{ path: '/a/{id}/c', allow: anyone, to: deep }",
        "{ path: /a/h, hosts: [api.example.com], allow: anyone, to: host }",
        "{ path: /a/h, allow: anyone, to: literal }",
        "{ path: /a/m, methods: [POST], allow: anyone, to: method }",
        "{ path: /a/m, allow: anyone, to: literal }",
    ];
    for turn in 0..2 {
        let text: String = routes.iter().map(|route| format!("  - {route}\n")).collect();
        let gateway = Gateway::start(&format!("upstreams:\n{servers}routes:\n{text}"));
        for (request, expected) in [
            (get("/a"), "rest"),
            (get("/a/"), "rest"),
            (get("/a/b"), "literal"),
            (get("/a/x"), "segment"),
            (get("/a/x/c"), "deep"),
            (get("/a/b/c"), "deep"),
            (get("/a/b/d"), "rest"),
            (get("/a/x/d"), "rest"),
            (get("/a/x/c/d/e"), "rest"),
            (get("/a/h").header("Host", "api.example.com"), "host"),
            (get("/a/h").header("Host", "API.Example.com:8443"), "host"),
            (get("/a/h").header("Host", "other.example.com"), "literal"),
            (post("/a/m"), "method"),
            (get("/a/m"), "literal"),
            (get("/%61/%62"), "literal"),
        ] {
            let response = gateway.send(&request);
            assert_eq!(response.text(), expected, "turn {turn}: {} {}", request.method, request.target);
        }
        routes.reverse();
    }
}

#[test]
fn a_method_in_lower_case_does_not_walk_past_the_rule_for_it() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /orders/**, allow: anyone, to: api }}
  - {{ path: /orders/**, methods: [DELETE], allow: [admin], to: api }}
",
        upstream.url()
    ));
    for (method, status) in [("DELETE", 401), ("delete", 400), ("DELETe", 400), ("PURGE", 200)] {
        let head = format!("{method} /orders/7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(gateway.raw(head.as_bytes())).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method}: {answer}");
    }
    assert_eq!(upstream.received().len(), 1, "what was refused reached nobody");
}

#[test]
fn what_no_route_allows_is_404_or_405_and_reaches_nobody() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /read, methods: [GET, DELETE], allow: anyone, to: api }}
  - {{ path: /hosted, hosts: [api.example.com], allow: anyone, to: api }}
  - {{ path: '/one/{{id}}', allow: anyone, to: api }}
",
        upstream.url()
    ));
    for request in [
        get("/"),
        get("/reads"),
        get("/rea"),
        get("/READ"),
        get("/read/"),
        get("/read/x"),
        get("/hosted"),
        get("/hosted").header("Host", "evil-api.example.com"),
        get("/hosted").header("Host", "api.example.com.evil"),
        get("/one"),
        get("/one/"),
        get("/one/a/b"),
    ] {
        let response = gateway.send(&request);
        assert_eq!(response.status, 404, "{} {:?}", request.target, request.headers);
        response.refused(404, "no_route");
    }
    for method in ["POST", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let response = gateway.send(&Request::new(method, "/read")).refused(405, "method_not_allowed");
        let mut allow: Vec<&str> = response.header("Allow").unwrap().split(", ").collect();
        allow.sort_unstable();
        assert_eq!(allow, ["DELETE", "GET", "HEAD"], "{method}");
    }
    assert!(upstream.received().is_empty());
    assert_eq!(gateway.send(&Request::new("HEAD", "/read")).status, 200);
    gateway.send(&delete("/read")).expect(200);
}

#[test]
fn anyone_means_that_no_credential_is_looked_at() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", crate::support::routes(&upstream)));
    for value in ["Basic !!!", "Bearer x.y.z", "Digest x", "Token"] {
        gateway.send(&get("/open/x").authorization(value)).expect(200);
    }
    gateway.send(&get("/open/x").basic("user", "userpassword")).expect(200);
    let two = get("/open/x").authorization("Basic a").authorization("Basic b");
    gateway.send(&two).expect(200);
    for received in upstream.received() {
        assert_eq!((received.header("X-Auth-User"), received.header("Authorization")), (None, None));
    }
}

#[test]
fn schemes_and_scopes_narrow_a_route() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}{HS256}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /bearer, allow: [user], schemes: [bearer], to: api }}
  - {{ path: /two, allow: [user], schemes: [token, basic], to: api }}
  - {{ path: /scoped, allow: [user], scopes: ['orders:read', 'orders:write'], to: api }}
",
        upstream.url()
    ));
    let refused = gateway.send(&get("/bearer").basic("user", "userpassword")).refused(401, "unsupported_scheme");
    assert_eq!(refused.member("message"), "Unsupported authentication method");
    assert_eq!(refused.all("WWW-Authenticate"), [r#"Bearer realm="api""#]);
    let missing = gateway.send(&get("/two")).refused(401, "missing_credentials");
    assert_eq!(missing.member("message"), "Authorization header is missing");
    let challenges = missing.all("WWW-Authenticate");
    assert_eq!(challenges, [r#"Basic realm="api", charset="UTF-8""#, r#"Token realm="api""#]);

    let signer = Signer::hs256(SECRET);
    for (scope, status) in [
        ("orders:read orders:write", 200),
        ("orders:write x orders:read", 200),
        ("orders:read", 403),
        ("orders:readorders:write", 403),
        ("", 403),
    ] {
        let mut claims = crate::support::keys::claims("user");
        claims["scope"] = scope.into();
        let response = gateway.send(&get("/scoped").bearer(&signer.token(&claims)));
        assert_eq!(response.status, status, "{scope:?}: {}", response.text());
    }
    gateway.send(&get("/scoped").basic("user", "userpassword")).refused(403, "insufficient_permissions");
}

#[test]
fn a_prefix_is_stripped_and_fields_are_edited() {
    let upstream = Upstream::start(|_| Reply::new(200, &[("Server", "secret/1.0"), ("X-Kept", "1")], "x"));
    let gateway = Gateway::start(&format!(
        "
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - path: /v1/**
    allow: anyone
    strip_prefix: /v1
    request_headers: {{ set: {{ X-Tenant: blue }}, remove: [Cookie, X-Debug] }}
    response_headers: {{ set: {{ Cache-Control: no-store }}, remove: [Server] }}
    to: api
",
        upstream.url()
    ));
    for (asked, sent) in [
        ("/v1/a/b?q=%2F..&q=//", "/a/b?q=%2F..&q=//"),
        ("/v1", "/"),
        ("/v1?x", "/?x"),
        ("/v1/", "/"),
        ("/v1/v1/x", "/v1/x"),
    ] {
        let request = get(asked).header("Cookie", "a=b").header("x-debug", "1").header("X-Tenant", "red");
        let response = gateway.send(&request).expect(200);
        let received = upstream.last();
        assert_eq!(received.target, sent);
        assert_eq!(received.all("X-Tenant"), ["blue"]);
        assert_eq!((received.header("Cookie"), received.header("X-Debug")), (None, None));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert_eq!((response.header("Server"), response.header("X-Kept")), (None, Some("1")));
    }
}

#[test]
fn credentials_pass_only_where_the_route_says_so() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /kept, allow: [user], to: api }}
  - {{ path: /passed, allow: [user], forward_credentials: true, to: api }}
",
        upstream.url()
    ));
    gateway.send(&get("/kept").basic("user", "userpassword")).expect(200);
    assert_eq!(upstream.last().header("Authorization"), None);
    gateway.send(&get("/passed").basic("user", "userpassword")).expect(200);
    assert!(upstream.last().header("Authorization").unwrap().starts_with("Basic "));
}

#[test]
fn ten_thousand_routes_are_as_good_as_ten() {
    let upstream = Upstream::hello();
    let routes: String = (0..10_000).map(|n| format!("  - {{ path: /r{n}/**, allow: anyone, to: api }}\n")).collect();
    let gateway =
        Gateway::start(&format!("upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes:\n{routes}", upstream.url()));
    gateway.send(&get("/r9999/x")).expect(200);
    gateway.send(&get("/r10000/x")).refused(404, "no_route");
}
