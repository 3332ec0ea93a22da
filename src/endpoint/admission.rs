//! What the head of a request settles before an endpoint has read anything else: its method, and who asks where that has
//! no place but `Authorization`. Whoever asks without serving is told the refusals that serving would give.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use super::login::prompted;
use super::members::Members;
use super::{Action, Endpoint, Source, introspect, refresh};
use crate::authenticate::Caller;
use crate::principal::{Principal, Role, Scheme, SchemeSet, SubjectKind};
use crate::rejection::{CredentialsFault, Rejection};
use crate::wire::authorization::{self, Credential, CredentialError};

impl Endpoint {
    /// Whether it answers a request of this head with more than a refusal, as far as its body does not matter. `caller` says
    /// who sent it by one of some schemes, of which Basic names a user or a client; it is asked only where that matters.
    ///
    /// # Errors
    /// The refusal.
    pub fn admits(
        &self,
        method: &Method,
        headers: &HeaderMap,
        caller: impl FnOnce(SchemeSet, SubjectKind) -> Result<Caller, Rejection>,
    ) -> Result<(), Rejection> {
        self.takes(method)?;
        let by_head = !self.reads_body(method);
        match self.action {
            Action::Login if by_head => {
                let absent =
                    if *method == Method::GET && self.from == Source::Either { prompted(headers).err() } else { None };
                let absent = absent.unwrap_or(Rejection::MissingCredentials);
                let proven = known(caller(self.schemes(), self.named_by_basic()), absent, Rejection::LoginFailed)?;
                of_kind(&proven, SubjectKind::User).map_err(Rejection::LoginFailed)
            }
            Action::ClientLogin if by_head => {
                let absent = Rejection::MissingCredentials;
                let proven = known(caller(self.schemes(), self.named_by_basic()), absent, Rejection::InvalidClient)?;
                of_kind(&proven, SubjectKind::Client).map_err(Rejection::InvalidClient)
            }
            // what a refresh token is worth only the store knows
            Action::Refresh if by_head && headers.contains_key(AUTHORIZATION) => {
                refresh::by_bearer(headers).map(|_| ())
            }
            Action::Refresh if by_head => known(
                caller(self.schemes(), self.named_by_basic()),
                Rejection::MissingCredentials,
                Rejection::InvalidCredentials,
            )
            .map(|_| ()),
            Action::Revoke if by_head => self.admits_revocation(headers, caller),
            Action::Introspect => {
                let nobody = || Rejection::InvalidClient(CredentialsFault::Malformed);
                let proven = known(caller(self.schemes(), self.named_by_basic()), nobody(), Rejection::InvalidClient);
                // a credential of another kind is not looked at
                let other = |why| if matches!(why, Rejection::UnsupportedScheme) { nobody() } else { why };
                let proven = proven.map_err(other)?;
                of_kind(&proven, SubjectKind::Client).map_err(Rejection::InvalidClient)?;
                let may = proven.has_role(&Role::from(introspect::ROLE));
                if may { Ok(()) } else { Err(Rejection::InsufficientPermissions(Some(Scheme::Basic))) }
            }
            Action::ChangePassword => {
                let Caller::Known(identity) = caller(self.schemes(), self.named_by_basic())? else {
                    return Err(Rejection::MissingCredentials);
                };
                let is_user = identity.principal.subject.kind == SubjectKind::User;
                if is_user { Ok(()) } else { Err(Rejection::InsufficientPermissions(Some(identity.scheme))) }
            }
            // credentials may come in the body, or none are asked for
            Action::Login
            | Action::ClientLogin
            | Action::Refresh
            | Action::Revoke
            | Action::OauthToken
            | Action::Register
            | Action::Jwks
            | Action::Metadata
            | Action::Openapi
            | Action::Docs => Ok(()),
        }
    }

    /// Whom Basic names here.
    fn named_by_basic(&self) -> SubjectKind {
        match self.action {
            Action::ClientLogin | Action::OauthToken | Action::Revoke | Action::Introspect => SubjectKind::Client,
            Action::Login
            | Action::Refresh
            | Action::Register
            | Action::ChangePassword
            | Action::Jwks
            | Action::Metadata
            | Action::Openapi
            | Action::Docs => SubjectKind::User,
        }
    }

    /// A token to revoke that has no place but `Authorization`.
    fn admits_revocation(
        &self,
        headers: &HeaderMap,
        caller: impl FnOnce(SchemeSet, SubjectKind) -> Result<Caller, Rejection>,
    ) -> Result<(), Rejection> {
        let missing = || Members::none(&self.fields).missing("token");
        match authorization::credential(headers) {
            Ok(Some(Credential::Token(_) | Credential::Bearer(_))) => Ok(()),
            // it says who the client is, and no token
            Ok(Some(Credential::Basic { .. })) => {
                let basic = std::iter::once(Scheme::Basic).collect();
                known(caller(basic, self.named_by_basic()), missing(), Rejection::InvalidClient)?;
                Err(missing())
            }
            Ok(None) => {
                known(caller(self.schemes(), self.named_by_basic()), missing(), Rejection::InvalidClient).map(|_| ())
            }
            Err(repeated @ CredentialError::Repeated) => Err(repeated.into()),
            Err(CredentialError::Malformed(Scheme::Basic)) => {
                Err(Rejection::InvalidClient(CredentialsFault::Malformed))
            }
            Err(CredentialError::UnsupportedScheme | CredentialError::Malformed(_)) => Err(missing()),
        }
    }
}

/// The principal that asks; `absent` where there is none, and wrong credentials in the words of the action.
fn known(
    caller: Result<Caller, Rejection>,
    absent: Rejection,
    refused: impl FnOnce(CredentialsFault) -> Rejection,
) -> Result<Principal, Rejection> {
    match caller {
        Ok(Caller::Known(identity)) => Ok(identity.principal.clone()),
        Ok(Caller::Anyone) | Err(Rejection::MissingCredentials) => Err(absent),
        Err(Rejection::InvalidCredentials(fault)) => Err(refused(fault)),
        Err(other) => Err(other),
    }
}

/// An account of another kind is none here. A principal without one is only claimed to be somebody, of whatever kind.
fn of_kind(principal: &Principal, kind: SubjectKind) -> Result<(), CredentialsFault> {
    let is_another = principal.user_id.is_some() && principal.subject.kind != kind;
    if is_another { Err(CredentialsFault::UnknownSubject) } else { Ok(()) }
}
