//! A new connection to a server: name look-up, TCP, TLS.
//!
//! Used by the pools of the workers and by health checks. Bounds are the caller's: each dial runs inside `timeouts.connect`
//! or a probe's timeout.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http1::Transport as Http1Transport;
use super::room::{Place, Share};
use super::{Protocol, ServerAddress, UpstreamTls};
use crate::clock::Clock;

/// How long an answer of the resolver serves. Short, since servers move; long enough that a burst of connections asks once.
const RESOLVED_FOR: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 4;

/// One address may take this long before the next one is tried; only where there is a next one.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(500);

/// When the kernel begins to ask a silent peer whether it is still there.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// More connections than this are not for one process, whatever its descriptor limit.
const CONNECTIONS_MAX: usize = 10_000_000;

/// Descriptors kept for the store, listeners, probes, logs and reloads: a quarter where there are few, at most these.
const DESCRIPTORS_KEPT_MAX: u64 = 256;

/// Where the descriptor limit cannot be read.
const DESCRIPTORS_ASSUMED: u64 = 1024;

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// How many connections all workers together open to servers at most: half of what the process may open, less what it
/// keeps for itself. The other half is for callers. Their requests of HTTP/1.1 need one of each; a caller of HTTP/2 may need
/// many of servers, which is why these have a bound of their own.
pub fn connections_max() -> usize {
    let open_max = rlimit::Resource::NOFILE.get().map_or(DESCRIPTORS_ASSUMED, |(soft, _)| soft);
    let kept = (open_max / 4).min(DESCRIPTORS_KEPT_MAX);
    usize::try_from((open_max - kept) / 2).unwrap_or(usize::MAX).clamp(1, CONNECTIONS_MAX)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The name did not resolve.
    #[error("name not resolved")]
    Resolve(#[source] io::Error),
    /// No address accepted.
    #[error("not connected")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed, or the certificate is not for the name.
    #[error("tls handshake failed")]
    Tls(#[source] io::Error),
    /// `https://` without TLS settings, or with a name that no certificate can bear.
    #[error("no tls settings for this server")]
    NoTls,
    /// HTTP could not begin.
    #[error("http handshake failed")]
    Http(#[source] hyper::Error),
    /// A WebSocket to an HTTP/2 server that does not take them (RFC 8441).
    #[error("no extended connect")]
    NoExtendedConnect,
    /// As many connections to servers are open as may be, or of this upstream as is fair.
    #[error("too many connections to servers")]
    NoRoom,
    /// It took longer than `timeouts.connect`.
    #[error("connecting took too long")]
    TooLate,
}

/// What may be spoken over a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Whatever the server speaks.
    Any,
    /// HTTP/1.1 only, where there is a choice: for an upgrade.
    Http1,
}

/// A connection on which nothing was said yet.
pub(super) struct Dialed {
    pub(super) stream: Stream,
    pub(super) http2: bool,
}

/// How one server is reached.
pub(super) struct Dialer {
    pub(super) address: ServerAddress,
    tls: Option<DialTls>,
    resolved: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
    /// A place a connection; probes, which are few, need none.
    room: Option<Arc<Share>>,
    clock: Clock,
}

struct DialTls {
    any: TlsConnector,
    http1: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    pub(super) fn new(address: &ServerAddress, tls: Option<&UpstreamTls>, clock: Clock) -> Self {
        let tls = tls.filter(|_| address.protocol == Protocol::Https).and_then(|tls| DialTls::new(address, tls));
        Self { address: address.clone(), tls, resolved: Mutex::new(None), room: None, clock }
    }

    /// Opens no more connections than `room` has places for.
    pub(super) fn within(mut self, room: Arc<Share>) -> Self {
        self.room = Some(room);
        self
    }

    /// Connects.
    pub(super) async fn dial(&self, offer: Offer) -> Result<Dialed, DialError> {
        let place = match &self.room {
            None => None,
            Some(room) => Some(room.enter().ok_or(DialError::NoRoom)?),
        };
        let tcp = self.connect().await?;
        match self.address.protocol {
            Protocol::Http1 => Ok(Dialed { stream: Stream::new(Transport::Plain(tcp), place), http2: false }),
            Protocol::H2c => Ok(Dialed { stream: Stream::new(Transport::Plain(tcp), place), http2: true }),
            Protocol::Https => {
                let tls = self.tls.as_ref().ok_or(DialError::NoTls)?;
                let connector = match offer {
                    Offer::Any => &tls.any,
                    Offer::Http1 => &tls.http1,
                };
                let stream = connector.connect(tls.name.clone(), tcp).await.map_err(DialError::Tls)?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                Ok(Dialed { stream: Stream::new(Transport::Tls(Box::new(stream)), place), http2 })
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, DialError> {
        let addresses = self.resolve().await?;
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (index, address) in addresses.iter().enumerate() {
            let connecting = TcpStream::connect(address);
            let connected = if index + 1 == addresses.len() {
                connecting.await
            } else {
                tokio::time::timeout(NEXT_ADDRESS_AFTER, connecting)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match connected {
                Ok(tcp) => {
                    tune(&tcp);
                    return Ok(tcp);
                }
                Err(error) => failure = error,
            }
        }
        Err(DialError::Connect(failure))
    }

    async fn resolve(&self) -> Result<Arc<[SocketAddr]>, DialError> {
        let (host, port) = (&*self.address.host, self.address.port);
        let now = self.clock.now();
        if let Some((at, addresses)) = &*self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
            && now < *at + RESOLVED_FOR
        {
            return Ok(Arc::clone(addresses));
        }
        let addresses: Arc<[SocketAddr]> = match host.parse::<IpAddr>() {
            Ok(ip) => Arc::from([SocketAddr::new(ip, port)]),
            // runs on the runtime's blocking pool
            Err(_) => {
                tokio::net::lookup_host((host, port)).await.map_err(DialError::Resolve)?.take(ADDRESSES_MAX).collect()
            }
        };
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&addresses)));
        Ok(addresses)
    }
}

impl DialTls {
    /// `None` for a name that no certificate can bear.
    fn new(address: &ServerAddress, tls: &UpstreamTls) -> Option<Self> {
        let name = tls.server_name.as_deref().unwrap_or(&address.host).to_owned();
        let name = ServerName::try_from(name).ok()?;
        let connector = |protocols: &[&[u8]]| {
            let mut config = rustls::ClientConfig::clone(&tls.config);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Some(Self { any: connector(&[H2, HTTP_1_1]), http1: connector(&[HTTP_1_1]), name })
    }
}

/// Both only make a connection better; one that refuses them works all the same.
fn tune(tcp: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE);
    if let Err(error) = tcp.set_nodelay(true).and_then(|()| socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)) {
        tracing::debug!(%error, "socket option not set");
    }
}

/// A connection that counts what came from the server, so that "no byte of a response came" is known and not guessed.
pub(super) struct Stream {
    transport: Transport,
    received: Received,
    _place: Option<Place>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bytes that came over one connection. Written by its reader alone; atomic since an upgraded stream must be `Send`.
#[derive(Clone, Default)]
pub(super) struct Received(Arc<AtomicU64>);

impl Received {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.store(self.bytes().wrapping_add(bytes as u64), Ordering::Relaxed);
    }
}

impl Stream {
    fn new(transport: Transport, place: Option<Place>) -> Self {
        Self { transport, received: Received::default(), _place: place }
    }

    pub(super) fn received(&self) -> Received {
        self.received.clone()
    }
}

impl Http1Transport for Stream {
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.transport {
            Transport::Plain(tcp) => {
                tcp.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Transport::Tls(tls) => {
                // tickets and the like are taken in on the way; a task's budget must not look like silence
                let mut buffer = ReadBuf::new(&mut byte);
                let read = poll_fn(|cx| Pin::new(&mut *tls).poll_read(cx, &mut buffer));
                pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }
}

impl Stream {
    /// As `is_quiet`, by the word of the system and not only of what the runtime has heard of by now: a server that closes
    /// right behind its response is seen to have done so.
    pub(super) fn is_surely_quiet(&self) -> bool {
        let tcp = match &self.transport {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => tls.get_ref().0,
        };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        SockRef::from(tcp).peek(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut stream.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        stream.received.add(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
