//! Basic: a name and a password (RFC 7617).
//!
//! An unknown name costs the same verification as a wrong password, and both are remembered alike: under the whole
//! credential, for the same time. So a repeated guess is answered as fast for a name that exists as for one that does
//! not, and a remembered good credential shortens the answer to that credential only, which its holder knows already.
//! What is to be written of a user who was not seen before is written once a password is proven.

use std::mem;
use std::sync::Arc;

use super::cache::{Depends, Verdict};
use super::password::{PasswordPool, is_ours};
use super::{Failure, Fault, Identity, LookUp, answered};
use crate::principal::{Principal, Scheme, Subject};
use crate::rejection::CredentialsFault;
use crate::secret::Secret;
use crate::store::{Account, Change, Claimed, Store};

/// Hashes of one account that a password is held against, where it gets another one each time.
const HASHES_MAX: usize = 3;

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
        Err(refused) => Ok(Verdict::refused(refused, generation, depends.and_anything())),
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
    for _ in 0..HASHES_MAX {
        let Some((account, hash)) = prove(store, passwords, &subject, &password).await? else { continue };
        if account.disabled {
            return refused(CredentialsFault::Disabled);
        }
        if store.rehashes() && !is_ours(hash.expose()) {
            renew(store, passwords, &account.subject, hash, password).await;
        }
        return Ok(account);
    }
    Err(Failure::Unavailable)
}

/// The account whose password this is, and the hash that says so; `None` where it has another hash by now, as after a
/// log-in elsewhere that hashed its password anew.
async fn prove(
    store: &dyn Store,
    passwords: &PasswordPool,
    subject: &Subject,
    password: &Secret<String>,
) -> Result<Option<(Account, Secret<String>)>, Failure> {
    let Some(claimed) = store.claimed(subject.clone()).await? else {
        passwords.verify_nobody(subject, copy(password)).await?;
        return refused(CredentialsFault::UnknownSubject);
    };
    let (hash, account) = match claimed {
        Claimed::Account(mut account) => (without_hash(&mut account), Some(account)),
        Claimed::Unseen { password_hash } => (password_hash, None),
    };
    if !passwords.verify(subject, copy(&hash), copy(password)).await? {
        return refused(CredentialsFault::WrongPassword);
    }
    if let Some(account) = account {
        return Ok(Some((account, hash)));
    }
    let account = store.proven(subject.clone(), copy(&hash)).await?;
    Ok(account.map(|mut account| {
        without_hash(&mut account);
        (account, hash)
    }))
}

fn refused<T>(fault: CredentialsFault) -> Result<T, Failure> {
    Err(Failure::Refused(Fault::Credentials(fault).into()))
}

fn copy(secret: &Secret<String>) -> Secret<String> {
    Secret::new(secret.expose().clone())
}

fn without_hash(account: &mut Account) -> Secret<String> {
    mem::replace(&mut account.password_hash, Secret::new(String::new()))
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
