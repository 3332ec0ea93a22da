//! Callers at a fixed rate, whatever the answers take: each is a thread that sends when it is time, so that nothing but the
//! kernel is between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What each answer took. Where the one before was late, that counts too: from when the request should have been sent.
pub(crate) fn latencies(
    address: SocketAddr,
    requests: &[Vec<u8>],
    callers: u32,
    rate: u32,
    span: Duration,
) -> Vec<Duration> {
    let (begun, between) = (Instant::now() + Duration::from_millis(20), Duration::from_secs(1) / rate);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                scope.spawn(move || {
                    let mut socket = TcpStream::connect(address).unwrap();
                    socket.set_nodelay(true).unwrap();
                    let (mut took, mut buffer) = (Vec::new(), vec![0; 4096]);
                    for number in (caller..).step_by(callers as usize) {
                        let due = begun + between * number;
                        if due > begun + span {
                            break;
                        }
                        let now = Instant::now();
                        let mut from = due;
                        if let Some(wait) = due.checked_duration_since(now) {
                            std::thread::sleep(wait);
                            // that it was woken late is not the answer's fault
                            from = Instant::now();
                        }
                        socket.write_all(&requests[number as usize % requests.len()]).unwrap();
                        whole_answer(&mut socket, &mut buffer);
                        took.push(from.elapsed());
                    }
                    took
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// One of 200 with a length.
fn whole_answer(socket: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = socket.read(&mut buffer[filled..]).unwrap();
        assert!(count > 0, "it closed a connection");
        filled += count;
        let text = &buffer[..filled];
        let Some(end) = memchr::memmem::find(text, b"\r\n\r\n") else { continue };
        assert!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(text));
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        let length: usize = length.expect("a length");
        if filled >= end + 4 + length {
            return;
        }
    }
}
