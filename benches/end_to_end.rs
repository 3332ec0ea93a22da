//! The built gateway over loopback: requests by kept connections, to an upstream that answers from memory.
//!
//! What is measured is a round trip of one caller, so it holds the kernel's share and the upstream's too: compare with
//! `direct`, which has no gateway between.
#![allow(missing_docs, reason = "criterion's macros make items without documentation")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use criterion::{Criterion, criterion_group, criterion_main};

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

/// Ends the gateway with the bench.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An upstream that answers `hello`.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(socket.unwrap());
                reader.get_ref().set_nodelay(true).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                    if line == "\r\n" {
                        let sent = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
                        if sent.is_err() {
                            return;
                        }
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

fn gateway(folder: &std::path::Path, upstream: SocketAddr) -> (Ending, SocketAddr) {
    let text = format!("{CONFIGURATION}upstreams: {{ api: {{ servers: ['http://{upstream}'] }} }}\n");
    std::fs::write(folder.join("gateway.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let mut child = command.current_dir(folder).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ending = Ending(child);
    let mut address = None;
    for line in lines.map_while(Result::ok) {
        if let Some((_, listening)) = line.split_once("listening on http://") {
            address = listening.parse().ok();
        }
        if line.ends_with("ready") {
            break;
        }
    }
    (ending, address.expect("it listens"))
}

/// One request and its response, which ends in `hello`.
fn ask(socket: &mut TcpStream, request: &[u8]) {
    socket.write_all(request).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"hello") {
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(part.iter().take(count));
    }
}

fn round_trips(c: &mut Criterion) {
    let folder = tempfile::TempDir::new().unwrap();
    let upstream = upstream();
    let (_ending, gateway) = gateway(folder.path(), upstream);
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
