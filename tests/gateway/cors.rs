//! What pages of other origins may do (contract 2 and 3; the CORS protocol of the Fetch standard).

use crate::support::{Gateway, Reply, Request, USERS, Upstream, get};

const APP: &str = "https://app.example.com";

fn gateway(cors: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|_| {
        Reply::new(200, &[("Access-Control-Allow-Origin", "https://evil.org"), ("Vary", "Accept")], "data")
    });
    let yaml = format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /data, methods: [GET, PUT], allow: [user], cors: {cors}, to: api }}
  - {{ path: /data, methods: [DELETE], allow: [admin], to: api }}
  - {{ path: /own, methods: [GET, OPTIONS], allow: anyone, to: api }}
",
        upstream.url()
    );
    (Gateway::start(&yaml), upstream)
}

fn listed() -> (Gateway, Upstream) {
    gateway(
        "{ origins: ['https://app.example.com'], headers: [Authorization, X-Own], max_age: 10m, credentials: true }",
    )
}

fn preflight(path: &str, origin: &str, method: &str) -> Request {
    let request = Request::new("OPTIONS", path).header("Origin", origin);
    request.header("Access-Control-Request-Method", method).header("Access-Control-Request-Headers", "authorization")
}

#[test]
fn a_preflight_is_answered_by_the_gateway_without_credentials() {
    let (gateway, upstream) = listed();
    for method in ["GET", "HEAD", "PUT"] {
        let response = gateway.send(&preflight("/data", APP, method)).expect(204);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(APP));
        assert_eq!(response.header("Access-Control-Allow-Methods"), Some("GET, PUT, HEAD"));
        assert_eq!(response.header("Access-Control-Allow-Headers"), Some("authorization, x-own"));
        assert_eq!(response.header("Access-Control-Max-Age"), Some("600"));
        assert_eq!(response.header("Access-Control-Allow-Credentials"), Some("true"));
        assert_eq!(response.header("Vary"), Some("Origin"));
        assert!(response.header("X-Request-Id").is_some());
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn every_response_of_the_route_bears_the_fields_refusals_included() {
    let (gateway, _upstream) = listed();
    let with = |request: Request| gateway.send(&request.header("Origin", APP));
    for (name, response, status) in [
        ("forwarded", with(get("/data").basic("user", "userpassword")), 200),
        ("no credential", with(get("/data")), 401),
        ("a bad credential", with(get("/data").basic("user", "wrong")), 401),
        ("not allowed", with(get("/data").basic("guest", "guestpassword")), 403),
    ] {
        assert_eq!(response.status, status, "{name}");
        assert_eq!(response.all("Access-Control-Allow-Origin"), [APP], "{name}");
        assert_eq!(response.all("Access-Control-Allow-Credentials"), ["true"], "{name}");
        assert!(response.all("Vary").contains(&"Origin"), "{name}: {response:?}");
    }
    // the answer differs by origin also for who has none, and caches must know
    let response = gateway.send(&get("/data").basic("user", "userpassword")).expect(200);
    assert!(response.all("Access-Control-Allow-Origin").is_empty(), "the upstream's own is not passed: {response:?}");
    assert_eq!(response.all("Vary"), ["Accept", "Origin"]);
}

#[test]
fn an_origin_that_is_not_listed_is_told_nothing() {
    let (gateway, upstream) = listed();
    for origin in ["https://evil.org", "https://app.example.com.evil.org", "http://app.example.com", "null", "*", ""] {
        let response = gateway.send(&preflight("/data", origin, "GET")).expect(204);
        let told: Vec<_> = response.headers.iter().filter(|(name, _)| name.starts_with("access-control")).collect();
        assert!(told.is_empty(), "{origin}: {told:?}");
        let response = gateway.send(&get("/data").header("Origin", origin)).expect(401);
        assert!(response.all("Access-Control-Allow-Origin").is_empty(), "{origin}");
    }
    let twice = preflight("/data", APP, "GET").header("Origin", "https://evil.org");
    gateway.send(&twice).refused(405, "method_not_allowed");
    assert!(upstream.received().is_empty());
}

#[test]
fn any_origin_is_let_in_by_a_star_and_never_with_credentials() {
    let (gateway, _upstream) = gateway("{ origins: ['*'] }");
    let response = gateway.send(&preflight("/data", "https://anyone.org", "PUT")).expect(204);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(response.header("Access-Control-Allow-Credentials"), None);
    let response = gateway.send(&get("/data").header("Origin", "https://anyone.org")).expect(401);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
}

#[test]
fn a_preflight_without_a_route_that_says_so_is_an_options_like_any_other() {
    let (gateway, upstream) = listed();
    gateway.send(&preflight("/nowhere", APP, "GET")).refused(404, "no_route");
    gateway.send(&preflight("/data", APP, "PATCH")).refused(405, "method_not_allowed");
    // the route of the requested method decides, and that one says nothing of CORS
    gateway.send(&preflight("/data", APP, "DELETE")).refused(405, "method_not_allowed");
    gateway.send(&Request::new("OPTIONS", "/data")).refused(405, "method_not_allowed");
    gateway.send(&Request::new("OPTIONS", "/data").header("Origin", APP)).refused(405, "method_not_allowed");
    assert!(upstream.received().is_empty());
    let response = gateway.send(&preflight("/own", APP, "GET")).expect(200);
    assert_eq!(
        response.header("Access-Control-Allow-Origin"),
        Some("https://evil.org"),
        "the upstream has its own say"
    );
    assert_eq!(upstream.last().method, "OPTIONS");
}

#[test]
fn a_cors_that_opens_more_than_it_says_is_refused_at_its_place() {
    use crate::support::Setup;
    for (cors, message) in [
        ("{ origins: ['*'], credentials: true }", "would let every page act as its visitor"),
        ("{ origins: ['*', 'https://a.org'] }", "the others in the list say nothing"),
        ("{ origins: ['https://a.org/'] }", "is not an origin as browsers write it"),
        ("{ origins: ['https://*.a.org'] }", "is not an origin as browsers write it"),
        ("{ origins: ['null'] }", "is not an origin as browsers write it"),
        ("{ origins: [] }", "this list is empty"),
        ("{ headers: [A] }", "`origins` is missing"),
        ("{ origins: ['*'], headers: ['*'] }", "letters, digits and `-` only"),
        ("{ origins: ['*'], max_age: 30d }", "7d at most"),
        ("{ origins: ['*'], methods: [GET] }", "methods"),
    ] {
        let setup = Setup::new(&format!(
            "upstreams: {{ api: {{ builtin: echo }} }}\nroutes: [{{ path: /a, allow: anyone, cors: {cors}, to: api }}]\n"
        ));
        let printed = setup.cli_plain(&["check", "gateway.yaml"], "").expect(1).stderr;
        assert!(printed.contains(message), "{cors}\n{printed}");
    }
}
