//! A gateway and an upstream to measure, as processes and threads of their own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends the gateway with the bench.
pub(crate) struct Ending(pub(crate) Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// With the fields that most servers send.
const HELLO: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
                       Content-Length: 5\r\n\r\nhello";

/// An upstream that answers `hello`.
pub(crate) fn upstream() -> SocketAddr {
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
                        let sent = reader.get_mut().write_all(HELLO);
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

/// The gateway with `configuration` and this upstream as `api`, and where it listens.
pub(crate) fn gateway(folder: &Path, configuration: &str, upstream: SocketAddr) -> (Ending, SocketAddr) {
    gateway_under(&[], folder, configuration, upstream)
}

/// The same, as what `under` runs where that is not empty.
pub(crate) fn gateway_under(
    under: &[String],
    folder: &Path,
    configuration: &str,
    upstream: SocketAddr,
) -> (Ending, SocketAddr) {
    let text = format!("{configuration}upstreams: {{ api: {{ servers: ['http://{upstream}'] }} }}\n");
    std::fs::write(folder.join("gateway.yaml"), text).unwrap();
    let program = env!("CARGO_BIN_EXE_portcullis").to_owned();
    let mut words = under.iter().chain([&program]);
    let mut command = Command::new(words.next().unwrap());
    let mut child = command.args(words).current_dir(folder).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ending = Ending(child);
    let mut address = None;
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some((_, listening)) = line.split_once("listening on http://") {
            address = listening.parse().ok();
        }
        if line.ends_with("ready") {
            break;
        }
    }
    // what it says from here on is read, so that it never waits for a reader
    std::thread::spawn(move || lines.for_each(drop));
    (ending, address.expect("it listens"))
}
