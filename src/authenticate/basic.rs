//! Basic: a name and a password (RFC 7617).
//!
//! An unknown name costs the same verification as a wrong password, and both are remembered alike: under the whole
//! credential, for the same time. So a repeated guess is answered as fast for a name that exists as for one that does
//! not, and a remembered good credential shortens the answer to that credential only, which its holder knows already.

use std::mem;
use std::sync::Arc;

use super::cache::{Depends, Verdict};
use super::password::{PasswordPool, is_ours};
use super::{Failure, Fault, Identity, LookUp, answered};
use crate::principal::{Principal, Scheme, Subject};
use crate::rejection::CredentialsFault;
use crate::secret::Secret;
use crate::store::{Account, Change, Store};

/// Who presents this name and password.
pub(super) async fn look_up(parts: &LookUp, user: String, password: Secret<String>) -> Result<Verdict, Failure> {
    let generation = parts.changes.generation();
    let subject = Subject::user(user);
    let depends = Depends::on(&parts.changes, &Change::Subject(subject.clone()));
    match answered(verify(&*parts.store, &parts.passwords, subject, password).await)? {
        Ok(account) => {
            let principal = Principal {
                subject: account.subject,
                user_id: Some(account.id),
                roles: account.roles,
                scopes: Arc::default(),
            };
            Ok(Verdict::accepted(Identity::new(principal, Scheme::Basic, None), generation, depends))
        }
        // only a name that exists is ever changed: a refusal that ended with a change of its name would tell which do
        Err(fault) => Ok(Verdict::refused(fault, generation, depends.and_anything())),
    }
}

/// The account of `subject`, where `password` is its password or secret and it may be used. The hash is not in it any
/// more. The password is verified in every case, a disabled account's and nobody's too.
///
/// # Errors
/// [`Failure::Refused`] with the reason for the log, or why it could not be said.
pub(super) async fn verify(
    store: &dyn Store,
    passwords: &PasswordPool,
    subject: Subject,
    password: Secret<String>,
) -> Result<Account, Failure> {
    let refused = |fault| Err(Failure::Refused(Fault::Credentials(fault)));
    let Some(mut account) = store.account(subject.clone()).await? else {
        passwords.verify_nobody(&subject, password).await?;
        return refused(CredentialsFault::UnknownSubject);
    };
    let hash = mem::replace(&mut account.password_hash, Secret::new(String::new()));
    let renewed = store.rehashes() && !is_ours(hash.expose());
    let kept = renewed.then(|| (Secret::new(hash.expose().clone()), Secret::new(password.expose().clone())));
    if !passwords.verify(&subject, hash, password).await? {
        return refused(CredentialsFault::WrongPassword);
    }
    if account.disabled {
        return refused(CredentialsFault::Disabled);
    }
    if let Some((old, password)) = kept {
        renew(store, passwords, &account.subject, old, password).await;
    }
    Ok(account)
}

/// Puts a hash of ours in the place of another's. The login was good whether this succeeds or not.
async fn renew(
    store: &dyn Store,
    passwords: &PasswordPool,
    subject: &Subject,
    old: Secret<String>,
    password: Secret<String>,
) {
    // a pool that is busy with logins has no time for it, the next login will do
    let Ok(Ok(new)) = passwords.hash(password).await else { return };
    if let Err(error) = store.rehash(subject.clone(), old, new).await {
        tracing::warn!(%error, user = %subject.name, "password not hashed anew");
    }
}
