//! Sockets: bind, accept, cap, drain; TLS; one connection with its protocol and its timeouts.
//!
//! What comes out of here is a request whose framing is beyond doubt, and who sent it. What can be refused before there is
//! a request (a malformed head, one that is too large or too slow) is refused here, in the contract's words, by way of the
//! [`Handler`]. What a request means is left to the handler.

pub mod tls;
pub mod connection;
pub mod socket;
mod accept;
mod backlog;
mod certificates;
mod http1;
pub mod head;
mod http2_head;
mod link;
mod listeners;
mod pace;
pub mod redirect;
#[cfg(test)]
mod reference;
mod rewound;
mod room;
mod self_signed;
mod stall;

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Response, request};
use tokio::sync::watch;

use crate::record::metrics::Metrics;
use crate::rejection::Rejection;
use crate::wire::body::Body;
use room::Room;

pub use accept::serve;
pub use listeners::{Bound, Change, Listeners};
pub use socket::{BindError, meet, reason};
pub use stall::TunnelStream;

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is bound. Port 0 picks a free one.
    pub address: SocketAddr,
    /// What it speaks and does.
    pub mode: Mode,
}

/// What a listener does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serves over TLS.
    Tls(Arc<tls::Settings>),
    /// Serves in clear.
    Plain,
    /// Answers 308 to the same URL on https, at the port of the first TLS listener.
    Redirect,
}

/// The section `timeouts`, as far as it is about callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head to arrive, from its first byte or from the connection's start.
    pub request_header: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For requests under way when the process is told to end.
    pub drain: Duration,
}

/// Bounds on what a caller may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest head, in bytes.
    pub header_bytes_max: usize,
    /// The most fields in a head.
    pub headers_max: usize,
    /// Connections at once over all workers; further ones wait in the listen queue.
    pub connections_max: usize,
}

impl Bounds {
    /// Those on a head.
    pub const fn of_a_head(&self) -> head::HeadBounds {
        head::HeadBounds { bytes_max: self.header_bytes_max, fields_max: self.headers_max }
    }
}

/// The other end of a connection; one for all its requests.
#[derive(Debug)]
pub struct Peer {
    /// The socket's other end.
    pub address: SocketAddr,
    /// The listener it came by, as its address was bound; a metrics label.
    pub listener: Arc<str>,
    /// Whether it came over TLS.
    pub https: bool,
    /// When the process ends, for what outlives a request (an upgraded connection).
    pub shutdown: Shutdown,
}

/// What answers requests. Lives on one worker, so it need not be `Send`.
pub trait Handler: Clone + 'static {
    /// Answers a request, whose head bears an [`OnUpgrade`](crate::wire::upgrade::OnUpgrade) where it asks for one over HTTP/1.1,
    /// and hyper's over HTTP/2. A panic in it ends this request with [`Rejection::Internal`], and nothing else.
    ///
    /// The head is boxed, since it is handed on by value, and often.
    fn handle(&self, peer: &Rc<Peer>, head: Box<request::Parts>, body: Body) -> impl Future<Output = Response<Body>>;

    /// The response to what is refused before it is taken for a request. Its body must be there at once: it is not streamed.
    /// `asked` is what could be read of it ([`head::glimpse`]).
    fn refuse(&self, peer: &Rc<Peer>, asked: &request::Parts, rejection: Rejection) -> Response<Body>;

    /// The response of a redirect listener: 308 to `location`.
    fn redirect(&self, peer: &Rc<Peer>, asked: &request::Parts, location: HeaderValue) -> Response<Body>;
}

/// What callers are held to. Connections take it as they begin; a reload changes it for those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large and how many they may be.
    pub bounds: Bounds,
}

/// What the listeners of all workers share.
#[derive(Debug)]
pub struct ListenState {
    terms: ArcSwap<Terms>,
    room: Room,
    metrics: Arc<Metrics>,
}

impl ListenState {
    /// With room for as many connections as `terms` say.
    pub fn new(terms: Terms, metrics: Arc<Metrics>) -> Self {
        Self { terms: ArcSwap::from_pointee(terms), room: Room::new(terms.bounds.connections_max), metrics }
    }

    /// Puts other terms in force.
    pub fn configure(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.room.resize(terms.bounds.connections_max);
    }

    fn terms(&self) -> Terms {
        **self.terms.load()
    }
}

/// Tells all workers that the process ends. Clones tell the same.
#[derive(Clone)]
pub struct Shutdown {
    begun: watch::Sender<bool>,
}

impl Shutdown {
    /// Not begun.
    pub fn new() -> Self {
        Self { begun: watch::Sender::new(false) }
    }

    /// Begins to drain. From any thread; a second call changes nothing.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Ready once it has begun.
    pub async fn wait(&self) {
        let mut receiver = self.begun.subscribe();
        // an error would say that all senders are gone, and this is one
        drop(receiver.wait_for(|begun| *begun).await);
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shutdown").field(&self.has_begun()).finish()
    }
}

#[cfg(test)]
mod tests;
