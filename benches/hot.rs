//! The hot paths of a request: what is done for each one, without sockets.
//!
//! Each bench says in `benches/README.md` what it stands for. Numbers are compared on one machine in one run.
#![allow(missing_docs, reason = "criterion's macros make items without documentation")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use portcullis::authenticate::{Caller, Identity, Recent, Visit};
use portcullis::cli::{background, start};
use portcullis::clock::Clock;
use portcullis::config::{self, Environment, Snapshot};
use portcullis::decision::{Head, decide};
use portcullis::forward::Origin;
use portcullis::forward::rewrite::{Departure, Framing, Outbound};
use portcullis::principal::{Principal, Role, Scheme, SchemeSet, Subject};
use portcullis::record::audit::Audit;
use portcullis::wire::authorization;
use portcullis::wire::fields::Hop;
use portcullis::wire::target::Target;

fn snapshot(routes: usize) -> Snapshot {
    let rules: Vec<String> =
        (0..routes).map(|n| format!("  - {{ path: /r{n:05}/**, allow: [user], to: api }}")).collect();
    let text = format!("upstreams: {{ api: {{ servers: ['http://127.0.0.1:9'] }} }}\nroutes:\n{}", rules.join("\n"));
    let environment: Environment = std::iter::empty::<(String, String)>().collect();
    config::load_text(&text, Path::new("."), "bench.yaml", &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn user() -> Arc<Identity> {
    let principal = Principal {
        subject: Subject::user("ann"),
        user_id: None,
        roles: [Role::from("user")].into(),
        scopes: [].into(),
    };
    Arc::new(Identity::new(principal, Scheme::Bearer, None))
}

/// Target parsed, route found, permit made.
fn decision(c: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("api.example.com"));
    let caller = Caller::Known(user());
    for routes in [10, 10_000] {
        let snapshot = snapshot(routes);
        let uri: Uri = format!("/r{:05}/orders/4711/items?page=2", routes - 1).parse().unwrap();
        let head = Head { method: &Method::GET, uri: &uri, version: Version::HTTP_11, headers: &headers };
        assert!(decide(&snapshot, head, |_, _| Ok(caller.clone())).outcome.is_ok());
        c.bench_function(&format!("decision/{routes}"), |b| {
            b.iter(|| black_box(decide(&snapshot, black_box(head), |_, _| Ok(caller.clone()))));
        });
    }
}

/// The `Authorization` field to a credential.
fn credential(c: &mut Criterion) {
    let bearer = format!("Bearer {}.{}.{}", "a".repeat(48), "b".repeat(200), "c".repeat(86));
    for (name, value) in [
        ("basic", "Basic YW5uOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="),
        ("token", "Token pct_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("bearer", bearer.as_str()),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        c.bench_function(&format!("credential/{name}"), |b| {
            b.iter(|| black_box(authorization::credential(black_box(&headers))));
        });
    }
}

/// A principal that is remembered.
fn cache(c: &mut Criterion) {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("gateway.yaml");
    let text = "
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
workers: 1
log: { access: off, audit: off }
auth: { cache: { ttl: 1h } }
bootstrap: { users: [{ name: ann, password: correct horse, roles: [user] }] }
upstreams: { api: { servers: ['http://127.0.0.1:9'] } }
routes: [{ path: /**, allow: [user], to: api }]
";
    std::fs::write(&file, text).unwrap();
    let background = background().unwrap_or_else(|error| panic!("{error}"));
    let running = start(&file, Clock::system(), background.handle()).unwrap_or_else(|error| panic!("{error}"));
    let (snapshot, state) = (running.gateway().snapshot(), running.gateway().state());
    let metrics = state.metrics.worker();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic YW5uOmNvcnJlY3QgaG9yc2U="));
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (recent, audit, request_id) = (Recent::default(), Audit::disabled(), HeaderValue::from_static("r1"));
    let ask = || {
        let visit = Visit {
            address,
            now: state.clock.now(),
            metrics: &metrics,
            recent: Some(&recent),
            audit: &audit,
            request_id: &request_id,
        };
        state.authenticator.identify(&snapshot.auth, SchemeSet::all(), &headers, visit)
    };
    background.block_on(ask()).unwrap();
    c.bench_function("cache/hit", |b| {
        // a hit never waits; the first look at other processes' changes makes what was looked up before it void
        let wait = || background.block_on(ask());
        b.iter(|| black_box(ask().now_or_never().unwrap_or_else(wait).unwrap()));
    });
    running.drain(background);
}

/// A browser's head made into what the upstream is sent.
fn rewriting(c: &mut Criterion) {
    let snapshot = snapshot(1);
    let identity = user();
    let request = || {
        let request = Request::get("/r00000/orders/4711?page=2")
            .header("host", "api.example.com")
            .header("connection", "keep-alive")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
            .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
            .header("accept-language", "en-US,en;q=0.5")
            .header("accept-encoding", "gzip, deflate, br")
            .header("authorization", "Bearer a.b.c")
            .header("cookie", "theme=dark; locale=en")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-auth-user", "somebody-else");
        request.body(()).unwrap().into_parts().0
    };
    let target = Target::parse(&request().uri, &snapshot.paths).unwrap();
    let origin = Origin {
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trusted: false,
        https: true,
        host: HeaderValue::from_static("api.example.com"),
        request_id: &HeaderValue::from_static("8f14e45fceea167a5a36dedd4bea2543"),
        random: [7; 24],
    };
    let route = snapshot.routes.routes().first().unwrap();
    let outbound =
        Outbound { route, identity: Some(&identity), names: &snapshot.identity, target: &target, origin: &origin };
    let (head, mut written) = (request(), Vec::new());
    let server = HeaderValue::from_static("127.0.0.1:9001");
    c.bench_function("rewrite/request", |b| {
        b.iter(|| {
            written.clear();
            let hop = Hop::of(&head.headers);
            Departure::new(black_box(&head), &hop, outbound).write_http1(&Framing::Empty, &server, &mut written);
            black_box(&written);
        });
    });
}

criterion_group!(benches, decision, credential, cache, rewriting);
criterion_main!(benches);
