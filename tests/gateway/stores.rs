//! Several gateways on one database of a server: what one changes holds in the other within a second (contract 6), and they
//! start at once on an empty one. See `tests/databases.sh`.

use std::time::{Duration, Instant};

use crate::support::databases::database;
use crate::support::{Gateway, HS256, Request, SECRET, Setup, Signer, USERS, Upstream, get, routes, wait};

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

#[test]
fn two_gateways_on_postgresql_agree_within_a_second() {
    two_gateways_agree("PORTCULLIS_TEST_POSTGRES");
}

#[test]
fn two_gateways_on_mysql_agree_within_a_second() {
    two_gateways_agree("PORTCULLIS_TEST_MYSQL");
}
