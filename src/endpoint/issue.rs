//! Tokens made: access JWTs (RFC 9068), opaque tokens, refresh tokens.
//!
//! What is made for one answer is stored in one transaction before it is told to anybody. A token that is refused later,
//! by what is revoked or changed, bears what that is found by: `jti`, `sid` (its family), `sv` (its owner's sessions), `cv`
//! (those of the client that got it for its owner).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::credentials::unavailable;
use super::template::{Values, What};
use super::{Call, RefreshFormat, Settings};
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::{ClaimPath, JwtSettings, RoleSource, TypeSource};
use crate::clock::UnixSeconds;
use crate::principal::{Principal, Role, Scope, Subject, SubjectKind};
use crate::rejection::Rejection;
use crate::secret::Secret;
use crate::store::{IssuedTo, NewToken, RefreshToken, TokenDigest};
use crate::wire::opaque::{self, OpaqueKind};

/// What tokens are made for.
pub(super) struct Grant {
    /// Whose; its scopes are those of the tokens that open paths.
    pub(super) principal: Principal,
    /// The scopes of the refresh token (RFC 6749 6: a refreshed token may have fewer).
    pub(super) refresh_scopes: Arc<[Scope]>,
    /// The owner's, as looked up when its credential was.
    pub(super) session_version: i64,
    /// The client that authenticated for it, where the owner is another.
    pub(super) client: Option<IssuedTo>,
    /// The family of the refresh token that was presented.
    pub(super) family: Option<Arc<str>>,
}

/// Tokens as the caller gets them.
pub(super) struct Tokens {
    pub(super) access: Option<Secret<String>>,
    pub(super) refresh: Option<Secret<String>>,
    pub(super) token: Option<Secret<String>>,
    /// Of the access token, or else of the opaque one; in seconds.
    pub(super) expires_in: u64,
}

/// Tokens with what is to be stored of them.
pub(super) struct Made {
    pub(super) tokens: Tokens,
    pub(super) token: Option<NewToken>,
    pub(super) refresh: Option<(TokenDigest, RefreshToken)>,
}

impl Tokens {
    /// The values of the placeholders.
    pub(super) fn values<'a>(&'a self, principal: &'a Principal) -> Values<'a> {
        fn shown(token: Option<&Secret<String>>) -> Option<&str> {
            token.map(|token| token.expose().as_str())
        }
        Values {
            access: shown(self.access.as_ref()),
            refresh: shown(self.refresh.as_ref()),
            token: shown(self.token.as_ref()),
            expires_in: self.expires_in,
            principal: Some(principal),
            scope: None,
        }
    }

    /// The kinds that there are, as metrics and the audit log call them.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let there = |token: &Option<Secret<String>>, kind| token.is_some().then_some(kind);
        [there(&self.access, "access"), there(&self.refresh, "refresh"), there(&self.token, "token")]
            .into_iter()
            .flatten()
    }
}

impl Call<'_> {
    /// Makes and stores what a reply names.
    pub(super) async fn issue(&self, grant: &Grant, what: What) -> Result<Tokens, Rejection> {
        let made = self.make(grant, what)?;
        if made.token.is_some() || made.refresh.is_some() {
            self.service.store.issue(made.token, made.refresh).await.map_err(unavailable)?;
        }
        self.issued(&made.tokens, grant, "token_issued");
        Ok(made.tokens)
    }

    /// Counts and tells what was issued.
    pub(super) fn issued(&self, tokens: &Tokens, grant: &Grant, kind: &'static str) {
        for kind in tokens.kinds() {
            self.service.metrics.tokens_issued.with_label_values(&[kind]).inc();
        }
        self.told(kind, tokens, &grant.principal.subject, grant.client.as_ref());
    }

    /// Tells of tokens that somebody gets, and by which client.
    pub(super) fn told(&self, kind: &'static str, tokens: &Tokens, owner: &Subject, client: Option<&IssuedTo>) {
        let kinds = tokens.kinds().collect::<Vec<_>>().join(" ");
        let client = client.map(|client| ("client", &*client.id));
        let details: Vec<_> = std::iter::once(("tokens", kinds.as_str())).chain(client).collect();
        self.happened(kind, Some(owner), &details);
    }

    /// Makes what a reply names; nothing of it holds before it is stored, but for an access JWT.
    pub(super) fn make(&self, grant: &Grant, what: What) -> Result<Made, Rejection> {
        let (settings, now) = (self.asked.tokens, self.service.clock.unix());
        let family = match (&grant.family, what.refresh) {
            (Some(family), _) => Some(Arc::clone(family)),
            (None, true) => Some(random_id()?.into()),
            (None, false) => None,
        };
        let access = what.access.then(|| self.jwt_text(grant, JwtKind::Access, family.as_deref(), now)).transpose()?;
        let (token, token_row) = match what.token.then(|| opaque::mint(OpaqueKind::Token)).transpose() {
            Ok(token) => {
                let row = token.as_ref().map(|token| new_token(grant, settings, token, family.clone(), now));
                (token, row)
            }
            Err(error) => return Err(no_randomness(error)),
        };
        let refresh = what.refresh.then(|| self.refresh_text(grant, family.as_deref(), now)).transpose()?;
        let refresh_row = refresh.as_ref().zip(family).map(|(text, family)| {
            (opaque::digest(text.expose()), refresh_token(grant, family, now + seconds(settings.refresh_ttl)))
        });
        let ttl = if what.access || !what.token { settings.access_ttl } else { settings.opaque_ttl };
        let tokens = Tokens { access, refresh, token, expires_in: ttl.as_secs() };
        Ok(Made { tokens, token: token_row, refresh: refresh_row })
    }

    fn refresh_text(&self, grant: &Grant, family: Option<&str>, now: UnixSeconds) -> Result<Secret<String>, Rejection> {
        match self.asked.tokens.refresh_format {
            RefreshFormat::Opaque => opaque::mint(OpaqueKind::Refresh).map_err(no_randomness),
            RefreshFormat::Jwt => self.jwt_text(grant, JwtKind::Refresh, family, now),
        }
    }

    fn jwt_text(
        &self,
        grant: &Grant,
        kind: JwtKind,
        family: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Secret<String>, Rejection> {
        let jwt = &*self.asked.auth.jwt;
        let claims = claims(grant, jwt, self.asked.tokens, Stamp { kind, family, jti: random_id()?, now });
        let typ = match (&jwt.token_type, kind) {
            (TypeSource::Header, JwtKind::Access) => "at+jwt",
            (TypeSource::Header, JwtKind::Refresh) => "rt+jwt",
            (TypeSource::Claim { .. }, _) => "JWT",
        };
        self.service.keys.ring(jwt).sign(typ, &claims).map(Secret::new).map_err(|error| {
            tracing::error!(%error, "token not signed");
            Rejection::Internal
        })
    }
}

/// What tells one JWT from another.
struct Stamp<'a> {
    kind: JwtKind,
    family: Option<&'a str>,
    jti: String,
    now: UnixSeconds,
}

/// The claims that a configuration cannot set: we do, and a token without them, or with others, could not be refused.
pub const PROTECTED_CLAIMS: [&str; 10] = ["aud", "cv", "exp", "iat", "iss", "jti", "nbf", "sid", "sub_type", "sv"];

fn claims(grant: &Grant, jwt: &JwtSettings, settings: &Settings, stamp: Stamp<'_>) -> Map<String, Value> {
    let ttl = match stamp.kind {
        JwtKind::Access => settings.access_ttl,
        JwtKind::Refresh => settings.refresh_ttl,
    };
    let (principal, mut claims) = (&grant.principal, Map::new());
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("iss", (&*jwt.issuer).into());
    put("sub", (&*principal.subject.name).into());
    match jwt.audience.as_slice() {
        [] => {}
        [one] => drop(put("aud", (&**one).into())),
        [..] => drop(put("aud", jwt.audience.iter().map(|audience| &**audience).collect())),
    }
    put("iat", stamp.now.into());
    put("exp", (stamp.now + seconds(ttl)).into());
    put("jti", stamp.jti.into());
    put("sv", grant.session_version.into());
    if let Some(family) = stamp.family {
        put("sid", family.into());
    }
    put("sub_type", principal.subject.kind.name().into());
    if let Some(client_id) = client_of(grant) {
        put("client_id", client_id.into());
    }
    if let Some(client) = &grant.client {
        put("cv", client.session_version.into());
    }
    let scopes = if stamp.kind == JwtKind::Access { &principal.scopes } else { &grant.refresh_scopes };
    if !scopes.is_empty() {
        put("scope", scope_text(scopes).into());
    }
    // which client a token is for, and what it may do with it, is never what the file says of all
    let of_client = client_of(grant).is_some();
    let is_set = |name: &str| PROTECTED_CLAIMS.contains(&name) || of_client && ["client_id", "scope"].contains(&name);
    let further = settings.claims.render(principal, ttl.as_secs());
    claims.extend(further.into_iter().filter(|(name, _)| !is_set(name)));
    complete(&mut claims, principal, jwt, settings, stamp.kind);
    claims
}

/// Puts in what verification will look for and the configured claims do not say: the subject, the roles and the type.
fn complete(
    claims: &mut Map<String, Value>,
    principal: &Principal,
    jwt: &JwtSettings,
    settings: &Settings,
    kind: JwtKind,
) {
    // were it another text, the token would be taken for another's
    let name = match &principal.user_id {
        Some(id) if jwt.subject_is_id && principal.subject.kind == SubjectKind::User => &**id,
        Some(_) | None => &*principal.subject.name,
    };
    let written = match at(claims, &jwt.subject) {
        Some(Value::String(text)) => *text == *name,
        Some(Value::Number(number)) => number.to_string() == *name,
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => false,
    };
    if !written {
        put_at(claims, &jwt.subject, name.into());
    }
    match &jwt.roles {
        RoleSource::Claim(path) if at(claims, path).is_none() => {
            put_at(claims, path, principal.roles.iter().map(Role::as_str).collect());
        }
        RoleSource::Claim(_) | RoleSource::Store => {}
    }
    if let TypeSource::Claim { claim, access, refresh, unmarked: _ } = &jwt.token_type {
        let value = if kind == JwtKind::Access { access } else { refresh };
        put_at(claims, claim, (&**value).into());
    }
    if settings.sub_as_json_text
        && let Some(sub @ Value::Object(_)) = claims.get_mut("sub")
    {
        *sub = sub.to_string().into();
    }
}

fn at<'a>(claims: &'a Map<String, Value>, path: &ClaimPath) -> Option<&'a Value> {
    let (first, rest) = path.0.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, step| value.get(&**step))
}

/// Sets the claim at a path; what stands in its way, such as a text where an object is needed, gives way.
fn put_at(claims: &mut Map<String, Value>, path: &ClaimPath, value: Value) {
    let Some((last, way)) = path.0.split_last() else { return };
    let mut members = claims;
    for step in way {
        let next = members.entry(step.to_string()).or_insert(Value::Null);
        if !next.is_object() {
            *next = Value::Object(Map::new());
        }
        let Value::Object(inner) = next else { return };
        members = inner;
    }
    members.insert(last.to_string(), value);
}

/// RFC 9068 2.2: the client that a token was issued to, which for a client is itself.
fn client_of(grant: &Grant) -> Option<&str> {
    let subject = &grant.principal.subject;
    match (&grant.client, subject.kind) {
        (Some(client), _) => Some(&client.id),
        (None, SubjectKind::Client) => Some(&subject.name),
        (None, SubjectKind::User | SubjectKind::Foreign(_)) => None,
    }
}

fn new_token(
    grant: &Grant,
    settings: &Settings,
    text: &Secret<String>,
    session: Option<Arc<str>>,
    now: UnixSeconds,
) -> NewToken {
    NewToken {
        digest: opaque::digest(text.expose()),
        owner: grant.principal.subject.clone(),
        scopes: Arc::clone(&grant.principal.scopes),
        expires_at: now + seconds(settings.opaque_ttl),
        session,
        client: grant.client.clone(),
        session_version: grant.session_version,
    }
}

fn refresh_token(grant: &Grant, family: Arc<str>, expires_at: UnixSeconds) -> RefreshToken {
    RefreshToken {
        owner: grant.principal.subject.clone(),
        client: grant.client.clone(),
        scopes: Arc::clone(&grant.refresh_scopes),
        family,
        expires_at,
        session_version: grant.session_version,
    }
}

/// Scopes as RFC 6749 3.3 writes them.
pub(super) fn scope_text(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

/// A setting as seconds; a hundred years where it is longer, so that sums with the time of day stay in range.
pub(super) fn seconds(duration: Duration) -> UnixSeconds {
    const CENTURY: UnixSeconds = 100 * 365 * 86_400;
    UnixSeconds::try_from(duration.as_secs()).unwrap_or(CENTURY).min(CENTURY)
}

/// 128 random bits, for a `jti` or a family.
pub(super) fn random_id() -> Result<String, Rejection> {
    let mut bits = [0_u8; 16];
    getrandom::fill(&mut bits).map_err(no_randomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

fn no_randomness(error: getrandom::Error) -> Rejection {
    tracing::error!(%error, "the system gives no random bytes");
    Rejection::Internal
}
