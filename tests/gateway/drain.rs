//! SIGTERM and SIGINT: what is under way is finished, nothing is lost (contract 7, 8).

use std::io::ErrorKind;
use std::net::TcpStream;
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
        eventually("readiness ends", || {
            let mut probe = Connection::plain(gateway.admin);
            probe.write(&get("/readyz").to_bytes()).unwrap();
            match probe.response("GET") {
                Ok(response) if response.status == 200 => Err("ready"),
                Ok(_) | Err(_) => Ok(()),
            }
        });
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
    eventually("the listener is closed", || match TcpStream::connect(gateway.address()) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
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
    let gateway = Gateway::start(&yaml(&upstream, ""));
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    // a connection that is refused was never promised anything
                    let Ok(socket) = TcpStream::connect(gateway.address()) else { return };
                    drop(socket);
                    if !accepted(&gateway, &served) {
                        return;
                    }
                }
            });
        }
        eventually("some load", || if served.load(Ordering::SeqCst) > 50 { Ok(()) } else { Err("little") });
        gateway.signal("TERM");
        assert_eq!(gateway.wait().code(), Some(0));
    });
    let got = upstream.received().len();
    // each request that reached the upstream was answered to its caller
    assert_eq!(got, served.load(Ordering::SeqCst));
}

/// Sends on one connection until it ends; whether it is worth to connect again.
fn accepted(gateway: &Gateway, served: &AtomicUsize) -> bool {
    use std::io::{Read, Write};
    let Ok(socket) = TcpStream::connect(gateway.address()) else { return false };
    let mut socket = std::io::BufReader::new(socket);
    for number in 0.. {
        // a POST, which nobody may send again: a kept connection is not closed before its caller was told
        if let Err(error) = socket.get_mut().write_all(&post("/x").body("x").to_bytes()) {
            assert_eq!(number, 0, "{error}");
            return false;
        }
        let mut answer = Vec::new();
        let mut byte = [0; 1];
        while !answer.ends_with(b"hello") {
            match socket.read(&mut byte) {
                Ok(1) => answer.push(byte[0]),
                // one that has not served yet may have been in nobody's hands
                _ if answer.is_empty() && number == 0 => return false,
                end => panic!("{end:?} after {number} and {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        served.fetch_add(1, Ordering::SeqCst);
        if String::from_utf8_lossy(&answer).to_lowercase().contains("connection: close") {
            return false;
        }
    }
    false
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
