//! What a file means that has no mistake.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;
use crate::endpoint::Action;
use crate::forward::{Balance, Protocol, UpstreamKind};
use crate::listen::{Bounds, Mode};
use crate::principal::{Scheme, SchemeSet};
use crate::rejection::texts::Message;
use crate::route::{Allow, RateBy};

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
    assert!(printed.contains("gateway.yaml:6:39: the file `certs/api.key` cannot be used: "), "{printed}");
    assert!(printed.contains(": the file `certs/api.key` is not a private key in PEM"), "{printed}");
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
    let all = crate::forward::connections_max();
    for (bounds, expected) in [
        ("header_bytes: off, headers: off, body_bytes: off, connections: off", (1 << 20, 1000, 0, all)),
        ("header_bytes: 'off', headers: 1000, body_bytes: 1KiB, connections: 7", (1 << 20, 1000, 1024, 7)),
        ("body_bytes: 0, connections: auto", (32 << 10, 100, 0, all)),
    ] {
        let snapshot = with(&format!("limits: {{ {bounds} }}"));
        let Bounds { header_bytes_max, headers_max, connections_max } = snapshot.terms.bounds;
        assert_eq!((header_bytes_max, headers_max, snapshot.body_bytes_max, connections_max), expected, "{bounds}");
    }
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
    let snapshot = load(include_str!("../../../gateway.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
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
