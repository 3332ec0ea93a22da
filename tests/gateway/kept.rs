//! What a reload leaves alone: connections, health, remembered principals and budgets whose settings it does not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::client::basic;
use crate::support::{Certificate, Gateway, HS256, Setup, Signer, USERS, Upstream, eventually, get, post, websocket};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    H2c,
    /// TLS, with these protocols.
    Tls(&'static [&'static str]),
}

const ALL: [Speaks; 4] = [Speaks::Http1, Speaks::H2c, Speaks::Tls(&["http/1.1"]), Speaks::Tls(&["h2"])];

/// A server that counts its connections and its probes, fails the latter, and after an `Upgrade` says what it hears.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(speaks: Speaks, certificate: &Certificate) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connections, probes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (scheme, acceptor) = match speaks {
            Speaks::Http1 => ("http", None),
            Speaks::H2c => ("h2c", None),
            Speaks::Tls(protocols) => {
                let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let builder = rustls::ServerConfig::builder_with_provider(provider);
                let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
                let mut config = builder.with_single_cert(vec![certificate.der()], key).unwrap();
                config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
                ("https", Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
            }
        };
        let (counted, asked) = (connections.clone(), probes.clone());
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (counted, asked, acceptor) = (counted.clone(), asked.clone(), acceptor.clone());
                tokio::spawn(async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    match acceptor {
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(socket).await else { return };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            if http2 { over_http2(stream, &asked).await } else { over_http1(stream, &asked).await }
                        }
                        None if speaks == Speaks::H2c => over_http2(socket, &asked).await,
                        None => over_http1(socket, &asked).await,
                    }
                });
            }
        });
        Self { url: format!("{scheme}://localhost:{port}"), connections, probes, _runtime: runtime }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn over_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, probes: &AtomicUsize) {
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        head.extend_from_slice(&part[..count]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned();
        if let Some(key) = text.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")) {
            stream.write_all(websocket::agreed(key).as_bytes()).await.unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            // ends with the connection
            tokio::io::copy(&mut from, &mut to).await.unwrap_or_default();
            return;
        }
        let status = status(&text, probes);
        let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn over_http2(stream: impl AsyncRead + AsyncWrite + Unpin, probes: &AtomicUsize) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let status = status(&format!("GET {} ", request.uri().path()), probes);
        let response = http::Response::builder().status(status).body(()).unwrap();
        drop(respond.send_response(response, true));
    }
}

fn status(head: &str, probes: &AtomicUsize) -> u16 {
    if head.starts_with("GET /health ") {
        probes.fetch_add(1, Ordering::SeqCst);
        return 500;
    }
    200
}

/// One worker, so that all requests meet the same connections.
fn yaml(server: &Server, speaks: Speaks, of_upstream: &str, more: &str) -> String {
    let tls = if matches!(speaks, Speaks::Tls(_)) && !of_upstream.contains("tls:") {
        ", tls: { ca: ca.pem, server_name: localhost }"
    } else {
        ""
    };
    format!(
        "workers: 1
upstreams:
  other: {{ builtin: echo }}
  api: {{ servers: ['{}']{tls}{of_upstream} }}
routes:
  - {{ path: /x, allow: anyone, to: api }}
{more}",
        server.url
    )
}

#[test]
fn connections_to_servers_outlive_a_reload_that_would_make_them_alike() {
    for speaks in ALL {
        let certificate = Certificate::of(&["localhost", "other.example"]);
        let server = Server::start(speaks, &certificate);
        let setup = Setup::new(&yaml(&server, speaks, "", ""));
        setup.write("ca.pem", &certificate.cert);
        let gateway = setup.start();
        gateway.send(&get("/x")).expect(200);
        assert_eq!(server.connections(), 1, "{speaks:?}");
        for (name, of_upstream, more) in [
            ("nothing", "", ""),
            ("another route", "", "  - { path: /y, allow: [user], to: other }\n"),
            ("another timeout", "", "timeouts: { connect: 3s }\n"),
            ("how one is chosen", ", balance: round_robin", ""),
            ("how many are kept", ", keep_alive: 3", ""),
        ] {
            gateway.reload(&yaml(&server, speaks, of_upstream, more));
            gateway.send(&get("/x")).expect(200);
            assert_eq!(server.connections(), 1, "{speaks:?}: {name}");
        }
        let moved = yaml(&server, speaks, "", "").replace("  other: { builtin: echo }\n", "");
        gateway.reload(&moved);
        gateway.send(&get("/x")).expect(200);
        assert_eq!(server.connections(), 1, "{speaks:?}: its place in the file");
        if !matches!(speaks, Speaks::Tls(_)) {
            continue;
        }
        // written anew, with a comment before it, and called something else
        setup.write("ca.pem", format!("ours\n{}", certificate.cert));
        setup.write("same.pem", &certificate.cert);
        for ca in ["ca.pem", "same.pem"] {
            gateway.reload(&yaml(&server, speaks, &format!(", tls: {{ ca: {ca}, server_name: localhost }}"), ""));
            gateway.send(&get("/x")).expect(200);
            assert_eq!(server.connections(), 1, "{speaks:?}: the same certificate in {ca}");
        }
        setup.write("ca.pem", format!("{}{}", certificate.cert, Certificate::of(&["localhost"]).cert));
        gateway.reload(&yaml(&server, speaks, "", ""));
        gateway.send(&get("/x")).expect(200);
        assert_eq!(server.connections(), 2, "{speaks:?}: another is trusted");
        gateway.reload(&yaml(&server, speaks, ", tls: { ca: ca.pem, server_name: other.example }", ""));
        gateway.send(&get("/x")).expect(200);
        assert_eq!(server.connections(), 3, "{speaks:?}: another name");
        setup.write("ca.pem", &Certificate::of(&["localhost"]).cert);
        gateway.reload(&yaml(&server, speaks, "", ""));
        gateway.send(&get("/x")).refused(502, "upstream_unavailable");
    }
}

#[test]
fn tunnels_and_connections_of_callers_outlive_any_reload() {
    for speaks in [Speaks::Http1, Speaks::Tls(&["http/1.1"])] {
        let certificate = Certificate::of(&["localhost"]);
        let server = Server::start(speaks, &certificate);
        let setup = Setup::new(&yaml(&server, speaks, "", ""));
        setup.write("ca.pem", &certificate.cert);
        let gateway = setup.start();
        let mut tunnel = gateway.connect();
        tunnel.write(&websocket::request("/x").to_bytes()).unwrap();
        assert_eq!(tunnel.head().unwrap().status, 101);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let caller = runtime.block_on(websocket::over_http2(gateway.address()));
        let mut kept = gateway.connect();
        setup.write("ca.pem", Certificate::of(&["localhost"]).cert);
        for (name, rules) in [
            ("the same", yaml(&server, speaks, "", "")),
            ("without its route", yaml(&server, speaks, "", "").replace("/x", "/y")),
            (
                "without its upstream",
                "workers: 1\nupstreams: { other: { builtin: echo } }\nroutes: [{ path: /y, allow: anyone, to: other }]\n".to_owned(),
            ),
        ] {
            gateway.reload(&rules);
            tunnel.write(b"said").unwrap();
            assert_eq!(tunnel.take(4).unwrap(), b"said", "{speaks:?}: {name}");
            let status = runtime.block_on(async {
                let mut caller = caller.clone().ready().await.unwrap();
                let request = http::Request::get("http://localhost/none").body(()).unwrap();
                caller.send_request(request, true).unwrap().0.await.unwrap().status()
            });
            assert_eq!(status, 404, "{speaks:?}: {name}");
            kept.send(&get("/none")).refused(404, "no_route");
        }
    }
}

#[test]
fn what_probes_have_found_outlives_a_reload_and_is_not_asked_again() {
    for speaks in ALL {
        let certificate = Certificate::of(&["localhost"]);
        let server = Server::start(speaks, &certificate);
        let check = ", health: { interval: 1h, timeout: 10s, unhealthy_after: 1 }";
        let setup = Setup::new(&yaml(&server, speaks, check, ""));
        setup.write("ca.pem", &certificate.cert);
        let gateway = setup.start();
        eventually("the server is down", || match gateway.send(&get("/x")).status {
            503 => Ok(()),
            status => Err(status),
        });
        for path in ["/y", "/z", "/y", "/z"] {
            let more = format!("  - {{ path: {path}, allow: anyone, to: api }}\n");
            gateway.reload(&yaml(&server, speaks, check, &more));
            gateway.send(&get(path)).refused(503, "no_healthy_upstream");
        }
        assert_eq!(server.probes.load(Ordering::SeqCst), 1, "{speaks:?}");
        // a check that says something else begins anew
        let sooner = check.replace("1h", "2h");
        gateway.reload(&yaml(&server, speaks, &sooner, ""));
        eventually("it is asked again", || match server.probes.load(Ordering::SeqCst) {
            2 => Ok(()),
            probes => Err(probes),
        });
    }
}

#[test]
fn who_was_looked_up_is_remembered_over_a_reload() {
    let upstream = Upstream::hello();
    let signer = Signer::eddsa();
    let yaml = |schemes: &str, more: &str| {
        format!(
            "{USERS}{HS256}  issuers: [{{ issuer: 'https://idp.example', jwks: keys.json, roles: roles }}]
  cache: {{ ttl: 1h }}
workers: 1
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /x, allow: authenticated{schemes}, to: api }}
{more}",
            upstream.url()
        )
    };
    let setup = Setup::new(&yaml("", ""));
    setup.write("keys.json", signer.jwks("k1").to_string());
    let gateway = setup.start();
    let mut foreign = crate::support::keys::claims("ann");
    foreign["iss"] = "https://idp.example".into();
    let credentials = [
        basic("user", "userpassword"),
        format!("Token {}", gateway.opaque("user")),
        format!("Bearer {}", gateway.access("user")),
        format!("Bearer {}", signer.token(&foreign)),
    ];
    let ask = || {
        for credential in &credentials {
            gateway.send(&get("/x").header("Authorization", credential)).expect(200);
        }
    };
    let misses = || gateway.metric("portcullis_auth_cache_total", &[("result", "miss")]);
    ask();
    let before = misses();
    assert!(before > 3.5, "{before}");
    for (schemes, more) in [
        ("", "  - { path: /y, allow: [user], to: api }\n"),
        (", timeout: 7s", ""),
        (", schemes: [basic, token, bearer]", "timeouts: { idle: 80s }\n"),
        ("", "tokens: { access_ttl: 5m }\n"),
    ] {
        gateway.reload(&yaml(schemes, more));
        ask();
        assert!((misses() - before).abs() < 0.1, "{schemes}{more}: {} and {before}", misses());
    }
    // a reload that changes what tokens are read by asks again
    gateway.reload(&yaml("", "").replace("roles: roles }", "roles: groups }"));
    ask();
    assert!(misses() > before + 0.5, "{}", misses());
}

#[test]
fn budgets_of_endpoints_and_failures_outlive_a_reload_that_changes_another() {
    let upstream = Upstream::hello();
    let budget = "{ rate: 1/h, burst: 2 }";
    let yaml = |of_address: &str, of_account: &str, more: &str| {
        format!(
            "{USERS}
limits:
  token_endpoints: {{ per_address: {of_address}, per_account: {of_account}, per_account_anywhere: off }}
  unauthenticated: {budget}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /x, allow: authenticated, to: api }}
{more}",
            upstream.url()
        )
    };
    let login = |gateway: &Gateway, user: &str| {
        let body = serde_json::json!({ "username": user, "password": "wrong" });
        gateway.send(&post("/auth/login").json(&body)).status
    };
    // by account: two failures
    let gateway = Gateway::start(&yaml("off", budget, ""));
    assert_eq!([login(&gateway, "user"), login(&gateway, "user"), login(&gateway, "user")], [401, 401, 429]);
    for _ in 0..2 {
        gateway.send(&get("/x").basic("nobody", "wrong")).refused(401, "invalid_credentials");
    }
    gateway.send(&get("/x").basic("another", "wrong")).refused(429, "rate_limited");
    for more in ["  - { path: /y, allow: anyone, to: api }\n", "tokens: { access_ttl: 5m }\n"] {
        gateway.reload(&yaml("{ rate: 1/h, burst: 100 }", budget, more));
        assert_eq!(login(&gateway, "user"), 429, "{more}");
        assert_eq!(login(&gateway, "admin-nobody"), 401, "{more}");
        gateway.send(&get("/x").basic("another", "wrong")).refused(429, "rate_limited");
    }
    // by address
    let gateway = Gateway::start(&yaml(budget, "off", ""));
    assert_eq!([login(&gateway, "user"), login(&gateway, "admin"), login(&gateway, "guest")], [401, 401, 429]);
    gateway.reload(&yaml(budget, "{ rate: 1/h, burst: 100 }", "tokens: { access_ttl: 5m }\n"));
    assert_eq!(login(&gateway, "other"), 429);
    // another quota begins anew
    gateway.reload(&yaml("{ rate: 1/h, burst: 3 }", "off", ""));
    assert_eq!(login(&gateway, "other"), 401);
}
