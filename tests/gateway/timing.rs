//! A wrong password and an unknown name take the same time (contract 4): measured, in pairs, and judged by rank.
//!
//! Of each pair, one asks for a name that exists and one for a name that does not, in an order that is drawn for each, so
//! that whatever else the machine does falls on both alike. The measure is A, the chance that a refusal of an unknown name
//! takes longer than one of a known name (the Mann-Whitney statistic over its maximum): one half where nothing can be
//! told, 0 or 1 where a single request tells. If nothing can be told, A over n pairs has a standard deviation of at most
//! s = 1/sqrt(6n). A test fails beyond 5 s, which chance alone does in fewer than one of a million runs, and with a power
//! of 0.99 it fails where A is truly beyond 5 s + 2.4 s of one half:
//!
//! | pairs | fails beyond | power 0.99 where A is beyond | as of normal noise whose means differ by |
//! |---|---|---|---|
//! | 64 | 0.5 ± 0.26 | 0.5 ± 0.38 | 1.7 of its deviations |
//! | 100 | 0.5 ± 0.21 | 0.5 ± 0.31 | 1.2 |
//! | 1000 | 0.5 ± 0.065 | 0.5 ± 0.096 | 0.35 |
//!
//! A password that is not verified at all saves some twenty deviations.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::support::client::basic;
use crate::support::outside::run_python;
use crate::support::{Connection, Gateway, Request, Setup, USERS, Upstream, get, post, routes};

/// How far A may be from one half, in standard deviations.
const DEVIATIONS_MAX: f64 = 5.0;

const ENDPOINTS: &str = "
endpoints:
  - { path: /auth/login, action: login }
  - { path: /auth/client, action: client_login }
  - { path: /oauth/token, action: oauth_token, password_grant: true }
";

/// Every answer is remembered for as long as a test runs.
const CACHE: &str = "auth: { cache: { negative_ttl: 5m } }\n";

/// Seconds until the refusal, on a connection that is kept.
fn refusal(connection: &mut Connection, request: &Request) -> f64 {
    let start = Instant::now();
    let response = connection.send(request);
    let took = start.elapsed().as_secs_f64();
    assert_eq!(response.status, 401, "{response:?}");
    took
}

/// How long each of a pair takes, whichever is sent first.
fn in_drawn_order(connection: &mut Connection, [one, other]: [&Request; 2]) -> [f64; 2] {
    if fastrand::bool() {
        let one = refusal(connection, one);
        [one, refusal(connection, other)]
    } else {
        let other = refusal(connection, other);
        [refusal(connection, one), other]
    }
}

/// The chance that one of `unknown` is greater than one of `known`; half of it where they are equal.
fn greater(unknown: &[f64], known: &[f64]) -> f64 {
    let wins = unknown.iter().flat_map(|one| known.iter().map(move |other| one.partial_cmp(other).unwrap()));
    let wins: f64 = wins.map(|order| f64::from(order as i8 + 1) / 2.0).sum();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let pairs = (unknown.len() * known.len()) as f64;
    wins / pairs
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[track_caller]
fn judge(name: &str, unknown: &[f64], known: &[f64]) {
    let chance = greater(unknown, known);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let deviation = (1.0 / (6.0 * unknown.len() as f64)).sqrt();
    assert!(
        (chance - 0.5).abs() < DEVIATIONS_MAX * deviation,
        "{name}: an unknown name takes longer with a chance of {chance:.3} ± {deviation:.3}; medians {:.2} and {:.2} ms",
        median(unknown) * 1e3,
        median(known) * 1e3
    );
}

/// Asserts that requests for unknown and for known names are refused after times that nobody can tell apart. `request` is
/// given the name and a number that is new each time.
#[track_caller]
fn same_time(
    name: &str,
    gateway: &Gateway,
    [unknown, known]: [&str; 2],
    (pairs, callers): (usize, usize),
    request: impl Fn(&str, usize) -> Request + Sync,
) {
    let next = AtomicUsize::new(0);
    let times: Vec<[f64; 2]> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = gateway.connect();
                    let mut times = Vec::new();
                    while next.fetch_add(1, Ordering::Relaxed) < pairs {
                        let number = next.fetch_add(0, Ordering::Relaxed) * 1000 + times.len();
                        times.push(in_drawn_order(
                            &mut connection,
                            [&request(unknown, number), &request(known, number)],
                        ));
                    }
                    times
                })
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let (unknown, known): (Vec<_>, Vec<_>) = times.into_iter().map(|[unknown, known]| (unknown, known)).unzip();
    assert_eq!(unknown.len(), pairs);
    judge(name, &unknown, &known);
}

#[test]
fn the_judge_can_tell() {
    let noise = |shift: f64| -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7 + shift.to_bits());
        (0..64).map(|_| (0..12).map(|_| random.f64()).sum::<f64>() + shift).collect()
    };
    judge("nothing", &noise(0.0), &noise(1e-9));
    assert!(std::panic::catch_unwind(|| judge("something", &noise(0.0), &noise(2.2))).is_err());
    assert!((greater(&[1.0, 2.0], &[1.0, 2.0]) - 0.5).abs() < 1e-9);
    assert!((greater(&[3.0, 4.0], &[1.0, 2.0]) - 1.0).abs() < 1e-9);
}

#[test]
fn a_wrong_password_takes_as_long_as_an_unknown_name() {
    let upstream = Upstream::hello();
    let gateway =
        Gateway::start(&format!("log: {{ access: off, audit: off }}\n{USERS}{ENDPOINTS}{}", routes(&upstream)));
    // one whose right password is remembered: that must not shorten the way of a wrong one
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
    for (way, callers) in [("one by one", 1), ("32 at once", 32)] {
        let check = |name: &str, names: [&str; 2], request: &(dyn Fn(&str, usize) -> Request + Sync)| {
            same_time(&format!("{name}, {way}"), &gateway, names, (64, callers), request);
        };
        check("Basic", ["nobody", "user"], &|name, number| get("/user/x").basic(name, &format!("guess-{number}")));
        check("login", ["nobody", "user"], &|name, number| {
            post("/auth/login").json(&json!({ "username": name, "password": format!("guess-{number}") }))
        });
        check("client_login", ["nobody", "robot"], &|name, number| {
            post("/auth/client").json(&json!({ "client_id": name, "client_secret": format!("guess-{number}") }))
        });
        check("oauth_token", ["nobody", "robot"], &|name, number| {
            let authorization = basic(name, &format!("guess-{number}"));
            post("/oauth/token").authorization(&authorization).form("grant_type=client_credentials")
        });
    }
}

#[test]
fn a_remembered_refusal_takes_as_long_whatever_it_was_for() {
    let upstream = Upstream::hello();
    let yaml = format!("log: {{ access: off, audit: off }}\n{CACHE}{USERS}{}", routes(&upstream));
    let gateway = Gateway::start(&yaml);
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
    for (way, callers) in [("one by one", 1), ("32 at once", 32)] {
        same_time(&format!("a repeated guess, {way}"), &gateway, ["nobody", "user"], (1000, callers), |name, _| {
            get("/user/x").basic(name, "the same guess")
        });
    }
}

/// A table of users with the passwords `right`, hashed for as many rounds as are named, in turn.
const TABLE: &str = r#"
import hashlib, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE user (id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT, role TEXT)")
for number in range(100):
    rounds = int(sys.argv[2 + number % (len(sys.argv) - 2)])
    made = hashlib.pbkdf2_hmac("sha256", b"right", b"salt%d" % number, rounds).hex()
    db.execute("INSERT INTO user VALUES (?, ?, ?, 'user')", (number, f"user-{number}", f"pbkdf2:sha256:{rounds}$salt{number}${made}"))
db.commit()
"#;

/// A gateway on such a table; nobody in it was seen yet.
fn on_a_table(upstream: &Upstream, rounds: &[&str]) -> Gateway {
    let mut yaml = format!("log: {{ access: off, audit: off }}\n{ENDPOINTS}{}", routes(upstream));
    write!(
        yaml,
        "
bootstrap: {{ clients: [{{ id: robot, secret: robot-secret-1, roles: [user] }}] }}
store:
  url: sqlite:app.db
  users: {{ table: user, id: id, name: username, password: password_hash, role: role }}
"
    )
    .unwrap();
    let setup = Setup::new(&yaml);
    let path = setup.path("app.db");
    run_python(TABLE, &[&[path.to_str().unwrap()], rounds].concat());
    setup.start()
}

#[test]
fn a_user_of_another_applications_table_who_was_never_seen_is_refused_as_fast_as_one_who_was() {
    let upstream = Upstream::hello();
    // hashes that cost next to nothing hide nothing
    let gateway = on_a_table(&upstream, &["1"]);
    let mut connection = gateway.connect();
    for number in (0..100).step_by(2) {
        connection.send(&get("/user/x").basic(&format!("user-{number}"), "right")).expect(200);
    }
    let mut pair = |number: usize| {
        let [unseen, seen] =
            [number + 1, number].map(|number| get("/user/x").basic(&format!("user-{number}"), "wrong"));
        in_drawn_order(&mut connection, [&unseen, &seen])
    };
    let (unseen, seen): (Vec<_>, Vec<_>) = (0..100).step_by(2).map(|number| pair(number).into()).unzip();
    judge("users who were never seen", &unseen, &seen);
    gateway.send(&get("/user/x").basic("user-7", "right")).expect(200);
}

#[test]
fn names_cannot_be_told_by_the_make_of_their_hashes() {
    let upstream = Upstream::hello();
    let gateway = on_a_table(&upstream, &["20000", "200000"]);
    gateway.send(&get("/user/x").basic("user-7", "right")).expect(200);
    let mut connection = gateway.connect();
    let mut pair = |number: usize| {
        let [unknown, known] =
            ["nobody", "user"].map(|kind| get("/user/x").basic(&format!("{kind}-{number}"), "wrong"));
        in_drawn_order(&mut connection, [&unknown, &known])
    };
    let (unknown, known): (Vec<_>, Vec<_>) = (0..100).map(|number| pair(number).into()).unzip();
    judge("a table of two makes", &unknown, &known);
    // between what users of the one make take and those of the other, whatever else the machine does
    let of_make = |make: usize| median(&known.iter().copied().skip(make).step_by(2).collect::<Vec<_>>());
    let between = (of_make(0) * of_make(1)).sqrt();
    let slow = unknown.iter().filter(|&&time| time > between).count();
    assert!((20..80).contains(&slow), "unknown names are of both makes: {slow}");
    // the same name always takes as long
    let ask = |connection: &mut Connection, name: &str, guess: usize| {
        (0..5)
            .map(|again| refusal(connection, &get("/user/x").basic(name, &format!("{guess}-{again}"))))
            .fold(f64::MAX, f64::min)
    };
    let (one, other) = (ask(&mut connection, "nobody-1", 1), ask(&mut connection, "nobody-1", 2));
    assert!(one < other * 3.0 && other < one * 3.0, "{one} and {other}");
    // clients have hashes of ours, whatever users have
    same_time("clients beside such a table", &gateway, ["nobody", "robot"], (64, 1), |name, number| {
        post("/auth/client").json(&json!({ "client_id": name, "client_secret": format!("guess-{number}") }))
    });
}
