//! What a connection of HTTP/1.1 takes in each state that a caller can keep it in, and what callers of HTTP/2 take who do not
//! take what they asked for, against the bounds of ARCHITECTURE.md.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

use crate::support::gateway::resident;
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame, hello, next_frame, request,
};
use crate::support::keys::Trusting;
use crate::support::{Connection, DEADLINE, Gateway, Upstream, eventually, get, routes};

const KIB: u64 = 1024;

/// As ARCHITECTURE.md has it, with the default of `header_bytes`; and what TLS takes beside.
const CONNECTION_MAX: u64 = 2 * 32 * KIB + 128 * KIB;
const TLS_MAX: u64 = 80 * KIB;

/// Enough that what is taken once does not count.
const CONNECTIONS: usize = 100;

/// Answers by the path: at once, never, without end; or takes the head and nothing more.
fn upstream(stopped: Arc<AtomicBool>) -> Upstream {
    Upstream::sessions(move |mut socket| {
        socket2::SockRef::from(&socket).set_recv_buffer_size(SYSTEM_BUFFER).unwrap();
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut part) {
            let head = String::from_utf8_lossy(&part[..count]).into_owned();
            if head.contains("/open/endless") {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
                let mut open = socket.write_all(head).is_ok();
                while open {
                    open = socket.write_all(&chunk).is_ok();
                }
            } else if head.contains("/open/deaf") || head.contains("/open/silent") {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(100));
                }
                return;
            } else {
                drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
            }
        }
    })
}

/// The system's own buffers are not what is measured, and large ones take long to fill.
const SYSTEM_BUFFER: usize = 32 * 1024;

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    let system = socket2::SockRef::from(&socket);
    system.set_send_buffer_size(SYSTEM_BUFFER).unwrap();
    system.set_recv_buffer_size(SYSTEM_BUFFER).unwrap();
    socket
}

fn plain(address: SocketAddr) -> TcpStream {
    let socket = connect(address);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // what is not taken by then is not going to be
    socket.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// Says this, and then as much as is taken of `more`.
fn says(mut socket: TcpStream, head: &str, more: bool) -> TcpStream {
    drop(socket.write_all(head.as_bytes()));
    while more && socket.write_all(&vec![b'x'; 65_536]).is_ok() {}
    socket
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn tls(address: SocketAddr) -> Tls {
    let mut socket = connect(address);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = Trusting::new().config(&[&TLS12, &TLS13], &[]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(config, name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    socket.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    rustls::StreamOwned::new(session, socket)
}

/// What is kept so that the connection stays as it is.
type Held = Box<dyn std::any::Any>;
type Open = fn(SocketAddr) -> Held;

#[test]
fn a_connection_stays_in_its_bound_in_every_state() {
    const POST: &str = "POST /open/deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    const ENDLESS: &str = "GET /open/endless HTTP/1.1\r\nHost: a\r\n\r\n";
    const SILENT: &str = "GET /open/silent HTTP/1.1\r\nHost: a\r\n\r\n";
    let states: [(&str, bool, Open); 12] = [
        ("silent", false, |at| Box::new(plain(at))),
        ("idle", false, |at| {
            let mut connection = Connection::plain(at);
            connection.send(&get("/open/x")).expect(200);
            Box::new(connection)
        }),
        ("half a head", false, |at| {
            Box::new(says(plain(at), &format!("GET /open/x HTTP/1.1\r\nX: {}", "x".repeat(32_000)), false))
        }),
        ("a request under way, and more behind it", false, |at| {
            Box::new(says(plain(at), &format!("{}{}", SILENT, SILENT.repeat(1000)), false))
        }),
        ("a body that the upstream does not read", false, |at| Box::new(says(plain(at), POST, true))),
        ("a response that the caller does not read", false, |at| Box::new(says(plain(at), ENDLESS, false))),
        ("tls, silent", true, |at| Box::new(plain(at))),
        ("tls, half a handshake", true, |at| {
            // a first message of nearly 64 KiB, of which the end never comes, in records of 16 KiB
            let mut hello = vec![1, 0, 0xff, 0xf0, 3, 3];
            hello.resize(62_000, 0);
            let mut socket = plain(at);
            for piece in hello.chunks(16_000) {
                let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
                drop(socket.write_all(&[&[22, 3, 1], &length[..], piece].concat()));
            }
            Box::new(socket)
        }),
        ("tls, idle", true, |at| {
            let mut connection = tls(at);
            connection.write_all(get("/open/x").to_bytes().as_slice()).unwrap();
            assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
            Box::new(connection)
        }),
        ("tls, half a record", true, |at| {
            let mut connection = tls(at);
            connection.sock.write_all(&[&[23, 3, 3, 0x40, 0x10][..], &[0; 0x4000]].concat()).unwrap();
            Box::new(connection)
        }),
        ("tls, half a head", true, |at| {
            let mut connection = tls(at);
            let head = format!("GET /open/x HTTP/1.1\r\nX: {}", "x".repeat(32_000));
            connection.write_all(head.as_bytes()).unwrap();
            Box::new(connection)
        }),
        ("tls, a response that the caller does not read", true, |at| {
            let mut connection = tls(at);
            connection.write_all(ENDLESS.as_bytes()).unwrap();
            Box::new(connection)
        }),
    ];
    let stopped = Arc::new(AtomicBool::new(false));
    let upstream = upstream(stopped.clone());
    let listeners =
        "listeners: [{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0', tls: { self_signed: [localhost] } }]\n";
    // nobody has a password: what is kept of the memory that hashing took would hide what connections take
    let rest = "workers: 1\nlog: { access: off }\ntimeouts: { handshake: 5m, request_header: 5m, idle: 5m }\n";
    let yaml = format!("{listeners}{rest}{}", routes(&upstream));
    let mut over = Vec::new();
    for (name, is_tls, open) in states {
        let gateway = Gateway::start(&yaml);
        let address = gateway.listeners[usize::from(is_tls)].1;
        // what the first ones make, all share
        let first: Vec<Held> = (0..6).map(|_| open(address)).collect();
        let before = settled(&gateway, address, first.len());
        let held: Vec<Held> = (0..CONNECTIONS).map(|_| open(address)).collect();
        let after = settled(&gateway, address, first.len() + held.len());
        let each = after.saturating_sub(before) / CONNECTIONS as u64;
        eprintln!("{name}: {} KiB", each / KIB);
        let most = CONNECTION_MAX + if is_tls { TLS_MAX } else { 0 };
        if each > most {
            over.push(format!("{name}: {} of {} KiB", each / KIB, most / KIB));
        }
        drop((first, held));
    }
    stopped.store(true, Ordering::Relaxed);
    assert!(over.is_empty(), "{over:?}");
}

/// A caller may open windows as large as it likes; what it then does not take is bounded nevertheless, and others are served.
#[test]
fn responses_over_http2_that_nobody_takes_stay_in_the_bound_of_a_worker() {
    const STREAMS: u32 = 128;
    const CALLERS: u64 = 4;
    // for all connections of the worker; for each its share and a piece; for each stream its head, and what came last of its
    // response
    let most = 64 * KIB * KIB + CALLERS * (320 + u64::from(STREAMS) * (32 + 80)) * KIB;
    let stopped = Arc::new(AtomicBool::new(false));
    let upstream = upstream(stopped.clone());
    let gateway = Gateway::start(&format!(
        "workers: 1\nlog: {{ access: off }}\ntimeouts: {{ request_header: 5m, idle: 5m }}\n{}",
        routes(&upstream)
    ));
    let address = gateway.address();
    let before = settled(&gateway, address, 0);
    let held: Vec<TcpStream> = (0..CALLERS)
        .map(|_| {
            let mut socket = connect(address);
            // SETTINGS_INITIAL_WINDOW_SIZE
            let settings = [&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat();
            let window = frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
            let mut said = [PREFACE, &frame(SETTINGS, 0, 0, &settings), &window].concat();
            for stream in 0..STREAMS {
                let asked = request("GET", "/open/endless", &[]);
                said.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &asked));
            }
            socket.write_all(&said).unwrap();
            socket
        })
        .collect();
    eventually("all are under way", || {
        let open = gateway.metric("portcullis_requests_in_flight", &[]);
        if open + 0.5 < f64::from(STREAMS) * 4.0 { Err(open) } else { Ok(()) }
    });
    let after = settled(&gateway, address, held.len());
    assert!(after - before <= most, "{} of {} KiB", (after - before) / KIB, most / KIB);
    // another caller has its share: all that its window takes
    let mut other = Connection::plain(address);
    let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/open/endless", &[]));
    other.write(&[hello(), asked].concat()).unwrap();
    let mut came = 0;
    while came < 65_535 {
        let (kind, _, _, payload) = next_frame(&mut other).unwrap();
        came += if kind == DATA { payload.len() } else { 0 };
    }
    stopped.store(true, Ordering::Relaxed);
}

/// What the process holds once it has this many connections, and holds no more than a while ago.
fn settled(gateway: &Gateway, address: SocketAddr, connections: usize) -> u64 {
    let (listener, mut looks) = (address.to_string(), Vec::new());
    eventually("all are accepted, and memory stays the same", || {
        std::thread::park_timeout(Duration::from_millis(200));
        let open = gateway.metric("portcullis_connections", &[("listener", &listener)]);
        if open + 0.5 < f64::from(u32::try_from(connections).unwrap()) {
            return Err(format!("{open} connections"));
        }
        looks.push(resident(gateway));
        let last = looks.iter().rev().take(4);
        let (least, most) = (last.clone().min().unwrap(), last.clone().max().unwrap());
        if last.len() == 4 && most - least < 64 * KIB { Ok(*most) } else { Err(format!("{looks:?}")) }
    })
}
