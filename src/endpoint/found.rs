//! Any token that we take to what it is, for those that are told to end or to describe it.

use std::sync::Arc;

use super::Call;
use super::credentials::unavailable;
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::claims::Claims;
use crate::authenticate::{JwtSettings, answered, token};
use crate::principal::Subject;
use crate::rejection::{Rejection, TokenFault};
use crate::secret::Secret;
use crate::store::{OpaqueToken, RefreshStanding, RefreshToken, TokenDigest};
use crate::wire::opaque::{self, OpaqueKind};

/// What a token is.
pub(super) enum Found {
    /// For the scheme `Token`.
    Opaque(TokenDigest, OpaqueToken),
    /// A refresh token that the store knows, in either format; whether it is neither used nor revoked.
    Refresh { token: RefreshToken, live: bool },
    /// A JWT that is good as far as it can tell itself; a refresh token only where the store does not know it.
    Jwt(Claims, JwtKind),
    /// A JWT that another issuer signed, and what it is revoked by, if it can be.
    Foreign(Claims, Option<Arc<str>>),
    /// Nothing of ours, or not any more.
    Nothing,
}

impl Found {
    /// Whose it is, as far as that is known without asking anybody.
    pub(super) fn owner(&self, settings: &JwtSettings) -> Option<&Subject> {
        match self {
            Self::Nothing => None,
            Self::Opaque(_, token) => Some(&token.owner.subject),
            Self::Refresh { token, .. } => Some(&token.owner),
            Self::Foreign(claims, _) => Some(&claims.subject),
            Self::Jwt(claims, _) => settings.bears_name_of(claims.subject.kind).then_some(&claims.subject),
        }
    }
}

/// Whether a text has the form of a JWT rather than of an opaque token.
pub(super) fn is_jwt(text: &str) -> bool {
    memchr::memchr_iter(b'.', text.as_bytes()).count() == 2
}

impl Call<'_> {
    /// What `text` is.
    pub(super) async fn find(&self, text: &Secret<String>) -> Result<Found, Rejection> {
        let (text, digest) = (text.expose().as_str(), opaque::digest(text.expose()));
        let (store, settings) = (&self.service.store, &self.asked.auth.jwt);
        if is_jwt(text) {
            let authenticator = &self.service.authenticator;
            match authenticator.read_jwt(settings, text, JwtKind::Access) {
                Ok(claims) => return Ok(Found::Jwt(claims, JwtKind::Access)),
                Err(TokenFault::WrongType) => {
                    if let Ok(claims) = authenticator.read_jwt(settings, text, JwtKind::Refresh) {
                        let known = self.find_refresh(digest).await?;
                        return Ok(known.unwrap_or(Found::Jwt(claims, JwtKind::Refresh)));
                    }
                }
                Err(_) => {}
            }
            if let Ok(Some((claims, id))) = answered(authenticator.read_foreign(self.asked.auth, text).await)? {
                return Ok(Found::Foreign(claims, id));
            }
        }
        if text.starts_with(OpaqueKind::Refresh.prefix()) {
            return Ok(self.find_refresh(digest).await?.unwrap_or(Found::Nothing));
        }
        if !opaque::plausible(OpaqueKind::Token, text) {
            return Ok(Found::Nothing);
        }
        let token = token::find(&**store, text, self.service.clock.unix()).await.map_err(unavailable)?;
        Ok(token.live().map_or(Found::Nothing, |token| Found::Opaque(digest, token)))
    }

    /// What `text` is where its own time is over, if it says in which session it was issued: what was issued with it may
    /// live on.
    pub(super) fn find_ended(&self, text: &Secret<String>) -> Found {
        let claims = self.service.authenticator.read_jwt_whenever(&self.asked.auth.jwt, text.expose());
        let of_session = claims.ok().filter(|claims| claims.session.is_some());
        of_session.map_or(Found::Nothing, |claims| Found::Jwt(claims, JwtKind::Access))
    }

    async fn find_refresh(&self, digest: TokenDigest) -> Result<Option<Found>, Rejection> {
        let now = self.service.clock.unix();
        Ok(match self.service.store.refresh_token(digest).await.map_err(unavailable)? {
            RefreshStanding::Unknown => None,
            RefreshStanding::Live(token) => Some(Found::Refresh { live: token.expires_at > now, token }),
            RefreshStanding::Used { token, .. } | RefreshStanding::Revoked(token) => {
                Some(Found::Refresh { token, live: false })
            }
        })
    }
}
