//! Whole connections into a whole gateway: what the upstream sees was authorized.
//!
//! The upstream is a strict reader of its own. Nobody here has a credential, so all that may ever reach it is below
//! `/open/`, whoever reads the path, without a word about who is calling, and framed so that nothing is left over.
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
                let Some(size) = chunk_size(&line) else { found("not a chunk's size", &line) };
                if size == 0 {
                    break;
                }
                if take(&mut socket, &mut buffer, size).is_none() {
                    return;
                }
                let Some(end) = take(&mut socket, &mut buffer, 2) else { return };
                if end != b"\r\n" {
                    found("a chunk that does not end where it should", &end);
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
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                found("not a length", &head);
            }
            let Ok(length) = length.parse() else { found("too large a length", &head) };
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
    if !is_open(path) {
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

/// `1*HEXDIG` and the end of the line, and nothing that an extension would be (RFC 9112 7.1).
fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.strip_suffix(b"\r\n")?;
    // a sign is none, though a number may have one
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether a path is one of `/open/**` for whoever reads it, before and after they decode it once. (What they decode twice
/// is another matter: `%25` stands for itself, and passes.)
fn is_open(path: &[u8]) -> bool {
    let Some(segments) = path.strip_prefix(b"/open") else { return false };
    let Some(segments) = segments.strip_prefix(b"/") else { return segments.is_empty() };
    let mut segments = segments.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let Some(decoded) = decoded(segment) else { return false };
        let is_dots = decoded == b"." || decoded == b"..";
        let is_other = |byte: &u8| byte.is_ascii_control() || b"/\\;?#".contains(byte);
        if is_dots || decoded.iter().any(is_other) || (decoded.is_empty() && !is_last) {
            return false;
        }
        if std::str::from_utf8(&decoded).is_err() {
            return false;
        }
    }
    true
}

/// A segment without its escapes, where each byte may stand there as it does and each escape is needed (RFC 3986 2, 6.2.2).
fn decoded(segment: &[u8]) -> Option<Vec<u8>> {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut decoded = Vec::new();
    let mut rest = segment;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            let may_stand = is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte);
            decoded.push(may_stand.then_some(byte)?);
            continue;
        }
        let (escape, after) = rest.split_at_checked(2)?;
        rest = after;
        let is_upper = escape.iter().all(|byte| b"0123456789ABCDEF".contains(byte));
        let value = u8::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()?;
        decoded.push((is_upper && !is_unreserved(value)).then_some(value)?);
    }
    Some(decoded)
}

fn until(socket: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        fill(socket, buffer)?;
    }
}

fn take(socket: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        fill(socket, buffer)?;
    }
    Some(buffer.drain(..count).collect())
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
