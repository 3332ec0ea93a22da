//! Open sessions of RFC 6455 at both ends of the gateway.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Request, get};
use super::upstream::{Received, Reply, Upstream};
use super::wait::DEADLINE;

/// A caller's side.
pub type Session = tungstenite::WebSocket<TcpStream>;

/// The answer to a request for a WebSocket: one that sends back what it gets. `None` for any other request.
pub fn answer(request: &Received) -> Option<Reply> {
    let agreed = agreed(request.header("Sec-WebSocket-Key")?);
    Some(Reply::script(move |socket| {
        drop(socket.write_all(agreed.as_bytes()));
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

/// A request for one as a library would not send it: nothing else of the protocol has to follow.
pub fn request(path: &str) -> Request {
    get(path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// The head that agrees to a request.
pub fn agreed(key: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A caller of HTTP/2 who may ask for one (RFC 8441): the server has said that it takes them.
pub async fn over_http2(address: SocketAddr) -> h2::client::SendRequest<bytes::Bytes> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let start = Instant::now();
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        assert!(start.elapsed() < DEADLINE, "no extended CONNECT");
        tokio::task::yield_now().await;
        client = client.ready().await.unwrap();
    }
    client
}

/// The wish of such a caller.
pub fn connect(path: &str, authorization: Option<&str>) -> http::Request<()> {
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://localhost{path}"))
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.body(()).unwrap()
}

pub fn says_and_hears(session: &mut Session) {
    session.send(Message::text("hello")).unwrap();
    assert_eq!(session.read().unwrap(), Message::text("hello"));
}
