//! SIGTERM and SIGINT: what is under way is finished, nothing is lost (contract 7, 8).

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::keys::Trusting;
use crate::support::{Connection, Gate, Gateway, Reply, Upstream, eventually, get, post, websocket};

fn yaml(upstream: &Upstream, rest: &str) -> String {
    format!(
        "{rest}upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes: [{{ path: /**, allow: anyone, to: api }}]\n",
        upstream.url()
    )
}

/// An upstream that answers when the gate is opened.
fn held(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(move |_| {
        gate.wait();
        Reply::text("finished")
    })
}

/// Waits until the gateway says that it ends.
fn not_ready(gateway: &Gateway) {
    eventually("readiness ends", || {
        let mut probe = Connection::plain(gateway.admin);
        probe.write(&get("/readyz").to_bytes()).unwrap();
        match probe.response("GET") {
            Ok(response) if response.status == 200 => Err("ready"),
            Ok(_) | Err(_) => Ok(()),
        }
    });
}

#[test]
fn a_request_under_way_is_finished_before_the_process_ends() {
    for signal in ["TERM", "INT"] {
        let gate = Gate::default();
        let upstream = held(&gate);
        let gateway = Gateway::start(&yaml(&upstream, ""));
        let mut connection = gateway.connect();
        let mut idle = gateway.connect();
        connection.write(&get("/x").to_bytes()).unwrap();
        upstream.first();
        gateway.signal(signal);
        not_ready(&gateway);
        assert_eq!(gateway.ended(), None, "{signal}: it waits for the request");
        // a connection without a request is closed, a new one is not taken
        assert!(idle.rest().unwrap().is_empty());
        eventually("the listener is closed", || match TcpStream::connect(gateway.address()) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        });
        gate.open();
        let response = connection.response("GET").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "finished"), "{signal}");
        assert_eq!(gateway.wait().code(), Some(0), "{signal}");
        assert!(!gateway.stderr().contains("WARN"), "to end is nothing to warn of: {}", gateway.stderr());
    }
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_the_process() {
    let upstream = Upstream::hello();
    let tls = "listeners:
  - { address: '127.0.0.1:0' }
  - { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }
timeouts: { drain: 10m, request_header: 10m, handshake: 10m }
";
    let gateway = Gateway::start(&yaml(&upstream, tls));
    let mut silent: Vec<_> = gateway.listeners.iter().map(|(_, address)| Connection::plain(*address)).collect();
    for (_, address) in &gateway.listeners {
        eventually("it is accepted", || {
            let open = gateway.metric("portcullis_connections", &[("listener", &address.to_string())]);
            if open > 0.9 { Ok(()) } else { Err(open) }
        });
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    for connection in &mut silent {
        assert!(connection.rest().unwrap().is_empty());
    }
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_process_for_ever() {
    let gate = Gate::default();
    let upstream = held(&gate);
    let gateway = Gateway::start(&yaml(&upstream, "timeouts: { drain: 500ms }\n"));
    let mut connection = gateway.connect();
    connection.write(&get("/x").to_bytes()).unwrap();
    upstream.first();
    gateway.signal("TERM");
    gateway.wait();
    gate.open();
}

#[test]
fn a_request_that_comes_by_a_kept_connection_after_the_signal_is_answered_once() {
    let upstream = Upstream::hello();
    let tls = "listeners:
  - { address: '127.0.0.1:0' }
  - { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }
timeouts: { drain: 10m, idle: 10m }
";
    let gateway = Gateway::start(&yaml(&upstream, tls));
    let trusting = Trusting::new();
    let mut kept: Vec<_> = (0..20)
        .map(|number| match number % 2 {
            0 => Connection::plain(gateway.listeners[0].1),
            _ => Connection::tls(
                gateway.listeners[1].1,
                "localhost",
                trusting.config(rustls::ALL_VERSIONS, &["http/1.1"]),
            )
            .unwrap(),
        })
        .collect();
    for connection in &mut kept {
        assert_eq!(connection.send(&post("/before").body("x")).status, 200);
    }
    let mut silent = gateway.connect();
    assert_eq!(silent.send(&get("/before")).status, 200);
    gateway.signal("TERM");
    not_ready(&gateway);
    for (number, connection) in kept.iter_mut().enumerate() {
        let response = connection.send(&post(&format!("/after-{number}")).body("x"));
        assert_eq!((response.status, response.header("Connection")), (200, Some("close")), "{number}");
        assert!(connection.rest().unwrap().is_empty(), "{number}: it is the last");
    }
    // one that brings nothing more is not waited for
    assert!(silent.rest().unwrap().is_empty());
    assert_eq!(gateway.wait().code(), Some(0));
    let after = upstream.received().iter().filter(|request| request.target.starts_with("/after")).count();
    assert_eq!(after, kept.len());
}

#[test]
fn nothing_is_lost_under_load() {
    let upstream = Upstream::hello();
    let tls = "listeners:
  - { address: '127.0.0.1:0' }
  - { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }
workers: 2
";
    let gateway = Gateway::start(&yaml(&upstream, tls));
    let config = Trusting::new().config(rustls::ALL_VERSIONS, &["http/1.1"]);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let ((_, address), config) = (&gateway.listeners[number % 2], (number % 2 == 1).then_some(&config));
            // half of them keep their connections
            let last = if number < 8 { usize::MAX } else { 0 };
            let served = &served;
            scope.spawn(move || {
                while let Some(connection) = connected(*address, config) {
                    answered(connection, last, served);
                }
            });
        }
        eventually("some load", || if served.load(Ordering::SeqCst) > 500 { Ok(()) } else { Err("little") });
        gateway.signal("TERM");
        assert_eq!(gateway.wait().code(), Some(0));
    });
    let got = upstream.received().len();
    // each request that reached the upstream was answered to its caller
    assert_eq!(got, served.load(Ordering::SeqCst));
}

/// A connection, unless it is refused: nothing was promised then.
fn connected(address: SocketAddr, config: Option<&Arc<rustls::ClientConfig>>) -> Option<Connection> {
    let socket = match TcpStream::connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
        other => other.unwrap(),
    };
    Some(match config {
        None => Connection::over(socket),
        Some(config) => Connection::tls_over(socket, "localhost", Arc::clone(config)).expect("a handshake"),
    })
}

/// Sends on a connection until its answers say that it ends, or up to the request of number `last`; each is answered.
fn answered(mut connection: Connection, last: usize, served: &AtomicUsize) {
    for number in 0..=last {
        // a POST, which nobody may send again: a kept connection is not closed before its caller was told
        let response = connection.send(&post("/x").body("x"));
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{number}");
        served.fetch_add(1, Ordering::SeqCst);
        if response.header("Connection") == Some("close") {
            return;
        }
    }
}

#[test]
fn after_a_kill_it_starts_again_on_its_store() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{}{}", crate::support::USERS, yaml(&upstream, "")));
    let tokens = gateway.login("user", "userpassword");
    gateway.signal("KILL");
    gateway.wait();
    let again = gateway.setup.start();
    again.login("user", "userpassword");
    let body = serde_json::json!({ "refresh_token": tokens["refresh_token"] });
    again.send(&crate::support::post("/auth/refresh").json(&body)).expect(200);
}

#[test]
fn an_open_tunnel_does_not_hold_the_process_beyond_the_deadline() {
    use std::io::{Read, Write};
    let upstream = Upstream::sessions(|mut socket| {
        let mut head = [0; 4096];
        drop(socket.read(&mut head));
        drop(socket.write_all(websocket::agreed("dGhlIHNhbXBsZSBub25jZQ==").as_bytes()));
        // until the other end goes
        drop(socket.read(&mut head));
    });
    let gateway = Gateway::start(&yaml(&upstream, "timeouts: { drain: 1s }\n"));
    let mut connection = gateway.connect();
    connection.write(&websocket::request("/ws").to_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().status, 101);
    gateway.signal("TERM");
    gateway.wait();
    drop(connection.rest());
}
