//! What is changed takes effect at once here, and within a second elsewhere on the same store (contract 6).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::keys::claims_of;
use crate::support::outside::run_python;
use crate::support::{
    Gateway, HS256, Request, SECRET, Setup, Signer, USERS, Upstream, eventually, get, post, routes, unix_now, wait,
};

/// The promise is a second; a probe on a busy machine may take some more.
const PROMISE: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_millis(1500);

/// A cache that would hide changes for long, and the users.
fn yaml(upstream: &Upstream) -> String {
    let cache = "  cache: { ttl: 1h, negative_ttl: 1h }\n";
    format!("{USERS}{HS256}{cache}{}", routes(upstream))
}

/// Asks until the status is `status`; fails where that takes longer than promised.
fn soon(gateway: &Gateway, request: &Request, status: u16) {
    let start = Instant::now();
    wait::within(PROMISE + PROBE, &format!("{status} for {request:?}"), || match gateway.send(request).status {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    });
    assert!(start.elapsed() < PROMISE + PROBE);
}

/// One request by each scheme, all good and cached.
fn all_schemes(gateway: &Gateway) -> [Request; 3] {
    let requests = [
        get("/user/x").basic("user", "userpassword"),
        get("/user/x").token(&gateway.opaque("user")),
        get("/user/x").bearer(&Signer::hs256(SECRET).good("user")),
    ];
    for request in &requests {
        gateway.send(request).expect(200);
        gateway.send(request).expect(200);
    }
    requests
}

#[test]
fn a_disabled_user_is_refused_by_all_schemes_and_enabled_again_may_log_in() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let requests = all_schemes(&gateway);
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    for request in &requests {
        soon(&gateway, request, 401);
    }
    gateway.cli(&["user", "enable", "user"], "").expect(0);
    soon(&gateway, &requests[0], 200);
    gateway.send(&requests[1]).refused(401, "invalid_token");
}

#[test]
fn a_removed_user_is_refused_by_all_schemes_also_where_the_name_is_taken_again() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let requests = all_schemes(&gateway);
    let ours = get("/user/x").bearer(&gateway.access("user"));
    gateway.send(&ours).expect(200);
    gateway.cli(&["user", "remove", "user"], "").expect(0);
    for request in requests.iter().chain([&ours]) {
        soon(&gateway, request, 401);
    }
    gateway.cli(&["user", "add", "user", "--role", "user", "--password-stdin"], "another-password\n").expect(0);
    soon(&gateway, &get("/user/x").basic("user", "another-password"), 200);
    gateway.send(&requests[0]).refused(401, "invalid_credentials");
    gateway.send(&requests[1]).refused(401, "invalid_token");
    gateway.send(&ours).refused(401, "invalid_token");
}

#[test]
fn changed_roles_count_for_all_schemes() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let requests = all_schemes(&gateway);
    gateway.cli(&["user", "roles", "user", "guest"], "").expect(0);
    for request in &requests {
        soon(&gateway, request, 403);
    }
    gateway.cli(&["user", "roles", "user", "guest", "admin"], "").expect(0);
    for request in &requests {
        soon(&gateway, &Request { target: "/admin/x".into(), ..request.clone() }, 200);
    }
}

#[test]
fn a_changed_password_ends_what_was_issued_before() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let requests = all_schemes(&gateway);
    let ours = get("/user/x").bearer(&gateway.access("user"));
    gateway.send(&ours).expect(200);
    gateway.cli(&["user", "password", "user", "--password-stdin"], "new-password-1\n").expect(0);
    soon(&gateway, &requests[0], 401);
    soon(&gateway, &requests[1], 401);
    soon(&gateway, &ours, 401);
    soon(&gateway, &get("/user/x").basic("user", "new-password-1"), 200);
}

#[test]
fn one_token_is_revoked_and_the_others_live() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let (dead, alive) = (gateway.opaque("user"), gateway.opaque("user"));
    let (dead_request, alive_request) = (get("/user/x").token(&dead), get("/user/x").token(&alive));
    gateway.send(&dead_request).expect(200);
    gateway.send(&alive_request).expect(200);
    gateway.cli(&["token", "revoke", "--stdin"], &format!("{dead}\n")).expect(0);
    soon(&gateway, &dead_request, 401);
    gateway.send(&alive_request).expect(200);

    let listed = gateway.cli(&["token", "list", "--user", "user", "--json"], "").expect(0).json();
    let id = listed[0]["id"].to_string();
    gateway.cli(&["token", "revoke", "--id", id.trim_matches('"')], "").expect(0);
    soon(&gateway, &alive_request, 401);
}

#[test]
fn a_client_is_disabled_and_its_secret_rotated() {
    let upstream = Upstream::hello();
    let endpoints = "endpoints: [{ path: /client, action: client_login }]\n";
    let gateway = Gateway::start(&format!("{endpoints}{}", yaml(&upstream)));
    let login = |secret: &str| crate::support::post("/client").basic("robot", secret);
    let access = gateway.send(&login("robot-secret-1")).expect(200).member("access_token");
    let request = get("/user/x").bearer(&access);
    gateway.send(&request).expect(200);
    let rotated = gateway.cli(&["client", "rotate", "robot"], "").expect(0);
    let secret = rotated.stdout.split_whitespace().last().unwrap().to_owned();
    soon(&gateway, &request, 401);
    soon(&gateway, &login("robot-secret-1"), 401);
    let access = gateway.send(&login(&secret)).expect(200).member("access_token");
    let request = get("/user/x").bearer(&access);
    gateway.send(&request).expect(200);
    gateway.cli(&["client", "disable", "robot"], "").expect(0);
    soon(&gateway, &request, 401);
    // a user of the same name would be another principal
    gateway.cli(&["user", "add", "robot", "--role", "user", "--password-stdin"], "robot-password\n").expect(0);
    soon(&gateway, &get("/user/x").basic("robot", "robot-password"), 200);
    gateway.send(&request).refused(401, "invalid_token");
}

#[test]
fn two_gateways_on_one_store_agree_within_a_second() {
    let upstream = Upstream::hello();
    let one = Gateway::start(&yaml(&upstream));
    let two = one.setup.start();
    let access = one.access("user");
    let opaque = one.opaque("user");
    for gateway in [&one, &two] {
        for request in [get("/user/x").bearer(&access), get("/user/x").token(&opaque)] {
            eventually("both take it", || match gateway.send(&request).status {
                200 => Ok(()),
                status => Err(status),
            });
        }
    }
    let logout = |request: Request| Request { method: "POST".into(), target: "/auth/logout".into(), ..request };
    one.send(&logout(get("").bearer(&access))).expect(200);
    // in the process that made the change: the very next request
    one.send(&get("/user/x").bearer(&access)).refused(401, "invalid_token");
    soon(&two, &get("/user/x").bearer(&access), 401);
    two.send(&logout(get("").token(&opaque))).expect(200);
    two.send(&get("/user/x").token(&opaque)).refused(401, "invalid_token");
    soon(&one, &get("/user/x").token(&opaque), 401);
}

#[test]
fn a_rotated_key_signs_and_the_old_one_still_verifies() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let old = gateway.access("user");
    let before = gateway.cli(&["key", "list", "--json"], "").expect(0).json().as_array().unwrap().len();
    gateway.cli(&["key", "rotate"], "").expect(0);
    assert_eq!(gateway.cli(&["key", "list", "--json"], "").expect(0).json().as_array().unwrap().len(), before + 1);
    eventually("the new key is published", || {
        let set = gateway.send(&get("/.well-known/jwks.json")).json();
        if set["keys"].as_array().unwrap().len() > before { Ok(()) } else { Err(set) }
    });
    gateway.send(&get("/user/x").bearer(&old)).expect(200);
    gateway.send(&get("/user/x").bearer(&gateway.access("user"))).expect(200);
}

#[test]
fn what_was_revoked_stays_so_after_a_kill() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream));
    let (access, opaque) = (gateway.access("user"), gateway.opaque("user"));
    for request in [get("").bearer(&access), get("").token(&opaque)] {
        let logout = Request { method: "POST".into(), target: "/auth/logout".into(), ..request };
        gateway.send(&logout).expect(200);
    }
    gateway.signal("KILL");
    gateway.wait();
    let again = gateway.setup.start();
    again.send(&get("/user/x").bearer(&access)).refused(401, "invalid_token");
    again.send(&get("/user/x").token(&opaque)).refused(401, "invalid_token");
    again.send(&get("/user/x").basic("user", "userpassword")).expect(200);
}

/// An application whose users are in a table of its own, and what it does there itself.
fn application(upstream: &Upstream) -> (Gateway, impl Fn(&str)) {
    let setup = Setup::new(&format!(
        "store: {{ url: 'sqlite:app.db', users: {{ table: user, id: id, name: username, password: password_hash, role: role }} }}
auth:
  cache: {{ ttl: 1s, negative_ttl: 1s }}
  jwt:
    keys: [{{ id: k1, algorithm: HS256, secret: {SECRET} }}]
    subject: user_id
    require_iss: false
tokens: {{ claims: {{ user_id: '{{user_id}}' }} }}
limits: {{ token_endpoints: off, unauthenticated: off }}
{}",
        routes(upstream)
    ));
    let file = setup.path("app.db").display().to_string();
    let execute = move |statements: &str| {
        let script = "
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=10) as database:
    database.executescript(sys.argv[2])
";
        run_python(script, &[&file, statements]);
    };
    execute("CREATE TABLE user (id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT, role TEXT)");
    (setup.start(), execute)
}

fn add(gateway: &Gateway, name: &str, role: &str) {
    let password = format!("{name}-password\n");
    gateway.cli(&["user", "add", name, "--role", role, "--password-stdin"], &password).expect(0);
}

fn access(gateway: &Gateway, name: &str, password: &str) -> String {
    gateway.login(name, password)["access_token"].as_str().unwrap().to_owned()
}

/// That these are refused, and stay so past the time for which anything is remembered.
fn dead(gateway: &Gateway, requests: &[Request]) {
    for request in requests {
        eventually("it is refused", || match gateway.send(request).status {
            401 => Ok(()),
            status => Err(status),
        });
    }
    let start = Instant::now();
    while start.elapsed() < PROBE {
        for request in requests {
            gateway.send(request).refused(401, "invalid_token");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn whoever_gets_the_id_of_a_user_of_before_does_not_get_their_tokens() {
    let upstream = Upstream::hello();
    let (gateway, execute) = application(&upstream);
    // a token as the gateway issues it, and one as the application itself did
    let tokens_of = |name: &str| {
        let ours = access(&gateway, name, &format!("{name}-password"));
        let claims = json!({ "user_id": claims_of(&ours)["user_id"], "iat": unix_now() - 1, "exp": unix_now() + 3600 });
        let theirs = Signer::hs256(SECRET).sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims);
        let requests = [get("/user/x").bearer(&ours), get("/user/x").bearer(&theirs)];
        for request in &requests {
            gateway.send(request).expect(200);
            assert_eq!(upstream.last().header("X-Auth-User"), Some(name));
        }
        (claims["user_id"].clone(), requests)
    };
    add(&gateway, "cat", "user");
    let (id, of_cat) = tokens_of("cat");
    gateway.cli(&["user", "remove", "cat"], "").expect(0);
    dead(&gateway, &of_cat);
    add(&gateway, "eve", "admin");
    dead(&gateway, &of_cat);
    let ours = access(&gateway, "eve", "eve-password");
    assert_eq!(claims_of(&ours)["user_id"], id, "or this tests nothing");
    gateway.send(&get("/admin/x").bearer(&ours)).expect(200);
    dead(&gateway, &of_cat);

    // and where it is the application that removes one and makes another
    add(&gateway, "dan", "user");
    let (id, of_dan) = tokens_of("dan");
    execute(&format!(
        "DELETE FROM user WHERE username = 'dan';
         INSERT INTO user (id, username, password_hash, role) VALUES ({}, 'fay', 'an$other', 'admin')",
        id.as_str().unwrap()
    ));
    dead(&gateway, &of_dan);
    gateway.send(&get("/admin/x").bearer(&ours)).expect(200);
}

#[test]
fn what_was_ended_stays_so_under_another_name() {
    let upstream = Upstream::hello();
    let (gateway, execute) = application(&upstream);
    add(&gateway, "tom", "user");
    let stolen = [get("/user/x").bearer(&access(&gateway, "tom", "tom-password"))];
    gateway.send(&stolen[0]).expect(200);
    gateway.cli(&["user", "password", "tom", "--password-stdin"], "new-password-1\n").expect(0);
    soon(&gateway, &stolen[0], 401);
    execute("UPDATE user SET username = 'tim' WHERE username = 'tom'");
    dead(&gateway, &stolen);
    let good = get("/user/x").bearer(&access(&gateway, "tim", "new-password-1"));
    gateway.send(&good).expect(200);
    dead(&gateway, &stolen);

    execute("UPDATE user SET username = 'jim' WHERE username = 'tim'");
    eventually("the new name is known, and the session lives on", || {
        gateway.send(&good).expect(200);
        match upstream.last().header("X-Auth-User") {
            Some("jim") => Ok(()),
            other => Err(other.map(str::to_owned)),
        }
    });
    gateway.cli(&["user", "disable", "jim"], "").expect(0);
    soon(&gateway, &good, 401);
    execute("UPDATE user SET username = 'rob' WHERE username = 'jim'");
    dead(&gateway, &[good]);
    gateway.send(&post("/auth/login").json(&json!({ "username": "rob", "password": "new-password-1" }))).expect(401);
}
