//! WebSocket through `Upgrade` and through HTTP/2's extended CONNECT (RFC 6455, RFC 8441).

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::outside::run_python;
use crate::support::{Gateway, USERS, Upstream, eventually, get};
use tokio_tungstenite::tungstenite::{self, Message};

/// A WebSocket server that sends back what it gets, and keeps the heads of its handshakes.
fn echo() -> (Upstream, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let heads = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = heads.clone();
    let upstream = Upstream::sessions(move |socket: TcpStream| {
        #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
        let note = |request: &tungstenite::handshake::server::Request, response| {
            kept.lock().unwrap().push(format!("{:?}", request.headers()).to_lowercase());
            Ok(response)
        };
        let Ok(mut session) = tungstenite::accept_hdr(socket, note) else { return };
        while let Ok(message) = session.read() {
            if message.is_close() || session.send(message).is_err() {
                break;
            }
        }
        // the answer to a close frame leaves with this
        drop(session.flush());
    });
    (upstream, heads)
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /ws, allow: [user], to: api }}]
",
        upstream.url()
    ))
}

fn handshake(gateway: &Gateway, authorization: Option<&str>) -> tungstenite::handshake::client::Request {
    use tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{}/ws", gateway.address()).into_client_request().unwrap();
    if let Some(value) = authorization {
        request.headers_mut().insert("Authorization", value.parse().unwrap());
    }
    request
}

#[test]
fn a_websocket_passes_both_ways_once_its_handshake_was_authorized() {
    let (upstream, heads) = echo();
    let gateway = gateway(&upstream);
    let good = crate::support::client::basic("user", "userpassword");
    let socket = TcpStream::connect(gateway.address()).unwrap();
    socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    let (mut session, response) = tungstenite::client(handshake(&gateway, Some(&good)), socket).unwrap();
    assert_eq!(response.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000]), Message::text("bye")] {
        session.send(message.clone()).unwrap();
        assert_eq!(session.read().unwrap(), message);
    }
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.contains("x-auth-user") && !head.contains("authorization"), "{head}");
    eventually("an open stream is counted", || {
        match gateway.metric("portcullis_open_streams", &[("kind", "websocket")]) {
            open if (open - 1.0).abs() < 0.1 => Ok(()),
            open => Err(open),
        }
    });
    session.close(None).unwrap();
    while session.read().is_ok() {}
    drop(session);
    eventually("the closed stream is no longer counted", || {
        match gateway.metric("portcullis_open_streams", &[("kind", "websocket")]) {
            open if open < 0.1 => Ok(()),
            open => Err(open),
        }
    });
}

#[test]
fn a_handshake_without_the_right_is_refused_as_any_request() {
    let (upstream, heads) = echo();
    let gateway = gateway(&upstream);
    let guest = crate::support::client::basic("guest", "guestpassword");
    for (authorization, status) in [(None, 401), (Some(guest.as_str()), 403)] {
        let socket = TcpStream::connect(gateway.address()).unwrap();
        let refused = tungstenite::client(handshake(&gateway, authorization), socket);
        let error = refused.map(|_| "an open session").unwrap_err().to_string();
        assert!(error.contains(&status.to_string()), "{error}");
    }
    assert!(heads.lock().unwrap().is_empty());
}

#[test]
fn an_upgrade_that_the_upstream_declines_is_an_ordinary_response() {
    let upstream = Upstream::hello();
    let gateway = gateway(&upstream);
    let request =
        get("/ws").basic("user", "userpassword").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let mut connection = gateway.connect();
    let response = connection.send(&request).expect(200);
    assert_eq!(response.text(), "hello");
    // and what follows on the connection is judged as any request, not passed through
    connection.write(&get("/ws").to_bytes()).unwrap();
    assert_eq!(connection.response("GET").unwrap().status, 401);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_upgrade_to_anything_else_is_not_passed_on() {
    let upstream = Upstream::hello();
    let gateway = gateway(&upstream);
    for protocol in ["h2c", "TLS/1.2", "foo"] {
        let request = get("/ws").basic("user", "userpassword").header("Connection", "Upgrade, HTTP2-Settings");
        let request = request.header("Upgrade", protocol).header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
        let response = gateway.send(&request);
        assert_ne!(response.status, 101, "{protocol}");
        for received in upstream.received() {
            assert_eq!((received.header("Upgrade"), received.header("HTTP2-Settings")), (None, None), "{protocol}");
        }
    }
}

#[test]
fn a_websocket_of_pythons_passes() {
    let (upstream, _) = echo();
    let gateway = gateway(&upstream);
    let said = run_python(
        "
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], additional_headers={'Authorization': sys.argv[2]}) as session:
    session.send('from python')
    print(session.recv())
    session.send(b'x' * 100000)
    print(len(session.recv()))
",
        &[&format!("ws://{}/ws", gateway.address()), &crate::support::client::basic("user", "userpassword")],
    );
    assert_eq!(said, "from python\n100000");
}

#[test]
fn a_websocket_over_http2_passes() {
    let (upstream, heads) = echo();
    let gateway = gateway(&upstream);
    let authorization = crate::support::client::basic("user", "userpassword");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let echoed = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        // the server says by a setting that it takes extended CONNECT
        let start = std::time::Instant::now();
        while !client.is_extended_connect_protocol_enabled() {
            assert!(start.elapsed() < crate::support::DEADLINE, "no extended CONNECT");
            tokio::task::yield_now().await;
            client = client.ready().await.unwrap();
        }
        let request = |authorization: &str| {
            http::Request::builder()
                .method("CONNECT")
                .uri("http://localhost/ws")
                .header("sec-websocket-version", "13")
                .header("authorization", authorization)
                .extension(h2::ext::Protocol::from_static("websocket"))
                .body(())
                .unwrap()
        };
        let (refused, _) = client.send_request(request("Basic eDp5"), true).unwrap();
        assert_eq!(refused.await.unwrap().status(), 401);
        let (response, mut out) = client.send_request(request(&authorization), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        // one masked text frame: "hi"
        out.send_data(bytes::Bytes::from_static(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]), false).unwrap();
        let mut body = response.into_body();
        let mut echoed = Vec::new();
        while echoed.len() < 4 {
            let part = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            echoed.extend_from_slice(&part);
        }
        echoed
    });
    assert_eq!(echoed, [0x81, 2, b'h', b'i']);
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[test]
fn a_websocket_ends_with_either_side() {
    let upstream = Upstream::sessions(|mut socket: TcpStream| {
        let mut head = [0; 4096];
        let count = socket.read(&mut head).unwrap();
        assert!(count > 0);
        socket.write_all(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhi").unwrap();
    });
    let gateway = gateway(&upstream);
    let request = get("/ws")
        .basic("user", "userpassword")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut connection = gateway.connect();
    connection.write(&request.to_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 101);
    assert_eq!(connection.rest().unwrap(), b"hi");
}
