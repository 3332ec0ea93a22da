//! One connection from accept to end: TLS, the choice of protocol, and the serving of its requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::gate::Gate;
use super::head::Scanner;
use super::link::{FIRST_BYTE, Guard, Link, Order, Phase, Tracked, UnderWay, Worker};
use super::listeners::{Offer, Speaks};
use super::tls::Acceptor;
use super::{Bounds, Handler, Peer, head, redirect};
use crate::rejection::Rejection;
use crate::wire::body::Body;

/// What the client connection preface of HTTP/2 begins with (RFC 9113 3.4); hyper looks at the rest.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper keeps room for this many fields on the stack; another number costs an allocation a request.
const HEADERS_OF_HYPER: usize = 100;

/// A head that our scanner passes must never be too large for hyper's buffer.
const READ_BUFFER_MIN: usize = 64 * 1024;

/// Bounds of HTTP/2. Streams: what browsers are used to. Windows: enough for 100 Mbit/s at 80 ms. Resets: a caller who
/// opens and cancels (CVE-2023-44487), or makes us cancel (CVE-2025-8671), is cut off soon.
const STREAMS_MAX: u32 = 128;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 64;

/// What serves the requests of a connection.
struct Service<H> {
    handler: H,
    peer: Rc<Peer>,
    link: Arc<Link>,
    /// The port of https, on a redirect listener.
    redirect_to: Option<u16>,
    bounds: Bounds,
}

/// Serves a connection that was accepted under this offer.
pub(super) async fn serve<H: Handler>(
    mut socket: TcpStream,
    offer: Arc<Offer>,
    peer: Rc<Peer>,
    handler: H,
    worker: Rc<Worker>,
    guard: Guard,
) {
    // a response is written whole; waiting for more of it helps nobody. Where it fails the peer is gone, and reading tells
    drop(socket.set_nodelay(true));
    let redirect_to = match &offer.speaks {
        Speaks::Tls(acceptor) => {
            let Some(tls) = handshake(acceptor, socket, &peer, &worker).await else { return };
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = Service::new(handler, peer, &worker, offer, None);
            return if http2 {
                service.http2(tls, BytesMut::new(), &worker, guard).await;
            } else {
                service.http1(tls, BytesMut::new(), guard).await;
            };
        }
        Speaks::Plain => None,
        Speaks::Redirect { https_port } => Some(*https_port),
    };
    let Some((ahead, http2)) = first_bytes(&mut socket, &peer, &worker).await else { return };
    let service = Service::new(handler, peer, &worker, offer, redirect_to);
    if http2 {
        service.http2(socket, ahead, &worker, guard).await;
    } else {
        service.http1(socket, ahead, guard).await;
    }
}

/// Whether the caller sends anything before `limit`, and soon where the process is to end: nobody waits for those who have
/// asked nothing, but the first bytes of a connection that has just been made may be on their way.
async fn speaks_at_all(socket: &TcpStream, limit: Instant, peer: &Peer) -> Result<bool, Elapsed> {
    let draining = async {
        let opened = Instant::now();
        peer.shutdown.wait().await;
        sleep_until(opened + FIRST_BYTE).await;
    };
    let mut byte = [0];
    // that a socket is said to be readable does not say that there is anything
    tokio::select! {
        biased;
        peeked = timeout_at(limit, socket.peek(&mut byte)) => peeked.map(|bytes| bytes.is_ok_and(|bytes| bytes > 0)),
        () = draining => Ok(false),
    }
}

async fn handshake(
    acceptor: &Arc<Acceptor>,
    socket: TcpStream,
    peer: &Peer,
    worker: &Worker,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let limit = Instant::now() + worker.state.terms().timeouts.handshake;
    let shaken = match speaks_at_all(&socket, limit, peer).await {
        Ok(true) => timeout_at(limit, acceptor.accept(socket)).await,
        Ok(false) => return None,
        Err(elapsed) => Err(elapsed),
    };
    let (version, result, tls) = match shaken {
        Ok(Ok(tls)) => (acceptor_version(&tls), "ok", Some(tls)),
        Ok(Err(error)) => {
            tracing::debug!(listener = %peer.listener, %error, "tls handshake failed");
            ("-", "failed", None)
        }
        Err(_) => ("-", "timeout", None),
    };
    worker.state.metrics.tls_handshakes.with_label_values(&[&*peer.listener, version, result]).inc();
    tls
}

fn acceptor_version(tls: &tokio_rustls::server::TlsStream<TcpStream>) -> &'static str {
    match tls.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        Some(_) | None => "-",
    }
}

/// The first bytes in clear, and whether they begin HTTP/2; `None` where there are none: who has said nothing is told
/// nothing.
async fn first_bytes(socket: &mut TcpStream, peer: &Peer, worker: &Worker) -> Option<(BytesMut, bool)> {
    let limit = Instant::now() + worker.state.terms().timeouts.request_header;
    if !matches!(speaks_at_all(socket, limit, peer).await, Ok(true)) {
        return None;
    }
    let mut ahead = BytesMut::new();
    match timeout_at(limit, speaks_http2(socket, &mut ahead)).await {
        Ok(Ok(http2)) => Some((ahead, http2)),
        Ok(Err(_)) => None,
        Err(_) if ahead.is_empty() => None,
        Err(_) => Some((ahead, false)),
    }
}

/// Whether the caller speaks HTTP/2 with prior knowledge (RFC 9113 3.3). What was read is left in `ahead`.
async fn speaks_http2(socket: &mut TcpStream, ahead: &mut BytesMut) -> io::Result<bool> {
    loop {
        if socket.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = ahead.len().min(PREFACE.len());
        if ahead.get(..known) != PREFACE.get(..known) {
            return Ok(false);
        }
        if known == PREFACE.len() {
            return Ok(true);
        }
    }
}

impl<H: Handler> Service<H> {
    fn new(handler: H, peer: Rc<Peer>, worker: &Worker, offer: Arc<Offer>, redirect_to: Option<u16>) -> Rc<Self> {
        let bounds = worker.state.terms().bounds;
        Rc::new(Self { handler, peer, link: worker.link(offer), redirect_to, bounds })
    }

    async fn http1<S>(self: Rc<Self>, socket: S, ahead: BytesMut, guard: Guard)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let (bounds, link) = (self.bounds, Arc::clone(&self.link));
        let scanner = Scanner::new(bounds.header_bytes_max, bounds.headers_max);
        let gate = Gate::new(socket, ahead, Arc::clone(&link), scanner, guard);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .max_header_size(bounds.header_bytes_max)
            .max_buf_size(bounds.header_bytes_max.saturating_mul(2).max(READ_BUFFER_MIN));
        if bounds.headers_max > HEADERS_OF_HYPER {
            builder.max_headers(bounds.headers_max);
        }
        let service = service_fn(|request| Rc::clone(&self).answer(self.link.begin(), request));
        let connection = builder.serve_connection(TokioIo::new(gate), service).with_upgrades();
        drive(connection, &self, |connection| {
            // before its first request is whole, hyper would drop it; that one is told by `Connection: close` instead
            let may_close = matches!(link.phase(), Phase::Idle | Phase::Busy);
            if may_close {
                connection.graceful_shutdown();
            }
            may_close
        })
        .await;
    }

    async fn http2<S>(self: Rc<Self>, socket: S, ahead: BytesMut, worker: &Worker, guard: Guard)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let link = Arc::clone(&self.link);
        link.multiplex();
        let timeouts = worker.state.terms().timeouts;
        let mut builder = http2::Builder::new(LocalExecutor(Arc::clone(&link)));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(self.bounds.header_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .keep_alive_interval(timeouts.idle / 2)
            .keep_alive_timeout(timeouts.request_header)
            .enable_connect_protocol();
        let service = service_fn(|request| Rc::clone(&self).answer(self.link.begin(), request));
        let connection = builder.serve_connection(TokioIo::new(Rewound { socket, ahead, _guard: guard }), service);
        drive(connection, &self, |connection| {
            connection.graceful_shutdown();
            true
        })
        .await;
    }

    /// Answers a request, whatever happens to the handler.
    async fn answer(
        self: Rc<Self>,
        under_way: UnderWay,
        request: Request<Incoming>,
    ) -> Result<Response<Tracked>, Infallible> {
        let version = request.version();
        let answered = AssertUnwindSafe(self.respond(request)).catch_unwind().await;
        let mut response = answered.unwrap_or_else(|_| {
            tracing::error!(listener = %self.peer.listener, "a request ended by a panic");
            self.handler.refuse(&self.peer, Rejection::Internal)
        });
        if version < Version::HTTP_2 {
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                self.link.upgrade();
            } else if self.link.is_finishing() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Ok(response.map(|body| Tracked::new(body, under_way.answered())))
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if request.version() == Version::HTTP_2
            && let Err(fault) = head::look_at_http2(request.headers(), self.bounds.headers_max)
        {
            return self.handler.refuse(&self.peer, fault.into());
        }
        let Some(https_port) = self.redirect_to else { return self.handler.handle(&self.peer, request).await };
        match redirect::location(request.uri(), request.headers(), https_port) {
            Ok(location) => self.handler.redirect(&self.peer, location),
            Err(rejection) => self.handler.refuse(&self.peer, rejection),
        }
    }

    /// The whole response to what is refused before hyper has a request.
    fn refusal(&self, rejection: Rejection) -> Vec<u8> {
        written(self.handler.refuse(&self.peer, rejection))
    }
}

/// A response as the last one of an HTTP/1.1 connection.
fn written(response: Response<Body>) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let content = content(body);
    let mut text = Vec::with_capacity(512 + content.len());
    text.extend_from_slice(format!("HTTP/1.1 {}\r\n", head.status).as_bytes());
    for (name, value) in head.headers.iter().filter(|(name, _)| !matches!(**name, CONNECTION | CONTENT_LENGTH | DATE)) {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n", content.len()).as_bytes());
    text.extend_from_slice(&content);
    text
}

/// What is there of a body at once.
fn content(body: Body) -> Vec<u8> {
    let mut content = Vec::new();
    let mut body = pin!(body);
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        if let Ok(mut bytes) = frame.into_data() {
            content.extend_from_slice(&bytes);
            bytes.advance(bytes.len());
        }
    }
    content
}

/// Runs a connection, and does what it is ordered to. `finish` says whether it could be asked to end already.
async fn drive<H, C, E>(connection: C, service: &Service<H>, finish: impl Fn(Pin<&mut C>) -> bool)
where
    H: Handler,
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let mut asked = false;
    let ended = poll_fn(|cx| {
        match service.link.ordered(cx) {
            Some(Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => asked = asked || finish(connection.as_mut()),
            None => {}
        }
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() && service.link.write_refusal(|rejection| service.refusal(rejection)) {
            return connection.as_mut().poll(cx);
        }
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "connection broke off");
    }
}

/// Runs the streams of HTTP/2 on the worker that has their connection.
#[derive(Clone, Debug)]
struct LocalExecutor(Arc<Link>);

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, stream: F) {
        self.0.streams().run(stream);
    }
}

/// A socket from which something was read already.
struct Rewound<S> {
    socket: S,
    ahead: BytesMut,
    _guard: Guard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let piece = this.ahead.split_to(this.ahead.len().min(buf.remaining()));
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
