//! What authorized requests wait for while others flood the gateway.
//!
//! The requests come one after the other by a kept connection, a millisecond apart, so that what is measured is how long
//! one of them takes and not how many there can be. They are measured with nothing else, and while the flood goes to the same
//! gateway. It has one worker, on a processor of its own, and those who flood it give way to whoever measures: so what they
//! take of the machine that both are on is not counted as if the gateway took it.
//!
//!     cargo bench --bench floods [NAME]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]
#![allow(clippy::disallowed_methods, reason = "a bench measures and waits in real time")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod process;
#[allow(dead_code, reason = "others use more of it")]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ask::ask;
use support::{gateway_under, upstream};

/// Budgets are off, so that what holds is not that the flood is turned away early.
const CONFIGURATION: &str = "
workers: 1
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

/// Whoever is told to come back, or cut off, does so after about this.
const COMES_BACK_AFTER: Duration = Duration::from_millis(100);

/// One kind of flood.
struct Flood {
    name: &'static str,
    /// How many do it at once.
    callers: usize,
    /// What each does with a fresh connection, until it is cut off, turned away or over.
    act: fn(&mut TcpStream, caller: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()>,
}

const FLOODS: &[Flood] = &[
    Flood { name: "wrong passwords", callers: 200, act: guess },
    Flood { name: "unknown tokens", callers: 20, act: unknown_tokens },
    Flood { name: "slow heads", callers: 400, act: slow_head },
    Flood { name: "connections", callers: 4, act: connect_only },
    Flood { name: "streams opened and reset", callers: 4, act: reset_streams },
    Flood { name: "pings", callers: 4, act: pings },
    Flood { name: "settings", callers: 4, act: settings },
    Flood { name: "window updates", callers: 4, act: window_updates },
    Flood { name: "empty data", callers: 4, act: empty_data },
    Flood { name: "continuations", callers: 4, act: continuations },
];

/// Asks again and again; each is told that it is wrong, or to come back.
fn in_turn(
    socket: &mut TcpStream,
    over: &AtomicBool,
    done: &AtomicU64,
    request: impl Fn(u64) -> String,
) -> std::io::Result<()> {
    let mut part = [0; 4096];
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        socket.write_all(request(number).as_bytes())?;
        let count = socket.read(&mut part)?;
        done.fetch_add(1, Ordering::Relaxed);
        let answer = part.get(..count).unwrap_or_default();
        if count == 0 || answer.starts_with(b"HTTP/1.1 503") {
            break;
        }
        let refused = answer.starts_with(b"HTTP/1.1 401") || answer.ends_with(b"hello");
        assert!(refused, "{}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

fn guess(socket: &mut TcpStream, caller: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    in_turn(socket, over, done, |number| {
        let body = format!("username=ann&password=guess-{caller}-{number}");
        let head = "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded";
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
}

fn unknown_tokens(socket: &mut TcpStream, caller: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    let begun = Instant::now();
    in_turn(socket, over, done, |number| {
        let token = format!("{caller}-{number}-{}", begun.elapsed().as_nanos());
        format!("GET /user/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {token}\r\n\r\n")
    })
}

fn slow_head(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    socket.write_all(b"GET /user/x HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")?;
    while !over.load(Ordering::Relaxed) {
        socket.write_all(b"a")?;
        done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(COMES_BACK_AFTER);
    }
    Ok(())
}

fn connect_only(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    let address = socket.peer_addr()?;
    while !over.load(Ordering::Relaxed) {
        drop(TcpStream::connect(address)?);
        done.fetch_add(1, Ordering::Relaxed);
        // without it the machine is out of ports before anything else
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A frame of HTTP/2 (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Sends what `next` gives until the gateway has had enough; nobody reads what it says.
fn frames(
    socket: &mut TcpStream,
    over: &AtomicBool,
    done: &AtomicU64,
    next: impl Fn(u32) -> Vec<u8>,
) -> std::io::Result<()> {
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat())?;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        socket.write_all(&next(number))?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// GET, http, /, and the authority (RFC 7541 C.3).
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat()
}

/// CVE-2023-44487.
fn reset_streams(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |number| {
        let stream = (number * 2 + 1) & 0x7fff_ffff;
        [frame(1, 0b101, stream, &head()), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    })
}

/// CVE-2019-9512.
fn pings(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |number| frame(6, 0, 0, &u64::from(number).to_be_bytes()))
}

/// CVE-2019-9515.
fn settings(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |_| frame(4, 0, 0, &[]))
}

fn window_updates(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |_| frame(8, 0, 0, &1_u32.to_be_bytes()))
}

/// CVE-2019-9518.
fn empty_data(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |number| if number == 0 { frame(1, 0b100, 1, &head()) } else { frame(0, 0, 1, &[]) })
}

/// CVE-2024-27316.
fn continuations(socket: &mut TcpStream, _: usize, over: &AtomicBool, done: &AtomicU64) -> std::io::Result<()> {
    frames(socket, over, done, |number| if number == 0 { frame(1, 0, 1, &head()) } else { frame(9, 0, 1, &[]) })
}

/// How long each authorized request took, shortest first.
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

/// How much those who flood give way: as much as can be.
const NICENESS: i32 = 19;

/// How long requests to `address` take while it is flooded, and how much of the flood there was.
fn while_flooded(flood: &Flood, address: SocketAddr, span: Duration) -> (Vec<Duration>, u64) {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = std::thread::scope(|scope| {
        for caller in 0..flood.callers {
            let (over, done) = (&over, &done);
            scope.spawn(move || {
                // of this thread alone, on Linux
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    println!("the flood has the priority of who measures: {error}");
                }
                while !over.load(Ordering::Relaxed) {
                    // whatever ends it, it comes back
                    let ended = TcpStream::connect(address).and_then(|mut socket| {
                        socket.set_read_timeout(Some(Duration::from_secs(15)))?;
                        (flood.act)(&mut socket, caller, over, done)
                    });
                    drop(ended);
                    // not all of them at the same moment, as nobody's callers do
                    std::thread::sleep(COMES_BACK_AFTER.mul_f64(0.5 + fastrand::f64()));
                }
            });
        }
        while done.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = latencies(address, span);
        over.store(true, Ordering::Relaxed);
        took
    });
    (took, done.into_inner())
}

fn at(took: &[Duration], hundredths: usize) -> Duration {
    *took.get(took.len() * hundredths / 100).unwrap()
}

/// The median of the rounds.
fn median(mut of_rounds: Vec<Duration>) -> Duration {
    of_rounds.sort();
    at(&of_rounds, 50)
}

fn main() {
    // without it, as by `cargo test --benches`, it only has to work
    let measures = std::env::args().any(|argument| argument == "--bench");
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let (rounds, span) = if measures { (5, Duration::from_secs(5)) } else { (1, Duration::from_millis(100)) };
    let apart = process::apart();
    println!("p99 of an authorized request, median of {rounds} rounds: quiet; with the flood (median); times quiet");
    for flood in FLOODS.iter().filter(|flood| named.as_ref().is_none_or(|name| flood.name.contains(name))) {
        let folder = tempfile::TempDir::new().unwrap();
        let (_ending, address) = gateway_under(&apart, folder.path(), CONFIGURATION, upstream());
        let (mut quiet, mut flooded, mut typical, mut all) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            quiet.push(at(&latencies(address, span), 99));
            let (took, done) = while_flooded(flood, address, span);
            flooded.push(at(&took, 99));
            typical.push(at(&took, 50));
            all += done;
        }
        let [quiet, p99, typical] = [quiet, flooded, typical].map(median);
        let times = p99.as_secs_f64() / quiet.as_secs_f64();
        println!("{}: {quiet:?}; {p99:?} ({typical:?}); {times:.2}; {all} of it", flood.name);
    }
}
