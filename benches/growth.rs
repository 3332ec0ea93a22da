//! How what a request costs grows: with routes, with tokens in the store, with connections, workers and the sizes of bodies; and
//! what the gateway remembers takes.
//!
//! One gateway for each size, asked in turns, so that what else the machine does meets all of them alike: what counts is the
//! CPU time of a request as a part of the first size's in the same round, and of that the median.
//!
//!     cargo bench --bench growth [-- [--short] [--largest] [--write] [PART]…]
//!
//! With `--largest` there are ten million tokens too, which takes a few minutes and some 2 GiB of disk.
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
#[path = "support/plot.rs"]
mod plot;
#[path = "support/process.rs"]
mod process;
#[path = "support/secrets.rs"]
mod secrets;
mod support;
#[allow(unreachable_pub, clippy::pedantic, reason = "of the tests")]
#[path = "../tests/gateway/support/wait.rs"]
mod wait;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use figures::{Wanted, median, table};
use load::{Callers, Target, Until, get};
use plot::grouped;
use process::{Cpu, memory};
use secrets::{HMAC_SECRET, Proof, ROLE, Secrets, USER};
use support::{Ending, gateway_under};

const ROUTES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const ROUTES_ASKED: usize = 1_000;
const TOKENS: [usize; 4] = [1_000, 100_000, 1_000_000, 10_000_000];
const TOKENS_ASKED: usize = 1_000;
const CONNECTIONS: [usize; 5] = [10, 100, 1_000, 10_000, 20_000];
const BODIES: [usize; 6] = [128, 1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20];

/// Connections that ask at once, and requests of one round.
const BUSY: usize = 32;
const REQUESTS: usize = 8_000;
const ROUNDS: usize = 9;

/// What a bench and a gateway open beside the connections that are counted.
const DESCRIPTORS_BESIDE: usize = 500;

/// Principals and keys of limits that memory is measured with.
const REMEMBERED: usize = 100_000;

/// A gateway, and who asks it.
struct Asked {
    gateway: Ending,
    callers: Callers,
    _folder: tempfile::TempDir,
}

/// What all parts share.
struct Bench {
    wanted: Wanted,
    upstream: SocketAddr,
    apart: Vec<String>,
}

/// Of one size: microseconds of a request, and the part of the first size's.
struct Cost {
    each: f64,
    part: f64,
}

fn main() {
    let wanted = Wanted::from_arguments();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let apart = process::apart();
    let bench = Bench { wanted, upstream: load::answering(), apart };
    for (name, part) in [
        ("routes", Bench::routes as fn(&Bench)),
        ("tokens", Bench::tokens),
        ("connections", Bench::connections),
        ("workers", Bench::workers),
        ("bodies", Bench::bodies),
        ("memory", Bench::memory),
    ] {
        if bench.wanted.includes(name) {
            part(&bench);
        }
    }
}

/// The sections that all of them have, and these rules.
fn configuration(workers: usize, more: &str, routes: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:0' }}
workers: {workers}
store: sqlite:store.db
log: {{ access: off, audit: off, level: info }}
{more}
routes:
{routes}"
    )
}

const ANYONE: &str = "  - { path: /**, allow: anyone, to: api }\n";
const OF_ROLE: &str = "  - { path: /**, allow: [admin], to: api }\n";

impl Bench {
    fn start(&self, configuration: &str, folder: &Path) -> (Ending, SocketAddr) {
        gateway_under(&self.apart, folder, configuration, self.upstream)
    }

    fn asked(&self, configuration: &str, connections: usize, requests: Vec<Vec<u8>>) -> Asked {
        let folder = tempfile::TempDir::new().unwrap();
        let (gateway, address) = self.start(configuration, folder.path());
        let callers = Callers::new(Target { address, tls: None }, connections, requests, 200);
        Asked { gateway, callers, _folder: folder }
    }

    fn rounds(&self) -> usize {
        self.wanted.of(ROUNDS, 3, 1)
    }

    fn requests(&self) -> usize {
        self.wanted.of(REQUESTS, REQUESTS / 3, BUSY)
    }

    /// Asks all of them in turns, after they were asked once for everything.
    fn in_turns(&self, asked: &mut [Asked], count: impl Fn(usize) -> usize) -> Vec<Cost> {
        let mut of_rounds: Vec<Vec<f64>> = Vec::new();
        for round in 0..=self.rounds() {
            let costs = asked.iter_mut().enumerate().map(|(index, one)| one.ask(BUSY, count(index)));
            let costs: Vec<f64> = costs.collect();
            if round > 0 {
                of_rounds.push(costs);
            }
        }
        let cost = |index: usize| Cost {
            each: median(of_rounds.iter().map(|round| round[index]).collect()),
            part: median(of_rounds.iter().map(|round| round[index] / round[0]).collect()),
        };
        (0..asked.len()).map(cost).collect()
    }

    fn routes(&self) {
        let sizes = self.wanted.of(&ROUTES[..], &ROUTES[..3], &ROUTES[..2]);
        let path = |number: usize| format!("/r{number:06}");
        let mut asked: Vec<Asked> = sizes
            .iter()
            .map(|&routes| {
                let rule = |number| format!("  - {{ path: {}/**, allow: anyone, to: api }}\n", path(number));
                let rules: String = (0..routes).map(rule).collect();
                let numbers = (0..routes).step_by(routes.div_ceil(ROUTES_ASKED)).map(|number| number * 7919 % routes);
                let requests = numbers.map(|number| get(&format!("{}/x", path(number)), "")).collect();
                self.asked(&configuration(1, "", &rules), BUSY, requests)
            })
            .collect();
        let costs = self.in_turns(&mut asked, |_| self.requests().max(ROUTES_ASKED));
        self.tell("growth: routes", "routes", sizes, &costs);
        let points = sizes.iter().zip(&costs).map(|(&size, cost)| (size as f64, cost.each)).collect();
        let title = "CPU time of a request among so many routes";
        self.wanted.draw("routes.svg", &plot::lines(title, "us", &[("anyone", points)]));
    }

    /// Of principals that are remembered, and of those that are looked up anew for each request.
    fn tokens(&self) {
        let has_largest = std::env::args().any(|argument| argument == "--largest");
        let sizes = self.wanted.of(&TOKENS[..3], &TOKENS[..2], &TOKENS[..1]);
        let sizes = if has_largest { &TOKENS[..] } else { sizes };
        let folders: Vec<_> = sizes.iter().map(|_| tempfile::TempDir::new().unwrap()).collect();
        let secrets = tempfile::TempDir::new().unwrap();
        let secrets = Secrets::new(secrets.path(), TOKENS_ASKED);
        let fields = secrets.authorizations(Proof::Token, TOKENS_ASKED);
        let requests: Vec<Vec<u8>> =
            fields.iter().map(|value| get("/x", &format!("Authorization: {value}\r\n"))).collect();
        for (folder, &size) in folders.iter().zip(sizes) {
            fill(folder.path(), &secrets, size);
        }
        let mut costs = Vec::new();
        for ttl in ["1h", "1ms"] {
            let store = |folder: &tempfile::TempDir| {
                let text = configuration(
                    1,
                    &format!("auth: {{ cache: {{ ttl: {ttl} }} }}\nlimits: {{ unauthenticated: off }}"),
                    OF_ROLE,
                );
                let path = folder.path().join("store.db").display().to_string();
                self.asked(&text.replace("sqlite:store.db", &format!("sqlite:{path}")), BUSY, requests.clone())
            };
            let mut asked: Vec<Asked> = folders.iter().map(store).collect();
            costs.push(self.in_turns(&mut asked, |_| self.requests().max(TOKENS_ASKED)));
        }
        let rows: Vec<Vec<String>> = sizes
            .iter()
            .enumerate()
            .map(|(index, &size)| {
                let mut row = vec![grouped(size as u64)];
                for costs in &costs {
                    row.extend([format!("{:.1}", costs[index].each), format!("{:.2}", costs[index].part)]);
                }
                row
            })
            .collect();
        let head = ["tokens", "remembered, us", "of the first", "looked up each time, us", "of the first"];
        self.wanted.tell("growth: tokens", &table(&head, &rows));
        let points = |costs: &[Cost]| sizes.iter().zip(costs).map(|(&size, cost)| (size as f64, cost.each)).collect();
        let series = [("remembered", points(&costs[0])), ("looked up each time", points(&costs[1]))];
        let title = "CPU time of a request among so many tokens in SQLite";
        self.wanted.draw("tokens.svg", &plot::lines(title, "us", &series));
    }

    /// All connections are kept and used in turn, by 32 requests at a time; beside a gateway that has 32 of them.
    fn connections(&self) {
        let (soft, _) = rlimit::Resource::NOFILE.get().unwrap();
        let most = usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_BESIDE);
        let mut sizes: Vec<usize> = CONNECTIONS.iter().map(|&size| size.min(most)).collect();
        sizes.truncate(self.wanted.of(5, 4, 2));
        let mut costs = Vec::new();
        for &size in &sizes {
            let text = configuration(1, &format!("limits: {{ connections: {} }}", size + 100), ANYONE);
            let asked = |connections| self.asked(&text, connections, vec![get("/x", "")]);
            let busy = BUSY.min(size);
            let mut both = [asked(busy), asked(size)];
            let mut rounds = Vec::new();
            for round in 0..=self.rounds().min(5) {
                let count = self.requests().max(size);
                let [few, many] = both.each_mut().map(|one| one.ask(busy, count));
                if round > 0 {
                    rounds.push((few, many));
                }
            }
            let each = median(rounds.iter().map(|(_, many)| *many).collect());
            costs.push(Cost { each, part: median(rounds.iter().map(|(few, many)| many / few).collect()) });
        }
        let rows = sizes
            .iter()
            .zip(&costs)
            .map(|(&size, cost)| vec![grouped(size as u64), format!("{:.1}", cost.each), format!("{:.2}", cost.part)]);
        let head = ["connections", "CPU us", "of a gateway that has only those which ask at once"];
        self.wanted.tell("growth: connections", &table(&head, &rows.collect::<Vec<_>>()));
    }

    /// On all processors, beside their callers.
    fn workers(&self) {
        let sizes = [1, 2];
        let bench = Self {
            wanted: Wanted::from_arguments(),
            upstream: self.upstream,
            apart: if self.apart.is_empty() {
                Vec::new()
            } else {
                ["taskset", "-c", "0-1"].map(str::to_owned).to_vec()
            },
        };
        let mut asked: Vec<Asked> = sizes
            .iter()
            .map(|&workers| bench.asked(&configuration(workers, "", ANYONE), BUSY, vec![get("/x", "")]))
            .collect();
        let costs = bench.in_turns(&mut asked, |_| bench.requests());
        bench.tell("growth: workers", "workers", &sizes, &costs);
    }

    fn bodies(&self) {
        let sizes = self.wanted.of(&BODIES[..], &BODIES[..5], &BODIES[..4]);
        let upload = |size: usize| {
            let mut request =
                format!("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n").into_bytes();
            request.resize(request.len() + size, b'x');
            request
        };
        let text = configuration(1, "", ANYONE);
        let down = sizes.iter().map(|size| self.asked(&text, BUSY, vec![get(&format!("/bytes/{size}"), "")]));
        let mut down: Vec<Asked> = down.collect();
        let mut up: Vec<Asked> = sizes.iter().map(|&size| self.asked(&text, BUSY, vec![upload(size)])).collect();
        // as many bytes of the large ones as make some seconds
        let count = |index: usize| self.requests().min((200 << 20) / sizes[index]).max(BUSY);
        let (down, up) = (self.in_turns(&mut down, count), self.in_turns(&mut up, count));
        let per_mib = |cost: &Cost, size: usize| {
            if size < 100 << 10 {
                String::new()
            } else {
                format!("{:.0}", cost.each * f64::from(1 << 20) / size as f64)
            }
        };
        let rows = sizes.iter().zip(down.iter().zip(&up)).map(|(&size, (down, up))| {
            let of = |cost: &Cost| [format!("{:.1}", cost.each), per_mib(cost, size)];
            [vec![grouped(size as u64)], of(down).to_vec(), of(up).to_vec()].concat()
        });
        let head = ["bytes", "down, CPU us", "for a MiB", "up, CPU us", "for a MiB"];
        self.wanted.tell("growth: bodies", &table(&head, &rows.collect::<Vec<_>>()));
    }

    /// What a remembered principal takes, and a key of a limit.
    fn memory(&self) {
        let count = self.wanted.of(REMEMBERED, REMEMBERED / 2, 200);
        let folder = tempfile::TempDir::new().unwrap();
        let secrets = Secrets::new(folder.path(), count);
        fill(folder.path(), &secrets, count);
        let more = format!(
            "auth:
  cache: {{ ttl: 1h, capacity: 400000 }}
  jwt: {{ issuer: bench, roles: role, keys: [{{ id: hs256, algorithm: HS256, secret: {HMAC_SECRET} }}] }}
trusted_proxies: [127.0.0.1]
limits: {{ unauthenticated: off }}"
        );
        let rules = format!(
            "{OF_ROLE}  - {{ path: /principal, allow: [{ROLE}], rate: {{ rate: 1/h, burst: 9, by: principal }}, to: api }}
  - {{ path: /address, allow: anyone, rate: {{ rate: 1/h, burst: 9, by: address }}, to: api }}\n"
        );
        let (gateway, address) = self.start(&configuration(1, &more, &rules), folder.path());
        let fields = |proof| {
            let values = secrets.authorizations(proof, count);
            values.into_iter().map(|value| format!("Authorization: {value}\r\n")).collect::<Vec<_>>()
        };
        let (bearer, token) = (fields(Proof::Hs256), fields(Proof::Token));
        let from =
            |number: usize| format!("X-Forwarded-For: 10.{}.{}.{}\r\n", number >> 16, number >> 8 & 255, number & 255);
        let addresses: Vec<String> = (0..count).map(from).collect();
        let mut rows = Vec::new();
        for (what, path, fields, bound) in [
            ("principal of a JWT, each its own subject", "/x", &bearer, "512"),
            ("principal of an opaque token of the store", "/x", &token, "512"),
            ("key of a limit by principal", "/principal", &bearer, "100"),
            ("key of a limit by address", "/address", &addresses, "100"),
        ] {
            let ask = |part: &[String]| {
                let requests = part.iter().map(|fields| get(path, fields)).collect();
                let mut callers = Callers::new(Target { address, tls: None }, BUSY, requests, 200);
                let done = callers.ask(Until::Asked(part.len()));
                assert!(done.errors == 0, "{what}: {} of {} went wrong", done.errors, part.len());
            };
            // the first of them take what is there for the first and for all
            let (first, rest) = fields.split_at(count / 10);
            ask(first);
            std::thread::sleep(SETTLED);
            let before = memory(gateway.0.id());
            ask(rest);
            std::thread::sleep(SETTLED);
            let took = memory(gateway.0.id()).saturating_sub(before) as f64 / rest.len() as f64;
            rows.push(vec![what.to_owned(), format!("{took:.0}"), bound.to_owned()]);
        }
        self.wanted.tell("growth: memory", &table(&["what is remembered", "bytes", "goal"], &rows));
    }

    fn tell(&self, part: &str, what: &str, sizes: &[usize], costs: &[Cost]) {
        let rows = sizes
            .iter()
            .zip(costs)
            .map(|(&size, cost)| vec![grouped(size as u64), format!("{:.1}", cost.each), format!("{:.2}", cost.part)]);
        let head = [what, "CPU us", "of the first"];
        self.wanted.tell(part, &table(&head, &rows.collect::<Vec<_>>()));
    }
}

/// How long after its last request memory that was for requests is given back.
const SETTLED: Duration = Duration::from_millis(300);

impl Asked {
    /// Microseconds of CPU time for a request, of so many.
    fn ask(&mut self, busy: usize, count: usize) -> f64 {
        let before = Cpu::of(self.gateway.0.id());
        let done = self.callers.ask_with(busy, Until::Asked(count));
        assert!(done.errors == 0, "{} of {} went wrong", done.errors, done.answers);
        Cpu::of(self.gateway.0.id()).since(&before) as f64 / 1000.0 / done.answers as f64
    }
}

/// A store in this folder with a user who has so many tokens.
fn fill(folder: &Path, secrets: &Secrets, tokens: usize) {
    let text = "store: sqlite:store.db\nupstreams: { api: { servers: ['http://127.0.0.1:1'] } }\nroutes: []\n";
    let path = folder.join("fill.yaml");
    std::fs::write(&path, text.replace("routes: []", "routes: [{ path: /, allow: anyone, to: api }]")).unwrap();
    let mut add = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    add.args(["user", "add", USER, "--role", ROLE, "--config"]).arg(&path).stdin(Stdio::null());
    let added = add.output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    secrets.fill_store(&folder.join("store.db"), tokens);
}
