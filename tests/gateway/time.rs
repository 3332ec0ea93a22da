//! Both sides of every lifetime, on a clock that the test moves.

use serde_json::json;

use crate::support::clocked::Clocked;
use crate::support::{HS256, Request, Response, USERS, Upstream, get, post, routes};

fn gateway(rest: &str) -> (Clocked, Upstream) {
    let upstream = Upstream::hello();
    (Clocked::start(&format!("{USERS}{HS256}{rest}{}", routes(&upstream))), upstream)
}

fn login(gateway: &Clocked, path: &str) -> serde_json::Value {
    let body = json!({ "username": "user", "password": "userpassword" });
    gateway.send(&post(path).json(&body)).expect(200).json()
}

fn refresh(gateway: &Clocked, token: &serde_json::Value) -> Response {
    gateway.send(&post("/auth/refresh").json(&json!({ "refresh_token": token })))
}

#[test]
fn an_access_token_lives_as_long_as_it_says_and_the_leeway() {
    let (gateway, _upstream) = gateway("");
    let token = login(&gateway, "/auth/login")["access_token"].as_str().unwrap().to_owned();
    let request: Request = get("/user/x").bearer(&token);
    gateway.send(&request).expect(200);
    // remembered or not: 15 minutes and 30 seconds, less what the test took
    gateway.advance(15 * 60 + 25);
    gateway.send(&request).expect(200);
    gateway.advance(10);
    gateway.send(&request).refused(401, "invalid_token");
}

#[test]
fn an_opaque_token_lives_as_long_as_it_says() {
    let (gateway, _upstream) = gateway("");
    let token = login(&gateway, "/auth/token")["token"].as_str().unwrap().to_owned();
    gateway.advance(24 * 3600 - 10);
    gateway.send(&get("/user/x").token(&token)).expect(200);
    gateway.advance(20);
    gateway.send(&get("/user/x").token(&token)).refused(401, "invalid_token");
}

#[test]
fn a_refresh_token_lives_as_long_as_it_says() {
    let (gateway, _upstream) = gateway("");
    let (one, two) = (login(&gateway, "/auth/login"), login(&gateway, "/auth/login"));
    gateway.advance(7 * 24 * 3600 - 10);
    refresh(&gateway, &one["refresh_token"]).expect(200);
    gateway.advance(20);
    refresh(&gateway, &two["refresh_token"]).refused(401, "invalid_token");
}

#[test]
fn a_retry_is_answered_for_ten_seconds_and_is_a_theft_later() {
    let (gateway, _upstream) = gateway("");
    let first = login(&gateway, "/auth/login");
    let second = refresh(&gateway, &first["refresh_token"]).expect(200).json();
    gateway.advance(7);
    let again = refresh(&gateway, &first["refresh_token"]).expect(200).json();
    assert_eq!(again["refresh_token"], second["refresh_token"]);
    gateway.advance(5);
    refresh(&gateway, &first["refresh_token"]).refused(401, "invalid_token");
    // the thief and the owner are both out
    refresh(&gateway, &second["refresh_token"]).refused(401, "invalid_token");
    let access = second["access_token"].as_str().unwrap();
    gateway.send(&get("/user/x").bearer(access)).refused(401, "invalid_token");
    login(&gateway, "/auth/login");
}

#[test]
fn budgets_refill_with_time() {
    let upstream = Upstream::hello();
    let gateway = Clocked::start(&format!(
        "
limits:
  token_endpoints: {{ per_address: {{ rate: 6/m, burst: 2 }}, per_account: off, per_account_anywhere: off }}
  unauthenticated: {{ rate: 1/m, burst: 1 }}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /slow, allow: anyone, rate: {{ rate: 1/h, burst: 2, by: address }}, to: api }}
  - {{ path: /user/**, allow: [user], to: api }}
",
        upstream.url()
    ));
    let slow = || gateway.send(&get("/slow")).status;
    assert_eq!([slow(), slow(), slow()], [200, 200, 429]);
    gateway.advance(3590);
    assert_eq!(slow(), 429);
    gateway.advance(15);
    assert_eq!([slow(), slow()], [200, 429]);

    let wrong = || gateway.send(&get("/user/x").authorization("Token x")).status;
    assert_eq!([wrong(), wrong()], [401, 429]);
    gateway.advance(61);
    assert_eq!([wrong(), wrong()], [401, 429]);

    let login = || gateway.send(&post("/auth/login").json(&json!({ "username": "x", "password": "y" }))).status;
    assert_eq!([login(), login(), login()], [401, 401, 429]);
    gateway.advance(11);
    assert_eq!([login(), login()], [401, 429]);
}

#[test]
fn a_wait_that_is_promised_is_enough() {
    let upstream = Upstream::hello();
    let gateway = Clocked::start(&format!(
        "
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /x, allow: anyone, rate: {{ rate: 7/m, burst: 1, by: address }}, to: api }}]
",
        upstream.url()
    ));
    gateway.send(&get("/x")).expect(200);
    let wait: u64 = gateway.send(&get("/x")).expect(429).header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=9).contains(&wait), "{wait}");
    gateway.advance(wait);
    gateway.send(&get("/x")).expect(200);
}

/// The wall clock is set forward and back again. What is counted by elapsed time does not notice; what ends at a date does,
/// and nothing is let in that would not be by the clock of that moment.
#[test]
fn a_wall_clock_that_is_set_opens_nothing_and_refills_nothing() {
    const HOUR: i64 = 3600;
    let upstream = Upstream::hello();
    let limited = "  - { path: /limited, allow: anyone, rate: { rate: 1/h, burst: 1, by: address }, to: api }\n";
    let gateway = Clocked::start(&format!("{USERS}{HS256}{}{limited}", routes(&upstream)));
    let opaque = login(&gateway, "/auth/token")["token"].as_str().unwrap().to_owned();
    let access = login(&gateway, "/auth/login")["access_token"].as_str().unwrap().to_owned();
    let refresh_token = login(&gateway, "/auth/login")["refresh_token"].clone();
    gateway.send(&get("/limited")).expect(200);
    let statuses = || {
        let status = |request: Request| gateway.send(&request).status;
        [
            status(get("/limited")),
            status(get("/user/x").token(&opaque)),
            status(get("/user/x").bearer(&access)),
            status(get("/user/x").basic("user", "userpassword")),
            status(get("/user/x").basic("user", "wrong")),
        ]
    };
    assert_eq!(statuses(), [429, 200, 200, 200, 401]);
    for (name, by, expected) in [
        ("two days on, both have ended", 48 * HOUR, [429, 401, 401, 200, 401]),
        ("back again, they have not", -48 * HOUR, [429, 200, 200, 200, 401]),
        ("an hour on, the shorter one has", HOUR, [429, 200, 401, 200, 401]),
        ("back", -HOUR, [429, 200, 200, 200, 401]),
    ] {
        gateway.step(by);
        // a refusal is remembered for two seconds, whatever the wall clock says
        gateway.advance(3);
        assert_eq!(statuses(), expected, "{name}");
    }
    // before it was issued: whether a JWT of the future is taken is a matter of taste, that a wrong password is not, is none
    gateway.step(-2 * HOUR);
    let [limited, by_opaque, _, by_password, wrong] = statuses();
    assert_eq!([limited, by_opaque, by_password, wrong], [429, 200, 200, 401]);
    gateway.step(2 * HOUR);
    // what was issued before is good for one use, as ever
    let next = refresh(&gateway, &refresh_token).expect(200).json();
    gateway.step(-HOUR);
    refresh(&gateway, &next["refresh_token"]).expect(200);
    gateway.step(8 * 24 * HOUR);
    refresh(&gateway, &login(&gateway, "/auth/login")["refresh_token"]).expect(200);
    refresh(&gateway, &next["refresh_token"]).refused(401, "invalid_token");
}
