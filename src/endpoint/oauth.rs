//! `oauth_token`: the token endpoint of RFC 6749 3.2.

use std::collections::HashSet;
use std::sync::Arc;

use http::Response;
use serde_json::{Map, Value};

use super::credentials::{Pair, Unproven, principal};
use super::issue::{Grant, Tokens, scope_text};
use super::refresh::{Redemption, Unredeemed};
use super::template::{Values, What};
use super::{Call, Incoming};
use crate::principal::{NAME_BYTES_MAX, Principal, Scope, Subject, SubjectKind};
use crate::rejection::{CredentialsFault, OAuthError, Rejection};
use crate::secret::Secret;
use crate::store::{Account, IssuedTo};
use crate::wire::body::Body;

const INVALID_GRANT: Rejection = Rejection::OAuth(OAuthError::InvalidGrant, "Invalid or expired grant");
pub(super) const INVALID_SCOPE: Rejection =
    Rejection::OAuth(OAuthError::InvalidScope, "Scope is unknown or exceeds the grant");

impl Call<'_> {
    /// A grant to tokens.
    pub(super) async fn oauth_token(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let members = &incoming.members;
        match members.filled("grant_type")?.ok_or_else(|| members.missing("grant_type"))? {
            "client_credentials" => self.client_credentials(incoming).await,
            "password" if self.endpoint.password_grant => self.password_grant(incoming).await,
            "refresh_token" => self.refresh_grant(incoming).await,
            _ => Err(Rejection::OAuth(OAuthError::UnsupportedGrantType, "Grant type is not offered")),
        }
    }

    /// RFC 6749 4.4, without a refresh token (4.4.3) unless a configured reply names one.
    async fn client_credentials(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let client = self.client(incoming).await?.ok_or(Rejection::InvalidClient(CredentialsFault::Malformed))?;
        let scopes = self.granted_scopes(&client.scopes, incoming, &client.subject, None)?;
        let grant =
            Grant { principal: principal(&client, Arc::clone(&scopes)), refresh_scopes: scopes, ..Grant::of(&client) };
        let tokens = self.issue(&grant, self.named(false)).await?;
        Ok(self.granted(&tokens, &grant.principal, &scope_text(&grant.principal.scopes)))
    }

    /// RFC 6749 4.3. Scopes are what a client may have; a user without a client has none.
    async fn password_grant(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let client = self.client(incoming).await?;
        let members = &incoming.members;
        let pair = Pair {
            name: members.required("username")?.to_owned(),
            secret: Secret::new(members.required("password")?.to_owned()),
            by_basic: false,
        };
        // ahead of the password: what cannot succeed tells nobody whether theirs is right
        let allowed = client.as_ref().map_or(&[][..], |client| &client.scopes);
        let claimed = Subject::user(&*pair.name);
        let scopes = self.granted_scopes(allowed, incoming, &claimed, client.as_ref())?;
        let user = self.prove(SubjectKind::User, pair).await.map_err(|why| self.refused(why, |_| INVALID_GRANT))?;
        let grant = Grant {
            principal: principal(&user, Arc::clone(&scopes)),
            refresh_scopes: scopes,
            client: client.as_ref().map(issued_to),
            ..Grant::of(&user)
        };
        let tokens = self.issue(&grant, self.named(true)).await?;
        Ok(self.granted(&tokens, &grant.principal, &scope_text(&grant.principal.scopes)))
    }

    /// RFC 6749 6. A token that was issued to no client needs none to come with it.
    async fn refresh_grant(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let client = self.client(incoming).await?;
        let members = &incoming.members;
        let text = members.filled("refresh_token")?.ok_or_else(|| members.missing("refresh_token"))?;
        let redemption = Redemption {
            text: Secret::new(text.to_owned()),
            client: client.as_ref(),
            wants_client: true,
            scopes: asked_scopes(incoming)?,
            what: self.named(true),
        };
        let redeemed = self.redeem(redemption).await.map_err(|why| match why {
            Unredeemed::Refused(_) => INVALID_GRANT,
            Unredeemed::Scope => INVALID_SCOPE,
            Unredeemed::Otherwise(rejection) => rejection,
        })?;
        Ok(self.granted(&redeemed.tokens, &redeemed.principal, &redeemed.scope))
    }

    /// The client that authenticates with the request (RFC 6749 2.3); `None` where none tries to.
    pub(super) async fn client(&self, incoming: &Incoming<'_>) -> Result<Option<Account>, Rejection> {
        let members = &incoming.members;
        let invalid = |why| self.refused(why, Rejection::InvalidClient);
        // all our clients have a secret: an id alone authenticates nobody
        // one without a value is as one that is not there (RFC 6749 3.2)
        let said = [members.filled("client_id")?, members.filled("client_secret")?];
        if !incoming.has_basic() {
            match said {
                [None, None] => return Ok(None),
                [Some(id), None] => {
                    let claimed = (id.len() <= NAME_BYTES_MAX).then(|| Subject::client(id));
                    return Err(invalid(Unproven::Refused(CredentialsFault::Malformed, claimed)));
                }
                [_, Some(_)] => {}
            }
        }
        match incoming.client_pair().map_err(invalid)? {
            None => Ok(None),
            Some(pair) => self.prove_client(pair).await.map(Some).map_err(invalid),
        }
    }

    /// The scopes that are asked for, all of which must be allowed; all that are allowed where none are asked for. A refusal is
    /// told of `subject`, and of the client that came with it.
    fn granted_scopes(
        &self,
        allowed: &[Scope],
        incoming: &Incoming<'_>,
        subject: &Subject,
        client: Option<&Account>,
    ) -> Result<Arc<[Scope]>, Rejection> {
        match asked_scopes(incoming)? {
            None => Ok(allowed.into()),
            Some(asked) if asked.iter().all(|scope| allowed.contains(scope)) => Ok(asked.into()),
            Some(_) => {
                let client = client.map(|client| ("client", &*client.subject.name));
                let reason = ("reason", INVALID_SCOPE.reason());
                let details: Vec<_> = std::iter::once(reason).chain(client).collect();
                let subject = (subject.name.len() <= NAME_BYTES_MAX).then_some(subject);
                self.happened("login_failed", subject, &details);
                Err(INVALID_SCOPE)
            }
        }
    }

    /// What the reply names: a configured one decides, else an access token, with a refresh token where that is `usual`.
    fn named(&self, usual: bool) -> What {
        self.endpoint.reply.as_ref().map_or(What { access: true, refresh: usual, token: false }, super::Reply::issues)
    }

    /// The reply of RFC 6749 5.1, or the configured one.
    fn granted(&self, tokens: &Tokens, principal: &Principal, scope: &str) -> Response<Body> {
        let members = match &self.endpoint.reply {
            Some(reply) => reply.render(&Values { scope: Some(scope), ..tokens.values(principal) }),
            None => standard(tokens, scope),
        };
        self.answer(members)
    }
}

fn standard(tokens: &Tokens, scope: &str) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("access_token".into(), tokens.access.as_ref().map(|token| token.expose().as_str()).into());
    members.insert("token_type".into(), "Bearer".into());
    members.insert("expires_in".into(), tokens.expires_in.into());
    if let Some(refresh) = &tokens.refresh {
        members.insert("refresh_token".into(), refresh.expose().as_str().into());
    }
    if !scope.is_empty() {
        members.insert("scope".into(), scope.into());
    }
    members
}

fn issued_to(client: &Account) -> IssuedTo {
    IssuedTo { id: Arc::clone(&client.subject.name), session_version: client.session_version }
}

/// The scopes that the request asks for, each once; `None` where it asks for none in particular (RFC 6749 3.3). What is no
/// scope is one that nobody has.
fn asked_scopes(incoming: &Incoming<'_>) -> Result<Option<Vec<Scope>>, Rejection> {
    let Some(text) = incoming.members.filled("scope")? else { return Ok(None) };
    let mut seen = HashSet::new();
    Ok(Some(text.split(' ').filter(|scope| seen.insert(*scope)).map(Scope::from).collect()))
}
