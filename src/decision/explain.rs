//! A decision with its reasons: for people, and for tools as JSON (contract 7).

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Place, Request, claimed, decide};
use crate::authenticate::{Caller, Identity};
use crate::config::model::endpoints::action_name;
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::forward::rewrite::{Departure, Framing, Outbound};
use crate::forward::{Origin, UpstreamKind};
use crate::listen::Mode;
use crate::principal::{Principal, Role, Scheme, SchemeSet, Scope};
use crate::rejection::{Audience, Format, Rejection};
use crate::route::explain::why;
use crate::route::{Allow, Route};
use crate::wire::fields::Hop;
use crate::wire::target::Target;

/// The id that is shown where a request would get its own.
const EXAMPLE_ID: &str = "0123456789abcdef0123456789abcdef";
/// The bytes of the trace that is shown.
const EXAMPLE_TRACE: [u8; 24] = [0xab; 24];

/// What is asked.
#[derive(Debug)]
pub struct Question {
    asked: String,
    request: Result<Request, Rejection>,
    peer: IpAddr,
}

impl Question {
    /// What `url` gets by `method`, from this machine.
    pub fn of(method: &Method, url: &str, request: Result<Request, Rejection>) -> Self {
        let shown: String = url.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        Self { asked: format!("{method} {shown}"), request, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    /// The same from this address.
    #[must_use]
    pub fn from(self, peer: IpAddr) -> Self {
        Self { peer, ..self }
    }
}

/// As whom.
pub enum Asker<'a> {
    /// Nobody is named: the question is who may.
    Open,
    /// A caller without credentials.
    Anyone,
    /// A principal, by a scheme or by any that the route offers.
    Claimed(Principal, Option<Scheme>),
    /// Whoever the credentials prove, which this finds out.
    Proving(Proof<'a>),
}

/// Finds out who asks a route.
pub type Proof<'a> = Box<dyn FnOnce(&Route) -> Result<Caller, Rejection> + 'a>;

/// What becomes of the request.
#[derive(Debug)]
enum Outcome<'s> {
    /// It is sent on: the upstream, and the head as it would be sent.
    Forwarded(&'s str, String),
    /// The gateway answers it.
    Answered(&'s Arc<Endpoint>),
    /// It is refused.
    Refused(Rejection),
    /// It depends on who asks.
    Depends,
}

/// The answer.
#[derive(Debug)]
pub struct Explanation<'s> {
    snapshot: &'s Snapshot,
    asked: String,
    host: String,
    path: Option<String>,
    route: Option<&'s Route>,
    /// The others that fit path and host, and why they do not decide.
    others: Vec<(&'s Route, String)>,
    /// Routes for the path, but for other hosts.
    elsewhere: Vec<&'s Route>,
    caller: Option<Arc<Identity>>,
    outcome: Outcome<'s>,
}

/// Asks, and gives the reasons.
pub fn explain<'s>(snapshot: &'s Snapshot, question: Question, asker: Asker<'_>) -> Explanation<'s> {
    let Question { asked, request, peer } = question;
    let mut explanation = Explanation {
        snapshot,
        asked,
        host: String::new(),
        path: None,
        route: None,
        others: Vec::new(),
        elsewhere: Vec::new(),
        caller: None,
        outcome: Outcome::Depends,
    };
    let request = match request {
        Ok(request) => request,
        Err(rejection) => return Explanation { outcome: Outcome::Refused(rejection), ..explanation },
    };
    request.host().to_str().unwrap_or_default().clone_into(&mut explanation.host);
    let open = matches!(asker, Asker::Open);
    let mut seen = None;
    let decision = decide(snapshot, request.head(), |route| {
        let caller = match asker {
            Asker::Open | Asker::Anyone => Ok(Caller::Anyone),
            Asker::Claimed(principal, scheme) => claimed(route, &principal, scheme),
            Asker::Proving(prove) => prove(route),
        }?;
        if let Caller::Known(identity) = &caller {
            seen = Some(Arc::clone(identity));
        }
        Ok(caller)
    });
    explanation.caller = seen;
    explanation.path = decision.target.as_ref().map(|target| target.path().to_owned());
    let endpoint = match decision.place {
        Some(Place::Endpoint(endpoint)) => Some(endpoint),
        Some(Place::Route(route) | Place::Preflight(route, _)) => {
            explanation.route = Some(route);
            None
        }
        None => None,
    };
    if let (Some(target), None) = (&decision.target, endpoint) {
        explanation.compare(&request, target);
    }
    explanation.outcome = match (decision.outcome, endpoint, &decision.target) {
        (Err(_), None, _) if open && explanation.route.is_some() => Outcome::Depends,
        (Err(rejection), ..) => Outcome::Refused(rejection),
        (Ok(_), Some(endpoint), _) => Outcome::Answered(endpoint),
        (Ok(Some(permit)), None, Some(target)) => {
            let origin = origin(snapshot, &request, peer);
            let head = forwarded_head(snapshot, request, permit.route(), permit.identity(), target, &origin);
            Outcome::Forwarded(upstream(snapshot, permit.route()), head)
        }
        (Ok(Some(_) | None), None, _) => Outcome::Depends,
    };
    explanation
}

/// All that a principal with these roles and scopes reaches: routes, in the order of the file, each with the scopes that
/// it asks for besides.
pub fn reach<'s>(
    snapshot: &'s Snapshot,
    principal: &Principal,
    scheme: Option<Scheme>,
) -> Vec<(&'s Route, Vec<Scope>)> {
    let routes = snapshot.routes.routes().iter();
    let reached = routes.filter_map(|route| {
        // a credential may be given more scopes; it is asked what the role alone opens
        let missing: Vec<Scope> = route.scopes.iter().filter(|scope| !principal.has_scope(scope)).cloned().collect();
        let scopes = principal.scopes.iter().chain(&missing).cloned().collect();
        let able = Principal { scopes, ..principal.clone() };
        let caller = if route.allow == Allow::Anyone { Ok(Caller::Anyone) } else { claimed(route, &able, scheme) };
        caller.and_then(|caller| crate::authorize::permit(route, caller)).ok().map(|_| (route, missing))
    });
    reached.collect()
}

impl Explanation<'_> {
    /// What the caller gets; 200 where the request passes or, nobody being named, could.
    pub fn status(&self) -> StatusCode {
        match &self.outcome {
            Outcome::Forwarded(..) | Outcome::Answered(_) | Outcome::Depends => StatusCode::OK,
            Outcome::Refused(rejection) => rejection.status(),
        }
    }

    /// Whether it is refused.
    pub const fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_))
    }

    fn compare(&mut self, request: &Request, target: &Target) {
        let host = crate::wire::target::host(&request.uri, &request.headers, request.head().version);
        let Ok(host) = host else { return };
        for other in self.snapshot.routes.candidates(&host, target.path()) {
            match self.route {
                Some(route) if std::ptr::eq(route, other) => {}
                Some(route) => self.others.push((other, why(route, other, &request.method))),
                None => self.others.push((other, why(other, other, &request.method))),
            }
        }
        if self.others.is_empty() && self.route.is_none() {
            let fits = |route: &&Route| route.pattern.matches(target.path());
            self.elsewhere = self.snapshot.routes.routes().iter().filter(fits).collect();
        }
    }

    /// For tools, with the members of contract 7.
    pub fn json(&self) -> Value {
        let (outcome, status, error) = match &self.outcome {
            Outcome::Forwarded(..) => (json!("forwarded"), None, None),
            Outcome::Answered(_) => (json!("answered"), None, None),
            Outcome::Refused(rejection) => {
                (json!("refused"), Some(rejection.status().as_u16()), Some(rejection.code()))
            }
            Outcome::Depends => (Value::Null, None, None),
        };
        let methods = match &self.outcome {
            Outcome::Refused(Rejection::MethodNotAllowed(allow)) => {
                let list = allow.to_str().unwrap_or_default().split(", ").filter(|method| !method.is_empty());
                list.collect()
            }
            Outcome::Refused(_) | Outcome::Forwarded(..) | Outcome::Answered(_) | Outcome::Depends => Value::Null,
        };
        let (upstream, head) = match &self.outcome {
            Outcome::Forwarded(upstream, head) => (Some(*upstream), Some(head)),
            Outcome::Answered(_) | Outcome::Refused(_) | Outcome::Depends => (None, None),
        };
        json!({
            "outcome": outcome,
            "status": status,
            "error": error,
            "path": self.path,
            "route": self.route.map(|route| json!({ "path": &*route.name, "line": route.line })),
            "allow": self.route.map(|route| allow_json(&route.allow)),
            "methods": methods,
            "upstream": upstream,
            "forwarded_head": head,
        })
    }

    fn write_caller(&self, f: &mut fmt::Formatter<'_>, route: &Route) -> fmt::Result {
        let Some(identity) = &self.caller else { return Ok(()) };
        let Principal { roles, scopes, .. } = &identity.principal;
        write!(f, "caller    by {}, with {}", identity.scheme.name(), named("role", roles.iter().map(Role::as_str)))?;
        if !scopes.is_empty() {
            write!(f, " and {}", named("scope", scopes.iter().map(Scope::as_str)))?;
        }
        writeln!(f)?;
        if let Allow::Roles(asked) = &route.allow
            && !asked.iter().any(|role| identity.principal.has_role(role))
        {
            writeln!(f, "lacks     any of {}", named("role", asked.iter().map(Role::as_str)))?;
        }
        let missing: Vec<&str> =
            route.scopes.iter().filter(|scope| !identity.principal.has_scope(scope)).map(Scope::as_str).collect();
        if missing.is_empty() { Ok(()) } else { writeln!(f, "lacks     {}", named("scope", missing.into_iter())) }
    }

    fn response(&self, rejection: &Rejection) -> Response<Bytes> {
        rejection.respond(&Audience {
            realm: &self.snapshot.auth.realm,
            schemes: self.route.map_or(self.snapshot.schemes, |route| route.schemes),
            texts: &self.snapshot.texts,
            request_id: EXAMPLE_ID,
            format: Format::Json,
        })
    }

    fn write_outcome(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Depends => Ok(()),
            Outcome::Answered(endpoint) => {
                writeln!(f, "answer    by the gateway itself: action {}", action_name(endpoint.action))
            }
            Outcome::Refused(rejection) => {
                let response = self.response(rejection);
                writeln!(f, "answer    {} {}", rejection.status().as_u16(), rejection.code())?;
                writeln!(f, "          HTTP/1.1 {}", response.status())?;
                for (name, value) in response.headers() {
                    writeln!(f, "          {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
                }
                writeln!(f, "          x-request-id: {EXAMPLE_ID}")?;
                writeln!(f, "          {}", String::from_utf8_lossy(response.body()))
            }
            Outcome::Forwarded(upstream, head) => {
                writeln!(f, "answer    passes to upstream {upstream}{}", servers(self.snapshot, self.route))?;
                for (number, line) in head.trim_end().split("\r\n").enumerate() {
                    writeln!(f, "{}{line}", if number == 0 { "sent      " } else { "          " })?;
                }
                writeln!(f, "          (the ids are examples: each request has its own)")
            }
        }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "request   {}{}",
            self.asked,
            if self.host.is_empty() { String::new() } else { format!(" (host {})", self.host) }
        )?;
        if let Some(path) = &self.path {
            writeln!(f, "path      {path}")?;
        }
        match self.route {
            Some(route) => writeln!(f, "route     {}", title(route))?,
            None if self.path.is_some() && !matches!(self.outcome, Outcome::Answered(_)) => {
                writeln!(f, "route     none")?;
            }
            None => {}
        }
        for (other, reason) in &self.others {
            writeln!(f, "not       {}: {reason}", title(other))?;
        }
        for other in &self.elsewhere {
            writeln!(f, "not       {}: it is for the hosts {} only", title(other), other.hosts.join(", "))?;
        }
        if let Some(route) = self.route {
            writeln!(f, "may       {}", who_may(route))?;
            self.write_caller(f, route)?;
        }
        self.write_outcome(f)
    }
}

fn title(route: &Route) -> String {
    format!("{} (line {})", route.name, route.line)
}

/// Whom a route lets through, in words.
pub fn who_may(route: &Route) -> String {
    let mut text = match &route.allow {
        Allow::Anyone => return "anyone".to_owned(),
        Allow::Authenticated => "any principal".to_owned(),
        Allow::Roles(roles) => named("role", roles.iter().map(Role::as_str)),
    };
    if !route.scopes.is_empty() {
        text.push_str(", with ");
        text.push_str(&named("scope", route.scopes.iter().map(Scope::as_str)));
    }
    text.push_str(", by ");
    text.push_str(&schemes(route.schemes));
    text
}

fn schemes(set: SchemeSet) -> String {
    set.iter().map(Scheme::name).collect::<Vec<_>>().join(", ")
}

/// `role a`, `roles a, b`, `no roles`.
fn named<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => format!("no {what}s"),
        [one] => format!("{what} {one}"),
        several => format!("{what}s {}", several.join(", ")),
    }
}

/// `allow` as the file has it.
pub fn allow_json(allow: &Allow) -> Value {
    match allow {
        Allow::Anyone => "anyone".into(),
        Allow::Authenticated => "authenticated".into(),
        Allow::Roles(roles) => roles.iter().map(Role::as_str).collect(),
    }
}

/// The name of a route's upstream.
pub fn upstream<'s>(snapshot: &'s Snapshot, route: &Route) -> &'s str {
    snapshot.upstreams.get(route.upstream.0).map_or("", |upstream| &*upstream.name)
}

fn servers(snapshot: &Snapshot, route: Option<&Route>) -> String {
    let upstream = route.and_then(|route| snapshot.upstreams.get(route.upstream.0));
    match upstream.map(|upstream| &upstream.kind) {
        Some(UpstreamKind::Servers(group)) => {
            let labels: Vec<&str> = group.servers.iter().map(|server| &*server.label).collect();
            format!(" ({})", labels.join(", "))
        }
        Some(UpstreamKind::Echo) => " (echo: the gateway answers with what it received)".to_owned(),
        None => String::new(),
    }
}

fn origin(snapshot: &Snapshot, request: &Request, peer: IpAddr) -> Origin {
    let first_is_tls = snapshot.listeners.first().is_some_and(|first| matches!(first.mode, Mode::Tls(_)));
    Origin {
        peer,
        trusted: snapshot.trusted_proxies.trusts(peer),
        https: request.https.unwrap_or(first_is_tls),
        host: request.host(),
        request_id: HeaderValue::from_static(EXAMPLE_ID),
        random: EXAMPLE_TRACE,
    }
}

/// The head of the request as an HTTP/1.1 server of the upstream is sent it, by the code that sends it. A credential that
/// the route passes on is masked.
fn forwarded_head(
    snapshot: &Snapshot,
    request: Request,
    route: &Route,
    identity: Option<&Arc<Identity>>,
    target: &Target,
    origin: &Origin,
) -> String {
    let (mut head, ()) = http::Request::new(()).into_parts();
    (head.method, head.uri, head.headers) = (request.method, request.uri, request.headers);
    let outbound =
        Outbound { route, identity: identity.map(|identity| &**identity), names: &snapshot.identity, target, origin };
    let hop = Hop::of(&head.headers);
    let mut head = Departure::new(&head, &hop, outbound).http1(&Framing::Empty);
    mask(&mut head.headers);
    let mut text = format!("{} {} HTTP/1.1\r\n", head.method, head.uri);
    for (name, value) in &head.headers {
        // writing to a text cannot fail
        write!(text, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())).ok();
    }
    text.push_str("\r\n");
    text
}

fn mask(headers: &mut HeaderMap) {
    if let Some(value) = headers.get_mut(AUTHORIZATION) {
        let scheme = value.to_str().ok().and_then(|text| text.split(' ').next()).unwrap_or_default();
        *value = HeaderValue::try_from(format!("{scheme} ********"))
            .unwrap_or_else(|_| HeaderValue::from_static("********"));
    }
}
