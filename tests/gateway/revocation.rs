//! What is changed takes effect at once here, and within a second elsewhere on the same store (contract 6).

use std::time::{Duration, Instant};

use crate::support::{Gateway, HS256, Request, SECRET, Signer, USERS, Upstream, eventually, get, routes, wait};

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
