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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Principal, Role, Scheme, Scope, Subject};
    use crate::route::test_route;
    use http::HeaderValue;

    fn caller(scheme: Scheme, roles: &[&str], scopes: &[&str]) -> Caller {
        Caller::Known(Arc::new(Identity {
            principal: Principal {
                subject: Subject::user("alice"),
                user_id: None,
                roles: roles.iter().map(|role| Role::from(*role)).collect(),
                scopes: scopes.iter().map(|scope| Scope::from(*scope)).collect(),
            },
            scheme,
            user_field: HeaderValue::from_static("alice"),
            roles_field: HeaderValue::from_static(""),
            expires_at: None,
            tie: None,
        }))
    }

    fn some_roles(roles: &[&str]) -> Allow {
        Allow::Roles(roles.iter().map(|role| Role::from(*role)).collect())
    }

    #[test]
    fn a_route_lets_through_whom_it_allows() {
        let basic = |roles, scopes| caller(Scheme::Basic, roles, scopes);
        for (name, allow, scopes, caller, expected) in [
            ("anyone, for nobody in particular", Allow::Anyone, &[][..], Caller::Anyone, "passes"),
            ("anyone, for somebody", Allow::Anyone, &[], basic(&["admin"], &[]), "passes"),
            ("authenticated, for nobody", Allow::Authenticated, &[], Caller::Anyone, "missing_credentials"),
            ("authenticated, without roles", Allow::Authenticated, &[], basic(&[], &[]), "passes"),
            ("a role, for nobody", some_roles(&["user"]), &[], Caller::Anyone, "missing_credentials"),
            ("a role that they have", some_roles(&["user"]), &[], basic(&["user"], &[]), "passes"),
            ("any one of the roles", some_roles(&["user", "admin"]), &[], basic(&["x", "admin"], &[]), "passes"),
            ("there is no ladder", some_roles(&["user"]), &[], basic(&["admin"], &[]), "insufficient_permissions"),
            (
                "roles are matched exactly",
                some_roles(&["user"]),
                &[],
                basic(&["User"], &[]),
                "insufficient_permissions",
            ),
            ("no roles at all", some_roles(&["user"]), &[], basic(&[], &[]), "insufficient_permissions"),
            ("an empty list lets nobody pass", some_roles(&[]), &[], basic(&["user"], &[]), "insufficient_permissions"),
            ("a role and the scope", some_roles(&["user"]), &["w"], basic(&["user"], &["w"]), "passes"),
            ("the role alone", some_roles(&["user"]), &["w"], basic(&["user"], &[]), "insufficient_permissions"),
            ("the scope alone", some_roles(&["user"]), &["w"], basic(&[], &["w"]), "insufficient_permissions"),
            ("one scope of two", Allow::Authenticated, &["r", "w"], basic(&[], &["r"]), "insufficient_permissions"),
            ("both scopes", Allow::Authenticated, &["r", "w"], basic(&[], &["w", "x", "r"]), "passes"),
            ("a scope is no role", some_roles(&["w"]), &[], basic(&[], &["w"]), "insufficient_permissions"),
        ] {
            let mut route = test_route("/a");
            route.allow = allow;
            route.scopes = scopes.iter().map(|scope| Scope::from(*scope)).collect();
            let verdict = permit(&route, caller);
            let shown = verdict.as_ref().map_or_else(Rejection::code, |_| "passes");
            assert_eq!(shown, expected, "{name}");
        }
    }

    #[test]
    fn a_route_for_anyone_passes_no_identity_on() {
        let route = test_route("/a");
        let permit = permit(&route, caller(Scheme::Basic, &["admin"], &[])).unwrap();
        assert!(permit.identity().is_none());
    }

    #[test]
    fn a_refusal_knows_the_scheme_to_challenge() {
        let mut route = test_route("/a");
        route.allow = some_roles(&["admin"]);
        for scheme in Scheme::ALL {
            let refused = permit(&route, caller(scheme, &[], &[]));
            assert!(matches!(refused, Err(Rejection::InsufficientPermissions(Some(named))) if named == scheme));
        }
    }
}
