//! An explanation for people.

use std::fmt;

use http::HeaderName;

use super::told::Told;
use super::{Explanation, Outcome};
use crate::config::model::endpoints::action_name;
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::forward::{Protocol, UpstreamKind};
use crate::principal::{Role, Scheme, SchemeSet, Scope};
use crate::route::{Allow, Route};

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.is_empty() { String::new() } else { format!(" (host {})", self.host) };
        writeln!(f, "request   {}{host}", self.asked)?;
        if let Some(doubt) = &self.doubt {
            writeln!(f, "method    {doubt}")?;
        }
        if let Some(path) = &self.path {
            writeln!(f, "path      {path}")?;
        }
        match self.route {
            Some(route) => writeln!(f, "route     {}", title(route))?,
            None if self.path.is_some() && self.endpoint.is_none() => writeln!(f, "route     none")?,
            None => {}
        }
        if let Some(endpoint) = self.endpoint.filter(|_| !matches!(self.outcome, Outcome::Answered(_))) {
            writeln!(f, "endpoint  {}, action {}", endpoint.path, action_name(endpoint.action))?;
            writeln!(f, "may       {}", who_may_ask(endpoint))?;
            self.write_caller(f)?;
        }
        for (other, reason) in &self.others {
            writeln!(f, "not       {}: {reason}", title(other))?;
        }
        for other in &self.elsewhere {
            writeln!(f, "not       {}: it is for the hosts {} only", title(other), other.hosts.join(", "))?;
        }
        if let Some(route) = self.route {
            writeln!(f, "may       {}", who_may(route))?;
            self.write_caller(f)?;
        }
        self.write_outcome(f)
    }
}

impl Explanation<'_> {
    fn write_caller(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(identity) = &self.caller else { return Ok(()) };
        let principal = &identity.principal;
        let roles = named("role", principal.roles.iter().map(Role::as_str));
        write!(f, "caller    by {}, with {roles}", identity.scheme.name())?;
        if !principal.scopes.is_empty() {
            write!(f, " and {}", named("scope", principal.scopes.iter().map(Scope::as_str)))?;
        }
        writeln!(f)?;
        let (roles, scopes) = self.lacks();
        if !roles.is_empty() {
            writeln!(f, "lacks     any of {}", named("role", roles.into_iter()))?;
        }
        if scopes.is_empty() { Ok(()) } else { writeln!(f, "lacks     {}", named("scope", scopes.into_iter())) }
    }

    fn write_outcome(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Depends => Ok(()),
            Outcome::Answered(endpoint) => {
                let action = action_name(endpoint.action);
                writeln!(f, "answer    by the gateway itself: the endpoint {}, action {action}", endpoint.path)
            }
            Outcome::Preflight => {
                writeln!(f, "answer    by the gateway itself: a preflight, which needs no credential")?;
                self.write_response(f)
            }
            Outcome::Refused(rejection) => {
                writeln!(f, "answer    {} {}", rejection.status().as_u16(), rejection.code())?;
                self.write_response(f)
            }
            Outcome::Redirected(location) => {
                writeln!(f, "answer    308 to {}", String::from_utf8_lossy(location.as_bytes()))?;
                self.write_response(f)
            }
            Outcome::Forwarded(upstream, head) => {
                let (servers, note) = servers(self.snapshot, self.route);
                writeln!(f, "answer    passes to upstream {upstream}{servers}")?;
                for (number, line) in head.trim_end().split("\r\n").enumerate() {
                    writeln!(f, "{}{line}", if number == 0 { "sent      " } else { "          " })?;
                }
                writeln!(f, "          (the ids are examples: each request has its own{note})")?;
                self.write_edits(f)
            }
        }
    }

    /// A response that the gateway makes.
    fn write_response(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(told) = &self.told else { return Ok(()) };
        if let Some(status) = told.status {
            writeln!(f, "          HTTP/1.1 {status}")?;
        }
        told.fields().try_for_each(|(name, value)| writeln!(f, "          {name}: {value}"))?;
        match &told.body {
            Some(body) if !body.is_empty() => writeln!(f, "          {}", String::from_utf8_lossy(body)),
            Some(_) | None => Ok(()),
        }
    }

    /// What becomes of the upstream's response.
    fn write_edits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(told @ Told { removed, varies, .. }) = &self.told else { return Ok(()) };
        writeln!(f, "gets      the upstream's response, in which is set")?;
        told.fields().try_for_each(|(name, value)| writeln!(f, "          {name}: {value}"))?;
        if *varies {
            writeln!(f, "          vary: Origin (beside the upstream's)")?;
        }
        if removed.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = removed.iter().map(HeaderName::as_str).collect();
        writeln!(f, "          and from which is taken {}", names.join(", "))
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

/// Whom an endpoint answers, in words.
fn who_may_ask(endpoint: &Endpoint) -> String {
    match endpoint.action.for_whom() {
        Allow::Anyone => "anyone".to_owned(),
        Allow::Authenticated => {
            format!("whoever proves to be somebody, in Authorization by {}", schemes(endpoint.schemes()))
        }
        Allow::Roles(roles) => format!("clients with {}", named("role", roles.iter().map(Role::as_str))),
    }
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

/// The name of a route's upstream.
pub fn upstream<'s>(snapshot: &'s Snapshot, route: &Route) -> &'s str {
    snapshot.upstreams.get(route.upstream.index()).map_or("", |upstream| &*upstream.name)
}

/// The servers of a route's upstream, and what is to say of the head that they are sent.
fn servers(snapshot: &Snapshot, route: Option<&Route>) -> (String, &'static str) {
    let upstream = route.and_then(|route| snapshot.upstreams.get(route.upstream.index()));
    match upstream.map(|upstream| &upstream.kind) {
        Some(UpstreamKind::Servers(group)) => {
            let labels: Vec<&str> = group.servers.iter().map(|server| &*server.label).collect();
            let over_http2 = group.servers.iter().any(|server| server.protocol != Protocol::Http1);
            let note = if over_http2 { "; over HTTP/2 they are fields of the same values" } else { "" };
            (format!(" ({})", labels.join(", ")), note)
        }
        Some(UpstreamKind::Echo) => (" (echo: the gateway answers with what it received)".to_owned(), ""),
        None => (String::new(), ""),
    }
}
