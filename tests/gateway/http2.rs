//! HTTP/2 from callers, with prior knowledge: what it may say, and what nobody gets away with (RFC 9113).

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;

use crate::support::client::basic;
use crate::support::http2::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, frame, hello, next_frame,
};
use crate::support::{Gate, Gateway, Reply, USERS, Upstream, eventually, get, routes};

/// Runs `talk` with a connection to the gateway.
fn with_connection<T>(gateway: &Gateway, talk: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        let said = tokio::time::timeout(crate::support::DEADLINE, talk(client.ready().await.unwrap())).await;
        connection.abort();
        said.expect("an end before the deadline")
    })
}

fn request(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://localhost{path}"))
}

async fn body(mut body: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
    }
    all
}

#[test]
fn many_streams_at_once_are_answered_each_by_its_own() {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::start(move |request| {
        opened.wait();
        Reply::text(&request.target)
    });
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let answers = with_connection(&gateway, async |mut client| {
        let mut waiting = Vec::new();
        for n in 0..40 {
            client = client.ready().await.unwrap();
            let (response, _) = client.send_request(request(&format!("/open/{n}")).body(()).unwrap(), true).unwrap();
            waiting.push(response);
        }
        gate.open();
        let mut answers = Vec::new();
        for response in waiting {
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            answers.push(String::from_utf8(body(response.into_body()).await).unwrap());
        }
        answers
    });
    assert_eq!(answers, (0..40).map(|n| format!("/open/{n}")).collect::<Vec<_>>());
}

#[test]
fn each_stream_is_judged_by_itself() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let statuses = with_connection(&gateway, async |mut client| {
        let mut statuses = Vec::new();
        for authorization in [
            Some(basic("user", "userpassword")),
            None,
            Some(basic("user", "nope")),
            Some(basic("admin", "adminpassword")),
        ] {
            client = client.ready().await.unwrap();
            let mut request = request("/admin/x");
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            statuses.push(response.await.unwrap().status().as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [403, 401, 401, 200]);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let upstream = Upstream::start(|request| {
        let sum = request.trailers.iter().map(|(name, value)| format!("{name}={value}")).collect::<String>();
        let count = request.body.len();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{:x}\r\n{sum}:{count}\r\n0\r\nX-Sum: 9\r\n\r\n",
            sum.len() + 1 + count.to_string().len()
        ))
    });
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let (said, trailers) = with_connection(&gateway, async |mut client| {
        let request = request("/open/x").method("POST").header("te", "trailers").header("trailer", "x-ask");
        let (response, mut out) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let sending = async {
            let mut left = 300_000;
            while left > 0 {
                out.reserve_capacity(left);
                let granted = std::future::poll_fn(|context| out.poll_capacity(context)).await.unwrap().unwrap();
                let count = granted.min(left);
                out.send_data(vec![b'x'; count].into(), false).unwrap();
                left -= count;
            }
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-ask"),
                http::HeaderValue::from_static("7"),
            )]);
            out.send_trailers(trailers).unwrap();
        };
        let (response, ()) = tokio::join!(response, sending);
        let mut stream = response.unwrap().into_body();
        let mut all = Vec::new();
        while let Some(part) = stream.data().await {
            let part = part.unwrap();
            stream.flow_control().release_capacity(part.len()).unwrap();
            all.extend_from_slice(&part);
        }
        (String::from_utf8(all).unwrap(), stream.trailers().await.unwrap())
    });
    assert_eq!(said, "x-ask=7:300000");
    assert_eq!(trailers.unwrap().get("x-sum").unwrap(), "9");
}

#[test]
fn heads_that_are_too_large_or_contradict_themselves_are_refused() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("limits: {{ header_bytes: 4KiB }}\n{USERS}{}", routes(&upstream)));
    for (name, request) in [
        ("a large field", request("/open/x").header("x-pad", "x".repeat(20_000))),
        ("another host", request("/open/x").header("host", "other")),
        ("a dot segment", request("/open/%2e%2e/admin")),
        ("a wrong length", request("/open/x").header("content-length", "-1")),
    ] {
        let status = with_connection(&gateway, async |mut client| {
            let (response, _) = client.send_request(request.body(()).unwrap(), true).ok()?;
            Some(response.await.ok()?.status().as_u16())
        });
        assert!(status.is_none_or(|status| [400, 431].contains(&status)), "{name}: {status:?}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_head_that_is_too_large_is_refused_in_our_words() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("limits: {{ header_bytes: 4KiB, headers: 50 }}\n{}", routes(&upstream)));
    for (name, fields, value, status) in [
        ("large, and not too large", 1, "x".repeat(3500), 200),
        ("a large field", 1, "x".repeat(4100), 431),
        ("a very large one", 1, "x".repeat(40_000), 431),
        ("many fields", 60, "x".into(), 431),
    ] {
        let (head, body) = with_connection(&gateway, async |mut client| {
            let mut request = request("/open/x");
            for number in 0..fields {
                request = request.header(format!("x-{number}"), &value);
            }
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut all = Vec::new();
            while let Some(part) = body.data().await {
                all.extend_from_slice(&part.unwrap());
            }
            (head, all)
        });
        assert_eq!(head.status, status, "{name}");
        if status == 431 {
            let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (told["error"].as_str(), head.headers["content-type"].to_str().ok()),
                (Some("headers_too_large"), Some("application/json")),
                "{name}"
            );
            assert_eq!(told["request_id"].as_str(), head.headers["x-request-id"].to_str().ok(), "{name}");
        }
    }
    assert_eq!(upstream.received().len(), 1);
}

/// What h2 hides of a path. It ends at `#`, so that the rest is neither matched nor sent; what is no URI ends its stream.
#[test]
fn what_is_matched_of_a_path_is_what_is_sent() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (path, sent) in [
        ("/open/x", Some("/open/x")),
        ("/open/x#/admin", Some("/open/x")),
        ("/open/x?a#b", Some("/open/x?a")),
        ("/admin/x#/open/x", None),
        ("/admin#/../open/x", None),
        ("/open/<x>", None),
        ("/open/a b", None),
        ("/open/a\tb", None),
        ("#/open/x", None),
        ("/open/\"x", None),
        ("/open/x?é", Some("/open/x?é")),
        ("/open/x?\"a\"", None),
        ("/open/x?a\u{7f}b", None),
    ] {
        let before = upstream.received().len();
        let mut connection = gateway.connect();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &http2::request("GET", path, &[]));
        connection.write(&[hello(), head].concat()).unwrap();
        // until the stream is over, one way or the other
        loop {
            let (kind, flags, stream, _) = next_frame(&mut connection).unwrap();
            if stream == 1 && (kind == RST_STREAM || flags & END_STREAM != 0 && [HEADERS, DATA].contains(&kind)) {
                break;
            }
            assert_ne!(kind, GOAWAY, "{path}: the connection lives");
        }
        let received = upstream.received();
        assert_eq!(received.get(before).map(|request| request.target.as_str()), sent, "{path}");
    }
}

#[test]
fn a_response_that_breaks_at_once_is_seen_to_have_begun() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (broken, content) in [
        (format!("{head}3\r\nabc\r\nZZ"), "abc"),
        (format!("{head}3\r\nabc\r\n"), "abc"),
        (format!("{head}ZZ"), ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_owned(), "abc"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned(), ""),
    ] {
        let said = broken.clone();
        let upstream = Upstream::start(move |_| Reply::raw(said.as_bytes()));
        let gateway = Gateway::start(&routes(&upstream));
        with_connection(&gateway, async |mut client| {
            for _ in 0..20 {
                client = client.ready().await.unwrap();
                let (response, _) = client.send_request(request("/open/x").body(()).unwrap(), true).unwrap();
                let response = response.await.unwrap_or_else(|error| panic!("{broken:?}: {error}"));
                assert_eq!(response.status(), 200, "{broken:?}");
                let (mut body, mut came) = (response.into_body(), Vec::new());
                let end = loop {
                    match body.data().await {
                        Some(Ok(part)) => came.extend_from_slice(&part),
                        end => break end,
                    }
                };
                assert!(matches!(end, Some(Err(_))), "{broken:?}: it has no end");
                assert_eq!(came, content.as_bytes(), "{broken:?}");
            }
        });
    }
}

#[test]
fn streams_that_are_reset_at_once_do_not_wear_it_down() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    // CVE-2023-44487: the connection may be ended for it, the gateway goes on
    with_connection(&gateway, async |mut client| {
        for _ in 0..3000 {
            let Ok(ready) = client.ready().await else { return };
            client = ready;
            let Ok((response, mut out)) = client.send_request(request("/open/x").body(()).unwrap(), false) else {
                return;
            };
            out.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
    });
    gateway.send(&get("/open/after")).expect(200);
    eventually("nothing is left in flight", || {
        // the scrape itself is no request of the gateway
        let left = gateway.metric("portcullis_requests_in_flight", &[]);
        if left < 0.5 { Ok(()) } else { Err(left) }
    });
}

/// What was begun is finished: a right password is no failure, and what was done is told.
#[test]
fn who_goes_away_from_a_log_in_is_not_locked_out_by_it_and_the_log_in_is_told() {
    let upstream = Upstream::hello();
    let limits = "limits: { token_endpoints: { per_address: off, per_account: { rate: 1/h, burst: 2 } } }";
    let gateway = Gateway::start(&format!("log: {{ audit: json }}\n{limits}\n{USERS}{}", routes(&upstream)));
    let told = || gateway.stdout().matches("\"audit\":\"login\"").count();
    // on a busy machine some are gone before their password is looked at, which is no log-in and no failure either
    let mut gone = 0;
    while told() < 5 {
        gone += 1;
        assert!(gone <= 200, "{} of {gone} were told", told());
        with_connection(&gateway, async |mut client| {
            let request = request("/auth/login").method("POST").header("content-type", "application/json");
            let (_response, mut out) = client.send_request(request.body(()).unwrap(), false).unwrap();
            let credentials = r#"{"username":"user","password":"userpassword"}"#;
            out.send_data(Bytes::from_static(credentials.as_bytes()), true).unwrap();
            // a password takes longer to be looked at, at first
            tokio::time::sleep(Duration::from_millis(5 + gone / 4)).await;
            out.send_reset(h2::Reason::CANCEL);
            tokio::time::sleep(Duration::from_millis(5)).await;
        });
    }
    gateway.login("user", "userpassword");
}

#[test]
fn a_body_that_contradicts_its_length_does_not_become_another_request() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (length, content) in
        [("0", "GET /admin/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), ("100", "short"), ("3", "longer")]
    {
        with_connection(&gateway, async |mut client| {
            let request = request("/open/x").method("POST").header("content-length", length);
            let Ok((response, mut out)) = client.send_request(request.body(()).unwrap(), false) else { return };
            drop(out.send_data(Bytes::from_static(content.as_bytes()), true));
            drop(response.await);
        });
        for received in upstream.received() {
            assert_eq!(received.target, "/open/x", "{length}");
            assert!(received.header("Transfer-Encoding").is_none() || received.header("Content-Length").is_none());
        }
    }
}
