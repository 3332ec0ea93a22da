//! The claims of a JWT whose signature holds: parsed strictly, and checked against the settings and the time.
//!
//! A claim of the wrong type is a refusal, not a default (RFC 7519 4.1, RFC 8725 3). Ours beside the registered ones:
//! `sub_type` (`user` or `client`), `sid` (the family it was issued with), `sv` (the session version of the account), and `cv`
//! (that of the client `client_id`, where that got it for the account).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::bearer::{Header, JwtKind};
use super::{ClaimPath, JwtSettings, TypeSource};
use crate::clock::UnixSeconds;
use crate::principal::{Role, Scope, Subject, SubjectKind};
use crate::rejection::TokenFault;
use crate::store::IssuedTo;

/// Claims that hold for the settings and the time they were read at.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Who the token is about.
    pub subject: Subject,
    /// `iat`, in unix seconds.
    pub issued_at: Option<UnixSeconds>,
    /// `exp`, in unix seconds, without leeway.
    pub expires_at: Option<UnixSeconds>,
    /// `jti`.
    pub id: Option<Arc<str>>,
    /// `sid`: the family.
    pub session: Option<Arc<str>>,
    /// `sv`.
    pub session_version: Option<i64>,
    /// `client_id` and `cv`: the client that got the token for its subject.
    pub client: Option<IssuedTo>,
    /// `scope` or `scp`.
    pub scopes: Arc<[Scope]>,
    /// Every claim as it came.
    pub all: Map<String, Value>,
}

impl Claims {
    /// Reads a payload whose signature holds.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn parse(
        payload: &[u8],
        header: &Header,
        settings: &JwtSettings,
        kind: JwtKind,
        now: UnixSeconds,
    ) -> Result<Self, TokenFault> {
        let (claims, times) = Self::whenever(payload, header, settings, kind)?;
        times.check(settings, now)?;
        Ok(claims)
    }

    /// As [`Claims::parse`] at whatever time, with what is to be checked of times.
    pub(super) fn whenever(
        payload: &[u8],
        header: &Header,
        settings: &JwtSettings,
        kind: JwtKind,
    ) -> Result<(Self, Times), TokenFault> {
        let all = strict_object(payload).ok_or(TokenFault::Malformed)?;
        check_type(header, &all, &settings.token_type, kind)?;
        check_issuer(&all, settings)?;
        check_audience(&all, &settings.audience)?;
        let times = Times::read(&all)?;
        // with another issuer these claims, and `sub_type`, may mean anything
        let is_foreign = matches!(settings.subject_kind, SubjectKind::Foreign(_));
        let version = |name: &str| match all.get(name) {
            Some(value) if !is_foreign => value.as_i64().ok_or(TokenFault::Malformed).map(Some),
            Some(_) | None => Ok(None),
        };
        let session_version = version("sv")?;
        // another system's `cv` may mean anything
        let client = match session_version.map(|_| version("cv")).transpose()?.flatten() {
            Some(session_version) => {
                let id = text(&all, "client_id")?.ok_or(TokenFault::MissingClaim)?;
                Some(IssuedTo { id: id.into(), session_version })
            }
            None => None,
        };
        let session = if is_foreign { None } else { text(&all, "sid")? };
        let id = text(&all, "jti")?.map(Arc::from);
        if settings.require_jti && id.is_none() {
            return Err(TokenFault::MissingClaim);
        }
        let claims = Self {
            subject: subject(&all, settings)?,
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            id,
            session: session.map(Into::into),
            session_version,
            client,
            scopes: scopes(&all)?,
            all,
        };
        Ok((claims, times))
    }

    /// Whose a payload is that was refused though its signature holds, as far as it bears the name.
    pub(super) fn owner(payload: &[u8], settings: &JwtSettings) -> Option<Subject> {
        let all = strict_object(payload)?;
        check_issuer(&all, settings).ok()?;
        subject(&all, settings).ok().filter(|subject| settings.bears_name_of(subject.kind))
    }

    /// The ids by which it can be revoked.
    pub fn ids(&self) -> impl Iterator<Item = Arc<str>> {
        self.id.iter().chain(&self.session).cloned()
    }

    /// The roles at `path`: an array of texts, or a text split at spaces and commas. None where there is no such claim.
    ///
    /// # Errors
    /// It, or a claim on the way to it, is anything else.
    pub fn roles(&self, path: &ClaimPath) -> Result<Vec<Role>, TokenFault> {
        let found = at(&self.all, path)?;
        let names: Option<Vec<&str>> = match found.as_deref() {
            Some(Value::String(text)) => Some(text.split([' ', ',']).collect()),
            Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => None,
            Some(Value::Null) | None => Some(Vec::new()),
        };
        let names = names.filter(|names| !names.iter().any(|name| name.chars().any(char::is_control)));
        let names = names.ok_or(TokenFault::Malformed)?;
        Ok(names.into_iter().filter(|name| !name.is_empty()).map(Role::from).collect())
    }
}

/// How plain tokens say in their claims that they are to open nothing: those of `SimpleJWT` and flask-jwt-extended, of
/// Keycloak, and of Cognito.
const NO_ACCESS: [(&str, &str); 7] = [
    ("type", "refresh"),
    ("token_type", "refresh"),
    ("typ", "ID"),
    ("typ", "Refresh"),
    ("typ", "Offline"),
    ("typ", "Logout"),
    ("token_use", "id"),
];

/// A refresh token is no access token, nor is one of any other type (RFC 8725 3.11, RFC 9068 2.1).
fn check_type(
    header: &Header,
    claims: &Map<String, Value>,
    source: &TypeSource,
    kind: JwtKind,
) -> Result<(), TokenFault> {
    // "application/" may be left out (RFC 7515 4.1.9)
    let typ = header.typ.as_deref().map(str::to_ascii_lowercase);
    let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
    let (plain, ours) = match kind {
        JwtKind::Access => (matches!(typ, None | Some("jwt")), typ == Some("at+jwt")),
        JwtKind::Refresh => (matches!(typ, None | Some("jwt")), typ == Some("rt+jwt")),
    };
    let fits = match source {
        TypeSource::Header => match kind {
            JwtKind::Access => {
                ours || plain
                    && !NO_ACCESS.iter().any(|(name, kind)| claims.get(*name).is_some_and(|found| found == kind))
            }
            JwtKind::Refresh => ours,
        },
        TypeSource::Claim { claim, access, refresh, unmarked } => {
            let wanted = match kind {
                JwtKind::Access => access,
                JwtKind::Refresh => refresh,
            };
            let is_wanted = match at(claims, claim) {
                Ok(None) => *unmarked == Some(kind),
                Ok(Some(named)) => named.as_str() == Some(wanted),
                Err(_) => false,
            };
            (plain || ours) && is_wanted
        }
    };
    if fits { Ok(()) } else { Err(TokenFault::WrongType) }
}

/// The `iss` of a payload that nobody vouches for yet: to know whose keys to try, and for nothing else.
pub(super) fn issuer_of(payload: &[u8]) -> Option<String> {
    match strict_object(payload)?.remove("iss") {
        Some(Value::String(issuer)) => Some(issuer),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => None,
    }
}

fn check_issuer(claims: &Map<String, Value>, settings: &JwtSettings) -> Result<(), TokenFault> {
    let fits = match claims.get("iss") {
        None => !settings.require_iss,
        Some(named) => named.as_str() == Some(&*settings.issuer),
    };
    if fits { Ok(()) } else { Err(TokenFault::WrongIssuer) }
}

/// Where audiences are configured, one of them must be named. Where none is, a token that names any is somebody else's
/// (RFC 7519 4.1.3).
fn check_audience(claims: &Map<String, Value>, ours: &[Box<str>]) -> Result<(), TokenFault> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|name| ours.iter().any(|our| **our == *name));
    let fits = match claims.get("aud") {
        None => ours.is_empty(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => names.iter().any(is_ours),
        Some(name @ Value::String(_)) => is_ours(name),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(TokenFault::Malformed);
        }
    };
    if fits { Ok(()) } else { Err(TokenFault::WrongAudience) }
}

/// When a token holds.
pub(super) struct Times {
    expires_at: Option<UnixSeconds>,
    not_before: Option<UnixSeconds>,
    issued_at: Option<UnixSeconds>,
}

impl Times {
    /// Fractions are rounded against the token.
    fn read(claims: &Map<String, Value>) -> Result<Self, TokenFault> {
        Ok(Self {
            expires_at: numeric_date(claims, "exp", f64::floor)?,
            not_before: numeric_date(claims, "nbf", f64::ceil)?,
            issued_at: numeric_date(claims, "iat", f64::ceil)?,
        })
    }

    fn check(&self, settings: &JwtSettings, now: UnixSeconds) -> Result<(), TokenFault> {
        let leeway = settings.leeway_seconds();
        match self.expires_at {
            Some(exp) if now >= exp.saturating_add(leeway) => return Err(TokenFault::Expired),
            None if settings.require_exp => return Err(TokenFault::MissingClaim),
            Some(_) | None => {}
        }
        let latest = now.saturating_add(leeway);
        if self.not_before.is_some_and(|nbf| nbf > latest) || self.issued_at.is_some_and(|iat| iat > latest) {
            return Err(TokenFault::NotYetValid);
        }
        Ok(())
    }
}

/// RFC 7519 2: a number of seconds, with or without a fraction. What does not fit is the nearest that does.
#[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates, which is what is wanted")]
fn numeric_date(
    claims: &Map<String, Value>,
    name: &str,
    round: fn(f64) -> f64,
) -> Result<Option<UnixSeconds>, TokenFault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(TokenFault::Malformed) };
    if let Some(seconds) = number.as_i64() {
        return Ok(Some(seconds));
    }
    let seconds = number.as_f64().filter(|seconds| seconds.is_finite()).ok_or(TokenFault::Malformed)?;
    Ok(Some(round(seconds) as UnixSeconds))
}

/// `sub` is a text (RFC 7519 4.1.2); behind another path a row's number is taken too, as `SimpleJWT` writes it.
fn subject(claims: &Map<String, Value>, settings: &JwtSettings) -> Result<Subject, TokenFault> {
    let path = &settings.subject;
    let is_sub = matches!(path.0.as_slice(), [only] if **only == *"sub");
    let name: Arc<str> = match at(claims, path)?.as_deref() {
        None => return Err(TokenFault::MissingSubject),
        Some(Value::String(name)) if name.is_empty() => return Err(TokenFault::MissingSubject),
        // it would forge lines wherever names are shown
        Some(Value::String(name)) if name.chars().any(char::is_control) => return Err(TokenFault::Malformed),
        Some(Value::String(name)) => name.as_str().into(),
        Some(Value::Number(id)) if !is_sub && (id.is_i64() || id.is_u64()) => id.to_string().into(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(TokenFault::Malformed);
        }
    };
    if matches!(settings.subject_kind, SubjectKind::Foreign(_)) {
        return Ok(Subject { kind: settings.subject_kind, name });
    }
    match text(claims, "sub_type")? {
        Some("user") => Ok(Subject::user(name)),
        Some("client") => Ok(Subject::client(name)),
        Some(_) => Err(TokenFault::Malformed),
        // another's token for a client itself: client and subject are one (RFC 9068 2.2)
        None if text(claims, "client_id")? == Some(&*name) => Ok(Subject::client(name)),
        None => Ok(Subject { kind: settings.subject_kind, name }),
    }
}

/// `scope` as RFC 8693 4.2 has it, or `scp`, which is an array with some issuers.
fn scopes(claims: &Map<String, Value>) -> Result<Arc<[Scope]>, TokenFault> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        None => Ok(Arc::default()),
        Some(Value::String(text)) => Ok(text.split(' ').filter(|name| !name.is_empty()).map(Scope::from).collect()),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().map(Scope::from).ok_or(TokenFault::Malformed)).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(TokenFault::Malformed),
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, TokenFault> {
    claims.get(name).map(|value| value.as_str().ok_or(TokenFault::Malformed)).transpose()
}

/// What a path leads to; nothing where a claim on the way is absent or null. It goes into objects, and into JSON text inside
/// a claim.
///
/// # Errors
/// A claim on the way holds something else.
fn at<'a>(claims: &'a Map<String, Value>, path: &ClaimPath) -> Result<Option<Cow<'a, Value>>, TokenFault> {
    let Some((first, rest)) = path.0.split_first() else { return Ok(None) };
    let mut found = claims.get(&**first).map(Cow::Borrowed);
    for step in rest {
        found = match found {
            None => return Ok(None),
            Some(Cow::Borrowed(value)) => match value {
                Value::Object(members) => members.get(&**step).map(Cow::Borrowed),
                Value::String(json) => in_text(json, step)?,
                Value::Null => None,
                Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(TokenFault::Malformed),
            },
            Some(Cow::Owned(value)) => match value {
                Value::Object(mut members) => members.remove(&**step).map(Cow::Owned),
                Value::String(json) => in_text(&json, step)?,
                Value::Null => None,
                Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(TokenFault::Malformed),
            },
        };
    }
    Ok(found)
}

/// A member of an object that is written as text.
fn in_text(json: &str, name: &str) -> Result<Option<Cow<'static, Value>>, TokenFault> {
    let mut members = strict_object(json.as_bytes()).ok_or(TokenFault::Malformed)?;
    Ok(members.remove(name).map(Cow::Owned))
}

/// A JSON object in which no object has a member twice: two readers of such a text may see two different tokens
/// (RFC 7515 4, RFC 7519 4).
pub fn strict_object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(json).ok()?.0 {
        Value::Object(members) => Some(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}
