//! What a request costs, counted and not timed, so that it comes out the same on a busy machine: instructions of the worker's
//! thread (callgrind) and system calls (strace), between two points at which only requests differ.
//!
//!     cargo bench --bench gate                 # fails where a request costs 3 % more than benches/baseline.txt says
//!     cargo bench --bench gate -- --accept     # writes what it costs now into that file
//!
//! Needs valgrind and strace, and the right to trace one's own processes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells a person")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis::clock::Clock;
use support::{gateway, gateway_under, upstream};

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

/// Requests before anything is counted: connections are there, caches and tables have their size.
const WARM_UP: u32 = 500;

/// What is counted is the difference between so many requests and so many.
const FEW: u32 = 1000;
const MANY: u32 = 3000;

/// Requests whose system calls are counted.
const TRACED: u32 = 2000;

/// Reads and writes of one request that is forwarded: its own, and that of the upstream's response.
const READS: f64 = 2.0;
const WRITES: f64 = 2.0;

/// What other threads do meanwhile, for a request.
const BESIDE: f64 = 0.1;

/// Name, path, fields, status.
type Case = (&'static str, &'static str, String, u16);

fn cases() -> [Case; 3] {
    let claims =
        serde_json::json!({ "iss": "bench", "sub": "ann", "role": "user", "exp": Clock::system().unix() + 86_400 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    [
        ("authorised", "/user/x", bearer, 200),
        ("anyone", "/open/x", String::new(), 200),
        ("refused", "/user/x", "Authorization: Bearer not.a.token\r\n".to_owned(), 401),
    ]
}

/// A caller that sends one request again and again over one connection.
struct Caller {
    socket: TcpStream,
    request: String,
    answer: Vec<u8>,
}

impl Caller {
    /// `fields` are whole lines.
    fn new(address: SocketAddr, path: &str, fields: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n");
        Self { socket, request, answer: Vec::new() }
    }

    /// One request and its whole response; gives the status.
    fn ask(&mut self) -> u16 {
        self.socket.write_all(self.request.as_bytes()).unwrap();
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
    let counted = count_instructions();
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.txt");
    if arguments.iter().any(|argument| argument == "--accept") {
        let lines: Vec<String> = counted.iter().map(|(name, count)| format!("{name} {count:.0}")).collect();
        std::fs::write(&baseline, lines.join("\n") + "\n").unwrap();
        println!("benches/baseline.txt is what it costs now");
    }
    let known = std::fs::read_to_string(&baseline).unwrap_or_default();
    let mut good = true;
    for (name, count) in &counted {
        good &= compare(name, *count, &known);
    }
    good &= count_calls();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `cargo test --benches` only wants to know that it runs.
fn run_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let (_gateway, address) = gateway(folder.path(), CONFIGURATION, upstream());
    for (name, path, fields, status) in cases() {
        assert_eq!(Caller::new(address, path, &fields).ask(), status, "{name}");
    }
}

fn compare(name: &str, count: f64, known: &str) -> bool {
    let line = known.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let Some(before) = line else {
        eprintln!(
            "gate: benches/baseline.txt has no line for `{name}`; write it: cargo bench --bench gate -- --accept"
        );
        return false;
    };
    let change = count / before - 1.0;
    println!("{name:>12}: {count:>7.0} instructions a request ({:+.1} % against {before:.0})", change * 100.0);
    if change > TOLERANCE {
        eprintln!(
            "gate: a request that is {name} takes {:.1} % more instructions than benches/baseline.txt says, and {:.0} % may \
             be. If it is worth that, accept it: cargo bench --bench gate -- --accept",
            change * 100.0,
            TOLERANCE * 100.0
        );
        return false;
    }
    if change < -TOLERANCE {
        println!("{:>12}  better; keep it so: cargo bench --bench gate -- --accept", "");
    }
    true
}

/// Instructions of the worker for one request of each case.
fn count_instructions() -> Vec<(&'static str, f64)> {
    let folder = tempfile::TempDir::new().unwrap();
    let out = folder.path().join("out");
    // A file for each thread: what runs beside requests (polling the store, timers) takes its time by the clock.
    let valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes", "--instr-atstart=no"];
    let mut under: Vec<String> = valgrind.map(str::to_owned).to_vec();
    under.push(format!("--callgrind-out-file={}", out.display()));
    let (gateway, address) = gateway_under(&under, folder.path(), CONFIGURATION, upstream());
    let tell = |command: &[&str]| {
        let mut vgdb = Command::new("vgdb");
        let told = vgdb.arg(format!("--pid={}", gateway.id())).args(command).stderr(Stdio::null()).status();
        assert!(told.is_ok_and(|status| status.success()), "vgdb {command:?} failed");
    };
    let mut dumps = 0;
    let mut counted = Vec::new();
    for (name, path, fields, status) in cases() {
        let mut caller = Caller::new(address, path, &fields);
        let mut ask = |times| (0..times).for_each(|_| assert_eq!(caller.ask(), status, "{name}"));
        ask(WARM_UP);
        tell(&["instrumentation", "on"]);
        ask(WARM_UP);
        tell(&["zero"]);
        let [few, many] = [FEW, MANY].map(|times| {
            ask(times);
            tell(&["dump", name]);
            dumps += 1;
            busiest_thread(folder.path(), &format!("out.{dumps}-"))
        });
        tell(&["instrumentation", "off"]);
        counted.push((name, (many - few) / f64::from(MANY - FEW)));
    }
    counted
}

/// The largest total of the files of one dump: the worker's.
fn busiest_thread(folder: &Path, prefix: &str) -> f64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let dumped = files.filter(|file| file.file_name().to_string_lossy().starts_with(prefix));
    let totals = dumped.filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).unwrap();
        text.lines().find_map(|line| line.strip_prefix("totals: ")?.parse::<f64>().ok())
    });
    totals.reduce(f64::max).unwrap_or_else(|| panic!("callgrind wrote no {prefix}*"))
}

/// Whether a request that is forwarded takes two reads and two writes.
fn count_calls() -> bool {
    let folder = tempfile::TempDir::new().unwrap();
    let (gateway, address) = gateway(folder.path(), CONFIGURATION, upstream());
    let [(name, path, fields, status), ..] = cases();
    let mut caller = Caller::new(address, path, &fields);
    let mut ask = |times| (0..times).for_each(|_| assert_eq!(caller.ask(), status, "{name}"));
    ask(WARM_UP);
    let pid = gateway.id().to_string();
    let mut command = Command::new("strace");
    let mut strace = command.args(["-f", "-c", "-p", &pid]).stderr(Stdio::piped()).spawn().expect("strace");
    let mut said = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
    // one line for the process, which names its threads
    let attached = said.find(|line| line.contains("attached") || line.contains("Operation not permitted"));
    assert!(attached.is_some_and(|line| line.contains("attached")), "strace may not trace the gateway");
    ask(TRACED);
    drop(Command::new("kill").args(["-INT", &strace.id().to_string()]).status());
    let mut calls: BTreeMap<String, f64> = BTreeMap::new();
    for line in said {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, count, .., call] = words[..]
            && let Ok(count) = count.parse::<f64>()
        {
            *calls.entry(call.to_owned()).or_default() += count / f64::from(TRACED);
        }
    }
    drop(strace.wait());
    let sum = |names: &[&str]| names.iter().filter_map(|name| calls.get(*name)).sum::<f64>();
    let (reads, writes) =
        (sum(&["read", "readv", "recvfrom", "recvmsg"]), sum(&["write", "writev", "sendto", "sendmsg"]));
    let waits = sum(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
    println!("{:>12}: {reads:.2} reads, {writes:.2} writes, {waits:.2} waits a request", "calls");
    let fits = |found: f64, expected: f64| (expected..expected + BESIDE).contains(&found);
    if !fits(reads, READS) || !fits(writes, WRITES) {
        eprintln!("gate: a request that is forwarded takes {READS} reads and {WRITES} writes; found {calls:?}");
        return false;
    }
    true
}
