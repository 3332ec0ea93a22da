//! Framing attacks that `smuggling` does not have: over HTTP/2, behind an upgrade, and from the upstream's side
//! (RFC 9113 8, RFC 9112 6 and 11).

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::client::basic;
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, block, frame, hello, next_frame,
};
use crate::support::{Gateway, Reply, SMUGGLED, Upstream, get, routes, statuses, usual};

type Field<'a> = (&'a [u8], &'a [u8]);

/// A request of HTTP/2 to the byte; whether anything but a refusal came back.
fn passes(gateway: &Gateway, fields: &[Field<'_>], body: Option<&[u8]>) -> bool {
    let mut bytes = hello();
    let end = if body.is_none() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body));
    }
    let mut connection = gateway.connect();
    drop(connection.write(&bytes));
    // the head of a response, a reset of the stream, or the end of the connection
    while let Ok((kind, _, stream, payload)) = next_frame(&mut connection) {
        if kind == HEADERS && stream == 1 {
            // 200 is one byte by the static table
            return payload.first() == Some(&0x88);
        }
        if kind == RST_STREAM || kind == GOAWAY {
            return false;
        }
    }
    false
}

#[test]
fn http2_cannot_be_brought_down_to_another_request() {
    let (gateway, upstream) = usual();
    let usual: [Field<'_>; 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/open/x"), (b":authority", b"a")];
    let with = |more: &[Field<'static>]| [&usual[..], more].concat();
    assert!(passes(&gateway, &usual, None), "what is well formed passes");
    assert!(passes(&gateway, &with(&[(b"content-length", b"3")]), Some(b"abc")));
    assert_eq!(upstream.received().len(), 2);
    let replaced = |name: &[u8], value: &'static [u8]| -> Vec<Field<'static>> {
        let mut fields: Vec<Field<'static>> =
            vec![(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/open/x"), (b":authority", b"a")];
        for field in &mut fields {
            if field.0 == name {
                field.1 = value;
            }
        }
        fields
    };
    for (name, fields, body) in [
        ("CR LF in a value", with(&[(b"x-a", b"b\r\nX-Auth-User: admin")]), None),
        ("LF in a value", with(&[(b"x-a", b"b\nX-Auth-User: admin")]), None),
        ("CR in a value", with(&[(b"x-a", b"b\rc")]), None),
        ("NUL in a value", with(&[(b"x-a", b"b\0c")]), None),
        ("CR LF in a name", with(&[(b"x-a\r\nx-auth-user", b"admin")]), None),
        ("a colon in a name", with(&[(b"x-a: b", b"c")]), None),
        ("a blank in a name", with(&[(b"x a", b"c")]), None),
        ("an upper-case name", with(&[(b"X-A", b"c")]), None),
        ("an empty name", with(&[(b"", b"c")]), None),
        ("transfer-encoding", with(&[(b"transfer-encoding", b"chunked")]), Some(&b"0\r\n\r\n"[..])),
        ("connection", with(&[(b"connection", b"close")]), None),
        ("keep-alive", with(&[(b"keep-alive", b"1")]), None),
        ("upgrade", with(&[(b"upgrade", b"websocket")]), None),
        ("te beyond trailers", with(&[(b"te", b"gzip")]), None),
        ("a length too long", with(&[(b"content-length", b"9")]), Some(b"abc")),
        ("a length too short", with(&[(b"content-length", b"1")]), Some(b"abc")),
        ("two lengths", with(&[(b"content-length", b"3"), (b"content-length", b"9")]), Some(b"abc")),
        ("a signed length", with(&[(b"content-length", b"+3")]), Some(b"abc")),
        ("a length without a body", with(&[(b"content-length", b"3")]), None),
        ("another host", with(&[(b"host", b"b")]), None),
        ("two hosts", with(&[(b"host", b"a"), (b"host", b"b")]), None),
        ("a second path", with(&[(b":path", b"/admin/x")]), None),
        ("a pseudo-field behind the fields", with(&[(b"x-a", b"b"), (b":path", b"/admin/x")]), None),
        ("an unknown pseudo-field", with(&[(b":evil", b"x")]), None),
        ("a response's pseudo-field", with(&[(b":status", b"200")]), None),
        ("a request in the method", replaced(b":method", b"GET /admin/x HTTP/1.1\r\nx:"), None),
        ("a blank in the method", replaced(b":method", b"GET x"), None),
        ("a request in the path", replaced(b":path", b"/open/x HTTP/1.1\r\nx: y"), None),
        ("a blank in the path", replaced(b":path", b"/open/x /admin"), None),
        ("dots in the path", replaced(b":path", b"/open/../admin/x"), None),
        ("an absolute path", replaced(b":path", b"http://a/admin/x"), None),
        ("no path", replaced(b":path", b""), None),
        ("a star", replaced(b":path", b"*"), None),
        ("CR LF in the authority", replaced(b":authority", b"a\r\nx: y"), None),
        ("a user in the authority", replaced(b":authority", b"user@a"), None),
        ("a path in the authority", replaced(b":authority", b"a/admin"), None),
        ("a request in the scheme", replaced(b":scheme", b"http://a/admin HTTP/1.1\r\nx: "), None),
        ("no method", usual[1..].to_vec(), None),
        ("no scheme", [&usual[..1], &usual[2..]].concat(), None),
    ] {
        assert!(!passes(&gateway, &fields, body), "{name}");
        for received in &upstream.received()[2..] {
            // a body may be found short only after its head was sent on; nothing else is
            assert!(name.starts_with("a length too") && received.target == "/open/x", "{name}: {received:?}");
        }
    }
}

#[test]
fn a_fragment_over_http2_reaches_nobody() {
    // Contract 3 refuses `#`. The library drops it with what follows before anybody can see it, so that what is left is
    // matched and sent; only the 400 is missing.
    let (gateway, upstream) = usual();
    let path: [Field<'_>; 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/open/x#/../admin"), (b":authority", b"a")];
    assert!(passes(&gateway, &path, None));
    assert_eq!(upstream.last().target, "/open/x");
}

#[test]
fn each_request_of_a_pipeline_stands_by_itself() {
    let (gateway, upstream) = usual();
    let with = |path: &str, authorization: Option<String>| {
        let line = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n")
    };
    let (admin, guest) = (basic("admin", "adminpassword"), basic("guest", "guestpassword"));
    let answer = gateway.raw(
        [
            with("/admin/1", Some(admin.clone())),
            with("/admin/2", None),
            with("/admin/3", Some(guest)),
            with("/open/4", Some(admin)),
            with("/any/5", None).replace("Host: a", "Host: a\r\nConnection: close"),
        ]
        .concat()
        .as_bytes(),
    );
    assert_eq!(statuses(&answer), ["200", "401", "403", "200", "401"]);
    let seen: Vec<_> =
        upstream.received().iter().map(|r| (r.target.clone(), r.header("X-Auth-User").map(str::to_owned))).collect();
    assert_eq!(seen, [("/admin/1".to_owned(), Some("admin".to_owned())), ("/open/4".to_owned(), None)]);
}

#[test]
fn what_stands_behind_an_upgrade_is_no_request_that_passes() {
    let (gateway, upstream) = usual();
    let upgrade = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for protocol in ["websocket", "h2c", "WebSocket, h2c", "TLS/1.0"] {
        // the upstream answers 200: no protocol was changed
        let request = format!("GET /open/x HTTP/1.1\r\nHost: a\r\nUpgrade: {protocol}\r\n{upgrade}\r\n{SMUGGLED}");
        let seen = statuses(&gateway.raw(request.as_bytes()));
        assert!(
            seen.first().is_some_and(|status| status == "200") && !seen[1..].contains(&"200".to_owned()),
            "{protocol}: {seen:?}"
        );
        assert!(upstream.received().iter().all(|received| received.target == "/open/x"), "{protocol}");
    }
    // a refused one with more behind it
    let request = format!("GET /user/x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{upgrade}\r\n{SMUGGLED}");
    let seen = statuses(&gateway.raw(request.as_bytes()));
    assert!(seen.iter().all(|status| status == "401"), "{seen:?}");
}

#[test]
fn an_upstream_that_changes_protocols_unasked_opens_nothing() {
    let upstream = Upstream::start(|_| {
        Reply::raw(
            "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        )
    });
    let gateway = Gateway::start(&routes(&upstream));
    let answer = gateway.raw(format!("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}").as_bytes());
    assert_eq!(statuses(&answer), ["502", "401"]);
}

#[test]
fn interim_responses_are_bounded_and_never_become_the_response() {
    for (name, answer, status) in [
        (
            "one",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            200,
        ),
        (
            "a length",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .to_owned(),
            200,
        ),
        ("nothing behind", "HTTP/1.1 102 Processing\r\n\r\n".to_owned(), 502),
    ] {
        let upstream = Upstream::start(move |_| Reply::raw(answer.clone()));
        let gateway = Gateway::start(&routes(&upstream));
        let response = gateway.send(&get("/open/x"));
        assert_eq!(response.status, status, "{name}: {response:?}");
        assert!(status != 200 || response.text() == "ok", "{name}: {response:?}");
    }
    // one after the other, for ever
    let upstream = Upstream::start(|_| {
        Reply::script(|socket| while socket.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).is_ok() {})
    });
    let gateway = Gateway::start(&format!("timeouts: {{ response_header: 1s }}\n{}", routes(&upstream)));
    let response = gateway.send(&get("/open/x"));
    assert!([502, 504].contains(&response.status), "{response:?}");
}

#[test]
fn an_upstream_that_answers_wrongly_harms_nobody_else() {
    let upstream = Upstream::start(|request| {
        let path = request.target.clone();
        let good = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
        match path.rsplit('/').next().unwrap() {
            "twice" => Reply::Bytes { bytes: format!("{good}{}", good.replace("twice", "other")).into(), keep: true },
            "short" => Reply::raw(good.replace("Content-Length: ", "Content-Length: 9")),
            "garbage" => Reply::raw([0xff; 5000]),
            "text" => Reply::raw("hello"),
            "old" => Reply::raw(format!("HTTP/0.9 200\r\n\r\n{path}")),
            "status" => Reply::raw("HTTP/1.1 999999 OK\r\n\r\n"),
            "head" => Reply::raw(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(2_000_000))),
            "fields" => Reply::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(50_000))),
            "chunk" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc"),
            "cut" => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            "negative" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
            "length" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc"),
            "empty" => Reply::close(),
            _ => Reply::Bytes { bytes: good.into_bytes(), keep: true },
        }
    });
    let gateway = Gateway::start(&format!("workers: 1\n{}", routes(&upstream)));
    for name in [
        "twice", "short", "garbage", "text", "old", "status", "head", "fields", "chunk", "cut", "negative", "length",
        "empty",
    ] {
        let path = format!("/open/{name}");
        let mut connection = gateway.connect();
        connection.write(&get(&path).to_bytes()).unwrap();
        match connection.response("GET") {
            Ok(response) if response.status == 200 => assert_eq!(response.text(), path, "{name}"),
            Ok(response) => assert_eq!(response.status, 502, "{name}: {response:?}"),
            // begun, and broken off rather than made whole
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{name}"),
        }
        for number in 0..4 {
            let path = format!("/open/{number}");
            assert_eq!(gateway.send(&get(&path)).text(), path, "behind {name}");
        }
    }
}

#[test]
fn an_answer_that_was_there_before_the_request_is_nobodys() {
    // a server that speaks first on a connection that is kept: the next caller must not be given that
    let upstream = Upstream::sessions(|mut socket| {
        let mut buffer = [0; 4096];
        let mut first = true;
        while matches!(socket.read(&mut buffer), Ok(count) if count > 0) {
            let path = String::from_utf8_lossy(&buffer).split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
            if first {
                first = false;
                std::thread::sleep(Duration::from_millis(50));
                drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"));
            }
        }
    });
    let gateway = Gateway::start(&format!("workers: 1\n{}", routes(&upstream)));
    for number in 0..5 {
        let path = format!("/open/{number}");
        assert_eq!(gateway.send(&get(&path)).text(), path);
        std::thread::sleep(Duration::from_millis(120));
    }
}
