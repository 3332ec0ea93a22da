//! What authorized requests wait for while 200 callers at once try wrong passwords.
//!
//! The requests come one after the other by a kept connection, a millisecond apart, so that what is measured is how long
//! one of them takes and not how many there can be. The flood has its budgets off, so that every guess is verified or
//! refused because the pool is full; whoever is told to come back does so after 100 ms.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]
#![allow(clippy::disallowed_methods, reason = "a bench measures and waits in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{ask, gateway, upstream};

const CONFIGURATION: &str = "
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
log: { access: off, audit: off }
auth: { cache: { ttl: 1h } }
limits:
  token_endpoints: { per_address: off, per_account: off, per_account_anywhere: off }
  unauthenticated: off
bootstrap: { users: [{ name: ann, password: correct horse, roles: [user] }] }
routes: [{ path: /user/**, allow: [user], to: api }]
";

const CALLERS: usize = 200;
const COMES_BACK_AFTER: Duration = Duration::from_millis(100);

/// Answers to the flood: refused after a look at the password, and because the pool was full.
#[derive(Default)]
struct Answers {
    verified: AtomicU64,
    full: AtomicU64,
}

/// How long each request took, shortest first.
fn latencies(address: SocketAddr, span: Duration) -> Vec<Duration> {
    let request = b"GET /user/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n\r\n";
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    for _ in 0..100 {
        ask(&mut socket, request);
    }
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < span {
        let start = Instant::now();
        ask(&mut socket, request);
        took.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    took.sort();
    took
}

/// Tries wrong passwords until it is over.
fn guess(address: SocketAddr, caller: usize, over: &AtomicBool, answers: &Answers) {
    let mut socket = TcpStream::connect(address).unwrap();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let body = format!("username=ann&password=guess-{caller}-{number}");
        let head = "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded";
        write!(socket, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"}") {
            let count = socket.read(&mut part).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend(part.iter().take(count));
        }
        if answer.starts_with(b"HTTP/1.1 401") {
            answers.verified.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
            answers.full.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(COMES_BACK_AFTER);
        }
    }
}

fn at(took: &[Duration], hundredths: usize) -> Duration {
    *took.get(took.len() * hundredths / 100).unwrap()
}

fn main() {
    // without it, as by `cargo test --benches`, it only has to work
    let measures = std::env::args().any(|argument| argument == "--bench");
    let span = if measures { Duration::from_secs(20) } else { Duration::from_millis(300) };
    let folder = tempfile::TempDir::new().unwrap();
    let (_ending, address) = gateway(folder.path(), CONFIGURATION, upstream());
    let quiet = latencies(address, span);
    let (over, answers) = (AtomicBool::new(false), Answers::default());
    let busy = std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (over, answers) = (&over, &answers);
            scope.spawn(move || guess(address, caller, over, answers));
        }
        while answers.full.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let busy = latencies(address, span);
        over.store(true, Ordering::Relaxed);
        busy
    });
    for (name, took) in [("quiet", &quiet), ("flooded", &busy)] {
        println!("{name}: {} requests, median {:?}, p99 {:?}", took.len(), at(took, 50), at(took, 99));
    }
    let ratio = at(&busy, 99).as_secs_f64() / at(&quiet, 99).as_secs_f64();
    let (verified, full) = (answers.verified.into_inner(), answers.full.into_inner());
    println!("p99 {ratio:.2} times; of the flood {verified} were verified and {full} told to come back");
}
