//! The first users and clients: those of the section `bootstrap`, created where absent and never changed after.

use super::accounts::too_long;
use super::operator::CliError;
use super::secrets;
use crate::authenticate::password::{HashError, PasswordPool, QueueFull};
use crate::config::snapshot::Snapshot;
use crate::principal::{Role, Scope, Subject, SubjectKind};
use crate::record::audit::{Audit, Event};
use crate::secret::Secret;
use crate::store::{Added, Store, StoreError};

/// An account whose secret was generated, to be shown once.
#[derive(Debug)]
pub struct Generated {
    /// Whose.
    pub subject: Subject,
    /// The password or secret in the clear.
    pub secret: Secret<String>,
}

impl Generated {
    /// Shows it, this once: on standard error, since standard output is the logs'.
    #[expect(clippy::print_stderr, reason = "nobody else will ever know it")]
    pub(super) fn show(&self) {
        let what = match self.subject.kind {
            SubjectKind::User | SubjectKind::Foreign(_) => "password of user",
            SubjectKind::Client => "secret of client",
        };
        eprintln!("portcullis: {what} {} (shown this once): {}", self.subject.name, self.secret.expose());
    }
}

/// Why they cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A hash cannot be made.
    #[error("a password of `bootstrap` cannot be hashed: {0}")]
    Hash(#[from] HashError),
    /// The pool that hashes is busy with logins.
    #[error("a password of `bootstrap` cannot be hashed: {0}")]
    Busy(#[from] QueueFull),
    /// A secret cannot be generated.
    #[error(transparent)]
    Generate(#[from] CliError),
}

/// Creates what is absent, and returns what was generated.
pub(super) async fn create(
    snapshot: &Snapshot,
    store: &dyn Store,
    passwords: &PasswordPool,
    audit: &Audit,
) -> Result<Vec<Generated>, BootstrapError> {
    let mut generated = Vec::new();
    let users = snapshot
        .bootstrap
        .users
        .iter()
        .map(|user| (Subject::user(user.name.clone()), user.password.as_ref(), user.roles.clone(), Vec::new()));
    let clients = snapshot.bootstrap.clients.iter().map(|client| {
        (Subject::client(client.id.clone()), client.secret.as_ref(), client.roles.clone(), client.scopes.clone())
    });
    for (subject, given, roles, scopes) in users.chain(clients) {
        if store.account(subject.clone()).await?.is_some() {
            continue;
        }
        let Some(made) = add(store, passwords, &subject, given, roles, scopes).await? else { continue };
        let (subject_of, details) = (Some(&subject), &[("operator", "bootstrap")]);
        audit.event(&Event { kind: "account_added", subject: subject_of, address: None, request_id: "", details });
        generated.extend(made.0.map(|secret| Generated { subject, secret }));
    }
    Ok(generated)
}

/// One that was made, with its secret where that was generated.
struct Made(Option<Secret<String>>);

/// Adds one account; `None` where somebody else was faster.
async fn add(
    store: &dyn Store,
    passwords: &PasswordPool,
    subject: &Subject,
    given: Option<&Secret<String>>,
    roles: Vec<Role>,
    scopes: Vec<Scope>,
) -> Result<Option<Made>, BootstrapError> {
    let made = if given.is_none() { Some(secrets::generate()?) } else { None };
    let clear = given.or(made.as_ref()).map(|secret| secret.expose().clone()).unwrap_or_default();
    let hash = passwords.hash(Secret::new(clear)).await??;
    let added = store.add_account(subject.clone(), hash, roles, scopes).await?;
    match added {
        Added::Yes => Ok(Some(Made(made))),
        Added::Taken => Ok(None),
        Added::TooLong(most) => Err(StoreError::Cannot(too_long(most).into()).into()),
    }
}
