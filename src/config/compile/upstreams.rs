//! Upstreams: their names, and what they are.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::decode::Placed;
use super::super::model::upstreams::{Kind, Servers, Upstream};
use super::super::report::{Place, Report};
use super::Files;
use super::tls::{self, SystemRoots};
use crate::forward::{Protocol, ServerGroup, UpstreamKind, UpstreamSettings, UpstreamTls};
use crate::route::UpstreamId;

/// Upstreams by name; one whose own section is wrong is known too, so that its routes are not reported with it.
pub(super) struct Names(HashMap<Box<str>, UpstreamId>);

impl Names {
    pub(super) fn of(upstreams: &[Upstream]) -> Self {
        let names = upstreams.iter().enumerate();
        Self(names.map(|(index, upstream)| (upstream.name.value.clone(), UpstreamId::new(index))).collect())
    }

    /// The upstream of a route; `hidden`: its name came from the environment and is not shown.
    pub(super) fn resolve(&self, name: &Placed<Box<str>>, hidden: bool, report: &mut Report) -> Option<UpstreamId> {
        let id = self.0.get(&name.value).copied();
        if id.is_none() && hidden {
            report.add(name.place, "the value of this variable is not the name of an upstream");
        } else if id.is_none() {
            report.unknown(name.place, "upstream", &name.value, self.0.keys().map(|name| &**name));
        }
        id
    }
}

pub(super) fn compile(
    upstreams: Vec<Upstream>,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<Vec<UpstreamSettings>> {
    let mut compiled = Vec::with_capacity(upstreams.len());
    let mut complete = true;
    for upstream in upstreams {
        let kind = match upstream.kind {
            None => None,
            Some(Kind::Echo) => Some(UpstreamKind::Echo),
            Some(Kind::Servers(servers)) => group(*servers, upstream.name.place, roots, files, report),
        };
        match kind {
            Some(kind) => compiled.push(UpstreamSettings { name: (*upstream.name.value).into(), kind }),
            None => complete = false,
        }
    }
    complete.then_some(compiled)
}

fn group(
    servers: Servers,
    place: Place,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<UpstreamKind> {
    let Servers { servers, balance, health, keep_alive, tls } = servers;
    let tls = if servers.iter().any(|server| server.protocol == Protocol::Https) {
        let server_name = tls.as_ref().and_then(|tls| tls.server_name.clone());
        let tls::Client { config, files, content } = tls::client(tls, place, roots, files, report)?;
        Some(UpstreamTls { config, server_name, files, content })
    } else {
        None
    };
    Some(UpstreamKind::Servers(Arc::new(ServerGroup { servers, balance, health, keep_alive, tls })))
}
