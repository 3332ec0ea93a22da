//! Route and caller to permit; the only maker of a [`Permit`].

use std::sync::Arc;

use crate::authenticate::{Caller, Identity};
use crate::rejection::Rejection;
use crate::route::{Allow, Route};

/// The proof that a caller may use a route. Only [`permit`] makes one, and forwarding takes one.
#[must_use]
#[derive(Debug)]
pub struct Permit<'r> {
    route: &'r Route,
    caller: Caller,
}

impl<'r> Permit<'r> {
    /// The route that was granted.
    pub const fn route(&self) -> &'r Route {
        self.route
    }

    /// Who it was granted to; `None` where the route lets anyone pass.
    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.caller {
            Caller::Anyone => None,
            Caller::Known(identity) => Some(identity),
        }
    }
}

/// Whether `caller` may use `route`: a pure function of the two.
///
/// # Errors
/// [`Rejection::MissingCredentials`] for nobody in particular where a principal is asked for, and
/// [`Rejection::InsufficientPermissions`] for a principal without an allowed role or a required scope.
pub fn permit(route: &Route, caller: Caller) -> Result<Permit<'_>, Rejection> {
    match (&route.allow, &caller) {
        (Allow::Anyone, _) => Ok(Permit { route, caller: Caller::Anyone }),
        (Allow::Authenticated | Allow::Roles(_), Caller::Anyone) => Err(Rejection::MissingCredentials),
        (Allow::Authenticated, Caller::Known(identity)) => scoped(route, identity).map(|()| Permit { route, caller }),
        (Allow::Roles(roles), Caller::Known(identity)) => {
            if !roles.iter().any(|role| identity.principal.has_role(role)) {
                return Err(Rejection::InsufficientPermissions(Some(identity.scheme)));
            }
            scoped(route, identity).map(|()| Permit { route, caller })
        }
    }
}

fn scoped(route: &Route, identity: &Identity) -> Result<(), Rejection> {
    if route.scopes.iter().all(|scope| identity.principal.has_scope(scope)) {
        Ok(())
    } else {
        Err(Rejection::InsufficientPermissions(Some(identity.scheme)))
    }
}
