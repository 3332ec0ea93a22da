//! What a listener says to a request before any rule is asked, by the code that says it: bounds on the head, and redirects.

use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

use super::super::Request;
use crate::config::snapshot::Snapshot;
use crate::listen::{head, redirect};
use crate::rejection::{Format, Rejection};

/// The port of a URL in clear that names none.
const HTTP_PORT: u16 = 80;

/// What the rules are not asked about.
pub(super) enum Early {
    /// Refused, with what is seen of the fields.
    Refused(Rejection, HeaderMap),
    /// Sent to this URL.
    Redirected(HeaderValue),
}

/// What a listener answers by itself; `None` where it hands the request on.
pub(super) fn heard(snapshot: &Snapshot, request: &Request) -> Option<Early> {
    let (bytes, bounds) = (request.bytes(), snapshot.terms.bounds.of_a_head());
    let refused = |rejection, mut headers: HeaderMap| {
        // over HTTP/1.1 what is refused so early is refused in no words of gRPC
        if matches!(Format::of(&headers), Format::Grpc(_)) {
            headers.clear();
        }
        Early::Refused(rejection, headers)
    };
    if let Err(fault) = head::read(&bytes, bounds) {
        return Some(refused(fault.into(), head::glimpse(&bytes, bounds).headers));
    }
    // of a URL that does not say so it is not known that it comes in clear
    let is_in_clear = request.https == Some(false);
    let https_port = is_in_clear.then(|| redirect::https_port_from(&snapshot.listeners, port(request))).flatten()?;
    Some(match redirect::location(&request.uri, request.raw_query.as_ref(), &request.headers, https_port) {
        Ok(location) => Early::Redirected(location),
        Err(rejection) => refused(rejection, request.headers.clone()),
    })
}

fn port(request: &Request) -> u16 {
    let host = request.host();
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.and_then(|authority| authority.port_u16()).unwrap_or(HTTP_PORT)
}
