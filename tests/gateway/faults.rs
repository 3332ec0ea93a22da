//! Faults under load: reloads, and a process that is killed at any moment (contract 6 and 7).

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::wait::within;
use crate::support::{DEADLINE, Gateway, Reply, USERS, Upstream, get, post, routes, websocket};

#[test]
fn a_response_that_breaks_at_once_is_seen_to_have_begun() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for broken in [format!("{head}ZZ"), head.to_owned(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_owned()] {
        let upstream = Upstream::start(move |_| Reply::raw(broken.as_bytes()));
        let gateway = Gateway::start(&routes(&upstream));
        for _ in 0..20 {
            let mut connection = gateway.connect();
            connection.write(&get("/open/x").to_bytes()).unwrap();
            assert_eq!(connection.head().unwrap().status, 200);
            let rest = connection.rest().unwrap();
            assert!(rest.windows(3).any(|part| part == b"abc") && !rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
        }
    }
}

#[test]
fn a_hundred_reloads_under_load_cost_no_request_and_no_websocket() {
    let upstream = websocket::echo();
    let yaml = |extra: usize| {
        let routes = routes(&upstream);
        format!("{USERS}{routes}  - {{ path: /extra-{extra}/**, allow: anyone, to: api }}\n")
    };
    let gateway = Gateway::start(&yaml(0));
    let authorization = crate::support::client::basic("user", "userpassword");
    let mut session = websocket::open(gateway.address(), "/user/ws", &[("Authorization", &authorization)]);
    let done = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut served, mut connection) = (0_u32, gateway.connect());
                    while !done.load(Ordering::SeqCst) {
                        let response = connection.send(&get("/user/x").basic("user", "userpassword"));
                        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for number in 1..=100 {
            gateway.reload(&yaml(number));
            session.send(Message::text(number.to_string())).unwrap();
            assert_eq!(session.read().unwrap(), Message::text(number.to_string()));
        }
        done.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<u32>()
    });
    assert!(served > 100, "{served}");
    assert_eq!(gateway.send(&get("/extra-100/x")).status, 200);
}

#[test]
fn what_was_answered_for_outlives_a_kill_at_any_moment() {
    let upstream = Upstream::hello();
    let endpoints = "
endpoints:
  - { path: /register, action: register }
  - { path: /token, action: login, reply: { token: '{token}' } }
";
    let mut gateway = Gateway::start(&format!("{USERS}{endpoints}{}", routes(&upstream)));
    let (mut users, mut tokens) = (Vec::new(), Vec::new());
    for round in 0..4_u64 {
        let (issued_so_far, registered_so_far) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let gateway = &gateway;
            let (issued_so_far, registered_so_far) = (&issued_so_far, &registered_so_far);
            let issuing = scope.spawn(move || {
                let mut issued = Vec::new();
                let body = json!({ "username": "user", "password": "userpassword" });
                while let Some(token) = answered(gateway, &post("/token").json(&body), 200, "token") {
                    issued.push(token);
                    issued_so_far.fetch_add(1, Ordering::SeqCst);
                }
                issued
            });
            let registering = scope.spawn(move || {
                let mut registered = Vec::new();
                for number in 0.. {
                    let name = format!("new-{round}-{number}");
                    let body = json!({ "username": name, "password": "a-new-password" });
                    if answered(gateway, &post("/register").json(&body), 201, "message").is_none() {
                        break;
                    }
                    registered.push(name);
                    registered_so_far.fetch_add(1, Ordering::SeqCst);
                }
                registered
            });
            within(DEADLINE * 3, "something was answered for", || {
                match (issued_so_far.load(Ordering::SeqCst), registered_so_far.load(Ordering::SeqCst)) {
                    (1.., 1..) => Ok(()),
                    counts => Err(counts),
                }
            });
            // another moment each time, while both go on
            std::thread::park_timeout(Duration::from_millis(173 * round));
            gateway.signal("KILL");
            tokens.extend(issuing.join().unwrap());
            users.extend(registering.join().unwrap());
        });
        gateway.wait();
        gateway = gateway.setup.beside().start();
    }
    for token in &tokens {
        gateway.send(&get("/user/x").token(token)).expect(200);
    }
    for user in users.iter().rev().take(10).chain(users.iter().take(5)) {
        gateway.send(&get("/any/x").basic(user, "a-new-password")).expect(200);
    }
}

/// A text member of the answer; `None` where none came, since the process is gone.
fn answered(gateway: &Gateway, request: &crate::support::Request, status: u16, member: &str) -> Option<String> {
    let socket = TcpStream::connect(gateway.address()).ok()?;
    drop(socket);
    let mut connection = std::panic::catch_unwind(|| gateway.connect()).ok()?;
    connection.write(&request.to_bytes()).ok()?;
    let response = connection.response("POST").ok()?;
    assert_eq!(response.status, status, "{response:?}");
    Some(response.member(member))
}
