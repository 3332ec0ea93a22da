//! For benches that ask one request after the other.

use std::io::{Read, Write};
use std::net::TcpStream;

/// One request and its response, which ends in `hello`.
pub(crate) fn ask(socket: &mut TcpStream, request: &[u8]) {
    socket.write_all(request).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"hello") {
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(part.iter().take(count));
    }
}
