//! What a request costs, counted and not timed, so that it comes out the same on a busy machine: instructions of the worker's
//! thread (callgrind) and system calls of the process (strace). Each is counted twice, with few requests and with many; the
//! difference is what requests alone cost.
//!
//! Of the lines of memory that a request among ten thousand routes touches, those are counted that one among ten has at hand
//! (the misses of a simulated cache), since they cost more than the instructions do and no instruction tells of them.
//!
//!     cargo bench --bench gate                 # fails where a request costs 3 % more than benches/baseline.txt says
//!     cargo bench --bench gate -- --accept     # writes what it costs now into that file
//!
//! Needs valgrind and strace. Valgrind shows a program the same processor on every machine that has AVX2, so that libraries
//! choose the same code for it. Another compiler makes other code: a baseline is for the compiler and processor that it names,
//! and elsewhere is told of and not held to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a bench waits in real time for tools")]
#![allow(clippy::indexing_slicing, reason = "of arrays whose length is known, or that are never empty")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells a person")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use support::{Ending, gateway, gateway_under, upstream};

const SECRET: &str = "a secret of a bench, of 32 bytes or more";

const CONFIGURATION: &str = "
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
workers: 1
log: { access: off, audit: off }
limits: { unauthenticated: off }
auth:
  cache: { ttl: 1h, negative_ttl: 1h }
  jwt: { issuer: bench, roles: role, keys: [{ id: k, algorithm: HS256, secret: 'a secret of a bench, of 32 bytes or more' }] }
routes:
  - { path: /open/**, allow: anyone, to: api }
  - { path: /user/**, allow: [user], to: api }
";

/// A part of what it was.
const TOLERANCE: f64 = 0.03;

/// What is counted is the difference between so many requests and so many.
const FEW: u32 = 1000;
const MANY: u32 = 4000;

/// Reads and writes of one request that is forwarded: its own, and that of the upstream's response.
const READS: f64 = 2.0;
const WRITES: f64 = 2.0;

/// How many routes, twice; of the many, so many are asked for in turn, which are more than a processor remembers.
const ROUTES: [usize; 2] = [10, 10_000];
const ROUTES_ASKED: usize = 1000;

/// Instructions and lines of memory that a request among many routes may take more than one among few. The lines come out
/// between 4 and 22, by where in the cache things happen to lie; before routes were laid out for it they were 74.
const INSTRUCTIONS_MORE: f64 = 200.0;
const LINES_MORE: f64 = 40.0;

/// What other threads may do meanwhile, for a request; on a slow machine it is more.
const BESIDE: f64 = 0.5;

/// In unix seconds: always the same token.
const IN_2100: u64 = 4_102_444_800;

/// How long a gateway may take to end; with a tool around it everything takes fifty times as long.
const END_WITHIN: Duration = Duration::from_mins(2);

/// One kind of request.
struct Case {
    name: &'static str,
    path: &'static str,
    /// Whole lines.
    fields: String,
    status: u16,
}

fn cases() -> [Case; 3] {
    let claims = serde_json::json!({ "iss": "bench", "sub": "ann", "role": "user", "exp": IN_2100 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let authorization = |credential: &str| format!("Authorization: Bearer {credential}\r\n");
    [
        Case { name: "authorised", path: "/user/x", fields: authorization(&token), status: 200 },
        Case { name: "anyone", path: "/open/x", fields: String::new(), status: 200 },
        Case { name: "refused", path: "/user/x", fields: authorization("not.a.token"), status: 401 },
    ]
}

/// A caller that sends requests in turn, again and again, over one connection.
struct Caller {
    socket: TcpStream,
    requests: Vec<String>,
    next: usize,
    answer: Vec<u8>,
}

impl Caller {
    fn new(address: SocketAddr, case: &Case) -> Self {
        Self::of_paths(address, case, &[case.path])
    }

    /// With these paths instead of the case's own.
    fn of_paths(address: SocketAddr, case: &Case, paths: &[impl AsRef<str>]) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let fields = &case.fields;
        let request = |path: &str| {
            // not the address, whose port has as many digits as it happens to have
            format!("GET {path} HTTP/1.1\r\nHost: gate.example\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n")
        };
        let requests = paths.iter().map(|path| request(path.as_ref())).collect();
        Self { socket, requests, next: 0, answer: Vec::new() }
    }

    /// One request and its whole response; gives the status.
    fn ask(&mut self) -> u16 {
        let request = &self.requests[self.next % self.requests.len()];
        self.next += 1;
        self.socket.write_all(request.as_bytes()).unwrap();
        self.answer.clear();
        loop {
            let mut part = [0; 1024];
            let count = self.socket.read(&mut part).unwrap();
            assert!(count > 0, "closed after {}", String::from_utf8_lossy(&self.answer));
            self.answer.extend(part.iter().take(count));
            if let Some(status) = complete(&self.answer) {
                return status;
            }
        }
    }
}

/// The status of a response, once all of it is there.
fn complete(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    (body.len() >= length).then(|| head.split(' ').nth(1)?.parse().ok()).flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        run_once();
        return ExitCode::SUCCESS;
    }
    let cases = cases();
    let counted: Vec<(&str, f64)> = cases.iter().map(|case| (case.name, instructions(case))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.txt");
    if arguments.iter().any(|argument| argument == "--accept") {
        let lines = counted.iter().map(|(name, count)| format!("{name} {count:.0}\n"));
        std::fs::write(&path, format!("{}\n{}", toolchain(), lines.collect::<String>())).unwrap();
        println!("benches/baseline.txt is what it costs now");
    }
    let baseline = Baseline::parse(&std::fs::read_to_string(&path).unwrap_or_default());
    let cheap = counted.iter().fold(true, |cheap, (name, count)| baseline.bounds(name, *count) && cheap);
    let flat = flat(&cases[1]);
    let calls = few_calls(&cases[0]);
    if cheap && flat && calls { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `cargo test --benches` only wants to know that it runs.
fn run_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let (_gateway, address) = gateway(folder.path(), CONFIGURATION, upstream());
    for case in cases() {
        assert_eq!(Caller::new(address, &case).ask(), case.status, "{}", case.name);
    }
}

/// What makes the code that is counted.
fn toolchain() -> String {
    let said = Command::new("rustc").arg("--version").output().unwrap().stdout;
    #[cfg(target_arch = "x86_64")]
    let processor = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let processor = "";
    format!("{} {} {processor}", String::from_utf8_lossy(&said).trim(), std::env::consts::ARCH)
}

/// What requests cost when it was accepted.
struct Baseline {
    toolchain: String,
    costs: BTreeMap<String, f64>,
}

impl Baseline {
    fn parse(text: &str) -> Self {
        let (toolchain, lines) = text.split_once('\n').unwrap_or_default();
        let costs = lines.lines().filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Self { toolchain: toolchain.to_owned(), costs: costs.collect() }
    }

    /// Tells what such a request costs; whether that is not much more than it was.
    fn bounds(&self, name: &str, count: f64) -> bool {
        const ACCEPT: &str = "cargo bench --bench gate -- --accept";
        let Some(before) = self.costs.get(name) else {
            eprintln!("gate: benches/baseline.txt has no line for `{name}`; write it: {ACCEPT}");
            return false;
        };
        let change = (count / before - 1.0) * 100.0;
        println!("{name:>12}: {count:>7.0} instructions a request ({change:+.2} % against {before:.0})");
        if self.toolchain != toolchain() {
            println!(
                "{:>12}  not held to it, which is of {}, and this is {}: {ACCEPT}",
                "",
                self.toolchain,
                toolchain()
            );
            return true;
        }
        if change > TOLERANCE * 100.0 {
            eprintln!(
                "gate: a request that is {name} takes {change:.1} % more instructions than benches/baseline.txt says, and \
                 {:.0} % may be. If what it buys is worth that, accept it: {ACCEPT}",
                TOLERANCE * 100.0
            );
            return false;
        }
        if change < -TOLERANCE * 100.0 {
            println!("{:>12}  better; keep it so: {ACCEPT}", "");
        }
        true
    }
}

/// Instructions of the worker for one request.
fn instructions(case: &Case) -> f64 {
    let [few, many] = [FEW, MANY].map(|requests| {
        let folder = tempfile::TempDir::new().unwrap();
        // A file for each thread: what runs beside requests (polling the store, timers) takes its time by the clock.
        let valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes", "--vgdb=no"];
        let mut under: Vec<String> = valgrind.map(str::to_owned).to_vec();
        under.push(format!("--callgrind-out-file={}/callgrind.out", folder.path().display()));
        run(&under, folder.path(), case, requests);
        of_worker(folder.path())[0]
    });
    (many - few) / f64::from(MANY - FEW)
}

/// Whether a request among many routes costs what one among few does.
fn flat(case: &Case) -> bool {
    let [few, many] = ROUTES.map(|routes| among_routes(case, routes));
    let [instructions, lines] = [0, 1].map(|index| many[index] - few[index]);
    println!(
        "{:>12}: {instructions:+.0} instructions and {lines:+.1} lines of memory a request among {} against {}",
        "routes", ROUTES[1], ROUTES[0]
    );
    if instructions > INSTRUCTIONS_MORE || lines > LINES_MORE {
        eprintln!("gate: more than {INSTRUCTIONS_MORE} instructions or {LINES_MORE} lines of memory for many routes");
        return false;
    }
    true
}

/// Instructions of the worker for one request among so many routes, and lines of memory that it had not at hand.
fn among_routes(case: &Case, routes: usize) -> [f64; 2] {
    let path = |number: usize| format!("/r{number:05}");
    let rules = (0..routes).map(|number| format!("  - {{ path: {}/**, allow: anyone, to: api }}\n", path(number)));
    let configuration = format!("{CONFIGURATION}{}", rules.collect::<String>());
    let step = routes.div_ceil(ROUTES_ASKED);
    // not in the order in which they stand
    let asked: Vec<usize> = (0..routes).step_by(step).map(|number| number * 7919 % routes).collect();
    let paths: Vec<String> = asked.into_iter().map(|number| format!("{}/x", path(number))).collect();
    let [few, many] = [FEW, MANY].map(|requests| {
        let folder = tempfile::TempDir::new().unwrap();
        let valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes", "--vgdb=no"];
        // the same caches on every machine
        let caches = ["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,8,64"];
        let mut under: Vec<String> = valgrind.into_iter().chain(caches).map(str::to_owned).collect();
        under.push(format!("--callgrind-out-file={}/callgrind.out", folder.path().display()));
        let (gateway, address) = gateway_under(&under, folder.path(), &configuration, upstream());
        ask_all(Caller::of_paths(address, case, &paths), case, requests);
        end(gateway);
        let counted = of_worker(folder.path());
        // Ir Dr Dw I1mr D1mr D1mw ...
        [counted[0], counted[4] + counted[5]]
    });
    [0, 1].map(|index| (many[index] - few[index]) / f64::from(MANY - FEW))
}

/// Sends so many requests to a gateway, from its start to its end.
fn run(under: &[String], folder: &Path, case: &Case, requests: u32) {
    let (gateway, address) = gateway_under(under, folder, CONFIGURATION, upstream());
    ask_all(Caller::new(address, case), case, requests);
    end(gateway);
}

/// Asks a gateway to end, and waits until it has.
fn end(mut gateway: Ending) {
    let told = Command::new("kill").arg(gateway.0.id().to_string()).status();
    assert!(told.is_ok_and(|status| status.success()));
    let begun = Instant::now();
    while gateway.0.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < END_WITHIN, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask_all(mut caller: Caller, case: &Case, requests: u32) {
    for _ in 0..requests {
        assert_eq!(caller.ask(), case.status, "{}", case.name);
    }
}

/// The totals of the worker's thread, which is the one that serves callers.
fn of_worker(folder: &Path) -> Vec<f64> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("callgrind.out"));
    let totals = files.filter_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
        let totals: Vec<f64> = totals.split_whitespace().filter_map(|total| total.parse().ok()).collect();
        text.contains("portcullis::listen::http1").then_some(totals)
    });
    let mut workers: Vec<Vec<f64>> = totals.collect();
    assert_eq!(workers.len(), 1, "callgrind tells of other workers than the one that there is");
    workers.remove(0)
}

/// Whether a request that is forwarded takes two reads and two writes.
fn few_calls(case: &Case) -> bool {
    let may_trace =
        Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).status().expect("strace is installed");
    if !may_trace.success() {
        println!("{:>12}: not counted, since this machine lets nobody trace a process", "calls");
        return true;
    }
    let [few, many] = [FEW, MANY].map(|requests| {
        let folder = tempfile::TempDir::new().unwrap();
        let out = folder.path().join("strace.out");
        // -D: the tracer stands beside the gateway, which is then ours to end
        let strace = ["strace", "-D", "-f", "-c", "-o", out.to_str().unwrap()];
        run(&strace.map(str::to_owned), folder.path(), case, requests);
        calls(&written(&out))
    });
    let calls: BTreeMap<&String, f64> = many
        .iter()
        .map(|(name, count)| (name, (count - few.get(name).unwrap_or(&0.0)) / f64::from(MANY - FEW)))
        .filter(|(_, count)| *count > 0.01)
        .collect();
    let sum = |names: &[&str]| names.iter().filter_map(|&name| calls.get(&name.to_owned())).sum::<f64>();
    let (reads, writes) =
        (sum(&["read", "readv", "recvfrom", "recvmsg"]), sum(&["write", "writev", "sendto", "sendmsg"]));
    let waits = sum(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
    println!("{:>12}: {reads:.2} reads, {writes:.2} writes, {waits:.2} waits a request", "calls");
    let fits = |found: f64, expected: f64| (expected - BESIDE..expected + BESIDE).contains(&found);
    if !fits(reads, READS) || !fits(writes, WRITES) {
        eprintln!("gate: a request that is forwarded takes {READS} reads and {WRITES} writes; found {calls:.2?}");
        return false;
    }
    true
}

/// What strace writes once the gateway has ended, whole.
fn written(out: &Path) -> String {
    let begun = Instant::now();
    loop {
        let table = std::fs::read_to_string(out).unwrap_or_default();
        if table.trim_end().ends_with(" total") {
            return table;
        }
        assert!(begun.elapsed() < END_WITHIN, "strace wrote no table");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The table that strace writes: how often each call was made.
fn calls(table: &str) -> BTreeMap<String, f64> {
    let lines = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, count, .., name] = words[..] else { return None };
        Some((name.to_owned(), count.parse().ok()?))
    });
    lines.filter(|(name, _)| name != "total").collect()
}
