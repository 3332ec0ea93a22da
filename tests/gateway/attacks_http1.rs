//! Attacks on a caller's connection of HTTP/1.1 that need more than one write: what stands behind a body that is refused,
//! answered early or never finished; heads in crumbs; wishes that contradict each other; half-closed callers
//! (RFC 9112 2, 6, 7, 9; RFC 9110 7.6.1, 7.8, 10.1.1).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::basic;
use crate::support::{
    Connection, DEADLINE, Gateway, Received, Reply, USERS, Upstream, eventually, routes, statuses, usual, websocket,
};

/// A request that nobody authorized, and that an open route would let pass as well as a guarded one.
const SMUGGLED: &str = "GET /open/smuggled HTTP/1.1\r\nHost: a\r\nX-Auth-User: admin\r\n\r\n";

fn targets(upstream: &Upstream) -> Vec<String> {
    upstream.received().into_iter().map(|received| received.target).collect()
}

/// Writes the pieces one after the other, with a pause in which each of them arrives alone; all that comes back.
fn in_pieces(gateway: &Gateway, pieces: &[&str]) -> Vec<u8> {
    let mut connection = gateway.connect();
    for piece in pieces {
        // it may have been refused and closed by now
        drop(connection.write(piece.as_bytes()));
        std::thread::park_timeout(Duration::from_millis(60));
    }
    connection.rest().unwrap()
}

#[test]
fn what_is_left_of_a_refused_body_is_no_request() {
    let (gateway, upstream) = usual();
    let length = SMUGGLED.len();
    let chunk = format!("{length:x}\r\n");
    for (name, fields, pieces) in [
        ("a length", format!("Content-Length: {length}"), vec![SMUGGLED]),
        ("a length, in two pieces", format!("Content-Length: {}", length + 3), vec!["abc", SMUGGLED]),
        ("a length that never comes", format!("Content-Length: {}", length * 1000), vec![SMUGGLED, SMUGGLED]),
        ("chunks", "Transfer-Encoding: chunked".into(), vec![&*chunk, SMUGGLED, "\r\n0\r\n\r\n"]),
        ("a chunk that never ends", "Transfer-Encoding: chunked".into(), vec!["ffff\r\n", SMUGGLED, SMUGGLED]),
        ("chunks that are none", "Transfer-Encoding: chunked".into(), vec!["zz\r\n", SMUGGLED]),
        ("100 asked for", format!("Content-Length: {length}\r\nExpect: 100-continue"), vec![SMUGGLED]),
        ("100 asked for, chunks", "Transfer-Encoding: chunked\r\nExpect: 100-continue".into(), vec![&*chunk, SMUGGLED]),
        // who expects 100 and gets a refusal may leave the body out (RFC 9110 10.1.1), and nobody can tell
        ("100 asked for, no body", "Content-Length: 9\r\nExpect: 100-continue".into(), vec![SMUGGLED]),
    ] {
        let head = format!("POST /user/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let answer = in_pieces(&gateway, &[&[&*head], &*pieces].concat());
        assert_eq!(statuses(&answer), ["401"], "{name}");
        // who would go on to ask is told that nobody listens
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.contains("\r\nconnection: close\r\n"), "{name}: {answer}");
        let body = pieces.concat();
        let last = SMUGGLED.replace("Host: a", "Host: a\r\nConnection: close");
        let seen = statuses(&gateway.raw(format!("{head}{body}{last}").as_bytes()));
        assert!(seen.len() <= 2 && seen[0] == "401", "{name}, at once: {seen:?}");
    }
    // those whose body was whole may be followed by another request, which is then one of its own
    assert!(targets(&upstream).iter().all(|target| target == "/open/smuggled"));
}

#[test]
fn a_refusal_is_read_by_who_reads_only_once_all_was_sent() {
    let (gateway, upstream) = usual();
    let mut connection = gateway.connect();
    // longer than silence may last, and more than the sockets hold
    let (pieces, piece) = (24, vec![b'x'; 400_000]);
    let head = format!("POST /user/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", pieces * piece.len());
    connection.write(head.as_bytes()).unwrap();
    for _ in 0..pieces {
        connection.write(&piece).unwrap();
        std::thread::park_timeout(Duration::from_millis(150));
    }
    assert_eq!(connection.response("POST").unwrap().status, 401);
    assert!(upstream.received().is_empty());
}

#[test]
fn what_is_left_of_a_body_that_was_answered_early_is_no_request() {
    // an empty piece is a pause: the response has begun by then, and not ended
    let whole: &[&str] = &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"];
    let streamed: &[&str] = &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n", "", "0\r\n\r\n"];
    for answer in [whole, streamed] {
        // answers as soon as it has a head, and keeps the connection open, as if it had read all: what comes over it then
        // would be taken for the rest of the body
        let behind = Arc::new(Mutex::new(Vec::new()));
        let kept = behind.clone();
        let upstream = Upstream::sessions(move |mut socket| {
            let mut part = [0; 16_384];
            let mut heads = 0;
            while let Ok(count @ 1..) = socket.read(&mut part) {
                heads += 1;
                if heads > 1 {
                    kept.lock().unwrap().extend_from_slice(&part[..count]);
                }
                for piece in answer {
                    if piece.is_empty() {
                        std::thread::park_timeout(Duration::from_millis(60));
                    } else if socket.write_all(piece.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        let gateway = Gateway::start(&format!("workers: 1\n{USERS}{}", routes(&upstream)));
        for fields in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            let mut connection = gateway.connect();
            let head = format!("POST /open/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n3e8\r\n");
            connection.write(head.as_bytes()).unwrap();
            assert_eq!(connection.response("POST").unwrap().text(), "early", "{fields}");
            drop(connection.write(SMUGGLED.as_bytes()));
            assert!(statuses(&connection.rest().unwrap()).is_empty(), "{fields}");
            // nor does anybody else's request go where this one's body was to go, nor are they given what it is answered
            assert_eq!(gateway.send(&crate::support::get("/open/y").header("Connection", "close")).text(), "early");
            let behind = String::from_utf8_lossy(&behind.lock().unwrap()).into_owned();
            assert!(!behind.contains("/open/y") && !behind.contains("smuggled"), "{fields}: {behind}");
        }
    }
}

#[test]
fn wishes_that_contradict_each_other_open_nothing() {
    let (gateway, upstream) = usual();
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let body = format!("Content-Length: {}\r\n", SMUGGLED.len());
    for (name, head, expected) in [
        (
            "everything named, with a body",
            format!(
                "POST /open/x HTTP/1.1\r\nHost: a\r\nConnection: close, upgrade, te, content-length, transfer-encoding, host\r\n\
                 TE: trailers\r\nUpgrade: websocket\r\n{key}{body}\r\n"
            ),
            &["200"][..],
        ),
        (
            "an upgrade with a body",
            format!("GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}{body}\r\n"),
            &["200"],
        ),
        (
            "an upgrade with chunks",
            format!(
                "GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}Transfer-Encoding: \
                 chunked\r\n\r\n{:x}\r\n",
                SMUGGLED.len()
            ),
            &["200"],
        ),
        (
            "an upgrade over HTTP/1.0",
            format!("GET /open/x HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}\r\n"),
            &["200"],
        ),
        ("the end, and more", "GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(), &["200"]),
        (
            "the end, and to go on",
            "GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n".into(),
            &["200"],
        ),
        ("HTTP/1.0, and more", "GET /open/x HTTP/1.0\r\nHost: a\r\n\r\n".into(), &["200"]),
    ] {
        let before = upstream.received().len();
        let mut connection = gateway.connect();
        let rest = if name == "an upgrade with chunks" { "\r\n0\r\n\r\n" } else { "" };
        connection.write(format!("{head}{SMUGGLED}{rest}").as_bytes()).unwrap();
        connection.write(b"\r\nnonsense that ends the connection \r\n\r\n").ok();
        let seen = statuses(&connection.rest().unwrap());
        assert_eq!(&seen[..1], expected, "{name}: {seen:?}");
        assert!(seen[1..].iter().all(|status| status == "400"), "{name}: {seen:?}");
        let received = upstream.received().split_off(before);
        assert_eq!(received.len(), 1, "{name}: {received:?}");
        let one = &received[0];
        assert_eq!(one.target, "/open/x", "{name}");
        for field in ["Upgrade", "Keep-Alive"] {
            assert_eq!(one.header(field), None, "{name}");
        }
        assert!(one.all("Connection").iter().all(|value| *value == "te"), "{name}: {one:?}");
        let has_body = name.contains("body") || name.contains("chunks");
        assert_eq!(one.body, if has_body { SMUGGLED.as_bytes() } else { b"" }, "{name}");
    }
}

#[test]
fn a_tunnel_is_opened_by_the_upstream_that_agrees_to_this_request_and_no_other() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let agreed = websocket::agreed(key);
    for (name, answer, opened) in [
        ("it agrees", agreed.clone(), true),
        ("to another key", websocket::agreed("AAAAAAAAAAAAAAAAAAAAAA=="), false),
        ("to another protocol", agreed.replace("websocket", "h2c"), false),
        ("to none", agreed.replace("Upgrade: websocket\r\n", ""), false),
        ("without a proof", agreed.split_inclusive("\r\n").filter(|line| !line.contains("Accept")).collect(), false),
        (
            "it says 200",
            agreed.replace("101 Switching", "200 OK").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
            false,
        ),
        ("it says 426", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n".to_owned(), false),
    ] {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        let upstream = Upstream::start(move |_| {
            let (answer, kept) = (answer.clone(), kept.clone());
            Reply::script(move |socket| {
                socket.write_all(answer.as_bytes()).unwrap();
                let mut part = [0; 4096];
                while let Ok(count @ 1..) = socket.read(&mut part) {
                    kept.lock().unwrap().extend_from_slice(&part[..count]);
                }
            })
        });
        let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut request = websocket::request("/open/ws").to_bytes();
        // said before anybody has agreed
        request.extend_from_slice(b"GET /admin/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        socket.write_all(&request).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let seen = statuses(&answer);
        assert_eq!(seen[0] == "101", opened, "{name}: {seen:?}");
        // in the tunnel it is a WebSocket's business; outside of it it is a request that has no right
        assert!(seen[1..].iter().all(|status| status == "401"), "{name}: {seen:?}");
        if opened {
            eventually("what was said early is in the tunnel", || {
                let heard = heard.lock().unwrap();
                if heard.starts_with(b"GET /admin/x") { Ok(()) } else { Err(heard.clone()) }
            });
        } else {
            assert!(heard.lock().unwrap().is_empty(), "{name}");
        }
        assert_eq!(targets(&upstream), ["/open/ws"], "{name}");
    }
}

#[test]
fn lines_and_bytes_that_few_send_are_refused_or_pass_as_they_are() {
    let (gateway, upstream) = usual();
    let close = "Connection: close\r\n\r\n";
    for (name, bytes, expected) in [
        ("line feeds alone", b"GET /open/x HTTP/1.1\nHost: a\nConnection: close\n\n".to_vec(), "400"),
        ("one of them", b"GET /open/x HTTP/1.1\r\nHost: a\nConnection: close\r\n\r\n".to_vec(), "400"),
        ("one for the empty line", b"GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\n".to_vec(), "400"),
        ("carriage returns alone", b"GET /open/x HTTP/1.1\rHost: a\r\r\n\r\n".to_vec(), "400"),
        ("a line feed before", format!("\nGET /open/x HTTP/1.1\r\nHost: a\r\n{close}").into(), "400"),
        ("a blank before", format!(" GET /open/x HTTP/1.1\r\nHost: a\r\n{close}").into(), "400"),
        ("empty lines before", format!("\r\n\r\nGET /open/x HTTP/1.1\r\nHost: a\r\n{close}").into(), "200"),
        ("empty lines without end", b"\r\n".repeat(40_000), "431"),
        ("a NUL in the target", format!("GET /open/\0 HTTP/1.1\r\nHost: a\r\n{close}").into(), "400"),
        ("a NUL in a name", format!("GET /open/x HTTP/1.1\r\nHost: a\r\nX\0: b\r\n{close}").into(), "400"),
        ("DEL in a value", format!("GET /open/x HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n{close}").into(), "400"),
        (
            "bytes beyond ASCII in the target",
            [b"GET /open/\xff HTTP/1.1\r\nHost: a\r\n", close.as_bytes()].concat(),
            "400",
        ),
        (
            "bytes beyond ASCII in a name",
            [b"GET /open/x HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n", close.as_bytes()].concat(),
            "400",
        ),
        (
            "bytes beyond ASCII in a value",
            [b"GET /open/x HTTP/1.1\r\nHost: a\r\nX-Text: \xe9\xff\r\n", close.as_bytes()].concat(),
            "200",
        ),
        ("a method in lower case", format!("get /open/x HTTP/1.1\r\nHost: a\r\n{close}").into(), "400"),
        ("a method of its own", format!("{} /open/x HTTP/1.1\r\nHost: a\r\n{close}", "M".repeat(8000)).into(), "200"),
        (
            "one that is too long",
            format!("{} /open/x HTTP/1.1\r\nHost: a\r\n{close}", "M".repeat(40_000)).into(),
            "431",
        ),
        ("a target that is too long", format!("GET /open/{} HTTP/1.1\r\n", "x".repeat(70_000)).into(), "431"),
        ("a name that is too long", format!("GET /open/x HTTP/1.1\r\n{}", "x".repeat(70_000)).into(), "431"),
        ("the preface of HTTP/2 in HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), "400"),
        ("the preface later", [b"\r\n".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat(), "400"),
        ("two hosts", format!("GET /open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n{close}").into(), "400"),
        ("two hosts that agree", format!("GET /open/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n{close}").into(), "400"),
        ("another host in the target", format!("GET http://b/open/x HTTP/1.1\r\nHost: a\r\n{close}").into(), "400"),
        ("a user in the target's host", format!("GET http://a@b/open/x HTTP/1.1\r\nHost: b\r\n{close}").into(), "400"),
        ("no host", format!("GET /open/x HTTP/1.1\r\n{close}").into(), "400"),
        ("a host of two lines", format!("GET /open/x HTTP/1.1\r\nHost: a\r\n b\r\n{close}").into(), "400"),
    ] {
        let before = upstream.received().len();
        let seen = statuses(&gateway.raw(&bytes));
        assert_eq!(seen, [expected], "{name}");
        let received = upstream.received().split_off(before);
        assert_eq!(received.len(), usize::from(expected == "200"), "{name}: {received:?}");
        assert!(received.iter().all(|received: &Received| received.target == "/open/x"), "{name}");
    }
}

#[test]
fn a_caller_of_http_1_0_cannot_be_given_anothers_answer() {
    // the body ends with the connection, whatever the caller wished
    let upstream = Upstream::start(|request| {
        Reply::raw(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", request.target))
    });
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let one = "GET /open/1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let answer = gateway.raw(format!("{one}{}", one.replace("/1", "/2")).as_bytes());
    assert_eq!(statuses(&answer), ["200"]);
    assert!(answer.ends_with(b"\r\n\r\n/open/1"));
    assert_eq!(targets(&upstream), ["/open/1"]);
    // where the length is known it may go on, and each is judged by itself
    let upstream = Upstream::start(|request| Reply::text(&request.target));
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let guarded = "GET /admin/2 HTTP/1.0\r\n\r\n";
    let answer = gateway.raw(format!("{one}{guarded}").as_bytes());
    assert_eq!(statuses(&answer), ["200", "401"]);
    assert_eq!(targets(&upstream), ["/open/1"]);
}

#[test]
fn a_head_or_a_body_that_drips_ends_in_time() {
    let upstream = Upstream::hello();
    let timeouts = "timeouts: { request_header: 1s, idle: 1s }\n";
    let gateway = Gateway::start(&format!("{timeouts}{USERS}{}", routes(&upstream)));
    for (name, begun, drip) in [
        ("a head", "GET /open/x HTTP/1.1\r\nHost: a\r\n", "X-A: b\r\n"),
        ("its first line", "", "G"),
        ("empty lines before it", "", "\r\n"),
        ("a second head", "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\nGET /open/x HTTP/1.1\r\n", "X: y\r\n"),
        ("empty lines behind a request", "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n"),
    ] {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.write_all(begun.as_bytes()).unwrap();
        let begin = Instant::now();
        let mut part = [0; 4096];
        loop {
            // each within what silence may last
            drop(socket.write_all(drip.as_bytes()));
            match socket.read(&mut part) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(begin.elapsed() < DEADLINE, "{name} goes on for ever");
        }
    }
    // within a chunk's line or behind the last chunk nothing of the body comes, however much is said
    for (name, begun, drip) in
        [("an extension", "1;", "x"), ("trailers", "1\r\nx\r\n0\r\n", "X: y\r\n"), ("zeros of a size", "", "0")]
    {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let head = "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        socket.write_all(format!("{head}{begun}").as_bytes()).unwrap();
        let begin = Instant::now();
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            drop(socket.write_all(drip.as_bytes()));
            match socket.read(&mut part) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(begin.elapsed() < DEADLINE, "{name} goes on for ever");
        }
        let seen = statuses(&answer);
        assert!(seen.is_empty() || ["400", "408"].contains(&seen[0].as_str()), "{name}: {seen:?}");
    }
}

#[test]
fn a_caller_who_has_said_all_is_answered() {
    let upstream = Upstream::start(|request| Reply::text(&request.target));
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = [request("/open/1"), request("/admin/2"), request("/open/3")].concat();
    socket.write_all(all.as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(statuses(&answer), ["200", "401", "200"]);
    assert_eq!(targets(&upstream), ["/open/1", "/open/3"]);
    // one whose body was not said to its end has asked nothing
    for framing in
        ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "Content-Length: 10\r\n\r\n"]
    {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(format!("POST /open/cut HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let seen = statuses(&answer);
        assert!(seen.is_empty() || seen == ["400"], "{framing:?}: {seen:?}");
    }
    assert!(!targets(&upstream).contains(&"/open/cut".to_owned()));
}

#[test]
fn a_connection_goes_on_after_a_refusal_that_leaves_nothing_behind() {
    let (gateway, upstream) = usual();
    let mut connection = gateway.connect();
    let mut ask = |bytes: &str| {
        connection.write(bytes.as_bytes()).unwrap();
        connection.response("GET").map(|response| response.status)
    };
    for _ in 0..2 {
        for (bytes, status) in [
            ("GET /user/x HTTP/1.1\r\nHost: a\r\n\r\n", 401),
            ("POST /user/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 401),
            (
                "POST /user/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nX: y\r\n\r\n",
                401,
            ),
            ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            ("GET /open/../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ] {
            assert_eq!(ask(bytes).unwrap(), status, "{bytes}");
        }
    }
    assert_eq!(targets(&upstream), ["/open/x", "/open/x"]);
    // what leaves its end in doubt is the last
    let mut connection = gateway.connect();
    connection.write(b"GET /open/x HTTP/1.1\r\nHost : a\r\n\r\nGET /open/y HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(statuses(&connection.rest().unwrap()), ["400"]);
    assert_eq!(upstream.received().len(), 2);
}

/// A server that, on one connection, answers each request in turn with the bytes that `answers` has for its target.
fn talking(answers: fn(&str) -> Vec<&'static str>) -> Upstream {
    Upstream::sessions(move |mut socket| {
        let (mut heard, mut part) = (Vec::new(), [0; 16_384]);
        loop {
            while let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = heard.drain(..end + 4).collect();
                let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap().to_owned();
                for piece in answers(&target) {
                    if piece.is_empty() {
                        std::thread::park_timeout(Duration::from_millis(60));
                    } else if socket.write_all(piece.as_bytes()).is_err() {
                        return;
                    }
                }
            }
            match socket.read(&mut part) {
                Ok(count @ 1..) => heard.extend_from_slice(&part[..count]),
                Ok(0) | Err(_) => return,
            }
        }
    })
}

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nSet-Cookie: evil=1\r\n\r\npoison";

#[test]
fn content_where_there_can_be_none_is_nobodys_answer() {
    // an empty piece is a pause: what follows comes once the response was delivered and the connection is kept
    let upstream = talking(|target| match target.rsplit('/').next().unwrap() {
        "head" => vec!["HTTP/1.1 200 OK\r\nContent-Length: 83\r\n\r\n", POISON],
        "head-later" => vec!["HTTP/1.1 200 OK\r\nContent-Length: 83\r\n\r\n", "", POISON],
        "head-chunked" => vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", "53\r\n", POISON],
        "204" => vec!["HTTP/1.1 204 No Content\r\nContent-Length: 83\r\n\r\n", POISON],
        "204-later" => vec!["HTTP/1.1 204 No Content\r\nContent-Length: 83\r\n\r\n", "", POISON],
        "204-chunked" => vec!["HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "", "53\r\n", POISON],
        "304" => vec!["HTTP/1.1 304 Not Modified\r\nContent-Length: 83\r\n\r\n", POISON],
        "304-later" => vec!["HTTP/1.1 304 Not Modified\r\nContent-Length: 83\r\n\r\n", "", POISON],
        "205" => vec!["HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", POISON],
        "empty-later" => vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", POISON],
        "chunks-later" => vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", POISON],
        "interim" => vec!["HTTP/1.1 103 Early Hints\r\nContent-Length: 83\r\n\r\n", "", POISON],
        "trailers" => vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", POISON],
        _ => vec!["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"],
    });
    let gateway = Gateway::start(&format!("workers: 1\n{USERS}{}", routes(&upstream)));
    for name in [
        "head",
        "head-later",
        "head-chunked",
        "204",
        "204-later",
        "204-chunked",
        "304",
        "304-later",
        "205",
        "empty-later",
        "chunks-later",
        "trailers",
    ] {
        let method = if name.starts_with("head") { "HEAD" } else { "GET" };
        let response = gateway.send(&crate::support::Request::new(method, &format!("/open/{name}")));
        assert!(response.status < 400 && response.body.is_empty(), "{name}: {response:?}");
        assert_eq!(response.header("Set-Cookie"), None, "{name}");
        // long enough for what comes late to have come
        std::thread::park_timeout(Duration::from_millis(150));
        for _ in 0..3 {
            assert_eq!(gateway.send(&crate::support::get("/open/next")).expect(200).text(), "good", "behind {name}");
        }
    }
    // an interim response has no content: what stands behind it is the response
    let mut connection = gateway.connect();
    let response = connection.send(&crate::support::get("/open/interim"));
    assert_eq!(response.text(), "poison");
    assert_eq!(gateway.send(&crate::support::get("/open/next")).expect(200).text(), "good");
}

#[test]
fn a_credential_of_one_request_is_not_the_next_ones() {
    let (gateway, upstream) = usual();
    let mut connection = gateway.connect();
    let admin = basic("admin", "adminpassword");
    for round in 0..3 {
        let path = format!("/admin/{round}");
        let allowed = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {admin}\r\n\r\n");
        connection.write(allowed.as_bytes()).unwrap();
        assert_eq!(connection.response("GET").unwrap().status, 200);
        for bytes in [
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Auth-User: admin\r\nX-Auth-Roles: admin\r\n\r\n"),
        ] {
            connection.write(bytes.as_bytes()).unwrap();
            assert_eq!(connection.response("GET").unwrap().status, 401);
        }
    }
    assert_eq!(upstream.received().len(), 3);
    // nor does a body of chunks bear one: its trailers say nothing
    let mut connection: Connection = gateway.connect();
    let trailers = format!("0\r\nAuthorization: {admin}\r\n\r\n");
    let head = "POST /admin/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n";
    connection.write(format!("{head}{trailers}").as_bytes()).unwrap();
    assert_eq!(connection.response("POST").unwrap().status, 401);
    assert_eq!(upstream.received().len(), 3);
}
