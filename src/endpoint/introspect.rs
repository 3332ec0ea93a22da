//! `introspect`: what a token is worth now (RFC 7662), for clients with the role `introspect`.

use http::Response;
use serde_json::{Map, Value};

use super::credentials::unavailable;
use super::found::Found;
use super::issue::scope_text;
use super::{Call, Incoming};
use crate::authenticate::answered;
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::claims::Claims;
use crate::clock::UnixSeconds;
use crate::principal::{Role, Scheme, Scope, Subject, SubjectKind};
use crate::rejection::{CredentialsFault, Rejection};
use crate::secret::Secret;
use crate::store::RefreshToken;
use crate::wire::body::Body;

/// The role of clients that may ask.
pub const ROLE: &str = "introspect";

/// What a reader must not take for an access token.
const REFRESH_TOKEN: &str = "refresh_token";

impl Call<'_> {
    /// What a token is worth. One that is worth nothing is not described any further (RFC 7662 2.2).
    pub(super) async fn introspect(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let client = self.client(incoming).await?.ok_or(Rejection::InvalidClient(CredentialsFault::Malformed))?;
        if !client.roles.contains(&Role::from(ROLE)) {
            self.happened("introspection_refused", Some(&client.subject), &[("reason", "insufficient_permissions")]);
            return Err(Rejection::InsufficientPermissions(Some(Scheme::Basic)));
        }
        let members = &incoming.members;
        // a hint is no more than that (RFC 7662 2.1), but it is a text
        members.text("token_type_hint")?;
        let text = members.filled("token")?.ok_or_else(|| members.missing("token"))?;
        let described = self.describe(&Secret::new(text.to_owned())).await?;
        let members = described.unwrap_or_else(|| Map::from_iter([("active".to_owned(), false.into())]));
        Ok(self.answer(members))
    }

    async fn describe(&self, text: &Secret<String>) -> Result<Option<Map<String, Value>>, Rejection> {
        Ok(match self.find(text).await? {
            // what another issuer's tokens are worth is for that issuer to say
            Found::Nothing | Found::Foreign(..) | Found::Refresh { live: false, .. } => None,
            Found::Opaque(_, token) if token.owner.disabled => None,
            Found::Opaque(_, token) => {
                let owner = &token.owner;
                let mut members = active(&owner.subject, "Token", &token.scopes, token.expires_at);
                members.insert("roles".into(), owner.roles.iter().map(Role::as_str).collect());
                if let Some(client) = &token.client {
                    members.insert("client_id".into(), (&*client.id).into());
                }
                if let Some(issued_at) = token.issued_at {
                    members.insert("iat".into(), issued_at.into());
                }
                Some(members)
            }
            Found::Refresh { token, live: true } => self.describe_refresh(&token).await?,
            Found::Jwt(claims, kind) => self.describe_jwt(&claims, kind).await?,
        })
    }

    async fn describe_refresh(&self, token: &RefreshToken) -> Result<Option<Map<String, Value>>, Rejection> {
        let account = self.service.store.account(token.owner.clone()).await.map_err(unavailable)?;
        let alive =
            account.is_some_and(|account| !account.disabled && account.session_version == token.session_version);
        Ok(alive.then(|| {
            let mut members = active(&token.owner, REFRESH_TOKEN, &token.scopes, Some(token.expires_at));
            if let Some(client) = &token.client {
                members.insert("client_id".into(), (&*client.id).into());
            }
            members
        }))
    }

    async fn describe_jwt(&self, claims: &Claims, kind: JwtKind) -> Result<Option<Map<String, Value>>, Rejection> {
        // a refresh token of ours is known to the store as long as it lives
        if kind == JwtKind::Refresh && claims.session_version.is_some() {
            return Ok(None);
        }
        let standing = self.service.authenticator.standing(&self.asked.auth.jwt, claims).await;
        let Ok(principal) = answered(standing)? else { return Ok(None) };
        let token_type = match kind {
            JwtKind::Access => "Bearer",
            JwtKind::Refresh => REFRESH_TOKEN,
        };
        let mut members = active(&principal.subject, token_type, &principal.scopes, claims.expires_at);
        members.insert("roles".into(), principal.roles.iter().map(Role::as_str).collect());
        for name in ["client_id", "iat", "nbf", "aud", "iss", "jti"] {
            if let Some(claim) = claims.all.get(name) {
                members.insert(name.into(), claim.clone());
            }
        }
        Ok(Some(members))
    }
}

fn active(subject: &Subject, token_type: &str, scopes: &[Scope], ends: Option<UnixSeconds>) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("active".into(), true.into());
    members.insert("sub".into(), (&*subject.name).into());
    let name = match subject.kind {
        SubjectKind::User | SubjectKind::Foreign(_) => "username",
        SubjectKind::Client => "client_id",
    };
    members.insert(name.into(), (&*subject.name).into());
    members.insert("token_type".into(), token_type.into());
    if !scopes.is_empty() {
        members.insert("scope".into(), scope_text(scopes).into());
    }
    if let Some(ends) = ends {
        members.insert("exp".into(), ends.into());
    }
    members
}
