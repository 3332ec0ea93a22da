//! The request as the upstream sees it, and the response as the caller does. Pure functions on heads.
//!
//! Field maps are changed in place and moved on, never cloned. What the gateway says of a request (who, from where, which
//! id) is written last, so that neither a caller nor a route's edits can say it in its place.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response};
use http_body::Body as _;

use super::{Origin, Protocol};
use crate::authenticate::Identity;
use crate::route::{FieldEdits, Route};
use crate::wire::body::Body;
use crate::wire::fields::{self, Hop, IdentityNames};
use crate::wire::forwarded;
use crate::wire::target::Target;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What decides how a request is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The route that was granted.
    pub route: &'a Route,
    /// To whom; `None` where anyone may pass.
    pub identity: Option<&'a Identity>,
    /// How the upstream is told who.
    pub names: &'a IdentityNames,
    /// The target that was matched.
    pub target: &'a Target,
    /// Where the request comes from.
    pub origin: &'a Origin,
}

/// Rewrites a request's head, all but what depends on the server's protocol. Gives what the caller said of its own hop.
pub fn request(head: &mut request::Parts, outbound: &Outbound<'_>) -> Hop {
    let Outbound { route, identity, names, target, origin } = *outbound;
    let headers = &mut head.headers;
    let trailer = headers.remove(TRAILER);
    let hop = fields::strip_hop_by_hop(headers);
    if let Some(trailer) = trailer {
        // the announcement is of the content and passes; over HTTP/1.1 no trailer is sent that was not announced
        headers.insert(TRAILER, trailer);
    }
    fields::strip_untrusted(headers, names, origin.trusted);
    // Framing is made anew from the body. `Expect` is ours to answer: the server side says 100 once the body is read, so
    // that a refusal comes before it.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    if !route.forward_credentials {
        headers.remove(AUTHORIZATION);
    }
    // The caller's own Host is kept, as Envoy and Traefik do: applications make links of it, and the route was chosen by it.
    headers.insert(HOST, origin.host.clone());
    forwarded::append_forwarded_for(headers, origin.peer);
    forwarded::set_forwarded_proto(headers, origin.https);
    forwarded::set_forwarded_host(headers, origin.host.clone());
    forwarded::traceparent(headers, origin.random);
    edit(headers, &route.request_fields);
    headers.insert(X_REQUEST_ID, origin.request_id.clone());
    tell_identity(headers, identity, names);
    head.uri = Uri::from(target.path_and_query(route.strip_prefix.as_deref()));
    hop
}

fn tell_identity(headers: &mut HeaderMap, identity: Option<&Identity>, names: &IdentityNames) {
    let Some(identity) = identity else {
        // an edit of the route must not look like an identity that was proved
        for name in [&names.user, &names.roles, &names.scheme].into_iter().flatten() {
            headers.remove(name);
        }
        return;
    };
    if let Some(name) = &names.user {
        headers.insert(name, identity.user_field.clone());
    }
    if let Some(name) = &names.roles {
        headers.insert(name, identity.roles_field.clone());
    }
    if let Some(name) = &names.scheme {
        headers.insert(name, HeaderValue::from_static(identity.scheme.name()));
    }
}

fn edit(headers: &mut HeaderMap, edits: &FieldEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
}

/// Fits a rewritten head to HTTP/1.1. May be called again on what it made, or on what [`fit_http2`] made.
pub fn fit_http1(head: &mut request::Parts, body: &impl http_body::Body, takes_trailers: bool) {
    head.version = Version::HTTP_11;
    if !head.headers.contains_key(HOST)
        && let Some(host) = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        head.headers.insert(HOST, host);
    }
    if head.uri.scheme().is_some() {
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    join_cookies(&mut head.headers);
    frame(head, body);
    if takes_trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Fits a rewritten head to HTTP/2.
pub fn fit_http2(head: &mut request::Parts, body: &impl http_body::Body, takes_trailers: bool, protocol: Protocol) {
    head.version = Version::HTTP_2;
    for name in [&CONNECTION, &UPGRADE, &TRANSFER_ENCODING, &CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    // A declared length lets the server refuse early; an empty body says so by ending the stream.
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(host) = head.headers.remove(HOST)
        && let Ok(authority) = Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes()))
    {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.scheme = Some(if protocol == Protocol::Https { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).unwrap_or_default();
    }
    if takes_trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// HTTP/2 may split `Cookie` into fields; HTTP/1.1 has one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    match HeaderValue::from_bytes(&joined) {
        Ok(cookie) => drop(headers.insert(COOKIE, cookie)),
        // made of values, so it is one; if it were not, no cookie is better than half of them
        Err(_) => drop(headers.remove(COOKIE)),
    }
}

/// Framing by the body and nothing else.
fn frame(head: &mut request::Parts, body: &impl http_body::Body) {
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    if body.is_end_stream() {
        head.headers.remove(TRAILER);
        // methods that have a meaning for content say that there is none (RFC 9110 8.6); some servers answer 411 else
        if [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if let Some(length) = body.size_hint().exact() {
        head.headers.remove(TRAILER);
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    } else {
        // said here, since a connection frames the body by what its head says
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Rewrites a response's head for the caller.
pub fn response(head: &mut response::Parts, body: &Body, to: &Method, route: &Route, request_id: &HeaderValue) {
    head.version = Version::HTTP_11;
    let headers = &mut head.headers;
    let trailer = headers.remove(TRAILER);
    fields::strip_hop_by_hop(headers);
    if let Some(trailer) = trailer {
        headers.insert(TRAILER, trailer);
    }
    keep_length(headers, head.status, body, to);
    edit(headers, &route.response_fields);
    headers.insert(X_REQUEST_ID, request_id.clone());
}

/// Keeps `Content-Length` only where it is the length of what will be sent, or of what a HEAD asks about. An upstream that
/// sends it beside `Transfer-Encoding` would otherwise have its caller read the next response from the middle of this one.
fn keep_length(headers: &mut HeaderMap, status: StatusCode, body: &Body, to: &Method) {
    if !headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    let said = {
        let mut values = headers.get_all(CONTENT_LENGTH).iter();
        let first = values.next().and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
        first.filter(|_| values.next().is_none())
    };
    let about_another = *to == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let true_here = said.is_some() && said == body.size_hint().exact() && status != StatusCode::NO_CONTENT;
    if !(true_here || about_another && said.is_some()) {
        headers.remove(CONTENT_LENGTH);
    }
}
