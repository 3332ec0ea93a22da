//! `limits.shared`: several gateways, one budget, on a real Redis; and what happens while it does not answer.

use std::io::{Read, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::project;
use crate::support::redis::{Make, Redis, Reply};
use crate::support::upstream::{nobody, refusing};
use crate::support::{Certificate, Gateway, Request, Setup, USERS, Upstream, eventually, get, post};

/// No request may wait longer for somebody who does not answer: the bound is a quarter of a second, the rest is the machine's.
const PATIENCE: Duration = Duration::from_secs(5);

/// The key that connections are tried out with.
pub(crate) const PROBE: &str = "portcullis:{limits}:probe";

/// How often what is to be exact is tried where the machine was too busy for Redis to answer in time.
const TRIES: usize = 5;

/// Callers come through a proxy that is believed, so that tests choose their addresses.
pub(crate) fn rules(upstream: &Upstream, shared: &str, limits: &str, rate: &str) -> String {
    format!(
        "
trusted_proxies: [127.0.0.1]
{USERS}
limits:
  shared: {shared}
{limits}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /limited/**, allow: anyone, rate: {{ {rate} }}, to: api }}
  - {{ path: /mine/**, allow: authenticated, rate: {{ {rate} }}, to: api }}
  - {{ path: /free/**, allow: anyone, to: api }}
  - {{ path: /user/**, allow: [user], to: api }}
",
        upstream.url()
    )
}

pub(crate) const OFF: &str = "  token_endpoints: off
  unauthenticated: off";

pub(crate) fn from(request: Request, address: &str) -> Request {
    request.header("X-Forwarded-For", address)
}

pub(crate) fn limited(address: &str) -> Request {
    from(get("/limited/x"), address)
}

/// A test that holds for the servers of both makes.
fn of_redis_and_valkey(test: impl Fn(&Redis)) {
    for make in [Make::Redis, Make::Valkey] {
        eprintln!("{make:?}");
        test(&Redis::of(make, None, &[]));
    }
}

/// Three on the same folder.
fn three(setup: &Setup) -> [Gateway; 3] {
    std::thread::scope(|scope| {
        [(); 3].map(|()| scope.spawn(|| setup.beside().start())).map(|start| start.join().unwrap())
    })
}

fn drawn(gateways: &[Gateway], counted: &str) -> f64 {
    gateways.iter().map(|gateway| gateway.metric("portcullis_limits_shared_total", &[("counted", counted)])).sum()
}

pub(crate) fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("portcullis_limits_shared_up", &[]) > 0.5
}

pub(crate) fn until_up(gateways: &[Gateway]) {
    eventually("the shared limits answer again", || {
        if gateways.iter().all(is_up) { Ok(()) } else { Err(gateways.iter().map(Gateway::stderr).collect::<String>()) }
    });
}

/// How many of so many requests are let through by all gateways together, asked in parallel.
pub(crate) fn granted(gateways: &[Gateway], each: usize, request: &Request) -> usize {
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for gateway in gateways {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut connection = gateway.connect();
                    for _ in 0..each / 2 {
                        match connection.send(request).status {
                            200 => _ = granted.fetch_add(1, Ordering::Relaxed),
                            status => assert_eq!(status, 429),
                        }
                    }
                });
            }
        }
    });
    granted.into_inner()
}

/// What `trial` finds for another caller each time, once all draws in it were on what is shared.
pub(crate) fn undisturbed<T>(gateways: &[Gateway], mut trial: impl FnMut(&str) -> T) -> T {
    for number in 1..=TRIES {
        until_up(gateways);
        let before = drawn(gateways, "own");
        let found = trial(&format!("192.0.2.{number}"));
        if (drawn(gateways, "own") - before).abs() < 0.5 {
            return found;
        }
    }
    panic!("the machine is too busy: Redis never answers all in time");
}

#[test]
fn three_gateways_grant_together_what_one_would() {
    of_redis_and_valkey(grant_together);
}

fn grant_together(redis: &Redis) {
    let upstream = Upstream::hello();
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 300, by: address"));
    let gateways = three(&setup);
    let sum = undisturbed(&gateways, |caller| granted(&gateways, 200, &limited(caller)));
    assert_eq!(sum, 300);
    let refusal = gateways[0].send(&limited("192.0.2.1")).refused(429, "rate_limited");
    let wait: u64 = refusal.header("Retry-After").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{refusal:?}");
}

#[test]
fn a_budget_of_three_gateways_refills_as_one() {
    const RATE: f64 = 100.0;
    const BURST: f64 = 600.0;
    const LOAD: Duration = Duration::from_secs(5);
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 100/s, burst: 600, by: address"));
    let gateways = three(&setup);
    undisturbed(&gateways, |caller| {
        let (granted, refused) = (AtomicU32::new(0), AtomicU32::new(0));
        let begin = Instant::now();
        let took = std::thread::scope(|scope| {
            let loads: Vec<_> = gateways
                .iter()
                .map(|gateway| {
                    let (granted, refused) = (&granted, &refused);
                    scope.spawn(move || {
                        let mut connection = gateway.connect();
                        while begin.elapsed() < LOAD {
                            let counter =
                                if connection.send(&limited(caller)).status == 200 { granted } else { refused };
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                        begin.elapsed()
                    })
                })
                .collect();
            loads.into_iter().map(|load| load.join().unwrap()).max().unwrap()
        });
        let (sum, due) = (f64::from(granted.into_inner()), BURST + RATE * took.as_secs_f64());
        assert!(refused.into_inner() > 0, "more came than is granted");
        assert!((sum - due).abs() <= due * 0.01, "{sum} of {due}");
    });
}

#[test]
fn guesses_are_counted_at_all_gateways_together_and_good_log_ins_are_not() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    for limit in ["per_account", "per_account_anywhere"] {
        let other = if limit == "per_account" { "per_account_anywhere" } else { "per_account" };
        let limits = format!(
            "  token_endpoints: {{ per_address: off, {limit}: {{ rate: 1/h, burst: 4 }}, {other}: off }}
  unauthenticated: off"
        );
        let setup = Setup::new(&rules(&upstream, &redis.url(), &limits, "rate: 1/s"));
        let gateways = three(&setup);
        let login = |at: usize, caller: &str, user: &str, password: &str| {
            let request = post("/auth/login").json(&json!({ "username": user, "password": password }));
            gateways[at % 3].send(&from(request, caller)).status
        };
        undisturbed(&gateways, |caller| {
            // other spellings may be the same account
            let user = format!("User{}", caller.replace('.', "-"));
            gateways[0].cli(&["user", "add", &user, "--password-stdin"], "userpassword").expect(0);
            for at in 0..9 {
                assert_eq!(login(at, caller, &user, "userpassword"), 200, "{limit}");
            }
            for (at, spelt) in [user.clone(), user.to_uppercase(), user.to_lowercase(), user.clone()].iter().enumerate()
            {
                assert_eq!(login(at, caller, spelt, "nope"), 401, "{limit}");
            }
            for at in 0..3 {
                assert_eq!(login(at, caller, &user, "userpassword"), 429, "{limit}");
            }
            assert_eq!(login(1, "203.0.113.1", &user, "userpassword"), if limit == "per_account" { 200 } else { 429 });
        });
        redis.ask(&["FLUSHALL"]);
    }
}

/// What Redis says of how long a key lives that it has not, and of one that does not end.
const GONE: i64 = -2;
const FOR_EVER: i64 = -1;

/// How long an attempt waits in all for how others end.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Log-ins of one account, spread over all gateways and begun at once: how many were answered by `status`, and how long those
/// took that were refused for the limit.
fn at_once(gateways: &[Gateway], logins: usize, login: &Request, status: u16) -> (usize, Vec<Duration>) {
    let all_are_there = Barrier::new(logins);
    let ask = |number: usize| {
        let mut connection = gateways[number % gateways.len()].connect();
        all_are_there.wait();
        let begin = Instant::now();
        (connection.send(login).status, begin.elapsed())
    };
    let ask = &ask;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..logins).map(|number| scope.spawn(move || ask(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused = answers.iter().filter(|(answer, _)| *answer == 429).map(|(_, took)| *took).collect::<Vec<_>>();
    let others = answers.len() - refused.len();
    assert_eq!(answers.iter().filter(|(answer, _)| *answer == status).count(), others, "{answers:?}");
    (others, refused)
}

/// How long Redis keeps what is under way, in milliseconds, each time that it is looked at.
fn lives_of_attempts(redis: &Redis, done: &AtomicBool) -> Vec<i64> {
    let mut lives = Vec::new();
    while !done.load(Ordering::Relaxed) {
        for key in redis.ask(&["KEYS", "*:under_way"]).list() {
            lives.push(redis.ask(&["PTTL", key.text()]).number());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // some are over by now
    lives.retain(|life| *life != GONE);
    lives
}

#[test]
fn log_ins_at_once_at_all_gateways_are_let_in_where_they_are_right_and_counted_exactly_where_they_are_not() {
    of_redis_and_valkey(wait_for_each_other);
}

fn wait_for_each_other(redis: &Redis) {
    const LOGINS: usize = 60;
    let upstream = Upstream::hello();
    let limits =
        "  token_endpoints: { per_address: off, per_account: off, per_account_anywhere: { rate: 1/h, burst: 3 } }
  unauthenticated: off";
    let setup = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/s"));
    let gateways = three(&setup);
    undisturbed(&gateways, |caller| {
        let user = format!("user-{}", caller.replace('.', "-"));
        gateways[0].cli(&["user", "add", &user, "--password-stdin"], "userpassword").expect(0);
        let login = |password: &str| post("/auth/login").json(&json!({ "username": user, "password": password }));
        // all of them, but on a machine that is too busy for so many in the time that anybody waits
        let done = AtomicBool::new(false);
        let (let_in, refused) = std::thread::scope(|scope| {
            let lives = scope.spawn(|| lives_of_attempts(redis, &done));
            let ended = at_once(&gateways, LOGINS, &login("userpassword"), 200);
            done.store(true, Ordering::Relaxed);
            let lives = lives.join().unwrap();
            assert!(!lives.is_empty() && lives.iter().all(|life| (1..=10_000).contains(life)), "{lives:?}");
            ended
        });
        assert!(let_in >= LOGINS / 3 && refused.iter().all(|took| *took >= WAIT_MAX), "{let_in}, {refused:?}");
        let (guesses, refused) = at_once(&gateways, LOGINS, &login("nope"), 401);
        assert_eq!((guesses, refused.len()), (3, LOGINS - 3));
        assert!(refused.iter().all(|took| *took < WAIT_MAX), "until those have failed, and no longer: {refused:?}");
        // what failures have spent is waited for by nobody
        let (let_in, refused) = at_once(&gateways, LOGINS, &login("userpassword"), 200);
        assert!(let_in == 0 && refused.iter().all(|took| *took < WAIT_MAX), "{let_in}, {refused:?}");
    });
}

/// Requests that wait for each other's look-up pay for one. Where that one cannot pay, none of them may get in by it.
#[test]
fn nobody_gets_past_used_up_guesses_by_asking_often_at_once() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let limits =
        "  token_endpoints: { per_address: off, per_account: off, per_account_anywhere: { rate: 1/h, burst: 4 } }
  unauthenticated: off";
    let setup = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/s"));
    let gateways = three(&setup);
    undisturbed(&gateways, |caller| {
        let user = format!("user-{}", caller.replace('.', "-"));
        gateways[0].cli(&["user", "add", &user, "--role", "user", "--password-stdin"], "userpassword").expect(0);
        for guess in 0..4 {
            gateways[0].send(&get("/user/x").basic(&user, &format!("guess-{guess}"))).expect(401);
        }
        // the others' own budgets are full
        std::thread::scope(|scope| {
            for number in 0..40 {
                let (gateway, user) = (&gateways[1 + number % 2], &user);
                scope.spawn(move || {
                    let mut connection = gateway.connect();
                    for _ in 0..10 {
                        connection.send(&get("/user/x").basic(user, "userpassword")).refused(429, "rate_limited");
                    }
                });
            }
        });
    });
    assert!(upstream.received().is_empty());
}

#[test]
fn bad_credentials_and_log_ins_of_one_network_are_counted_at_all_gateways_together() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let limits =
        "  token_endpoints: { per_address: { rate: 1/h, burst: 4 }, per_account: off, per_account_anywhere: off }
  unauthenticated: { rate: 1/h, burst: 4 }";
    let setup = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/s"));
    let gateways = three(&setup);
    undisturbed(&gateways, |caller| {
        let (_, last) = caller.rsplit_once('.').unwrap();
        // each from another address of one /64
        let network = |at: usize| format!("2001:db8:0:{last}::{at}");
        for at in 0..4 {
            let guess = get("/user/x").token(&format!("guess-{at}"));
            gateways[at % 3].send(&from(guess, &network(at))).refused(401, "invalid_token");
        }
        let token = gateways[0].opaque("user");
        for (at, gateway) in gateways.iter().enumerate() {
            let request = from(get("/user/x").token(&token), &network(at));
            gateway.send(&request).refused(429, "rate_limited");
            gateway.send(&from(get("/user/x").token(&token), "2001:db8:1::1")).expect(200);
        }
        for at in 0..4 {
            let login = post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" }));
            gateways[at % 3].send(&from(login, &network(at))).expect(200);
        }
        let login = post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" }));
        gateways[2].send(&from(login, &network(9))).refused(429, "rate_limited");
    });
}

#[test]
fn a_thousand_requests_with_one_good_credential_spend_nothing() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let limits = "  token_endpoints: off
  unauthenticated: { rate: 1/h, burst: 3 }";
    let setup = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/s"));
    let gateways = three(&setup);
    let token = gateways[0].opaque("user");
    std::thread::scope(|scope| {
        for number in 0..24 {
            let (gateway, token) = (&gateways[number % 3], &token);
            scope.spawn(move || {
                let mut connection = gateway.connect();
                for _ in 0..40 {
                    connection.send(&get("/user/x").token(token)).expect(200);
                }
            });
        }
    });
}

#[test]
fn a_principal_has_one_budget_wherever_it_asks_and_another_has_its_own() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 30, by: principal"));
    let gateways = three(&setup);
    undisturbed(&gateways, |caller| {
        let user = format!("user-{}", caller.replace('.', "-"));
        gateways[0].cli(&["user", "add", &user, "--password-stdin"], "userpassword").expect(0);
        let mine = |user: &str, password| get("/mine/x").basic(user, password);
        assert_eq!(granted(&gateways, 20, &mine(&user, "userpassword")), 30);
        // the other route's budget is another one
        gateways[1].send(&from(get("/limited/x").basic(&user, "userpassword"), caller)).expect(200);
        for gateway in &gateways {
            gateway.send(&mine("guest", "guestpassword")).expect(200);
        }
    });
}

#[test]
fn what_asks_for_no_limit_does_not_wait_for_the_shared_ones() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let gateway = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h")).start();
    until_up(std::slice::from_ref(&gateway));
    for _ in 0..20 {
        gateway.send(&get("/free/x")).expect(200);
        gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);
    }
    let gateways = [gateway];
    assert!(drawn(&gateways, "shared") + drawn(&gateways, "own") < 0.5);
}

#[test]
fn keys_in_redis_name_nobody_and_end() {
    of_redis_and_valkey(name_nobody);
}

fn name_nobody(redis: &Redis) {
    let upstream = Upstream::hello();
    let limits = "  token_endpoints: { per_address: { rate: 1/m, burst: 4 }, per_account: { rate: 1/m, burst: 4 } }
  unauthenticated: { rate: 1/m, burst: 4 }";
    let gateway = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/m, burst: 4")).start();
    until_up(std::slice::from_ref(&gateway));
    gateway.send(&limited("198.51.100.7")).expect(200);
    gateway.send(&from(get("/mine/x").basic("user", "userpassword"), "198.51.100.7")).expect(200);
    gateway.send(&from(get("/mine/x").basic("canary", "canary"), "198.51.100.7")).expect(401);
    let guess = post("/auth/login").json(&json!({ "username": "canary", "password": "canary" }));
    gateway.send(&from(guess, "198.51.100.7")).expect(401);
    let keys = redis.ask(&["KEYS", "*"]);
    assert!(keys.list().len() >= 6, "{keys:?}");
    for key in keys.list().iter().map(Reply::text).filter(|key| *key != PROBE) {
        let name = key.strip_prefix("portcullis:{limits}:").unwrap();
        let digest = name.strip_suffix(":under_way").unwrap_or(name);
        assert!(digest.len() == 22 && !key.contains("canary") && !key.contains("198"), "{key}");
        if digest.len() < name.len() {
            // it may be over by now
            assert!(redis.ask(&["PTTL", key]).number() != FOR_EVER, "{key}");
            continue;
        }
        let value = redis.ask(&["GET", key]);
        assert!(value.text().parse::<f64>().is_ok(), "{value:?}");
        let left = redis.ask(&["PTTL", key]).number();
        // a key of what was spent here is gone as soon as nothing is spent any more
        assert!((1..=240_000).contains(&left), "{key}: {left}");
    }
}

#[test]
fn what_others_write_into_redis_locks_nobody_out_for_longer_than_a_budget_fills() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let gateways = [Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/m, burst: 100, by: address")).start()];
    undisturbed(&gateways, |caller| {
        gateways[0].send(&limited(caller)).expect(200);
        let keys = redis.ask(&["KEYS", "*"]);
        let key = keys.list().iter().map(Reply::text).find(|key| *key != PROBE).unwrap();
        for (value, status) in [("9e99", 429), ("inf", 429), ("-9e99", 200), ("nan", 200), ("garbage", 200), ("", 200)]
        {
            redis.ask(&["SET", key, value]);
            let response = gateways[0].send(&limited(caller)).expect(status);
            if let Some(wait) = response.header("Retry-After") {
                assert!(wait.parse::<u64>().unwrap() <= 61, "{value}: {response:?}");
            }
        }
        redis.ask(&["DEL", key]);
        redis.ask(&["LPUSH", key, "a"]);
        gateways[0].send(&limited(caller)).expect(200);
        assert!((1..=60_000).contains(&redis.ask(&["PTTL", key]).number()));
        redis.ask(&["FLUSHALL"]);
    });
}

/// As a gateway leaves it that is gone; and what nobody would write.
#[test]
fn what_is_under_way_elsewhere_is_waited_for_until_it_is_forgotten_and_grants_nothing() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let limits =
        "  token_endpoints: { per_address: off, per_account: { rate: 1/h, burst: 2 }, per_account_anywhere: off }
  unauthenticated: off";
    let setup = Setup::new(&rules(&upstream, &redis.url(), limits, "rate: 1/h"));
    let gateways = [setup.beside().start(), setup.beside().start()];
    undisturbed(&gateways, |caller| {
        let login = |password: &str| {
            from(post("/auth/login").json(&json!({ "username": "user", "password": password })), caller)
        };
        redis.ask(&["FLUSHALL"]);
        for _ in 0..2 {
            gateways[0].send(&login("nope")).expect(401);
        }
        let keys = redis.ask(&["KEYS", "*"]);
        let budget = keys.list().iter().map(Reply::text).find(|key| *key != PROBE && !key.ends_with(":under_way"));
        let budget = budget.unwrap();
        let under_way = format!("{budget}:under_way");
        let set = |value: &str| redis.ask(&["SET", &under_way, value]).ok();
        let refused = || {
            let begin = Instant::now();
            gateways[1].send(&login("userpassword")).refused(429, "rate_limited");
            begin.elapsed()
        };
        let long = "1:1 ".repeat(200);
        for value in ["", "garbage", "99999999999:1", "1:1", "-1:-1", "1e9:1", &long] {
            set(value);
            let took = refused();
            assert!(took < WAIT_MAX / 2, "{value}: {took:?}");
        }
        redis.ask(&["DEL", &under_way]);
        redis.ask(&["LPUSH", &under_way, "a"]);
        assert!(refused() < WAIT_MAX / 2);
        let second = || {
            let clock = redis.ask(&["TIME"]);
            clock.list()[0].text().parse::<u64>().unwrap() - 1_767_225_600
        };
        set(&format!("{}:3", second() + 4));
        let took = refused();
        assert!((WAIT_MAX / 2..WAIT_MAX).contains(&took), "until it is forgotten: {took:?}");
        set(&format!("{}:1", second() + 9));
        let took = refused();
        assert!(took >= WAIT_MAX, "nobody waits for longer: {took:?}");
        // it was right
        set(&format!("{}:1", second() + 9));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gateways[1].send(&login("userpassword")).status);
            redis.ask(&["DEL", budget]);
            assert_eq!(waiting.join().unwrap(), 200);
        });
    });
}

/// Asks until the budget is used up; how many were let through. None takes long.
pub(crate) fn exhaust(gateway: &Gateway, request: &Request) -> usize {
    let mut granted = 0;
    loop {
        let begin = Instant::now();
        let response = gateway.send(request);
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        match response.status {
            200 => granted += 1,
            429 => return granted,
            status => panic!("{status}"),
        }
    }
}

#[test]
fn while_redis_is_down_each_gateway_counts_for_itself_and_it_heals() {
    of_redis_and_valkey(count_alone_and_heal);
}

fn count_alone_and_heal(redis: &Redis) {
    let upstream = Upstream::hello();
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 30, by: address"));
    let gateways = three(&setup);
    until_up(&gateways);
    // nobody gets a fresh budget from an outage
    let spent = exhaust(&gateways[0], &limited("192.0.2.1"));
    assert!((25..=30).contains(&spent), "{spent}");
    redis.kill();
    for gateway in &gateways {
        let before = drawn(std::slice::from_ref(gateway), "own");
        let begin = Instant::now();
        gateway.send(&limited("192.0.2.9")).expect(200);
        assert!(begin.elapsed() < PATIENCE);
        assert!(drawn(std::slice::from_ref(gateway), "own") > before, "it falls back in the first request");
        assert_eq!(exhaust(gateway, &limited("192.0.2.9")), 29, "its own limiter holds");
        eventually("it is known to be down", || if is_up(gateway) { Err(()) } else { Ok(()) });
    }
    gateways[0].send(&limited("192.0.2.1")).refused(429, "rate_limited");
    redis.begin();
    until_up(&gateways);
    let sum = undisturbed(&gateways, |caller| granted(&gateways, 20, &limited(&format!("{caller}0"))));
    assert_eq!(sum, 30);
    for gateway in &gateways {
        let log = gateway.stderr();
        assert_eq!(
            log.matches("shared limits do not answer").count(),
            log.matches("shared limits answer again").count()
        );
        assert!(log.matches("shared limits do not answer").count() >= 1, "{log}");
    }
}

#[test]
fn a_redis_that_hangs_holds_up_one_request_for_a_bounded_time() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 1000, by: address"));
    let gateways = three(&setup);
    until_up(&gateways);
    redis.signal("STOP");
    for gateway in &gateways {
        gateway.send(&limited("192.0.2.1")).expect(200);
        // now it is known
        let begin = Instant::now();
        let mut connection = gateway.connect();
        for _ in 0..100 {
            connection.send(&limited("192.0.2.1")).expect(200);
        }
        assert!(begin.elapsed() < PATIENCE * 2, "{:?}", begin.elapsed());
        assert!(drawn(std::slice::from_ref(gateway), "own") >= 100.0);
    }
    redis.signal("CONT");
    until_up(&gateways);
    let before = drawn(&gateways, "shared");
    eventually("requests are counted together again", || {
        gateways[0].send(&limited("192.0.2.2"));
        if drawn(&gateways, "shared") > before { Ok(()) } else { Err(gateways[0].stderr()) }
    });
}

#[test]
fn a_script_that_redis_forgot_is_brought_again_at_once() {
    of_redis_and_valkey(bring_scripts_again);
}

fn bring_scripts_again(redis: &Redis) {
    let upstream = Upstream::hello();
    let gateway = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 30, by: address")).start();
    let gateways = [gateway];
    undisturbed(&gateways, |caller| {
        gateways[0].send(&limited(caller)).expect(200);
        redis.ask(&["SCRIPT", "FLUSH", "SYNC"]);
        assert_eq!(exhaust(&gateways[0], &limited(caller)), 29);
    });
}

/// With the rights that docs/several-gateways.md names, and no others.
#[test]
fn the_documented_rights_are_enough() {
    let page = std::fs::read_to_string(project().join("docs/several-gateways.md")).unwrap();
    let (_, rights) = page.split_once("An ACL user needs `").unwrap();
    let (rights, _) = rights.split_once('`').unwrap();
    of_redis_and_valkey(|redis| {
        let upstream = Upstream::hello();
        let user = ["ACL", "SETUSER", "gateway", "reset", "on", ">of-the-gateway"];
        assert_eq!(redis.ask(&user.into_iter().chain(rights.split(' ')).collect::<Vec<_>>()).text(), "OK");
        let url = format!("redis://gateway:of-the-gateway@{}/1", redis.address());
        let limits =
            "  token_endpoints: { per_address: off, per_account: { rate: 1/h, burst: 3 } }\n  unauthenticated: off";
        let gateways = [Setup::new(&rules(&upstream, &url, limits, "rate: 1/h, burst: 3, by: address")).start()];
        undisturbed(&gateways, |caller| {
            assert_eq!(exhaust(&gateways[0], &limited(caller)), 3);
            // a good log-in gives back what it drew
            let login = post("/auth/login").json(&json!({ "username": "user", "password": "userpassword" }));
            for _ in 0..5 {
                gateways[0].send(&from(login.clone(), caller)).expect(200);
            }
        });
    });
}

#[test]
fn a_redis_that_does_not_write_is_down_until_it_does() {
    let (upstream, redis) = (Upstream::hello(), Redis::start());
    let (_kept, nobody) = refusing();
    let (host, port) = (nobody.ip().to_string(), nobody.port().to_string());
    let setup = Setup::new(&rules(&upstream, &redis.url(), OFF, "rate: 1/h, burst: 10, by: address"));
    let gateways = [setup.start()];
    let mut caller = 0;
    for (name, begin, end) in [
        ("READONLY", &["REPLICAOF", &*host, &*port][..], &["REPLICAOF", "NO", "ONE"][..]),
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("NOAUTH", &["CONFIG", "SET", "requirepass", "canary"], &["CONFIG", "SET", "requirepass", ""]),
        ("NOPERM", &["ACL", "SETUSER", "default", "-eval", "-evalsha"], &["ACL", "SETUSER", "default", "+@all"]),
    ] {
        until_up(&gateways);
        caller += 1;
        gateways[0].send(&limited(&format!("192.0.2.{caller}"))).expect(200);
        redis.ask(begin);
        let password = (name == "NOAUTH").then_some("canary");
        if password.is_some() {
            // who is in stays in
            redis.ask_as(password, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        assert_eq!(exhaust(&gateways[0], &limited(&format!("192.0.2.{caller}"))), 9, "{name}");
        eventually(name, || {
            let log = gateways[0].stderr();
            if log.contains(name) || name == "NOAUTH" && !is_up(&gateways[0]) { Ok(()) } else { Err(log) }
        });
        redis.ask_as(password, end);
    }
    until_up(&gateways);
    assert!(!gateways[0].stderr().contains("canary"));
}

/// Whatever is at the other end, the gateway starts, serves and counts for itself; it says why, once, and no password.
#[test]
fn what_is_no_redis_or_not_ours_is_told_once_and_holds_nobody_up() {
    let upstream = Upstream::hello();
    let with_password = Redis::with(Some("another"), &[]);
    let (_kept, refusing) = refusing();
    let silent = Upstream::sessions(|mut stream| {
        let mut sink = [0; 1024];
        while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
    });
    // says back what it was told, as Redis does with commands that it does not know
    let answering = |answer: fn(&str) -> String| {
        Upstream::sessions(move |mut stream| {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let heard = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let commands = heard.lines().filter(|line| line.starts_with('*')).count();
                if stream.write_all(answer(&heard).repeat(commands.max(1)).as_bytes()).is_err() {
                    return;
                }
            }
        })
    };
    let echoing =
        answering(|heard| format!("-ERR unknown command, with args {}\r\n", heard.replace(['\r', '\n'], " ")));
    let loading = answering(|_| "-LOADING Redis is loading the dataset in memory canary\r\n".into());
    let huge = answering(|_| "$536870912\r\n".into());
    let lying = answering(|_| "*2\r\n$3\r\nabc\r\n:7\r\n".into());
    for (name, address, why) in [
        ("a wrong password", with_password.address(), ""),
        ("nobody there", refusing, "not connected"),
        ("silence", silent.address(), "no answer in time"),
        ("an HTTP server", upstream.address(), ""),
        ("an echo", echoing.address(), ""),
        ("one that loads", loading.address(), "LOADING"),
        ("more than there is", huge.address(), "no answer in time"),
        ("answers to other questions", lying.address(), ""),
    ] {
        // what answers to a password hides what it says otherwise
        let login = if why == "LOADING" { "" } else { ":canary@" };
        let shared = format!("'redis://{login}{address}'");
        let gateway = Setup::new(&rules(&upstream, &shared, OFF, "rate: 1/h, burst: 3, by: address")).start();
        assert_eq!(exhaust(&gateway, &limited("192.0.2.1")), 3, "{name}");
        assert!(!is_up(&gateway), "{name}");
        let log = eventually(name, || {
            let log = gateway.stderr();
            if log.contains("shared limits do not answer") { Ok(log) } else { Err(log) }
        });
        assert!(log.contains(why) && log.contains(&address.to_string()), "{name}: {log}");
        assert_eq!(log.matches("shared limits do not answer").count(), 1, "{name}: {log}");
        assert!(!log.contains("canary") && !gateway.stdout().contains("canary"), "{name}: {log}");
    }
}

#[test]
fn over_tls_its_certificate_is_checked() {
    let upstream = Upstream::hello();
    let certificate = Certificate::of(&["localhost", "127.0.0.1"]);
    let files = tempfile::tempdir().unwrap();
    let [cert, key] = [("cert.pem", &certificate.cert), ("key.pem", &certificate.key)].map(|(name, pem)| {
        let path = files.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    });
    let port = nobody().port().to_string();
    let tls = ["--tls-port", &*port, "--tls-cert-file", &*cert, "--tls-key-file", &*key, "--tls-auth-clients", "no"];
    let redis = Redis::with(Some("secret"), &tls);
    assert_eq!(redis.ask(&["PING"]).text(), "PONG");
    for (tls, expected) in [
        (format!("{{ ca: {cert} }}"), true),
        (format!("{{ ca: {cert}, server_name: elsewhere }}"), false),
        ("{ }".into(), false),
    ] {
        let shared = format!("{{ url: {{ file: redis-url }}, tls: {tls} }}");
        let setup = Setup::new(&rules(&upstream, &shared, OFF, "rate: 1/h, burst: 3, by: address"));
        setup.write("redis-url", format!("rediss://:secret@127.0.0.1:{port}\n"));
        let gateway = setup.start();
        if expected {
            until_up(std::slice::from_ref(&gateway));
        } else {
            eventually("the handshake fails", || {
                let log = gateway.stderr();
                if log.contains("tls handshake failed") { Ok(()) } else { Err(log) }
            });
        }
        assert_eq!(is_up(&gateway), expected, "{tls}");
        assert_eq!(exhaust(&gateway, &limited("192.0.2.1")), 3, "{tls}");
        redis.ask(&["FLUSHALL"]);
    }
}

#[test]
fn a_reload_shares_moves_and_ends_sharing_without_a_fresh_budget() {
    let (upstream, one, other) = (Upstream::hello(), Redis::start(), Redis::start());
    let rate = "rate: 1/h, burst: 20, by: address";
    let alone = |more: &str| rules(&upstream, "X", OFF, rate).replace("  shared: X\n", "") + more;
    let shared = |redis: &Redis, more: &str| rules(&upstream, &redis.url(), OFF, rate) + more;
    let setup = Setup::new(&alone(""));
    let gateways = [setup.start(), setup.beside().start()];
    let reload = |yaml: &str| gateways.iter().for_each(|gateway| gateway.reload(yaml));
    for _ in 0..5 {
        gateways[0].send(&limited("192.0.2.1")).expect(200);
    }
    assert!(drawn(&gateways, "shared") < 0.5);
    reload(&shared(&one, ""));
    until_up(&gateways);
    // what was spent before is not known to the other, and stays spent here
    assert_eq!(exhaust(&gateways[0], &limited("192.0.2.1")), 15);
    let left = exhaust(&gateways[1], &limited("192.0.2.1"));
    assert!(left == 5 || drawn(&gateways, "own") > 0.5, "{left}");
    let clients = || {
        let list = one.ask(&["CLIENT", "LIST"]);
        let ids = list.text().lines().filter(|line| line.contains("cmd=evalsha"));
        ids.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let before = clients();
    assert_eq!(before.len(), 2, "one connection a gateway");
    // something else changes: the connection and the budgets live on
    reload(&shared(&one, "tokens: { access_ttl: 5m }\n"));
    assert_eq!(clients(), before);
    for gateway in &gateways {
        gateway.send(&limited("192.0.2.1")).refused(429, "rate_limited");
    }
    reload(&shared(&other, ""));
    until_up(&gateways);
    eventually("the old connections end", || if clients().is_empty() { Ok(()) } else { Err(clients()) });
    gateways[0].send(&limited("192.0.2.1")).refused(429, "rate_limited");
    reload(&alone(""));
    gateways[0].send(&limited("192.0.2.1")).refused(429, "rate_limited");
    assert!(!gateways[0].admin("/metrics").text().contains("portcullis_limits_shared_up"));
}
