//! What the caller would get: all of a refusal, and what the gateway changes of a response that an upstream gives.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{LOCATION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::EXAMPLE_ID;
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::rejection::{Audience, Format, Rejection};
use crate::route::Route;
use crate::route::cors::{Grant, OURS};
use crate::wire::forwarded::X_REQUEST_ID;

/// What the answer depends on.
#[derive(Clone)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) request_id: &'a str,
    pub(super) route: Option<&'a Route>,
    pub(super) endpoint: Option<&'a Arc<Endpoint>>,
    pub(super) grant: Option<Grant>,
}

impl<'a> Asked<'a> {
    /// A request of which no more than the method is known.
    pub(super) const fn nothing(method: &'a Method) -> Self {
        Self { method, headers: None, request_id: EXAMPLE_ID, route: None, endpoint: None, grant: None }
    }
}

/// The response, as far as the gateway makes it.
#[derive(Debug)]
pub(super) struct Told {
    /// `None`: the upstream's.
    pub(super) status: Option<StatusCode>,
    /// Fields that it bears; of an upstream's response, those that are set.
    pub(super) headers: HeaderMap,
    /// Fields of the upstream that do not pass.
    pub(super) removed: Vec<HeaderName>,
    /// Whether `Vary: Origin` is added to what the upstream says.
    pub(super) varies: bool,
    /// `None`: the upstream's, or none.
    pub(super) body: Option<Bytes>,
}

impl Told {
    /// A refusal, whole.
    pub(super) fn refused(snapshot: &Snapshot, rejection: &Rejection, asked: &Asked<'_>) -> Self {
        let offered = asked.route.map(|route| route.schemes);
        let offered = offered.or_else(|| asked.endpoint.map(|endpoint| endpoint.challenged()));
        let response = rejection.respond(&Audience {
            realm: &snapshot.auth.realm,
            schemes: offered.unwrap_or(snapshot.schemes),
            texts: asked.endpoint.map_or(&*snapshot.texts, |endpoint| &endpoint.texts),
            method: asked.method.as_str(),
            request_id: asked.request_id,
            format: asked.headers.map_or(Format::Json, Format::of),
        });
        let (head, body) = response.into_parts();
        let body = (asked.method != Method::HEAD).then_some(body);
        Self { status: Some(head.status), headers: head.headers, removed: Vec::new(), varies: false, body }.with(asked)
    }

    /// A redirect, whole.
    pub(super) fn redirected(location: &HeaderValue, asked: &Asked<'_>) -> Self {
        let headers = std::iter::once((LOCATION, location.clone())).collect();
        let status = Some(StatusCode::PERMANENT_REDIRECT);
        Self { status, headers, removed: Vec::new(), varies: false, body: None }.with(asked)
    }

    /// The answer to a preflight, whole.
    pub(super) fn preflight(asked: &Asked<'_>) -> Self {
        let (headers, removed) = (HeaderMap::new(), Vec::new());
        Self { status: Some(StatusCode::NO_CONTENT), headers, removed, varies: false, body: None }.with(asked)
    }

    /// The response of an upstream.
    pub(super) fn passed(route: &Route, asked: &Asked<'_>) -> Self {
        let edits = &route.response_fields;
        let headers: HeaderMap = edits.set.iter().cloned().collect();
        let varies = headers.contains_key(VARY);
        let mut told = Self { status: None, headers, removed: Vec::new(), varies: false, body: None }.with(asked);
        // a field that the rules set replaces the upstream's; one that is only added to it does not
        told.varies = !varies && told.headers.remove(VARY).is_some();
        let ours = asked.grant.iter().flat_map(|_| OURS);
        let gone = edits.remove.iter().cloned().chain(ours);
        told.removed = gone.filter(|name| !told.headers.contains_key(name)).collect();
        told
    }

    fn with(mut self, asked: &Asked<'_>) -> Self {
        let id = HeaderValue::from_str(asked.request_id).unwrap_or_else(|_| HeaderValue::from_static(EXAMPLE_ID));
        self.headers.insert(&X_REQUEST_ID, id);
        if let Some(grant) = &asked.grant {
            grant.write(&mut self.headers);
        }
        self
    }

    /// The fields with their values, but for secrets.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, String)> {
        self.headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            (name.as_str(), if value.is_sensitive() { "********".to_owned() } else { text.into_owned() })
        })
    }
}
