//! What an upstream would be sent, by the code that sends it.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderValue, request};

use super::super::Request;
use crate::authenticate::Identity;
use crate::config::snapshot::Snapshot;
use crate::forward::rewrite::{Departure, Framing, Outbound};
use crate::forward::{Origin, ServerAddress, UpstreamKind};
use crate::listen::Mode;
use crate::route::Route;
use crate::wire::fields::Hop;
use crate::wire::forwarded;
use crate::wire::target::Target;

/// The bytes of the trace that is shown.
const EXAMPLE_TRACE: [u8; 24] = [0xab; 24];
/// What stands in the place of a secret.
const MASK: &str = "********";

/// Where the request comes from.
pub(super) fn origin<'a>(
    snapshot: &Snapshot,
    request: &Request,
    peer: IpAddr,
    request_id: &'a HeaderValue,
) -> Origin<'a> {
    let trusted = snapshot.trusted_proxies.trusts(peer);
    // of those that send anything on
    let first = snapshot.listeners.iter().find(|listener| listener.mode != Mode::Redirect);
    let first_is_tls = first.is_some_and(|first| matches!(first.mode, Mode::Tls(_)));
    Origin {
        peer,
        trusted,
        https: forwarded::caller_is_https(request.https.unwrap_or(first_is_tls), trusted, &request.headers),
        host: request.host(),
        request_id,
        random: EXAMPLE_TRACE,
    }
}

/// The head of the request, byte for byte as an HTTP/1.1 server of the upstream is sent it where there is no body. A
/// credential that passes is masked, and so is a secret that the route sets.
pub(super) fn head(
    snapshot: &Snapshot,
    asked: &Request,
    route: &Route,
    identity: Option<&Arc<Identity>>,
    target: &Target,
    origin: &Origin<'_>,
) -> String {
    let (mut head, ()) = http::Request::new(()).into_parts();
    (head.method, head.uri, head.headers) = (asked.method.clone(), asked.uri.clone(), asked.headers.clone());
    mask(&mut head);
    let mut route = route.clone();
    let edits = Arc::make_mut(&mut route.request_fields);
    for (_, value) in edits.set.iter_mut().filter(|(_, value)| value.is_sensitive()) {
        *value = HeaderValue::from_static(MASK);
    }
    let identity = identity.map(|identity| &**identity);
    let outbound = Outbound { route: &route, identity, names: &snapshot.identity, target, origin };
    let hop = Hop::of(&head.headers);
    let mut bytes = Vec::new();
    Departure::new(&head, &hop, outbound).write_http1(&Framing::Empty, &authority(snapshot, &route), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Of the first server. The echo is nowhere but here.
fn authority(snapshot: &Snapshot, route: &Route) -> HeaderValue {
    let first = snapshot.upstreams.get(route.upstream.index()).and_then(|upstream| match &upstream.kind {
        UpstreamKind::Servers(group) => group.servers.first(),
        UpstreamKind::Echo => None,
    });
    first.map_or_else(|| HeaderValue::from_static("localhost"), ServerAddress::authority)
}

fn mask(head: &mut request::Parts) {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
        let Some(value) = head.headers.get_mut(&name) else { continue };
        let scheme = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(scheme, _)| scheme);
        let scheme = scheme.filter(|_| name != COOKIE).map(|scheme| format!("{scheme} {MASK}"));
        let masked = scheme.and_then(|text| HeaderValue::try_from(text).ok());
        *value = masked.unwrap_or_else(|| HeaderValue::from_static(MASK));
    }
}
