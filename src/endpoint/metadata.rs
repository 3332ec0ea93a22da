//! `jwks` and `metadata`: what others need to know to verify our tokens (RFC 7517) and to find our endpoints (RFC 8414).

use http::header::HOST;
use http::{Response, Uri};
use serde_json::{Map, Value, json};

use super::{Action, Call, Endpoint, Incoming};
use crate::wire::body::Body;

/// A minute: endpoints change with the configuration alone.
const METADATA_KEPT: &str = "public, max-age=60";

/// How long a copy of the keys may be kept, in seconds: one from before a new key must be gone when that key signs.
pub const KEYS_KEPT_SECONDS: i64 = 5;
const KEYS_KEPT: &str = "public, max-age=5";

impl Call<'_> {
    /// The public keys (RFC 7517 5).
    pub(super) fn jwks(&self, incoming: &Incoming<'_>) -> Response<Body> {
        let keys = self.service.keys.ring(&self.asked.auth.jwt).jwks();
        self.public(incoming, ("application/jwk-set+json", KEYS_KEPT), &keys)
    }

    /// Where our endpoints are (RFC 8414 2): at the issuer where that is a URL, else where the caller found us. The latter is
    /// the caller's word: kept by a cache, it would send others with their secrets to whatever host somebody named.
    pub(super) fn metadata(&self, incoming: &Incoming<'_>) -> Response<Body> {
        let issuer = &self.asked.auth.jwt.issuer;
        let (origin, cached) = match origin(issuer) {
            Some(origin) => (origin, METADATA_KEPT),
            None => (self.asked_at(incoming), "no-store"),
        };
        let document = document(issuer, &origin, &self.asked.endpoints.values().map(|endpoint| &**endpoint));
        self.public(incoming, ("application/json", cached), &document)
    }

    fn asked_at(&self, incoming: &Incoming<'_>) -> String {
        let scheme = if self.asked.https { "https" } else { "http" };
        let field = incoming.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = incoming.host.as_deref().or(field).unwrap_or("localhost");
        format!("{scheme}://{host}")
    }
}

/// The origin of a URL (RFC 6454 4); `None` where the text is none.
fn origin(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let (scheme, authority) = (url.scheme_str()?, url.authority()?.as_str());
    let is_url = ["https", "http"].contains(&scheme) && !authority.contains('@');
    is_url.then(|| format!("{scheme}://{authority}"))
}

fn document<'a>(issuer: &str, origin: &str, endpoints: &(impl Iterator<Item = &'a Endpoint> + Clone)) -> Value {
    let mut document = Map::new();
    document.insert("issuer".into(), issuer.into());
    let token = first(endpoints.clone(), Action::OauthToken, None);
    let beside = token.map(|token| folder(&token.path));
    let by_secret = ["client_secret_basic", "client_secret_post"];
    // clients authenticate, or not where that is open to who has no secret: with a user's own password, and to refresh or to
    // end a token that was issued to no client
    for (name, action, is_open) in [
        ("token_endpoint", Action::OauthToken, Some(true)),
        ("revocation_endpoint", Action::Revoke, Some(true)),
        ("introspection_endpoint", Action::Introspect, Some(false)),
        ("jwks_uri", Action::Jwks, None),
    ] {
        let Some(endpoint) = first(endpoints.clone(), action, beside) else { continue };
        document.insert(name.into(), format!("{origin}{}", endpoint.path).into());
        if let Some(is_open) = is_open {
            let methods: Value = by_secret.into_iter().chain(is_open.then_some("none")).collect();
            document.insert(format!("{name}_auth_methods_supported"), methods);
        }
    }
    let mut grants = Vec::new();
    if let Some(token) = token {
        grants.extend(["client_credentials", "refresh_token"]);
        grants.extend(token.password_grant.then_some("password"));
    }
    document.insert("grant_types_supported".into(), grants.into());
    // required, and never empty (RFC 8414 2 and 3.2): the word for no response at all, since there is no authorization endpoint
    document.insert("response_types_supported".into(), json!(["none"]));
    Value::Object(document)
}

/// The endpoint that stands for an action where there are several: one beside the token endpoint, then one that answers as
/// the standard has it, then by path, so that it does not depend on the order of a map.
fn first<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    action: Action,
    beside: Option<&str>,
) -> Option<&'a Endpoint> {
    endpoints.filter(|endpoint| endpoint.action == action).min_by_key(|endpoint| {
        let is_apart = beside.is_some_and(|beside| folder(&endpoint.path) != beside);
        (is_apart, endpoint.reply.is_some(), &*endpoint.path)
    })
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::super::{Ends, Incomplete, Source};
    use super::*;
    use crate::rejection::Texts;

    fn endpoint(path: &str, action: Action) -> Endpoint {
        Endpoint {
            path: path.into(),
            action,
            fields: HashMap::new(),
            reply: None,
            status: None,
            texts: Arc::new(Texts::default()),
            password_grant: false,
            file: None,
            from: Source::Either,
            incomplete: Incomplete::Standard,
            ends: Ends::Family,
        }
    }

    #[test]
    fn the_document_names_what_there_is() {
        let endpoints = [
            endpoint("/auth/logout", Action::Revoke),
            endpoint("/oauth/revoke", Action::Revoke),
            endpoint("/oauth/token", Action::OauthToken),
            endpoint("/.well-known/jwks.json", Action::Jwks),
        ];
        let found = document("https://issuer", "https://api:8443", &endpoints.iter());
        assert_eq!(found["issuer"], "https://issuer");
        assert_eq!(found["token_endpoint"], "https://api:8443/oauth/token");
        assert_eq!(found["revocation_endpoint"], "https://api:8443/oauth/revoke");
        assert_eq!(found["jwks_uri"], "https://api:8443/.well-known/jwks.json");
        assert_eq!(found["response_types_supported"], json!(["none"]));
        assert_eq!(found["grant_types_supported"], json!(["client_credentials", "refresh_token"]));
        assert!(found.get("introspection_endpoint").is_none());
        let methods = |of: &str| found[format!("{of}_endpoint_auth_methods_supported")].clone();
        assert_eq!(methods("token"), json!(["client_secret_basic", "client_secret_post", "none"]));
        assert_eq!(methods("revocation"), json!(["client_secret_basic", "client_secret_post", "none"]));
    }

    #[test]
    fn only_a_url_has_an_origin() {
        for (issuer, expected) in [
            ("https://id.example.com", Some("https://id.example.com")),
            ("https://id.example.com/", Some("https://id.example.com")),
            ("https://id.example.com:8443/tenant?x", Some("https://id.example.com:8443")),
            ("http://[::1]:80/a", Some("http://[::1]:80")),
            ("portcullis", None),
            ("id.example.com:8443", None),
            ("/tenant", None),
            ("urn:example:issuer", None),
            ("ftp://id.example.com", None),
            ("https://user:secret@id.example.com", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(origin(issuer).as_deref(), expected, "{issuer}");
        }
    }

    #[test]
    fn without_a_token_endpoint_there_are_no_grants() {
        let found = document("i", "http://h", &[endpoint("/out", Action::Revoke)].iter());
        assert_eq!(found["grant_types_supported"], json!([]));
        assert_eq!(found["revocation_endpoint"], "http://h/out");
    }
}
