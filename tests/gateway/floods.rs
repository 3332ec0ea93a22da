//! Floods of HTTP/2 frames: memory stays bounded, the connection that floods ends, and others are served
//! (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, hello,
    request,
};
use crate::support::{DEADLINE, Gateway, Upstream, eventually, get, routes};

/// What one connection may cost, whatever it sends: its windows, its buffers, its streams, and what the allocator keeps.
const GROWTH_MAX: u64 = 48 * 1024 * 1024;

/// Bytes that a process holds in memory.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

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
