//! Several gateways on one database of a server: what one changes holds in the other within a second (contract 6), and they
//! start at once on an empty one. See `tests/databases.sh`.

use std::time::{Duration, Instant};

use crate::support::databases::database;
use crate::support::keys::header_of;
use crate::support::{Gateway, HS256, Request, SECRET, Setup, Signer, USERS, Upstream, eventually, get, routes, wait};

/// The promise is a second; a probe on a busy machine may take some more.
const PROMISE: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_millis(1500);

fn soon(gateway: &Gateway, request: &Request, status: u16) {
    let start = Instant::now();
    wait::within(PROMISE + PROBE, &format!("{status} for {request:?}"), || match gateway.send(request).status {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    });
    assert!(start.elapsed() < PROMISE + PROBE);
}

fn two_gateways_agree(variable: &str) {
    let Some(url) = database(variable, "gateways") else { return };
    let upstream = Upstream::hello();
    let cache = "  cache: { ttl: 1h, negative_ttl: 1h }\n";
    let setup = Setup::new(&format!("store: {url}\n{USERS}{HS256}{cache}{}", routes(&upstream)));
    let (one, other) = std::thread::scope(|scope| {
        let starting = [scope.spawn(|| setup.beside().start()), scope.spawn(|| setup.beside().start())];
        let [one, other] = starting.map(|start| start.join().unwrap());
        (one, other)
    });
    let requests = [
        get("/user/x").basic("user", "userpassword"),
        get("/user/x").token(&one.opaque("user")),
        get("/user/x").bearer(&Signer::hs256(SECRET).good("user")),
        get("/user/x").bearer(&other.access("user")),
    ];
    for request in &requests {
        for gateway in [&one, &other, &one, &other] {
            gateway.send(request).expect(200);
        }
    }
    // by a third process
    setup.cli(&["user", "disable", "user"], "").expect(0);
    for request in &requests {
        soon(&one, request, 401);
        soon(&other, request, 401);
    }
    setup.cli(&["user", "enable", "user"], "").expect(0);
    soon(&one, &requests[0], 200);
    soon(&other, &requests[0], 200);
    setup.cli(&["user", "roles", "user", "guest"], "").expect(0);
    soon(&one, &requests[0], 403);
    soon(&other, &requests[0], 403);
}

/// While a key is changed, whoever issues a token and whoever is shown it, it is good, and its key is published by both.
fn a_new_key_is_known_before_it_signs(variable: &str) {
    let Some(url) = database(variable, "keys") else { return };
    let upstream = Upstream::hello();
    let off = "limits: { token_endpoints: off, unauthenticated: off }\n";
    let setup = Setup::new(&format!("store: {url}\n{off}{USERS}{}", routes(&upstream)));
    let gateways = [setup.beside().start(), setup.beside().start()];
    let named = |token: &str| header_of(token)["kid"].as_str().unwrap().to_owned();
    let published = |gateway: &Gateway| {
        let set = gateway.send(&get("/.well-known/jwks.json")).expect(200).json();
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let old = gateways.each_ref().map(|gateway| gateway.access("user"));
    let new = setup.cli(&["key", "rotate"], "").expect(0).stdout.trim().to_owned();
    assert!(old.iter().all(|token| named(token) != new));
    eventually("both sign with the new key", || {
        let signing = gateways.each_ref().map(|gateway| {
            let token = gateway.access("user");
            for gateway in &gateways {
                gateway.send(&get("/user/x").bearer(&token)).expect(200);
                assert!(published(gateway).contains(&named(&token)));
            }
            named(&token)
        });
        if signing.iter().all(|key| *key == new) { Ok(()) } else { Err(signing) }
    });
    for gateway in &gateways {
        for token in &old {
            gateway.send(&get("/user/x").bearer(token)).expect(200);
        }
        assert_eq!(published(gateway).len(), 2);
    }
}

#[test]
fn gateways_on_postgresql_change_their_key_without_a_token_refused() {
    a_new_key_is_known_before_it_signs("PORTCULLIS_TEST_POSTGRES");
}

#[test]
fn gateways_on_mysql_change_their_key_without_a_token_refused() {
    a_new_key_is_known_before_it_signs("PORTCULLIS_TEST_MYSQL");
}

#[test]
fn two_gateways_on_postgresql_agree_within_a_second() {
    two_gateways_agree("PORTCULLIS_TEST_POSTGRES");
}

#[test]
fn two_gateways_on_mysql_agree_within_a_second() {
    two_gateways_agree("PORTCULLIS_TEST_MYSQL");
}
