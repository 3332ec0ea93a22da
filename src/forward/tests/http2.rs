//! HTTP/2 upstreams, in clear and by ALPN, and what only passes there.

use std::sync::Arc;

use http::{HeaderMap, Version};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

#[test]
fn requests_share_a_connection_and_keep_their_host() {
    local(async {
        let upstream = Handled::start(Speaks::Http2, |request| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let headers = request.headers();
            let cookies = headers.get_all("cookie").iter().count();
            assert!(
                !headers.contains_key("host") && !headers.contains_key("te") && !headers.contains_key("connection")
            );
            Response::new(Body::full(format!("{} {} {cookies}", request.method(), request.uri())))
        })
        .await;
        let bench = Bench::new(vec![server_of(upstream.address, Protocol::H2c)]);
        let ask = || {
            let request = Request::builder().uri("/a?b").header("cookie", "a=1").header("cookie", "b=2");
            bench.told(request.header("connection", "keep-alive").body(Body::empty()).unwrap())
        };
        let answers = tokio::join!(ask(), ask(), ask());
        let expected = "200 GET http://api.example.com/a?b 2";
        assert_eq!((&*answers.0, &*answers.1, &*answers.2), (expected, expected, expected));
        assert_eq!(upstream.connections.get(), 1);
    });
}

#[test]
fn a_connection_that_went_away_is_replaced() {
    local(async {
        let bench = {
            let upstream = Handled::start(Speaks::Http2, |_| async { Response::new(Body::full("ok")) }).await;
            Bench::new(vec![server_of(upstream.address, Protocol::H2c)])
        };
        // the server ends each connection after one request
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let counted = Rc::clone(&connections);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                respond.send_response(Response::new(()), true).unwrap();
                connection.graceful_shutdown();
                while connection.accept().await.is_some() {}
            }
        });
        drop(bench);
        let bench = Bench::new(vec![server_of(address, Protocol::H2c)]);
        for _ in 0..3 {
            assert_eq!(bench.told(post("/", "x")).await, "200 ");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(connections.get(), 3);
    });
}

#[test]
fn a_refused_stream_is_said_again_and_a_failed_one_is_not() {
    local(async {
        for (name, reason, request, told) in [
            ("a refused GET", h2::Reason::REFUSED_STREAM, get("/"), "200 "),
            ("a refused POST", h2::Reason::REFUSED_STREAM, post("/", "x"), "upstream_unavailable"),
            ("a failed GET", h2::Reason::INTERNAL_ERROR, get("/"), "upstream_unavailable"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move {
                let mut first = true;
                while let Ok((stream, _)) = listener.accept().await {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    let refuse = std::mem::take(&mut first);
                    spawn_local(async move {
                        while let Some(Ok((_, mut respond))) = connection.accept().await {
                            if refuse {
                                respond.send_reset(reason);
                            } else {
                                respond.send_response(Response::new(()), true).unwrap();
                            }
                        }
                    });
                }
            });
            let bench = Bench::new(vec![server_of(address, Protocol::H2c), server_of(address, Protocol::H2c)]);
            assert_eq!(bench.told(request).await, told, "{name}");
        }
    });
}

#[test]
fn trailers_pass_both_ways_but_not_those_that_say_who_somebody_is() {
    local(async {
        let upstream = Handled::start(Speaks::Http2, |request| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let collected = request.into_body().collect().await.unwrap();
            let mut names: Vec<String> = collected.trailers().unwrap().keys().map(ToString::to_string).collect();
            names.sort_unstable();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("x-got", HeaderValue::from_str(&names.join(",")).unwrap());
            let (sender, body) = fed();
            sender.send(http_body::Frame::data("hi".into())).unwrap();
            sender.send(http_body::Frame::trailers(trailers)).unwrap();
            let mut response = Response::new(body);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            response
        })
        .await;
        let mut bench = Bench::new(vec![server_of(upstream.address, Protocol::H2c)]);
        bench.names.user = Some(http::HeaderName::from_static("x-who"));
        let (sender, body) = fed();
        sender.send(http_body::Frame::data("hello".into())).unwrap();
        let mut trailers = HeaderMap::new();
        for name in ["x-fine", "x-who", "x-auth-user", "x_auth_user", "authorization", "content-length", "host"] {
            trailers.insert(http::HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        sender.send(http_body::Frame::trailers(trailers)).unwrap();
        drop(sender);
        let request = Request::builder().method("POST").uri("/a.B/C").header("te", "trailers").body(body).unwrap();
        let response = bench.send(request).await.unwrap();
        assert!(bench.metric("portcullis_open_streams{kind=\"grpc\"} 1"));
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-got"], "x-fine");
        assert!(bench.metric("portcullis_open_streams{kind=\"grpc\"} 0"));
    });
}

#[test]
fn trailers_pass_over_http1_where_they_were_announced() {
    local(async {
        let said =
            "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
        let upstream = Upstream::start(vec![vec![Until("0\r\nx-fine: 1\r\n\r\n"), say(said), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let (sender, body) = fed();
        sender.send(http_body::Frame::data("hello".into())).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-fine", HeaderValue::from_static("1"));
        trailers.insert("x-auth-user", HeaderValue::from_static("root"));
        sender.send(http_body::Frame::trailers(trailers)).unwrap();
        drop(sender);
        let request = Request::builder()
            .method("POST")
            .uri("/")
            .header("te", "trailers")
            .header("trailer", "x-fine, x-auth-user")
            .body(body)
            .unwrap();
        let response = bench.send(request).await.unwrap();
        assert_eq!(response.headers()["trailer"], "x-sum");
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
        let seen = upstream.received(0);
        assert!(seen.contains("te: trailers\r\n") && seen.contains("connection: te\r\n"), "{seen}");
        assert!(!seen.contains("x-auth-user: root"), "{seen}");
    });
}

/// A server's TLS for `localhost`, and the client's that believes it.
pub(super) fn tls(protocols: &[&[u8]]) -> (tokio_rustls::TlsAcceptor, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

#[test]
fn over_tls_the_server_chooses_the_protocol() {
    local(async {
        for (name, protocols, told, connections) in [
            ("both", &[&b"h2"[..], b"http/1.1"][..], "200 HTTP/2.0 Some(\"https\")", 1),
            ("http/1.1 only", &[b"http/1.1"], "200 HTTP/1.1 None", 2),
            ("none", &[], "200 HTTP/1.1 None", 2),
        ] {
            let (acceptor, config) = tls(protocols);
            let upstream = Handled::start(Speaks::Tls(acceptor), |request| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Response::new(Body::full(format!("{:?} {:?}", request.version(), request.uri().scheme_str())))
            })
            .await;
            let bench = Bench::with(vec![server_of(upstream.address, Protocol::Https)], |group| {
                group.tls = Some(UpstreamTls {
                    config,
                    server_name: Some("localhost".into()),
                    files: crate::forward::TlsFiles::default(),
                    content: [0; 32],
                });
            });
            let (a, b) = tokio::join!(bench.told(get("/")), bench.told(get("/")));
            assert_eq!((&*a, &*b), (told, told), "{name}");
            assert_eq!(bench.told(get("/")).await, told, "{name}");
            assert_eq!(upstream.connections.get(), connections, "{name}");
        }
    });
}

#[test]
fn a_server_that_cannot_prove_its_name_gets_nothing() {
    local(async {
        for (name, own_root, server_name, told) in [
            ("its certificate is believed for its name", true, Some("localhost"), "200 ok"),
            ("it is for another name", true, Some("other.example"), "upstream_unavailable"),
            ("it is not for the address in the URL", true, None, "upstream_unavailable"),
            ("it is signed by nobody we know", false, Some("localhost"), "upstream_unavailable"),
        ] {
            let (acceptor, own) = tls(&[b"http/1.1"]);
            let (_, other) = tls(&[]);
            let upstream = Handled::start(Speaks::Tls(acceptor), |_| async { Response::new(Body::full("ok")) }).await;
            let bench = Bench::with(vec![server_of(upstream.address, Protocol::Https)], |group| {
                let config = if own_root { own } else { other };
                group.tls = Some(UpstreamTls {
                    config,
                    server_name: server_name.map(Into::into),
                    files: crate::forward::TlsFiles::default(),
                    content: [0; 32],
                });
            });
            assert_eq!(bench.told(get("/")).await, told, "{name}");
        }
        let bench = Bench::new(vec![server_of(closed_address().await, Protocol::Https)]);
        assert_eq!(bench.told(get("/")).await, "upstream_unavailable", "https without tls settings");
    });
}
