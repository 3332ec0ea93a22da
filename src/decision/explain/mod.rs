//! A decision with its reasons: for people, and for tools as JSON (contract 7).

mod heard;
mod sent;
mod told;
mod json;
mod words;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};

use self::heard::Early;
use self::told::Told;
use super::{Place, Request, claimed, decide};
use crate::authenticate::{Caller, Identity};
use crate::config::methods::Doubt;
use crate::config::reach::Reach;
use crate::config::report::is_unseen;
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::principal::{Principal, Scheme, SchemeSet, Scope, SubjectKind};
use crate::rejection::Rejection;
use crate::route::explain::why;
use crate::route::{Allow, Route};
use crate::wire::forwarded;
use crate::wire::target::Target;

pub use json::allow_json;
pub use words::{upstream, who_may};

/// The id that is shown where a request would get its own.
const EXAMPLE_ID: &str = "0123456789abcdef0123456789abcdef";

/// What is asked.
#[derive(Debug)]
pub struct Question {
    asked: String,
    method: Method,
    request: Result<Request, Rejection>,
    peer: IpAddr,
    /// Whether a listener comes before the rules.
    at_a_listener: bool,
}

impl Question {
    /// What `url` gets by `method`, from this machine.
    pub fn of(method: &Method, url: &str, request: Result<Request, Rejection>) -> Self {
        let shown: String = url.chars().map(|c| if is_unseen(c) { '\u{fffd}' } else { c }).collect();
        let asked = format!("{method} {shown}");
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { asked, method: method.clone(), request, peer, at_a_listener: false }
    }

    /// The same from this address.
    #[must_use]
    pub fn from(self, peer: IpAddr) -> Self {
        Self { peer, ..self }
    }

    /// The same of the whole gateway, whose listeners refuse and redirect before a rule is asked.
    #[must_use]
    pub fn at_a_listener(self) -> Self {
        Self { at_a_listener: true, ..self }
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

/// Finds out who asks, by one of these schemes, of which Basic names a user or a client.
pub type Proof<'a> = Box<dyn FnOnce(SchemeSet, SubjectKind) -> Result<Caller, Rejection> + 'a>;

/// What becomes of the request.
#[derive(Debug)]
enum Outcome<'s> {
    /// It is sent on: the upstream, and the head as it would be sent.
    Forwarded(&'s str, String),
    /// An endpoint of the gateway answers it.
    Answered(&'s Arc<Endpoint>),
    /// It is a preflight, and the gateway answers it.
    Preflight,
    /// It is refused.
    Refused(Rejection),
    /// A listener sends it to this URL on https.
    Redirected(HeaderValue),
    /// Nobody was named, and it depends on who asks.
    Depends,
}

impl Outcome<'_> {
    /// The word for tools; there are no others.
    const fn name(&self) -> &'static str {
        match self {
            Self::Forwarded(..) => "forwarded",
            Self::Answered(_) => "answered",
            Self::Preflight => "preflight",
            // nothing of it passes
            Self::Refused(_) | Self::Redirected(_) => "refused",
            Self::Depends => "depends",
        }
    }
}

/// The answer.
#[derive(Debug)]
pub struct Explanation<'s> {
    snapshot: &'s Snapshot,
    asked: String,
    /// Why its method is probably not what was meant.
    doubt: Option<String>,
    host: String,
    path: Option<String>,
    route: Option<&'s Route>,
    endpoint: Option<&'s Arc<Endpoint>>,
    /// The others that fit path and host, and why they do not decide.
    others: Vec<(&'s Route, String)>,
    /// Routes for the path, but for other hosts.
    elsewhere: Vec<&'s Route>,
    caller: Option<Arc<Identity>>,
    outcome: Outcome<'s>,
    /// What the caller would get; `None` where that depends.
    told: Option<Told>,
}

/// Asks, and gives the reasons.
pub fn explain<'s>(snapshot: &'s Snapshot, question: Question, asker: Asker<'_>) -> Explanation<'s> {
    let Question { asked, method, request, peer, at_a_listener } = question;
    let mut explanation = Explanation {
        snapshot,
        asked,
        doubt: Doubt::of(method.as_str()).map(|doubt| doubt.sentence(method.as_str())),
        host: String::new(),
        path: None,
        route: None,
        endpoint: None,
        others: Vec::new(),
        elsewhere: Vec::new(),
        caller: None,
        outcome: Outcome::Depends,
        told: None,
    };
    let request = match request {
        Ok(request) => request,
        Err(rejection) => {
            explanation.told = Some(Told::refused(snapshot, &rejection, &told::Asked::nothing(&method)));
            return Explanation { outcome: Outcome::Refused(rejection), ..explanation };
        }
    };
    request.host().to_str().unwrap_or_default().clone_into(&mut explanation.host);
    let trusted = snapshot.trusted_proxies.trusts(peer);
    let request_id = forwarded::request_id(&request.headers, trusted).unwrap_or(EXAMPLE_ID);
    if let Some(early) = at_a_listener.then(|| heard::heard(snapshot, &request)).flatten() {
        return explanation.early(early, &told::Asked { request_id, ..told::Asked::nothing(&method) });
    }
    let open = matches!(asker, Asker::Open);
    let mut seen = None;
    let decision = decide(snapshot, request.head(), |schemes, kind| {
        let caller = match asker {
            Asker::Open | Asker::Anyone => Ok(Caller::Anyone),
            Asker::Claimed(principal, scheme) => claimed(schemes, &principal, scheme),
            Asker::Proving(prove) => prove(schemes, kind),
        }?;
        if let Caller::Known(identity) = &caller {
            seen = Some(Arc::clone(identity));
        }
        Ok(caller)
    });
    explanation.caller = seen;
    explanation.path = decision.target.as_ref().map(|target| target.path().to_owned());
    let mut grant = None;
    match decision.place {
        Some(Place::Endpoint(found)) => explanation.endpoint = Some(found),
        Some(Place::Preflight(route, granted)) => {
            (explanation.route, grant) = (Some(route), Some(granted));
        }
        Some(Place::Route(route)) => {
            explanation.route = Some(route);
            grant = route.cors.as_ref().map(|cors| cors.grant(&request.headers));
        }
        None => {}
    }
    let endpoint = explanation.endpoint;
    // what is refused as it is no request of any rule is not for any of them
    let is_malformed = matches!(decision.outcome, Err(Rejection::BadRequest(_)));
    if let (Some(target), None, false) = (&decision.target, endpoint, is_malformed) {
        explanation.compare(&request, target);
    }
    let request_of = told::Asked {
        method: &request.method,
        headers: Some(&request.headers),
        request_id,
        route: explanation.route,
        endpoint,
        grant,
    };
    explanation.outcome = match (decision.outcome, endpoint, &decision.target) {
        (Err(_), None, _) if open && explanation.route.is_some() => Outcome::Depends,
        (Err(_), Some(endpoint), _) if open && endpoint.takes(&method).is_ok() => Outcome::Depends,
        (Err(rejection), ..) => {
            explanation.told = Some(Told::refused(snapshot, &rejection, &request_of));
            Outcome::Refused(rejection)
        }
        (Ok(_), Some(endpoint), _) => Outcome::Answered(endpoint),
        (Ok(Some(permit)), None, Some(target)) => {
            explanation.told = Some(Told::passed(permit.route(), &request_of));
            let request_id = HeaderValue::from_str(request_of.request_id);
            let request_id = request_id.unwrap_or_else(|_| HeaderValue::from_static(""));
            let origin = sent::origin(snapshot, &request, peer, &request_id);
            let target = target.clone().with(request.raw_query.as_ref());
            let head = sent::head(snapshot, &request, permit.route(), permit.identity(), &target, &origin);
            Outcome::Forwarded(upstream(snapshot, permit.route()), head)
        }
        (Ok(Some(_) | None), None, _) => {
            explanation.told = Some(Told::preflight(&request_of));
            Outcome::Preflight
        }
    };
    explanation
}

/// All that a principal with these roles and scopes reaches: routes that decide something, in the order of the file, each
/// with the scopes that it asks for besides.
pub fn reach<'s>(
    snapshot: &'s Snapshot,
    principal: &Principal,
    scheme: Option<Scheme>,
) -> Vec<(&'s Route, Vec<Scope>)> {
    let decides = Reach::of(snapshot).decides;
    let routes = snapshot.routes.routes().iter().zip(decides).filter(|(_, decides)| *decides);
    let reached = routes.filter_map(|(route, _)| {
        // a credential may be given more scopes; it is asked what the role alone opens
        let missing: Vec<Scope> = route.scopes.iter().filter(|scope| !principal.has_scope(scope)).cloned().collect();
        let scopes = principal.scopes.iter().chain(&missing).cloned().collect();
        let able = Principal { scopes, ..principal.clone() };
        let caller =
            if route.allow == Allow::Anyone { Ok(Caller::Anyone) } else { claimed(route.schemes, &able, scheme) };
        caller.and_then(|caller| crate::authorize::permit(route, caller)).ok().map(|_| (route, missing))
    });
    reached.collect()
}

impl Explanation<'_> {
    /// What the rules answer; 200 where the request passes or, nobody being named, could.
    pub fn status(&self) -> StatusCode {
        match &self.outcome {
            Outcome::Forwarded(..) | Outcome::Answered(_) | Outcome::Preflight | Outcome::Depends => StatusCode::OK,
            Outcome::Refused(rejection) => rejection.status(),
            Outcome::Redirected(_) => StatusCode::PERMANENT_REDIRECT,
        }
    }

    /// Whether it is refused, or sent elsewhere.
    pub const fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused(_) | Outcome::Redirected(_))
    }

    /// What a listener answers before any rule is asked.
    fn early(self, early: Early, asked: &told::Asked<'_>) -> Self {
        let (outcome, told) = match early {
            Early::Refused(rejection, headers) => {
                let asked = told::Asked { headers: Some(&headers), ..asked.clone() };
                let told = Told::refused(self.snapshot, &rejection, &asked);
                (Outcome::Refused(rejection), told)
            }
            Early::Redirected(location) => {
                let told = Told::redirected(&location, asked);
                (Outcome::Redirected(location), told)
            }
        };
        Self { outcome, told: Some(told), ..self }
    }

    fn compare(&mut self, request: &Request, target: &Target) {
        let host = crate::wire::target::host(&request.uri, &request.headers, request.head().version);
        let Ok(host) = host else { return };
        // a preflight is decided by the route of the request that it asks for
        let method = match self.route {
            Some(_) => crate::route::cors::preflight(&request.method, &request.headers),
            None => None,
        };
        let method = method.unwrap_or_else(|| request.method.clone());
        for other in self.snapshot.routes.candidates(&host, target.path()) {
            match self.route {
                Some(route) if std::ptr::eq(route, other) => {}
                Some(route) => self.others.push((other, why(route, other, &method))),
                None => self.others.push((other, why(other, other, &method))),
            }
        }
        if self.others.is_empty() && self.route.is_none() {
            let fits = |route: &&Route| route.pattern.matches(target.path());
            self.elsewhere = self.snapshot.routes.routes().iter().filter(fits).collect();
        }
    }

    /// The roles, any of which the caller would need, and the scopes that its credential lacks.
    fn lacks(&self) -> (Vec<&str>, Vec<&str>) {
        let (Some(identity), Some(route)) = (&self.caller, self.route) else { return (Vec::new(), Vec::new()) };
        let principal = &identity.principal;
        let roles = match &route.allow {
            Allow::Roles(asked) if !asked.iter().any(|role| principal.has_role(role)) => asked.as_slice(),
            Allow::Roles(_) | Allow::Anyone | Allow::Authenticated => &[],
        };
        let scopes = route.scopes.iter().filter(|scope| !principal.has_scope(scope));
        (roles.iter().map(crate::principal::Role::as_str).collect(), scopes.map(Scope::as_str).collect())
    }
}
