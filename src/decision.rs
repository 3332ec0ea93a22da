//! What the rules mean for one request: a pure function of snapshot, request head and caller, without I/O.
//!
//! The running gateway asks it in two steps, [`place`] before a credential is looked at and [`authorize::permit`] after;
//! [`decide`] is both at once, for whoever asks without serving. There is no other way to a decision.

pub mod diff;
pub mod explain;
pub mod expectations;
mod request;

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, Version};

use crate::authenticate::{Caller, Identity};
use crate::authorize::{self, Permit};
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::principal::{Principal, Scheme, SchemeSet, SubjectKind};
use crate::rejection::Rejection;
use crate::route::cors::{self, Grant};
use crate::route::{Allow, Route};
use crate::wire::target::{self, Target};

pub use request::Request;

/// What of a request the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as it came.
    pub uri: &'a Uri,
    /// The version, on which the need of a `Host` depends.
    pub version: Version,
    /// The fields; of them, `Host`, and those that make a preflight.
    pub headers: &'a HeaderMap,
}

/// What answers a request.
#[derive(Clone, Debug)]
pub enum Place<'s> {
    /// The gateway itself.
    Endpoint(&'s Arc<Endpoint>),
    /// The gateway itself: a preflight for a route with `cors`, which needs no permit.
    Preflight(&'s Route, Grant),
    /// The upstream of a route, if it permits.
    Route(&'s Route),
}

/// A decision, with what led to it.
#[derive(Debug)]
pub struct Decision<'s> {
    /// The path as it was made unambiguous; `None` where it could not be.
    pub target: Option<Target>,
    /// What would answer; `None` where nothing would.
    pub place: Option<Place<'s>>,
    /// The permit to use the route (`None` where the gateway answers), or why there is none.
    pub outcome: Result<Option<Permit<'s>>, Rejection>,
}

/// Where a request belongs.
///
/// # Errors
/// [`Rejection::BadRequest`] for a target or host that has more than one meaning, [`Rejection::NoRoute`] and
/// [`Rejection::MethodNotAllowed`].
pub fn place<'s>(snapshot: &'s Snapshot, head: Head<'_>, target: &Target) -> Result<Place<'s>, Rejection> {
    let host = target::host(head.uri, head.headers, head.version)?;
    // Methods are case-sensitive (RFC 9110 9.1), but many servers raise them: `delete` would walk past a route for `DELETE`
    // and be done all the same.
    if head.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(Rejection::BadRequest("Method must be in upper case"));
    }
    if is_tunnel(head.method) {
        return Err(Rejection::BadRequest("CONNECT is for WebSockets only"));
    }
    if let Some(endpoint) = snapshot.endpoints.get(target.path()) {
        return Ok(Place::Endpoint(endpoint));
    }
    // a preflight asks for the route of the request to come; where that has no `cors` it is an `OPTIONS` like any other
    if let Some(asked) = cors::preflight(head.method, head.headers)
        && let Ok(route) = snapshot.routes.find(&host, &asked, target.path())
        && let Some(cors) = &route.cors
    {
        return Ok(Place::Preflight(route, cors.preflight(route, &asked, head.headers)));
    }
    Ok(Place::Route(snapshot.routes.find(&host, head.method, target.path())?))
}

/// Whether a method asks for a tunnel, which nobody gets, whatever a route lists. A WebSocket over HTTP/2 is asked for by
/// another `CONNECT` (RFC 8441 4), which is `GET` to the rules.
pub fn is_tunnel(method: &Method) -> bool {
    *method == Method::CONNECT
}

/// The decision for a request; `caller` says who sent it by one of some schemes, of which Basic names a user or a
/// client, and is asked only where the answer depends on that. What an endpoint would say of a body is left open.
pub fn decide<'s>(
    snapshot: &'s Snapshot,
    head: Head<'_>,
    caller: impl FnOnce(SchemeSet, SubjectKind) -> Result<Caller, Rejection>,
) -> Decision<'s> {
    let target = match Target::parse(head.uri, &snapshot.paths) {
        Ok(target) => target,
        Err(error) => return Decision { target: None, place: None, outcome: Err(error.into()) },
    };
    let (place, outcome) = match place(snapshot, head, &target) {
        Err(rejection) => (None, Err(rejection)),
        Ok(Place::Endpoint(endpoint)) => {
            let outcome = endpoint.admits(head.method, head.headers, caller).map(|()| None);
            (Some(Place::Endpoint(endpoint)), outcome)
        }
        Ok(preflight @ Place::Preflight(..)) => (Some(preflight), Ok(None)),
        Ok(Place::Route(route)) => {
            let caller = if route.allow == Allow::Anyone {
                Ok(Caller::Anyone)
            } else {
                caller(route.schemes, SubjectKind::User)
            };
            let outcome = caller.and_then(|caller| authorize::permit(route, caller)).map(Some);
            (Some(Place::Route(route)), outcome)
        }
    };
    Decision { target: Some(target), place, outcome }
}

/// A caller who is taken to be `principal`, by `scheme` or, where that is left open, by one of those offered.
///
/// # Errors
/// [`Rejection::UnsupportedScheme`] where the scheme is not offered.
pub fn claimed(schemes: SchemeSet, principal: &Principal, scheme: Option<Scheme>) -> Result<Caller, Rejection> {
    let offered = scheme.or_else(|| schemes.iter().next()).filter(|&scheme| schemes.contains(scheme));
    let scheme = offered.ok_or(Rejection::UnsupportedScheme)?;
    Ok(Caller::Known(Arc::new(Identity::new(principal.clone(), scheme, None))))
}
