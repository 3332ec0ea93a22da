//! The built gateway over loopback: requests by kept connections, to an upstream that answers from memory.
//!
//! What is measured is a round trip of one caller, so it holds the kernel's share and the upstream's too: compare with
//! `direct`, which has no gateway between.
#![allow(missing_docs, reason = "criterion's macros make items without documentation")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

#[path = "support/ask.rs"]
mod ask;
mod support;

use std::net::TcpStream;

use criterion::{Criterion, criterion_group, criterion_main};

use ask::ask;
use support::{gateway, upstream};

const CONFIGURATION: &str = "
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
workers: 1
log: { access: off, audit: off }
auth: { cache: { ttl: 1h } }
bootstrap: { users: [{ name: ann, password: correct horse, roles: [user] }] }
routes:
  - { path: /open/**, allow: anyone, to: api }
  - { path: /user/**, allow: [user], to: api }
";

fn round_trips(c: &mut Criterion) {
    let folder = tempfile::TempDir::new().unwrap();
    let upstream = upstream();
    let (_ending, gateway) = gateway(folder.path(), CONFIGURATION, upstream);
    let authorization = "Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n";
    for (name, address, path, fields) in [
        ("direct", upstream, "/open/x", ""),
        ("anyone", gateway, "/open/x", ""),
        ("remembered", gateway, "/user/x", authorization),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        c.bench_function(&format!("end_to_end/{name}"), |b| b.iter(|| ask(&mut socket, request.as_bytes())));
    }
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
