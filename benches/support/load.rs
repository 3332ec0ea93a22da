//! Callers that ask again and again, and an upstream that answers them: HTTP/1.1 as bytes, since whoever measures should
//! cost less than what is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Room for what is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection, over TLS or not.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Where callers connect to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Target {
    pub(crate) async fn connect(&self) -> std::io::Result<Box<dyn Duplex>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?))
    }
}

/// When callers stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this time; what is under way then is waited for.
    Passed(Duration),
    /// After so many requests of all of them.
    Asked(usize),
}

/// What was asked, and how it went.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) answers: usize,
    /// Of another status than the one that was wanted, or none.
    pub(crate) errors: usize,
    pub(crate) took: Vec<Duration>,
}

impl Done {
    fn merge(&mut self, other: Self) {
        self.answers += other.answers;
        self.errors += other.errors;
        self.took.extend(other.took);
    }
}

/// One thread for all callers.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Asks once, by a connection of its own: the status, and how long the body is.
pub(crate) fn once(target: &Target, request: &[u8]) -> std::io::Result<(u16, usize)> {
    let asking = async {
        let mut place = None;
        exchange(target, &mut place, request, &mut Reader::default()).await
    };
    let within = async { tokio::time::timeout(Duration::from_secs(10), asking).await };
    runtime().block_on(within).map_err(std::io::Error::other)?
}

/// Requests for a path, with more fields, each a whole line.
pub(crate) fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

/// Callers with connections that they keep; each time that they are asked to, they go on with them.
pub(crate) struct Callers {
    target: Target,
    connections: Vec<Option<Box<dyn Duplex>>>,
    requests: Arc<Vec<Vec<u8>>>,
    status: u16,
    /// The request that comes next; they are asked in turn.
    next: usize,
    /// A new connection for each request.
    is_brief: bool,
    runtime: Runtime,
}

impl Callers {
    /// So many, to whom `status` is the right answer to any of `requests`.
    pub(crate) fn new(target: Target, count: usize, requests: Vec<Vec<u8>>, status: u16) -> Self {
        let connections = (0..count).map(|_| None).collect();
        Self { target, connections, requests: Arc::new(requests), status, next: 0, is_brief: false, runtime: runtime() }
    }

    /// That connect for each request anew.
    pub(crate) fn brief(self) -> Self {
        Self { is_brief: true, ..self }
    }

    /// Asks until then, with all connections at once.
    pub(crate) fn ask(&mut self, until: Until) -> Done {
        let count = self.connections.len();
        self.ask_with(count, until)
    }

    /// The same with `busy` requests under way at a time; each goes by another connection than the one before, so that
    /// all connections are used.
    pub(crate) fn ask_with(&mut self, busy: usize, until: Until) -> Done {
        let begun = Instant::now();
        let (end, limit) = match until {
            Until::Passed(span) => (Some(begun + span), usize::MAX),
            Until::Asked(count) => (None, count),
        };
        let (asked, start) = (Arc::new(AtomicUsize::new(0)), self.next);
        let mut lanes: Vec<Vec<Option<Box<dyn Duplex>>>> = (0..busy).map(|_| Vec::new()).collect();
        for (number, connection) in self.connections.drain(..).enumerate() {
            lanes[number % busy].push(connection);
        }
        let mut done = Done::default();
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for mut lane in lanes {
                let (target, requests, asked) = (self.target.clone(), Arc::clone(&self.requests), Arc::clone(&asked));
                let (status, is_brief) = (self.status, self.is_brief);
                tasks.spawn(async move {
                    let mut done = Done::default();
                    let (mut reader, mut turn) = (Reader::default(), 0);
                    while end.is_none_or(|end| Instant::now() < end) {
                        let number = asked.fetch_add(1, Ordering::Relaxed);
                        if number >= limit {
                            break;
                        }
                        let request = &requests[(start + number) % requests.len()];
                        let connections = lane.len();
                        let place = &mut lane[turn % connections];
                        turn += 1;
                        let sent = Instant::now();
                        if let Ok((got, _)) = exchange(&target, place, request, &mut reader).await {
                            done.answers += 1;
                            done.errors += usize::from(got != status);
                            done.took.push(sent.elapsed());
                        } else {
                            *place = None;
                            done.errors += 1;
                        }
                        if is_brief {
                            *place = None;
                        }
                    }
                    (lane, done)
                });
            }
            while let Some(ended) = tasks.join_next().await {
                let (lane, one) = ended.unwrap();
                self.connections.extend(lane);
                done.merge(one);
            }
        });
        self.next = start + asked.load(Ordering::Relaxed).min(limit);
        done
    }
}

/// One request and its whole response: the status, and how long the body is.
async fn exchange(
    target: &Target,
    place: &mut Option<Box<dyn Duplex>>,
    request: &[u8],
    reader: &mut Reader,
) -> std::io::Result<(u16, usize)> {
    if place.is_none() {
        *place = Some(target.connect().await?);
    }
    let Some(connection) = place else { unreachable!("it was just made") };
    connection.write_all(request).await?;
    connection.flush().await?;
    reader.response(connection).await
}

/// Reads responses; its buffer serves for all of them.
struct Reader(Vec<u8>);

impl Default for Reader {
    fn default() -> Self {
        Self(vec![0; READ_BYTES])
    }
}

impl Reader {
    async fn response(&mut self, connection: &mut Box<dyn Duplex>) -> std::io::Result<(u16, usize)> {
        let (mut filled, broken) = (0, || std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        let head = loop {
            let count = connection.read(&mut self.0[filled..]).await?;
            if count == 0 {
                return Err(broken());
            }
            filled += count;
            if let Some(end) = memchr::memmem::find(&self.0[..filled], b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = &self.0[..head];
        let status = std::str::from_utf8(&text[9..12]).ok().and_then(|text| text.parse().ok()).ok_or_else(broken)?;
        let length = content_length(text).ok_or_else(broken)?;
        let mut rest = length.saturating_sub(filled - head);
        while rest > 0 {
            let count = connection.read(&mut self.0[..]).await?;
            if count == 0 {
                return Err(broken());
            }
            rest = rest.saturating_sub(count);
        }
        Ok((status, length))
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|&byte| byte == b'\n');
    let mut lines = lines.filter(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)));
    std::str::from_utf8(&lines.next()?[NAME.len()..]).ok()?.trim().parse().ok()
}

/// An upstream in a thread of its own: `/bytes/N` is answered with so many, any other path with 128.
pub(crate) fn answering() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    // whoever breaks a connection has had enough
                    drop(answer(socket).await);
                });
            }
        });
    });
    address
}

async fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut buffer, mut filled) = (vec![0; 4096], 0);
    let (mut response, mut response_of) = (Vec::new(), usize::MAX);
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break end + 4;
            }
            let count = socket.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
        };
        let bytes = size_of_answer(&buffer[..end]);
        let body = content_length(&buffer[..end]).unwrap_or(0);
        let here = body.min(filled - end);
        buffer.copy_within(end + here..filled, 0);
        filled -= end + here;
        let mut rest = body - here;
        if rest > 0 && buffer.len() < READ_BYTES {
            buffer.resize(READ_BYTES, 0);
        }
        while rest > 0 {
            let room = rest.min(buffer.len());
            let count = socket.read(&mut buffer[..room]).await?;
            if count == 0 {
                return Ok(());
            }
            rest -= count;
        }
        if response_of != bytes {
            response = format!(
                "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n"
            )
            .into_bytes();
            response.resize(response.len() + bytes, b'x');
            response_of = bytes;
        }
        socket.write_all(&response).await?;
    }
}

fn size_of_answer(head: &[u8]) -> usize {
    let asked = head.split(|&byte| byte == b' ').nth(1).and_then(|path| path.strip_prefix(b"/bytes/"));
    asked.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(SMALL)
}

/// What is answered where nothing else is asked for.
pub(crate) const SMALL: usize = 128;
