//! Tokens that others issued (`auth.issuers`): whom we believe, and what their tokens say.
//!
//! The `iss` of a token chooses its issuer, byte for byte, before anything is believed; then only that issuer's keys are
//! tried, only for the algorithms that it is configured with, and the claims must name it again. Whoever a token is about
//! is a principal of that issuer: nobody of our store, and nobody of another issuer, whatever the names.

pub mod jwks;
pub mod fetch;
mod remote;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::runtime::Handle;

use self::fetch::Location;
use self::jwks::KeySet;
use self::remote::{Answer, Pace, Remote, Surroundings};
use super::bearer::{Compact, JwtKind};
use super::cache::{Depends, Verdict};
use super::claims::{Claims, issuer_of};
use super::keys::Algorithm;
use super::{Failure, Identity, JwtSettings, LookUp, Refused, RoleSource, answered};
use crate::clock::Clock;
use crate::principal::{IssuerId, NAME_BYTES_MAX, Principal, Role, Scheme, Subject};
use crate::record::metrics::Metrics;
use crate::rejection::TokenFault;
use crate::store::Change;
use crate::store::changes::Changes;

/// One of `auth.issuers`.
#[derive(Debug)]
pub struct Issuer {
    /// Who.
    pub id: IssuerId,
    /// What its tokens must say, and where they say it.
    pub claims: JwtSettings,
    /// What it signs with. No HMAC: a key that verifies is public.
    pub algorithms: Vec<Algorithm>,
    /// What is put before the names of its users, for upstreams and logs.
    pub user_prefix: Box<str>,
    /// Its keys.
    pub jwks: Jwks,
}

/// Where an issuer's keys are.
#[derive(Debug)]
pub enum Jwks {
    /// In a file, which was read with the configuration.
    File(KeySet),
    /// At a URL.
    Remote(Arc<Location>),
}

impl Issuer {
    /// What a token of this issuer is revoked by. Its `jti` alone could be that of another's token.
    pub fn revocation_id(&self, jti: &str) -> Arc<str> {
        revocation_id(&self.claims.issuer, jti)
    }

    /// Writes all that its tokens are read by into `digest`.
    pub(super) fn digest(&self, digest: &mut Context) {
        digest.update(format!("{self:?}").as_bytes());
        if let Jwks::File(keys) = &self.jwks {
            keys.fingerprints().for_each(|fingerprint| digest.update(fingerprint));
        }
    }

    /// Whom claims are about, as upstreams and logs name them.
    fn subject(&self, claimed: &Subject) -> Result<Subject, TokenFault> {
        if claimed.name.len() > NAME_BYTES_MAX {
            return Err(TokenFault::Malformed);
        }
        Ok(Subject::foreign(self.id, format!("{}{}", self.user_prefix, claimed.name)))
    }

    /// The principal of claims whose subject is as [`Self::subject`] has it.
    fn principal(&self, claims: &Claims) -> Result<Principal, TokenFault> {
        let roles: Arc<[Role]> = match &self.claims.roles {
            RoleSource::Claim(path) => claims.roles(path)?.into(),
            RoleSource::Store => Arc::default(),
        };
        Ok(Principal { subject: claims.subject.clone(), user_id: None, roles, scopes: Arc::clone(&claims.scopes) })
    }
}

/// What the token of `issuer` with this `jti` is revoked by.
pub fn revocation_id(issuer: &str, jti: &str) -> Arc<str> {
    let mut digest = Context::new(&SHA256);
    for part in [issuer, jti] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    format!("iss {}", URL_SAFE_NO_PAD.encode(digest.finish())).into()
}

/// The issuer whose token this claims to be.
pub(super) fn named<'i>(issuers: &'i [Issuer], compact: &Compact<'_>) -> Option<&'i Issuer> {
    if issuers.is_empty() {
        return None;
    }
    let name = issuer_of(&compact.payload)?;
    issuers.iter().find(|issuer| *issuer.claims.issuer == *name)
}

/// Keys of issuers at URLs; one a process. They outlive a reload where URL and algorithms do.
pub struct Issuers {
    remotes: ArcSwap<HashMap<IssuerId, Arc<Remote>>>,
    around: Surroundings,
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuers").finish_non_exhaustive()
    }
}

impl Issuers {
    /// None yet; [`Issuers::apply`] sets them.
    pub fn new(changes: Arc<Changes>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { remotes: ArcSwap::default(), around: Surroundings { changes, clock, metrics, pace: Pace::USUAL } }
    }

    #[cfg(test)]
    fn paced(mut self, pace: Pace) -> Self {
        self.around.pace = pace;
        self
    }

    /// Takes the issuers of a configuration, before it serves, and begins to fetch their keys on `background`.
    pub fn apply(&self, issuers: &[Issuer], background: &Handle) {
        let old = self.remotes.load_full();
        let mut remotes = HashMap::new();
        for issuer in issuers {
            let Jwks::Remote(location) = &issuer.jwks else { continue };
            let kept = old.get(&issuer.id).filter(|remote| remote.is_of(location, &issuer.algorithms));
            let remote = if let Some(kept) = kept {
                kept.follow(Arc::clone(location));
                Arc::clone(kept)
            } else {
                let (label, around) = (&issuer.claims.issuer, self.around.clone());
                let location = Arc::clone(location);
                Arc::new(Remote::start(issuer.id, label, location, &issuer.algorithms, around, background))
            };
            remotes.insert(issuer.id, remote);
        }
        for (_, gone) in old.iter().filter(|(id, _)| !remotes.contains_key(*id)) {
            // fails where nothing was ever fetched, and then it is gone as well
            self.around.metrics.jwks_keys.remove_label_values(&[gone.label()]).unwrap_or_default();
        }
        self.remotes.store(Arc::new(remotes));
    }

    fn remote(&self, id: IssuerId) -> Option<Arc<Remote>> {
        self.remotes.load().get(&id).cloned()
    }
}

/// The claims of a token of `issuer` that is good as far as it can tell itself, with their subject as upstreams and logs name
/// it.
///
/// # Errors
/// [`Failure::Refused`] with the reason, or [`Failure::NoKeys`].
pub(super) async fn read(parts: &LookUp, issuer: &Issuer, compact: &Compact<'_>) -> Result<Claims, Failure> {
    let refused = |fault| Failure::Refused(Refused::token(Scheme::Bearer, fault, None));
    let header = &compact.header;
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(refused(TokenFault::Unsupported));
    }
    let (input, signature) = (compact.input.as_bytes(), compact.signature.as_slice());
    let answer = match &issuer.jwks {
        Jwks::File(keys) => match keys.verify(header, input, signature) {
            jwks::Match::Good => Answer::Good,
            jwks::Match::Bad(fault) => Answer::Bad(fault),
            jwks::Match::UnknownKey => Answer::UnknownKey,
        },
        Jwks::Remote(_) => match parts.issuers.remote(issuer.id) {
            Some(remote) => remote.verify(header, input, signature).await,
            // a newer configuration, which is about to serve, does not know the issuer
            None => return Err(refused(TokenFault::WrongIssuer)),
        },
    };
    match answer {
        Answer::Good => {}
        Answer::Bad(fault) => return Err(refused(fault)),
        Answer::UnknownKey => return Err(refused(TokenFault::BadSignature)),
        Answer::NoKeys => return Err(Failure::NoKeys),
    }
    match Claims::parse(&compact.payload, header, &issuer.claims, JwtKind::Access, parts.clock.unix()) {
        Ok(claims) => Ok(Claims { subject: issuer.subject(&claims.subject).map_err(refused)?, ..claims }),
        Err(fault) => {
            let claimed = Claims::owner(&compact.payload, &issuer.claims);
            let whose = claimed.and_then(|claimed| issuer.subject(&claimed).ok());
            Err(Failure::Refused(Refused::token(Scheme::Bearer, fault, whose)))
        }
    }
}

/// Who presents a token of `issuer`.
pub(super) async fn look_up(parts: &LookUp, issuer: &Issuer, compact: &Compact<'_>) -> Result<Verdict, Failure> {
    let generation = parts.changes.generation();
    let depends = Depends::on_issuer(&parts.changes, issuer.id);
    let claims = match answered(read(parts, issuer, compact).await)? {
        Ok(claims) => claims,
        Err(refused) => return Ok(Verdict::refused(refused, generation, depends)),
    };
    let refused = |fault, depends| {
        let refused = Refused::token(Scheme::Bearer, fault, Some(claims.subject.clone()));
        Ok(Verdict::refused(refused, generation, depends))
    };
    let mut depends = depends;
    if let Some(jti) = &claims.id {
        let id = issuer.revocation_id(jti);
        depends = depends.and(&parts.changes, &Change::Session(Arc::clone(&id)));
        if parts.store.jwt_revoked(vec![id]).await? {
            return refused(TokenFault::Revoked, depends);
        }
    }
    match issuer.principal(&claims) {
        Ok(principal) => {
            let identity = Identity::new(principal, Scheme::Bearer, claims.expires_at);
            let end = claims.expires_at.map(|exp| exp.saturating_add(issuer.claims.leeway_seconds()));
            Ok(Verdict::accepted(identity, generation, depends).until(end))
        }
        Err(fault) => refused(fault, depends),
    }
}
