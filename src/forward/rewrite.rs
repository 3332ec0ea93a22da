//! The request as the upstream sees it, and the response as the caller does. Pure functions on heads.
//!
//! A request's fields are not changed in the caller's map: they are said anew, one after the other, straight into the bytes
//! for an HTTP/1.1 server or into a map for whoever needs one (`Fields`). So a request that is sent again is said again.
//! What the gateway says of a request (who, from where, which id) is said by it alone: neither a caller nor a route's edits
//! can say it in its place.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response};
use http_body::Body as _;

use super::{Origin, Protocol};
use crate::authenticate::Identity;
use crate::route::{FieldEdits, Route};
use crate::wire::body::Body;
use crate::wire::fields::{self, Hop, IdentityNames};
use crate::wire::forwarded::{self, TRACEPARENT, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::wire::http1;
use crate::wire::http1::lines::Fields;
use crate::wire::target::{Target, TargetError};

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
    pub origin: &'a Origin<'a>,
}

/// How a server finds the end of a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By chunks; with the values of `Trailer`, which announce what is said behind the last one.
    Chunked(Vec<HeaderValue>),
}

impl Framing {
    /// By the body and nothing else; `headers` are the caller's, and `names` what it may not say.
    pub fn of(body: &impl http_body::Body, headers: &HeaderMap, names: &IdentityNames) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else if let Some(length) = body.size_hint().exact() {
            Self::Length(length)
        } else {
            Self::Chunked(fields::announced_trailers(headers, |name| fields::is_untrusted(name, names, false)))
        }
    }
}

/// What the head is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Http1,
    Http2,
}

/// A request's head as it will leave.
#[derive(Debug)]
pub struct Departure<'a> {
    head: &'a request::Parts,
    hop: &'a Hop,
    outbound: Outbound<'a>,
}

impl<'a> Departure<'a> {
    /// `head` is the caller's as it came; `hop` what its fields say.
    pub const fn new(head: &'a request::Parts, hop: &'a Hop, outbound: Outbound<'a>) -> Self {
        Self { head, hop, outbound }
    }

    /// The method.
    pub const fn method(&self) -> &'a Method {
        &self.head.method
    }

    /// What decided.
    pub const fn outbound(&self) -> &Outbound<'a> {
        &self.outbound
    }

    /// How the body is framed.
    pub fn framing(&self, body: &impl http_body::Body) -> Framing {
        Framing::of(body, &self.head.headers, self.outbound.names)
    }

    /// Writes the head for an HTTP/1.1 server, which is at `authority`.
    pub fn write_http1(&self, framing: &Framing, authority: &HeaderValue, to: &mut Vec<u8>) {
        to.extend_from_slice(self.head.method.as_str().as_bytes());
        to.push(b' ');
        self.outbound.target.write(self.outbound.route.strip_prefix.as_deref(), to);
        to.extend_from_slice(b" HTTP/1.1\r\n");
        self.say(Form::Http1, framing, authority, &mut http1::lines::Head(to));
        to.extend_from_slice(b"\r\n");
    }

    /// The head for an HTTP/1.1 server, as a map.
    ///
    /// # Errors
    /// It cannot hold the query.
    pub fn http1(&self, framing: &Framing, authority: &HeaderValue) -> Result<request::Parts, TargetError> {
        let mut head = self.bare(Version::HTTP_11)?;
        self.say(Form::Http1, framing, authority, &mut head.headers);
        Ok(head)
    }

    /// The head for an HTTP/2 server.
    ///
    /// # Errors
    /// It cannot hold the query.
    pub fn http2(
        &self,
        framing: &Framing,
        (protocol, authority): (Protocol, &HeaderValue),
    ) -> Result<request::Parts, TargetError> {
        let mut head = self.bare(Version::HTTP_2)?;
        if let Ok(authority) = Authority::try_from(self.host(authority).as_bytes()) {
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.scheme = Some(if protocol == Protocol::Https { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(authority);
            parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
            head.uri = Uri::from_parts(parts).unwrap_or_default();
        }
        self.say(Form::Http2, framing, authority, &mut head.headers);
        Ok(head)
    }

    fn bare(&self, version: Version) -> Result<request::Parts, TargetError> {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = self.head.method.clone();
        head.uri = Uri::from(self.outbound.target.path_and_query(self.outbound.route.strip_prefix.as_deref())?);
        head.version = version;
        head.headers.reserve(self.head.headers.len() + FIELDS_MADE);
        Ok(head)
    }

    /// The caller's own Host, as Envoy and Traefik keep it: applications make links of it, and the route was chosen by it. A
    /// caller of HTTP/1.0 may have none; a server of HTTP/1.1 must be told one that is its own (RFC 9112 3.2), as nginx does,
    /// since an empty one is for what has no authority, and many refuse it or build broken links of it.
    fn host<'h>(&'h self, authority: &'h HeaderValue) -> &'h HeaderValue {
        let host = &self.outbound.origin.host;
        if host.is_empty() { authority } else { host }
    }

    fn say(&self, form: Form, framing: &Framing, authority: &HeaderValue, to: &mut impl Fields) {
        let Outbound { route, identity, names, origin, .. } = self.outbound;
        if form == Form::Http1 {
            to.pass(&HOST, self.host(authority));
        }
        // few callers have one, and to look at the names is cheaper than to search for it
        let headers = &self.head.headers;
        let traced = headers.keys().any(|name| *name == TRACEPARENT)
            && forwarded::continues_trace(headers)
            && !self.hop.names(&TRACEPARENT);
        self.say_the_callers(form, traced, to);
        self.say_whence(traced, to);
        // the answer to TRACE is what was sent (RFC 9110 9.3.8): a key that is the upstream's and ours is not for the caller
        let is_told_back = self.head.method == Method::TRACE;
        let set = route.request_fields.set.iter().filter(|(name, value)| {
            *name != X_REQUEST_ID && !names.contains(name) && !(is_told_back && value.is_sensitive())
        });
        for (name, value) in set {
            to.pass(name, value);
        }
        to.pass(&X_REQUEST_ID, origin.request_id);
        if let Some(identity) = identity {
            tell_identity(identity, names, to);
        }
        self.say_framing(form, framing, to);
    }

    /// What of the caller's own fields passes.
    fn say_the_callers(&self, form: Form, traced: bool, to: &mut impl Fields) {
        let mut before: Option<&HeaderName> = None;
        for (name, value) in &self.head.headers {
            // the values of one name follow each other
            if form == Form::Http1 && *name == COOKIE {
                if before != Some(name) && self.passes(name, traced) {
                    say_cookies(&self.head.headers, to);
                }
            } else if self.passes(name, traced) {
                to.pass(name, value);
            }
            before = Some(name);
        }
    }

    fn passes(&self, name: &HeaderName, traced: bool) -> bool {
        let Outbound { route, names, origin, .. } = self.outbound;
        let passes = match name.as_str() {
            // Said anew: framing by the body. `Expect` is ours to answer: the server side says 100 once the body is read, so
            // that a refusal comes before it.
            "host" | "content-length" | "expect" | "x-forwarded-for" | "x-forwarded-proto" | "x-request-id" => false,
            "authorization" => route.forward_credentials,
            "traceparent" | "tracestate" => traced,
            _ => true,
        };
        passes
            && !self.hop.ends(name)
            && !fields::is_untrusted(name, names, origin.trusted)
            && !is_edited(&route.request_fields, name)
    }

    /// Where the request comes from.
    fn say_whence(&self, traced: bool, to: &mut impl Fields) {
        let Outbound { route, origin, .. } = self.outbound;
        let edits = &route.request_fields;
        if !is_edited(edits, &X_FORWARDED_FOR) {
            let way = |text: &mut Vec<u8>| {
                forwarded::push_forwarded_for(text, &self.head.headers, origin.peer, origin.trusted);
            };
            to.make(&X_FORWARDED_FOR, way);
        }
        if !is_edited(edits, &X_FORWARDED_PROTO) {
            to.pass(&X_FORWARDED_PROTO, &HeaderValue::from_static(if origin.https { "https" } else { "http" }));
        }
        // with its port, unless a trusted proxy has said it
        let said = origin.trusted && self.head.headers.contains_key(&X_FORWARDED_HOST);
        if !said && !origin.host.is_empty() && !is_edited(edits, &X_FORWARDED_HOST) {
            to.pass(&X_FORWARDED_HOST, &origin.host);
        }
        if !traced && !is_edited(edits, &TRACEPARENT) {
            to.make(&TRACEPARENT, |text| forwarded::push_traceparent(text, origin.random));
        }
    }

    fn say_framing(&self, form: Form, framing: &Framing, to: &mut impl Fields) {
        match framing {
            // methods that have a meaning for content say that there is none (RFC 9110 8.6); some servers answer 411 else
            Framing::Empty
                if form == Form::Http1 && matches!(self.head.method, Method::POST | Method::PUT | Method::PATCH) =>
            {
                to.pass(&CONTENT_LENGTH, &HeaderValue::from_static("0"));
            }
            Framing::Empty => {}
            // over HTTP/2 it lets the server refuse early
            Framing::Length(length) => to.pass(&CONTENT_LENGTH, &HeaderValue::from(*length)),
            Framing::Chunked(announced) => {
                // The announcement is of the content and passes; over HTTP/1.1 no trailer is sent that was not announced.
                for names in announced {
                    to.pass(&TRAILER, names);
                }
                if form == Form::Http1 {
                    to.pass(&TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
                }
            }
        }
        if self.hop.takes_trailers {
            to.pass(&TE, &HeaderValue::from_static("trailers"));
            if form == Form::Http1 {
                to.pass(&CONNECTION, &HeaderValue::from_static("te"));
            }
        }
    }
}

/// Fields that the gateway makes, at most, but for a route's own.
const FIELDS_MADE: usize = 12;

fn tell_identity(identity: &Identity, names: &IdentityNames, to: &mut impl Fields) {
    if let Some(name) = &names.user {
        to.pass(name, &identity.user_field);
    }
    if let Some(name) = &names.roles {
        to.pass(name, &identity.roles_field);
    }
    if let Some(name) = &names.scheme {
        to.pass(name, &HeaderValue::from_static(identity.scheme.name()));
    }
}

/// HTTP/2 may split `Cookie` into fields; HTTP/1.1 has one (RFC 9113 8.2.3).
fn say_cookies(headers: &HeaderMap, to: &mut impl Fields) {
    to.make(&COOKIE, |text| {
        for (index, cookie) in headers.get_all(COOKIE).iter().enumerate() {
            if index > 0 {
                text.extend_from_slice(b"; ");
            }
            text.extend_from_slice(cookie.as_bytes());
        }
    });
}

/// Whether a route removes or sets this field.
fn is_edited(edits: &FieldEdits, name: &HeaderName) -> bool {
    edits.remove.contains(name) || edits.set.iter().any(|(set, _)| set == name)
}

fn edit(headers: &mut HeaderMap, edits: &FieldEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
}

/// Rewrites a response's head for the caller.
pub fn response(head: &mut response::Parts, body: &Body, to: &Method, route: &Route) {
    head.version = Version::HTTP_11;
    let headers = &mut head.headers;
    if headers.keys().any(fields::is_hop_by_hop) {
        // a body whose length is known has none in the end
        let endless = body.size_hint().exact().is_none();
        let announced = if endless { fields::announced_trailers(headers, |_| false) } else { Vec::new() };
        fields::strip_hop_by_hop(headers);
        for names in announced {
            headers.append(TRAILER, names);
        }
    }
    keep_length(headers, head.status, body, to);
    edit(headers, &route.response_fields);
}

/// Keeps `Content-Length` only where it is the length of what will be sent, or of what a HEAD asks about. An upstream that
/// sends it beside `Transfer-Encoding` would otherwise have its caller read the next response from the middle of this one.
fn keep_length(headers: &mut HeaderMap, status: StatusCode, body: &Body, to: &Method) {
    let said = {
        let mut values = headers.get_all(CONTENT_LENGTH).iter();
        let Some(first) = values.next() else { return };
        let first = first.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        first.filter(|_| values.next().is_none())
    };
    let about_another = *to == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let true_here = said.is_some() && said == body.size_hint().exact() && status != StatusCode::NO_CONTENT;
    if !(true_here || about_another && said.is_some()) {
        headers.remove(CONTENT_LENGTH);
    }
}
