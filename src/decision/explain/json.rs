//! An explanation for tools.

use serde_json::{Value, json};

use super::told::Told;
use super::{Explanation, Outcome};
use crate::config::model::endpoints::action_name;
use crate::principal::{Role, Scheme, Scope};
use crate::rejection::Rejection;
use crate::route::{Allow, Route};

impl Explanation<'_> {
    /// The members of contract 7, and beside them what people are told: the others that would fit, what the caller has and
    /// lacks, and what the caller would get.
    pub fn json(&self) -> Value {
        let (mut status, mut error, mut methods) = (None, None, Value::Null);
        let (mut upstream, mut head) = (None, None);
        match &self.outcome {
            Outcome::Forwarded(name, sent) => (upstream, head) = (Some(*name), Some(sent)),
            Outcome::Preflight => status = Some(204),
            Outcome::Refused(rejection) => {
                (status, error) = (Some(rejection.status().as_u16()), Some(rejection.code()));
                if let Rejection::MethodNotAllowed(allow) = rejection {
                    let list = allow.to_str().unwrap_or_default().split(", ");
                    methods = list.filter(|method| !method.is_empty()).collect();
                }
            }
            Outcome::Redirected(_) => status = Some(308),
            Outcome::Answered(_) | Outcome::Depends => {}
        }
        let (lacks_roles, lacks_scopes) = self.lacks();
        json!({
            "outcome": self.outcome.name(),
            "status": status,
            "error": error,
            "path": self.path,
            "route": self.route.map(place),
            "others": self.others.iter().map(|(route, reason)| {
                json!({ "path": &*route.name, "line": route.line, "reason": reason })
            }).collect::<Value>(),
            "endpoint": self.endpoint.map(|endpoint| {
                json!({ "path": &*endpoint.path, "action": action_name(endpoint.action) })
            }),
            "allow": self.route.map(|route| allow_json(&route.allow)),
            "scopes": self.route.map(|route| route.scopes.iter().map(Scope::as_str).collect::<Vec<_>>()),
            "schemes": self.route.map(|route| route.schemes.iter().map(Scheme::name).collect::<Vec<_>>()),
            "caller": self.caller.as_ref().map(|identity| json!({
                "scheme": identity.scheme.name(),
                "roles": identity.principal.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
                "scopes": identity.principal.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
            })),
            "lacks": { "roles": lacks_roles, "scopes": lacks_scopes },
            "methods": methods,
            "upstream": upstream,
            "forwarded_head": head,
            "response": self.told.as_ref().map(response),
        })
    }
}

fn place(route: &Route) -> Value {
    json!({ "path": &*route.name, "line": route.line })
}

/// Fields as pairs, since a name may stand there twice.
fn response(told: &Told) -> Value {
    let Told { status, removed, varies, body, .. } = told;
    json!({
        "status": status.map(|status| status.as_u16()),
        "headers": told.fields().map(|(name, value)| json!([name, value])).collect::<Value>(),
        "appended": if *varies { json!([["vary", "Origin"]]) } else { json!([]) },
        "removed": removed.iter().map(http::HeaderName::as_str).collect::<Vec<_>>(),
        "body": body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()),
    })
}

/// `allow` as the file has it.
pub fn allow_json(allow: &Allow) -> Value {
    match allow {
        Allow::Anyone => "anyone".into(),
        Allow::Authenticated => "authenticated".into(),
        Allow::Roles(roles) => roles.iter().map(Role::as_str).collect(),
    }
}
