//! The way of one request to a server and back: choose, connect, send, perhaps once more, deliver.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request, response};
use http_body::Body as _;
use prometheus::IntGauge;

use super::balance::Chooser;
use super::deadline::{Deadlines, Elapsed};
use super::dial::DialError;
use super::health::Fleet;
use super::heirs::{Heir, OfServer as _, ServerKey, heirs};
use super::http1::decode::Fields;
use super::leash::{Form, Leashes, Tether};
use super::outgoing::{Outgoing, Progress};
use super::pool::{Broken, Failure, InFlight, Reply, Reuse, Server, Worker};
use super::retry::{self, ATTEMPTS_MAX, Loss};
use super::rewrite::{self, Departure, Framing, Outbound};
use super::upgrade::{self, Asked, OpenStream, Outcome};
use super::{Origin, Sent, ServerAddress, ServerGroup, Settings, Timeouts, UpstreamKind, UpstreamSettings, echo};
use crate::authenticate::{self, Authenticator};
use crate::authorize::Permit;
use crate::clock::Clock;
use crate::record::metrics::{Timer, WorkerMetrics};
use crate::rejection::Rejection;
use crate::route::Route;
use crate::wire::body::{Body, BodyError};
use crate::wire::fields::Hop;
use crate::wire::http1::spares::Spares;
use crate::wire::target::Target;

/// The upstreams as one worker uses them: its connections, its requests under way, its turns.
pub struct Upstreams {
    fleet: Arc<Fleet>,
    clock: Clock,
    deadlines: Deadlines,
    groups: RefCell<Vec<Option<Rc<Group>>>>,
    servers: RefCell<HashMap<ServerKey, Rc<Server>>>,
    open: OpenStreams,
    leashes: Leashes,
    spares: Rc<Spares>,
    metrics: Rc<WorkerMetrics>,
}

struct OpenStreams {
    websocket: IntGauge,
    sse: IntGauge,
    grpc: IntGauge,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

/// One upstream's servers.
struct Group {
    settings: Arc<ServerGroup>,
    servers: Vec<Rc<Server>>,
    chooser: Chooser,
    took: Timer,
}

/// What all attempts of one request have in common.
struct Passing<'a> {
    departure: Departure<'a>,
    route: &'a Route,
    timeouts: &'a Timeouts,
    /// What becomes of the response's fields.
    fields: Fields,
    progress: Option<Rc<Progress>>,
    tether: Option<Tether<'a>>,
}

/// A response, and what has to be given back at its end.
struct Arrived {
    reply: Reply,
    in_flight: InFlight,
    over_http2: bool,
}

impl Upstreams {
    /// A worker's upstreams; it has none until [`Upstreams::apply`].
    pub fn new(fleet: Arc<Fleet>, metrics: Rc<WorkerMetrics>, clock: Clock) -> Self {
        let open = |kind| fleet.metrics().open_streams.with_label_values(&[kind]);
        let open = OpenStreams { websocket: open("websocket"), sse: open("sse"), grpc: open("grpc") };
        Self {
            deadlines: Deadlines::new(clock.clone()),
            groups: RefCell::default(),
            servers: RefCell::default(),
            open,
            leashes: Leashes::default(),
            spares: Rc::default(),
            metrics,
            fleet,
            clock,
        }
    }

    /// Takes the upstreams of a configuration. Connections to servers that it has unchanged are kept, whatever their
    /// upstreams are called; others close once their requests have ended.
    pub fn apply(&self, upstreams: &[UpstreamSettings]) {
        let known = heirs(self.servers.take(), upstreams);
        let mut kept = HashMap::new();
        let groups = upstreams
            .iter()
            .map(|upstream| match &upstream.kind {
                UpstreamKind::Echo => None,
                UpstreamKind::Servers(group) => {
                    let group = Rc::new(self.group(&upstream.name, group, |key, address| match known.get(key) {
                        Some(Heir::Same(server)) => Rc::clone(server),
                        Some(Heir::Renamed(server)) => self.server(&upstream.name, address, group, Some(server)),
                        None => self.server(&upstream.name, address, group, None),
                    }));
                    for server in &group.servers {
                        server.keep_at_most(group.settings.keep_alive);
                        kept.insert((Arc::clone(&upstream.name), Arc::clone(&server.label)), Rc::clone(server));
                    }
                    Some(group)
                }
            })
            .collect();
        self.servers.replace(kept);
        self.groups.replace(groups);
    }

    /// Takes the settings by which the credentials of open streams are judged from here on.
    pub fn obey(&self, authenticator: &Arc<Authenticator>, settings: &authenticate::Settings) {
        self.leashes.obey(authenticator, settings, &self.clock);
    }

    fn group(
        &self,
        name: &Arc<str>,
        group: &Arc<ServerGroup>,
        server: impl Fn(&ServerKey, &ServerAddress) -> Rc<Server>,
    ) -> Group {
        let servers =
            group.servers.iter().map(|address| server(&(Arc::clone(name), Arc::clone(&address.label)), address));
        Group {
            servers: servers.collect(),
            chooser: Chooser::new(group.balance, getrandom::u64().unwrap_or_default()),
            took: self.metrics.upstream_duration(name),
            settings: Arc::clone(group),
        }
    }

    fn server(
        &self,
        name: &Arc<str>,
        address: &ServerAddress,
        group: &ServerGroup,
        connections: Option<&Server>,
    ) -> Rc<Server> {
        let Self { fleet, metrics, spares, clock, .. } = self;
        Rc::new(Server::new(name, address, group.tls.as_ref(), &Worker { fleet, metrics, spares, clock }, connections))
    }

    /// The servers of an upstream. A request that began under another configuration than the applied one gets its own
    /// group, which shares the connections to servers that both have and keeps none to others.
    fn group_of(&self, index: usize, name: &Arc<str>, settings: &Arc<ServerGroup>) -> Rc<Group> {
        let applied = self.groups.borrow().get(index).cloned().flatten();
        applied.filter(|group| Arc::ptr_eq(&group.settings, settings)).unwrap_or_else(|| {
            let known = self.servers.borrow();
            Rc::new(self.group(name, settings, |key, address| {
                let same = |server: &&Rc<Server>| server.is_of(address, settings);
                let server = known.get(key).filter(same).cloned();
                // the applied configuration may call its upstream otherwise
                let other = || known.values().find(same).map(|server| &**server);
                server.unwrap_or_else(|| self.server(name, address, settings, other()))
            }))
        })
    }

    /// Sends a request where its permit says, and gives the response, whose body streams.
    ///
    /// A refusal says what kept a response from coming. What is known of the way is given beside, for the record.
    pub async fn send<'s>(
        &self,
        settings: &Settings<'s>,
        permit: Permit<'_>,
        target: &Target,
        head: &mut request::Parts,
        body: Body,
        origin: &Origin<'_>,
    ) -> (Result<Response<Body>, Rejection>, Option<Sent<'s>>) {
        let route = permit.route();
        let Some(upstream) = settings.upstreams.get(route.upstream.index()) else {
            return (Err(Rejection::Internal), None);
        };
        let mut sent = Sent { upstream: &upstream.name, took: None, came: None };
        let hop = Hop::of(&head.headers);
        let body = if body.is_end_stream() { body } else { body.stalling_after(settings.timeouts.idle) };
        let (body, progress) = Outgoing::new(body, &self.clock, settings.identity);
        let asked = upgrade::asked(head, &hop, progress.is_some());
        // a 2xx of the echo would say that there is a tunnel
        let opens = asked.is_some() && !matches!(upstream.kind, UpstreamKind::Echo);
        if head.method == Method::CONNECT && !opens {
            return (Err(Rejection::BadRequest("CONNECT is for WebSockets only")), Some(sent));
        }
        let identity = permit.identity().map(|identity| &**identity);
        let outbound = Outbound { route, identity, names: settings.identity, target, origin };
        let passing = Passing {
            departure: Departure::new(head, &hop, outbound),
            route,
            timeouts: settings.timeouts,
            fields: settings.fields_for(route),
            progress,
            tether: Tether::of(route, permit.identity(), &head.headers),
        };
        if let (Some(progress), Some(tether)) = (&passing.progress, &passing.tether)
            && is_grpc(&head.headers)
        {
            // a call that streams may say much before it is answered
            progress.obey(self.leashes.leash(tether));
        }
        let result = match &upstream.kind {
            // boxed, as all that is rare: a request that is forwarded has no room for it
            UpstreamKind::Echo => Box::pin(passing.echo(body)).await,
            UpstreamKind::Servers(group) => {
                let group = self.group_of(route.upstream.index(), &upstream.name, group);
                match asked {
                    None => match self.attempt(&group, &passing, body, &mut sent).await {
                        Ok(arrived) => self.deliver(arrived, &passing),
                        Err(rejection) => Err(rejection),
                    },
                    Some(asked) => Box::pin(self.open_websocket(&group, &passing, asked, &mut sent)).await,
                }
            }
        };
        (result, Some(sent))
    }

    /// Tries servers until one answers, as far as [`retry`](super::retry) allows.
    async fn attempt(
        &self,
        group: &Group,
        passing: &Passing<'_>,
        mut body: Outgoing,
        sent: &mut Sent<'_>,
    ) -> Result<Arrived, Rejection> {
        let now = self.clock.now();
        let departure = &passing.departure;
        let framing = departure.framing(&body);
        let (mut tried, mut reuse, mut revisit, mut repeated) = (Vec::new(), true, false, false);
        let mut first_sent: Option<Instant> = None;
        let mut failure = Rejection::NoHealthyUpstream;
        for _ in 0..ATTEMPTS_MAX {
            let Some(server) = group.choose(&tried, now, revisit) else { break };
            server.health.chosen(now);
            let in_flight = InFlight::new(&server);
            let again = !repeated && retry::may_repeat(departure.method(), passing.progress.is_some());
            let allowed = match (reuse, again) {
                (false, _) => Reuse::No,
                (true, true) => Reuse::Quiet,
                (true, false) => Reuse::Sure,
            };
            let lease = match server.lease(allowed, now, passing.timeouts).await {
                Ok(lease) => lease,
                Err(error) => {
                    failure = connect_failed(&server, &error);
                    tried.push(server);
                    continue;
                }
            };
            let first = *first_sent.get_or_insert_with(|| if lease.reused { now } else { self.clock.now() });
            let (over_http2, reused) = (lease.is_http2(), lease.reused);
            let exchanged = {
                let exchanging = pin!(lease.exchange(&server, departure, passing.fields, &framing, &mut body));
                self.deadlines.within(|| passing.deadline(first), exchanging).await
            };
            match exchanged {
                Ok(Ok((reply, came))) => {
                    took(group, &server, first, came, sent);
                    return Ok(Arrived { reply, in_flight, over_http2 });
                }
                Ok(Err(Failure::Unsayable(error))) => return Err(error.into()),
                Ok(Err(Failure::Unsent)) => {
                    // the server closed a kept connection as we took it; nothing was sent
                    (reuse, revisit) = (false, true);
                    failure = Rejection::UpstreamUnavailable;
                }
                Ok(Err(Failure::Lost(loss, error))) => {
                    if !again || loss.answered {
                        return Err(self.lost(&server, reused, passing, &loss, &error));
                    }
                    server.outcomes.error.inc();
                    if !reused {
                        server.health.lost(self.clock.now());
                    }
                    body = Outgoing::empty();
                    // a kept connection may have been closed as it was used; a new one that broke is the server's doing
                    (reuse, revisit, repeated) = (false, reused, true);
                    failure = Rejection::UpstreamUnavailable;
                    tried.push(server);
                }
                Err(Elapsed) => return Err(self.too_late(&server, passing)),
            }
        }
        Err(failure)
    }

    /// A request was lost that is not said again.
    fn lost(&self, server: &Server, reused: bool, passing: &Passing<'_>, loss: &Loss, error: &Broken) -> Rejection {
        server.outcomes.error.inc();
        tracing::debug!(server = &*server.label, answered = loss.answered, %error, "no response");
        passing.rejection().unwrap_or_else(|| {
            // a kept connection may have been closed as it was used
            if !reused || loss.answered {
                server.health.lost(self.clock.now());
            }
            Rejection::UpstreamUnavailable
        })
    }

    /// No response came in time.
    fn too_late(&self, server: &Server, passing: &Passing<'_>) -> Rejection {
        server.outcomes.timeout.inc();
        passing.rejection().unwrap_or_else(|| {
            server.health.lost(self.clock.now());
            Rejection::UpstreamTimeout
        })
    }

    /// The response as the caller gets it; what it uses is given back when its body ends, or now where that has come.
    fn deliver(&self, arrived: Arrived, passing: &Passing<'_>) -> Result<Response<Body>, Rejection> {
        let Arrived { reply: Reply { mut head, body, used }, in_flight, .. } = arrived;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // nobody asked: what follows on that connection is no HTTP that anybody has looked at
            return Err(Rejection::UpstreamUnavailable);
        }
        passing.rewrite_response(&mut head, &body);
        let Some(used) = used.filter(|_| !body.is_end_stream()) else { return Ok(Response::from_parts(head, body)) };
        let open = self.open.of(&head);
        // an open stream may have nothing to say for hours; it ends with either side's connection
        let is_stream = open.is_some();
        let body = if is_stream { body } else { body.stalling_after(passing.timeouts.idle) };
        let body = body.on_end(move |_, _| {
            used.ended();
            drop((in_flight, open));
        });
        let body = if is_stream { self.leashed(body, &head, passing) } else { body };
        Ok(Response::from_parts(head, body))
    }

    /// An open stream, ended with its credential where its route says so.
    fn leashed(&self, body: Body, head: &response::Parts, passing: &Passing<'_>) -> Body {
        let Some(tether) = &passing.tether else { return body };
        let leash = self.leashes.leash(tether);
        if let Some(progress) = &passing.progress {
            progress.obey(Rc::clone(&leash));
        }
        let form = if body.size_hint().exact().is_some() {
            Form::Abort
        } else if is_plain_grpc(&head.headers) {
            Form::GrpcTrailers
        } else if is_grpc(&head.headers) {
            // gRPC-Web has its trailers in the body, where only its own framing could tell them apart
            Form::Abort
        } else {
            Form::End
        };
        leash.hold(body, form)
    }

    /// Asks one server after the other to open a WebSocket, each over a connection of its own.
    async fn open_websocket(
        &self,
        group: &Group,
        passing: &Passing<'_>,
        asked: Asked,
        sent: &mut Sent<'_>,
    ) -> Result<Response<Body>, Rejection> {
        let now = self.clock.now();
        let mut tried = Vec::new();
        let mut failure = Rejection::NoHealthyUpstream;
        while tried.len() < ATTEMPTS_MAX
            && let Some(server) = group.choose(&tried, now, false)
        {
            server.health.chosen(now);
            let in_flight = InFlight::new(&server);
            let lease = match server.lease_alone(passing.timeouts).await {
                Ok(lease) => lease,
                Err(error) => {
                    failure = connect_failed(&server, &error);
                    tried.push(server);
                    continue;
                }
            };
            let over_http2 = lease.is_http2();
            let head = if over_http2 {
                let mut head = passing.departure.http2(&Framing::Empty, server.place())?;
                Asked::ask_http2(&mut head);
                head
            } else {
                let mut head = passing.departure.http1(&Framing::Empty, server.place().1)?;
                asked.ask_http1(&mut head);
                head
            };
            let first = self.clock.now();
            let exchanged = pin!(lease.ask(head));
            return match self.deadlines.within(|| passing.deadline(first), exchanged).await {
                Ok(Ok(reply)) => {
                    took(group, &server, first, self.clock.now(), sent);
                    self.begin_websocket(Arrived { reply, in_flight, over_http2 }, passing, asked)
                }
                Ok(Err(Failure::Unsayable(error))) => Err(error.into()),
                Ok(Err(Failure::Unsent)) => {
                    server.outcomes.error.inc();
                    Err(Rejection::UpstreamUnavailable)
                }
                Ok(Err(Failure::Lost(loss, error))) => Err(self.lost(&server, false, passing, &loss, &error)),
                Err(Elapsed) => Err(self.too_late(&server, passing)),
            };
        }
        Err(failure)
    }

    fn begin_websocket(
        &self,
        mut arrived: Arrived,
        passing: &Passing<'_>,
        asked: Asked,
    ) -> Result<Response<Body>, Rejection> {
        let fields = asked.fields();
        let over_http2 = arrived.over_http2;
        match asked.outcome(&mut arrived.reply.head, over_http2) {
            Outcome::Broken => Err(Rejection::UpstreamUnavailable),
            Outcome::Declined => self.deliver(arrived, passing),
            Outcome::Agreed(tunnel) => {
                let Arrived { reply: Reply { mut head, used, .. }, in_flight, .. } = arrived;
                let body = Body::empty();
                passing.rewrite_response(&mut head, &body);
                fields.write(&mut head.headers);
                let open = OpenStream::new(self.open.websocket.clone());
                let leash = passing.tether.as_ref().map(|tether| self.leashes.leash(tether));
                tunnel.carry(leash, passing.timeouts.idle, (open, in_flight, used));
                Ok(Response::from_parts(head, body))
            }
        }
    }
}

impl OpenStreams {
    /// Responses that are open for long are counted while they are.
    fn of(&self, head: &response::Parts) -> Option<OpenStream> {
        if begins(&head.headers, b"text/event-stream") {
            Some(OpenStream::new(self.sse.clone()))
        } else if is_grpc(&head.headers) {
            Some(OpenStream::new(self.grpc.clone()))
        } else {
            None
        }
    }
}

fn begins(headers: &HeaderMap, with: &[u8]) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    media_type.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    begins(headers, b"application/grpc")
}

fn is_plain_grpc(headers: &HeaderMap) -> bool {
    is_grpc(headers) && !begins(headers, b"application/grpc-web")
}

impl Group {
    /// A server that is up and was not tried. One that is set aside comes after the others; one that was tried comes last,
    /// and only where `again`.
    fn choose(&self, tried: &[Rc<Server>], now: Instant, again: bool) -> Option<Rc<Server>> {
        let untried = |server: &Rc<Server>| !tried.iter().any(|other| Rc::ptr_eq(other, server));
        let pick = |usable: &dyn Fn(&Rc<Server>) -> bool| {
            let load =
                |index: usize| self.servers.get(index).filter(|server| usable(server)).map(|server| server.in_flight());
            self.chooser.choose(self.servers.len(), load)
        };
        let index = pick(&|server| server.health.is_up() && !server.health.is_set_aside(now) && untried(server))
            .or_else(|| pick(&|server| server.health.is_up() && untried(server)))
            .or_else(|| again.then(|| pick(&|server| server.health.is_up())).flatten())?;
        self.servers.get(index).cloned()
    }
}

impl Passing<'_> {
    async fn echo(&self, body: Outgoing) -> Result<Response<Body>, Rejection> {
        // it is nowhere but here
        let head = self.departure.http1(&self.departure.framing(&body), &HeaderValue::from_static("localhost"))?;
        let answered = echo::answer(&head, body.into_body(), self.departure.outbound().identity).await;
        let (mut head, body) = answered.map_err(|error| body_failed(&error))?.into_parts();
        self.rewrite_response(&mut head, &body);
        Ok(Response::from_parts(head, body))
    }

    fn rewrite_response(&self, head: &mut response::Parts, body: &Body) {
        rewrite::response(head, body, self.departure.method(), self.route);
    }

    fn deadline(&self, first_sent: Instant) -> Instant {
        let limit = self.route.timeout.unwrap_or(self.timeouts.response_header);
        match &self.progress {
            None => first_sent + limit,
            Some(progress) => progress.deadline(limit, self.timeouts.idle),
        }
    }

    fn rejection(&self) -> Option<Rejection> {
        self.progress.as_ref().and_then(|progress| progress.rejection())
    }
}

/// A response's head came.
fn took(group: &Group, server: &Server, since: Instant, came: Instant, sent: &mut Sent<'_>) {
    let took = came.saturating_duration_since(since);
    group.took.observe(took);
    server.outcomes.ok.inc();
    server.health.answered();
    (sent.took, sent.came) = (Some(took), Some(came));
}

fn connect_failed(server: &Server, error: &DialError) -> Rejection {
    server.outcomes.connect_failed.inc();
    match error {
        DialError::TooLate => Rejection::UpstreamTimeout,
        DialError::Resolve(_)
        | DialError::Connect(_)
        | DialError::Tls(_)
        | DialError::NoTls
        | DialError::NoRoom
        | DialError::NoExtendedConnect
        | DialError::Http(_) => Rejection::UpstreamUnavailable,
    }
}

/// Why a request's own body ends it.
fn body_failed(error: &BodyError) -> Rejection {
    match error {
        BodyError::TooLarge => Rejection::BodyTooLarge,
        BodyError::Stalled => Rejection::RequestTimeout,
        BodyError::Broken(_) => Rejection::BadRequest("the body broke off"),
        BodyError::Cut => Rejection::Internal,
    }
}
