//! Forwarding over real sockets.
//!
//! The harness: a [`Bench`] that sends as a worker does, and a scripted [`Upstream`] that speaks bytes, records those it
//! got, and can do what no well-behaved server does.

mod attacks;
mod http1;
mod http2;
mod rewrite;
mod servers;
mod websocket;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::*;
use crate::authenticate::{Caller, Identity};
use crate::authorize;
use crate::clock::Clock;
use crate::principal::{Principal, Scheme, Subject};
use crate::record::metrics::Metrics;
use crate::rejection::Rejection;
use crate::route::{Allow, FieldEdits, Route, test_route};
use crate::wire::body::Body;
use crate::wire::target::{PathPolicy, Target};

/// Runs on a worker's kind of runtime.
pub(crate) fn local<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("a test ends") })
}

/// One step of a scripted connection. Behind the last one the connection is closed.
#[derive(Clone)]
enum Step {
    /// Reads a request's head.
    Head,
    /// Reads until these bytes came.
    Until(&'static str),
    /// Says this.
    Say(String),
    /// Closes with RST.
    Reset,
    /// Leaves the connection open and silent.
    Hold,
}
use Step::{Head, Hold, Reset, Until};

fn say(text: &str) -> Step {
    Step::Say(text.to_owned())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that does on its n-th connection what the n-th script says, and what the last one says on all later ones.
struct Upstream {
    address: SocketAddr,
    /// What each connection received.
    seen: Rc<RefCell<Vec<String>>>,
    /// Steps done, on all connections.
    steps: Rc<Cell<usize>>,
}

impl Upstream {
    async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let steps = Rc::new(Cell::new(0));
        let (all, done) = (Rc::clone(&seen), Rc::clone(&steps));
        spawn_local(async move {
            for index in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                all.borrow_mut().push(String::new());
                let script = scripts.get(index).or(scripts.last()).unwrap().clone();
                spawn_local(play(stream, script, Rc::clone(&all), Rc::clone(&done), index));
            }
        });
        Self { address, seen, steps }
    }

    fn connections(&self) -> usize {
        self.seen.borrow().len()
    }

    fn received(&self, connection: usize) -> String {
        self.seen.borrow()[connection].clone()
    }
}

async fn play(
    mut stream: TcpStream,
    script: Vec<Step>,
    seen: Rc<RefCell<Vec<String>>>,
    done: Rc<Cell<usize>>,
    index: usize,
) {
    let mut unread = String::new();
    for step in script {
        match step {
            Head => read_until(&mut stream, "\r\n\r\n", &mut unread, &seen, index).await,
            Until(text) => read_until(&mut stream, text, &mut unread, &seen, index).await,
            Step::Say(text) => drop(stream.write_all(text.as_bytes()).await),
            Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Hold => std::future::pending().await,
        }
        done.set(done.get() + 1);
    }
}

async fn read_until(stream: &mut TcpStream, end: &str, unread: &mut String, seen: &RefCell<Vec<String>>, index: usize) {
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = unread.find(end) {
            unread.drain(..at + end.len());
            return;
        }
        let Ok(1..) = stream.read(&mut buffer).await.inspect(|&count| {
            let text = String::from_utf8_lossy(&buffer[..count]);
            seen.borrow_mut()[index].push_str(&text);
            unread.push_str(&text);
        }) else {
            return std::future::pending().await;
        };
    }
}

fn server(address: SocketAddr) -> ServerAddress {
    server_of(address, Protocol::Http1)
}

fn server_of(address: SocketAddr, protocol: Protocol) -> ServerAddress {
    let scheme = match protocol {
        Protocol::Http1 => "http",
        Protocol::H2c => "h2c",
        Protocol::Https => "https",
    };
    let label = format!("{scheme}://{address}").into();
    ServerAddress { label, host: address.ip().to_string().into(), port: address.port(), protocol }
}

static REQUEST_ID: HeaderValue = HeaderValue::from_static("id-1");

/// An address at which nobody listens.
async fn closed_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn route() -> Route {
    Route { allow: Allow::Authenticated, ..test_route("/**") }
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        principal: Principal {
            subject: Subject::user("ann"),
            user_id: None,
            roles: Arc::from(["user".into(), "admin".into()]),
            scopes: Arc::from([]),
        },
        scheme: Scheme::Bearer,
        user_field: HeaderValue::from_static("ann"),
        roles_field: HeaderValue::from_static("user,admin"),
        expires_at: None,
        tie: None,
    })
}

/// One worker with one upstream.
struct Bench {
    upstreams: Upstreams,
    settings: Vec<UpstreamSettings>,
    timeouts: Timeouts,
    names: IdentityNames,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    clock: Clock,
    route: Route,
    origin: Origin<'static>,
}

impl Bench {
    fn new(servers: Vec<ServerAddress>) -> Self {
        Self::with(servers, |_| {})
    }

    fn with(servers: Vec<ServerAddress>, change: impl FnOnce(&mut ServerGroup)) -> Self {
        let mut group = ServerGroup { servers, balance: Balance::RoundRobin, health: None, keep_alive: 8, tls: None };
        change(&mut group);
        Self::of(UpstreamKind::Servers(Arc::new(group)))
    }

    fn of(kind: UpstreamKind) -> Self {
        let settings = vec![UpstreamSettings { name: "orders".into(), kind }];
        let (metrics, clock) = (Arc::new(Metrics::new()), Clock::system());
        let fleet = Arc::new(Fleet::new(Arc::clone(&metrics), clock.clone()));
        fleet.apply(&settings, &tokio::runtime::Handle::current());
        let upstreams = Upstreams::new(Arc::clone(&fleet), Rc::new(metrics.worker()), clock.clone());
        upstreams.apply(&settings);
        Self {
            upstreams,
            settings,
            timeouts: Timeouts {
                connect: Duration::from_secs(2),
                response_header: Duration::from_mins(1),
                idle: Duration::from_secs(75),
            },
            names: IdentityNames::default(),
            fleet,
            metrics,
            clock,
            route: route(),
            origin: Origin {
                peer: [192, 0, 2, 7].into(),
                trusted: false,
                https: true,
                host: HeaderValue::from_static("api.example.com"),
                request_id: &REQUEST_ID,
                random: [7; 24],
            },
        }
    }

    async fn try_send(&self, request: Request<Body>) -> (Result<Response<Body>, Rejection>, Option<Sent<'_>>) {
        let caller = if self.route.allow == Allow::Anyone { Caller::Anyone } else { Caller::Known(identity()) };
        let permit = authorize::permit(&self.route, caller).unwrap();
        let target = match Target::parse(request.uri(), &PathPolicy::default()) {
            Ok(target) => target,
            Err(error) => panic!("{error:?}"),
        };
        let settings =
            Settings { upstreams: &self.settings, timeouts: &self.timeouts, identity: &self.names, as_they_are: false };
        let (mut head, body) = request.into_parts();
        self.upstreams.send(&settings, permit, &target, &mut head, body, &self.origin).await
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Rejection> {
        self.try_send(request).await.0
    }

    /// Status and body, or the code of the refusal.
    async fn told(&self, request: Request<Body>) -> String {
        match self.send(request).await {
            Err(rejection) => rejection.code().to_owned(),
            Ok(response) => {
                let status = response.status().as_u16();
                match response.into_body().collect().await {
                    Ok(body) => format!("{status} {}", String::from_utf8_lossy(&body.to_bytes())),
                    Err(error) => format!("{status} then {error}"),
                }
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|found| found == line)
    }
}

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: &'static str) -> Request<Body> {
    Request::builder().method("POST").uri(path).body(Body::full(body)).unwrap()
}

/// Polls until `done`, as a readiness that has no event of its own.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not seen: {what}");
}

/// A body that a test feeds, and whose length is not known.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<http_body::Frame<bytes::Bytes>>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|frame| frame.map(Ok)));
    (sender, Body::boxed(http_body_util::StreamBody::new(stream)))
}

/// A well-behaved server: hyper with a handler, over whatever a test wants.
struct Handled {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
}

#[derive(Clone)]
enum Speaks {
    Http1,
    Http2,
    /// Without extended CONNECT.
    Http2Plain,
    /// By ALPN.
    Tls(tokio_rustls::TlsAcceptor),
}

impl Handled {
    async fn start<F, R>(speaks: Speaks, handler: F) -> Self
    where
        F: Fn(Request<hyper::body::Incoming>) -> R + 'static,
        R: Future<Output = Response<Body>> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let (counted, handler) = (Rc::clone(&connections), Rc::new(handler));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                spawn_local(converse(stream, speaks.clone(), Rc::clone(&handler)));
            }
        });
        Self { address, connections }
    }
}

async fn converse<F, R>(stream: TcpStream, speaks: Speaks, handler: Rc<F>)
where
    F: Fn(Request<hyper::body::Incoming>) -> R + 'static,
    R: Future<Output = Response<Body>> + 'static,
{
    use hyper_util::rt::TokioIo;
    let service = hyper::service::service_fn(move |request| {
        let answered = handler(request);
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    // how a test's connection ends is no concern of the server's
    match speaks {
        Speaks::Http1 => {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        }
        Speaks::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(pool::OnWorker);
            drop(builder.enable_connect_protocol().serve_connection(TokioIo::new(stream), service).await);
        }
        Speaks::Http2Plain => {
            let builder = hyper::server::conn::http2::Builder::new(pool::OnWorker);
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        }
        Speaks::Tls(acceptor) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let builder = hyper::server::conn::http2::Builder::new(pool::OnWorker);
                drop(builder.serve_connection(TokioIo::new(stream), service).await);
            } else {
                let builder = hyper::server::conn::http1::Builder::new();
                drop(builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            }
        }
    }
}
