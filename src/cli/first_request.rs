//! A first request to paste, made of the rules themselves.

use super::Running;
use super::bootstrap::Generated;
use crate::principal::{Scheme, SubjectKind};
use crate::route::pattern::Segment;
use crate::route::{Allow, Route};
use http::Method;

impl Running {
    /// A `curl` line that is answered with something else than a refusal: as a user whose password was just generated,
    /// else as nobody in particular. `None` where the rules give none.
    pub fn first_request(&self) -> Option<String> {
        let listening = self.listeners().into_iter().next()?;
        let snapshot = self.gateway().snapshot();
        let user = self.generated().iter().find(|made| made.subject.kind == SubjectKind::User);
        let as_user = user.and_then(|user| {
            let account = snapshot.bootstrap.users.iter().find(|account| *account.name == *user.subject.name)?;
            let route = snapshot.routes.routes().iter().find(|route| {
                is_simple(route)
                    && route.schemes.contains(Scheme::Basic)
                    && route.scopes.is_empty()
                    && match &route.allow {
                        Allow::Anyone => false,
                        Allow::Authenticated => true,
                        Allow::Roles(roles) => roles.iter().any(|role| account.roles.contains(role)),
                    }
            })?;
            Some((route, Some(user)))
        });
        let as_anyone = || {
            let routes = snapshot.routes.routes();
            routes.iter().find(|route| is_simple(route) && route.allow == Allow::Anyone).map(|route| (route, None))
        };
        let (route, user) = as_user.or_else(as_anyone)?;
        let host = if listening.address.ip().is_unspecified() {
            format!("localhost:{}", listening.address.port())
        } else {
            listening.address.to_string()
        };
        let (scheme, insecure) = if listening.tls { ("https", " -k") } else { ("http", "") };
        Some(format!("curl{insecure}{} {scheme}://{host}{}", credential(user), example(route)))
    }
}

fn is_simple(route: &Route) -> bool {
    route.hosts.is_empty() && route.allows_method(&Method::GET)
}

fn credential(user: Option<&Generated>) -> String {
    user.map(|user| format!(" -u '{}:{}'", user.subject.name.replace('\'', r"'\''"), user.secret.expose()))
        .unwrap_or_default()
}

/// A path that the route's pattern matches.
fn example(route: &Route) -> String {
    let mut path = String::new();
    for segment in route.pattern.segments() {
        path.push('/');
        match segment {
            Segment::Literal(text) => path.push_str(text),
            Segment::Any(_) => path.push('1'),
        }
    }
    if path.is_empty() || route.pattern.is_prefix() {
        path.push('/');
    }
    path
}
