//! What is rare must not be slow, nor slow others down: credentials that nobody has seen, passwords, a start, a reload.
//!
//! Others are a caller with a remembered principal, at a fixed rate: what counts is the time that 99 of 100 of its answers
//! take no longer than.
//!
//!     cargo bench --bench cold [-- [--short] [--write] [PART]…]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]
#![allow(clippy::disallowed_methods, reason = "a bench measures and waits in real time")]
#![allow(clippy::indexing_slicing, clippy::string_slice, reason = "of texts and arrays that it made itself")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // of figures
#![allow(dead_code, reason = "what benches share, each uses a part of")]

#[path = "support/figures.rs"]
mod figures;
#[allow(unreachable_pub, clippy::pedantic, reason = "of the tests")]
#[path = "../tests/gateway/support/keys.rs"]
mod keys;
#[path = "support/load.rs"]
mod load;
#[path = "support/paced.rs"]
mod paced;
#[path = "support/process.rs"]
mod process;
#[path = "support/secrets.rs"]
mod secrets;
mod support;
#[allow(unreachable_pub, clippy::pedantic, reason = "of the tests")]
#[path = "../tests/gateway/support/wait.rs"]
mod wait;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use figures::{Wanted, median, micros, table, within};
use load::{Callers, Target, Until, get, once};
use secrets::{HMAC_SECRET, Proof, ROLE, Secrets, USER};
use support::{Ending, gateway_under};

/// How often others ask.
const OTHERS_PER_SECOND: u32 = 500;

/// How many principals come in a second, each once, and by how many callers.
const NEW_PER_SECOND: u32 = 10_000;
const NEW_CALLERS: u32 = 32;

const PARALLEL: usize = 1_000;
const GUESSERS: usize = 64;
const ROUTES: usize = 10_000;
const TOKENS: usize = 100_000;

struct Bench {
    wanted: Wanted,
    upstream: SocketAddr,
    apart: Vec<String>,
    secrets: Secrets,
    /// What was asked for, what is, and what may be.
    rows: Vec<Vec<String>>,
}

fn main() {
    let wanted = Wanted::from_arguments();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let secrets = Secrets::new(folder.path(), wanted.of(TOKENS, TOKENS, 2_000));
    let apart = process::apart();
    let mut bench = Bench { wanted, upstream: load::answering(), apart, secrets, rows: Vec::new() };
    for (name, part) in [
        ("miss", Bench::miss as fn(&mut Bench)),
        ("principals", Bench::principals),
        ("parallel", Bench::parallel),
        ("passwords", Bench::passwords),
        ("start", Bench::start_up),
        ("reload", Bench::reload),
    ] {
        if bench.wanted.includes(name) {
            part(&mut bench);
        }
    }
    let head = ["what", "measured", "goal"];
    bench.wanted.tell("cold paths", &table(&head, &bench.rows));
}

/// For these rules, and with no limit on bad credentials, so that what holds is not that a flood is turned away early.
fn configuration(ttl: &str, admin: u16, more: &str, routes: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:{admin}' }}
workers: 1
store: sqlite:store.db
log: {{ access: off, audit: off }}
limits: {{ unauthenticated: off, token_endpoints: {{ per_address: off, per_account: off, per_account_anywhere: off }} }}
auth:
  cache: {{ ttl: {ttl} }}
  jwt: {{ issuer: bench, roles: role, keys: [{{ id: hs256, algorithm: HS256, secret: {HMAC_SECRET} }}] }}
{more}
routes:
{routes}"
    )
}

const OF_ROLE: &str = "  - { path: /x, allow: [admin], to: api }\n";

fn authorized(value: &str) -> Vec<u8> {
    get("/x", &format!("Authorization: {value}\r\n"))
}

impl Bench {
    fn gateway(&self, configuration: &str, folder: &Path) -> (Ending, Target) {
        let (ending, address) = gateway_under(&self.apart, folder, configuration, self.upstream);
        (ending, Target { address, tls: None })
    }

    /// A store with a user who has all tokens, and one with a hash of another application.
    fn store(&self) -> tempfile::TempDir {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("fill.yaml");
        let text = format!(
            "store: sqlite:store.db\ntokens: {{ default_role: {ROLE} }}\nupstreams: {{ api: {{ servers: ['http://127.0.0.1:1'] }} }}\n\
             routes: [{{ path: /, allow: anyone, to: api }}]\n"
        );
        fs::write(&path, text).unwrap();
        let mut import = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        import.args(["import", "htpasswd"]).arg(self.secrets.file("htpasswd")).arg("--config").arg(&path);
        let imported = import.stdin(Stdio::null()).output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        self.secrets.fill_store(&folder.path().join("store.db"), self.secrets.tokens.len());
        folder
    }

    fn span(&self) -> Duration {
        self.wanted.of(Duration::from_secs(4), Duration::from_secs(2), Duration::from_millis(100))
    }

    fn note(&mut self, what: &str, measured: String, goal: &str) {
        println!("{what}: {measured} ({goal})");
        self.rows.push(vec![what.to_owned(), measured, goal.to_owned()]);
    }

    /// One caller, one request after the other: by a credential that is remembered, and by ones that are not.
    fn miss(&mut self) {
        let folder = self.store();
        let (_gateway, target) = self.gateway(&configuration("1h", 0, "", OF_ROLE), folder.path());
        let count = self.wanted.of(500, 200, 20);
        let values = self.secrets.authorizations(Proof::Token, usize::MAX);
        let mut fresh =
            Callers::new(target.clone(), 1, values[1..].iter().map(|value| authorized(value)).collect(), 200);
        let mut known = Callers::new(target, 1, vec![authorized(&values[0])], 200);
        let mut beyond = Vec::new();
        for _ in 0..self.wanted.of(20, 6, 2) {
            let [hit, miss] = [&mut known, &mut fresh].map(|callers| {
                let mut done = callers.ask(Until::Asked(count));
                assert!(done.errors == 0, "{} of {count} went wrong", done.errors);
                micros(within(&mut done.took, 50.0))
            });
            beyond.push(miss - hit);
        }
        let told = format!("{:.0} us", median(beyond));
        self.note("a token's look-up on SQLite, beyond a hit", told, "60 us");
    }

    /// Others, while so many principals come that nobody has seen; and while as many requests come of one that is known.
    fn principals(&mut self) {
        let span = self.span();
        let rate = self.wanted.of(NEW_PER_SECOND, NEW_PER_SECOND, 500);
        let count = (span.as_secs_f64() * f64::from(rate)) as usize;
        for (what, proof) in [("JWTs, each of its own subject", Proof::Hs256), ("tokens of the store", Proof::Token)] {
            let folder = self.store();
            let (_gateway, target) = self.gateway(&configuration("1h", 0, "", OF_ROLE), folder.path());
            let mut values = self.secrets.authorizations(proof, count + 1);
            let known = [authorized(&values.swap_remove(0))];
            let new: Vec<Vec<u8>> = values.iter().map(|value| authorized(value)).collect();
            let address = target.address;
            let quiet = others(address, &known, span);
            let flood = |requests: &[Vec<u8>]| {
                std::thread::scope(|scope| {
                    let flood = scope.spawn(|| {
                        let begun = Instant::now();
                        let took = paced::latencies(address, requests, NEW_CALLERS, rate, span);
                        took.len() as f64 / begun.elapsed().as_secs_f64()
                    });
                    let p99 = others(address, &known, span);
                    (p99, flood.join().unwrap())
                })
            };
            let (same, _) = flood(&known);
            let (p99, came) = flood(&new);
            let told = format!(
                "{p99:.2} ms while {came:.0} a second come; {same:.2} ms while as many of one come; {quiet:.2} ms alone"
            );
            self.note(&format!("p99 of others beside new principals: {what}"), told, "twice at 10,000 a second");
        }
    }

    /// So many requests at once with one token that nobody has seen.
    fn parallel(&mut self) {
        let folder = self.store();
        let admin = free_port();
        let (_gateway, target) = self.gateway(&configuration("1h", admin, "", OF_ROLE), folder.path());
        let count = self.wanted.of(PARALLEL, PARALLEL, 100);
        let values = self.secrets.authorizations(Proof::Token, 2);
        // the first are there to connect all of them
        let mut requests = vec![authorized(&values[0]); count];
        requests.extend(vec![authorized(&values[1]); count]);
        let mut callers = Callers::new(target, count, requests, 200);
        let mut looked_up = Vec::new();
        for _ in 0..2 {
            let before = look_ups(admin);
            let done = callers.ask(Until::Asked(count));
            assert!(done.errors == 0, "{} of {count} went wrong", done.errors);
            looked_up.push(look_ups(admin) - before);
        }
        let told = format!("{} look-up", looked_up[1]);
        self.note(&format!("{count} requests at once with one new token"), told, "1 look-up");
    }

    /// Others, while passwords are guessed by many.
    fn passwords(&mut self) {
        let more = "bootstrap: { users: [{ name: own, password: correct horse, roles: [admin] }] }";
        let span = self.span();
        let known = [authorized(&self.secrets.authorizations(Proof::Basic, 1)[0])];
        for (what, user) in [("argon2id", "own"), ("bcrypt of cost 10", USER)] {
            let folders = [self.store(), self.store()];
            let text = configuration("1h", 0, more, OF_ROLE);
            let [(_one, target), (_other, beside)] =
                folders.each_ref().map(|folder| self.gateway(&text, folder.path()));
            let quiet = others(target.address, &known, span);
            let [beside, flooded] = [beside, target.clone()].map(|flooded| {
                let over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let flood = scope.spawn(|| guess(&flooded, user, &over));
                    let p99 = others(target.address, &known, span);
                    over.store(true, Ordering::Relaxed);
                    (p99, flood.join().unwrap())
                })
            });
            let told = format!(
                "{:.2} ms; {:.2} ms while as many are guessed at another gateway; {quiet:.2} ms alone",
                flooded.0, beside.0
            );
            self.note(&format!("p99 of others while {GUESSERS} guess passwords: {what}"), told, "as it was");
        }
    }

    fn start_up(&mut self) {
        let folder = self.store();
        let routes = rules(self.wanted.of(ROUTES, ROUTES, 100), "");
        let mut took = Vec::new();
        for _ in 0..self.wanted.of(5, 3, 1) {
            let begun = Instant::now();
            let (gateway, _) = self.gateway(&configuration("1h", 0, "", &routes), folder.path());
            took.push(begun.elapsed().as_secs_f64());
            drop(gateway);
        }
        let told = format!("{:.2} s", median(took));
        self.note("ready, with 10,000 routes and 100,000 tokens", told, "0.5 s");
    }

    /// From the signal to the first answer by the new rules; and others, who ask more often for it.
    fn reload(&mut self) {
        let folder = self.store();
        let count = self.wanted.of(ROUTES, ROUTES, 100);
        let two = if self.apart.is_empty() { Vec::new() } else { ["taskset", "-c", "0-1"].map(str::to_owned).to_vec() };
        self.apart = two;
        let text = |extra: &str| configuration("1h", 0, "", &rules(count, extra));
        let (gateway, target) = self.gateway(&text(""), folder.path());
        let path = folder.path().join("gateway.yaml");
        let end = fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
        let known = [authorized(&self.secrets.authorizations(Proof::Basic, 1)[0])];
        let quiet = others(target.address, &known, self.span());
        let (over, process) = (AtomicBool::new(false), gateway.0.id().to_string());
        let (p99, took) = std::thread::scope(|scope| {
            let reloads = scope.spawn(|| {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let name = format!("/new{}", took.len());
                    let rule = format!("  - {{ path: {name}, allow: anyone, to: api }}\n");
                    let next = folder.path().join("next.yaml");
                    fs::write(&next, format!("{}{end}\n", text(&rule))).unwrap();
                    let begun = Instant::now();
                    fs::rename(&next, &path).unwrap();
                    Command::new("kill").args(["-HUP", &process]).status().unwrap();
                    while once(&target, &get(&name, "")).unwrap().0 != 200 {
                        assert!(begun.elapsed() < Duration::from_secs(20), "it did not reload");
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    took.push(begun.elapsed().as_secs_f64());
                    std::thread::sleep(Duration::from_millis(300));
                }
                took
            });
            let p99 = others(target.address, &known, self.span());
            over.store(true, Ordering::Relaxed);
            (p99, reloads.join().unwrap())
        });
        let told = format!("{:.3} s (of {})", median(took.clone()), took.len());
        self.note("a reload with 10,000 routes", told, "0.2 s");
        self.note(
            "p99 of others during reloads, two a second or so",
            format!("{p99:.2} ms; {quiet:.2} ms alone"),
            "no step",
        );
    }
}

fn rules(count: usize, extra: &str) -> String {
    let rule = |number| format!("  - {{ path: /r{number:05}/**, allow: [{ROLE}], to: api }}\n");
    OF_ROLE.to_owned() + extra + &(0..count).map(rule).collect::<String>()
}

/// In milliseconds.
fn others(address: SocketAddr, requests: &[Vec<u8>], span: Duration) -> f64 {
    // the first is the one that is then remembered
    once(&Target { address, tls: None }, &requests[0]).unwrap();
    let mut took = paced::latencies(address, requests, 1, OTHERS_PER_SECOND, span);
    micros(within(&mut took, 99.0)) / 1000.0
}

/// Wrong passwords of this user, each another one; who is told to come back does so at once.
fn guess(target: &Target, user: &str, over: &AtomicBool) {
    let mut number = 0;
    let callers = |requests| Callers::new(target.clone(), GUESSERS, requests, 401);
    while !over.load(Ordering::Relaxed) {
        let requests = (0..GUESSERS * 4).map(|_| {
            number += 1;
            authorized(&format!("Basic {}", STANDARD.encode(format!("{user}:guess-{number}"))))
        });
        let requests: Vec<Vec<u8>> = requests.collect();
        // where all threads are busy they are answered 503, which is no error of theirs
        callers(requests).ask(Until::Passed(Duration::from_millis(100)));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// How often the store was asked for a token, by what the gateway says of itself.
fn look_ups(admin: u16) -> u64 {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", admin)).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let name = "portcullis_store_duration_seconds_count{operation=\"token\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}
