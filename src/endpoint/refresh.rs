//! Refresh tokens to new tokens (contract 5, RFC 9700 4.14.2).
//!
//! Where the reply gives a new refresh token, the old one is used up, in the same transaction that keeps its successor.
//! Within a grace a second use gets the same answer, since it is most likely a retry; after it, or once the successor was
//! used, which shows that the answer came, a second use means that two parties hold the token, and its whole family ends.
//! Where the reply gives none, the token stays as it is.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};

use super::credentials::{principal, unavailable};
use super::found::is_jwt;
use super::issue::{Grant, Made, Tokens, scope_text, seconds};
use super::oauth::INVALID_SCOPE;
use super::template::What;
use super::{Call, Endpoint, Incoming, Incomplete, Source, replay};
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::claims::Claims;
use crate::authenticate::{Failure, Fault, Refused};
use crate::clock::UnixSeconds;
use crate::principal::{Principal, Scheme, Scope, Subject, SubjectKind};
use crate::rejection::{MemberFault, Rejection, TokenFault};
use crate::secret::Secret;
use crate::store::{Account, Change, RefreshStanding, RefreshToken, Rotation, StoreError, TokenDigest};
use crate::wire::authorization::{self, Credential, CredentialError};
use crate::wire::body::Body;
use crate::wire::opaque::{self, OpaqueKind};

/// How long after its use a refresh token gets the same answer again, the last millisecond included, at most and where
/// nothing is configured. The store keeps the answer for as long.
pub const REFRESH_GRACE_MAX: Duration = Duration::from_secs(10);

/// Why a refresh token gave nothing.
pub(super) enum Unredeemed {
    /// It is no good.
    Refused(TokenFault),
    /// More scopes are asked for than it has.
    Scope,
    /// It could not be looked at.
    Otherwise(Rejection),
}

impl From<TokenFault> for Unredeemed {
    fn from(fault: TokenFault) -> Self {
        Self::Refused(fault)
    }
}

impl From<Rejection> for Unredeemed {
    fn from(rejection: Rejection) -> Self {
        Self::Otherwise(rejection)
    }
}

impl From<StoreError> for Unredeemed {
    fn from(error: StoreError) -> Self {
        Self::Otherwise(unavailable(error))
    }
}

/// A refresh token and what is asked of it.
pub(super) struct Redemption<'a> {
    /// The token.
    pub(super) text: Secret<String>,
    /// The client that authenticated, if one did.
    pub(super) client: Option<&'a Account>,
    /// Whether a client's own token wants that client (RFC 6749 6).
    pub(super) wants_client: bool,
    /// The scopes that are asked for; all of the token's where `None`.
    pub(super) scopes: Option<Vec<Scope>>,
    /// What the reply names.
    pub(super) what: What,
}

/// New tokens, and for whom.
pub(super) struct Redeemed {
    pub(super) tokens: Tokens,
    pub(super) principal: Principal,
    pub(super) scope: String,
}

impl Call<'_> {
    /// A refresh token to new tokens.
    pub(super) async fn refresh(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let reply = self.endpoint.reply();
        let text = presented(self.endpoint, incoming).inspect_err(|why| {
            if let Rejection::RefreshFailed(fault) = why {
                self.refresh_failed(None, fault.name(), None);
            }
        })?;
        let redemption = Redemption { text, client: None, wants_client: false, scopes: None, what: reply.issues() };
        let redeemed = self.redeem(redemption).await.map_err(|why| match why {
            Unredeemed::Refused(fault) => Rejection::RefreshFailed(fault),
            // no scopes were asked for
            Unredeemed::Scope => Rejection::Internal,
            Unredeemed::Otherwise(rejection) => rejection,
        })?;
        Ok(self.answer(reply.render(&redeemed.tokens.values(&redeemed.principal))))
    }

    /// New tokens for a refresh token.
    pub(super) async fn redeem(&self, redemption: Redemption<'_>) -> Result<Redeemed, Unredeemed> {
        let (mut owner, client) = (None, redemption.client.map(|client| &*client.subject.name));
        let redeemed = self.exchange(redemption, &mut owner).await;
        match &redeemed {
            Ok(redeemed) => self.asked.proven.is(&redeemed.principal.subject),
            Err(Unredeemed::Refused(fault)) => self.refresh_failed(owner.as_ref(), fault.name(), client),
            Err(Unredeemed::Scope) => self.refresh_failed(owner.as_ref(), INVALID_SCOPE.reason(), client),
            // nobody can say whether it is any good
            Err(Unredeemed::Otherwise(_)) => {}
        }
        redeemed
    }

    fn refresh_failed(&self, owner: Option<&Subject>, reason: &str, client: Option<&str>) {
        let client = client.map(|id| ("client", id));
        let details: Vec<_> = std::iter::once(("reason", reason)).chain(client).collect();
        self.happened("refresh_failed", owner, &details);
    }

    /// What a redemption gives; `owner` becomes whose the token is as soon as that is known, whatever comes of it.
    async fn exchange(&self, redemption: Redemption<'_>, owner: &mut Option<Subject>) -> Result<Redeemed, Unredeemed> {
        let now_ms = self.service.clock.unix_ms();
        let digest = opaque::digest(redemption.text.expose());
        let standing = self.standing(&redemption.text, digest, owner).await?;
        if let Some(token) = standing.token() {
            *owner = Some(token.owner.clone());
        }
        let token = self.usable(&standing, now_ms).await?;
        let account = self.holder(token, &redemption).await?;
        let scopes = narrowed(token, &account, redemption.client, redemption.scopes.as_deref())?;
        let principal = principal(&account, scopes);
        if let RefreshStanding::Used { replay, .. } = &standing {
            return self.replayed(token, &redemption, replay.as_deref(), principal);
        }
        let grant = Grant {
            principal,
            refresh_scopes: Arc::clone(&token.scopes),
            session_version: token.session_version,
            client: token.client.clone(),
            family: Some(Arc::clone(&token.family)),
        };
        let tokens = if redemption.what.refresh {
            let made = self.make(&grant, redemption.what)?;
            match self.rotate(&redemption, digest, made, &grant).await? {
                Ok(tokens) => tokens,
                // somebody was faster: a retry, or the other holder of a stolen token
                Err(standing) => {
                    let token = self.usable(&standing, now_ms).await?;
                    let RefreshStanding::Used { replay, .. } = &standing else {
                        return Err(TokenFault::Revoked.into());
                    };
                    return self.replayed(token, &redemption, replay.as_deref(), grant.principal);
                }
            }
        } else {
            let made = self.make(&grant, redemption.what)?;
            if made.token.is_some() {
                self.service.store.issue(made.token, None).await?;
            }
            made.tokens
        };
        self.issued(&tokens, &grant, "token_refreshed");
        let scope = scope_text(&grant.principal.scopes);
        Ok(Redeemed { tokens, principal: grant.principal, scope })
    }

    /// Where the token stands; one that the replaced system wrote is taken into the store first. `owner` becomes whose a JWT
    /// is, as far as its claims bear the name.
    async fn standing(
        &self,
        text: &Secret<String>,
        digest: TokenDigest,
        owner: &mut Option<Subject>,
    ) -> Result<RefreshStanding, Unredeemed> {
        let store = &self.service.store;
        if !is_jwt(text.expose()) {
            if !opaque::plausible(OpaqueKind::Refresh, text.expose()) {
                return Err(TokenFault::Malformed.into());
            }
            return Ok(store.refresh_token(digest).await?);
        }
        let settings = &self.asked.auth.jwt;
        let authenticator = &self.service.authenticator;
        let claims = authenticator
            .read_jwt(settings, text.expose(), JwtKind::Refresh)
            .inspect_err(|_| *owner = authenticator.owner_of_jwt(settings, text.expose()))?;
        *owner = settings.bears_name_of(claims.subject.kind).then(|| claims.subject.clone());
        let standing = store.refresh_token(digest).await?;
        // what bears `sv` is ours, and known as long as it lives
        if !matches!(standing, RefreshStanding::Unknown) || claims.session_version.is_some() {
            return Ok(standing);
        }
        let foreign = self.foreign(&claims, owner).await?;
        match store.issue(None, Some((digest, foreign))).await {
            Ok(()) => Ok(store.refresh_token(digest).await?),
            // two first uses at once: the other one has put it in
            Err(error) => match store.refresh_token(digest).await? {
                RefreshStanding::Unknown => Err(error.into()),
                known @ (RefreshStanding::Live(_) | RefreshStanding::Used { .. } | RefreshStanding::Revoked(_)) => {
                    Ok(known)
                }
            },
        }
    }

    /// A refresh JWT of the replaced system, as we would have stored it. `owner` becomes whose it is where the store says that.
    async fn foreign(&self, claims: &Claims, owner: &mut Option<Subject>) -> Result<RefreshToken, Unredeemed> {
        // without a leeway: a row of the store ends with its token, and must not be made anew
        let expires_at = claims.expires_at.ok_or(TokenFault::MissingClaim)?;
        if expires_at <= self.service.clock.unix() {
            return Err(TokenFault::Expired.into());
        }
        let authenticator = &self.service.authenticator;
        let principal = authenticator.standing(&self.asked.auth.jwt, claims).await;
        let principal = principal.map_err(|failure| match failure {
            Failure::Refused(Refused { fault: Fault::Token(_, fault), whose }) => {
                if let Some(whose) = whose {
                    *owner = Some(Subject::clone(&whose));
                }
                Unredeemed::Refused(fault)
            }
            other @ (Failure::Refused(_)
            | Failure::Unavailable
            | Failure::NoKeys
            | Failure::Busy
            | Failure::Internal
            | Failure::Exhausted(_)) => Unredeemed::Otherwise(other.into()),
        })?;
        let account = self.service.store.account(principal.subject).await?;
        let account = account.ok_or(TokenFault::UnknownSubject)?;
        let family = match claims.session.as_ref().or(claims.id.as_ref()) {
            Some(id) => Arc::clone(id),
            None => super::issue::random_id()?.into(),
        };
        Ok(RefreshToken {
            owner: account.subject.clone(),
            client: None,
            scopes: Arc::clone(&account.scopes),
            family,
            expires_at,
            session_version: account.session_version,
        })
    }

    /// The token, where it is live, or was used within the grace and its successor was not. Any other use ends its family,
    /// whoever it is that asks.
    pub(super) async fn usable<'s>(
        &self,
        standing: &'s RefreshStanding,
        now_ms: i64,
    ) -> Result<&'s RefreshToken, Unredeemed> {
        match standing {
            RefreshStanding::Unknown => Err(TokenFault::Unknown.into()),
            RefreshStanding::Revoked(_) => Err(TokenFault::Revoked.into()),
            RefreshStanding::Used { token, used_at_ms, replay }
                if replay.is_none() || !self.within_grace(now_ms.saturating_sub(*used_at_ms)) =>
            {
                self.service.metrics.refresh_reuse.inc();
                let issued_to = token.client.as_ref().map(|client| ("client", &*client.id));
                self.happened("refresh_reused", Some(&token.owner), issued_to.as_slice());
                self.end_family(&token.family, token.expires_at).await?;
                self.service.metrics.tokens_revoked.with_label_values(&["refresh"]).inc();
                Err(TokenFault::Revoked.into())
            }
            RefreshStanding::Live(token) | RefreshStanding::Used { token, .. }
                if token.expires_at.saturating_mul(1_000) <= now_ms =>
            {
                Err(TokenFault::Expired.into())
            }
            RefreshStanding::Live(token) | RefreshStanding::Used { token, .. } => Ok(token),
        }
    }

    /// Whether a second use so many milliseconds after the first is most likely a retry.
    fn within_grace(&self, elapsed_ms: i64) -> bool {
        let grace = self.asked.tokens.refresh_grace;
        !grace.is_zero() && i128::from(elapsed_ms) <= i128::try_from(grace.as_millis()).unwrap_or(0)
    }

    /// The account of the token's owner, where it may still use it.
    async fn holder(&self, token: &RefreshToken, redemption: &Redemption<'_>) -> Result<Account, Unredeemed> {
        // a token that a client got is that client's alone (RFC 6749 6), and a client comes with no token of others
        let theirs = match (&token.client, redemption.client) {
            (Some(issued_to), Some(client)) => client.subject == Subject::client(Arc::clone(&issued_to.id)),
            (None, Some(client)) => client.subject == token.owner,
            (Some(_), None) => false,
            (None, None) => !redemption.wants_client || token.owner.kind != SubjectKind::Client,
        };
        if !theirs {
            return Err(TokenFault::WrongClient.into());
        }
        let account = self.service.store.account(token.owner.clone()).await?;
        let account = account.ok_or(TokenFault::UnknownSubject)?;
        if account.disabled {
            return Err(TokenFault::Disabled.into());
        }
        if account.session_version != token.session_version {
            return Err(TokenFault::Revoked.into());
        }
        Ok(account)
    }

    /// Uses the token up; where it was used or revoked meanwhile, says how it stands.
    async fn rotate(
        &self,
        redemption: &Redemption<'_>,
        used: TokenDigest,
        made: Made,
        grant: &Grant,
    ) -> Result<Result<Tokens, RefreshStanding>, Rejection> {
        let (successor, row) = made.refresh.ok_or(Rejection::Internal)?;
        let scope = scope_text(&grant.principal.scopes);
        let replay = replay::seal(&redemption.text, &made.tokens, &scope).ok_or(Rejection::Internal)?;
        let rotation = Rotation {
            used,
            used_at_ms: self.service.clock.unix_ms(),
            replay,
            successor,
            successor_expires_at: row.expires_at,
            scopes: row.scopes,
            token: made.token,
        };
        Ok(match self.service.store.rotate(rotation).await.map_err(unavailable)? {
            RefreshStanding::Live(_) => Ok(made.tokens),
            other @ (RefreshStanding::Used { .. } | RefreshStanding::Revoked(_) | RefreshStanding::Unknown) => {
                Err(other)
            }
        })
    }

    /// The same tokens again. An answer that cannot be opened, or lacks what this reply names, is none.
    fn replayed(
        &self,
        token: &RefreshToken,
        redemption: &Redemption<'_>,
        kept: Option<&[u8]>,
        principal: Principal,
    ) -> Result<Redeemed, Unredeemed> {
        let opened = kept.and_then(|kept| replay::open(&redemption.text, kept));
        let (tokens, scope) = opened.ok_or(TokenFault::Revoked)?;
        let what = redemption.what;
        let lacks = what.access && tokens.access.is_none()
            || what.refresh && tokens.refresh.is_none()
            || what.token && tokens.token.is_none();
        if lacks {
            return Err(TokenFault::Revoked.into());
        }
        self.told("refresh_repeated", &tokens, &token.owner, token.client.as_ref());
        Ok(Redeemed { tokens, principal, scope })
    }

    /// Ends a family: its refresh tokens, its opaque tokens, and its JWTs. `latest` is when one of them is known to end.
    pub(super) async fn end_family(&self, family: &Arc<str>, latest: UnixSeconds) -> Result<(), Rejection> {
        let settings = self.asked.tokens;
        let longest = settings.access_ttl.max(settings.refresh_ttl).max(settings.opaque_ttl);
        let leeway = seconds(self.asked.auth.jwt.leeway);
        let until = latest.max(self.service.clock.unix() + seconds(longest)) + leeway + 1;
        self.service.store.revoke_family(Arc::clone(family), until).await.map_err(unavailable)?;
        self.note(&Change::Session(Arc::clone(family)));
        Ok(())
    }
}

/// The refresh token of a request: the member, or else `Authorization: Bearer`. The member goes first, since clients send
/// their access token with every request.
fn presented(endpoint: &Endpoint, incoming: &Incoming<'_>) -> Result<Secret<String>, Rejection> {
    const NAME: &str = "refresh_token";
    match incoming.members.text(NAME)? {
        Some("") if endpoint.incomplete == Incomplete::Member => {
            return Err(incoming.members.wrong(&[(NAME, MemberFault::Empty)]));
        }
        Some(text) => return Ok(Secret::new(text.to_owned())),
        None if endpoint.from == Source::Members => return Err(incoming.members.missing(NAME)),
        None => {}
    }
    by_bearer(&incoming.headers).map_err(|why| {
        let is_absent = matches!(why, Rejection::MissingCredentials | Rejection::UnsupportedScheme);
        if is_absent && incoming.members.came() { incoming.members.missing(NAME) } else { why }
    })
}

/// The refresh token in `Authorization: Bearer`.
pub(super) fn by_bearer(headers: &HeaderMap) -> Result<Secret<String>, Rejection> {
    match authorization::credential(headers) {
        Ok(Some(Credential::Bearer(token))) => Ok(token),
        Err(repeated @ CredentialError::Repeated) => Err(repeated.into()),
        Err(CredentialError::Malformed(Scheme::Bearer)) => Err(Rejection::RefreshFailed(TokenFault::MalformedHeader)),
        Ok(None) => Err(Rejection::MissingCredentials),
        Ok(Some(Credential::Basic { .. } | Credential::Token(_)))
        | Err(CredentialError::UnsupportedScheme | CredentialError::Malformed(_)) => Err(Rejection::UnsupportedScheme),
    }
}

/// The scopes that are asked for, or all, of those that the grant has and its client still has.
fn narrowed(
    token: &RefreshToken,
    owner: &Account,
    client: Option<&Account>,
    asked: Option<&[Scope]>,
) -> Result<Arc<[Scope]>, Unredeemed> {
    let granting = client.unwrap_or(owner);
    let granted = token.scopes.iter().filter(|scope| granting.scopes.contains(scope));
    let Some(asked) = asked else { return Ok(granted.cloned().collect()) };
    let granted: Vec<_> = granted.collect();
    if asked.iter().all(|scope| granted.contains(&scope)) { Ok(asked.into()) } else { Err(Unredeemed::Scope) }
}
