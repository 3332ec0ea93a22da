//! A small HTTP/1.1 client over any stream, that shows everything it got and can send what no library would.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use serde_json::Value;

use super::wait::DEADLINE;

/// A request to be written as it stands.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn get(target: &str) -> Request {
    Request::new("GET", target)
}

pub fn post(target: &str) -> Request {
    Request::new("POST", target)
}

pub fn put(target: &str) -> Request {
    Request::new("PUT", target)
}

pub fn delete(target: &str) -> Request {
    Request::new("DELETE", target)
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn authorization(self, value: &str) -> Self {
        self.header("Authorization", value)
    }

    pub fn basic(self, user: &str, password: &str) -> Self {
        self.authorization(&basic(user, password))
    }

    pub fn bearer(self, token: &str) -> Self {
        self.authorization(&format!("Bearer {token}"))
    }

    pub fn token(self, token: &str) -> Self {
        self.authorization(&format!("Token {token}"))
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    pub fn form(self, body: &str) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.has("Host") {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let framed = self.has("Content-Length") || self.has("Transfer-Encoding");
        if !framed && (!self.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&self.method.as_str())) {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The value of `Authorization` for Basic (RFC 7617 2).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A response, whole.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The statuses of the interim responses before it.
    pub interim: Vec<u16>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text member `name` of the JSON body.
    #[track_caller]
    pub fn member(&self, name: &str) -> String {
        let body = self.json();
        body[name].as_str().unwrap_or_else(|| panic!("no text {name:?} in {body}")).to_owned()
    }

    /// Asserts a refusal of this status and code, in the form that every refusal has (contract 4).
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let response = self.expect(status);
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{response:?}");
        assert_eq!(response.member("error"), code);
        assert_eq!(Some(response.member("request_id").as_str()), response.header("X-Request-Id"));
        if status == 401 {
            assert!(!response.all("WWW-Authenticate").is_empty(), "a 401 bears a challenge: {response:?}");
        }
        response
    }

    /// Asserts the status, with the whole response in the failure.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {self:?}", self.text());
        self
    }
}

/// The statuses in a stream of responses.
pub fn statuses(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer).into_owned();
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text[at..].split(' ').nth(1).map(str::to_owned)).collect()
}

/// The first field of this name.
pub fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Whatever a connection runs over.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection to a server.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn plain(address: SocketAddr) -> Self {
        Self::over(connect(address))
    }

    /// On a socket that is connected.
    pub fn over(socket: TcpStream) -> Self {
        Self { stream: Box::new(bounded(socket)), buffer: Vec::new() }
    }

    /// Over TLS, with the handshake done; the error of a handshake that failed.
    pub fn tls(address: SocketAddr, name: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Self> {
        Self::tls_over(connect(address), name, config)
    }

    /// [`Connection::tls`] on a socket that is connected.
    pub fn tls_over(socket: TcpStream, name: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let mut socket = bounded(socket);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = rustls::ClientConnection::new(config, name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self { stream: Box::new(rustls::StreamOwned::new(session, socket)), buffer: Vec::new() })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    #[track_caller]
    pub fn send(&mut self, request: &Request) -> Response {
        // a server may answer and close before it read all; the answer counts
        let written = self.write(&request.to_bytes());
        self.response(&request.method).unwrap_or_else(|error| panic!("{error} ({written:?})"))
    }

    /// The next response, with its body; `method` says whether there can be one.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        let encoding = response.header("Transfer-Encoding").map(str::to_ascii_lowercase);
        let length = response.header("Content-Length").map(|length| length.parse::<usize>().unwrap());
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        }
        if encoding.is_some_and(|encoding| encoding.ends_with("chunked")) {
            self.chunked(&mut response)?;
        } else if let Some(length) = length {
            response.body = self.take(length)?;
        } else {
            response.body = self.rest()?;
        }
        Ok(response)
    }

    /// The head of the next response that is not interim.
    pub fn head(&mut self) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut lines = text.trim_end().split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or_else(|| io::Error::other(format!("not a status line: {text:?}")))?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            return Ok(Response { status, headers: fields(lines), interim, ..Response::default() });
        }
    }

    /// The next chunk of a chunked body; empty at its end, with the trailers read.
    pub fn chunk(&mut self, response: &mut Response) -> io::Result<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let size = String::from_utf8_lossy(&line).trim().to_owned();
        let size = usize::from_str_radix(&size, 16).map_err(|_| io::Error::other(format!("not a size: {size:?}")))?;
        if size == 0 {
            let mut lines = Vec::new();
            loop {
                let line = self.until(b"\r\n")?;
                if line == b"\r\n" {
                    break;
                }
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            response.trailers = fields(lines.iter().map(String::as_str));
            return Ok(Vec::new());
        }
        let chunk = self.take(size)?;
        self.take(2)?;
        Ok(chunk)
    }

    fn chunked(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let chunk = self.chunk(response)?;
            if chunk.is_empty() {
                return Ok(());
            }
            response.body.extend(chunk);
        }
    }

    /// Everything until the other end closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        let mut part = [0; 16_384];
        loop {
            match read(&mut self.stream, &mut part) {
                Ok(0) => return Ok(rest),
                Ok(count) => rest.extend_from_slice(&part[..count]),
                // closed with bytes of ours unread, or without close_notify: what came before counts
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                    return Ok(rest);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut part = [0; 16_384];
        let count = read(&mut self.stream, &mut part)?;
        if count == 0 {
            let seen = String::from_utf8_lossy(&self.buffer).into_owned();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {seen:?}")));
        }
        self.buffer.extend_from_slice(&part[..count]);
        Ok(())
    }
}

/// Reads; what a signal interrupts goes on, as `SA_RESTART` does not for a socket with a timeout.
pub fn read(stream: &mut (impl Read + ?Sized), part: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, DEADLINE).unwrap()
}

/// Nothing waits for ever.
fn bounded(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Field lines as pairs.
pub fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}
