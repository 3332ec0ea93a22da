//! Floods of HTTP/2 frames: memory stays bounded, the connection that floods ends, and others are served
//! (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671).

use std::io::ErrorKind::{NotConnected, WouldBlock};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::gateway::resident;
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, hello,
    request,
};
use crate::support::{DEADLINE, Gate, Gateway, Reply, Setup, Upstream, eventually, get, routes};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// `limits.header_bytes`, where a test does not set it.
const HEADER_BYTES: u64 = 32 * KIB;

/// What a connection of HTTP/1.1 takes at most, and one of HTTP/2 (ARCHITECTURE.md, "Memory").
const HTTP1_MAX: u64 = 2 * HEADER_BYTES + 128 * KIB;
const HTTP2_MAX: u64 = MIB + 128 * (HEADER_BYTES + 256 * KIB);

/// What a process takes with no connection, and what its allocator keeps.
const PROCESS_MAX: u64 = 64 * MIB;
const WORKER_MAX: u64 = 8 * MIB;

/// What one connection may cost, whatever it sends.
const GROWTH_MAX: u64 = HTTP2_MAX + WORKER_MAX;

/// Sends `next` until it has no more or the other side ends the connection, without reading a byte where `deaf`.
/// Whether the connection was ended.
fn flood(gateway: &Gateway, deaf: bool, mut next: impl FnMut() -> Option<Vec<u8>>) -> bool {
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut reader = socket.try_clone().unwrap();
    let listening = (!deaf).then(|| {
        std::thread::spawn(move || {
            let mut part = [0; 16_384];
            while matches!(reader.read(&mut part), Ok(count) if count > 0) {}
        })
    });
    let mut ended = socket.write_all(&hello()).is_err();
    while let (false, Some(bytes)) = (ended, next()) {
        // one that takes no more is held back, which is as good
        ended = socket.write_all(&bytes).is_err();
    }
    if let Some(listening) = listening {
        if !ended {
            // what it says last may still be on its way
            std::thread::sleep(Duration::from_millis(300));
            ended = (0..50).any(|_| socket.write_all(&frame(PING, 0, 0, &[0; 8])).is_err());
        }
        drop(socket.shutdown(std::net::Shutdown::Both));
        listening.join().unwrap();
    }
    ended
}

/// `count` pieces, in writes of some size.
fn many(count: usize, piece: impl Fn(usize) -> Vec<u8>) -> impl FnMut() -> Option<Vec<u8>> {
    let mut sent = 0;
    move || {
        if sent >= count {
            return None;
        }
        let mut bytes = Vec::with_capacity(70_000);
        while bytes.len() < 60_000 && sent < count {
            bytes.extend(piece(sent));
            sent += 1;
        }
        Some(bytes)
    }
}

fn stream(index: usize) -> u32 {
    u32::try_from(index * 2 + 1).unwrap()
}

fn open(index: usize, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream(index), &request("GET", "/open/x", &[]))
}

/// Runs one flood while somebody else keeps asking.
fn withstands(name: &str, must_end: bool, deaf: bool, next: impl FnMut() -> Option<Vec<u8>> + Send) -> (usize, usize) {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("workers: 1\nlog: {{ access: off }}\n{}", routes(&upstream)));
    gateway.send(&get("/open/first")).expect(200);
    let before = resident(&gateway);
    let (ended, peak) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&gateway, deaf, next));
        let mut peak = before;
        loop {
            let start = std::time::Instant::now();
            assert_eq!(gateway.send(&get("/open/other")).status, 200, "{name}: others are served");
            assert!(start.elapsed() < DEADLINE / 2, "{name}: others are served in time");
            peak = peak.max(resident(&gateway));
            if flooding.is_finished() {
                return (flooding.join().unwrap(), peak);
            }
        }
    });
    assert!(peak - before < GROWTH_MAX, "{name}: {} KiB more", (peak - before) / 1024);
    assert!(ended || !must_end, "{name}: the connection is ended");
    eventually("its connection is forgotten", || {
        let listener = gateway.address().to_string();
        match gateway.metric("portcullis_connections", &[("listener", &listener)]) {
            open if open < 1.5 => Ok(()),
            open => Err(open),
        }
    });
    (upstream.received().len(), upstream.connections())
}

#[test]
fn streams_that_are_opened_and_reset() {
    let (requests, connections) = withstands(
        "rapid reset",
        true,
        false,
        many(50_000, |index| [open(index, END_STREAM), frame(RST_STREAM, 0, stream(index), &[0, 0, 0, 8])].concat()),
    );
    assert!(
        requests < 5000 && connections < 5000,
        "the upstream is spared: {requests} requests, {connections} connections"
    );
}

#[test]
fn streams_that_we_are_made_to_reset() {
    withstands(
        "a window that grows by nothing",
        true,
        false,
        many(20_000, |index| [open(index, 0), frame(WINDOW_UPDATE, 0, stream(index), &[0; 4])].concat()),
    );
    withstands(
        "a window beyond its bound",
        true,
        false,
        many(20_000, |index| {
            let grow = frame(WINDOW_UPDATE, 0, stream(index), &[0x7f, 0xff, 0xff, 0xff]);
            [open(index, 0), grow.clone(), grow].concat()
        }),
    );
    withstands(
        "data behind the end",
        true,
        false,
        many(20_000, |index| [open(index, END_STREAM), frame(DATA, 0, stream(index), b"x")].concat()),
    );
}

#[test]
fn a_head_without_end() {
    let first = |index: usize, payload: &[u8]| {
        if index == 0 {
            frame(HEADERS, 0, 1, &request("GET", "/open/x", &[]))
        } else {
            frame(CONTINUATION, 0, 1, payload)
        }
    };
    withstands(
        "full frames",
        true,
        false,
        many(4_000, |index| first(index, &crate::support::http2::block(&[(b"x-fill", &[b'a'; 16_000])]))),
    );
    withstands("empty frames", true, false, many(200_000, |index| first(index, &[])));
    withstands(
        "small frames",
        true,
        false,
        many(200_000, |index| first(index, &crate::support::http2::block(&[(b"a", b"b")]))),
    );
}

#[test]
fn fields_that_unpack_to_much_more() {
    // one entry of the table of nearly 4 KiB, and each byte behind it is that entry again (the HPACK bomb)
    let mut bomb = request("GET", "/open/x", &[]);
    bomb.extend([0x40, 1, b'x', 127, 0xd1, 0x1e]);
    bomb.extend([b'a'; 4000]);
    bomb.extend([0xbe; 12_000]);
    withstands(
        "an HPACK bomb",
        false,
        false,
        many(500, move |index| frame(HEADERS, END_HEADERS | END_STREAM, stream(index), &bomb)),
    );
}

#[test]
fn frames_that_want_an_answer_from_who_does_not_listen() {
    withstands("pings", false, true, many(500_000, |_| frame(PING, 0, 0, &[7; 8])));
    withstands("settings", false, true, many(500_000, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])));
    withstands("requests", false, true, many(50_000, |index| open(index, END_STREAM)));
}

#[test]
fn frames_that_say_nothing() {
    let post = |index: usize| (index == 0).then(|| frame(HEADERS, END_HEADERS, 1, &request("POST", "/open/x", &[])));
    withstands("empty data", true, false, many(500_000, |index| post(index).unwrap_or_else(|| frame(DATA, 0, 1, &[]))));
    withstands(
        "padding",
        false,
        false,
        many(20_000, |index| post(index).unwrap_or_else(|| frame(DATA, 8, 1, &[&[200][..], &[0; 200]].concat()))),
    );
    withstands("windows", false, false, many(500_000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])));
    withstands("priorities", false, false, many(500_000, |index| frame(2, 0, stream(index % 1000), &[0, 0, 0, 0, 7])));
    withstands("frames of no known kind", false, false, many(500_000, |_| frame(0xbe, 0, 0, &[1])));
}

#[test]
fn more_streams_than_were_granted() {
    withstands(
        "streams without end",
        false,
        false,
        many(20_000, |index| frame(HEADERS, END_HEADERS, stream(index), &request("POST", "/open/x", &[]))),
    );
}

#[test]
fn streams_that_are_reset_once_they_are_under_way() {
    // each long enough for the request to be on its way to an upstream that does not answer
    let upstream = Upstream::start(|_| crate::support::Reply::script(|socket| drop(socket.read(&mut [0; 1]))));
    let gateway = Gateway::start(&format!("workers: 1\nlog: {{ access: off }}\n{}", routes(&upstream)));
    let mut index = 0;
    let ended = flood(&gateway, false, || {
        index += 1;
        std::thread::sleep(Duration::from_millis(10));
        let reset = frame(RST_STREAM, 0, stream(index - 1), &[0, 0, 0, 8]);
        (index < 1000).then(|| if index == 1 { open(1, END_STREAM) } else { [reset, open(index, END_STREAM)].concat() })
    });
    assert!(ended, "after {index} streams");
    assert!(upstream.connections() < 250, "{} connections to the upstream", upstream.connections());
}

/// Connections that are opened to a process that can hold some two thousand.
const CALLERS: usize = 10_000;
const DESCRIPTORS: u64 = 4096;

/// Half of what is left of the descriptors once the process has its own.
const CONNECTIONS: u64 = (DESCRIPTORS - 256) / 2;

/// Begins to connect, without waiting for the other side.
fn begin(gateway: &Gateway) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    drop(socket.connect(&gateway.address().into()));
    socket
}

#[test]
fn more_connections_than_descriptors() {
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(hard, hard).unwrap();
    assert!(hard > CALLERS as u64 + 1000, "this test needs `ulimit -n` above {CALLERS}");
    let upstream = Upstream::hello();
    // half a head, nearly as large as it may be: what is held for it is held for long
    let head = format!("GET /open/x HTTP/1.1\r\nHost: a\r\nX-Fill: {}", "a".repeat(30_000));
    for (name, sent) in [("silent", ""), ("half a head", &*head)] {
        let yaml = "workers: 1\nlog: { access: off }\n";
        let gateway = Setup::new(&format!("{yaml}{}", routes(&upstream))).descriptors(DESCRIPTORS).start();
        gateway.send(&get("/open/first")).expect(200);
        let mut flood: Vec<_> = (0..CALLERS).map(|_| begin(&gateway)).collect();
        let mut peak = 0;
        let mut answered = 0;
        for round in 0..4 {
            for socket in &mut flood {
                // who was let in says something, who was shut out comes again
                let written = socket.write(sent.as_bytes());
                if written.is_err_and(|error| !matches!(error.kind(), WouldBlock | NotConnected)) {
                    *socket = begin(&gateway);
                }
            }
            assert_eq!(gateway.send(&get("/open/other")).status, 200, "{name}: others are served, in round {round}");
            answered += 1;
            peak = peak.max(resident(&gateway));
        }
        let bound = PROCESS_MAX + WORKER_MAX + CONNECTIONS * HTTP1_MAX;
        assert!(peak < bound, "{name}: {} of {} MiB", peak / MIB, bound / MIB);
        assert_eq!(answered, 4);
        drop(flood);
        // by itself, and soon
        gateway.send(&get("/open/last")).expect(200);
        eventually(&format!("{name}: all is as before"), || {
            let listener = gateway.address().to_string();
            match gateway.metric("portcullis_connections", &[("listener", &listener)]) {
                open if open < 2.5 => Ok(()),
                open => Err(open),
            }
        });
    }
}

#[test]
fn json_that_is_deep_or_wide_is_refused_at_once_wherever_a_stranger_may_send_it() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("workers: 1\nlog: {{ access: off }}\n{}", routes(&upstream)));
    gateway.send(&get("/open/first")).expect(200);
    let before = resident(&gateway);
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    for (name, body) in [
        ("lists in lists", deep("[", "]")),
        ("objects in objects", deep("{\"a\":", "}")),
        ("lists without an end", "[".repeat(60_000)),
        ("in a member", format!("{{\"username\":{},\"password\":\"x\"}}", deep("[", "]"))),
        ("in a member of no name that is known", format!("{{\"x\":{},\"username\":\"a\"}}", deep("[", "]"))),
        ("many members", format!("{{{}\"username\":1}}", "\"a\":1,".repeat(9_000))),
        ("one member many times", format!("{{{}\"password\":1}}", "\"username\":\"a\",".repeat(3_000))),
        ("a number without an end", format!("{{\"username\":{}}}", "9".repeat(60_000))),
        ("more than is read", format!("{{\"username\":\"{}\"}}", "a".repeat(2_000_000))),
    ] {
        for path in ["/auth/login", "/oauth/token", "/auth/refresh", "/auth/logout", "/oauth/introspect"] {
            let request = crate::support::post(path).header("Content-Type", "application/json").body(body.clone());
            let response = gateway.send(&request);
            assert!([400, 401, 413, 415].contains(&response.status), "{name} at {path}: {response:?}");
        }
    }
    gateway.send(&get("/open/last")).expect(200);
    assert!(resident(&gateway) - before < WORKER_MAX, "{} KiB more", (resident(&gateway) - before) / KIB);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn an_upstream_that_does_not_answer_leaves_room_for_the_others() {
    let gate = Gate::default();
    let opened = gate.clone();
    let slow = Upstream::start(move |_| {
        opened.wait();
        Reply::text("slow")
    });
    let upstream = Upstream::hello();
    let both =
        format!("  slow: {{ servers: ['{}'] }}\nroutes:\n  - {{ path: /slow, allow: anyone, to: slow }}\n", slow.url());
    let yaml = format!("workers: 1\n{}", routes(&upstream).replace("routes:\n", &both));
    // of these the gateway keeps a quarter, and half of what is left is for connections to servers
    let gateway = Setup::new(&yaml).descriptors(256).start();
    let (room, asked) = (96, 90);
    let mut callers: Vec<_> = (0..asked).map(|_| gateway.connect()).collect();
    for caller in &mut callers {
        caller.write(&get("/slow").to_bytes()).unwrap();
    }
    let taken = eventually("each waits for the server or was refused", || {
        let (taken, refused) = (slow.received().len(), gateway.access_log("/slow").len());
        if taken + refused == asked { Ok(taken) } else { Err((taken, refused)) }
    });
    // to the connection at which more than a fifth would be gone
    assert_eq!(taken, room * 4 / 5 + 1, "a fifth is left");
    for _ in 0..30 {
        gateway.send(&get("/open/x")).expect(200);
    }
    gate.open();
    let mut answered = 0;
    for caller in &mut callers {
        let response = caller.response("GET").unwrap();
        if response.status == 200 {
            answered += 1;
        } else {
            response.refused(502, "upstream_unavailable");
        }
    }
    assert_eq!(answered, taken);
    gateway.send(&get("/slow")).expect(200);
}
