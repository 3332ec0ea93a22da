//! One connection from accept to end: TLS, the choice of protocol, and the serving of its requests.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::head::HeadBounds;
use super::http1::{self, Http2};
use super::link::{FIRST_BYTE, Guard, Link, Order, Phase, Tracked, Worker};
use super::listeners::{Offer, Speaks};
use super::pace::{Paced, Turn};
use super::rewound::Rewound;
use super::tls::Acceptor;
use super::{Bounds, Handler, Peer, http2_head, redirect};
use crate::rejection::Rejection;
use crate::wire::body::Body;

/// What the client connection preface of HTTP/2 begins with (RFC 9113 3.4); hyper looks at the rest.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bounds of HTTP/2. Streams: what browsers are used to. Windows: enough for 100 Mbit/s at 80 ms. Resets: a caller who
/// opens and cancels (CVE-2023-44487), or makes us cancel (CVE-2025-8671), is cut off soon.
const STREAMS_MAX: u32 = 128;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 64;

/// What serves the requests of a connection.
pub(super) struct Service<H> {
    handler: H,
    peer: Rc<Peer>,
    pub(super) link: Rc<Link>,
    pub(super) worker: Rc<Worker>,
    /// The port of https, on a redirect listener.
    redirect_to: Option<u16>,
    bounds: Bounds,
}

/// Serves a connection that was accepted under this offer, by a task of its own, which is as large as it is while the
/// connection is idle: what a handshake, a request or HTTP/2 needs is in boxes that go with it.
pub(super) fn start<H: Handler>(
    socket: TcpStream,
    offer: Arc<Offer>,
    peer: Rc<Peer>,
    handler: H,
    worker: Rc<Worker>,
    guard: Guard,
) {
    // a response is written whole; waiting for more of it helps nobody. Where it fails the peer is gone, and reading tells
    drop(socket.set_nodelay(true));
    let link = worker.link(Arc::clone(&offer));
    let redirect_to = match &offer.speaks {
        Speaks::Tls(_) | Speaks::Plain => None,
        Speaks::Redirect { https_port } => Some(*https_port),
    };
    let service = Service::new(handler, peer, worker, link, redirect_to);
    if matches!(offer.speaks, Speaks::Tls(_)) {
        spawn_local(encrypted(socket, offer, service, guard));
    } else {
        spawn_local(plain(socket, service, guard));
    }
}

async fn plain<H: Handler>(socket: TcpStream, service: Rc<Service<H>>, guard: Guard) {
    if let Some(connection) = http1::serve(socket, true, &service, guard).await {
        service.http2(connection).await;
    }
}

async fn encrypted<H: Handler>(socket: TcpStream, offer: Arc<Offer>, service: Rc<Service<H>>, guard: Guard) {
    let Speaks::Tls(acceptor) = &offer.speaks else { return };
    service.link.enter(Phase::Handshake);
    let shaken = Box::pin(handshake(acceptor, socket, &service.peer, &service.worker, &service.link)).await;
    let Some(tls) = shaken else { return };
    drop(offer);
    service.link.enter(Phase::Opened);
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        service.http2(Http2 { socket: tls, ahead: BytesMut::new(), guard }).await;
    } else {
        drop(http1::serve(tls, false, &service, guard).await);
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
    link: &Link,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let limit = Instant::now() + worker.state.terms().timeouts.handshake;
    let shaking = async {
        match speaks_at_all(&socket, limit, peer).await {
            Ok(true) => timeout_at(limit, acceptor.accept(socket)).await.map(Some),
            Ok(false) => Ok(None),
            Err(elapsed) => Err(elapsed),
        }
    };
    let mut shaking = pin!(shaking);
    // at the cap it makes way for others, as whoever asks nothing
    let shaken = poll_fn(|cx| match link.ordered(cx) {
        Some(Order::Abort) => Poll::Ready(None),
        Some(Order::Finish) | None => shaking.as_mut().poll(cx).map(Some),
    });
    let (version, result, tls) = match shaken.await {
        Some(Ok(None)) => return None,
        Some(Ok(Some(Ok(tls)))) => (acceptor_version(&tls), "ok", Some(tls)),
        Some(Ok(Some(Err(error)))) => {
            tracing::debug!(listener = %peer.listener, %error, "tls handshake failed");
            ("-", "failed", None)
        }
        Some(Err(_)) | None => ("-", "timeout", None),
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

impl<H: Handler> Service<H> {
    pub(super) fn new(
        handler: H,
        peer: Rc<Peer>,
        worker: Rc<Worker>,
        link: Rc<Link>,
        redirect_to: Option<u16>,
    ) -> Rc<Self> {
        let bounds = worker.state.terms().bounds;
        Rc::new(Self { handler, peer, link, worker, redirect_to, bounds })
    }

    /// What heads are held to.
    pub(super) fn head_bounds(&self) -> HeadBounds {
        self.bounds.of_a_head()
    }

    /// Boxed: what HTTP/2 needs is much more than what an idle connection of HTTP/1.1 does.
    fn http2<S>(self: Rc<Self>, connection: Http2<S>) -> Pin<Box<dyn Future<Output = ()>>>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        Box::pin(async move {
            let Http2 { socket, ahead, guard } = connection;
            self.link.multiplex();
            let timeouts = self.worker.state.terms().timeouts;
            let mut builder = http2::Builder::new(LocalExecutor(Rc::clone(&self.link)));
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(http2_head::list_bytes_max(&self.bounds))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
                .max_local_error_reset_streams(LOCAL_RESETS_MAX)
                .keep_alive_interval(timeouts.idle / 2)
                .keep_alive_timeout(timeouts.request_header)
                .enable_connect_protocol();
            let share = self.worker.backlog.share();
            let service = service_fn(|request: Request<Incoming>| {
                let (service, share) = (Rc::clone(&self), Arc::clone(&share));
                let under_way = service.link.begin();
                async move {
                    // a stream that is answered while its body comes would be reset at once else
                    let (head, body) = request.into_parts();
                    let response = service.answer(Box::new(head), Body::streamed(body).lingering()).await;
                    Ok::<_, Infallible>(response.map(|body| Tracked::new(body, under_way.answered(), &share)))
                }
            });
            let turn = Rc::<Turn>::default();
            let io = TokioIo::new(Paced::new(Rewound::new(socket, ahead, guard), Rc::clone(&turn)));
            let mut connection = pin!(builder.serve_connection(io, service));
            let mut finishing = false;
            let ended = poll_fn(|cx| {
                match self.link.ordered(cx) {
                    Some(Order::Abort) => return Poll::Ready(Ok(())),
                    Some(Order::Finish) if !std::mem::replace(&mut finishing, true) => {
                        connection.as_mut().graceful_shutdown();
                    }
                    Some(Order::Finish) | None => {}
                }
                turn.begin();
                let polled = connection.as_mut().poll(cx);
                self.link.wrote();
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "connection broke off");
            }
        })
    }

    /// Answers a request, whatever happens to the handler. No `async fn`: each would keep a copy of the request.
    pub(super) fn answer(&self, head: Box<request::Parts>, body: Body) -> impl Future<Output = Response<Body>> {
        let (method, version) = (head.method.clone(), head.version);
        let answered = match catch_unwind(AssertUnwindSafe(|| self.answer_early(&head))) {
            Ok(None) => Either::Right(AssertUnwindSafe(self.handler.handle(&self.peer, head, body)).catch_unwind()),
            Ok(Some(response)) => Either::Left(ready(Ok(response))),
            Err(panic) => Either::Left(ready(Err(panic))),
        };
        answered.map(move |answered| {
            answered.unwrap_or_else(|_| {
                tracing::error!(listener = %self.peer.listener, "a request ended by a panic");
                let (mut asked, ()) = Request::new(()).into_parts();
                (asked.method, asked.uri, asked.version) = (method, Uri::from_static("*"), version);
                self.refuse(&asked, Rejection::Internal)
            })
        })
    }

    /// The response to what is no request.
    pub(super) fn refuse(&self, asked: &request::Parts, rejection: Rejection) -> Response<Body> {
        self.handler.refuse(&self.peer, asked, rejection)
    }

    /// The response to what the handler is not asked about.
    fn answer_early(&self, asked: &request::Parts) -> Option<Response<Body>> {
        if asked.version == Version::HTTP_2
            && let Err(fault) = http2_head::look_at(asked, &self.bounds)
        {
            return Some(self.refuse(asked, fault.into()));
        }
        let https_port = self.redirect_to?;
        Some(match redirect::location(&asked.uri, asked.extensions.get(), &asked.headers, https_port) {
            Ok(location) => self.handler.redirect(&self.peer, asked, location),
            Err(rejection) => self.refuse(asked, rejection),
        })
    }
}

/// Runs the streams of HTTP/2 on the worker that has their connection.
#[derive(Clone, Debug)]
struct LocalExecutor(Rc<Link>);

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, stream: F) {
        self.0.streams().run(stream);
    }
}
