//! Requests and responses on their way: bodies, trailers, hop-by-hop fields, retries (contract 4).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::upstream::refusing;
use crate::support::{Connection, Gate, Gateway, Reply, Request, Upstream, delete, eventually, get, post, put};

fn open(servers: &[String]) -> Gateway {
    open_with(servers, "")
}

fn open_with(servers: &[String], rest: &str) -> Gateway {
    let servers: Vec<String> = servers.iter().map(|url| format!("'{url}'")).collect();
    Gateway::start(&format!(
        "{rest}
upstreams: {{ api: {{ servers: [{}] }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        servers.join(", ")
    ))
}

#[test]
fn a_request_and_its_response_pass_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let told = body.clone();
    let upstream = Upstream::start(move |_| {
        let mut bytes =
            format!("HTTP/1.1 201 Made\r\nX-Answer: a\r\nX-Answer: b\r\nContent-Length: {}\r\n\r\n", told.len())
                .into_bytes();
        bytes.extend_from_slice(&told);
        Reply::Bytes { bytes, keep: true }
    });
    let gateway = open(&[upstream.url()]);
    for (request, framing) in [
        (put("/x?a=b").header("X-Ask", "1").body(body.clone()), "length"),
        (
            put("/x?a=b")
                .header("X-Ask", "1")
                .header("Transfer-Encoding", "chunked")
                .body([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()),
            "chunked",
        ),
    ] {
        let response = gateway.send(&request).expect(201);
        assert!(response.body == body, "{framing}: {} bytes came back", response.body.len());
        assert_eq!(response.all("X-Answer"), ["a", "b"]);
        let received = upstream.last();
        assert_eq!((received.method.as_str(), received.target.as_str()), ("PUT", "/x?a=b"));
        assert_eq!(received.header("X-Ask"), Some("1"));
        assert!(received.body == body, "{framing}: {} bytes arrived", received.body.len());
    }
}

#[test]
fn statuses_and_methods_pass_as_they_are() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/204" => Reply::Bytes { bytes: b"HTTP/1.1 204 Nothing\r\n\r\n".to_vec(), keep: true },
        "/304" => Reply::Bytes {
            bytes: b"HTTP/1.1 304 Same\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n".to_vec(),
            keep: true,
        },
        "/close" => Reply::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end"),
        target => Reply::new(target.trim_start_matches('/').parse().unwrap(), &[("Location", "/there")], "body"),
    });
    let gateway = open(&[upstream.url()]);
    for status in [200, 201, 302, 400, 401, 404, 418, 500, 503] {
        let response = gateway.send(&get(&format!("/{status}"))).expect(status);
        assert_eq!((response.text().as_str(), response.header("Location")), ("body", Some("/there")));
    }
    gateway.send(&get("/204")).expect(204);
    assert_eq!(gateway.send(&get("/304")).expect(304).header("ETag"), Some("\"a\""));
    assert_eq!(gateway.send(&get("/close")).expect(200).text(), "until the end");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"] {
        gateway.send(&Request::new(method, "/200")).expect(200);
        assert_eq!(upstream.last().method, method);
    }
}

#[test]
fn bodies_stream_both_ways_while_they_are_made() {
    let (gate, passed) = (Gate::default(), Gate::default());
    let (opened, passes) = (gate.clone(), passed.clone());
    let upstream = Upstream::sessions(move |mut socket| {
        let mut seen = Vec::new();
        let mut part = [0; 4096];
        // however the gateway cuts the body into chunks
        let content = |seen: &[u8]| {
            let text = String::from_utf8_lossy(seen).into_owned();
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.replace(|c: char| !c.is_ascii_lowercase(), ""));
            body.unwrap_or_default()
        };
        while content(&seen) != "first" {
            let count = socket.read(&mut part).unwrap();
            seen.extend_from_slice(&part[..count]);
        }
        // the request is not over, and the first part of the response leaves
        passes.open();
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").unwrap();
        opened.wait();
        socket.write_all(b"4\r\nlate\r\n0\r\n\r\n").unwrap();
    });
    let gateway = open(&[upstream.url()]);
    let mut connection = gateway.connect();
    connection.write(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    passed.wait();
    let mut response = connection.head().unwrap();
    assert_eq!(connection.chunk(&mut response).unwrap(), b"early");
    connection.write(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    gate.open();
    assert_eq!(connection.chunk(&mut response).unwrap(), b"late");
    assert!(connection.chunk(&mut response).unwrap().is_empty());
}

#[test]
fn server_sent_events_come_one_by_one() {
    let turn: Arc<Mutex<Vec<Gate>>> = Arc::new(Mutex::new((0..3).map(|_| Gate::default()).collect()));
    let turns = turn.clone();
    let upstream = Upstream::start(move |_| {
        let turns = turns.lock().unwrap().clone();
        Reply::script(move |socket| {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
            for gate in turns {
                gate.wait();
                socket.write_all(b"9\r\ndata: x\n\n\r\n").unwrap();
            }
            socket.write_all(b"0\r\n\r\n").unwrap();
        })
    });
    let gateway = open(&[upstream.url()]);
    let mut connection = gateway.connect();
    connection.write(&get("/events").to_bytes()).unwrap();
    let mut response = connection.head().unwrap();
    assert_eq!(response.header("Content-Type"), Some("text/event-stream"));
    let gates = turn.lock().unwrap().clone();
    for gate in gates {
        gate.open();
        assert_eq!(connection.chunk(&mut response).unwrap(), b"data: x\n\n");
    }
    assert!(connection.chunk(&mut response).unwrap().is_empty());
}

#[test]
fn trailers_pass_but_none_that_means_something() {
    let upstream = Upstream::start(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Content-Length\r\n\r\n1\r\nx\r\n0\r\n\
             X-Sum: 7\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nHost: evil\r\nSet-Cookie: a=b\r\n\r\n",
        )
    });
    let gateway = open(&[upstream.url()]);
    let response = gateway.send(&get("/x").header("TE", "trailers"));
    assert_eq!(response.trailer("X-Sum"), Some("7"), "{response:?}");
    for name in ["Content-Length", "Transfer-Encoding", "Host"] {
        assert_eq!(response.trailer(name), None, "{name}");
    }

    let request = post("/x").header("Transfer-Encoding", "chunked").header("Trailer", "X-Sum, Authorization");
    let body = "1\r\nx\r\n0\r\nX-Sum: 7\r\nAuthorization: Basic evil\r\nX-Auth-User: evil\r\nContent-Length: 3\r\nHost: evil\r\n\r\n";
    gateway.send(&request.body(body)).expect(200);
    let received = upstream.last();
    assert_eq!(received.body, b"x");
    assert!(received.trailers.iter().all(|(name, _)| name.eq_ignore_ascii_case("X-Sum")), "{:?}", received.trailers);
}

#[test]
fn no_trailer_is_announced_that_does_not_come() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/short" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTrailer: X-Sum\r\n\r\nx"),
        "/none" => Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n1\r\nx\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
        ),
        _ => Reply::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Host, X-Sum\r\nTrailer: X-Auth-User, X-More\r\n\r\n\
             1\r\nx\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nX-More: 8\r\n\r\n",
        ),
    });
    let gateway = open(&[upstream.url()]);
    let wishes = |target: &str| get(target).header("TE", "trailers");
    for (name, request, announced) in [
        ("some of them", wishes("/x"), &["X-Sum", "X-More"][..]),
        ("all of them are dropped", wishes("/none"), &[]),
        ("a caller who takes none", get("/x"), &[]),
        ("a body that has none", wishes("/short"), &[]),
        ("no body", Request::new("HEAD", "/x").header("TE", "trailers"), &[]),
    ] {
        let response = gateway.send(&request);
        assert_eq!(response.all("Trailer"), announced, "{name}");
        let came: Vec<_> = response.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(came, announced.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>(), "{name}");
    }
    let body = "1\r\nx\r\n0\r\nX-Sum: 7\r\nX-Auth-User: evil\r\nX_Sum: 8\r\n\r\n";
    for (announced, expected) in [("X-Auth-User, X_Sum, X-Sum", &["X-Sum"][..]), ("X-Auth-User, Authorization", &[])] {
        let request = post("/x").header("Transfer-Encoding", "chunked").header("Trailer", announced);
        gateway.send(&request.body(body)).expect(200);
        assert_eq!(upstream.last().all("Trailer"), expected, "{announced}");
    }
}

#[test]
fn a_request_without_a_host_is_sent_with_the_servers_own() {
    let upstream = Upstream::hello();
    let gateway = open(&[upstream.url()]);
    let server = upstream.address().to_string();
    for (name, request, host) in [
        ("HTTP/1.0 without one", "GET /x HTTP/1.0\r\n\r\n", &*server),
        ("HTTP/1.0 with one", "GET /x HTTP/1.0\r\nHost: api.example.com\r\n\r\n", "api.example.com"),
    ] {
        let before = upstream.received().len();
        let answer = String::from_utf8(gateway.raw(request.as_bytes())).unwrap();
        assert!(answer.contains(" 200 "), "{name}: {answer}");
        let received = upstream.received().into_iter().nth(before).expect("the request");
        assert_eq!(received.all("Host"), [host], "{name}");
        // nobody has said it
        let said = if host == server { &[][..] } else { &[host] };
        assert_eq!(received.all("X-Forwarded-Host"), said, "{name}");
    }
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let upstream = Upstream::hello();
    let gateway = open(&[upstream.url()]);
    let mut connection = gateway.connect();
    connection.write(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").unwrap();
    let interim = connection.take(b"HTTP/1.1 100 Continue\r\n\r\n".len()).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{interim:?}");
    connection.write(b"body").unwrap();
    assert_eq!(connection.response("POST").unwrap().status, 200);
    assert_eq!(upstream.first().body, b"body");
}

#[test]
fn a_refusal_is_not_preceded_by_100() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{}{}", crate::support::USERS, crate::support::routes(&upstream)));
    let mut connection = gateway.connect();
    let head = b"POST /user/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    connection.write(head).unwrap();
    let response = connection.response("POST").unwrap();
    assert_eq!((response.status, response.interim.as_slice()), (401, &[][..]));
    assert!(upstream.received().is_empty());
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let upstream = Upstream::start(|_| {
        let fields = [
            ("Connection", "X-Own"),
            ("X-Own", "1"),
            ("Keep-Alive", "timeout=9"),
            ("Proxy-Authenticate", "x"),
            ("X-End", "1"),
        ];
        Reply::new(200, &fields, "x")
    });
    let gateway = open(&[upstream.url()]);
    let request = get("/x")
        .header("Connection", "keep-alive, X-Mine")
        .header("X-Mine", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "Basic x")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "gzip")
        .header("X-End", "1");
    let response = gateway.send(&request).expect(200);
    let received = upstream.last();
    for name in ["X-Mine", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE", "Upgrade"] {
        assert_eq!(received.header(name), None, "{name}");
    }
    assert_eq!(received.header("X-End"), Some("1"));
    for name in ["X-Own", "Keep-Alive", "Proxy-Authenticate"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(response.header("X-End"), Some("1"));
}

#[test]
fn connections_are_kept_and_one_that_the_upstream_closed_does_not_fail_a_request() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "workers: 1
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        upstream.url()
    ));
    let mut connection = gateway.connect();
    for _ in 0..10 {
        connection.send(&get("/x")).expect(200);
    }
    assert_eq!(upstream.connections(), 1);

    // an upstream that closes after each response without saying so
    let closing = Upstream::start(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    let gateway = open(&[closing.url()]);
    for _ in 0..20 {
        gateway.send(&get("/x")).expect(200);
    }
}

#[test]
fn only_what_may_be_repeated_is_sent_again_elsewhere() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counts = taken.clone();
    // reads the request, then breaks: nobody can know whether it was carried out
    let broken = Upstream::start(move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        Reply::close()
    });
    let good = Upstream::hello();
    for (name, request, repeated) in [
        ("GET", get("/x"), true),
        ("HEAD", Request::new("HEAD", "/x"), true),
        ("DELETE without a body", delete("/x"), true),
        ("PUT with a body", put("/x").body("b"), false),
        ("POST without a body", post("/x"), false),
        ("POST with a body", post("/x").body("b"), false),
        ("PATCH", Request::new("PATCH", "/x"), false),
        ("a method of nobody", Request::new("BREW", "/x"), false),
    ] {
        let gateway = open_with(&[broken.url(), good.url()], "workers: 1\n");
        let mut statuses = Vec::new();
        let (taken_before, good_before) = (taken.load(Ordering::SeqCst), good.received().len());
        for _ in 0..4 {
            statuses.push(gateway.send(&request).status);
        }
        let (taken, passed) = (taken.load(Ordering::SeqCst) - taken_before, good.received().len() - good_before);
        if repeated {
            assert_eq!(statuses, [200; 4], "{name}");
        } else {
            assert_eq!(taken + passed, 4, "{name} was sent twice: {statuses:?}");
            assert!(statuses.iter().all(|status| [200, 502].contains(status)), "{name}: {statuses:?}");
        }
    }
}

#[test]
fn a_server_that_refuses_is_passed_over_whatever_the_method() {
    let good = Upstream::hello();
    let (_kept, refusing) = refusing();
    let gateway = open(&[format!("http://{refusing}"), good.url()]);
    for n in 0..6 {
        gateway.send(&post("/x").body(format!("{n}"))).expect(200);
    }
    assert_eq!(good.received().len(), 6);
}

#[test]
fn requests_are_spread_over_the_servers() {
    for balance in ["round_robin", "least_requests", "random_two_choices"] {
        let (one, two) = (Upstream::hello(), Upstream::hello());
        let gateway = Gateway::start(&format!(
            "
upstreams: {{ api: {{ servers: ['{}', '{}'], balance: {balance} }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
            one.url(),
            two.url()
        ));
        for _ in 0..40 {
            gateway.send(&get("/x")).expect(200);
        }
        assert!(one.received().len() >= 4 && two.received().len() >= 4, "{balance}: {}", one.received().len());
    }
}

#[test]
fn health_takes_a_server_out_and_brings_it_back() {
    let sick = Arc::new(Mutex::new(true));
    let state = sick.clone();
    let ill = Upstream::start(move |request| match (request.target.as_str(), *state.lock().unwrap()) {
        ("/health", true) => Reply::new(503, &[], ""),
        _ => Reply::text("ill"),
    });
    let well = Upstream::start(|_| Reply::text("well"));
    let gateway = Gateway::start(&format!(
        "
upstreams:
  api:
    servers: ['{}', '{}']
    balance: round_robin
    health: {{ path: /health, interval: 100ms, timeout: 2s, unhealthy_after: 2, healthy_after: 1 }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        ill.url(),
        well.url()
    ));
    let labels: Vec<(&str, String)> = vec![("upstream", "api".into()), ("server", ill.url())];
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let healthy = || gateway.metric("portcullis_upstream_healthy", &labels) > 0.5;
    eventually("the sick server is out", || if healthy() { Err("healthy") } else { Ok(()) });
    for _ in 0..6 {
        assert_eq!(gateway.send(&get("/x")).expect(200).text(), "well");
    }
    *sick.lock().unwrap() = false;
    eventually("the server is back", || match gateway.send(&get("/x")).text().as_str() {
        "ill" => Ok(()),
        _ => Err("well"),
    });
}

#[test]
fn a_response_that_breaks_off_is_not_made_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let upstream = Upstream::start(move |_| Reply::raw(answer));
        let gateway = open(&[upstream.url()]);
        let mut connection = gateway.connect();
        connection.write(&get("/x").to_bytes()).unwrap();
        let whole = connection.response("GET");
        assert!(whole.is_err(), "{answer:?} became {whole:?}");
    }
}

#[test]
fn cookies_and_long_lists_pass_untouched() {
    let upstream = Upstream::start(|_| Reply::new(200, &[("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")], ""));
    let gateway = open(&[upstream.url()]);
    let response = gateway.send(&get("/x").header("Cookie", "a=1; b=2").header("Accept", "x").header("Accept", "y"));
    assert_eq!(response.all("Set-Cookie"), ["a=1; Path=/", "b=2"]);
    let received = upstream.last();
    assert_eq!((received.all("Cookie"), received.all("Accept").join(", ")), (vec!["a=1; b=2"], "x, y".to_owned()));
}

#[test]
fn the_echo_answers_with_what_it_received() {
    let gateway = Gateway::start(&format!(
        "{}
upstreams: {{ demo: {{ builtin: echo }} }}
routes: [{{ path: /**, allow: [user], to: demo }}]
",
        crate::support::USERS
    ));
    let response = gateway.send(&post("/a?b=c").basic("user", "userpassword").body("hello")).expect(200);
    let text = response.json().to_string();
    for part in ["POST", "/a", "hello", "user"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("dXNlcjp1c2VycGFzc3dvcmQ"), "{text}");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::start(|request| Reply::text(&request.target));
    let gateway = open(&[upstream.url()]);
    let mut connection = Connection::plain(gateway.address());
    let all: Vec<u8> = (0..5).flat_map(|n| get(&format!("/{n}")).to_bytes()).collect();
    connection.write(&all).unwrap();
    for n in 0..5 {
        assert_eq!(connection.response("GET").unwrap().text(), format!("/{n}"));
    }
}

#[test]
fn a_caller_that_goes_away_ends_the_upstreams_work() {
    let gone = Gate::default();
    let noticed = gone.clone();
    let upstream = Upstream::start(move |_| {
        let noticed = noticed.clone();
        Reply::script(move |socket| {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
            socket.write_all(head).unwrap();
            // the end of the connection, or a failure to write to it
            let mut part = [0; 16];
            if matches!(socket.read(&mut part), Ok(0) | Err(_)) {
                noticed.open();
            }
        })
    });
    let gateway = open(&[upstream.url()]);
    let mut connection = gateway.connect();
    connection.write(&get("/x").to_bytes()).unwrap();
    let mut response = connection.head().unwrap();
    assert_eq!(connection.chunk(&mut response).unwrap(), b"x");
    drop(connection);
    gone.wait();
}

#[test]
fn an_answer_that_comes_before_the_body_was_read_is_delivered() {
    let upstream = Upstream::sessions(|mut socket| {
        let mut part = [0; 1024];
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0);
        socket.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge").unwrap();
        // as servers do, so that the answer is not lost to a reset
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = [0; 16_384];
        while socket.read(&mut rest).is_ok_and(|count| count > 0) {}
    });
    let gateway = open(&[upstream.url()]);
    let response = gateway.send(&post("/x").body(vec![b'x'; 5_000_000]));
    assert_eq!((response.status, response.text().as_str()), (413, "large"));
}

#[test]
fn interim_responses_of_the_upstream_do_not_pass_for_final_ones() {
    let upstream = Upstream::start(|_| {
        Reply::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\
             Content-Length: 4\r\n\r\nlast",
        )
    });
    let gateway = open(&[upstream.url()]);
    assert_eq!(gateway.send(&get("/x")).expect(200).text(), "last");
    // a switch that nobody asked for
    let upstream =
        Upstream::start(|_| Reply::raw("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw"));
    let gateway = open(&[upstream.url()]);
    gateway.send(&get("/x")).refused(502, "upstream_unavailable");
}

#[test]
fn a_head_of_the_upstream_that_is_too_large_is_no_response() {
    let upstream = Upstream::start(|_| Reply::new(200, &[("X-Pad", &"x".repeat(2_000_000))], "x"));
    let gateway = open(&[upstream.url()]);
    gateway.send(&get("/x")).refused(502, "upstream_unavailable");
}

#[test]
fn a_caller_of_http_1_0_is_answered_in_its_words() {
    let upstream =
        Upstream::start(|_| Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let gateway = open(&[upstream.url()]);
    let answer = String::from_utf8(gateway.raw(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "hello");
    assert!(upstream.last().head.contains("HTTP/1.1"));
}
