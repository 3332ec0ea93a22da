//! TLS listeners: certificates by SNI, versions, ALPN, the redirect (contract 2 `listeners`).

use std::sync::atomic::{AtomicBool, Ordering};

use rustls::version::{TLS12, TLS13};

use crate::support::keys::Trusting;
use crate::support::outside::curl;
use crate::support::{Certificate, Connection, Gateway, Setup, USERS, Upstream, eventually, get, routes};

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn listeners(tls: &str) -> String {
    format!("listeners:\n  - address: 127.0.0.1:0\n    tls: {tls}\n")
}

fn request(gateway: &Gateway, name: &str, client: &std::sync::Arc<Trusting>) -> u16 {
    let mut connection = Connection::tls(gateway.address(), name, client.config(&BOTH, &["http/1.1"])).unwrap();
    connection.send(&get("/open/x")).status
}

#[test]
fn certificates_are_picked_by_name_and_the_first_is_the_fallback() {
    let upstream = Upstream::hello();
    let tls = "{ certificates: [{ cert: a.pem, key: a.key }, { cert: b.pem, key: b.key }] }";
    let setup = Setup::new(&format!("{}{USERS}{}", listeners(tls), routes(&upstream)));
    let one = Certificate::of(&["a.example.com", "a2.example.com"]);
    let two = Certificate::of(&["*.b.example.com", "b.example.com"]);
    for (name, certificate) in [("a", &one), ("b", &two)] {
        setup.write(&format!("{name}.pem"), &certificate.cert);
        setup.write(&format!("{name}.key"), &certificate.key);
    }
    let gateway = setup.start();
    for (name, expected) in [
        ("a.example.com", &one),
        ("a2.example.com", &one),
        ("A.EXAMPLE.COM", &one),
        ("b.example.com", &two),
        ("x.b.example.com", &two),
        ("x.y.b.example.com", &one),
        ("unknown.example.com", &one),
        ("127.0.0.1", &one),
    ] {
        let client = Trusting::new();
        assert_eq!(request(&gateway, name, &client), 200, "{name}");
        assert_eq!(client.shown(), expected.der(), "{name}");
    }
    assert_eq!(upstream.last().header("X-Forwarded-Proto"), Some("https"));
}

#[test]
fn an_old_version_is_refused_where_a_newer_one_is_asked_for() {
    let upstream = Upstream::hello();
    for (minimum, old) in [("1.2", true), ("1.3", false)] {
        let tls = format!("{{ self_signed: [localhost], min_version: '{minimum}' }}");
        let gateway = Gateway::start(&format!("{}{USERS}{}", listeners(&tls), routes(&upstream)));
        let client = Trusting::new();
        let with = |version| Connection::tls(gateway.address(), "localhost", client.config(&[version], &[]));
        assert_eq!(with(&TLS12).is_ok(), old, "{minimum}");
        assert!(with(&TLS13).is_ok(), "{minimum}");
    }
}

#[test]
fn both_protocols_are_spoken_and_chosen_by_alpn() {
    let upstream = Upstream::hello();
    let tls = "{ self_signed: [localhost] }";
    let gateway = Gateway::start(&format!("{}{USERS}{}", listeners(tls), routes(&upstream)));
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let (response, spoken) = curl(&["--insecure", flag, &gateway.url("/open/x")]);
        assert_eq!((response.status, spoken.as_str()), (200, version));
    }
    let client = Trusting::new();
    assert!(Connection::tls(gateway.address(), "localhost", client.config(&BOTH, &["spdy/3"])).is_err());
    let mut connection = Connection::tls(gateway.address(), "localhost", client.config(&BOTH, &[])).unwrap();
    connection.send(&get("/open/x")).expect(200);
}

#[test]
fn a_self_signed_certificate_is_kept() {
    let upstream = Upstream::hello();
    // no listeners at all would mean port 8443, which may be taken: its default TLS with a free port
    let setup = Setup::new(&format!("{}{USERS}{}", listeners("{ self_signed: [localhost] }"), routes(&upstream)));
    let mut shown = Vec::new();
    for _ in 0..2 {
        let gateway = setup.start();
        let client = Trusting::new();
        request(&gateway, "localhost", &client);
        shown.push(client.shown());
    }
    assert_eq!(shown[0], shown[1]);
}

#[test]
fn plain_text_on_a_tls_listener_and_garbage_are_answered_by_the_end() {
    let upstream = Upstream::hello();
    let tls = listeners("{ self_signed: [localhost] }");
    let gateway = Gateway::start(&format!("{tls}timeouts: {{ handshake: 2s }}\n{USERS}{}", routes(&upstream)));
    for bytes in [&b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\x16\x03\x01\xff\xff\xff", b"\0\0\0\0"] {
        let answer = gateway.raw(bytes);
        assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
    }
    eventually("failed handshakes are counted", || {
        let text = gateway.admin("/metrics").text();
        let failed = text.lines().any(|line| {
            line.starts_with("portcullis_tls_handshakes_total{")
                && !line.contains("result=\"ok\"")
                && !line.ends_with(" 0")
        });
        if failed { Ok(()) } else { Err(text) }
    });
    assert_eq!(request(&gateway, "localhost", &Trusting::new()), 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_handshake_that_dawdles_is_cut_off() {
    let upstream = Upstream::hello();
    let tls = listeners("{ self_signed: [localhost] }");
    let gateway = Gateway::start(&format!("{tls}timeouts: {{ handshake: 300ms }}\n{USERS}{}", routes(&upstream)));
    let mut connection = gateway.connect();
    connection.write(b"\x16\x03\x01").unwrap();
    drop(connection.rest().unwrap());
}

#[test]
fn the_redirect_keeps_the_url() {
    let upstream = Upstream::hello();
    let https = crate::support::upstream::nobody();
    let yaml = format!(
        "listeners:
  - {{ address: '127.0.0.1:0', redirect: https }}
  - {{ address: '{https}', tls: {{ self_signed: [localhost] }} }}
{USERS}{}",
        routes(&upstream)
    );
    let gateway = Gateway::start(&yaml);
    for (host, target) in [("api.example.com", "/open/x?a=b%2F&c"), ("api.example.com:8080", "/admin/x")] {
        let response = gateway.send(&get(target).header("Host", host)).expect(308);
        let location = response.header("Location").unwrap();
        assert_eq!(location, format!("https://api.example.com:{}{target}", https.port()));
    }
    for host in ["evil\\@x", "a b", "a/b", ""] {
        assert_eq!(gateway.send(&get("/open/x").header("Host", host)).status, 400, "{host}");
    }
    let absolute = gateway.raw(b"GET //evil.example/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&absolute).to_lowercase();
    assert!(!text.contains("location: //") && !text.contains("https://evil"), "{text}");
    assert!(upstream.received().is_empty());
}

#[test]
fn a_changed_certificate_is_taken_up_without_a_restart() {
    let upstream = Upstream::hello();
    let tls = "{ certificates: [{ cert: a.pem, key: a.key }] }";
    let setup = Setup::new(&format!("{}{USERS}{}", listeners(tls), routes(&upstream)));
    let (old, new) = (Certificate::of(&["localhost"]), Certificate::of(&["localhost"]));
    let place = |certificate: &Certificate| {
        setup.write("a.key", &certificate.key);
        setup.write("a.pem", &certificate.cert);
    };
    place(&old);
    let gateway = setup.start();
    let client = Trusting::new();
    let mut kept = Connection::tls(gateway.address(), "localhost", client.config(&BOTH, &[])).unwrap();
    kept.send(&get("/open/x")).expect(200);
    assert_eq!(client.shown(), old.der());
    place(&new);
    eventually("the new certificate", || {
        let client = Trusting::new();
        request(&gateway, "localhost", &client);
        if client.shown() == new.der() { Ok(()) } else { Err("the old one") }
    });
    kept.send(&get("/open/x")).expect(200);
    // and the audit says that it is another one
    eventually("the audit of the reload", || {
        let text = gateway.stdout();
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let expected = "listeners.127.0.0.1:0.certificates: another value (not shown)";
        if events.any(|event| event["audit"] == "reloaded" && event["settings"] == expected) {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn an_upstream_over_tls_is_verified() {
    let certificate = Certificate::of(&["upstream.test"]);
    let server = {
        use rustls::pki_types::pem::PemObject;
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        std::sync::Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate.der()], key).unwrap())
    };
    let upstream = Upstream::sessions(move |socket| {
        use std::io::{BufRead, BufReader, Write};
        let session = rustls::ServerConnection::new(server.clone()).unwrap();
        let mut stream = BufReader::new(rustls::StreamOwned::new(session, socket));
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) && line.trim() != "" {
            line.clear();
        }
        // a caller that did not like the certificate is gone by now
        drop(stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret"));
        drop(stream.get_mut().flush());
    });
    for (tls, status) in [
        ("tls: { ca: ca.pem, server_name: upstream.test }", 200),
        ("tls: { ca: ca.pem, server_name: other.test }", 502),
        ("tls: { ca: ca.pem }", 502),
        ("tls: { server_name: upstream.test }", 502),
    ] {
        let setup = Setup::new(&format!(
            "
upstreams: {{ api: {{ servers: ['https://{}'], {tls} }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
            upstream.address()
        ));
        setup.write("ca.pem", &certificate.cert);
        assert_eq!(setup.start().send(&get("/x")).status, status, "{tls}");
    }
}

#[test]
fn a_certificate_is_replaced_under_load_and_no_request_fails() {
    let upstream = Upstream::hello();
    let tls = "{ certificates: [{ cert: a.pem, key: a.key }] }";
    let setup = Setup::new(&format!("{}{USERS}{}", listeners(tls), routes(&upstream)));
    let certificates = [(); 4].map(|()| Certificate::of(&["localhost"]));
    let write = |certificate: &Certificate| {
        // both in one step, as a deployment that swaps a folder does
        for (name, text) in [("a.pem", &certificate.cert), ("a.key", &certificate.key)] {
            setup.write(&format!("{name}.new"), text);
        }
        for name in ["a.key", "a.pem"] {
            std::fs::rename(setup.path(&format!("{name}.new")), setup.path(name)).unwrap();
        }
    };
    write(&certificates[0]);
    let gateway = setup.start();
    let done = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let callers: Vec<_> = [true, false]
            .into_iter()
            .map(|keeps| {
                let (gateway, done) = (&gateway, &done);
                scope.spawn(move || {
                    let connect = || {
                        let config = Trusting::new().config(&BOTH, &["http/1.1"]);
                        Connection::tls(gateway.address(), "localhost", config).unwrap()
                    };
                    let (mut served, mut connection) = (0_u32, connect());
                    while !done.load(Ordering::SeqCst) {
                        if !keeps {
                            connection = connect();
                        }
                        assert_eq!(connection.send(&get("/open/x")).status, 200, "keeps: {keeps}");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for certificate in certificates.iter().cycle().skip(1).take(8) {
            write(certificate);
            gateway.signal("HUP");
            eventually("the new certificate", || {
                let client = Trusting::new();
                assert_eq!(request(&gateway, "localhost", &client), 200);
                if client.shown() == certificate.der() { Ok(()) } else { Err("another") }
            });
        }
        done.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<u32>()
    });
    assert!(served > 16, "{served}");
}
