//! Ways around a guarded path that `paths` does not have: all spellings at once, prefixes, hosts (contract 3).

use crate::support::{Gateway, USERS, Upstream, get};

fn gateway(upstream: &Upstream, routes: &str) -> Gateway {
    Gateway::start(&format!("{USERS}upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes:\n{routes}", upstream.url()))
}

/// A path as the most lenient server would read it: decoded, `\` and `//` folded, parameters and all behind a NUL cut off,
/// dots resolved.
fn leniently(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap();
    let mut decoded = Vec::new();
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let escape = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escape) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    let decoded = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let decoded = decoded.split('\0').next().unwrap().to_owned();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/').map(|segment| segment.split(';').next().unwrap()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn no_spelling_of_a_guarded_path_reaches_even_a_lenient_server() {
    let upstream = Upstream::hello();
    let gateway = gateway(
        &upstream,
        "  - { path: /**, allow: anyone, to: api }\n  - { path: /admin/**, allow: [admin], to: api }\n",
    );
    let before = [
        "/",
        "//",
        "/./",
        "/x/../",
        "/%2e/",
        "/x/%2e%2e/",
        "/;/",
        "/%2f",
        "/\\",
        "/%5c",
        "/..;/",
        "/x/..;a=b/",
        "/%00/",
        "/.",
    ];
    let name = [
        "admin",
        "%61dmin",
        "adm%69n",
        "admin%2f",
        "admin;a",
        "admin%00",
        "admin.",
        "admin%20",
        "ad\\..\\admin",
        "admin%3b",
        "admin#",
        "admin%23",
    ];
    let after = ["", "/", "/x", "//x", "/./x", "/%2e/x", ";/x", "?/../x", "\\x"];
    let mut connection = gateway.connect();
    let mut sent = 0;
    for before in before {
        for name in name {
            for after in after {
                let target = format!("{before}{name}{after}");
                let response = connection.send(&get(&target));
                let closed = response.header("Connection") == Some("close");
                if response.status == 200 {
                    sent += 1;
                    let received = upstream.last().target;
                    let reading = leniently(&received);
                    assert!(reading != "/admin" && !reading.starts_with("/admin/"), "{target} was sent as {received}");
                } else {
                    assert!([400, 401].contains(&response.status), "{target}: {response:?}");
                }
                if closed {
                    connection = gateway.connect();
                }
            }
        }
    }
    assert_eq!(upstream.received().len(), sent);
}

#[test]
fn what_is_left_of_a_stripped_path_is_below_the_prefix_or_nothing_is_sent() {
    let upstream = Upstream::hello();
    let gateway = gateway(
        &upstream,
        "  - { path: /api/**, allow: anyone, strip_prefix: /api, to: api }\n  - { path: /admin/**, allow: [admin], to: api }\n",
    );
    for (asked, sent) in
        [("/api", "/"), ("/api/", "/"), ("/api/x", "/x"), ("/api/api/x", "/api/x"), ("/api?/admin", "/?/admin")]
    {
        gateway.send(&get(asked)).expect(200);
        assert_eq!(upstream.last().target, sent, "{asked}");
    }
    let count = upstream.received().len();
    for (asked, status) in [
        ("/apix/admin", 404),
        ("/api..", 404),
        ("/api%2fadmin", 400),
        ("/api//admin", 400),
        ("/api/../admin", 400),
        ("/api/%2e%2e/admin", 400),
        ("/api;/admin", 400),
        ("/API/x", 404),
        ("/api/\\admin", 400),
        ("/api/http://evil", 400),
    ] {
        assert_eq!(gateway.send(&get(asked)).status, status, "{asked}");
    }
    assert_eq!(upstream.received().len(), count);
}

#[test]
fn an_escape_is_decoded_once_and_never_again() {
    let upstream = Upstream::hello();
    let gateway = gateway(
        &upstream,
        "  - { path: /**, allow: anyone, to: api }\n  - { path: /admin/**, allow: [admin], to: api }\n",
    );
    for (asked, sent) in [
        ("/%2561dmin", "/%2561dmin"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/%25%36%31dmin", "/%2561dmin"),
        ("/ADMIN", "/ADMIN"),
    ] {
        gateway.send(&get(asked)).expect(200);
        assert_eq!(upstream.last().target, sent, "{asked}");
    }
}

#[test]
fn a_host_cannot_be_spelt_around_a_rule_for_it() {
    let upstream = Upstream::hello();
    let gateway = gateway(
        &upstream,
        "  - { path: /**, hosts: [admin.example.com], allow: [admin], to: api }\n  - { path: /**, allow: anyone, to: api }\n",
    );
    for host in [
        "admin.example.com",
        "ADMIN.example.com",
        "admin.example.com:80",
        "admin.example.com.",
        "Admin.Example.Com.:8443",
    ] {
        gateway.send(&get("/x").header("Host", host)).refused(401, "missing_credentials");
        let absolute = format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = gateway.raw(absolute.as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 401 "), "{host}: {}", String::from_utf8_lossy(&answer));
    }
    for host in [
        "admin.example.com:",
        "admin.example.com:x",
        "admin.example.com,other",
        "admin%2eexample.com",
        "admin.example.com/x",
        "",
    ] {
        let response = gateway.send(&get("/x").header("Host", host));
        assert!([400, 401].contains(&response.status), "{host}: {response:?}");
    }
    assert!(upstream.received().is_empty());
}
