//! Names and passwords to accounts: where credentials are in a request, and whether they hold.
//!
//! An attempt is spent before a password is looked at and given back where it was right, so that guesses in parallel count
//! like guesses in a row. Nothing that a caller sees, the time included, tells an unknown name from a wrong password.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use super::members::form_text;
use super::{Call, Endpoint, Incoming, Incomplete, Source};
use crate::authenticate::{Failure, Fault, Refused};
use crate::limit::Attempt;
use crate::principal::{Principal, Scheme, Scope, Subject, SubjectKind};
use crate::rejection::{CredentialsFault, MemberFault, Rejection};
use crate::secret::Secret;
use crate::store::{Account, StoreError};
use crate::wire::authorization::{self, Credential, CredentialError};

/// The longest name that is looked up, in bytes.
const NAME_BYTES_MAX: usize = 4 * 1024;

/// A name and what is to prove it.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) secret: Secret<String>,
    /// Whether it came in `Authorization`.
    pub(super) by_basic: bool,
}

/// Why credentials prove nothing.
#[derive(Debug)]
pub(super) enum Unproven {
    /// They are no good; each action has its own words for that. With whom they name, where they can be read.
    Refused(CredentialsFault, Option<Subject>),
    /// They were not looked at, or could not be.
    Otherwise(Rejection),
}

impl From<Rejection> for Unproven {
    fn from(rejection: Rejection) -> Self {
        Self::Otherwise(rejection)
    }
}

impl Incoming<'_> {
    /// The credentials of a log-in: two members, or `Authorization: Basic`. Where both are there the members count: a
    /// client may send its stale credential, of whatever scheme, with every request.
    ///
    /// # Errors
    /// A malformed `Basic`, one member without the other, and neither in a body.
    pub(super) fn pair(&self, endpoint: &Endpoint, names: (&str, &str)) -> Result<Pair, Unproven> {
        let by_members = match endpoint.from {
            Source::Either | Source::Members => self.members_pair(names, endpoint.incomplete)?,
            Source::Authorization => None,
        };
        let by_basic = || match endpoint.from {
            Source::Either | Source::Authorization => basic(&self.headers),
            Source::Members => Ok(None),
        };
        if let Some(pair) = by_members.map_or_else(by_basic, |pair| Ok(Some(pair)))? {
            return Ok(pair);
        }
        let by_authorization = endpoint.from == Source::Authorization || self.method == Method::GET;
        Err(match endpoint.incomplete {
            _ if by_authorization && !self.headers.contains_key(AUTHORIZATION) => Rejection::MissingCredentials.into(),
            _ if by_authorization => Rejection::UnsupportedScheme.into(),
            Incomplete::Credentials => Unproven::Refused(CredentialsFault::Malformed, None),
            Incomplete::Standard | Incomplete::Member => {
                let missing = [names.0, names.1].map(|name| (name, MemberFault::Missing));
                self.members.wrong(&missing).into()
            }
        })
    }

    /// The credentials of an OAuth client, by one of the two ways.
    ///
    /// # Errors
    /// A malformed `Basic`, one member without the other, and both ways at once (RFC 6749 2.3); the id alone may be
    /// repeated beside `Basic`.
    pub(super) fn client_pair(&self) -> Result<Option<Pair>, Unproven> {
        let Some(basic) = basic(&self.headers)? else {
            return self.members_pair(("client_id", "client_secret"), Incomplete::Standard);
        };
        let another = self.members.filled("client_id")?.is_some_and(|id| id != basic.name);
        if another || self.members.filled("client_secret")?.is_some() {
            return Err(Rejection::InvalidRequest("the client authenticates in two ways".into()).into());
        }
        Ok(Some(basic))
    }

    /// Two members; `None` where neither is there.
    fn members_pair(&self, names: (&str, &str), incomplete: Incomplete) -> Result<Option<Pair>, Unproven> {
        let look = |name| match self.members.look(name) {
            Ok("") if incomplete == Incomplete::Member => Err(MemberFault::Empty),
            found => found,
        };
        let (name, secret) = (look(names.0), look(names.1));
        match (name, secret) {
            (Err(MemberFault::Missing), Err(MemberFault::Missing)) => return Ok(None),
            (Ok(name), Ok(secret)) => {
                let secret = Secret::new(secret.to_owned());
                return Ok(Some(Pair { name: name.to_owned(), secret, by_basic: false }));
            }
            (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => {}
        }
        let faults = [(names.0, name.err()), (names.1, secret.err())];
        let faults: Vec<_> = faults.into_iter().filter_map(|(name, fault)| fault.map(|fault| (name, fault))).collect();
        let mistyped = faults.iter().any(|(_, fault)| *fault == MemberFault::WrongType);
        if incomplete == Incomplete::Credentials && !mistyped {
            return Err(Unproven::Refused(CredentialsFault::Malformed, None));
        }
        Err(self.members.wrong(&faults).into())
    }

    /// Whether the request comes with one `Authorization: Basic`.
    pub(super) fn has_basic(&self) -> bool {
        matches!(authorization::presented(&self.headers), Ok(Some(presented)) if presented.scheme == Scheme::Basic)
    }
}

fn basic(headers: &HeaderMap) -> Result<Option<Pair>, Unproven> {
    match authorization::presented(headers) {
        Ok(Some(presented)) if presented.scheme == Scheme::Basic => match presented.read() {
            Ok(Credential::Basic { user, password }) => Ok(Some(Pair { name: user, secret: password, by_basic: true })),
            Ok(Credential::Token(_) | Credential::Bearer(_)) | Err(_) => {
                Err(Unproven::Refused(CredentialsFault::Malformed, None))
            }
        },
        Err(repeated @ CredentialError::Repeated) => Err(Unproven::Otherwise(repeated.into())),
        Err(CredentialError::Malformed(Scheme::Basic)) => Err(Unproven::Refused(CredentialsFault::Malformed, None)),
        Ok(_) | Err(CredentialError::UnsupportedScheme | CredentialError::Malformed(_)) => Ok(None),
    }
}

impl Pair {
    /// As RFC 6749 2.3.1 wants a client to write its id and secret into Basic: form-encoded. `None` where that makes no
    /// difference.
    fn form_decoded(&self) -> Option<Self> {
        if !self.by_basic {
            return None;
        }
        let (name, secret) = (form_text(self.name.as_bytes())?, form_text(self.secret.expose().as_bytes())?);
        let same = name == self.name && secret == *self.secret.expose();
        (!same).then(|| Self { name, secret: Secret::new(secret), by_basic: true })
    }

    /// Whether it could be anybody's. A NUL is refused everywhere: some hashes cannot tell it from the end.
    fn is_plausible(&self) -> bool {
        !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && !self.name.chars().any(char::is_control)
            && !self.secret.expose().contains('\0')
    }
}

impl Call<'_> {
    /// The refusal, in the words of the action, once the audit log was told of it: there is no other way from one to the
    /// other.
    pub(super) fn refused(&self, why: Unproven, words: impl FnOnce(CredentialsFault) -> Rejection) -> Rejection {
        match why {
            Unproven::Refused(fault, claimed) => {
                self.happened("login_failed", claimed.as_ref(), &[("reason", fault.name())]);
                words(fault)
            }
            Unproven::Otherwise(rejection) => rejection,
        }
    }

    /// The account that `pair` proves.
    pub(super) async fn prove(&self, kind: SubjectKind, pair: Pair) -> Result<Account, Unproven> {
        self.prove_any(kind, vec![pair]).await
    }

    /// The client that `pair` proves, be it written plainly into Basic, as most do, or form-encoded.
    pub(super) async fn prove_client(&self, pair: Pair) -> Result<Account, Unproven> {
        let decoded = pair.form_decoded();
        self.prove_any(SubjectKind::Client, std::iter::once(pair).chain(decoded).collect()).await
    }

    /// The account that one of a few readings of the same credentials proves: one attempt for each name among them.
    async fn prove_any(&self, kind: SubjectKind, readings: Vec<Pair>) -> Result<Account, Unproven> {
        let mut attempts: Vec<(Subject, Attempt)> = Vec::with_capacity(readings.len());
        let mut refused = CredentialsFault::Malformed;
        for pair in readings {
            if !pair.is_plausible() {
                continue;
            }
            let subject = Subject { kind, name: pair.name.into() };
            if attempts.iter().all(|(known, _)| *known != subject) {
                let attempt = self.service.limits.attempt(&subject, self.asked.address).await;
                let attempt = attempt.map_err(|exhausted| {
                    self.happened("locked_out", Some(&subject), &[("limit", exhausted.limit)]);
                    Rejection::RateLimited(exhausted)
                })?;
                attempts.push((subject.clone(), attempt));
            }
            match self.service.authenticator.verify_password(subject, pair.secret).await {
                Ok(account) => {
                    for (_, attempt) in attempts {
                        attempt.succeeded().await;
                    }
                    self.asked.proven.is(&account.subject);
                    return Ok(account);
                }
                Err(Failure::Refused(Refused { fault: Fault::Credentials(fault), .. })) => refused = fault,
                Err(failure) => {
                    for (_, attempt) in attempts {
                        attempt.abandoned().await;
                    }
                    return Err(Unproven::Otherwise(failure.into()));
                }
            }
        }
        Err(Unproven::Refused(refused, attempts.into_iter().next().map(|(subject, _)| subject)))
    }
}

/// The store's failure as a refusal; what it was goes to our log.
pub(super) fn unavailable(error: StoreError) -> Rejection {
    Failure::from(error).into()
}

/// The principal of an account, limited to `scopes`.
pub(super) fn principal(account: &Account, scopes: Arc<[Scope]>) -> Principal {
    Principal {
        subject: account.subject.clone(),
        user_id: Some(Arc::clone(&account.id)),
        roles: Arc::clone(&account.roles),
        scopes,
    }
}
