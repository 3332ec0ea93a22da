//! An upstream that answers as told and keeps what it got, byte for byte.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::client::{fields, find, read};
use super::wait::{DEADLINE, eventually};

/// A request as an upstream got it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Without chunk framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The head as it came over the wire.
    pub head: String,
    /// The request line, byte for byte.
    pub line: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }
}

type Script = Box<dyn FnOnce(&mut TcpStream) + Send>;

/// What an upstream answers.
pub enum Reply {
    /// These bytes; the connection goes on where `keep` is set.
    Bytes { bytes: Vec<u8>, keep: bool },
    /// Whatever this does with the socket; then the connection ends.
    Script(Script),
}

impl Reply {
    pub fn text(body: &str) -> Self {
        Self::new(200, &[("Content-Type", "text/plain")], body)
    }

    pub fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {status} Told\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        Self::Bytes { bytes: head.into_bytes(), keep: true }
    }

    /// These bytes, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes { bytes: bytes.into(), keep: false }
    }

    /// The end of the connection, without a byte.
    pub fn close() -> Self {
        Self::raw("")
    }

    pub fn script(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> Self {
        Self::Script(Box::new(script))
    }
}

/// A server on a free port.
pub struct Upstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Upstream {
    /// Answers each request with `answer`, after its body was read.
    pub fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(move |socket, received| serve(socket, received, &answer))
    }

    /// Answers `200` with the text `hello`.
    pub fn hello() -> Self {
        Self::start(|_| Reply::text("hello"))
    }

    /// Hands each connection to `session`, unread.
    pub fn sessions(session: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve(move |socket, _| session(socket))
    }

    fn serve(session: impl Fn(TcpStream, &Mutex<Vec<Received>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            connections: Arc::default(),
            stopped: Arc::default(),
        };
        let (received, connections) = (upstream.received.clone(), upstream.connections.clone());
        let (stopped, session) = (upstream.stopped.clone(), Arc::new(session));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let socket = socket.unwrap();
                socket.set_nodelay(true).unwrap();
                socket.set_read_timeout(Some(DEADLINE * 3)).unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (session, received) = (session.clone(), received.clone());
                std::thread::spawn(move || session(socket, &received));
            }
        });
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Received {
        self.received().pop().expect("the upstream got a request")
    }

    /// The request, once there is one.
    pub fn first(&self) -> Received {
        eventually("a request at the upstream", || self.received().into_iter().next().ok_or("none"))
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// An address on which nobody listens, and nobody else can as long as the socket is kept.
pub fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// An address on which nobody listens yet.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn serve(mut socket: TcpStream, received: &Mutex<Vec<Received>>, answer: &impl Fn(&Received) -> Reply) {
    let mut buffer = Vec::new();
    while let Some(request) = request(&mut socket, &mut buffer) {
        received.lock().unwrap().push(request.clone());
        let keep = match answer(&request) {
            Reply::Bytes { bytes, keep } => socket.write_all(&bytes).is_ok() && keep,
            Reply::Script(script) => {
                script(&mut socket);
                false
            }
        };
        if !keep {
            drop(socket.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection.
fn request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let head = until(socket, buffer, b"\r\n\r\n")?;
    let line = head.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default().to_vec();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next()?.split(' ');
    let mut request = Received {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        headers: fields(lines),
        head: head.clone(),
        line,
        ..Received::default()
    };
    if request.header("Expect").is_some() {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if request.header("Transfer-Encoding").is_some() {
        loop {
            let line = until(socket, buffer, b"\r\n")?;
            let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
            if size == 0 {
                break;
            }
            request.body.extend(take(socket, buffer, size)?);
            take(socket, buffer, 2)?;
        }
        loop {
            let line = until(socket, buffer, b"\r\n")?;
            if line == b"\r\n" {
                break;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            request.trailers.extend(fields([line.as_str()].into_iter()));
        }
    } else if let Some(length) = request.header("Content-Length") {
        let length = length.parse().ok()?;
        request.body = take(socket, buffer, length)?;
    }
    Some(request)
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
    match read(socket, &mut part) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend_from_slice(&part[..count]);
            Some(())
        }
    }
}
