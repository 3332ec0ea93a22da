//! What the gateway answers itself: action to handler, members, templates.
//!
//! Every action is a method of `Call`, in a file of its own. Before any of them runs, the caller's address has paid for
//! the request, its method is known to fit, and its body was read within bounds. Whatever an answer says was issued or
//! revoked is in the store, and noted for this process, before the answer is sent.

pub mod members;
mod admission;
pub mod template;
pub mod credentials;
pub mod found;
pub mod issue;
pub mod replay;
pub mod login;
pub mod oauth;
pub mod refresh;
pub mod revoke;
pub mod introspect;
pub mod register;
pub mod password;
pub mod metadata;
pub mod file;
pub mod openapi;
pub mod docs;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Map, Value};

use crate::authenticate::keys::Keys;
use crate::authenticate::password::PasswordPool;
use crate::authenticate::{self, Authenticator};
use crate::clock::Clock;
use crate::limit::Limits;
use crate::principal::{Role, Scheme, SchemeSet, Subject};
use crate::record::audit::{Audit, Event};
use crate::record::metrics::{Metrics, WorkerMetrics};
use crate::rejection::{Rejection, Texts};
use crate::route::Allow;
use crate::store::changes::Changes;
use crate::store::{Change, Store};
use crate::wire::body::Body;

use file::{File, Kept};
use members::Members;
use template::Reply;

/// What an endpoint does (contract 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A user's name and password to tokens.
    Login,
    /// A client's id and secret to tokens.
    ClientLogin,
    /// A refresh token to new tokens.
    Refresh,
    /// RFC 6749.
    OauthToken,
    /// RFC 7009, and log-out.
    Revoke,
    /// RFC 7662.
    Introspect,
    /// A new user.
    Register,
    /// A user's new password.
    ChangePassword,
    /// RFC 7517.
    Jwks,
    /// RFC 8414.
    Metadata,
    /// The endpoints as an `OpenAPI` 3.1 document.
    Openapi,
    /// A page on which they can be read and tried out.
    Docs,
}

impl Action {
    /// Whether it only gives what anybody may read.
    fn is_a_document(self) -> bool {
        match self {
            Self::Jwks | Self::Metadata | Self::Openapi | Self::Docs => true,
            Self::Login
            | Self::ClientLogin
            | Self::Refresh
            | Self::OauthToken
            | Self::Revoke
            | Self::Introspect
            | Self::Register
            | Self::ChangePassword => false,
        }
    }

    /// Whom it answers with more than a refusal. A name and a password, an id and a secret, or a token are credentials
    /// wherever in the request they come.
    pub fn for_whom(self) -> Allow {
        match self {
            Self::Register | Self::Jwks | Self::Metadata | Self::Openapi | Self::Docs => Allow::Anyone,
            Self::Login
            | Self::ClientLogin
            | Self::Refresh
            | Self::OauthToken
            | Self::Revoke
            | Self::ChangePassword => Allow::Authenticated,
            Self::Introspect => Allow::Roles(vec![Role::from(introspect::ROLE)]),
        }
    }
}

/// One entry of `endpoints`, compiled.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The exact path; the metrics label.
    pub path: Arc<str>,
    /// What it does.
    pub action: Action,
    /// The names of request members, by their standard names (`username` to `email`).
    pub fields: HashMap<Box<str>, Box<str>>,
    /// The response's members; each value is JSON whose texts are templates. `None`: the action's default.
    pub reply: Option<template::Reply>,
    /// The status of success; `None`: the action's default.
    pub status: Option<StatusCode>,
    /// The texts of refusals.
    pub texts: Arc<Texts>,
    /// Whether `oauth_token` offers the password grant.
    pub password_grant: bool,
    /// What `openapi` and `docs` answer with.
    pub file: Option<Arc<File>>,
    /// Where credentials may come.
    pub from: Source,
    /// How members that are missing or empty are refused.
    pub incomplete: Incomplete,
    /// What ends with a refresh token that is revoked.
    pub ends: Ends,
}

/// Where `login`, `client_login`, `refresh` and `revoke` look for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the body, else in `Authorization`.
    Either,
    /// In the body alone.
    Members,
    /// In `Authorization` alone; the body is not read.
    Authorization,
}

/// How credentials are refused of which a part is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// 400 where a member is missing, as wrong credentials where it is empty.
    Standard,
    /// 400 that names it, for an empty one too.
    Member,
    /// As wrong credentials, whatever is missing.
    Credentials,
}

/// How much `revoke` ends with a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// All that was issued with it (RFC 7009 2.1).
    Family,
    /// It and its successors; access tokens live on until they expire.
    Refresh,
}

impl Endpoint {
    /// The methods by which it is asked for.
    pub fn methods(&self) -> &'static [Method] {
        match (self.action, self.from) {
            _ if self.action.is_a_document() => &[Method::GET, Method::HEAD],
            // GET for a login by `Authorization: Basic`, as browsers ask for
            (Action::Login, Source::Either | Source::Authorization) => &[Method::GET, Method::POST],
            _ => &[Method::POST],
        }
    }

    /// Whether it is asked for by this method.
    ///
    /// # Errors
    /// [`Rejection::MethodNotAllowed`] where it is not.
    pub fn takes(&self, method: &Method) -> Result<(), Rejection> {
        if self.methods().contains(method) { Ok(()) } else { Err(Rejection::MethodNotAllowed(self.allow())) }
    }

    fn allow(&self) -> HeaderValue {
        HeaderValue::from_static(match (self.action, self.from) {
            _ if self.action.is_a_document() => "GET, HEAD",
            (Action::Login, Source::Authorization) => "GET, POST",
            // a GET without credentials is refused as the wrong method, so it is not held out to anybody
            _ => "POST",
        })
    }

    /// The schemes by which credentials may come in `Authorization`.
    pub fn schemes(&self) -> SchemeSet {
        match (self.action, self.from) {
            (Action::Login | Action::ClientLogin | Action::Refresh, Source::Members)
            | (Action::Register | Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs, _) => &[][..],
            // at `revoke` a client may say who it is in any case
            (Action::Login | Action::ClientLogin | Action::OauthToken | Action::Introspect, _)
            | (Action::Revoke, Source::Members) => &[Scheme::Basic],
            (Action::Refresh, _) => &[Scheme::Bearer],
            (Action::ChangePassword, _) => &[Scheme::Basic, Scheme::Bearer],
            (Action::Revoke, _) => &[Scheme::Basic, Scheme::Token, Scheme::Bearer],
        }
        .iter()
        .copied()
        .collect()
    }

    /// What its refusals challenge for (RFC 9110 15.5.2 asks for something). Where credentials may not come in
    /// `Authorization`, for what is issued: a browser would ask for a password that nobody reads.
    pub fn challenged(&self) -> SchemeSet {
        match (self.action, self.from) {
            (Action::Login | Action::ClientLogin | Action::Refresh, Source::Members) => {
                std::iter::once(Scheme::Bearer).collect()
            }
            _ => self.schemes(),
        }
    }

    /// Whether its body is read.
    fn reads_body(&self, method: &Method) -> bool {
        let by_authorization = self.from == Source::Authorization
            && matches!(self.action, Action::Login | Action::ClientLogin | Action::Refresh | Action::Revoke);
        *method == Method::POST && !by_authorization
    }
}

/// The endpoints of a snapshot, by exact path.
pub type Endpoints = HashMap<Box<str>, Arc<Endpoint>, foldhash::fast::RandomState>;

/// The sections `tokens` and `passwords`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of access JWTs.
    pub access_ttl: Duration,
    /// Of refresh tokens.
    pub refresh_ttl: Duration,
    /// Of opaque tokens.
    pub opaque_ttl: Duration,
    /// Of a registered user.
    pub default_role: Role,
    /// How refresh tokens are written.
    pub refresh_format: RefreshFormat,
    /// How long after its use a refresh token gets the same answer again; zero: never.
    pub refresh_grace: Duration,
    /// Further claims of issued JWTs.
    pub claims: template::Claims,
    /// Whether a `sub` that is an object is written as JSON text.
    pub sub_as_json_text: bool,
    /// The shortest new password, in bytes.
    pub password_bytes_min: usize,
    /// The longest new password, in bytes.
    pub password_bytes_max: usize,
}

/// `tokens.refresh_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshFormat {
    /// 256 random bits, `pcr_…`.
    Opaque,
    /// A JWT.
    Jwt,
}

/// What answering needs and outlives any request; shared by all workers.
pub struct Service {
    /// Accounts and tokens.
    pub store: Arc<dyn Store>,
    /// Makes hashes of new passwords.
    pub passwords: Arc<PasswordPool>,
    /// Budgets.
    pub limits: Arc<Limits>,
    /// Where own changes are noted.
    pub changes: Arc<Changes>,
    /// Verifies passwords and JWTs.
    pub authenticator: Arc<Authenticator>,
    /// Signing keys.
    pub keys: Arc<Keys>,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub audit: Arc<Audit>,
}

/// The surroundings of one request to an endpoint.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The section `auth`.
    pub auth: &'a authenticate::Settings,
    /// The sections `tokens` and `passwords`.
    pub tokens: &'a Settings,
    /// All endpoints, for the metadata.
    pub endpoints: &'a Endpoints,
    /// The caller's.
    pub address: IpAddr,
    /// The request's.
    pub request_id: &'a HeaderValue,
    /// Whether the caller came by https, for the metadata.
    pub https: bool,
    /// The counters of this worker.
    pub metrics: &'a WorkerMetrics,
    /// For the access log.
    pub proven: &'a Proven,
}

/// Whom a request has proved to come from, once it has: the last of them, such as the user whose password a client brings.
#[derive(Debug, Default)]
pub struct Proven(RefCell<Option<Arc<str>>>);

impl Proven {
    /// It is this one.
    fn is(&self, subject: &Subject) {
        self.0.replace(Some(Arc::clone(&subject.name)));
    }

    /// Who it is.
    pub fn name(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }
}

/// One request to one endpoint.
#[derive(Clone, Copy)]
struct Call<'a> {
    service: &'a Service,
    endpoint: &'a Endpoint,
    asked: Asked<'a>,
}

/// What the request says.
struct Incoming<'a> {
    method: Method,
    host: Option<String>,
    headers: HeaderMap,
    members: Members<'a>,
}

impl Service {
    /// Answers a request to `endpoint`.
    ///
    /// # Errors
    /// Every refusal of contract 5; the texts for it are the endpoint's.
    pub async fn answer(
        &self,
        endpoint: &Endpoint,
        asked: Asked<'_>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Rejection> {
        if endpoint.is_paid_for() {
            self.limits.address(asked.address).await.map_err(Rejection::RateLimited)?;
        }
        let (head, body) = request.into_parts();
        endpoint.takes(&head.method)?;
        let members = if endpoint.reads_body(&head.method) {
            Members::read(&endpoint.fields, &head.headers, body).await?
        } else {
            Members::none(&endpoint.fields)
        };
        let host = head.uri.authority().map(ToString::to_string);
        let incoming = Incoming { method: head.method, host, headers: head.headers, members };
        let call = Call { service: self, endpoint, asked };
        match endpoint.action {
            Action::Login => call.login(&incoming).await,
            Action::ClientLogin => call.client_login(&incoming).await,
            Action::Refresh => call.refresh(&incoming).await,
            Action::OauthToken => call.oauth_token(&incoming).await,
            Action::Revoke => call.revoke(&incoming).await,
            Action::Introspect => call.introspect(&incoming).await,
            Action::Register => call.register(&incoming).await,
            Action::ChangePassword => call.change_password(&incoming).await,
            Action::Jwks => Ok(call.jwks(&incoming)),
            Action::Metadata => Ok(call.metadata(&incoming)),
            Action::Openapi | Action::Docs => call.file(&incoming),
        }
    }
}

impl Endpoint {
    /// The configured reply, or the action's own; one without members where an RFC says what it is.
    pub fn reply(&self) -> Cow<'_, Reply> {
        self.reply.as_ref().map_or_else(|| Cow::Owned(self.action.reply()), Cow::Borrowed)
    }

    /// The status of success.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(match self.action {
            Action::Register => StatusCode::CREATED,
            Action::Login
            | Action::ClientLogin
            | Action::Refresh
            | Action::OauthToken
            | Action::Revoke
            | Action::Introspect
            | Action::ChangePassword
            | Action::Jwks
            | Action::Metadata
            | Action::Openapi
            | Action::Docs => StatusCode::OK,
        })
    }

    /// Whether a request draws on the budget of its address. The parts of a page do not: they are the same for everyone,
    /// come several at a time, and are kept by whoever has had them.
    pub fn is_paid_for(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.kept() == Kept::WhileSame)
    }
}

impl Action {
    /// The reply where none is configured.
    fn reply(self) -> Reply {
        match self {
            Self::Login | Self::ClientLogin | Self::Refresh => Reply::of_tokens(),
            Self::Register => Reply::of_message("User registered successfully"),
            Self::ChangePassword => Reply::of_message("Password changed successfully"),
            Self::Revoke
            | Self::OauthToken
            | Self::Introspect
            | Self::Jwks
            | Self::Metadata
            | Self::Openapi
            | Self::Docs => Reply::of_nothing(),
        }
    }
}

impl Call<'_> {
    /// An answer that nobody may keep (RFC 6749 5.1).
    fn answer(&self, members: Map<String, Value>) -> Response<Body> {
        let mut response = Response::new(Body::full(Value::Object(members).to_string()));
        *response.status_mut() = self.endpoint.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }

    /// An answer that holds no secret, with its media type and how long it may be kept.
    fn public(
        &self,
        incoming: &Incoming<'_>,
        (media_type, cached): (&'static str, &'static str),
        document: &Value,
    ) -> Response<Body> {
        let text = document.to_string();
        let length = HeaderValue::from(text.len());
        let body = if incoming.method == Method::HEAD { Body::empty() } else { Body::full(text) };
        let mut response = Response::new(body);
        *response.status_mut() = self.endpoint.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cached));
        headers.insert(CONTENT_LENGTH, length);
        response
    }

    /// A file, as it is.
    fn file(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let file = self.endpoint.file.as_ref().ok_or(Rejection::Internal)?;
        file.answer(self.endpoint.status(), &incoming.method, &incoming.headers)
    }

    /// Tells the audit log.
    fn happened(&self, kind: &'static str, subject: Option<&Subject>, details: &[(&'static str, &str)]) {
        let Asked { address, request_id, .. } = self.asked;
        let request_id = request_id.to_str().unwrap_or_default();
        self.service.audit.event(&Event { kind, subject, address: Some(address), request_id, details });
    }

    /// Makes what this process remembers of a changed thing invalid.
    fn note(&self, change: &Change) {
        self.service.changes.note(change);
    }
}
