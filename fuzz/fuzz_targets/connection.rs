//! Whole connections into a whole gateway: what the upstream sees was authorized.
//!
//! The upstream is a strict reader of its own. Nobody here has a credential, so all that may ever reach it is below
//! `/open/`, without a word about who is calling, and framed so that nothing is left over.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portcullis::cli::{Running, background, start};
use portcullis::clock::Clock;

struct Place {
    address: SocketAddr,
    /// Keep serving.
    _running: Running,
    _background: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

static GATEWAY: LazyLock<Place> = LazyLock::new(|| {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in upstream.incoming().flatten() {
            std::thread::spawn(move || answer(socket));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.yaml");
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:0' }}
store: sqlite:portcullis.db
workers: 1
log: {{ access: off }}
timeouts: {{ request_header: 1s, idle: 2s }}
limits: {{ unauthenticated: off }}
upstreams: {{ api: {{ servers: ['http://{address}'] }} }}
routes:
  - {{ path: /open/**, allow: anyone, to: api }}
  - {{ path: /user/**, allow: [user], to: api }}
  - {{ path: /admin/**, allow: [admin], to: api }}
"
    );
    std::fs::write(&file, yaml).unwrap();
    let background = background().unwrap();
    let running = start(&file, Clock::system(), background.handle()).unwrap_or_else(|error| panic!("{error}"));
    let address = running.listeners()[0].address;
    Place { address, _running: running, _background: background, _dir: dir }
});

/// A finding ends the process, whichever thread makes it.
fn found(what: &str, bytes: &[u8]) -> ! {
    eprintln!("{what}: {}", String::from_utf8_lossy(bytes));
    std::process::abort();
}

/// Reads requests by the letter of RFC 9112 and answers each.
fn answer(mut socket: TcpStream) {
    let mut buffer = Vec::new();
    while let Some(head) = until(&mut socket, &mut buffer, b"\r\n\r\n") {
        check_head(&head);
        let text = String::from_utf8_lossy(&head).to_lowercase();
        if text.contains("\r\ntransfer-encoding: chunked\r\n") {
            loop {
                let Some(line) = until(&mut socket, &mut buffer, b"\r\n") else { return };
                let size = std::str::from_utf8(&line).ok().and_then(|line| usize::from_str_radix(line.trim(), 16).ok());
                let Some(size) = size else { found("not a chunk's size", &line) };
                if take(&mut socket, &mut buffer, size + if size == 0 { 0 } else { 2 }).is_none() {
                    return;
                }
                if size == 0 {
                    break;
                }
            }
            while let Some(line) = until(&mut socket, &mut buffer, b"\r\n") {
                if line == b"\r\n" {
                    break;
                }
            }
        } else if let Some(length) =
            text.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next())
        {
            let Ok(length) = length.parse() else { found("not a length", &head) };
            if take(&mut socket, &mut buffer, length).is_none() {
                return;
            }
        }
        if socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn check_head(head: &[u8]) {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next().unwrap_or_default(), words.next());
    if method.is_none_or(<[u8]>::is_empty) || version != Some(b"HTTP/1.1") || words.next().is_some() {
        found("not a request line", head);
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    if !(path.starts_with(b"/open/") || path == b"/open") {
        found("nobody was let in there", head);
    }
    let text = String::from_utf8_lossy(head).to_lowercase();
    let framed = text.matches("\r\ncontent-length:").count() + text.matches("\r\ntransfer-encoding:").count();
    // the one protocol that may be asked for; the answer here never agrees
    let text = text.replace("\r\nupgrade: websocket\r\n", "\r\n");
    let never = ["x-auth-user", "x-auth-roles", "x-auth-scheme", "authorization", "upgrade"];
    let doubtful = never.iter().any(|name| text.contains(&format!("\r\n{name}:")));
    if framed > 1 || doubtful || text.matches("\r\nhost:").count() != 1 {
        found("a field that must not pass", head);
    }
}

fn until(socket: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        fill(socket, buffer)?;
    }
}

fn take(socket: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> Option<()> {
    while buffer.len() < count {
        fill(socket, buffer)?;
    }
    buffer.drain(..count);
    Some(())
}

fn fill(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16_384];
    let count = socket.read(&mut part).ok().filter(|&count| count > 0)?;
    buffer.extend_from_slice(&part[..count]);
    Some(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut socket = TcpStream::connect(GATEWAY.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // it may refuse and close before all is written
    if socket.write_all(bytes).is_ok() {
        drop(socket.shutdown(Shutdown::Write));
    }
    let mut answer = Vec::new();
    let ended = socket.read_to_end(&mut answer);
    let slow =
        ended.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    assert!(!slow, "a connection whose caller has ended is ended");
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains(" 500 "), "a bug of ours: {text}");
});
