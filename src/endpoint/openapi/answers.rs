//! What an endpoint answers: the reply by its template, and each refusal as [`Rejection::respond`] says it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::requests;
use super::shape::{self, Same};
use crate::endpoint::template::Values;
use crate::endpoint::{Action, Endpoint, Settings, Source};
use crate::principal::{Principal, Role, Scheme, SchemeSet, Scope, Subject};
use crate::rejection::{
    Audience, CredentialsFault, Exhausted, Format, MemberFault, OAuthError, Rejection, Texts, TokenFault,
};

/// Stands for the id of a request in examples.
const REQUEST_ID: &str = "3f0c2b9e5d7a4c1e8b6f0a9d2c4e6b81";

/// The answer of success.
pub(super) fn success(endpoint: &Endpoint, settings: &Settings) -> Value {
    let status = endpoint.status();
    let description = status.canonical_reason().unwrap_or_default();
    if status == StatusCode::NO_CONTENT {
        return json!({ "description": description });
    }
    let (media_type, schema) = match endpoint.action {
        Action::Docs => ("text/html", json!({ "type": "string" })),
        Action::Jwks => ("application/jwk-set+json", keys()),
        Action::Openapi => ("application/json", open_object(&["openapi", "info", "paths"], &[])),
        Action::Metadata => ("application/json", open_object(&["issuer", "response_types_supported"], &["issuer"])),
        Action::Introspect => ("application/json", introspection()),
        Action::OauthToken if endpoint.reply.is_none() => ("application/json", grant()),
        Action::OauthToken
        | Action::Login
        | Action::ClientLogin
        | Action::Refresh
        | Action::Revoke
        | Action::Register
        | Action::ChangePassword => ("application/json", reply(endpoint, settings)),
    };
    json!({ "description": description, "content": { media_type: { "schema": schema } } })
}

/// The members of a reply, read off two of them.
fn reply(endpoint: &Endpoint, settings: &Settings) -> Value {
    let reply = endpoint.reply();
    let [one, two] = [("user", Some("1")), ("admin", None)].map(|(role, user_id)| Principal {
        subject: Subject::user(role),
        user_id: user_id.map(Into::into),
        roles: user_id.map(|_| Role::from(role)).into_iter().collect(),
        scopes: user_id.map(Scope::from).into_iter().collect(),
    });
    let samples = [(&one, "1", settings.access_ttl), (&two, "2", Duration::ZERO)].map(|(principal, token, ttl)| {
        // as `revoke` and `change_password` answer: they issue nothing, and the first knows nobody
        let issues = !matches!(endpoint.action, Action::Revoke | Action::ChangePassword);
        let is_known = endpoint.action != Action::Revoke;
        let is_plain = endpoint.action == Action::Register && endpoint.reply.is_none();
        let token = (issues && !is_plain).then_some(token);
        let expires_in = if issues { ttl.as_secs() } else { 0 };
        let principal = (is_known && !is_plain).then_some(principal);
        let values = Values { access: token, refresh: token, token, expires_in, principal, scope: None };
        Value::Object(reply.render(&values))
    });
    let [one, two] = &samples;
    shape::of(&[one, two], Same::Constant)
}

/// RFC 6749 5.1.
fn grant() -> Value {
    json!({
        "type": "object",
        "required": ["access_token", "token_type", "expires_in"],
        "properties": {
            "access_token": { "type": "string" },
            "token_type": { "const": "Bearer" },
            "expires_in": { "type": "integer" },
            "refresh_token": { "type": "string" },
            "scope": { "type": "string" },
        },
    })
}

/// RFC 7662 2.2.
fn introspection() -> Value {
    json!({
        "type": "object",
        "required": ["active"],
        "properties": {
            "active": { "type": "boolean" },
            "sub": { "type": "string" },
            "username": { "type": "string" },
            "client_id": { "type": "string" },
            "token_type": { "type": "string" },
            "scope": { "type": "string" },
            "roles": { "type": "array", "items": { "type": "string" } },
            "exp": { "type": "integer" },
        },
    })
}

/// RFC 7517 5.
fn keys() -> Value {
    let key = json!({ "type": "object", "required": ["kty"], "properties": { "kty": { "type": "string" } } });
    json!({ "type": "object", "required": ["keys"], "properties": { "keys": { "type": "array", "items": key } } })
}

/// An object with these members and more, some of them texts.
fn open_object(required: &[&str], texts: &[&str]) -> Value {
    let properties: Map<_, _> = texts.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The refusals of an endpoint, by status.
pub(super) fn refusals(endpoint: &Endpoint, method: &Method, global: &Texts) -> BTreeMap<StatusCode, Value> {
    let mut by_status: BTreeMap<StatusCode, Vec<Said>> = BTreeMap::new();
    let own = of_action(endpoint, method).into_iter().map(|rejection| (rejection, &*endpoint.texts));
    // what is refused before it is known which endpoint is meant
    let before =
        [Rejection::BadRequest("The request is malformed"), Rejection::HeadersTooLarge, Rejection::RequestTimeout];
    for (rejection, texts) in own.chain(before.into_iter().map(|rejection| (rejection, global))) {
        by_status.entry(rejection.status()).or_default().push(Said::by(
            &rejection,
            texts,
            (endpoint.challenged(), method),
        ));
    }
    by_status.into_iter().map(|(status, said)| (status, response(status, &said))).collect()
}

/// What may be refused once it is known which endpoint is meant.
fn of_action(endpoint: &Endpoint, method: &Method) -> Vec<Rejection> {
    let no_one = CredentialsFault::UnknownSubject;
    let mut found = vec![Rejection::Internal];
    if endpoint.is_paid_for() {
        let second = Duration::from_secs(1);
        let exhausted = Exhausted { limit: "per_address", quota: 30, window: second * 60, retry_after: second * 2 };
        found.push(Rejection::RateLimited(exhausted));
    }
    if endpoint.reads_body(method) {
        found.extend([
            Rejection::InvalidRequest("`…` cannot be used".into()),
            Rejection::MalformedBody("the body does not parse"),
            Rejection::BodyTooLarge,
            Rejection::UnsupportedMediaType,
        ]);
        // each by itself, since the member may be named where the message stands
        let faults = requests::required(endpoint)
            .into_iter()
            .flat_map(|name| MemberFault::ALL.map(|fault| Rejection::InvalidMembers(vec![(name.clone(), fault)])));
        found.extend(faults);
    }
    if endpoint.from == Source::Authorization && matches!(endpoint.action, Action::Login | Action::ClientLogin) {
        found.extend([Rejection::MissingCredentials, Rejection::UnsupportedScheme]);
    }
    match endpoint.action {
        Action::Login => found.push(Rejection::LoginFailed(no_one)),
        Action::ClientLogin => found.push(Rejection::InvalidClient(no_one)),
        Action::Refresh => found.extend([
            Rejection::MissingCredentials,
            Rejection::UnsupportedScheme,
            Rejection::RefreshFailed(TokenFault::Unknown),
        ]),
        Action::OauthToken => found.extend([
            Rejection::InvalidClient(no_one),
            Rejection::OAuth(OAuthError::InvalidGrant, "Invalid or expired grant"),
            Rejection::OAuth(OAuthError::InvalidScope, "Scope is unknown or exceeds the grant"),
            Rejection::OAuth(OAuthError::UnsupportedGrantType, "Grant type is not offered"),
        ]),
        Action::Revoke => found.extend([
            Rejection::InvalidClient(no_one),
            Rejection::OAuth(OAuthError::InvalidGrant, "Token was issued to another client"),
        ]),
        Action::Introspect => {
            found.extend([Rejection::InvalidClient(no_one), Rejection::InsufficientPermissions(Some(Scheme::Basic))]);
        }
        Action::Register => found.push(Rejection::UsernameTaken),
        Action::ChangePassword => found.extend([
            Rejection::MissingCredentials,
            Rejection::UnsupportedScheme,
            Rejection::InvalidCredentials(no_one),
            Rejection::InvalidToken(Scheme::Bearer, TokenFault::Unknown),
            Rejection::InsufficientPermissions(Some(Scheme::Bearer)),
        ]),
        Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs => return found,
    }
    // all of the above ask the store, and most the password pool
    found.extend([Rejection::StoreUnavailable, Rejection::PasswordQueueFull]);
    found
}

/// One refusal, as it is said.
struct Said {
    code: &'static str,
    fields: Vec<HeaderName>,
    json: Value,
    problem: Value,
}

impl Said {
    fn by(rejection: &Rejection, texts: &Texts, (schemes, method): (SchemeSet, &Method)) -> Self {
        let respond = |format| {
            let method = method.as_str();
            let audience = Audience { realm: "", schemes, texts, method, request_id: REQUEST_ID, format };
            rejection.respond(&audience)
        };
        let body = |response: &Response<Bytes>| serde_json::from_slice(response.body()).unwrap_or_default();
        let (json, problem) = (respond(Format::Json), respond(Format::Problem));
        let fields = json.headers().keys().filter(|name| ![CONTENT_TYPE, CACHE_CONTROL].contains(name)).cloned();
        Self { code: rejection.code(), fields: fields.collect(), json: body(&json), problem: body(&problem) }
    }
}

fn response(status: StatusCode, said: &[Said]) -> Value {
    let content = |form: fn(&Said) -> &Value| {
        let bodies: Vec<_> = said.iter().map(form).collect();
        let mut schema = shape::of(&bodies, Same::Chance);
        let codes: std::collections::BTreeSet<_> =
            bodies.iter().filter_map(|body| body.get("error")?.as_str()).collect();
        if let Some(Value::Object(error)) = schema.pointer_mut("/properties/error") {
            error.insert("enum".into(), codes.into_iter().collect());
        }
        let examples: Map<_, _> =
            said.iter().map(|said| (said.code.to_owned(), json!({ "value": form(said) }))).collect();
        json!({ "schema": schema, "examples": examples })
    };
    let mut headers = Map::new();
    for name in said.iter().flat_map(|said| &said.fields) {
        let required = said.iter().all(|said| said.fields.contains(name));
        headers.insert(canonical(name), json!({ "required": required, "schema": { "type": "string" } }));
    }
    json!({
        "description": status.canonical_reason().unwrap_or_default(),
        "content": {
            "application/json": content(|said| &said.json),
            "application/problem+json": content(|said| &said.problem),
        },
        "headers": headers,
    })
}

/// A field's name as RFCs write it.
fn canonical(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word {
        "www" => "WWW".to_owned(),
        "ratelimit" => "RateLimit".to_owned(),
        word => word.chars().take(1).map(|first| first.to_ascii_uppercase()).chain(word.chars().skip(1)).collect(),
    });
    words.collect::<Vec<_>>().join("-")
}

/// Responses of which there is one for all who have the same.
#[derive(Default)]
pub(super) struct Shared(Map<String, Value>);

impl Shared {
    /// A reference to this response.
    pub(super) fn reference(&mut self, status: StatusCode, response: Value) -> Value {
        let same = self.0.iter().find(|(_, known)| **known == response).map(|(name, _)| name.clone());
        let name = same.unwrap_or_else(|| {
            let others = self.0.keys().filter(|name| name.starts_with(status.as_str())).count();
            let name = format!("{}_{others}", status.as_str());
            self.0.insert(name.clone(), response);
            name
        });
        json!({ "$ref": format!("#/components/responses/{name}") })
    }

    /// All that were asked for, by name.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.0
    }
}
