//! Paths are made unambiguous or refused, and what was matched is what is sent (contract 3, RFC 3986 6.2.2).

use crate::support::{Gateway, USERS, Upstream, get, routes};

fn open(paths: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "{USERS}{paths}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /**, allow: anyone, to: api }}
  - {{ path: /admin/**, allow: [admin], to: api }}
",
        upstream.url()
    ))
}

#[test]
fn ambiguous_paths_are_refused() {
    let upstream = Upstream::hello();
    let gateway = open("", &upstream);
    for path in [
        "/a/../admin/x",
        "/a/./b",
        "/..",
        "/.",
        "/a/..",
        "/a/.",
        "/%2e%2e/admin",
        "/a/%2E%2e/x",
        "/a/.%2e/x",
        "/a/%2E/x",
        "//admin/x",
        "/a//b",
        "/a//",
        "//",
        "/a\\b",
        "/a%5cb",
        "/a%5Cb",
        "/a%2fb",
        "/a%2Fb",
        "/a;b",
        "/a;x=1/b",
        "/a%3bb",
        "/a%00b",
        "/a%0ab",
        "/a%0d%0ab",
        "/a%7fb",
        "/a%c2%85b",
        "/a%1fb",
        "/a%3fb",
        "/a%23b",
        "/a#b",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%u0041",
        "/a%c0%afb",
        "/a%c0%ae",
        "/a%e0%80%af",
        "/a%ff",
        "/a%ed%a0%80",
        "/a%c3",
        "/a<b",
        "/a>b",
        "/a\"b",
        "/a^b",
        "/a`b",
        "/a{b",
        "/a}b",
        "/a|b",
        "/%252e%252e%2f",
    ] {
        let response = gateway.send(&get(path));
        assert_eq!(response.status, 400, "{path}: {}", response.text());
        response.refused(400, "bad_request");
    }
    for bytes in [&b"/a\xffb"[..], b"/a\xc3\xa9", b"/a\x01b", b"/a\x7fb", b"/a\tb"] {
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(bytes);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw(&request);
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{bytes:?}: {}", String::from_utf8_lossy(&answer));
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_query_goes_on_byte_for_byte() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}{}  - {{ path: /api/**, allow: anyone, strip_prefix: /api, to: api }}\n",
        routes(&upstream)
    ));
    let asked = |path: &[u8], query: &[u8]| {
        let line = [b"GET ".as_slice(), path, b"?", query, b" HTTP/1.1\r\n"].concat();
        let answer = gateway.raw(&[&*line, b"Host: a\r\nConnection: close\r\n\r\n"].concat());
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned();
        (status, upstream.received().len())
    };
    let all: Vec<u8> = (b'!'..=b'~').chain(0x80..=0xff).filter(|&byte| byte != b'#').collect();
    let mut sent = 0;
    for query in [&b"q=\"a+b\""[..], b"f={\"a\":[<1>]}", b"q=caf\xe9", "q=é".as_bytes(), b"a=\xff??", &all] {
        for (path, written) in
            [(&b"/open/%78"[..], &b"/open/x"[..]), (b"/api/x", b"/x"), (b"http://a/open/x", b"/open/x")]
        {
            sent += 1;
            assert_eq!(asked(path, query), ("200".into(), sent), "{}", String::from_utf8_lossy(query));
            // as text, what is no UTF-8 would look alike
            let line = [b"GET ", written, b"?", query, b" HTTP/1.1\r\n"].concat();
            assert_eq!(upstream.last().line, line);
        }
    }
    for query in [&b"a\x7f"[..], b"a\"\x7f", b"a\x01", b"\"\t", b"\" b", b"\"#b", b"\"\0", b"\"\rX: y", b"\"\nX: y"] {
        assert_eq!(asked(b"/open/x", query), ("400".into(), sent), "{query:?}");
    }
    for path in
        [&b"/open/<x>"[..], b"/open/\"", b"/open/\xe9", "/open/é".as_bytes(), b"/open/../admin/x", b"/admin/%2e"]
    {
        assert_eq!(asked(path, b"a=\"b\""), ("400".into(), sent), "{path:?}");
    }
    assert_eq!(asked(b"/admin/x", b"a=\"b\"").0, "401", "a query opens nothing");
}

#[test]
fn a_query_that_cannot_be_said_to_an_upstream_is_refused_and_not_changed() {
    let upstream = Upstream::hello();
    let demo = routes(&upstream)
        .replace("routes:\n", "  demo: { builtin: echo }\nroutes:\n  - { path: /demo, allow: anyone, to: demo }\n");
    let gateway = Gateway::start(&demo);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, fields) in [("/demo", ""), ("/open/x", upgrade)] {
        let ask = |query: &str| {
            let mut connection = gateway.connect();
            connection.write(format!("GET {path}?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap();
            connection.response("GET").unwrap()
        };
        let refused = ask("a=\"b\"").refused(400, "bad_request");
        assert_eq!(refused.member("message"), "query has a byte that must be percent-encoded for this upstream");
        ask("a=b").expect(200);
    }
    assert!(upstream.received().iter().all(|received| received.target == "/open/x?a=b"));
}

#[test]
fn equivalent_spellings_become_one_and_that_one_is_sent() {
    let upstream = Upstream::hello();
    let gateway = open("", &upstream);
    for (asked, sent) in [
        ("/%61bc", "/abc"),
        ("/a%2db%2Ec%5f%7E", "/a-b.c_~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a%25b", "/a%25b"),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ("/...", "/..."),
        ("/a..b/.c", "/a..b/.c"),
        ("/a/", "/a/"),
        ("/", "/"),
        ("/x?a=../..//;%2f&b=%", "/x?a=../..//;%2f&b=%"),
        ("/x?", "/x?"),
        ("/x??y", "/x??y"),
    ] {
        gateway.send(&get(asked)).expect(200);
        assert_eq!(upstream.last().target, sent, "{asked}");
    }
}

#[test]
fn no_spelling_of_a_guarded_path_goes_around_the_guard() {
    let upstream = Upstream::hello();
    let gateway = open("", &upstream);
    for path in ["/admin", "/admin/", "/admin/x", "/%61dmin/x", "/%61%64%6D%69%6E", "/adm%69n/x"] {
        gateway.send(&get(path)).refused(401, "missing_credentials");
    }
    for path in
        ["/./admin", "//admin", "/x/../admin", "/x/%2e%2e/admin", "/admin;x", "/admin%2f", "/admin%00", "/.;/admin"]
    {
        gateway.send(&get(path)).refused(400, "bad_request");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn each_relaxation_lets_through_what_it_names_and_nothing_else() {
    for (setting, asked, sent) in [
        ("encoded_slash: keep", "/a%2fb", "/a%2Fb"),
        ("encoded_query: keep", "/a%3fb%23c", "/a%3Fb%23c"),
        ("semicolon: keep", "/a;v=1", "/a;v=1"),
        ("empty_segments: merge", "//a///b//", "/a/b/"),
    ] {
        let upstream = Upstream::hello();
        let gateway = open(&format!("paths: {{ {setting} }}\n"), &upstream);
        gateway.send(&get(asked)).expect(200);
        assert_eq!(upstream.last().target, sent, "{setting}");
        for path in ["/a/../b", "/a%5cb", "/a%00", "/a%", "/a%2f..%2fb/../c"] {
            gateway.send(&get(path)).refused(400, "bad_request");
        }
        let merged = gateway.send(&get("//admin//x"));
        assert_eq!(merged.status, if setting.ends_with("merge") { 401 } else { 400 }, "{setting}");
    }
}

#[test]
fn an_encoded_slash_that_is_kept_is_one_segments_content() {
    let upstream = Upstream::hello();
    let gateway = open("paths: { encoded_slash: keep }\n", &upstream);
    // not below /admin, and sent as it was matched
    gateway.send(&get("/admin%2Fx")).expect(200);
    assert_eq!(upstream.last().target, "/admin%2Fx");
    // dots beside an encoded slash would be a climb for an upstream that decodes
    gateway.send(&get("/a%2f..%2fadmin")).refused(400, "bad_request");
}

#[test]
fn other_forms_of_the_target() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (head, status) in [
        ("GET http://localhost/open/x HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("GET http://LOCALHOST/open/x HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("GET http://localhost/admin/x HTTP/1.1\r\nHost: localhost\r\n", 401),
        ("GET http://other/open/x HTTP/1.1\r\nHost: localhost\r\n", 400),
        ("GET http://user@localhost/open/x HTTP/1.1\r\nHost: localhost\r\n", 400),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n", 400),
        ("GET open/x HTTP/1.1\r\nHost: localhost\r\n", 400),
        ("GET /open/x HTTP/1.1\r\n", 400),
        ("GET /open/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /open/x HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET /open/x HTTP/1.1\r\nHost: a/../b\r\n", 400),
        ("GET /open/x HTTP/1.1\r\nHost: user@a\r\n", 400),
    ] {
        let answer = gateway.raw(format!("{head}Connection: close\r\n\r\n").as_bytes());
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {text}");
    }
    assert!(upstream.received().iter().all(|received| received.target == "/open/x"));
}
