//! What a request costs among how many routes, in CPU time of the gateway, kernel's share included.
//!
//! One gateway for each number of routes, asked in turns, so that what else the machine does meets all of them alike: what
//! counts is a gateway's time as a part of the first one's in the same round, and of that the median. Requests go to a
//! thousand of the routes, not in their order. `gate` counts the same without a clock.
//!
//!     cargo bench --bench routes [ROUNDS]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking, and prints")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::{Ending, gateway, upstream};

const CONFIGURATION: &str = "
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
workers: 1
log: { access: off, audit: off, level: warn }
routes:
";

const ROUTES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const ROUTES_ASKED: usize = 1_000;
const CONNECTIONS: usize = 32;
const REQUESTS: usize = 16_000;
const ROUNDS: usize = 15;

/// A gateway, and who asks it.
struct Asked {
    gateway: Ending,
    callers: Vec<TcpStream>,
    requests: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Asked {
    fn of_routes(routes: usize, upstream: SocketAddr) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = |number: usize| format!("/r{number:06}");
        let rules = (0..routes).map(|number| format!("  - {{ path: {}/**, allow: anyone, to: api }}\n", path(number)));
        let (gateway, address) =
            gateway(folder.path(), &format!("{CONFIGURATION}{}", rules.collect::<String>()), upstream);
        let asked = (0..routes).step_by(routes.div_ceil(ROUTES_ASKED)).map(|number| number * 7919 % routes);
        let requests =
            asked.map(|number| format!("GET {}/x HTTP/1.1\r\nHost: localhost\r\n\r\n", path(number))).collect();
        let connect = |_| {
            let caller = TcpStream::connect(address).unwrap();
            caller.set_nodelay(true).unwrap();
            caller
        };
        Self { gateway, callers: (0..CONNECTIONS).map(connect).collect(), requests, _folder: folder }
    }

    /// Sends so many requests, one on each connection at once; the CPU time of each, in microseconds.
    fn ask(&mut self, requests: usize) -> f64 {
        let before = cpu_ns(self.gateway.0.id());
        let mut lines = self.requests.iter().cycle().take(requests);
        let mut part = [0; 1024];
        loop {
            let sent = self.callers.iter_mut().zip(&mut lines);
            let sent = sent.map(|(caller, line)| caller.write_all(line.as_bytes()).unwrap()).count();
            if sent == 0 {
                break;
            }
            for caller in self.callers.iter_mut().take(sent) {
                let (mut answer, mut head) = (Vec::new(), true);
                while head || !answer.ends_with(b"hello") {
                    let count = caller.read(&mut part).unwrap();
                    assert!(count > 0, "it closed a connection");
                    answer.extend(part.iter().take(count));
                    head = !answer.starts_with(b"HTTP/1.1 200");
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "these are not so large")]
        let each = (cpu_ns(self.gateway.0.id()) - before) as f64 / 1000.0 / requests as f64;
        each
    }
}

/// What all threads of a process have run for.
fn cpu_ns(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let ran = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    ran.sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measures = arguments.iter().any(|argument| argument == "--bench");
    let (sizes, requests) = if measures { (&ROUTES[..], REQUESTS) } else { (&ROUTES[..2], CONNECTIONS) };
    let rounds =
        arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(if measures { ROUNDS } else { 1 });
    let upstream = upstream();
    let mut asked: Vec<Asked> = sizes.iter().map(|&routes| Asked::of_routes(routes, upstream)).collect();
    for one in &mut asked {
        // every route that is asked for, once
        one.ask(ROUTES_ASKED.min(requests));
    }
    let rounds: Vec<Vec<f64>> = (0..rounds).map(|_| asked.iter_mut().map(|one| one.ask(requests)).collect()).collect();
    println!("{:>8}  {:>14}  of the first", "routes", "CPU us/request");
    for (index, routes) in sizes.iter().enumerate() {
        let of = |index: usize, round: &Vec<f64>| round.get(index).copied().unwrap_or_default();
        let each = median(rounds.iter().map(|round| of(index, round)).collect());
        let part = median(rounds.iter().map(|round| of(index, round) / of(0, round)).collect());
        println!("{routes:>8}  {each:>14.2}  {part:.3}");
    }
}
