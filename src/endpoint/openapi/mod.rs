//! `openapi`: the endpoints as an `OpenAPI` 3.1 document, made once when a configuration is read.
//!
//! It says what is configured: paths, members by the names in use, replies by their templates, refusals by the table that
//! they are answered from. It says nothing of the version that runs, of routes or of upstreams: anybody may read it.

mod answers;
mod requests;
mod shape;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::file::{File, Kept};
use super::{Action, Endpoint, Settings, Source};
use crate::rejection::Texts;

use answers::Shared;

/// What the document rests on beside the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The sections `tokens` and `passwords`.
    pub tokens: &'a Settings,
    /// The section `errors`: how refusals are said before it is known which endpoint is meant.
    pub texts: &'a Texts,
}

/// The document about `endpoints`, which come in the order of their paths.
pub fn document<'a>(endpoints: impl Iterator<Item = &'a Endpoint> + Clone, terms: &Terms<'_>) -> Bytes {
    let (mut paths, mut shared, mut security) = (Map::new(), Shared::default(), Vec::new());
    for (number, endpoint) in endpoints.clone().enumerate() {
        let mut item = Map::new();
        for method in endpoint.methods().iter().filter(|method| is_told(endpoint, method)) {
            let name = method.as_str().to_ascii_lowercase();
            let id = format!("{name}_{}_{number}", word(endpoint.action));
            security.push(requests::security(endpoint));
            item.insert(name, operation(endpoint, method, id, terms, &mut shared));
        }
        paths.insert(endpoint.path.to_string(), item.into());
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Authentication",
            "description": "How to log in, and what to do with the tokens.",
            // of the document; of what serves it nobody needs to know the version
            "version": "1",
        },
        "servers": [{ "url": "/" }],
        "tags": tags(endpoints),
        "paths": paths,
        "components": {
            "responses": shared.into_map(),
            "securitySchemes": requests::security_schemes(&security),
        },
    });
    document.to_string().into()
}

/// The document as it is served.
pub fn file(document: &Bytes) -> File {
    File::plain("application/json", Kept::WhileSame, document.clone())
}

/// HEAD is what GET is, without the content (RFC 9110 9.3.2). A log-in by GET is for browsers: a program that asks without
/// credentials is told to use POST.
fn is_told(endpoint: &Endpoint, method: &Method) -> bool {
    let for_browsers = endpoint.action == Action::Login && endpoint.from != Source::Authorization;
    *method != Method::HEAD && !(for_browsers && *method == Method::GET)
}

fn operation(endpoint: &Endpoint, method: &Method, id: String, terms: &Terms<'_>, shared: &mut Shared) -> Value {
    let (tag, summary) = about(endpoint.action);
    let mut operation = Map::new();
    operation.insert("operationId".into(), id.into());
    operation.insert("tags".into(), json!([tag]));
    operation.insert("summary".into(), summary.into());
    if endpoint.from == Source::Either && matches!(endpoint.action, Action::Login | Action::ClientLogin) {
        operation.insert("description".into(), "Basic in Authorization will do as well, without a body.".into());
    }
    operation.insert("security".into(), requests::security(endpoint));
    if *method == Method::POST
        && let Some(body) = requests::body(endpoint, terms.tokens)
    {
        operation.insert("requestBody".into(), body);
    }
    operation.insert("responses".into(), responses(endpoint, method, terms, shared).into());
    operation.into()
}

fn responses(endpoint: &Endpoint, method: &Method, terms: &Terms<'_>, shared: &mut Shared) -> Map<String, Value> {
    let mut responses = Map::new();
    let status = endpoint.status();
    responses.insert(status.as_str().to_owned(), answers::success(endpoint, terms.tokens));
    if endpoint.action.is_file() {
        let description = "It is still what `If-None-Match` names";
        responses.insert(StatusCode::NOT_MODIFIED.as_str().to_owned(), json!({ "description": description }));
    }
    for (status, response) in answers::refusals(endpoint, method, terms.texts) {
        responses.insert(status.as_str().to_owned(), shared.reference(status, response));
    }
    responses
}

fn tags<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Value {
    let mut tags: Vec<&str> = endpoints.map(|endpoint| about(endpoint.action).0).collect();
    tags.sort_unstable();
    tags.dedup();
    tags.into_iter().map(|tag| json!({ "name": tag })).collect()
}

/// The group that an operation is shown in, and what it does.
const fn about(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Login => ("Log in", "A user's name and password to tokens"),
        Action::ClientLogin => ("Log in", "A client's id and secret to tokens"),
        Action::Register => ("Log in", "A new user"),
        Action::ChangePassword => ("Log in", "A new password, which ends every session of the user"),
        Action::Refresh => ("Tokens", "A refresh token to new tokens"),
        Action::OauthToken => ("Tokens", "A grant to tokens (RFC 6749)"),
        Action::Revoke => {
            ("Tokens", "A token ends (RFC 7009), or the session of the token that comes in Authorization")
        }
        Action::Introspect => ("Tokens", "What a token is worth now (RFC 7662), for clients with the role introspect"),
        Action::Jwks => ("Discovery", "The public keys of tokens (RFC 7517)"),
        Action::Metadata => ("Discovery", "Where the endpoints of OAuth are (RFC 8414)"),
        Action::Openapi => ("Discovery", "This document"),
        Action::Docs => ("Discovery", "This document as a page"),
    }
}

/// The action inside an `operationId`.
const fn word(action: Action) -> &'static str {
    match action {
        Action::Login => "login",
        Action::ClientLogin => "client_login",
        Action::Register => "register",
        Action::ChangePassword => "change_password",
        Action::Refresh => "refresh",
        Action::OauthToken => "oauth_token",
        Action::Revoke => "revoke",
        Action::Introspect => "introspect",
        Action::Jwks => "jwks",
        Action::Metadata => "metadata",
        Action::Openapi => "openapi",
        Action::Docs => "docs",
    }
}

impl Action {
    /// Whether it answers with a file.
    pub const fn is_file(self) -> bool {
        matches!(self, Self::Openapi | Self::Docs)
    }
}
