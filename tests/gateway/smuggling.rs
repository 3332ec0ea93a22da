//! Framing attacks with raw sockets: what reaches the upstream was authorized, or nothing did (RFC 9112 6, 11).

use crate::support::{Gateway, SMUGGLED, Upstream, routes, statuses, usual};

#[test]
fn heads_that_two_readers_could_read_differently_are_refused() {
    let (gateway, upstream) = usual();
    let post = "POST /open/x HTTP/1.1\r\nHost: a\r\n";
    for (name, head) in [
        ("both framings", format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("both, turned", format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n")),
        ("two lengths that differ", format!("{post}Content-Length: 0\r\nContent-Length: 44\r\n\r\n")),
        ("a list of lengths that differ", format!("{post}Content-Length: 0, 44\r\n\r\n")),
        ("a signed length", format!("{post}Content-Length: +0\r\n\r\n")),
        ("a negative length", format!("{post}Content-Length: -1\r\n\r\n")),
        ("a length in hex", format!("{post}Content-Length: 0x0\r\n\r\n")),
        ("a length with a blank", format!("{post}Content-Length: 0 0\r\n\r\n")),
        ("an empty length", format!("{post}Content-Length:\r\n\r\n")),
        ("a length beyond numbers", format!("{post}Content-Length: 99999999999999999999999\r\n\r\n")),
        ("an unknown coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("chunked not last", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        ("chunked twice", format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        (
            "chunked in two fields",
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ),
        ("a vertical tab", format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n")),
        ("quoted", format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")),
        ("identity", format!("{post}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n")),
        ("a blank before the colon", format!("{post}Content-Length : 0\r\n\r\n")),
        ("a blank before the colon of the other", format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("a folded line", format!("{post}X-A: b\r\n Content-Length: 44\r\n\r\n")),
        ("a folded first line", "POST /open/x HTTP/1.1\r\n Host: a\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("a bare CR in a value", format!("{post}X-A: b\rContent-Length: 44\r\n\r\n")),
        ("a bare CR at the end", format!("{post}X-A: b\r\r\n\r\n")),
        ("a NUL in a value", format!("{post}X-A: b\0c\r\n\r\n")),
        ("no name", format!("{post}: x\r\n\r\n")),
        ("no colon", format!("{post}Content-Length\r\n\r\n")),
        ("a name with a blank", format!("{post}X A: b\r\n\r\n")),
        ("a version of nobody", "POST /open/x HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
        ("a major version of nobody", "POST /open/x HTTP/3.0\r\nHost: a\r\n\r\n".to_owned()),
        ("two blanks in the line", "POST  /open/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a tab in the line", "POST\t/open/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (
            "chunked in HTTP/1.0",
            "POST /open/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("HTTP/0.9", "GET /open/x\r\n\r\n".to_owned()),
    ] {
        let answer = gateway.raw(format!("{head}{SMUGGLED}").as_bytes());
        let seen = statuses(&answer);
        assert!(
            seen.len() <= 1 && seen.iter().all(|status| ["400", "501", "505", "431"].contains(&status.as_str())),
            "{name}: {seen:?}"
        );
        let received = upstream.received();
        assert!(received.is_empty(), "{name}: {received:?}");
    }
}

#[test]
fn chunks_that_two_readers_could_read_differently_never_end_in_a_second_request() {
    let (gateway, upstream) = usual();
    for (name, body) in [
        ("a size with a sign", "+0\r\n\r\n"),
        ("a size with 0x", "0x0\r\n\r\n"),
        ("a size with a blank before", " 0\r\n\r\n"),
        ("a bare LF behind the size", "0\n\n"),
        ("a bare LF behind the data", "1\r\nx\n0\r\n\r\n"),
        ("a bare CR behind the size", "0\r\r\n\r\n"),
        ("no end of the data", "1\r\nxx0\r\n\r\n"),
        ("a size beyond numbers", "FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"),
        ("a size that wraps", "10000000000000001\r\nx\r\n0\r\n\r\n"),
        ("an extension with a LF", "0;a=\n\r\n\r\n"),
        ("an extension with a CR", "0;a\rb\r\n\r\n"),
        ("an endless extension", &format!("0;{}\r\n\r\n", "a".repeat(100_000))),
        ("a negative size", "-1\r\n\r\n"),
        ("letters", "xyz\r\n\r\n"),
        ("a trailer with a bare LF", "0\r\nX: y\n\r\n"),
    ] {
        let head = "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = gateway.raw(format!("{head}{body}{SMUGGLED}").as_bytes());
        let seen = statuses(&answer);
        assert!(!seen.iter().any(|status| status == "200"), "{name}: {seen:?}");
        // the head may have been sent on before the chunk was seen; what was smuggled never is
        for received in upstream.received() {
            assert_eq!(received.target, "/open/x", "{name}");
            assert!(!received.head.contains("smuggled"), "{name}");
        }
    }
}

#[test]
fn what_stands_behind_a_request_is_judged_by_itself() {
    let (gateway, upstream) = usual();
    for first in [
        "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "HEAD /open/x HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = gateway.raw(format!("{first}{SMUGGLED}").as_bytes());
        assert_eq!(statuses(&answer), ["200", "401"], "{first}");
        assert!(upstream.received().iter().all(|received| received.target == "/open/x"), "{first}");
    }
    // a body of a request that says that there is none
    let answer = gateway.raw(
        b"GET /user/x HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eDp5\r\n\r\nGET /open/y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&answer), ["401", "200"]);
}

#[test]
fn names_that_upstreams_fold_into_framing_do_not_pass() {
    let (gateway, upstream) = usual();
    for line in [
        "Content_Length: 44",
        "Transfer_Encoding: chunked",
        "Transfer.Encoding: chunked",
        "Content-Length\u{0}: 44",
        "\u{e9}: x",
    ] {
        let answer =
            gateway.raw(format!("GET /open/x HTTP/1.1\r\nHost: a\r\n{line}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(statuses(&answer).len() == 1, "{line}");
        for received in upstream.received() {
            let strange = received.headers.iter().find(|(name, _)| {
                name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    || name.eq_ignore_ascii_case("transfer-encoding")
            });
            assert_eq!(strange, None);
        }
    }
}

#[test]
fn responses_that_two_readers_could_read_differently_do_not_pass() {
    use crate::support::{Reply, get};
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    ] {
        let upstream = Upstream::start(move |_| Reply::raw(answer));
        let gateway = Gateway::start(&routes(&upstream));
        let response = gateway.send(&get("/open/x"));
        let head = format!("{:?}", response.headers);
        let plain = response.status == 502 || (!head.contains("evil") && response.all("Content-Length").len() <= 1);
        assert!(plain, "{answer:?} became {response:?}");
        // what the upstream sent beyond its response is nobody's response
        assert!(!response.text().contains("HTTP/1.1"), "{response:?}");
    }
}

#[test]
fn bytes_beyond_a_response_do_not_become_the_next_callers() {
    use crate::support::{Reply, get};
    let upstream = Upstream::start(|request| {
        let extra = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        Reply::Bytes {
            bytes: format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}{extra}",
                request.target.len(),
                request.target
            )
            .into_bytes(),
            keep: true,
        }
    });
    let gateway = Gateway::start(&format!("workers: 1\n{}", routes(&upstream)));
    for n in 0..10 {
        let path = format!("/open/{n}");
        let response = gateway.send(&get(&path));
        assert!(response.status == 502 || response.text() == path, "{path}: {response:?}");
    }
}

#[test]
fn http2_cannot_say_what_http1_may_not() {
    use crate::support::outside::curl;
    let (gateway, upstream) = usual();
    let url = gateway.url("/user/x");
    for header in ["transfer-encoding: chunked", "connection: x", "upgrade: h2c", "x-auth-user: admin", "te: gzip"] {
        let output = std::process::Command::new("curl")
            .args([
                "--silent",
                "--max-time",
                "10",
                "--http2-prior-knowledge",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--header",
                header,
                &url,
            ])
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(["400", "401", "000"].contains(&status.as_str()), "{header}: {status}");
    }
    assert!(upstream.received().is_empty());
    let (response, version) =
        curl(&["--http2-prior-knowledge", "--user", "user:userpassword", "--header", "x-auth-user: admin", &url]);
    assert_eq!((response.status, version.as_str()), (200, "2"));
    assert_eq!(upstream.last().all("X-Auth-User"), ["user"]);
}
