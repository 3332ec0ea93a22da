//! Both sides of every limit (contract 2 `limits`, 4).

use serde_json::json;

use crate::support::{Gate, Gateway, Reply, Request, Response, USERS, Upstream, eventually, get, post, routes};

/// Limits that are off but for `rest`.
fn limits(token_endpoints: &str, rest: &str) -> String {
    format!("limits:\n  token_endpoints: {{ {token_endpoints} }}\n  {rest}\n")
}

fn rate_limited(response: Response) {
    let response = response.refused(429, "rate_limited");
    assert_eq!(response.member("message"), "Too many requests");
    let wait: u64 = response.header("Retry-After").unwrap().parse().unwrap();
    assert!(wait >= 1, "{response:?}");
    assert!(response.header("RateLimit").is_some() && response.header("RateLimit-Policy").is_some(), "{response:?}");
}

#[test]
fn token_endpoints_are_limited_by_address() {
    let upstream = Upstream::hello();
    let limits = limits(
        "per_address: { rate: 1/h, burst: 3 }, per_account: off, per_account_anywhere: off",
        "unauthenticated: off",
    );
    let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
    let login = post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" }));
    for _ in 0..3 {
        gateway.send(&login).expect(200);
    }
    rate_limited(gateway.send(&login));
    assert!(gateway.metric("portcullis_rate_limited_total", &[("limit", "per_address")]) >= 1.0);
    // the routes are another matter
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
}

#[test]
fn an_account_is_limited_by_its_failures_alone() {
    let upstream = Upstream::hello();
    for limit in ["per_account", "per_account_anywhere"] {
        let other = if limit == "per_account" { "per_account_anywhere" } else { "per_account" };
        let limits = limits(
            &format!("per_address: off, {limit}: {{ rate: 1/h, burst: 3 }}, {other}: off"),
            "unauthenticated: off",
        );
        let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
        let login = |user: &str, password: &str| {
            gateway.send(&post("/auth/login").json(&json!({ "username": user, "password": password })))
        };
        for _ in 0..5 {
            login("user", "userpassword").expect(200);
        }
        for _ in 0..3 {
            login("user", "nope").expect(401);
        }
        rate_limited(login("user", "nope"));
        rate_limited(login("user", "userpassword"));
        // an unknown account is limited alike, or it could be told apart
        for _ in 0..3 {
            login("nobody", "nope").expect(401);
        }
        rate_limited(login("nobody", "nope"));
        login("admin", "adminpassword").expect(200);
    }
}

/// As after a restart of whatever shares an account: what is right is no failure, however much of it comes at once.
#[test]
fn log_ins_at_once_are_all_let_in_where_they_are_right_and_counted_where_they_are_not() {
    let upstream = Upstream::hello();
    let limits = limits("per_address: off, per_account: { rate: 1/h, burst: 3 }", "unauthenticated: off");
    let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
    let at_once = |password: &str| {
        let login = post("/auth/login").json(&json!({ "username": "user", "password": password }));
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..7).map(|_| scope.spawn(|| gateway.send(&login).status)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(at_once("userpassword"), [200; 7]);
    let wrong: Vec<u16> = [[401; 3].as_slice(), &[429; 4]].concat();
    assert_eq!(at_once("nope"), wrong);
    assert_eq!(at_once("userpassword"), [429; 7]);
}

#[test]
fn an_account_is_limited_on_routes_as_at_the_log_in() {
    let upstream = Upstream::hello();
    for limit in ["per_account", "per_account_anywhere"] {
        let other = if limit == "per_account" { "per_account_anywhere" } else { "per_account" };
        let limits = limits(
            &format!("per_address: off, {limit}: {{ rate: 1/h, burst: 3 }}, {other}: off"),
            "unauthenticated: off",
        );
        let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
        let ask = |user: &str, password: &str| gateway.send(&get("/user/x").basic(user, password));
        ask("user", "userpassword").expect(200);
        for user in ["user", "nobody"] {
            for guess in ["one", "two", "three"] {
                ask(user, guess).refused(401, "invalid_credentials");
            }
            rate_limited(ask(user, "four"));
            rate_limited(gateway.send(&post("/auth/login").json(&json!({ "username": user, "password": "five" }))));
        }
        for _ in 0..5 {
            ask("user", "userpassword").expect(200);
        }
        ask("admin", "adminpassword").expect(200);
    }
}

/// A botnet that guesses uses up what an account has of guesses everywhere, and so keeps its user from logging in anew; who is
/// in stays in, with whatever they hold, remembered by the gateway or not.
#[test]
fn a_flood_of_guesses_from_everywhere_shuts_nobody_out_who_holds_a_credential() {
    let upstream = Upstream::hello();
    let limits = limits("per_account_anywhere: { rate: 1/h, burst: 6 }", "unauthenticated: { rate: 20/s, burst: 100 }");
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.1]\n{USERS}{limits}{}", routes(&upstream)));
    let from = |number: usize, request: Request| request.header("X-Forwarded-For", &format!("2001:db8:{number:x}::1"));
    let [mine, elsewhere] = [10_000, 20_000].map(|number| move |request| from(number, request));
    let tokens = gateway.login("user", "userpassword");
    let [access, refresh] = ["access_token", "refresh_token"].map(|name| tokens[name].as_str().unwrap().to_owned());
    let (known, unknown) = (gateway.opaque("user"), gateway.opaque("user"));
    gateway.send(&mine(get("/user/x").token(&known))).expect(200);
    gateway.send(&mine(get("/user/x").basic("user", "userpassword"))).expect(200);
    for number in 0..300 {
        let guess = if number % 2 == 0 {
            post("/auth/login").json(&json!({ "username": "user", "password": format!("guess-{number}") }))
        } else {
            get("/user/x").basic("user", &format!("guess-{number}"))
        };
        gateway.send(&from(number, guess)).expect(if number < 6 { 401 } else { 429 });
    }
    for (what, request) in [
        ("a JWT", get("/user/x").bearer(&access)),
        ("a token that was used before", get("/user/x").token(&known)),
        ("one that was not", get("/user/x").token(&unknown)),
        ("a password that was used before", get("/user/x").basic("user", "userpassword")),
        ("a refresh", post("/auth/refresh").json(&json!({ "refresh_token": refresh }))),
    ] {
        for at in [&mine, &elsewhere] {
            let status = gateway.send(&at(request.clone())).status;
            assert_eq!(status, 200, "{what}");
        }
    }
    // a new log-in has to wait, and others have not
    let login =
        |user: &str| post("/auth/login").json(&json!({ "username": user, "password": format!("{user}password") }));
    rate_limited(gateway.send(&mine(login("user"))));
    gateway.send(&mine(login("guest"))).expect(200);
}

#[test]
fn an_ipv6_address_counts_by_its_64_bits_of_network() {
    let upstream = Upstream::hello();
    let limits = limits("per_address: { rate: 1/h, burst: 3 }", "unauthenticated: { rate: 1/h, burst: 3 }");
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.1]\n{USERS}{limits}{}", routes(&upstream)));
    for (what, request, status) in [
        ("log-ins", post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" })), 200),
        ("tokens", get("/user/x").token("made-up"), 401),
    ] {
        let ask = |address: &str| gateway.send(&request.clone().header("X-Forwarded-For", address)).status;
        for address in ["2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1:8000::"] {
            assert_eq!(ask(address), status, "{what}");
        }
        assert_eq!(ask("2001:db8:0:1::2"), 429, "{what}");
        for address in ["2001:db8:0:2::1", "2001:db8::1", "192.0.2.1", "192.0.2.2"] {
            assert_eq!(ask(address), status, "{what} of {address}");
        }
    }
}

#[test]
fn failed_credentials_on_routes_are_limited_by_address() {
    let upstream = Upstream::hello();
    let limits = limits(
        "per_address: off, per_account: off, per_account_anywhere: off",
        "unauthenticated: { rate: 1/h, burst: 4 }",
    );
    let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
    for value in ["Basic eDp5", "Token x", "Bearer x", "Basic dXNlcjpub3Bl"] {
        gateway.send(&get("/user/x").authorization(value)).expect(401);
    }
    rate_limited(gateway.send(&get("/user/x").authorization("Token y")));
    assert!(upstream.received().is_empty());
    // no credential is no failed credential
    gateway.send(&get("/open/x")).expect(200);
}

#[test]
fn a_route_has_a_budget_by_principal_or_address() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /by-principal, allow: authenticated, rate: {{ rate: 1/h, burst: 2, by: principal }}, to: api }}
  - {{ path: /by-address, allow: anyone, rate: {{ rate: 1/h, burst: 2, by: address }}, to: api }}
  - {{ path: /refilled, allow: anyone, rate: {{ rate: 2/s, burst: 1, by: address }}, to: api }}
",
        upstream.url()
    ));
    for user in ["user", "admin"] {
        let request = get("/by-principal").basic(user, &format!("{user}password"));
        gateway.send(&request).expect(200);
        gateway.send(&request).expect(200);
        rate_limited(gateway.send(&request));
    }
    gateway.send(&get("/by-address")).expect(200);
    gateway.send(&get("/by-address")).expect(200);
    rate_limited(gateway.send(&get("/by-address")));
    assert_eq!(upstream.received().len(), 6);

    gateway.send(&get("/refilled"));
    eventually("the budget refills", || match gateway.send(&get("/refilled")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_body_is_capped_where_it_is_told_and_where_it_only_comes() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "limits: {{ body_bytes: 10 }}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /small, allow: anyone, to: api }}
  - {{ path: /large, allow: anyone, body_bytes: 1KiB, to: api }}
",
        upstream.url()
    ));
    let chunked = |path: &str, size: usize| {
        let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        post(path).header("Transfer-Encoding", "chunked").body(body)
    };
    for (request, status) in [
        (post("/small").body("x".repeat(10)), 200),
        (post("/small").body("x".repeat(11)), 413),
        (post("/large").body("x".repeat(1024)), 200),
        (post("/large").body("x".repeat(1025)), 413),
        (chunked("/small", 10), 200),
        (chunked("/small", 11), 413),
    ] {
        let response = gateway.send(&request);
        assert_eq!(response.status, status, "{} {:?}: {}", request.target, request.headers, response.text());
        if status == 413 {
            response.refused(413, "body_too_large");
        }
    }
    for received in upstream.received() {
        assert!(received.body.len() == 10 || received.body.len() == 1024, "{}", received.body.len());
    }
}

#[test]
fn a_head_is_capped_in_bytes_and_in_fields() {
    let upstream = Upstream::hello();
    let limits = "limits: { header_bytes: 4KiB, headers: 20 }\n";
    let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
    let padded = |size: usize| get("/open/x").header("X-Pad", &"x".repeat(size));
    gateway.send(&padded(3500)).expect(200);
    assert_eq!(gateway.send(&padded(5000)).status, 431);
    let many = |count: usize| (0..count).fold(get("/open/x"), |request, n| request.header(&format!("X-{n}"), "1"));
    gateway.send(&many(19)).expect(200);
    assert_eq!(gateway.send(&many(20)).status, 431);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn a_caller_that_dawdles_is_cut_off() {
    let upstream = Upstream::hello();
    let timeouts = "timeouts: { request_header: 300ms, idle: 400ms }\n";
    let gateway = Gateway::start(&format!("{timeouts}{}{USERS}", routes(&upstream)));
    for begun in ["", "GET /open/x HTTP/1.1\r\nHost: a\r\nX-Slow"] {
        let mut connection = gateway.connect();
        connection.write(begun.as_bytes()).unwrap();
        let rest = String::from_utf8(connection.rest().unwrap()).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408 "), "{rest}");
    }
    let mut connection = gateway.connect();
    connection.send(&get("/open/x")).expect(200);
    assert!(connection.rest().unwrap().is_empty());
}

#[test]
fn connections_beyond_the_limit_wait_for_one_to_end() {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::start(move |received| {
        if received.target == "/open/held" {
            opened.wait();
        }
        Reply::text("hello")
    });
    let gateway = Gateway::start(&format!("workers: 1\nlimits: {{ connections: 3 }}\n{USERS}{}", routes(&upstream)));
    let mut held: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    for connection in &mut held {
        connection.write(&get("/open/held").to_bytes()).unwrap();
    }
    eventually("all are under way", || match upstream.received().len() {
        3 => Ok(()),
        count => Err(count),
    });
    let mut further = gateway.connect();
    further.write(&get("/open/further").to_bytes()).unwrap();
    // longer than those without a request may keep their place
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    assert_eq!(upstream.received().len(), 3, "nobody who waits for an answer makes way");
    gate.open();
    for mut connection in held {
        assert_eq!(connection.response("GET").unwrap().status, 200);
    }
    assert_eq!(further.response("GET").unwrap().status, 200);
}

#[test]
fn who_asks_nothing_makes_way_at_the_limit() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("workers: 1\nlimits: {{ connections: 3 }}\n{USERS}{}", routes(&upstream)));
    let mut idle = gateway.connect();
    idle.send(&get("/open/x")).expect(200);
    let mut half = gateway.connect();
    half.write(b"GET /open/x HTTP/1.1\r\nHost: a\r\n").unwrap();
    let silent = gateway.connect();
    // long before any of them is overdue
    let mut held = vec![idle, half, silent];
    for _ in 0..3 {
        let mut further = gateway.connect();
        further.send(&get("/open/further")).expect(200);
        held.push(further);
    }
}

#[test]
fn a_handshake_that_is_not_finished_makes_way_at_the_limit() {
    use rustls::version::{TLS12, TLS13};

    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::start(move |_| {
        opened.wait();
        Reply::text("hello")
    });
    let tls = "listeners: [{ address: '127.0.0.1:0', tls: { self_signed: [localhost] } }]\n";
    // nothing of this test is overdue before it has failed
    let limits =
        "workers: 1\nlimits: { connections: 3 }\ntimeouts: { handshake: 10m, request_header: 10m, idle: 10m }\n";
    let gateway = Gateway::start(&format!("{tls}{limits}{USERS}{}", routes(&upstream)));
    let client = crate::support::keys::Trusting::new();
    let connect = || {
        let config = client.config(&[&TLS12, &TLS13], &[]);
        crate::support::Connection::tls(gateway.address(), "localhost", config).unwrap()
    };
    // one that says nothing, one that says the beginning of its first message, and one that says nothing once it is safe
    let silent = gateway.connect();
    let mut half = gateway.connect();
    half.write(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).unwrap();
    let held = [silent, half, connect()];
    let mut served: Vec<_> = (0..3)
        .map(|_| {
            let mut further = connect();
            further.write(&get("/open/further").to_bytes()).unwrap();
            further
        })
        .collect();
    eventually("all who ask are served", || match upstream.received().len() {
        3 => Ok(()),
        count => Err(count),
    });
    gate.open();
    for connection in &mut served {
        assert_eq!(connection.response("GET").unwrap().status, 200);
    }
    drop(held);
}

#[test]
fn an_address_cannot_be_made_up_to_get_a_fresh_budget() {
    let upstream = Upstream::hello();
    let limits = limits(
        "per_address: { rate: 1/h, burst: 2 }, per_account: off, per_account_anywhere: off",
        "unauthenticated: { rate: 1/h, burst: 2 }",
    );
    let gateway = Gateway::start(&format!("{USERS}{limits}{}", routes(&upstream)));
    let statuses = |request: &dyn Fn() -> crate::support::Request| -> Vec<u16> {
        let spoofed = |n: usize| {
            let address = format!("203.0.113.{n}");
            let request = request().header("X-Forwarded-For", &address).header("Forwarded", &format!("for={address}"));
            gateway.send(&request.header("X-Real-IP", &address)).status
        };
        (0..4).map(spoofed).collect()
    };
    assert_eq!(statuses(&|| get("/user/x").token("wrong")), [401, 401, 429, 429]);
    let login = json!({ "username": "user", "password": "nope" });
    assert_eq!(statuses(&|| post("/auth/login").json(&login)), [401, 401, 429, 429]);
}
