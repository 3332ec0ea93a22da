//! Bearer: a JWT in compact form (RFC 7515 7.1, RFC 7519), strictly.
//!
//! A token is read in one order: form, header, signature, claims, and then what the store knows of its subject and ids.
//! Nothing of its claims is looked at before the signature holds. JWE, JSON serialization and keys that a token brings
//! along are refused or ignored, never followed (RFC 8725 3).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::cache::{Depends, Verdict};
use super::claims::{Claims, strict_object};
use super::keys::{Algorithm, KeyRing};
use super::{Failure, Fault, Identity, JwtSettings, LookUp, RoleSource};
use crate::clock::UnixSeconds;
use crate::principal::{Principal, Role, Scheme};
use crate::rejection::TokenFault;
use crate::store::{Account, Change, JwtStanding};

/// The longest token, in bytes; a longer one is refused before anything of it is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a JWT is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtKind {
    /// To be presented as a credential.
    Access,
    /// To be exchanged for another.
    Refresh,
}

/// What we use of a JOSE header (RFC 7515 4.1).
#[derive(Debug)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub kid: Option<Box<str>>,
    /// `typ`.
    pub typ: Option<Box<str>>,
}

impl Header {
    fn parse(json: &[u8]) -> Result<Self, TokenFault> {
        let members = strict_object(json).ok_or(TokenFault::Malformed)?;
        // what must be understood and is not (4.1.11), and unencoded payloads (RFC 7797), which `crit` has to announce
        if members.contains_key("crit") || members.contains_key("b64") {
            return Err(TokenFault::Unsupported);
        }
        let name = text(&members, "alg")?.ok_or(TokenFault::Malformed)?;
        let algorithm = Algorithm::from_name(name).ok_or(TokenFault::Unsupported)?;
        Ok(Self { algorithm, kid: text(&members, "kid")?.map(Into::into), typ: text(&members, "typ")?.map(Into::into) })
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, TokenFault> {
    members.get(name).map(|value| value.as_str().ok_or(TokenFault::Malformed)).transpose()
}

/// A token taken apart; nothing of it is believed yet.
#[derive(Debug)]
struct Compact<'a> {
    header: Header,
    /// Header and payload as they came: what is signed.
    input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    fn parse(token: &'a str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Malformed);
        }
        let (input, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, payload) = input.split_once('.').ok_or(TokenFault::Malformed)?;
        // a further dot, as in the five parts of a JWE, is no base64url
        Ok(Self {
            payload: decode(payload)?,
            signature: decode(signature)?,
            header: Header::parse(&decode(header)?)?,
            input,
        })
    }
}

/// Base64url without padding in its one canonical spelling, or one token would have many texts.
fn decode(segment: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenFault::Malformed)
}

/// The payload of a token that a key of `ring` signed.
fn verified(token: &str, ring: &KeyRing) -> Result<(Header, Vec<u8>), TokenFault> {
    let compact = Compact::parse(token)?;
    ring.verify(&compact.header, compact.input.as_bytes(), &compact.signature)?;
    Ok((compact.header, compact.payload))
}

/// The claims of a token that was signed by a key of `ring` and is good at `now`, as far as it can tell itself.
///
/// # Errors
/// Why not.
pub fn read(
    token: &str,
    settings: &JwtSettings,
    ring: &KeyRing,
    kind: JwtKind,
    now: UnixSeconds,
) -> Result<Claims, TokenFault> {
    let (header, payload) = verified(token, ring)?;
    Claims::parse(&payload, &header, settings, kind, now)
}

/// Who presents this token.
pub(super) async fn look_up(parts: &LookUp, settings: &JwtSettings, token: &str) -> Result<Verdict, Failure> {
    let generation = parts.changes.generation();
    let depends = Depends::on(&parts.changes, &Change::Keys);
    let ring = parts.keys.ring(settings);
    let claims = match read(token, settings, &ring, JwtKind::Access, parts.clock.unix()) {
        Ok(claims) => claims,
        Err(fault) => return Ok(Verdict::refused(Fault::Token(Scheme::Bearer, fault), generation, depends)),
    };
    let mut depends = depends.and(&parts.changes, &Change::Subject(claims.subject.clone()));
    for id in claims.ids() {
        depends = depends.and(&parts.changes, &Change::Session(id));
    }
    match standing(parts, settings, &claims).await {
        Ok(principal) => {
            let identity = Identity::new(principal, Scheme::Bearer, claims.expires_at);
            let end = claims.expires_at.map(|exp| exp.saturating_add(settings.leeway_seconds()));
            Ok(Verdict::accepted(identity, generation, depends).until(end))
        }
        Err(Failure::Refused(fault)) => Ok(Verdict::refused(fault, generation, depends)),
        Err(failure @ (Failure::Unavailable | Failure::Busy | Failure::Internal)) => Err(failure),
    }
}

/// The principal of claims that hold, by what the store knows of subject and ids.
pub(super) async fn standing(parts: &LookUp, settings: &JwtSettings, claims: &Claims) -> Result<Principal, Failure> {
    let known = parts.store.jwt_standing(claims.subject.clone(), claims.ids().collect()).await?;
    let account =
        alive(&known, claims, settings).map_err(|fault| Failure::Refused(Fault::Token(Scheme::Bearer, fault)))?;
    let roles: Arc<[Role]> = match (&settings.roles, account) {
        (RoleSource::Claim(path), _) => claims.roles(path).into(),
        (RoleSource::Store, Some(account)) => Arc::clone(&account.roles),
        (RoleSource::Store, None) => [].into(),
    };
    Ok(Principal {
        subject: claims.subject.clone(),
        user_id: account.map(|account| Arc::clone(&account.id)),
        roles,
        scopes: claims.scopes.clone(),
    })
}

/// The account behind the claims, where there is one, or why the token is dead.
fn alive<'a>(
    known: &'a JwtStanding,
    claims: &Claims,
    settings: &JwtSettings,
) -> Result<Option<&'a Account>, TokenFault> {
    // a token without `iat` may be from any time
    let issued_at = claims.issued_at.unwrap_or(0);
    if known.revoked {
        return Err(TokenFault::Revoked);
    }
    // an account of the same name that was made later does not bring the tokens of the removed one back
    if let Some(removed) = known.removed {
        let dead = claims.session_version.map_or(issued_at <= removed.removed_at, |sv| sv <= removed.session_version);
        if dead {
            return Err(TokenFault::Revoked);
        }
    }
    let Some(account) = &known.account else {
        // with `sv` it is a token of ours, whose subject had an account
        let needs_account = settings.roles == RoleSource::Store || claims.session_version.is_some();
        return if needs_account { Err(TokenFault::UnknownSubject) } else { Ok(None) };
    };
    if account.disabled {
        return Err(TokenFault::UnknownSubject);
    }
    let current = match claims.session_version {
        Some(version) => version == account.session_version,
        // seconds are coarse: a token of the very second in which the sessions ended may be from before
        None => account.sessions_ended_at == 0 || issued_at > account.sessions_ended_at,
    };
    if current { Ok(Some(account)) } else { Err(TokenFault::Revoked) }
}
