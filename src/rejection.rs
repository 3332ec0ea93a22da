//! Every refusal, and the one table from refusal to response.
//!
//! A stage that refuses returns a [`Rejection`]; what the caller is told of it (status, code, message, challenge) is
//! decided here and nowhere else. The true reason goes to the log by [`Rejection::reason`]. Neither holds a credential.

pub mod texts;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode as S};
use serde_json::{Map, Value};

pub use self::texts::Texts;
use self::texts::{Cause, OWN_MEMBERS, Told};
use crate::principal::{Scheme, SchemeSet};
use crate::wire::accept;
use crate::wire::body::Body;
use crate::wire::challenge::{Challenge, is_plain, push_challenge};
use crate::wire::http1::encode::decimal;
use crate::wire::http1::lines::{self, Fields, Lines};

/// Why a token was refused; for the log, and for `errors.messages` as `invalid_token.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The field does not hold one credential: nothing behind the scheme, more than one word, other bytes, too long.
    MalformedHeader,
    /// Not of the form of a token: segments, base64, JSON, header members, duplicate or mistyped claims, too long.
    Malformed,
    /// The signature is not by a key of ours.
    BadSignature,
    /// `alg`, `crit` or another header member asks for what is not accepted.
    Unsupported,
    /// `exp` is past, or the opaque token's lifetime.
    Expired,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// `iss` is missing or another's.
    WrongIssuer,
    /// `aud` is missing or another's.
    WrongAudience,
    /// A refresh token where an access token is wanted, or any other type.
    WrongType,
    /// A required claim (`exp`, `jti`) is missing.
    MissingClaim,
    /// It does not say whose it is.
    MissingSubject,
    /// Revoked by itself, with its family, or by a change of its subject.
    Revoked,
    /// The subject is unknown or deleted.
    UnknownSubject,
    /// The subject may do nothing.
    Disabled,
    /// No such opaque token.
    Unknown,
    /// It was issued to another client (RFC 6749 6).
    WrongClient,
}

impl TokenFault {
    /// Every fault.
    pub const ALL: [Self; 16] = [
        Self::MalformedHeader,
        Self::Malformed,
        Self::BadSignature,
        Self::Unsupported,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::WrongType,
        Self::MissingClaim,
        Self::MissingSubject,
        Self::Revoked,
        Self::UnknownSubject,
        Self::Disabled,
        Self::Unknown,
        Self::WrongClient,
    ];

    /// The word in the log and behind `invalid_token.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedHeader => "malformed_header",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::Unsupported => "unsupported",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::WrongType => "wrong_type",
            Self::MissingClaim => "missing_claim",
            Self::MissingSubject => "missing_subject",
            Self::Revoked => "revoked",
            Self::UnknownSubject => "unknown_subject",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
            Self::WrongClient => "wrong_client",
        }
    }
}

/// Why Basic credentials or a login were refused; for the log alone. The caller cannot tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsFault {
    /// Not strict base64, no colon, not UTF-8, a control character.
    Malformed,
    /// No user or client of this name.
    UnknownSubject,
    /// The password or secret does not match.
    WrongPassword,
    /// The user or client is disabled.
    Disabled,
}

impl CredentialsFault {
    /// The word in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownSubject => "unknown_subject",
            Self::WrongPassword => "wrong_password",
            Self::Disabled => "disabled",
        }
    }
}

/// What is wrong with one member of a request; for `errors.messages` as `invalid_request.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberFault {
    /// It is not there.
    Missing,
    /// It is null.
    Null,
    /// It is a text without a character, where that is not taken.
    Empty,
    /// It is no text.
    WrongType,
}

impl MemberFault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Null, Self::Empty, Self::WrongType];

    /// The word behind `invalid_request.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Empty => "empty",
            Self::WrongType => "wrong_type",
        }
    }

    fn message(self, member: &str) -> String {
        match self {
            Self::Missing => format!("`{member}` is missing"),
            Self::Null | Self::WrongType => format!("`{member}` must be a text"),
            Self::Empty => format!("`{member}` is empty"),
        }
    }
}

/// The word behind `invalid_request.` of a body that does not parse.
pub const MALFORMED_BODY: &str = "malformed";

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

/// The form in which a caller reads a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/problem+json` (RFC 9457), for a caller whose `Accept` prefers it.
    Problem,
    /// `grpc-status` and `grpc-message`, for a caller of gRPC; of this media type.
    Grpc(&'static str),
}

/// The media types of gRPC, the plain ones and those of gRPC-Web, which reads no answer of the other's. A caller gets its own
/// back, so that what it said is not repeated; one with another message format the bare one, as a refusal has no message.
const GRPC_TYPES: [&str; 9] = [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+json",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web+json",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
    "application/grpc-web-text+json",
];

/// The media type of gRPC that answers this `Content-Type`.
fn grpc_type(content_type: &[u8]) -> Option<&'static str> {
    const START: &[u8] = b"application/grpc";
    // looked at for every request that is refused: mostly this says that it is none
    let start = content_type.get(..START.len())?;
    if !start.eq_ignore_ascii_case(START) {
        return None;
    }
    let essence = content_type.split(|&byte| byte == b';').next()?.trim_ascii();
    let known = GRPC_TYPES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(essence));
    known.or_else(|| {
        let bare = essence.split(|&byte| byte == b'+').next()?;
        GRPC_TYPES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(bare))
    })
}

impl Format {
    /// The one that a caller of these fields reads.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(media_type) = headers.get(CONTENT_TYPE).and_then(|value| grpc_type(value.as_bytes())) {
            Self::Grpc(media_type)
        } else if headers.get(ACCEPT).is_some_and(|value| accept::prefers_problem(value.as_bytes())) {
            Self::Problem
        } else {
            Self::Json
        }
    }
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

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

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

fn json(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    if told.members.is_empty() {
        return json_of_text(row, told, audience);
    }
    let mut members = Map::new();
    members.insert("error".into(), row.code.into());
    if audience.texts.oauth {
        members.insert("error_description".into(), (*told.message).into());
    }
    members.extend(told.members.clone());
    members.insert("request_id".into(), audience.request_id.into());
    Value::Object(members).to_string().into()
}

/// The same where a message is all that is said, as it nearly always is: written at once, since whoever sends bad
/// credentials in masses should not cost more than those who send good ones.
fn json_of_text(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    let member = &*audience.texts.member;
    let description = audience.texts.oauth.then_some(("error_description", &*told.message));
    let members = [("error", row.code)].into_iter().chain(description);
    let members = members.chain([(member, &*told.message), ("request_id", audience.request_id)]);
    let mut text = Vec::with_capacity(96 + row.code.len() + 2 * told.message.len() + audience.request_id.len());
    for (name, value) in members {
        text.push(if text.is_empty() { b'{' } else { b',' });
        push_json(&mut text, name);
        text.push(b':');
        push_json(&mut text, value);
    }
    text.push(b'}');
    text.into()
}

fn push_json(to: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        serde_json::to_writer(to, text).expect("a text is written to memory");
    }
}

fn problem(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    let mut members = Map::new();
    members.insert("type".into(), "about:blank".into());
    members.insert("title".into(), row.status.canonical_reason().unwrap_or_default().into());
    members.insert("status".into(), row.status.as_u16().into());
    members.insert("detail".into(), (*told.message).into());
    members.insert("error".into(), row.code.into());
    if told.members.is_empty() && *audience.texts.member != *"detail" {
        members.insert((*audience.texts.member).into(), (*told.message).into());
    }
    let further = told.members.iter().filter(|(name, _)| *name != "detail" && !OWN_MEMBERS.contains(&name.as_str()));
    members.extend(further.map(|(name, value)| (name.clone(), value.clone())));
    members.insert("request_id".into(), audience.request_id.into());
    Value::Object(members).to_string().into()
}

const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Problem => "application/problem+json",
        Format::Grpc(media_type) => media_type,
    }
}

/// The status of gRPC that stands for a status of HTTP (contract 4).
fn grpc_fields(fields: &mut impl Fields, media_type: &str, status: S, message: &str) {
    let code = match status.as_u16() {
        400 | 413 | 415 | 431 => 3,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 => 4,
        429 => 8,
        502..=504 => 14,
        _ => 13,
    };
    fields.make(&HeaderName::from_static("grpc-status"), |text| decimal(text, code));
    fields.make(&HeaderName::from_static("grpc-message"), |text| {
        percent_encoding::utf8_percent_encode(message, GRPC_MESSAGE)
            .for_each(|part| text.extend_from_slice(part.as_bytes()));
    });
    // a page of another origin, where it may read the response at all, sees no field that is not named here
    if media_type.starts_with("application/grpc-web") {
        fields.pass(&ACCESS_CONTROL_EXPOSE_HEADERS, &HeaderValue::from_static("grpc-status, grpc-message"));
    }
}

/// What `grpc-message` percent-encodes: all but visible ASCII, and `%`.
const GRPC_MESSAGE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

fn challenge_fields(fields: &mut impl Fields, row: &Row, message: &str, audience: &Audience<'_>) {
    let mut say = |scheme, error| {
        let challenge = Challenge { scheme, realm: audience.realm, error };
        fields.make(&WWW_AUTHENTICATE, |text| push_challenge(text, &challenge));
    };
    match row.challenges {
        Challenges::None => {}
        Challenges::EachScheme => audience.schemes.iter().for_each(|scheme| say(scheme, None)),
        Challenges::Only(scheme) => say(scheme, None),
        Challenges::Bearer(code) => say(Scheme::Bearer, Some((code, message))),
    }
}

fn rate_limit_fields(fields: &mut impl Fields, exhausted: &Exhausted) {
    let wait = whole_seconds(exhausted.retry_after);
    // by hand: who asks too often should not cost more than who does not
    let budget = |text: &mut Vec<u8>, [(first, one), (second, other)]: [(&[u8], u64); 2]| {
        text.push(b'"');
        text.extend_from_slice(exhausted.limit.as_bytes());
        text.extend_from_slice(b"\";");
        text.extend_from_slice(first);
        decimal(text, one);
        text.extend_from_slice(second);
        decimal(text, other);
    };
    fields.make(&RETRY_AFTER, |text| decimal(text, wait));
    let (quota, window) = (u64::from(exhausted.quota), whole_seconds(exhausted.window));
    fields.make(&RATE_LIMIT_POLICY, |text| budget(text, [(b"q=", quota), (b";w=", window)]));
    fields.make(&RATE_LIMIT, |text| budget(text, [(b"r=", 0), (b";t=", wait)]));
}

/// Seconds, rounded up, at least one: `Retry-After: 0` would ask for a busy loop.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use serde_json::json;

    use super::Scheme::{Bearer, Token};
    use super::texts::Message;
    use super::*;

    fn audience(texts: &Texts, format: Format) -> Audience<'_> {
        Audience { realm: "api", schemes: SchemeSet::all(), texts, method: "GET", request_id: "r1", format }
    }

    #[test]
    fn a_missing_credential_challenges_for_each_scheme() {
        let texts = Texts::default();
        let response = Rejection::MissingCredentials.respond(&audience(&texts, Format::Json));
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers().get_all(WWW_AUTHENTICATE).iter().count(), 3);
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"], "missing_credentials");
        assert_eq!(body["message"], "Authorization header is missing");
        assert_eq!(body["request_id"], "r1");
    }

    #[test]
    fn a_refusal_says_the_same_in_lines_and_in_a_map() {
        let exhausted = Exhausted {
            limit: "route",
            quota: 3,
            window: Duration::from_mins(1),
            retry_after: Duration::from_millis(1500),
        };
        let texts = Texts::default();
        for rejection in [
            Rejection::MissingCredentials,
            Rejection::InvalidToken(Bearer, TokenFault::Expired),
            Rejection::MethodNotAllowed(HeaderValue::from_static("GET, HEAD")),
            Rejection::RateLimited(exhausted),
            Rejection::StoreUnavailable,
            Rejection::BadRequest("bad"),
        ] {
            for format in [Format::Json, Format::Problem, Format::Grpc("application/grpc")] {
                let audience = audience(&texts, format);
                let (in_map, in_lines) = (rejection.respond(&audience), rejection.respond_in_lines(&audience));
                assert_eq!(in_lines.status(), in_map.status());
                assert!(in_lines.headers().is_empty());
                let said =
                    in_map.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
                let mut said: Vec<String> = said.collect();
                let lines = in_lines.body().lines().unwrap();
                let lines = str::from_utf8(&lines.text).unwrap().split_inclusive("\r\n").map(str::to_owned);
                let mut lines: Vec<String> = lines.collect();
                said.sort();
                lines.sort();
                assert_eq!(lines, said, "{rejection:?} {format:?}");
                assert_eq!(in_lines.body().size_hint().exact(), Some(in_map.body().len() as u64));
            }
        }
    }

    #[test]
    fn what_is_left_of_a_budget_is_told() {
        let exhausted = Exhausted {
            limit: "per_address",
            quota: 30,
            window: Duration::from_mins(1),
            retry_after: Duration::from_millis(1500),
        };
        let texts = Texts::default();
        let response = Rejection::RateLimited(exhausted).respond(&audience(&texts, Format::Json));
        for (name, value) in [
            ("retry-after", "2"),
            ("ratelimit-policy", "\"per_address\";q=30;w=60"),
            ("ratelimit", "\"per_address\";r=0;t=2"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
    }

    #[test]
    fn whatever_a_text_has_in_it_the_body_is_json() {
        let odd = "say \"no\" \\ é\n\u{1}";
        let texts = Texts {
            member: odd.into(),
            messages: [("bad_request".into(), Message::Text(odd.into()))].into(),
            oauth: true,
        };
        let audience = Audience { request_id: "a\"b\\", ..audience(&texts, Format::Json) };
        let response = Rejection::BadRequest("bad").respond(&audience);
        let body = std::str::from_utf8(response.body()).unwrap();
        let expected =
            json!({ "error": "bad_request", "error_description": odd, odd: odd, "request_id": "a\"b\\" }).to_string();
        assert_eq!(body, expected);
        let problem = Rejection::BadRequest("bad").respond(&Audience { format: Format::Problem, ..audience });
        let problem: Value = serde_json::from_slice(problem.body()).unwrap();
        assert_eq!((&problem["detail"], &problem[odd]), (&json!(odd), &json!(odd)));
    }

    #[test]
    fn texts_are_replaced_by_code_and_more_finely() {
        let texts = Texts {
            member: "msg".into(),
            messages: [("invalid_token", "Bad"), ("invalid_token.expired", "Token has expired")]
                .map(|(code, text)| (code.into(), Message::Text(text.into())))
                .into(),
            oauth: false,
        };
        for (fault, expected) in [(TokenFault::Expired, "Token has expired"), (TokenFault::BadSignature, "Bad")] {
            let response = Rejection::InvalidToken(Scheme::Bearer, fault).respond(&audience(&texts, Format::Json));
            let body: Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["msg"], expected);
        }
    }

    fn told(messages: &Value, rejection: &Rejection, format: Format) -> Value {
        let message = |(code, message): (&String, &Value)| {
            let message = match message.as_object() {
                Some(members) => Message::members(code, members.clone()).unwrap(),
                None => Message::Text(message.as_str().unwrap().into()),
            };
            (code.as_str().into(), message)
        };
        let messages = messages.as_object().unwrap().iter().map(message).collect();
        let texts = Texts { member: "detail".into(), messages, oauth: false };
        let response = rejection.respond(&audience(&texts, format));
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        for own in ["error", "request_id", "type", "title", "status"] {
            body.as_object_mut().unwrap().remove(own);
        }
        body
    }

    #[test]
    fn a_message_can_be_members_and_the_most_exact_one_counts() {
        let messages = json!({
            "invalid_token": { "detail": "any", "code": "a" },
            "invalid_token.token": "of tokens",
            "invalid_token.expired": { "detail": "over", "messages": [{ "is": "{method}" }] },
            "invalid_token.bearer.expired": { "{method}": "bearer" },
        });
        for (scheme, fault, expected) in [
            (Bearer, TokenFault::Revoked, json!({ "detail": "any", "code": "a" })),
            (Token, TokenFault::Revoked, json!({ "detail": "of tokens" })),
            (Token, TokenFault::Expired, json!({ "detail": "over", "messages": [{ "is": "GET" }] })),
            (Bearer, TokenFault::Expired, json!({ "GET": "bearer" })),
        ] {
            let rejection = Rejection::InvalidToken(scheme, fault);
            assert_eq!(told(&messages, &rejection, Format::Json), expected, "{fault:?} {scheme:?}");
        }
        let problem = told(&messages, &Rejection::InvalidToken(Bearer, TokenFault::Revoked), Format::Problem);
        assert_eq!(problem, json!({ "detail": "any", "code": "a" }));
    }

    #[test]
    fn each_wrong_member_is_named() {
        let members = vec![("name".into(), MemberFault::Missing), ("pass".into(), MemberFault::WrongType)];
        let rejection = Rejection::InvalidMembers(members);
        for (messages, expected) in [
            (json!({}), json!({ "detail": "`name` is missing; `pass` must be a text" })),
            (json!({ "invalid_request": "bad" }), json!({ "detail": "bad" })),
            (json!({ "invalid_request.missing": { "{field}": ["required"] } }), json!({ "name": ["required"] })),
            (
                json!({
                    "invalid_request.missing": { "detail": "no", "errors": { "{field}": "'{field}' is required" } },
                    "invalid_request.wrong_type": { "detail": "never", "errors": { "{field}": "not a text" } },
                }),
                json!({ "detail": "no", "errors": { "name": "'name' is required", "pass": "not a text" } }),
            ),
        ] {
            assert_eq!(told(&messages, &rejection, Format::Json), expected);
        }
    }

    #[test]
    fn members_of_a_message_are_templates() {
        for (code, members, expected) in [
            ("invalid_request.missing", json!({ "{field}": "{method} {{x}}" }), None),
            ("invalid_token", json!({ "a": "{field}" }), Some("`{field}` can stand in `invalid_request` only")),
            ("invalid_token", json!({ "{access}": "a" }), Some("unknown placeholder `{access}`")),
        ] {
            let compiled = Message::members(code, members.as_object().unwrap().clone());
            assert_eq!(compiled.err().map(|error| error.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn grpc_gets_its_own_status() {
        let texts = Texts::default();
        for media_type in ["application/grpc", "application/grpc+proto", "application/grpc-web-text"] {
            let response = Rejection::InsufficientPermissions(Some(Scheme::Token))
                .respond(&audience(&texts, Format::Grpc(media_type)));
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], "7");
            assert_eq!(response.headers()[CONTENT_TYPE], media_type);
            let is_exposed = response.headers().contains_key(ACCESS_CONTROL_EXPOSE_HEADERS);
            assert_eq!(is_exposed, media_type.contains("web"), "{media_type}");
            assert!(response.body().is_empty());
        }
    }

    #[test]
    fn waiting_is_rounded_up_and_never_zero() {
        for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds);
        }
    }
}
