//! Open sessions of RFC 6455 at both ends of the gateway.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

use super::upstream::{Received, Reply, Upstream};
use super::wait::DEADLINE;

/// A caller's side.
pub type Session = tungstenite::WebSocket<TcpStream>;

/// The answer to a request for a WebSocket: one that sends back what it gets. `None` for any other request.
pub fn answer(request: &Received) -> Option<Reply> {
    let accept = derive_accept_key(request.header("Sec-WebSocket-Key")?.as_bytes());
    Some(Reply::script(move |socket| {
        let head = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept:";
        drop(socket.write_all(format!("{head} {accept}\r\n\r\n").as_bytes()));
        let Ok(socket) = socket.try_clone() else { return };
        let mut session = tungstenite::WebSocket::from_raw_socket(socket, Role::Server, None);
        while let Ok(message) = session.read() {
            if message.is_close() || session.send(message).is_err() {
                break;
            }
        }
        // the answer to a close frame leaves with this
        drop(session.flush());
    }))
}

/// An upstream that sends back what a WebSocket says, and answers other requests with `hello`.
pub fn echo() -> Upstream {
    Upstream::start(|request| answer(request).unwrap_or_else(|| Reply::text("hello")))
}

/// What a caller asks, with these further fields.
pub fn handshake(
    address: SocketAddr,
    path: &str,
    more: &[(&'static str, &str)],
) -> tungstenite::handshake::client::Request {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in more {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// An open WebSocket, over which something was said and heard.
pub fn open(address: SocketAddr, path: &str, more: &[(&'static str, &str)]) -> Session {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut session, response) = tungstenite::client(handshake(address, path, more), socket).unwrap();
    assert_eq!(response.status(), 101);
    says_and_hears(&mut session);
    session
}

pub fn says_and_hears(session: &mut Session) {
    session.send(Message::text("hello")).unwrap();
    assert_eq!(session.read().unwrap(), Message::text("hello"));
}
