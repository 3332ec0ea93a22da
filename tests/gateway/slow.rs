//! Callers and servers that do not go on: what is not read, not taken or not reached is let go, and comes back by itself
//! (contract 2 `timeouts`, 4).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::spawn;
use std::time::Duration;

use crate::support::gateway::resident;
use crate::support::http2::{END_HEADERS, END_STREAM, HEADERS, frame, hello, request};
use crate::support::keys::Trusting;
use crate::support::upstream::refusing;
use crate::support::{Connection, Gateway, Reply, Upstream, eventually, get};

const MIB: u64 = 1024 * 1024;

/// The most that one connection may have in memory of a body that does not go on, with room for what the allocator keeps.
const HELD_MAX: u64 = 8 * MIB;

/// What is written at once.
const PIECE: usize = 16_384;

/// Both kinds of listeners, one worker, and a short patience.
fn impatient(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "
listeners:
  - {{ address: '127.0.0.1:0' }}
  - {{ address: '127.0.0.1:0', tls: {{ self_signed: [localhost] }} }}
workers: 1
timeouts: {{ idle: 2s }}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        upstream.url()
    ))
}

/// An upstream whose response has no end; it counts those that it could not go on with.
fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let let_go = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&let_go);
    let upstream = Upstream::start(move |_| {
        let counted = Arc::clone(&counted);
        Reply::script(move |socket| {
            drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n"));
            while socket.write_all(&[b'x'; PIECE]).is_ok() {}
            counted.fetch_add(1, Ordering::SeqCst);
        })
    });
    (upstream, let_go)
}

#[test]
fn a_response_that_its_caller_does_not_take_is_given_up() {
    let (upstream, let_go) = endless();
    let gateway = impatient(&upstream);
    let [plain, tls] = [0, 1].map(|index: usize| gateway.listeners[index].1);
    let before = resident(&gateway);
    let asks = get("/x").to_bytes();
    let over_http2 = || {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/x", &[]));
        [hello(), head].concat()
    };
    for (number, (name, mut caller, bytes)) in [
        ("in clear", Connection::plain(plain), asks.clone()),
        (
            "over TLS",
            Connection::tls(tls, "localhost", Trusting::new().config(rustls::ALL_VERSIONS, &["http/1.1"])).unwrap(),
            asks,
        ),
        // the window that it begins with is all it ever grants
        ("over HTTP/2", Connection::plain(plain), over_http2()),
    ]
    .into_iter()
    .enumerate()
    {
        caller.write(&bytes).unwrap();
        eventually("the upstream is let go", || {
            let held = resident(&gateway).saturating_sub(before);
            assert!(held < HELD_MAX, "{name}: {held} bytes");
            let count = let_go.load(Ordering::SeqCst);
            if count > number { Ok(()) } else { Err(format!("{name}: {count}")) }
        });
        drop(caller);
    }
}

#[test]
fn an_upload_that_nobody_reads_is_held_back_and_ends() {
    // it reads the head and leaves the rest
    let upstream = Upstream::sessions(|mut socket| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|count| count > 0) {
            head.push(byte[0]);
        }
        // until it is let go, which shows where something is written
        while socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {
            std::thread::park_timeout(Duration::from_secs(1));
        }
    });
    let gateway = impatient(&upstream);
    let before = resident(&gateway);
    let [plain, tls] = [0, 1].map(|index: usize| gateway.listeners[index].1);
    for (name, mut caller) in [
        ("in clear", Connection::plain(plain)),
        (
            "over TLS",
            Connection::tls(tls, "localhost", Trusting::new().config(rustls::ALL_VERSIONS, &["http/1.1"])).unwrap(),
        ),
    ] {
        let uploading = spawn(move || {
            caller.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1099511627776\r\n\r\n").unwrap();
            // ends with an error, once the gateway has refused it and waited for it to stop
            while caller.write(&[b'x'; PIECE]).is_ok() {}
        });
        eventually("the upload ends", || {
            let held = resident(&gateway).saturating_sub(before);
            assert!(held < HELD_MAX, "{name}: {held} bytes");
            if uploading.is_finished() { Ok(()) } else { Err(name) }
        });
        uploading.join().unwrap();
        let refused = [("route", "/**"), ("method", "POST"), ("status", "504")];
        eventually("it was refused", || {
            let count = gateway.metric("portcullis_requests_total", &refused);
            if count >= 1.0 { Ok(()) } else { Err(gateway.admin("/metrics").text()) }
        });
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_left_out_and_comes_back_by_itself() {
    let good = Upstream::hello();
    let (socket, address) = refusing();
    let gateway = Gateway::start(&format!(
        "
workers: 1
upstreams: {{ api: {{ servers: ['http://{address}', '{}'], balance: round_robin }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        good.url()
    ));
    let url = format!("http://{address}");
    let tried = |outcome: &str| {
        let labels = [("upstream", "api"), ("server", &*url), ("outcome", outcome)];
        gateway.metric("portcullis_upstream_requests_total", &labels)
    };
    // nobody notices, and once it is left out hardly anybody tries
    for _ in 0..200 {
        gateway.send(&get("/x")).expect(200);
    }
    assert!((3.0..20.0).contains(&tried("connect_failed")), "{}", tried("connect_failed"));
    // it is back: a single caller finds out, and then it has its share again
    socket.listen(64).unwrap();
    let listener = std::net::TcpListener::from(socket);
    spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            spawn(move || answer_all(stream));
        }
    });
    eventually("it has requests again", || {
        for _ in 0..10 {
            gateway.send(&get("/x")).expect(200);
        }
        if tried("ok") >= 20.0 { Ok(()) } else { Err(tried("ok")) }
    });
    let (before, others) = (tried("ok"), good.received().len());
    for _ in 0..40 {
        gateway.send(&get("/x")).expect(200);
    }
    assert!((tried("ok") - before - 20.0).abs() < 1.5, "half of them: {}", tried("ok") - before);
    assert!(good.received().len().abs_diff(others + 20) < 2);
}

/// Answers each request, none of which has a body.
fn answer_all(mut stream: TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    }
}
