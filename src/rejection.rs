//! Every refusal, and the one table from refusal to response.
//!
//! A stage that refuses returns a [`Rejection`]; what the caller is told of it (status, code, message, challenge) is
//! decided here and nowhere else. The true reason goes to the log by [`Rejection::reason`]. Neither holds a credential.

mod bodies;
mod faults;
mod fields;
mod format;
pub mod texts;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode as S};

use self::bodies::{json, problem};
pub use self::faults::{CredentialsFault, MALFORMED_BODY, MemberFault, TokenFault};
use self::fields::{challenge_fields, grpc_fields, rate_limit_fields, whole_seconds};
pub use self::format::Format;
use self::format::media_type;
use self::texts::Cause;
pub use self::texts::Texts;
use crate::principal::{Scheme, SchemeSet};
use crate::wire::body::Body;
use crate::wire::http1::encode::decimal;
use crate::wire::http1::lines::{self, Fields, Lines};

/// The errors of RFC 6749 5.2 that have no other row here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// A grant that is expired, revoked, unknown or not this client's.
    InvalidGrant,
    /// The client may not use this grant.
    UnauthorizedClient,
    /// A grant type that is not offered.
    UnsupportedGrantType,
    /// A scope that is unknown or exceeds what the client has.
    InvalidScope,
}

/// What is left of a budget, for the IETF draft's fields (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The name of the limit in the configuration and in metrics: `per_address`, `unauthenticated`, `route`, …
    pub limit: &'static str,
    /// Requests granted per window.
    pub quota: u32,
    /// The window's length.
    pub window: Duration,
    /// When the next request will be granted.
    pub retry_after: Duration,
}

impl Exhausted {
    /// Whether it is an account that nobody may try to log in to for now.
    pub fn is_of_account(&self) -> bool {
        self.limit.starts_with("per_account")
    }
}

/// A refusal. One row of the table below each.
#[derive(Debug)]
pub enum Rejection {
    /// No `Authorization` on a route that needs one.
    MissingCredentials,
    /// A scheme that the route does not offer, or that nobody knows.
    UnsupportedScheme,
    /// Basic credentials that are no good.
    InvalidCredentials(CredentialsFault),
    /// A `Token` or `Bearer` credential that is no good.
    InvalidToken(Scheme, TokenFault),
    /// A principal without an allowed role or scope; the scheme by which they came.
    InsufficientPermissions(Option<Scheme>),
    /// A request that cannot be understood in one way only; what is wrong with it.
    BadRequest(&'static str),
    /// No route for path and host.
    NoRoute,
    /// Routes for the path, but none for the method; the value of `Allow`.
    MethodNotAllowed(HeaderValue),
    /// RFC 6585 5.
    HeadersTooLarge,
    /// RFC 9110 15.5.14.
    BodyTooLarge,
    /// RFC 6585 4.
    RateLimited(Exhausted),
    /// The upstream refused the connection or broke before a response.
    UpstreamUnavailable,
    /// The upstream took too long.
    UpstreamTimeout,
    /// No server of the upstream is healthy.
    NoHealthyUpstream,
    /// The store does not answer and nothing cached serves.
    StoreUnavailable,
    /// The keys of another issuer could not be fetched yet, and nothing cached serves.
    KeysUnavailable,
    /// The queue of the password pool is full.
    PasswordQueueFull,
    /// The request took too long to arrive (RFC 9110 15.5.9).
    RequestTimeout,
    /// A bug of ours; the request ends, the process does not.
    Internal,
    /// `login` with a wrong username or password.
    LoginFailed(CredentialsFault),
    /// `client_login`, or a client's authentication at a token endpoint (RFC 6749 5.2 `invalid_client`).
    InvalidClient(CredentialsFault),
    /// A refresh token that is no good, at `refresh`.
    RefreshFailed(TokenFault),
    /// A new name or password that is outside the rules, or members that do not go together.
    InvalidRequest(Cow<'static, str>),
    /// Request members that are missing or of the wrong type, each with its name.
    InvalidMembers(Vec<(Box<str>, MemberFault)>),
    /// A body that does not parse.
    MalformedBody(&'static str),
    /// `register` with a name that is taken.
    UsernameTaken,
    /// A body that is neither JSON nor a form.
    UnsupportedMediaType,
    /// An error of RFC 6749 5.2, with its description.
    OAuth(OAuthError, &'static str),
}

/// Which challenges go with a refusal.
enum Challenges {
    None,
    /// One per scheme of the route.
    EachScheme,
    /// For this scheme, without an error code.
    Only(Scheme),
    /// For Bearer, with an error code of RFC 6750 3.1.
    Bearer(&'static str),
}

struct Row {
    status: S,
    code: &'static str,
    message: Cow<'static, str>,
    challenges: Challenges,
}

/// To whom a refusal is said, and how.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// The protection space (RFC 9110 11.5).
    pub realm: &'a str,
    /// The schemes of the route; all offered ones where there is no route.
    pub schemes: SchemeSet,
    /// The texts to use.
    pub texts: &'a Texts,
    /// The method of the request.
    pub method: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
    /// The form to use.
    pub format: Format,
}

/// How long a caller is asked to wait where the store or the password pool cannot serve.
const RETRY_LATER: Duration = Duration::from_secs(1);

/// What the fields of a refusal usually take.
const LINES_BYTES: usize = 256;

impl Rejection {
    #[rustfmt::skip]
    #[expect(clippy::match_same_arms, reason = "a table, one row each")]
    fn row(&self) -> Row {
        let row = |status, code, message: &'static str, challenges| Row { status, code, message: Cow::Borrowed(message), challenges };
        match self {
            Self::MissingCredentials => row(S::UNAUTHORIZED, "missing_credentials", "Authorization header is missing", Challenges::EachScheme),
            Self::UnsupportedScheme => row(S::UNAUTHORIZED, "unsupported_scheme", "Unsupported authentication method", Challenges::EachScheme),
            Self::InvalidCredentials(_) => row(S::UNAUTHORIZED, "invalid_credentials", "Invalid credentials", Challenges::Only(Scheme::Basic)),
            Self::InvalidToken(Scheme::Bearer, _) => row(S::UNAUTHORIZED, "invalid_token", "Invalid or expired token", Challenges::Bearer("invalid_token")),
            Self::InvalidToken(scheme, _) => row(S::UNAUTHORIZED, "invalid_token", "Invalid or expired token", Challenges::Only(*scheme)),
            Self::InsufficientPermissions(Some(Scheme::Bearer)) => row(S::FORBIDDEN, "insufficient_permissions", "Access forbidden: Insufficient permissions", Challenges::Bearer("insufficient_scope")),
            Self::InsufficientPermissions(_) => row(S::FORBIDDEN, "insufficient_permissions", "Access forbidden: Insufficient permissions", Challenges::None),
            Self::BadRequest(what) => row(S::BAD_REQUEST, "bad_request", what, Challenges::None),
            Self::NoRoute => row(S::NOT_FOUND, "no_route", "No route for this path", Challenges::None),
            Self::MethodNotAllowed(_) => row(S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed for this path", Challenges::None),
            Self::HeadersTooLarge => row(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "Request header fields too large", Challenges::None),
            Self::BodyTooLarge => row(S::PAYLOAD_TOO_LARGE, "body_too_large", "Request body too large", Challenges::None),
            Self::RateLimited(_) => row(S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests", Challenges::None),
            Self::UpstreamUnavailable => row(S::BAD_GATEWAY, "upstream_unavailable", "Upstream unavailable", Challenges::None),
            Self::UpstreamTimeout => row(S::GATEWAY_TIMEOUT, "upstream_timeout", "Upstream timed out", Challenges::None),
            Self::NoHealthyUpstream => row(S::SERVICE_UNAVAILABLE, "no_healthy_upstream", "No healthy upstream", Challenges::None),
            Self::StoreUnavailable => row(S::SERVICE_UNAVAILABLE, "store_unavailable", "Credential store unavailable", Challenges::None),
            Self::KeysUnavailable => row(S::SERVICE_UNAVAILABLE, "store_unavailable", "Keys of the issuer unavailable", Challenges::None),
            Self::PasswordQueueFull => row(S::SERVICE_UNAVAILABLE, "busy", "Too many logins at once", Challenges::None),
            Self::RequestTimeout => row(S::REQUEST_TIMEOUT, "request_timeout", "Request took too long to arrive", Challenges::None),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal_error", "Internal error", Challenges::None),
            Self::LoginFailed(_) => row(S::UNAUTHORIZED, "invalid_credentials", "Invalid username or password", Challenges::EachScheme),
            Self::InvalidClient(_) => row(S::UNAUTHORIZED, "invalid_client", "Invalid client credentials", Challenges::EachScheme),
            Self::RefreshFailed(_) => row(S::UNAUTHORIZED, "invalid_token", "Invalid or expired token", Challenges::Bearer("invalid_token")),
            Self::InvalidRequest(what) => Row { status: S::BAD_REQUEST, code: "invalid_request", message: what.clone(), challenges: Challenges::None },
            Self::InvalidMembers(members) => Row { status: S::BAD_REQUEST, code: "invalid_request", message: told(members).into(), challenges: Challenges::None },
            Self::MalformedBody(what) => row(S::BAD_REQUEST, "invalid_request", what, Challenges::None),
            Self::UsernameTaken => row(S::BAD_REQUEST, "username_taken", "Username already exists", Challenges::None),
            Self::UnsupportedMediaType => row(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Body must be application/json or application/x-www-form-urlencoded", Challenges::None),
            Self::OAuth(OAuthError::InvalidGrant, what) => row(S::BAD_REQUEST, "invalid_grant", what, Challenges::None),
            Self::OAuth(OAuthError::UnauthorizedClient, what) => row(S::BAD_REQUEST, "unauthorized_client", what, Challenges::None),
            Self::OAuth(OAuthError::UnsupportedGrantType, what) => row(S::BAD_REQUEST, "unsupported_grant_type", what, Challenges::None),
            Self::OAuth(OAuthError::InvalidScope, what) => row(S::BAD_REQUEST, "invalid_scope", what, Challenges::None),
        }
    }

    /// The status that the caller gets (over gRPC it is 200, and this is in `grpc-status`).
    pub fn status(&self) -> S {
        self.row().status
    }

    /// The contract's code, by which refusals are counted.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// What is said where nothing else is configured.
    pub fn message(&self) -> String {
        self.row().message.into_owned()
    }

    /// Why, as finely as we know; for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidCredentials(fault) | Self::LoginFailed(fault) | Self::InvalidClient(fault) => fault.name(),
            Self::InvalidToken(_, fault) | Self::RefreshFailed(fault) => fault.name(),
            Self::RateLimited(exhausted) => exhausted.limit,
            Self::BadRequest(what) => what,
            Self::KeysUnavailable => "issuer_unavailable",
            Self::MissingCredentials
            | Self::UnsupportedScheme
            | Self::InsufficientPermissions(_)
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::UpstreamUnavailable
            | Self::UpstreamTimeout
            | Self::NoHealthyUpstream
            | Self::StoreUnavailable
            | Self::PasswordQueueFull
            | Self::RequestTimeout
            | Self::Internal
            | Self::InvalidRequest(_)
            | Self::InvalidMembers(_)
            | Self::MalformedBody(_)
            | Self::UsernameTaken
            | Self::UnsupportedMediaType
            | Self::OAuth(..) => self.code(),
        }
    }

    /// The response that `audience` gets.
    pub fn respond(&self, audience: &Audience<'_>) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        let mut response = self.say(audience, &mut headers);
        *response.headers_mut() = headers;
        response
    }

    /// The same over a connection that hands on fields as they are written.
    pub fn respond_in_lines(&self, audience: &Audience<'_>) -> Response<Body> {
        let mut text = Vec::with_capacity(LINES_BYTES);
        let response = self.say(audience, &mut lines::Head(&mut text));
        response.map(|body| Body::full(body).behind(Some(Lines::new(text.into(), false))))
    }

    /// The response without its fields, which go to `fields`.
    fn say(&self, audience: &Audience<'_>, fields: &mut impl Fields) -> Response<Bytes> {
        let row = self.row();
        // mostly there are no messages but ours, and then nothing is to be found by the cause
        let causes = if audience.texts.messages.is_empty() { Vec::new() } else { self.causes() };
        let told = audience.texts.tell(row.code, self.scheme(), &causes, (&row.message, audience.method));
        let (status, body) = match audience.format {
            Format::Json => (row.status, json(&row, &told, audience)),
            Format::Problem => (row.status, problem(&row, &told, audience)),
            Format::Grpc(_) => (S::OK, Bytes::new()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        fields.pass(&CONTENT_TYPE, &HeaderValue::from_static(media_type(audience.format)));
        // a refusal is said to one caller; over gRPC it is a 200, and a 404 may be kept without being asked to
        fields.pass(&CACHE_CONTROL, &HeaderValue::from_static("no-store"));
        if let Format::Grpc(media_type) = audience.format {
            grpc_fields(fields, media_type, row.status, &told.message);
        }
        challenge_fields(fields, &row, &told.message, audience);
        self.further_fields(fields);
        response
    }

    /// Why, in the words that stand behind the code in `errors.messages`.
    fn causes(&self) -> Vec<Cause<'_>> {
        let one = |reason| vec![Cause { reason, field: "" }];
        if let Self::InvalidToken(_, fault) | Self::RefreshFailed(fault) = self {
            one(Some(fault.name()))
        } else if let Self::RateLimited(exhausted) = self {
            one(Some(exhausted.limit))
        } else if let Self::InvalidMembers(members) = self {
            members.iter().map(|(field, fault)| Cause { reason: Some(fault.name()), field }).collect()
        } else if let Self::MalformedBody(_) = self {
            one(Some(MALFORMED_BODY))
        } else {
            one(None)
        }
    }

    /// The scheme of the credential that is refused.
    fn scheme(&self) -> Option<Scheme> {
        if let Self::InvalidToken(scheme, _) = self {
            Some(*scheme)
        } else if let Self::RefreshFailed(_) = self {
            Some(Scheme::Bearer)
        } else {
            None
        }
    }

    fn further_fields(&self, fields: &mut impl Fields) {
        if let Self::MethodNotAllowed(allow) = self {
            fields.pass(&ALLOW, allow);
        } else if let Self::RateLimited(exhausted) = self {
            rate_limit_fields(fields, exhausted);
        } else if matches!(self, Self::StoreUnavailable | Self::KeysUnavailable | Self::PasswordQueueFull) {
            fields.make(&RETRY_AFTER, |text| decimal(text, whole_seconds(RETRY_LATER)));
        }
    }
}

/// What is wrong with each member, in one text.
fn told(members: &[(Box<str>, MemberFault)]) -> String {
    members.iter().map(|(member, fault)| fault.message(member)).collect::<Vec<_>>().join("; ")
}
