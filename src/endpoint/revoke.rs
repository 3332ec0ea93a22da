//! `revoke`: a token ends (RFC 7009), or the session of the token that a request is sent with (log-out).

use std::sync::Arc;

use http::Response;

use super::credentials::unavailable;
use super::found::Found;
use super::issue::seconds;
use super::template::Values;
use super::{Call, Ends, Incoming, Source};
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::claims::Claims;
use crate::clock::UnixSeconds;
use crate::principal::{Subject, SubjectKind};
use crate::rejection::{CredentialsFault, OAuthError, Rejection, TokenFault};
use crate::secret::Secret;
use crate::store::{Account, Change};
use crate::wire::authorization::{self, Credential, CredentialError};
use crate::wire::body::Body;

/// Until when a revocation is remembered of a token that does not end: the last second of the year 9999.
const FOREVER: UnixSeconds = 253_402_300_799;

/// How much ends with a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The token; of a refresh token, its family (RFC 7009 2.1).
    Token,
    /// All that was issued in the same session.
    Session,
}

impl Call<'_> {
    /// A token ends. One that was issued to a client is ended by that client, which authenticates (RFC 7009 2.1), or by
    /// whoever sends it as their own credential, which is a log-out; of a user's own, to hold it is enough. A token that is
    /// not known, or not any more, has ended: that is no error (2.2).
    pub(super) async fn revoke(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let client = self.client(incoming).await?;
        // a hint is no more than that (RFC 7009 2.1), but it is a text
        incoming.members.text("token_type_hint")?;
        let (text, extent) = match incoming.members.filled("token")? {
            Some(text) => (Secret::new(text.to_owned()), Extent::Token),
            None if self.endpoint.from == Source::Members => return Err(incoming.members.missing("token")),
            None => match authorization::credential(&incoming.headers) {
                Ok(Some(Credential::Token(token) | Credential::Bearer(token))) => (token, Extent::Session),
                Err(repeated @ CredentialError::Repeated) => return Err(repeated.into()),
                Ok(Some(Credential::Basic { .. }) | None) | Err(_) => return Err(incoming.members.missing("token")),
            },
        };
        let mut found = self.find(&text).await?;
        if extent == Extent::Session && matches!(found, Found::Nothing) {
            found = self.find_ended(&text);
        }
        if let Some(client) = client.as_ref().filter(|client| is_anothers(&found, client)) {
            self.happened("revocation_refused", Some(&client.subject), &[("reason", TokenFault::WrongClient.name())]);
            return Err(Rejection::OAuth(OAuthError::InvalidGrant, "Token was issued to another client"));
        }
        if client.is_none()
            && extent == Extent::Token
            && let Some(id) = issued_to(&found)
        {
            let reason = ("reason", TokenFault::WrongClient.name());
            let owner = found.owner(&self.asked.auth.jwt);
            self.happened("revocation_refused", owner, &[reason, ("client", id)]);
            return Err(Rejection::InvalidClient(CredentialsFault::Malformed));
        }
        match found {
            Found::Nothing => {}
            Found::Opaque(digest, token) => {
                if let (Extent::Session, Some(family)) = (extent, &token.session) {
                    self.end_family(family, token.expires_at.unwrap_or(FOREVER)).await?;
                }
                let store = &self.service.store;
                if !store.revoke_token(digest).await.map_err(unavailable)? {
                    store.revoke_clear_token(text).await.map_err(unavailable)?;
                }
                self.note(&Change::Token(digest));
                self.revoked("token", Some(&token.owner.subject), client.as_ref());
            }
            Found::Refresh { token, .. } => {
                match self.endpoint.ends {
                    Ends::Family => self.end_family(&token.family, token.expires_at).await?,
                    // no access token is looked up by it, so no process has to hear of it
                    Ends::Refresh => {
                        let family = Arc::clone(&token.family);
                        self.service.store.revoke_refresh_tokens(family).await.map_err(unavailable)?;
                    }
                }
                self.revoked("refresh", Some(&token.owner), client.as_ref());
            }
            Found::Foreign(claims, id) => {
                self.end_id(id, self.remembered_until(&claims)).await?;
                self.revoked("access", Some(&claims.subject), client.as_ref());
            }
            Found::Jwt(claims, kind) => {
                self.end_jwt(&claims, extent).await?;
                let kind = if kind == JwtKind::Access { "access" } else { "refresh" };
                // it has ended, whether its owner is there to be named or not
                let owner = self.service.authenticator.named(&self.asked.auth.jwt, claims.subject).await;
                self.revoked(kind, owner.ok().as_ref(), client.as_ref());
            }
        }
        let reply = self.endpoint.reply();
        Ok(self.answer(reply.render(&Values::none())))
    }

    async fn end_jwt(&self, claims: &Claims, extent: Extent) -> Result<(), Rejection> {
        let until = self.remembered_until(claims);
        let session = claims.session.as_ref().filter(|_| extent == Extent::Session);
        if let Some(family) = session {
            self.end_family(family, until).await?;
        }
        if session.is_some() && claims.id.is_none() {
            return Ok(());
        }
        self.end_id(claims.id.clone(), until).await
    }

    async fn end_id(&self, id: Option<Arc<str>>, until: UnixSeconds) -> Result<(), Rejection> {
        // to say 200 would be to say that it has ended
        let id = id.ok_or(Rejection::InvalidRequest("a token without `jti` cannot be revoked".into()))?;
        self.service.store.revoke_jwt(Arc::clone(&id), until).await.map_err(unavailable)?;
        self.note(&Change::Session(id));
        Ok(())
    }

    /// As long as it would be taken.
    fn remembered_until(&self, claims: &Claims) -> UnixSeconds {
        let leeway = seconds(self.asked.auth.jwt.leeway);
        claims.expires_at.map_or(FOREVER, |exp| exp.saturating_add(leeway).saturating_add(1))
    }

    fn revoked(&self, kind: &'static str, owner: Option<&Subject>, client: Option<&Account>) {
        self.service.metrics.tokens_revoked.with_label_values(&[kind]).inc();
        let by = client.map(|client| ("client", &*client.subject.name));
        let details: Vec<_> = std::iter::once(("tokens", kind)).chain(by).collect();
        self.happened("token_revoked", owner, &details);
        // whoever holds a token is its owner, unless a client has said that it is somebody else
        if let Some(owner) = owner.filter(|_| self.asked.proven.name().is_none()) {
            self.asked.proven.is(owner);
        }
    }
}

/// Whether a token is not this client's to end (RFC 7009 2.1).
fn is_anothers(found: &Found, client: &Account) -> bool {
    matches!(found, Found::Foreign(..)) || issued_to(found).is_some_and(|id| *id != *client.subject.name)
}

/// The client that a token was issued to, if it was to one. What a client got for itself was issued to it.
fn issued_to(found: &Found) -> Option<&str> {
    let (issued_to, owner) = match found {
        // another issuer's clients are not ours
        Found::Nothing | Found::Foreign(..) => return None,
        Found::Opaque(_, token) => (token.client.as_ref().map(|client| &*client.id), &token.owner.subject),
        Found::Refresh { token, .. } => (token.client.as_ref().map(|client| &*client.id), &token.owner),
        // what stands in `client_id` may be a claim that is configured for everybody
        Found::Jwt(claims, _) => (claims.client.as_ref().map(|client| &*client.id), &claims.subject),
    };
    let own = (owner.kind == SubjectKind::Client).then_some(&*owner.name);
    issued_to.or(own)
}
