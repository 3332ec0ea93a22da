//! Several gateways on one database of a server: what one changes holds in the other within a second (contract 6), and they
//! start at once on an empty one; and what becomes of one whose database does not answer. See `tests/databases.sh`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::databases::database;
use crate::support::keys::header_of;
use crate::support::{
    Gateway, HS256, Request, SECRET, Setup, Signer, USERS, Upstream, eventually, get, post, routes, wait,
};

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

/// A way to a server that can be held up, as by a network that loses everything.
struct Wire {
    address: SocketAddr,
    held: Arc<AtomicBool>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), held: Arc::default() };
        let held = Arc::clone(&wire.held);
        // ends with the process
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let Ok(called) = TcpStream::connect(server) else { continue };
                for (from, to) in [(&caller, &called), (&called, &caller)] {
                    let (from, to, held) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&held));
                    std::thread::spawn(move || carry(from, to, &held));
                }
            }
        });
        wire
    }

    fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, held: &AtomicBool) {
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while held.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // one of both may be gone already
    drop(to.shutdown(std::net::Shutdown::Both));
}

/// Whoever is known goes on for as long as the file says; then, and for whoever is not known, it is 503 and never 401; and it
/// heals by itself.
fn a_database_that_stops_answering(variable: &str) {
    const STALE: Duration = Duration::from_secs(8);
    let Some(url) = database(variable, "outage") else { return };
    let (login, place) = url.rsplit_once('@').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let (upstream, wire) = (Upstream::hello(), Wire::to(server.parse().unwrap()));
    let cache = "auth: { cache: { ttl: 1s, negative_ttl: 1s, stale_if_store_down: 8s } }\n";
    let off = "limits: { token_endpoints: off, unauthenticated: off }\n";
    let store = format!("store: {login}@{}/{name}\n", wire.address);
    let gateway = Gateway::start(&format!("{store}{cache}{off}{USERS}{}", routes(&upstream)));
    let (known, unknown) =
        (get("/user/x").token(&gateway.opaque("user")), get("/user/x").token(&gateway.opaque("user")));
    gateway.send(&known).expect(200);
    wire.hold(true);
    let begin = Instant::now();
    let refusal = gateway.send(&unknown).refused(503, "store_unavailable");
    assert!(refusal.header("Retry-After").is_some(), "{refusal:?}");
    let mut lasted = Duration::ZERO;
    eventually("who is known is refused too", || match gateway.send(&known).status {
        200 => {
            lasted = begin.elapsed();
            Err("still known")
        }
        status => {
            assert_eq!(status, 503);
            Ok(())
        }
    });
    // the last answer of the store was a moment before it stopped, and was good for its own time first
    assert!(lasted + Duration::from_secs(2) > STALE, "{lasted:?}");
    gateway.send(&post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" }))).expect(503);
    gateway.send(&get("/open/x")).expect(200);
    assert!(gateway.metric("portcullis_auth_cache_total", &[("result", "stale")]) >= 1.0);
    wire.hold(false);
    for request in [&known, &unknown] {
        eventually("it heals", || match gateway.send(request).status {
            200 => Ok(()),
            status => {
                assert_eq!(status, 503);
                Err(status)
            }
        });
    }
}

#[test]
fn a_postgresql_that_stops_answering_is_outlived_for_a_while_and_then_waited_for() {
    a_database_that_stops_answering("PORTCULLIS_TEST_POSTGRES");
}

#[test]
fn a_mysql_that_stops_answering_is_outlived_for_a_while_and_then_waited_for() {
    a_database_that_stops_answering("PORTCULLIS_TEST_MYSQL");
}
