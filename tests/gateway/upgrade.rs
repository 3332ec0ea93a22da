//! WebSocket through `Upgrade` and through HTTP/2's extended CONNECT (RFC 6455, RFC 8441).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::basic;
use crate::support::outside::run_python;
use crate::support::{Gateway, Reply, USERS, Upstream, eventually, get, websocket};
use tokio_tungstenite::tungstenite::{self, Message};

/// Short, so that what outlives it is seen to.
const IDLE: Duration = Duration::from_millis(500);

fn gateway(upstream: &Upstream) -> Gateway {
    gateway_with(upstream, "", "")
}

/// One that keeps idle connections for a short while.
fn impatient(upstream: &Upstream, ends: &str) -> Gateway {
    gateway_with(upstream, &format!("timeouts: {{ idle: {IDLE:?} }}"), ends)
}

fn gateway_with(upstream: &Upstream, timeouts: &str, ends: &str) -> Gateway {
    Gateway::start(&format!(
        "{USERS}
{timeouts}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /ws, allow: [user], to: api{ends} }}]
",
        upstream.url()
    ))
}

#[test]
fn a_websocket_passes_both_ways_once_its_handshake_was_authorized() {
    let upstream = websocket::echo();
    let gateway = gateway(&upstream);
    let mut session = websocket::open(gateway.address(), "/ws", &[("Authorization", &basic("user", "userpassword"))]);
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000]), Message::text("bye")] {
        session.send(message.clone()).unwrap();
        assert_eq!(session.read().unwrap(), message);
    }
    let asked = upstream.last();
    assert_eq!((asked.header("X-Auth-User"), asked.header("Authorization")), (Some("user"), None));
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
    let upstream = websocket::echo();
    let gateway = gateway(&upstream);
    let guest = basic("guest", "guestpassword");
    for (fields, status) in [(&[][..], 401), (&[("Authorization", guest.as_str())], 403)] {
        let socket = TcpStream::connect(gateway.address()).unwrap();
        let refused = tungstenite::client(websocket::handshake(gateway.address(), "/ws", fields), socket);
        let error = refused.map(|_| "an open session").unwrap_err().to_string();
        assert!(error.contains(&status.to_string()), "{error}");
    }
    assert!(upstream.received().is_empty());
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
    let upstream = websocket::echo();
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
        &[&format!("ws://{}/ws", gateway.address()), &basic("user", "userpassword")],
    );
    assert_eq!(said, "from python\n100000");
}

/// A masked text frame that says `hi`, and what an echo answers to it.
const HI: &[u8] = &[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
const HI_BACK: &[u8] = &[0x81, 2, b'h', b'i'];

/// As many bytes as these of what a stream says.
async fn hears(body: &mut h2::RecvStream, bytes: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < bytes {
        let part = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        heard.extend_from_slice(&part);
    }
    heard
}

#[test]
fn a_websocket_over_http2_passes_and_may_be_silent_for_long() {
    let upstream = websocket::echo();
    let gateway = impatient(&upstream, "");
    let authorization = basic("user", "userpassword");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = websocket::over_http2(gateway.address()).await;
        let (refused, _) = client.send_request(websocket::connect("/ws", Some("Basic eDp5")), true).unwrap();
        assert_eq!(refused.await.unwrap().status(), 401);
        let (response, mut out) = client.send_request(websocket::connect("/ws", Some(&authorization)), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        // the second time, longer than an idle connection is kept, and than one is that was asked to end
        for pause in [Duration::ZERO, IDLE * 12] {
            tokio::time::sleep(pause).await;
            out.send_data(bytes::Bytes::from_static(HI), false).unwrap();
            assert_eq!(hears(&mut body, HI_BACK.len()).await, HI_BACK, "{pause:?}");
        }
    });
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_caller_who_grants_no_window_does_not_hold_a_websocket_for_ever() {
    for ends in ["", ", end_streams_on: []"] {
        let upstream = Upstream::start(|request| {
            let agreed = websocket::agreed(request.header("Sec-WebSocket-Key").unwrap());
            Reply::script(move |socket| {
                drop(socket.write_all(agreed.as_bytes()));
                // frames without end, until nobody takes them
                while socket.write_all(&[0x82, 2, 7, 7].repeat(1000)).is_ok() {}
            })
        });
        let gateway = impatient(&upstream, ends);
        let authorization = basic("user", "userpassword");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let mut client = websocket::over_http2(gateway.address()).await;
            let (response, out) = client.send_request(websocket::connect("/ws", Some(&authorization)), false).unwrap();
            // what is heard is never taken, so that no window is granted again
            (client, response.await.unwrap().into_body(), out)
        });
        let open = || gateway.metric("portcullis_open_streams", &[("kind", "websocket")]);
        eventually("it ends", || if open() < 0.1 { Ok(()) } else { Err(open()) });
        drop(held);
    }
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
    let request = websocket::request("/ws").basic("user", "userpassword");
    let mut connection = gateway.connect();
    connection.write(&request.to_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 101);
    assert_eq!(connection.rest().unwrap(), b"hi");
}
