//! Token: an opaque text that the store knows by its SHA-256.
//!
//! What has our prefix and not our checksum never reaches the store. A text without our prefix does: it may come from a
//! table that was there before us.

use std::sync::Arc;

use super::cache::{Depends, Verdict};
use super::{Failure, Identity, LookUp, Refused};
use crate::clock::UnixSeconds;
use crate::principal::{Principal, Scheme, Subject};
use crate::rejection::TokenFault;
use crate::secret::Secret;
use crate::store::{Change, Store, StoreError, TokenStanding, digest};
use crate::wire::opaque::{OpaqueKind, plausible};

/// Where a token stands, wherever it is kept. One that bears our prefix is nobody else's.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store, text: &str, now: UnixSeconds) -> Result<TokenStanding, StoreError> {
    let found = store.token(digest(text), now).await?;
    if matches!(found, TokenStanding::Live(_)) || text.starts_with(OpaqueKind::Token.prefix()) {
        return Ok(found);
    }
    let kept_clear = store.clear_token(Secret::new(text.to_owned()), now).await?;
    Ok(kept_clear.map_or(found, |token| TokenStanding::Live(Box::new(token))))
}

/// Who presents this token.
pub(super) async fn look_up(parts: &LookUp, token: &str) -> Result<Verdict, Failure> {
    let generation = parts.changes.generation();
    let digest = digest(token);
    let depends = Depends::on(&parts.changes, &Change::Token(digest));
    let refused =
        |fault, whose, depends| Ok(Verdict::refused(Refused::token(Scheme::Token, fault, whose), generation, depends));
    if !plausible(OpaqueKind::Token, token) {
        return refused(TokenFault::Malformed, None, depends);
    }
    let now = parts.clock.unix();
    let found = match find(&*parts.store, token, now).await? {
        TokenStanding::Live(found) => *found,
        TokenStanding::Ended { owner, expired } => {
            let fault = if expired { TokenFault::Expired } else { TokenFault::Revoked };
            return refused(fault, Some(owner), depends);
        }
        TokenStanding::Unknown => return refused(TokenFault::Unknown, None, depends),
    };
    let mut depends = depends.and(&parts.changes, &Change::Subject(found.owner.subject.clone()));
    if let Some(client) = &found.client {
        depends = depends.and(&parts.changes, &Change::Subject(Subject::client(Arc::clone(&client.id))));
    }
    if let Some(session) = found.session {
        depends = depends.and(&parts.changes, &Change::Session(session));
    }
    if found.expires_at.is_some_and(|end| now >= end) {
        return refused(TokenFault::Expired, Some(found.owner.subject), depends);
    }
    if found.owner.disabled {
        return refused(TokenFault::Disabled, Some(found.owner.subject), depends);
    }
    let principal = Principal {
        subject: found.owner.subject,
        user_id: Some(found.owner.id),
        roles: found.owner.roles,
        scopes: found.scopes,
    };
    let identity = Identity::new(principal, Scheme::Token, found.expires_at);
    Ok(Verdict::accepted(identity, generation, depends).until(found.expires_at))
}
