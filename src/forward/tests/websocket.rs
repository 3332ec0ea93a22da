//! `WebSocket` end to end: a caller, the gateway's side of a connection, a server.

use hyper_util::rt::TokioIo;

use super::*;

/// A server that agrees to any WebSocket and echoes its bytes; over HTTP/2 by extended CONNECT.
async fn echoing(speaks: Speaks) -> Handled {
    Handled::start(speaks, |mut request| async move {
        let mut response = Response::new(Body::empty());
        if request.method() == http::Method::CONNECT {
            let protocol = request.extensions().get::<hyper::ext::Protocol>().unwrap();
            assert_eq!(protocol.as_str(), "websocket");
        } else {
            let key = request.headers()["sec-websocket-key"].as_bytes();
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key);
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert("upgrade", HeaderValue::from_static("WebSocket"));
            response.headers_mut().insert("sec-websocket-accept", accept.parse().unwrap());
        }
        assert_eq!(request.headers()["x-auth-user"], "ann");
        let upgraded = hyper::upgrade::on(&mut request);
        spawn_local(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
            drop(tokio::io::copy(&mut read, &mut write).await);
        });
        response
    })
    .await
}

/// The gateway in front of `bench`, as far as this module is concerned.
async fn front(bench: Bench, speaks: Speaks) -> (Handled, Rc<Bench>) {
    let bench = Rc::new(bench);
    let gateway = Rc::clone(&bench);
    let front = Handled::start(speaks, move |mut request| {
        let bench = Rc::clone(&gateway);
        async move {
            if request.version() < http::Version::HTTP_2 {
                promise_ours(request.extensions_mut());
            }
            match bench.send(request.map(Body::streamed)).await {
                Ok(response) => response,
                Err(rejection) => {
                    let mut response = Response::new(Body::full(rejection.code()));
                    *response.status_mut() = rejection.status();
                    response
                }
            }
        }
    })
    .await;
    (front, bench)
}

/// The server here is hyper's; a caller over HTTP/1.1 bears a promise of our own.
fn promise_ours(extensions: &mut http::Extensions) {
    let Some(theirs) = extensions.remove::<hyper::upgrade::OnUpgrade>() else { return };
    let (keeper, promised) = crate::wire::upgrade::promise();
    extensions.insert(promised);
    spawn_local(async move {
        if let Ok(upgraded) = theirs.await {
            drop(keeper.send(Box::new(TokioIo::new(upgraded))));
        }
    });
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPT: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            break;
        }
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_websocket_passes_from_http1_to_every_kind_of_server() {
    for protocol in [Protocol::Http1, Protocol::H2c, Protocol::Https] {
        local(async move {
            let (acceptor, config) = http2::tls(&[b"h2", b"http/1.1"]);
            let speaks = match protocol {
                Protocol::Http1 => Speaks::Http1,
                Protocol::H2c => Speaks::Http2,
                Protocol::Https => Speaks::Tls(acceptor),
            };
            let upstream = echoing(speaks).await;
            let bench = Bench::with(vec![server_of(upstream.address, protocol)], |group| {
                group.tls = Some(UpstreamTls {
                    config,
                    server_name: Some("localhost".into()),
                    files: crate::forward::TlsFiles::default(),
                    content: [0; 32],
                });
            });
            let (front, bench) = front(bench, Speaks::Http1).await;
            let mut caller = TcpStream::connect(front.address).await.unwrap();
            // bytes behind the request wait for the agreement
            caller.write_all(format!("{ASK}early").as_bytes()).await.unwrap();
            let head = read_head(&mut caller).await.to_lowercase();
            assert!(head.starts_with("http/1.1 101 "), "{protocol:?}: {head}");
            for field in ["connection: upgrade\r\n", "upgrade: websocket\r\n", &ACCEPT.to_lowercase()] {
                assert!(head.contains(field), "{protocol:?}: {head}");
            }
            caller.write_all(b" and late").await.unwrap();
            let mut echoed = [0; 14];
            caller.read_exact(&mut echoed).await.unwrap();
            assert_eq!(&echoed, b"early and late");
            assert!(bench.metric("portcullis_open_streams{kind=\"websocket\"} 1"));
            drop(caller);
            eventually("its end", || bench.metric("portcullis_open_streams{kind=\"websocket\"} 0")).await;
        });
    }
}

#[test]
fn a_websocket_passes_from_http2_to_every_kind_of_server() {
    for protocol in [Protocol::Http1, Protocol::H2c] {
        local(async move {
            let speaks = if protocol == Protocol::Http1 { Speaks::Http1 } else { Speaks::Http2 };
            let upstream = echoing(speaks).await;
            let bench = Bench::new(vec![server_of(upstream.address, protocol)]);
            let (front, bench) = front(bench, Speaks::Http2).await;
            let (response, upgraded) = extended_connect(front.address).await;
            assert_eq!(response.status(), 200, "{protocol:?}");
            assert!(!response.headers().contains_key("sec-websocket-accept"));
            let mut caller = TokioIo::new(upgraded.unwrap());
            caller.write_all(b"hello").await.unwrap();
            let mut echoed = [0; 5];
            caller.read_exact(&mut echoed).await.unwrap();
            assert_eq!(&echoed, b"hello");
            drop(caller);
            eventually("its end", || bench.metric("portcullis_open_streams{kind=\"websocket\"} 0")).await;
        });
    }
}

async fn extended_connect(address: SocketAddr) -> (Response<()>, Result<hyper::upgrade::Upgraded, hyper::Error>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(pool::OnWorker, TokioIo::new(stream)).await.unwrap();
    while !connection.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    spawn_local(connection);
    let request = Request::builder()
        .method("CONNECT")
        .uri(format!("http://{address}/chat"))
        .header("sec-websocket-version", "13")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .body(Body::empty())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    let upgraded = if response.status() == 200 {
        hyper::upgrade::on(&mut response).await
    } else {
        // an error of any kind: nobody upgrades
        hyper::upgrade::on(Response::new(())).await
    };
    (response.map(drop), upgraded)
}

#[test]
fn a_server_that_does_not_agree_opens_no_tunnel() {
    local(async {
        let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
        let other =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n{ACCEPT}\r\n\r\n");
        let declined = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
        for (name, said, over_http1, over_http2) in [
            ("it declines", declined, "426", 426),
            ("it answers as if nothing had been asked", OK, "200", 502),
            ("it confirms another key", wrong_key, "502", 502),
            ("it agrees to another protocol", &other, "502", 502),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(said), Hold]]).await;
            let (front1, _bench) = front(Bench::new(vec![server(upstream.address)]), Speaks::Http1).await;
            let mut caller = TcpStream::connect(front1.address).await.unwrap();
            // a request behind it must not reach the server through a tunnel that is none
            caller.write_all(format!("{ASK}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
            let head = read_head(&mut caller).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {over_http1} ")), "{name}: {head}");
            assert!(!upstream.received(0).contains("/admin"), "{name}");
            let (front2, _bench) = front(Bench::new(vec![server(upstream.address)]), Speaks::Http2).await;
            let (response, _) = extended_connect(front2.address).await;
            assert_eq!(response.status(), over_http2, "{name}");
        }
    });
}

#[test]
fn a_connection_that_was_upgraded_serves_nobody_else() {
    local(async {
        let upstream = echoing(Speaks::Http1).await;
        let (front, _bench) = front(Bench::new(vec![server(upstream.address)]), Speaks::Http1).await;
        for connections in 1..=2 {
            let mut caller = TcpStream::connect(front.address).await.unwrap();
            caller.write_all(ASK.as_bytes()).await.unwrap();
            assert!(read_head(&mut caller).await.starts_with("HTTP/1.1 101 "));
            drop(caller);
            assert_eq!(upstream.connections.get(), connections);
        }
    });
}

#[test]
fn a_server_without_extended_connect_declines_and_stays_up() {
    local(async {
        let upstream = Handled::start(Speaks::Http2Plain, |_| async { Response::new(Body::full("ok")) }).await;
        let bench = Bench::new(vec![server_of(upstream.address, Protocol::H2c)]);
        let (front, bench) = front(bench, Speaks::Http1).await;
        for _ in 0..4 {
            let mut caller = TcpStream::connect(front.address).await.unwrap();
            caller.write_all(ASK.as_bytes()).await.unwrap();
            assert!(read_head(&mut caller).await.starts_with("HTTP/1.1 502 "));
        }
        let label = server_of(upstream.address, Protocol::H2c).label;
        assert_eq!(bench.fleet.healthy("orders", &label), Some(true));
        assert_eq!(bench.told(get("/")).await, "200 ok");
    });
}

#[test]
fn the_echo_opens_no_tunnel() {
    local(async {
        let (front2, _bench) = front(Bench::of(UpstreamKind::Echo), Speaks::Http2).await;
        let (response, _) = extended_connect(front2.address).await;
        assert_eq!(response.status(), 400);
        let (front1, _bench) = front(Bench::of(UpstreamKind::Echo), Speaks::Http1).await;
        let mut caller = TcpStream::connect(front1.address).await.unwrap();
        caller.write_all(ASK.as_bytes()).await.unwrap();
        assert!(read_head(&mut caller).await.starts_with("HTTP/1.1 200 "));
    });
}
