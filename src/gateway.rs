//! The path of a request on one screen; owns the snapshot and the long-lived state.
//!
//! A [`Gateway`] is shared by all workers; each worker has a [`Worker`] of its own, with its connections to upstreams and
//! its counters, so that a request meets no other worker on its way.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body as _;
use hyper::ext::Protocol;

use crate::authenticate::password::CALLER;
use crate::authenticate::{Authenticator, Caller, Recent, Visit};
use crate::authorize;
use crate::clock::Clock;
use crate::config::snapshot::Snapshot;
use crate::decision::{self, Head, Place};
use crate::endpoint::{self, Asked, Endpoint, Proven};
use crate::forward::{self, Fleet, Origin, Upstreams};
use crate::limit::{Limits, RouteBudgets};
use crate::listen::{Handler, Peer};
use crate::principal::SchemeSet;
use crate::record::exchange::{Exchange, Recorder};
use crate::record::lines::Lines;
use crate::record::metrics::{Metrics, WorkerMetrics};
use crate::rejection::{Audience, Format, Rejection, Texts};
use crate::route::cors::Grant;
use crate::route::{Allow, Route};
use crate::wire::body::Body;
use crate::wire::forwarded::{self, X_REQUEST_ID};
use crate::wire::target::Target;

/// How often a worker without requests looks for another snapshot.
const ADOPT_EVERY: Duration = Duration::from_millis(250);

/// Requests to endpoints that a worker finishes also where their callers go away; of further ones each ends with its caller.
const ANSWERS_MAX: usize = 1_024;

/// What lives as long as the process.
pub struct State {
    /// Time.
    pub clock: Clock,
    /// Who callers are.
    pub authenticator: Arc<Authenticator>,
    /// What the gateway answers itself.
    pub endpoints: Arc<endpoint::Service>,
    /// Budgets.
    pub limits: Arc<Limits>,
    /// Servers and their health.
    pub fleet: Arc<Fleet>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Standard output's lines.
    pub lines: Lines,
}

/// The gateway: one snapshot in force, and the state.
pub struct Gateway {
    in_force: ArcSwap<InForce>,
    state: State,
}

/// A snapshot, and what belongs to it alone.
struct InForce {
    snapshot: Arc<Snapshot>,
    budgets: RouteBudgets,
}

impl InForce {
    fn of(snapshot: Snapshot, before: Option<&Self>, limits: &Limits) -> Self {
        let before = before.map(|before| (before.snapshot.routes.routes(), &before.budgets));
        let budgets = RouteBudgets::of(snapshot.routes.routes(), before, limits);
        Self { snapshot: Arc::new(snapshot), budgets }
    }
}

impl Gateway {
    /// A gateway under this snapshot.
    pub fn new(snapshot: Snapshot, state: State) -> Self {
        Self { in_force: ArcSwap::from_pointee(InForce::of(snapshot, None, &state.limits)), state }
    }

    /// The state.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.in_force.load().snapshot)
    }

    /// Notes that the snapshot in force is the one of now.
    pub fn loaded(&self) {
        let now = self.state.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.state.metrics.config_loaded.set(now.as_secs_f64());
    }

    /// Puts another snapshot in force. Requests under way end under the one they began with.
    pub fn swap(&self, snapshot: Snapshot) {
        let next = InForce::of(snapshot, Some(&self.in_force.load()), &self.state.limits);
        self.in_force.store(Arc::new(next));
    }

    /// Forgets budgets that are full again, and principals that are remembered no longer. To be called every minute or so.
    pub fn sweep(&self) {
        self.state.authenticator.sweep();
        self.state.limits.sweep();
        self.in_force.load().budgets.sweep();
    }
}

/// One worker's side of the gateway.
#[derive(Clone)]
pub struct Worker(Rc<Inner>);

struct Inner {
    gateway: Arc<Gateway>,
    current: RefCell<Current>,
    upstreams: Upstreams,
    metrics: Rc<WorkerMetrics>,
    recent: Recent,
    random: RefCell<fastrand::Rng>,
    /// Counts what endpoints answer at present.
    answers_under_way: Rc<()>,
}

/// This worker's handles on what is in force: counted without atomics.
#[derive(Clone)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is this worker's own, the inner one all workers share"
)]
struct Current {
    in_force: Rc<Arc<InForce>>,
    recorder: Rc<Recorder>,
}

impl Current {
    fn snapshot(&self) -> &Snapshot {
        &self.in_force.snapshot
    }
}

/// How a refusal of this request would be said; it becomes more exact as more is known.
struct Voice<'s> {
    schemes: SchemeSet,
    texts: &'s Texts,
    /// What pages of other origins are told, once there is a route that says so.
    cors: Option<Grant>,
}

impl<'s> Voice<'s> {
    /// Before anything is known.
    fn of(snapshot: &'s Snapshot) -> Self {
        Self { schemes: snapshot.schemes, texts: &snapshot.texts, cors: None }
    }
}

impl Worker {
    /// A worker of `gateway`, to be used by the thread that makes it, on its `LocalRuntime`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let state = &gateway.state;
        let metrics = Rc::new(state.metrics.worker());
        let upstreams = Upstreams::new(Arc::clone(&state.fleet), Rc::clone(&metrics), state.clock.clone());
        let current = Current::of(gateway.in_force.load_full(), &metrics, state);
        upstreams.apply(&current.snapshot().upstreams);
        upstreams.obey(&state.authenticator, &current.snapshot().auth);
        let worker = Self(Rc::new(Inner {
            upstreams,
            metrics,
            current: RefCell::new(current),
            recent: Recent::default(),
            random: RefCell::default(),
            answers_under_way: Rc::default(),
            gateway,
        }));
        tokio::task::spawn_local(adopt(Rc::downgrade(&worker.0)));
        worker
    }

    /// What is in force, once a request.
    fn current(&self) -> Current {
        let inner = &*self.0;
        let in_force = inner.gateway.in_force.load();
        if !Arc::ptr_eq(&in_force, &inner.current.borrow().in_force) {
            inner.upstreams.apply(&in_force.snapshot.upstreams);
            inner.upstreams.obey(&inner.gateway.state.authenticator, &in_force.snapshot.auth);
            *inner.current.borrow_mut() = Current::of(Arc::clone(&in_force), &inner.metrics, &inner.gateway.state);
        }
        inner.current.borrow().clone()
    }

    /// The path of a request.
    async fn pass<'s>(
        &self,
        current: &'s Current,
        peer: &Peer,
        exchange: &mut Exchange,
        voice: &mut Voice<'s>,
        head: &mut request::Parts,
        body: Body,
    ) -> Result<Response<Body>, Rejection> {
        let (state, snapshot) = (&self.0.gateway.state, current.snapshot());
        let target = Target::parse(&head.uri, &snapshot.paths)?.with(head.extensions.get());
        exchange.asked(target.path());
        let asked = Head { method: routed_method(head), uri: &head.uri, version: head.version, headers: &head.headers };
        let route = match decision::place(snapshot, asked, &target)? {
            Place::Endpoint(endpoint) => {
                exchange.matched_endpoint(&endpoint.path);
                voice.texts = &endpoint.texts;
                voice.schemes = endpoint.challenged();
                // boxed, as all that is rare: a request that is forwarded has no room for it
                return Box::pin(self.answer(current, peer, exchange, endpoint, head, body)).await;
            }
            Place::Preflight(route, grant) => {
                exchange.matched(snapshot.routes.index(route), &route.name);
                voice.cors = Some(grant);
                return Ok(no_content());
            }
            Place::Route(route) => route,
        };
        exchange.matched(snapshot.routes.index(route), &route.name);
        voice.cors = route.cors.as_ref().map(|cors| cors.grant(&head.headers));
        voice.schemes = route.schemes;
        let caller = self.caller(snapshot, route, exchange, &head.headers).await?;
        let permit = authorize::permit(route, caller)?;
        let principal = permit.identity().map(|identity| &identity.principal.subject);
        if route.rate.is_some() {
            let place = snapshot.routes.index(route);
            let drawn = current.in_force.budgets.draw(place, &state.limits, principal, exchange.address()).await;
            drawn.map_err(Rejection::RateLimited)?;
        }
        let body_bytes_max = route.body_bytes_max.unwrap_or(snapshot.body_bytes_max);
        let body = capped(body, body_bytes_max)?;
        let origin = self.origin(snapshot, peer, exchange, head);
        let settings = forward::Settings {
            upstreams: &snapshot.upstreams,
            timeouts: &snapshot.upstream_timeouts,
            identity: &snapshot.identity,
            as_they_are: head.version < Version::HTTP_2,
        };
        let (response, sent) = self.0.upstreams.send(&settings, permit, &target, head, body, &origin).await;
        if let Some(sent) = sent {
            exchange.sent(sent.upstream, sent.took, sent.came);
        }
        response
    }

    /// Who asks for a route that does not let anyone pass.
    async fn caller(
        &self,
        snapshot: &Snapshot,
        route: &Route,
        exchange: &mut Exchange,
        headers: &HeaderMap,
    ) -> Result<Caller, Rejection> {
        if route.allow == Allow::Anyone {
            return Ok(Caller::Anyone);
        }
        let authenticator = &self.0.gateway.state.authenticator;
        let visit = Visit {
            address: exchange.address(),
            now: exchange.started(),
            metrics: &self.0.metrics,
            recent: Some(&self.0.recent),
            audit: &self.0.gateway.state.endpoints.audit,
            request_id: exchange.request_id(),
        };
        let caller = authenticator.caller(&snapshot.auth, route.schemes, headers, visit).await?;
        if let Caller::Known(identity) = &caller {
            exchange.identified(identity.scheme, &identity.principal.subject.name);
        }
        Ok(caller)
    }

    /// What the gateway answers itself. What was begun is finished, by a task of its own: a caller who goes away meanwhile
    /// keeps no password from being counted as right, and nothing that was done from the audit log. Only what waits to be
    /// begun is given up then.
    async fn answer(
        &self,
        current: &Current,
        peer: &Peer,
        exchange: &mut Exchange,
        endpoint: &Arc<Endpoint>,
        head: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, Rejection> {
        let snapshot = current.snapshot();
        let trusted = snapshot.trusted_proxies.trusts(peer.address.ip());
        let https = forwarded::caller_is_https(peer.https, trusted, &head.headers);
        let request = Request::from_parts(head.clone(), body.stalling_after(snapshot.terms.timeouts.idle));
        let answering = {
            let (worker, current, endpoint) = (self.clone(), current.clone(), Arc::clone(endpoint));
            let (address, request_id) = (exchange.address(), exchange.request_id().clone());
            async move {
                let (proven, snapshot) = (Proven::default(), current.snapshot());
                let asked = Asked {
                    auth: &snapshot.auth,
                    tokens: &snapshot.tokens,
                    endpoints: &snapshot.endpoints,
                    address,
                    request_id: &request_id,
                    https,
                    metrics: &worker.0.metrics,
                    proven: &proven,
                };
                let answered = worker.0.gateway.state.endpoints.answer(&endpoint, asked, request).await;
                (answered, proven.name())
            }
        };
        let under_way = &self.0.answers_under_way;
        let (answered, name) = if Rc::strong_count(under_way) <= ANSWERS_MAX {
            let place = Rc::clone(under_way);
            let caller = Arc::new(());
            let answering = CALLER.scope(Arc::downgrade(&caller), answering);
            let task = tokio::task::spawn_local(async move {
                let answered = answering.await;
                drop(place);
                answered
            });
            let answered = task.await.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => (Err(Rejection::Internal), None),
            });
            drop(caller);
            answered
        } else {
            answering.await
        };
        if let Some(name) = name {
            exchange.proven(&name);
        }
        answered
    }

    /// What the upstream is told of where the request came from.
    fn origin<'e>(
        &self,
        snapshot: &Snapshot,
        peer: &Peer,
        exchange: &'e Exchange,
        head: &request::Parts,
    ) -> Origin<'e> {
        let trusted = snapshot.trusted_proxies.trusts(peer.address.ip());
        let mut random = [0; 24];
        self.0.random.borrow_mut().fill(&mut random);
        Origin {
            peer: peer.address.ip(),
            trusted,
            https: forwarded::caller_is_https(peer.https, trusted, &head.headers),
            host: host_field(head),
            request_id: exchange.request_id(),
            random,
        }
    }

    fn open(&self, current: &Current, peer: &Peer, method: &Method, headers: &HeaderMap) -> Exchange {
        let proxies = &current.snapshot().trusted_proxies;
        let address = forwarded::caller_address(peer.address.ip(), headers, proxies);
        let request_id = forwarded::request_id(headers, proxies.trusts(peer.address.ip()))
            .and_then(|id| HeaderValue::from_str(id).ok())
            .unwrap_or_else(|| self.request_id());
        Exchange::open(&current.recorder, request_id, address, method.clone())
    }

    /// The record of what no route is looked up for.
    fn open_unrouted(&self, current: &Current, peer: &Peer, asked: &request::Parts) -> Exchange {
        let mut exchange = self.open(current, peer, &asked.method, &asked.headers);
        if let Ok(target) = Target::parse(&asked.uri, &current.snapshot().paths) {
            exchange.asked(target.path());
        }
        exchange
    }

    fn request_id(&self) -> HeaderValue {
        let mut random = [0; 16];
        self.0.random.borrow_mut().fill(&mut random);
        forwarded::new_request_id(random)
    }
}

/// Takes what is in force even where no request comes: open streams obey the settings of now.
async fn adopt(worker: Weak<Inner>) {
    loop {
        tokio::time::sleep(ADOPT_EVERY).await;
        let Some(worker) = worker.upgrade() else { return };
        Worker(worker).current();
    }
}

impl Current {
    fn of(in_force: Arc<InForce>, metrics: &Rc<WorkerMetrics>, state: &State) -> Self {
        let access_log = in_force.snapshot.log.access.then(|| state.lines.clone());
        let recorder = Recorder::new(Rc::clone(metrics), access_log, state.clock.clone());
        Self { in_force: Rc::new(in_force), recorder: Rc::new(recorder) }
    }
}

impl Handler for Worker {
    async fn handle(&self, peer: &Rc<Peer>, mut head: Box<request::Parts>, body: Body) -> Response<Body> {
        let current = self.current();
        let snapshot = current.snapshot();
        let mut exchange = self.open(&current, peer, &head.method, &head.headers);
        let mut voice = Voice::of(snapshot);
        match self.pass(&current, peer, &mut exchange, &mut voice, &mut head, body).await {
            Ok(response) => finish(response, exchange, voice.cors.as_ref(), None),
            Err(rejection) => {
                let said = (Format::of(&head.headers), head.version);
                refuse(&rejection, &voice, said, snapshot, exchange, &self.0.metrics)
            }
        }
    }

    fn refuse(&self, peer: &Rc<Peer>, asked: &request::Parts, rejection: Rejection) -> Response<Body> {
        let current = self.current();
        let snapshot = current.snapshot();
        let exchange = self.open_unrouted(&current, peer, asked);
        let voice = Voice::of(snapshot);
        let format = Format::of(&asked.headers);
        // a status of gRPC comes with 200, for those who read what stands behind it; in HTTP/1 all look at the status
        let over_http1 = asked.version != Version::HTTP_2;
        let format = if over_http1 && matches!(format, Format::Grpc(_)) { Format::Json } else { format };
        refuse(&rejection, &voice, (format, asked.version), snapshot, exchange, &self.0.metrics)
    }

    fn redirect(&self, peer: &Rc<Peer>, asked: &request::Parts, location: HeaderValue) -> Response<Body> {
        let current = self.current();
        let exchange = self.open_unrouted(&current, peer, asked);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        finish(response, exchange, None, None)
    }
}

fn refuse(
    rejection: &Rejection,
    voice: &Voice<'_>,
    (format, version): (Format, Version),
    snapshot: &Snapshot,
    exchange: Exchange,
    metrics: &WorkerMetrics,
) -> Response<Body> {
    if let Rejection::RateLimited(exhausted) = rejection {
        metrics.limited(exhausted.limit);
    }
    let audience = Audience {
        realm: &snapshot.auth.realm,
        schemes: voice.schemes,
        texts: voice.texts,
        method: exchange.method().as_str(),
        request_id: exchange.request_id_text(),
        format,
    };
    // over HTTP/1 nobody looks at the fields any more, unless the route adds some of its own
    let response = if version < Version::HTTP_2 && voice.cors.is_none() {
        rejection.respond_in_lines(&audience)
    } else {
        rejection.respond(&audience).map(Body::full)
    };
    finish(response, exchange, voice.cors.as_ref(), Some(rejection))
}

/// Gives the response its id, and ends the exchange with its body.
fn finish(
    mut response: Response<Body>,
    mut exchange: Exchange,
    cors: Option<&Grant>,
    refused: Option<&Rejection>,
) -> Response<Body> {
    let status = refused.map_or_else(|| response.status(), Rejection::status);
    exchange.answered(status, refused.map(Rejection::reason));
    let id = exchange.tell_request_id();
    if let Some(lines) = response.body_mut().lines_mut() {
        lines.request_id = Some(id);
    } else {
        response.headers_mut().insert(&X_REQUEST_ID, id);
    }
    if let Some(cors) = cors {
        cors.write(response.headers_mut());
    }
    response.map(|body| {
        if body.is_here() {
            exchange.ends_as_it_came();
        }
        body.on_end(move |_, bytes| exchange.close(bytes))
    })
}

/// The answer to a preflight; what it says is said by [`Voice::cors`].
fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The host that the caller named, as it was named: `:authority`, the target's own, or `Host`, which agree.
fn host_field(head: &request::Parts) -> HeaderValue {
    let own = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    own.or_else(|| head.headers.get(HOST).cloned()).unwrap_or_else(|| HeaderValue::from_static(""))
}

/// A body that is not longer than it may be; forwarding bounds its stalls.
///
/// # Errors
/// [`Rejection::BodyTooLarge`] where it says of itself that it is too large.
fn capped(body: Body, bytes_max: u64) -> Result<Body, Rejection> {
    if bytes_max == 0 {
        return Ok(body);
    }
    if body.size_hint().lower() > bytes_max {
        return Err(Rejection::BodyTooLarge);
    }
    Ok(body.capped(bytes_max))
}

/// The method that routes know: a WebSocket over HTTP/2 (RFC 8441 4) is asked for by `CONNECT`, over HTTP/1.1 by `GET`.
fn routed_method(head: &request::Parts) -> &Method {
    if head.extensions.get::<Protocol>().is_some() { &Method::GET } else { &head.method }
}
