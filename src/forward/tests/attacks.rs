//! What a hostile caller or a broken server might try with the forwarding itself.

use http::header::CONTENT_LENGTH;

use super::*;

#[test]
fn a_caller_cannot_upgrade_past_the_routes() {
    local(async {
        for (name, upgrade, settings) in [
            ("h2c", "h2c", Some("AAMAAABkAAQCAAAAAAIAAAAA")),
            ("h2c among others", "websocket, h2c", None),
            ("TLS", "TLS/1.3", None),
            ("a protocol of the server's own", "tcp", None),
            ("websocket without a key", "websocket", None),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            let mut request =
                Request::builder().uri("/").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", upgrade);
            if let Some(settings) = settings {
                request = request.header("HTTP2-Settings", settings);
            }
            assert_eq!(bench.told(request.body(Body::empty()).unwrap()).await, "200 ok", "{name}");
            let seen = upstream.received(0).to_lowercase();
            assert!(
                !seen.contains("upgrade") && !seen.contains("http2-settings") && !seen.contains("connection"),
                "{name}: {seen}"
            );
        }
    });
}

#[test]
fn connect_reaches_nobody() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        let request = Request::builder().method("CONNECT").uri("http://api.example.com/a").body(Body::empty()).unwrap();
        assert_eq!(bench.told(request).await, "bad_request");
        assert_eq!(upstream.connections(), 0);
    });
}

#[test]
fn a_response_is_never_longer_or_shorter_than_its_head_says() {
    local(async {
        for (name, method, said, length) in [
            ("the length of the body", "GET", OK, Some("2")),
            ("what a HEAD asks about", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Some("9")),
            ("what was not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Some("9")),
            ("no content", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", None),
        ] {
            let upstream = Upstream::start(vec![vec![Head, say(said), Hold]]).await;
            let bench = Bench::new(vec![server(upstream.address)]);
            let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
            let response = match bench.send(request).await {
                Ok(response) => response,
                Err(rejection) => panic!("{name}: {rejection:?}"),
            };
            let got = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(got.as_deref(), length, "{name}");
            assert!(!response.headers().contains_key("transfer-encoding"), "{name}");
        }
    });
}

#[test]
fn a_response_with_two_ends_is_none() {
    local(async {
        let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let upstream = Upstream::start(vec![vec![Head, say(said), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
        assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
        assert_eq!(upstream.connections(), 2);
    });
}

#[test]
fn a_head_without_an_end_is_given_up() {
    local(async {
        let flood = format!("HTTP/1.1 200 OK\r\n{}", format!("X-Fill: {}\r\n", "x".repeat(1000)).repeat(600));
        let upstream = Upstream::start(vec![vec![Head, say(&flood), Hold]]).await;
        let bench = Bench::new(vec![server(upstream.address)]);
        assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
    });
}

#[test]
fn a_routes_edit_cannot_tell_an_identity_where_there_is_none() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Hold]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.route.allow = Allow::Anyone;
        Arc::make_mut(&mut bench.route.request_fields)
            .set
            .push((http::HeaderName::from_static("x-auth-user"), HeaderValue::from_static("root")));
        assert_eq!(bench.told(get("/")).await, "200 ok");
        assert!(!upstream.received(0).contains("root"));
    });
}

/// A thousand requests over few connections, some of which break: each gets its own answer or an error.
#[test]
fn nobody_ever_gets_anothers_response() {
    local(async {
        let upstream = Upstream::start(vec![vec![Hold]]).await;
        drop(upstream);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(misbehave(stream));
            }
        });
        let bench = Rc::new(Bench::with(vec![server(address)], |group| group.keep_alive = 4));
        let mut served = 0;
        for round in 0..100 {
            let asked = (0..10).map(|index| {
                let (bench, path) = (Rc::clone(&bench), format!("/{round}-{index}"));
                spawn_local(async move {
                    let told = bench.told(get(&path)).await;
                    (path, told)
                })
            });
            for asked in asked.collect::<Vec<_>>() {
                let (path, told) = asked.await.unwrap();
                if let Some(told) = told.strip_prefix("200 ") {
                    assert!(told == path || told.starts_with("then "), "{path} got {told}");
                    served += usize::from(told == path);
                }
            }
        }
        assert!(served > 500, "{served}");
    });
}

/// Answers with the path; now and then breaks off, says too much, or hangs up.
async fn misbehave(mut stream: TcpStream) {
    let mut buffer = vec![0; 4096];
    for nth in 0_u8.. {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => head.push_str(&String::from_utf8_lossy(&buffer[..count])),
                Ok(_) | Err(_) => return,
            }
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let length = path.len();
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
        let dice = path.bytes().map(u32::from).sum::<u32>().wrapping_add(u32::from(nth)) % 9;
        let said = match dice {
            0 => format!("{whole}{whole}"),
            1 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", length + 5),
            2 => return,
            _ => whole,
        };
        if stream.write_all(said.as_bytes()).await.is_err() || dice < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if dice == 1 {
                return;
            }
        }
    }
}
