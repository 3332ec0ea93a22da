//! Streams end with the credential that opened them (contract 2, `end_streams_on`; contract 6).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::support::websocket::{Session, says_and_hears};
use crate::support::{
    Connection, Gateway, HS256, Reply, SECRET, Signer, USERS, Upstream, eventually, get, unix_now, websocket,
};

/// The promise is a second from the change to the end; a busy machine may take some more.
const PROMISE: Duration = Duration::from_millis(2500);

fn yaml(upstream: &str, ends: &str) -> String {
    format!(
        "{USERS}{HS256}    leeway: 0s
upstreams: {{ api: {{ servers: ['{upstream}'] }} }}
routes:
  - {{ path: /any/**, allow: authenticated, to: api{ends} }}
  - {{ path: /user/**, allow: [user], to: api{ends} }}
"
    )
}

fn open(gateway: &Gateway, authorization: &str) -> Session {
    let session = websocket::open(gateway.address(), "/user/ws", &[("Authorization", authorization)]);
    session.get_ref().set_read_timeout(Some(PROMISE)).unwrap();
    session
}

/// The code of the close frame that comes within the promise.
#[track_caller]
fn closed(session: &mut Session) -> u16 {
    let start = Instant::now();
    let message = session.read().unwrap_or_else(|error| panic!("no close frame: {error} after {:?}", start.elapsed()));
    let Message::Close(Some(frame)) = message else { panic!("not a close frame: {message:?}") };
    assert!(start.elapsed() < PROMISE);
    frame.code.into()
}

fn basic(user: &str) -> String {
    crate::support::client::basic(user, &format!("{user}password"))
}

#[test]
fn a_websocket_ends_with_its_principal_and_others_live() {
    let upstream = websocket::echo();
    let gateway = Gateway::start(&yaml(&upstream.url(), ""));
    let token = gateway.opaque("user");
    let token_session = format!("Token {token}");
    let jwt = format!("Bearer {}", Signer::hs256(SECRET).good("user"));
    let mut by_token = open(&gateway, &token_session);
    let mut by_password = open(&gateway, &basic("user"));
    let mut by_jwt = open(&gateway, &jwt);
    gateway.cli(&["token", "revoke", "--stdin"], &format!("{token}\n")).expect(0);
    assert_eq!(closed(&mut by_token), 4401);
    says_and_hears(&mut by_password);
    says_and_hears(&mut by_jwt);
    // another's change is none of theirs, nor is a change after which they may still pass
    gateway.cli(&["user", "disable", "guest"], "").expect(0);
    gateway.cli(&["user", "roles", "user", "user", "guest"], "").expect(0);
    std::thread::sleep(Duration::from_millis(800));
    says_and_hears(&mut by_password);
    says_and_hears(&mut by_jwt);
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    assert_eq!(closed(&mut by_password), 4401);
    assert_eq!(closed(&mut by_jwt), 4401);
    eventually("no stream is open any more", || {
        match gateway.metric("portcullis_open_streams", &[("kind", "websocket")]) {
            open if open < 0.1 => Ok(()),
            open => Err(open),
        }
    });
}

#[test]
fn a_websocket_ends_with_the_role_that_opened_it() {
    let upstream = websocket::echo();
    let gateway = Gateway::start(&yaml(&upstream.url(), ""));
    let mut session = open(&gateway, &basic("user"));
    gateway.cli(&["user", "roles", "user", "guest"], "").expect(0);
    assert_eq!(closed(&mut session), 4401);
}

#[test]
fn a_websocket_ends_with_its_credential_where_the_route_says_so() {
    let upstream = websocket::echo();
    for (ends, lives) in [(", end_streams_on: [expiry]", false), (", end_streams_on: [revocation]", true), ("", true)] {
        let gateway = Gateway::start(&yaml(&upstream.url(), ends));
        let mut claims = crate::support::keys::claims("user");
        claims["exp"] = (unix_now() + 2).into();
        let mut session = open(&gateway, &format!("Bearer {}", Signer::hs256(SECRET).token(&claims)));
        if lives {
            std::thread::sleep(Duration::from_millis(3200));
            says_and_hears(&mut session);
        } else {
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(closed(&mut session), 4401);
        }
    }
}

#[test]
fn a_route_may_say_that_nothing_ends_its_streams() {
    let upstream = websocket::echo();
    let gateway = Gateway::start(&yaml(&upstream.url(), ", end_streams_on: []"));
    let mut session = open(&gateway, &basic("user"));
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    eventually("the user is shut out", || match gateway.send(&get("/any/x").basic("user", "userpassword")).status {
        401 => Ok(()),
        other => Err(other),
    });
    std::thread::sleep(Duration::from_millis(800));
    says_and_hears(&mut session);
}

/// Over a bare socket: the handshake, and what the upstream says at once.
fn raw_session(
    upstream_says: &'static [u8],
    later: &'static [u8],
    later_at: Duration,
) -> (Upstream, Gateway, Connection) {
    let upstream = Upstream::sessions(move |mut socket| {
        let mut head = [0; 4096];
        let count = socket.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..count]).into_owned();
        let Some(key) = head.lines().find_map(|line| line.split_once("ec-websocket-key: ").map(|(_, key)| key.trim()))
        else {
            return;
        };
        let agreed = websocket::agreed(key);
        drop(socket.write_all(&[agreed.as_bytes(), upstream_says].concat()));
        std::thread::sleep(later_at);
        drop(socket.write_all(later));
        drop(socket.read(&mut [0; 4096]));
    });
    let gateway = Gateway::start(&yaml(&upstream.url(), ""));
    let request = websocket::request("/user/ws").basic("user", "userpassword");
    let mut connection = gateway.connect();
    connection.write(&request.to_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 101);
    (upstream, gateway, connection)
}

#[test]
fn a_close_frame_never_stands_inside_another_frame() {
    // nine bytes of a frame of ten, the tenth after the user was disabled
    let later = Duration::from_millis(1);
    let (_upstream, gateway, mut connection) = raw_session(b"\x82\x08abcdefg", b"", later);
    assert_eq!(connection.take(9).unwrap(), b"\x82\x08abcdefg");
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    let rest = connection.rest().unwrap();
    assert!(rest.is_empty(), "a frame that does not end is cut off, not filled with ours: {rest:?}");

    let (_upstream, gateway, mut connection) = raw_session(b"\x82\x02ab\x82\x02cd", b"", later);
    assert_eq!(connection.take(8).unwrap(), b"\x82\x02ab\x82\x02cd");
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    let rest = connection.rest().unwrap();
    assert_eq!(rest[..4], [0x88, 20, 0x11, 0x31], "{rest:?}");
    assert_eq!(rest.len(), 22);
}

#[test]
fn server_sent_events_end_and_the_upstream_is_told() {
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = gone.clone();
    let upstream = Upstream::start(move |_| {
        let seen = seen.clone();
        Reply::script(move |socket| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            drop(socket.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()));
            while matches!(socket.read(&mut [0; 64]), Ok(count) if count > 0) {}
            seen.store(true, std::sync::atomic::Ordering::SeqCst);
            drop(socket.shutdown(Shutdown::Both));
        })
    });
    let gateway = Gateway::start(&yaml(&upstream.url(), ""));
    let mut connection = gateway.connect();
    connection.write(&get("/user/events").basic("user", "userpassword").to_bytes()).unwrap();
    let mut head = connection.head().unwrap();
    assert_eq!(connection.chunk(&mut head).unwrap(), b"data: 1\n\n");
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    let start = Instant::now();
    assert_eq!(connection.chunk(&mut head).unwrap(), b"", "a whole end: there is no other in this format");
    assert!(start.elapsed() < PROMISE);
    eventually("the upstream's connection is closed", || {
        if gone.load(std::sync::atomic::Ordering::SeqCst) { Ok(()) } else { Err("open") }
    });
    // the connection is good for the next request, which is refused
    assert_eq!(connection.send(&get("/user/events").basic("user", "userpassword")).status, 401);
}

#[test]
fn a_grpc_stream_ends_with_its_status_both_ways() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let response =
                        http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut out = respond.send_response(response, false).unwrap();
                    out.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x01a"), false).unwrap();
                    let mut body = request.into_body();
                    while let Some(Ok(part)) = body.data().await {
                        tell.send(part.len()).unwrap_or_default();
                    }
                    tell.send(0).unwrap_or_default();
                    drop(out);
                });
            }
        });
        let gateway = Gateway::start(&yaml(&format!("h2c://{address}"), ""));
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post("http://localhost/user/call")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", basic("user"))
            .body(())
            .unwrap();
        let (response, mut out) = client.send_request(request, false).unwrap();
        out.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x01b"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap().len(), 6);
        assert_eq!(heard.recv().await, Some(6));
        gateway.cli(&["user", "disable", "user"], "").expect(0);
        let end = tokio::time::timeout(PROMISE, async {
            assert!(body.data().await.is_none(), "no further message");
            body.trailers().await.unwrap().expect("trailers")
        });
        let trailers = end.await.expect("an end within the promise");
        assert_eq!(trailers["grpc-status"], "16");
        // what the caller says from now on reaches nobody, and the upstream hears that it is over
        drop(out.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x01c"), false));
        let over = tokio::time::timeout(PROMISE, heard.recv()).await.expect("the upstream hears of it");
        assert_eq!(over, Some(0));
    });
}
