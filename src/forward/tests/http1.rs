//! What an HTTP/1.1 server is sent, which connections are used again, when a request is said again, and what is too late.

use super::*;

#[test]
fn the_upstream_sees_the_rewritten_head_and_nothing_else() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.route.strip_prefix = Some("/orders".into());
        Arc::make_mut(&mut bench.route.request_fields).remove.push(http::HeaderName::from_static("x-drop"));
        Arc::make_mut(&mut bench.route.request_fields)
            .set
            .push((http::HeaderName::from_static("x-tenant"), HeaderValue::from_static("blue")));
        let request = Request::builder()
            .uri("/orders/7?q=%2F")
            .header("Authorization", "Bearer canary")
            .header("Connection", "x-hop, x-auth-user")
            .header("X-Hop", "1")
            .header("X-Auth-User", "root")
            .header("X-Forwarded-For", "10.0.0.1")
            .header("X-Drop", "1")
            .header("X-Keep", "1")
            .header("Cookie", "a=1")
            .header("Cookie", "b=2")
            .header("Expect", "100-continue")
            .body(Body::empty())
            .unwrap();
        assert_eq!(bench.told(request).await, "200 ok");
        let seen = upstream.received(0);
        let mut lines: Vec<&str> = seen.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "GET /7?q=%2F HTTP/1.1");
        lines.retain(|line| !line.starts_with("traceparent: "));
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "cookie: a=1; b=2",
                "host: api.example.com",
                "x-auth-roles: user,admin",
                "x-auth-scheme: bearer",
                "x-auth-user: ann",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: api.example.com",
                "x-forwarded-proto: https",
                "x-keep: 1",
                "x-request-id: id-1",
                "x-tenant: blue",
            ]
        );
    });
}

#[test]
fn where_anyone_may_pass_no_credential_and_no_identity_does() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.route.allow = Allow::Anyone;
        let request = Request::builder()
            .uri("/")
            .header("Authorization", "Bearer canary")
            .header("X-Auth-Roles", "admin")
            .body(Body::empty())
            .unwrap();
        assert_eq!(bench.told(request).await, "200 ok");
        let seen = upstream.received(0);
        assert!(!seen.contains("canary") && !seen.contains("x-auth"), "{seen}");
    });
}

#[test]
fn credentials_pass_where_the_route_says_so() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.route.forward_credentials = true;
        let request = Request::builder().uri("/").header("Authorization", "Bearer b").body(Body::empty()).unwrap();
        assert_eq!(bench.told(request).await, "200 ok");
        assert!(upstream.received(0).contains("authorization: Bearer b\r\n"));
    });
}

#[test]
fn framing_is_made_from_the_body() {
    local(async {
        for (name, method, body, lied, framing, sent) in [
            ("no body", "GET", Body::empty(), "5", "", ""),
            ("none where one is usual", "POST", Body::empty(), "5", "content-length: 0", ""),
            ("a known length", "POST", Body::full("abc"), "5", "content-length: 3", "abc"),
            ("an unknown length", "POST", unknown("abc"), "3", "transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
            (
                "an unknown length of a GET",
                "GET",
                unknown("abc"),
                "3",
                "transfer-encoding: chunked",
                "3\r\nabc\r\n0\r\n\r\n",
            ),
        ] {
            let end = if sent.is_empty() { "\r\n\r\n" } else { sent };
            let upstream = Upstream::start(vec![vec![Until(end), say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            let request = Request::builder().method(method).uri("/").header("Content-Length", lied).body(body).unwrap();
            assert_eq!(bench.told(request).await, "200 ok", "{name}");
            let seen = upstream.received(0);
            let (head, body) = seen.split_once("\r\n\r\n").unwrap();
            let fields =
                head.lines().filter(|line| line.starts_with("content-length") || line.starts_with("transfer-encoding"));
            assert_eq!(fields.collect::<Vec<_>>().join(","), framing, "{name}");
            assert_eq!(body, sent, "{name}");
        }
    });
}

fn unknown(text: &'static str) -> Body {
    let (sender, body) = fed();
    sender.send(http_body::Frame::data(text.into())).unwrap();
    body
}

#[test]
fn a_connection_is_used_again_once_both_sides_have_ended() {
    local(async {
        for (name, first) in [
            ("a body of known length", OK),
            ("a chunked body", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            ("no body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("no body by its status", "HTTP/1.1 204 No Content\r\n\r\n"),
            (
                "interim responses before",
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(first), Head, say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            assert!(bench.told(get("/1")).await.starts_with("20"), "{name}");
            assert_eq!(bench.told(get("/2")).await, "200 ok", "{name}");
            assert_eq!(upstream.connections(), 1, "{name}");
        }
    });
}

#[test]
fn a_connection_is_not_used_again_where_anything_is_left_or_broken() {
    local(async {
        for (name, first, told) in [
            ("the server closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
            ("garbage", "SSH-2.0-x\r\n\r\n", "upstream_unavailable"),
            (
                "bytes behind the response",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
                "200 ok",
            ),
            (
                "an upgrade that nobody asked for",
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                "upstream_unavailable",
            ),
            ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokk", "upstream_unavailable"),
            (
                "two lengths",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
                "upstream_unavailable",
            ),
            (
                "a chunk size that is none",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
                "200 then body broke off",
            ),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(first), Hold], vec![Head, say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            assert_eq!(bench.told(get("/1")).await, told, "{name}");
            assert_eq!(bench.told(get("/2")).await, "200 ok", "{name}");
            assert_eq!(upstream.connections(), 2, "{name}");
        }
    });
}

#[test]
fn a_body_that_breaks_off_is_passed_on_as_broken() {
    local(async {
        for (name, said) in [
            ("of known length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(said)]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            assert_eq!(bench.told(get("/")).await, "200 then body broke off", "{name}");
            assert_eq!(upstream.connections(), 1, "{name}: it was not asked for again");
        }
    });
}

#[test]
fn a_body_nobody_reads_to_its_end_takes_its_connection_along() {
    local(async {
        let first = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        let upstream = Upstream::start(vec![vec![Head, say(first), Hold], vec![Head, say(OK), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        drop(bench.send(get("/1")).await.unwrap());
        assert_eq!(bench.told(get("/2")).await, "200 ok");
        assert_eq!(upstream.connections(), 2);
    });
}

#[test]
fn a_response_before_the_request_has_ended_passes_and_its_connection_does_not_return() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold], vec![Head, say(OK), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let (sender, body) = fed();
        let request = Request::builder().method("POST").uri("/").body(body).unwrap();
        assert_eq!(bench.told(request).await, "200 ok");
        assert_eq!(bench.told(get("/2")).await, "200 ok");
        assert_eq!(upstream.connections(), 2);
        drop(sender);
    });
}

#[test]
fn at_most_as_many_idle_connections_are_kept_as_the_setting_says() {
    local(async {
        for (keep_alive, connections) in [(2, 2), (1, 3), (0, 4)] {
            let upstream = Upstream::start(vec![vec![Head, say(OK), Head, say(OK), Hold]]).await;
            let bench = Bench::with(vec![server(upstream.address)], |group| group.keep_alive = keep_alive);
            for _ in 0..2 {
                let (a, b) = tokio::join!(bench.told(get("/")), bench.told(get("/")));
                assert_eq!((a.as_str(), b.as_str()), ("200 ok", "200 ok"));
            }
            assert_eq!(upstream.connections(), connections, "keep_alive {keep_alive}");
        }
    });
}

#[test]
fn an_idle_connection_is_used_until_its_time_and_not_after() {
    local(async {
        for (idle, connections) in [(74, 1), (75, 2)] {
            let upstream = Upstream::start(vec![vec![Head, say(OK), Head, say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            // the fraction of a second that the test takes is not to decide
            assert_eq!(bench.told(get("/")).await, "200 ok");
            bench.clock.advance(Duration::from_secs(idle));
            assert_eq!(bench.told(get("/")).await, "200 ok");
            assert_eq!(upstream.connections(), connections, "{idle} s");
        }
    });
}

/// The first connection serves once and is lost at the second request, in some way.
#[test]
fn a_request_that_was_lost_is_said_again_only_if_nothing_can_happen_twice() {
    local(async {
        let lost = || vec![Head, say(OK), Head];
        let reset = || vec![Head, say(OK), Head, Reset];
        let partly = || vec![Head, say(OK), Head, say("HTTP/1.1 2")];
        let interim = || vec![Head, say(OK), Head, say("HTTP/1.1 103 Early Hints\r\n\r\n")];
        for (name, script, request, told, connections) in [
            ("a GET", lost(), get("/2"), "200 ok", 2),
            ("a GET by a reset", reset(), get("/2"), "200 ok", 2),
            ("a DELETE without a body", lost(), with_method("DELETE", ""), "200 ok", 2),
            ("a POST", lost(), post("/2", "pay"), "upstream_unavailable", 1),
            ("a POST by a reset", reset(), post("/2", "pay"), "upstream_unavailable", 1),
            ("a POST without a body", lost(), with_method("POST", ""), "upstream_unavailable", 1),
            ("a PUT with a body", lost(), with_method("PUT", "x"), "upstream_unavailable", 1),
            ("a GET of whose response a byte came", partly(), get("/2"), "upstream_unavailable", 1),
            ("a GET with an interim response", interim(), get("/2"), "upstream_unavailable", 1),
        ] {
            let upstream = Upstream::start(vec![script, vec![Head, say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            assert_eq!(bench.told(get("/1")).await, "200 ok");
            assert_eq!(bench.told(request).await, told, "{name}");
            assert_eq!(upstream.connections(), connections, "{name}");
        }
    });
}

fn with_method(method: &str, body: &'static str) -> Request<Body> {
    Request::builder().method(method).uri("/2").body(Body::full(body)).unwrap()
}

#[test]
fn a_lost_request_is_said_again_once_and_on_another_server() {
    local(async {
        let lost = || vec![vec![Head]];
        let (one, two, three) =
            (Upstream::start(lost()).await, Upstream::start(lost()).await, Upstream::start(lost()).await);
        let bench = Bench::new([&one, &two, &three].map(|upstream| server(upstream.address)).into());
        assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
        let mut connections = [one.connections(), two.connections(), three.connections()];
        connections.sort_unstable();
        assert_eq!(connections, [0, 1, 1]);
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_no_request() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK)], vec![Until("pay"), say(OK), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        assert_eq!(bench.told(get("/1")).await, "200 ok");
        assert_eq!(bench.told(post("/2", "pay")).await, "200 ok");
        assert_eq!(upstream.connections(), 2);
    });
}

#[test]
fn what_was_not_sent_goes_to_the_next_server_whatever_it_is() {
    local(async {
        for round in 0..4 {
            let upstream = Upstream::start(vec![vec![Until("pay"), say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(closed_address().await), server(upstream.address)]);
            assert_eq!(bench.told(post("/", "pay")).await, "200 ok", "{round}");
        }
    });
}

#[test]
fn an_upstream_that_cannot_be_reached_is_unavailable() {
    local(async {
        let bench = Bench::new(vec![server(closed_address().await), server(closed_address().await)]);
        let (result, sent) = bench.try_send(get("/")).await;
        assert_eq!(result.unwrap_err().code(), "upstream_unavailable");
        let sent = sent.unwrap();
        assert_eq!((&**sent.upstream, sent.took), ("orders", None));
    });
}

#[test]
fn a_response_is_too_late_after_the_routes_time_and_not_before() {
    local(async {
        for (name, timeout, waited, told) in [
            ("the route's", Some(5), 6, "upstream_timeout"),
            ("the general one", None, 61, "upstream_timeout"),
            ("not yet", None, 55, "200 ok"),
        ] {
            let upstream = Upstream::start(vec![vec![Head, Until("go"), say(OK), Hold]]).await;
            let mut bench = Bench::new(vec![server(upstream.address)]);
            bench.route.timeout = timeout.map(Duration::from_secs);
            let clock = bench.clock.clone();
            let (sender, body) = fed();
            let request = Request::builder().method("POST").uri("/").body(body).unwrap();
            let (result, ()) = tokio::join!(bench.told(request), async {
                eventually("the head", || upstream.connections() == 1 && !upstream.received(0).is_empty()).await;
                // time that the caller takes for its body is not the upstream's
                clock.advance(Duration::from_secs(70));
                sender.send(http_body::Frame::data("xx".into())).unwrap();
                eventually("the body", || upstream.received(0).contains("xx")).await;
                sender.send(http_body::Frame::data(if told == "200 ok" { "go" } else { "no" }.into())).unwrap();
                drop(sender);
                eventually("the end", || upstream.received(0).ends_with("0\r\n\r\n")).await;
                clock.advance(Duration::from_secs(waited));
            });
            assert_eq!(result, told, "{name}");
        }
    });
}

#[test]
fn a_get_is_too_late_as_well() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let (told, ()) = tokio::join!(bench.told(get("/")), async {
            eventually("the head", || upstream.connections() == 1).await;
            bench.clock.advance(Duration::from_secs(61));
        });
        assert_eq!(told, "upstream_timeout");
        assert_eq!(upstream.connections(), 1, "what is too late is not said again");
    });
}

#[test]
fn a_server_that_does_not_read_is_too_late() {
    local(async {
        let upstream = Upstream::start(vec![vec![Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let request = Request::builder().method("POST").uri("/").body(Body::full(vec![b'x'; 32 << 20])).unwrap();
        let (told, ()) = tokio::join!(bench.told(request), async {
            eventually("a connection", || upstream.connections() == 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            bench.clock.advance(Duration::from_secs(76));
        });
        assert_eq!(told, "upstream_timeout");
    });
}

#[test]
fn a_request_whose_own_body_is_at_fault_is_not_the_upstreams_fault() {
    local(async {
        let upstream = Upstream::start(vec![vec![Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let request = Request::builder().method("POST").uri("/").body(unknown("abc").capped(2)).unwrap();
        assert_eq!(bench.told(request).await, "body_too_large");
    });
}

#[test]
fn the_response_is_the_callers_own() {
    local(async {
        let said = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                    Server: s\r\nX-Old: 1\r\n\r\nok";
        let upstream = Upstream::start(vec![vec![Head, say(said), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        Arc::make_mut(&mut bench.route.response_fields).remove.push(http::HeaderName::from_static("x-old"));
        Arc::make_mut(&mut bench.route.response_fields)
            .set
            .push((http::HeaderName::from_static("cache-control"), HeaderValue::from_static("no-store")));
        let (response, sent) = bench.try_send(get("/")).await;
        let response = response.unwrap();
        let mut fields: Vec<String> =
            response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["cache-control: no-store", "content-length: 2", "server: s"]);
        assert!(sent.unwrap().took.is_some());
        let label = format!("http://{}", upstream.address);
        assert!(bench.metric(&format!(
            "portcullis_upstream_requests_total{{outcome=\"ok\",server=\"{label}\",upstream=\"orders\"}} 1"
        )));
    });
}

#[test]
fn a_body_streams_as_it_comes_and_no_faster_than_it_is_read() {
    local(async {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let flood = "data: 0123456789\n\n".repeat(2_000_000);
        let upstream = Upstream::start(vec![vec![Head, say(head), say("data: 1\n\n"), say(&flood), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let mut response = bench.send(get("/")).await.unwrap();
        assert!(bench.metric("portcullis_open_streams{kind=\"sse\"} 1"));
        let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"data: 1\n\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(upstream.steps.get(), 3, "36 MB were taken though nobody reads");
        drop(response);
        assert!(bench.metric("portcullis_open_streams{kind=\"sse\"} 0"));
    });
}

#[test]
fn the_echo_shows_what_an_upstream_would_get() {
    local(async {
        let bench = Bench::of(UpstreamKind::Echo);
        let request = Request::builder()
            .method("POST")
            .uri("/a?b=c")
            .header("Authorization", "Bearer canary")
            .body(Body::full("abc"))
            .unwrap();
        let response = bench.send(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["path"], "/a");
        assert_eq!(value["headers"]["x-auth-user"], "ann");
        assert_eq!(value["headers"]["host"], "api.example.com");
        assert_eq!(value["headers"]["content-length"], "3");
        assert_eq!(value["identity"]["name"], "ann");
        assert_eq!(value["body"], "abc");
        assert!(!String::from_utf8_lossy(&body).contains("canary"));
    });
}

#[test]
fn what_a_trusted_proxy_said_is_passed_on_with_the_proxy_added() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.origin.trusted = true;
        let request = Request::builder()
            .uri("/")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Host", "shop.example")
            .header("X-Auth-User", "root")
            .body(Body::empty())
            .unwrap();
        assert_eq!(bench.told(request).await, "200 ok");
        let seen = upstream.received(0);
        for line in ["x-forwarded-for: 203.0.113.9, 192.0.2.7", "x-forwarded-host: shop.example", "x-auth-user: ann"] {
            assert!(seen.contains(&format!("{line}\r\n")), "{line}: {seen}");
        }
    });
}
