//! Connections to servers: kept, opened, used.
//!
//! Each worker has its own, without locks. A connection of HTTP/1.1 serves one request at a time and comes back only if
//! the request was wholly sent and the response wholly read, so that a response never meets another request. A
//! connection of HTTP/2 is shared. Idle ones are used newest first and closed after `timeouts.idle`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, request, response};
use hyper::client::conn::{TrySendError, http1 as upgradable, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::dial::{DialError, Dialed, Dialer, Offer, Received, Stream};
use super::health::{Fleet, Health};
use super::heirs::{OfServer, is_reached_alike};
use super::http1::decode::Fields;
use super::http1::{self, RESPONSE_HEAD_BYTES_MAX, Transport as _};
use super::outgoing::Outgoing;
use super::retry::{self, Loss};
use super::rewrite::{Departure, Framing};
use super::{Protocol, ServerAddress, ServerGroup, Timeouts, UpstreamTls};
use crate::clock::Clock;
use crate::record::metrics::{Counter, WorkerMetrics};
use crate::wire::body::Body;
use crate::wire::http1::spares::Spares;
use crate::wire::target::TargetError;

/// Requests at once over one HTTP/2 connection before another is opened: what most servers grant at least.
const STREAMS_MAX: usize = 100;

const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// An HTTP/2 connection with requests under way is asked whether it lives, and given up where it does not answer.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's settings are its first frame. How long they are waited for, and how often looked at, before a WebSocket.
const SETTINGS_WITHIN: Duration = Duration::from_millis(500);
const SETTINGS_POLL: Duration = Duration::from_millis(2);

/// One server of an upstream, as one worker uses it.
pub(super) struct Server {
    pub(super) label: Arc<str>,
    authority: HeaderValue,
    pub(super) health: Arc<Health>,
    pub(super) outcomes: Outcomes,
    dialer: Dialer,
    tls: Option<UpstreamTls>,
    connections: Rc<Connections>,
    spares: Rc<Spares>,
}

/// A worker's connections to one server, whatever its upstream is called.
struct Connections {
    in_flight: Cell<usize>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// One at a time finds out what a server speaks, or opens a connection that others can share.
    opening: Semaphore,
    spoken: Cell<Spoken>,
    keep_alive: Cell<usize>,
    idle_for: Cell<Duration>,
    sweeping: Cell<bool>,
    clock: Clock,
}

/// What a worker's servers have in common.
#[derive(Clone, Copy)]
pub(super) struct Worker<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) metrics: &'a WorkerMetrics,
    pub(super) spares: &'a Rc<Spares>,
    pub(super) clock: &'a Clock,
}

/// Requests by how they ended.
pub(super) struct Outcomes {
    pub(super) ok: Counter,
    pub(super) error: Counter,
    pub(super) timeout: Counter,
    pub(super) connect_failed: Counter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Unknown,
    Http1,
    Http2,
}

struct Idle {
    connection: Stream,
    since: Instant,
}

/// A connection of HTTP/1.1 that may become a tunnel, and serves nobody else.
struct Upgradable {
    sender: upgradable::SendRequest<Outgoing>,
    received: Received,
}

/// A connection of HTTP/2.
struct Shared {
    sender: http2::SendRequest<Outgoing>,
    streams: Cell<usize>,
    since: Cell<Instant>,
}

/// Which kept connections may be used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// None.
    No,
    /// One on which nothing is known to have happened. The server may close it as it is used, so it is for requests that
    /// can be sent again.
    Quiet,
    /// One that the system says is open, at the price of asking it.
    Sure,
}

/// A connection for one request.
pub(super) struct Lease {
    way: Way,
    pub(super) reused: bool,
}

enum Way {
    Http1(Stream),
    Http2(InShared),
}

/// A new connection that no other request will use, for a WebSocket.
pub(super) struct Alone(AloneBy);

enum AloneBy {
    Http1(Upgradable),
    Http2(InShared),
}

/// A stream's place in a shared connection.
pub(super) struct InShared {
    connection: Rc<Shared>,
    clock: Clock,
}

/// A response.
pub(super) struct Reply {
    pub(super) head: response::Parts,
    pub(super) body: Body,
    /// Given back at its end; `None` where all of it has come, and its connection has gone back already.
    pub(super) used: Option<Used>,
}

/// What a response uses until it ends.
pub(super) enum Used {
    /// The body itself holds the connection, and gives it back.
    Http1,
    /// A connection that may become a tunnel.
    Upgradable(upgradable::SendRequest<Outgoing>),
    /// A place in a shared connection.
    Http2(InShared),
}

impl Used {
    /// The response has ended.
    pub(super) fn ended(self) {
        match self {
            Self::Http1 => {}
            Self::Upgradable(sender) => drop(sender),
            Self::Http2(place) => drop(place),
        }
    }
}

/// Why there was no response.
pub(super) enum Failure {
    /// The server's protocol has no way to say it.
    Unsayable(TargetError),
    /// Nothing was sent; head and body are as they were.
    Unsent,
    /// The connection broke after the request had begun. The head is as it was over HTTP/1.1, and gone over HTTP/2.
    Lost(Loss, Broken),
}

/// How a connection broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Hyper(hyper::Error),
    #[error(transparent)]
    Http1(http1::Error),
}

/// Counts a request of this worker as under way.
pub(super) struct InFlight(Rc<Connections>);

impl InFlight {
    pub(super) fn new(server: &Server) -> Self {
        let connections = Rc::clone(&server.connections);
        connections.in_flight.set(connections.in_flight.get() + 1);
        Self(connections)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

impl Server {
    /// The server of an upstream; with the `connections` that are open already, where there are any.
    pub(super) fn new(
        upstream: &Arc<str>,
        address: &ServerAddress,
        tls: Option<&UpstreamTls>,
        worker: &Worker<'_>,
        connections: Option<&Self>,
    ) -> Self {
        let Worker { fleet, metrics, spares, clock } = *worker;
        let count = |outcome| metrics.upstream_requests(upstream, &address.label, outcome);
        Self {
            label: Arc::clone(&address.label),
            authority: address.authority(),
            health: fleet.health(upstream, address),
            outcomes: Outcomes {
                ok: count("ok"),
                error: count("error"),
                timeout: count("timeout"),
                connect_failed: count("connect_failed"),
            },
            dialer: Dialer::new(address, tls, clock.clone()).within(fleet.share(upstream)),
            tls: tls.cloned(),
            connections: connections.map_or_else(
                || Rc::new(Connections::none(address.protocol, clock)),
                |server| Rc::clone(&server.connections),
            ),
            spares: Rc::clone(spares),
        }
    }

    pub(super) fn keep_at_most(&self, connections: usize) {
        self.connections.keep_alive.set(connections);
        self.connections.idle.borrow_mut().truncate(connections);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.connections.in_flight.get()
    }

    /// What it speaks, and its host and port.
    pub(super) const fn place(&self) -> (Protocol, &HeaderValue) {
        (self.dialer.address.protocol, &self.authority)
    }

    /// A connection: a kept one as far as `reuse` allows, else a new one.
    pub(super) async fn lease(&self, reuse: Reuse, now: Instant, timeouts: &Timeouts) -> Result<Lease, DialError> {
        self.connections.idle_for.set(timeouts.idle);
        if let Some(way) = self.connections.kept(reuse, now) {
            return Ok(Lease { way, reused: true });
        }
        // boxed, since a request that finds a connection has no need of room for opening one
        Box::pin(self.bounded(timeouts, self.open(reuse))).await
    }

    /// A connection for a WebSocket: over HTTP/1.1 where the server leaves a choice, else over HTTP/2 with extended CONNECT.
    pub(super) async fn lease_alone(&self, timeouts: &Timeouts) -> Result<Alone, DialError> {
        let begun = self.bounded(timeouts, async {
            let dialed = self.dialer.dial(Offer::Http1).await?;
            if dialed.http2 {
                return begin_http2(dialed).await.map(|begun| Begun::Http2(Box::new(begun)));
            }
            begin_upgradable(dialed).await.map(Begun::Upgradable)
        });
        match begun.await? {
            Begun::Upgradable(connection) => Ok(Alone(AloneBy::Http1(connection))),
            Begun::Http2(begun) => {
                let (sender, connection) = *begun;
                // Not part of connecting: a server that lives and has no extended CONNECT must not count as down, or
                // callers could have it set aside by asking for WebSockets.
                takes_extended_connect(&connection, timeouts.connect).await?;
                let connections = &self.connections;
                Ok(Alone(AloneBy::Http2(connections.stream_of(Rc::new(connections.share(sender, connection))))))
            }
        }
    }

    async fn bounded<T>(
        &self,
        timeouts: &Timeouts,
        connecting: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        let connected = tokio::time::timeout(timeouts.connect, connecting).await.unwrap_or(Err(DialError::TooLate));
        match &connected {
            Ok(_) => self.health.connected(),
            // says nothing of the server
            Err(DialError::NoRoom) => tracing::debug!(server = &*self.label, "no room for a connection"),
            Err(error) => {
                tracing::debug!(server = &*self.label, %error, "no connection");
                self.health.connect_failed(self.connections.clock.now());
            }
        }
        connected
    }

    async fn open(&self, reuse: Reuse) -> Result<Lease, DialError> {
        let connections = &self.connections;
        if connections.spoken.get() == Spoken::Http1 {
            return Ok(Lease { way: Way::Http1(self.dialer.dial(Offer::Any).await?.stream), reused: false });
        }
        let turn = connections.opening.acquire().await;
        if let Some(way) = connections.kept(reuse, connections.clock.now()) {
            return Ok(Lease { way, reused: true });
        }
        if connections.spoken.get() == Spoken::Http1 {
            // found out while we waited: no need to go one by one
            drop(turn);
        }
        let dialed = self.dialer.dial(Offer::Any).await?;
        if !dialed.http2 {
            connections.spoken.set(Spoken::Http1);
            return Ok(Lease { way: Way::Http1(dialed.stream), reused: false });
        }
        connections.spoken.set(Spoken::Http2);
        let (sender, connection) = begin_http2(dialed).await?;
        let connection = Rc::new(connections.share(sender, connection));
        connections.shared.borrow_mut().push(Rc::clone(&connection));
        connections.sweep_later();
        Ok(Lease { way: Way::Http2(connections.stream_of(connection)), reused: false })
    }
}

impl OfServer for Rc<Server> {
    /// A reload reads certificates anew: what is in them decides, so that connections to `https://` servers end only where
    /// they would not be made like that any more.
    fn is_of(&self, address: &ServerAddress, group: &ServerGroup) -> bool {
        self.dialer.address == *address && is_reached_alike(address, self.tls.as_ref(), group)
    }
}

impl Connections {
    fn none(protocol: Protocol, clock: &Clock) -> Self {
        Self {
            in_flight: Cell::new(0),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            spoken: Cell::new(match protocol {
                Protocol::Http1 => Spoken::Http1,
                Protocol::H2c => Spoken::Http2,
                Protocol::Https => Spoken::Unknown,
            }),
            keep_alive: Cell::new(0),
            idle_for: Cell::new(Duration::MAX),
            sweeping: Cell::new(false),
            clock: clock.clone(),
        }
    }

    fn kept(&self, reuse: Reuse, now: Instant) -> Option<Way> {
        match self.spoken.get() {
            _ if reuse == Reuse::No => None,
            Spoken::Unknown => None,
            Spoken::Http2 => self.shareable(),
            Spoken::Http1 => {
                let mut idle = self.idle.borrow_mut();
                while let Some(mut newest) = idle.pop() {
                    if newest.since + self.idle_for.get() <= now {
                        // all others are older
                        idle.clear();
                        return None;
                    }
                    // one that was closed, or over which something came that nobody asked for, serves nobody
                    if newest.connection.is_quiet() && (reuse == Reuse::Quiet || newest.connection.is_surely_quiet()) {
                        return Some(Way::Http1(newest.connection));
                    }
                }
                None
            }
        }
    }

    fn shareable(&self) -> Option<Way> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.sender.is_closed());
        let free = shared.iter().filter(|connection| connection.streams.get() < STREAMS_MAX);
        free.min_by_key(|connection| connection.streams.get()).map(|free| Way::Http2(self.stream_of(Rc::clone(free))))
    }

    fn stream_of(&self, connection: Rc<Shared>) -> InShared {
        connection.streams.set(connection.streams.get() + 1);
        InShared { connection, clock: self.clock.clone() }
    }

    fn share(&self, sender: http2::SendRequest<Outgoing>, connection: Http2Connection) -> Shared {
        spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Shared { sender, streams: Cell::new(0), since: Cell::new(self.clock.now()) }
    }

    fn keep(self: &Rc<Self>, connection: Stream, since: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.keep_alive.get() {
            idle.push(Idle { connection, since });
            drop(idle);
            self.sweep_later();
        }
    }

    /// Closes what stays idle, by one sleeping task a server while there is anything to close.
    fn sweep_later(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what was idle for too long; whether anything is left.
    fn sweep(&self) -> bool {
        let (now, idle_for) = (self.clock.now(), self.idle_for.get());
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| idle.since + idle_for > now && idle.connection.is_quiet());
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| {
            let waits = connection.streams.get() > 0 || connection.since.get() + idle_for > now;
            waits && !connection.sender.is_closed()
        });
        !idle.is_empty() || !shared.is_empty()
    }
}

async fn sweep(connections: Weak<Connections>) {
    loop {
        let Some(pause) = connections.upgrade().map(|connections| connections.idle_for.get() / 4) else { return };
        tokio::time::sleep(pause.max(Duration::from_millis(50))).await;
        let Some(connections) = connections.upgrade() else { return };
        if !connections.sweep() {
            connections.sweeping.set(false);
            return;
        }
    }
}

async fn begin_upgradable(dialed: Dialed) -> Result<Upgradable, DialError> {
    let received = dialed.stream.received();
    let (sender, connection) = upgradable::Builder::new()
        .max_header_size(RESPONSE_HEAD_BYTES_MAX)
        .handshake::<TokioIo<Stream>, Outgoing>(TokioIo::new(dialed.stream))
        .await
        .map_err(DialError::Http)?;
    spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Upgradable { sender, received })
}

type Http2Connection = http2::Connection<TokioIo<Stream>, Outgoing, OnWorker>;

enum Begun {
    Upgradable(Upgradable),
    Http2(Box<(http2::SendRequest<Outgoing>, Http2Connection)>),
}

async fn begin_http2(dialed: Dialed) -> Result<(http2::SendRequest<Outgoing>, Http2Connection), DialError> {
    http2::Builder::new(OnWorker)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(RESPONSE_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(dialed.stream))
        .await
        .map_err(DialError::Http)
}

/// Waits until the server has said that it takes extended CONNECT (RFC 8441 3). It is looked at again and again, since
/// hyper wakes nobody when the server's settings arrive.
async fn takes_extended_connect(connection: &Http2Connection, at_most: Duration) -> Result<(), DialError> {
    let mut left = at_most.min(SETTINGS_WITHIN);
    while !connection.is_extended_connect_protocol_enabled() {
        left = left.checked_sub(SETTINGS_POLL).ok_or(DialError::NoExtendedConnect)?;
        tokio::time::sleep(SETTINGS_POLL).await;
    }
    Ok(())
}

impl Lease {
    pub(super) const fn is_http2(&self) -> bool {
        matches!(self.way, Way::Http2(_))
    }

    /// Sends a request and waits for the response's head, and tells when that came. What happens to `body` where there is
    /// none is told by [`Failure`].
    pub(super) async fn exchange(
        self,
        server: &Server,
        request: &Departure<'_>,
        fields: Fields,
        framing: &Framing,
        body: &mut Outgoing,
    ) -> Result<(Reply, Instant), Failure> {
        match self.way {
            Way::Http1(stream) => {
                let mut lead = server.spares.to_write();
                request.write_http1(framing, &server.authority, &mut lead);
                let home = {
                    let connections = Rc::clone(&server.connections);
                    move |stream, since: Option<Instant>| {
                        connections.keep(stream, since.unwrap_or_else(|| connections.clock.now()));
                    }
                };
                let means = http1::Means { spares: &server.spares, clock: &server.connections.clock };
                let expected = http1::Expected { method: request.method(), fields };
                match http1::exchange(stream, expected, lead, framing, body, means, home).await {
                    Ok(answer) => {
                        let used = (!answer.whole).then_some(Used::Http1);
                        Ok((Reply { head: answer.head, body: answer.body, used }, answer.came))
                    }
                    Err(http1::Failed::Unsent) => Err(Failure::Unsent),
                    Err(http1::Failed::Lost { answered, error }) => {
                        Err(Failure::Lost(Loss { answered }, Broken::Http1(error)))
                    }
                }
            }
            Way::Http2(stream) => {
                let head = request.http2(framing, server.place()).map_err(Failure::Unsayable)?;
                let reply = Box::pin(over_http2(stream, head, body)).await?;
                Ok((reply, server.connections.clock.now()))
            }
        }
    }
}

impl Alone {
    pub(super) const fn is_http2(&self) -> bool {
        matches!(self.0, AloneBy::Http2(_))
    }

    /// Asks for a WebSocket.
    pub(super) async fn ask(self, head: request::Parts) -> Result<Reply, Failure> {
        let body = &mut Outgoing::empty();
        match self.0 {
            AloneBy::Http1(mut connection) => {
                let before = connection.received.bytes();
                match connection.sender.try_send_request(Request::from_parts(head, Outgoing::empty())).await {
                    Ok(response) => Ok(Reply::new(response, Used::Upgradable(connection.sender))),
                    Err(error) => Err(failure(error, body, |_| connection.received.bytes() != before)),
                }
            }
            AloneBy::Http2(stream) => over_http2(stream, head, body).await,
        }
    }
}

async fn over_http2(stream: InShared, head: request::Parts, body: &mut Outgoing) -> Result<Reply, Failure> {
    let mut sender = stream.connection.sender.clone();
    let request = Request::from_parts(head, std::mem::replace(body, Outgoing::empty()));
    match sender.try_send_request(request).await {
        Ok(response) => Ok(Reply::new(response, Used::Http2(stream))),
        Err(error) => Err(failure(error, body, retry::answered_by_reset)),
    }
}

fn failure(
    mut error: TrySendError<Request<Outgoing>>,
    body: &mut Outgoing,
    answered: impl FnOnce(&hyper::Error) -> bool,
) -> Failure {
    if let Some(request) = error.take_message() {
        *body = request.into_body();
        return Failure::Unsent;
    }
    let error = error.into_error();
    Failure::Lost(Loss { answered: answered(&error) }, Broken::Hyper(error))
}

impl Reply {
    fn new(response: Response<hyper::body::Incoming>, used: Used) -> Self {
        let (head, incoming) = response.into_parts();
        Self { head, body: Body::streamed(incoming), used: Some(used) }
    }
}

impl Drop for InShared {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get().saturating_sub(1));
        self.connection.since.set(self.clock.now());
    }
}

/// Runs the tasks of HTTP/2 connections on the worker that has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnWorker;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
