//! Credential to caller: a total match over schemes, behind a cache of looked-up principals.

pub mod basic;
pub mod token;
pub mod bearer;
pub mod claims;
pub mod keys;
pub mod password;
pub mod cache;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::UnixSeconds;
use crate::principal::{Principal, Scheme};

/// Who sent a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody in particular: the route asks for no credential.
    Anyone,
    /// A principal that a credential proved.
    Known(Arc<Identity>),
}

/// A principal that a credential proved, with what is told upstream about it, ready to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// By which scheme.
    pub scheme: Scheme,
    /// The name as an identity header bears it (contract 4: percent-encoded where needed).
    pub user_field: HeaderValue,
    /// The roles, comma separated, encoded likewise.
    pub roles_field: HeaderValue,
    /// When the credential ends, in unix seconds; `None` for one that does not.
    pub expires_at: Option<UnixSeconds>,
}

/// The section `auth`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protection space named in challenges.
    pub realm: Box<str>,
    /// How long principals are remembered.
    pub cache: CacheSettings,
    /// How JWTs are read and written.
    pub jwt: Arc<JwtSettings>,
}

/// The section `auth.cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// How long a looked-up principal serves without another look-up.
    pub ttl: Duration,
    /// Entries, at most.
    pub capacity: u64,
    /// How long a refusal is remembered.
    pub negative_ttl: Duration,
    /// How long past `ttl` a principal serves while the store does not answer.
    pub stale_if_store_down: Duration,
}

/// The section `auth.jwt`, without its keys' material.
#[derive(Debug)]
pub struct JwtSettings {
    /// `iss`, issued and required.
    pub issuer: Box<str>,
    /// `aud`, issued; one of them is required where there are any.
    pub audience: Vec<Box<str>>,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Where roles come from.
    pub roles: RoleSource,
    /// The path of the user or client in the claims.
    pub subject: ClaimPath,
    /// How access and refresh tokens are told apart.
    pub token_type: TypeSource,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// The keys of the file; `None`: those in the store.
    pub keys: Option<Arc<keys::KeyRing>>,
}

/// Where the roles of a JWT's subject come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleSource {
    /// From the store, looked up by the subject.
    Store,
    /// From a claim: an array of texts, or a text split at spaces and commas.
    Claim(ClaimPath),
}

/// A path into claims, such as `realm_access.roles`; it may go into JSON text inside a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Vec<Box<str>>);

/// How the type of a JWT is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeSource {
    /// By the `typ` header: `at+jwt`, `JWT` or none is an access token; `rt+jwt` a refresh token.
    Header,
    /// By a claim.
    Claim {
        /// The path of the claim.
        claim: ClaimPath,
        /// Its value in access tokens.
        access: Box<str>,
        /// Its value in refresh tokens.
        refresh: Box<str>,
    },
}
