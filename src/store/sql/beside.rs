//! What is kept beside the users of another application, whose table has no column for it.
//!
//! It is a person's, and a person is known by the id of the row, the name and the hash together. A row that does not fit
//! what is kept was changed behind our back, and is judged only once it was settled who it is now: the same person with
//! another hash or another name, or another person. A session version never comes twice for a name or for an id, so that
//! no token of before is ever good for whoever has either of them later.

use aws_lc_rs::digest::{SHA256, digest as sha};

use super::super::statements::{end_sessions, note};
use super::super::{Account, Change, StoreError, Tombstone};
use super::Inner;
use super::engine::{Engine, Tx, query};
use super::relations::{Found, Relations};
use crate::clock::UnixSeconds;
use crate::principal::{Subject, SubjectKind};

/// The kind of tombstones that are of an id in another application's table, and not of a name.
const OF_ID: &str = "user_id";

/// The kind of the one that is of every id, left by a migration: nobody knew then which ids the removed ones had.
const OF_ALL_IDS: &str = "ids";

/// What is remembered of a hash, to notice that another one was put in its place.
pub(super) fn mark(hash: &str) -> Vec<u8> {
    sha(&SHA256, hash.as_bytes()).as_ref().to_vec()
}

/// Whether nobody else has this hash: one that has no salt, or is none, tells nothing of who it is of.
pub(super) fn is_of_one_person(hash: &str) -> bool {
    let (make, rest) = hash.split_once('$').unwrap_or_default();
    // Django's without a salt
    !(rest.is_empty() || matches!(make, "md5" | "sha1") && rest.starts_with('$'))
}

/// A row of what is kept.
struct Kept {
    user_id: String,
    /// None where somebody else has taken it since.
    name: Option<String>,
    mark: Vec<u8>,
    session_version: i64,
    sessions_ended_at: UnixSeconds,
    disabled: bool,
}

impl Kept {
    async fn find(tx: &mut Tx, column: &str, value: &str) -> Result<Option<Self>, StoreError> {
        let row = query(format!(
            "SELECT user_id, name, mark, session_version, sessions_ended_at, disabled FROM portcullis_user_state \
             WHERE {column} = ?"
        ))
        .bind(value)
        .row(tx.db())
        .await?;
        row.map(|row| {
            Ok(Self {
                user_id: row.text("user_id")?,
                name: row.maybe_text("name")?,
                mark: row.maybe_bytes("mark")?.unwrap_or_default(),
                session_version: row.number("session_version")?,
                sessions_ended_at: row.number("sessions_ended_at")?,
                disabled: row.truth("disabled")?,
            })
        })
        .transpose()
    }

    const fn as_tombstone(&self) -> Tombstone {
        Tombstone { session_version: self.session_version, removed_at: self.sessions_ended_at }
    }
}

impl Relations {
    /// Brings what is kept beside a row into step with it, and returns the account as it then is.
    pub(super) async fn settle(
        &self,
        tx: &mut Tx,
        subject: &Subject,
        now: UnixSeconds,
    ) -> Result<Option<Account>, StoreError> {
        let Some(Found { mut account, settled }) = self.find(tx.db(), subject).await? else { return Ok(None) };
        if settled {
            return Ok(Some(account));
        }
        let (id, name) = (&*account.id, &*subject.name);
        let mark = mark(account.password_hash.expose());
        let known = Kept::find(tx, "user_id", id).await?;
        let namesake = Kept::find(tx, "name", name).await?.filter(|namesake| namesake.user_id != *id);
        let of_id = take_tombstone(tx, OF_ID, id).await?;
        let of_name = take_tombstone(tx, subject.kind.name(), name).await?;
        let of_any = if known.is_none() && of_id.is_none() { tombstone(tx, OF_ALL_IDS, "").await? } else { None };
        let before = [of_id, of_name, of_any, namesake.as_ref().map(Kept::as_tombstone)];
        let before = before.into_iter().flatten().reduce(|one, other| Tombstone {
            session_version: one.session_version.max(other.session_version),
            removed_at: one.removed_at.max(other.removed_at),
        });
        let same_name = known.as_ref().is_some_and(|known| known.name.as_deref() == Some(name));
        let same_hash =
            known.as_ref().is_some_and(|known| known.mark == mark) && is_of_one_person(account.password_hash.expose());
        (account.session_version, account.sessions_ended_at) = match (&known, before) {
            (Some(known), None) if same_hash && !same_name => (known.session_version, known.sessions_ended_at),
            (None, None) => (1, 0),
            (None, Some(before)) => {
                (before.session_version.saturating_add(1), before.removed_at.max(namesake.as_ref().map_or(0, |_| now)))
            }
            (Some(known), before) => {
                let highest = before.map_or(0, |before| before.session_version).max(known.session_version);
                let ended_at = before.map_or(0, |before| before.removed_at).max(known.sessions_ended_at);
                (highest.saturating_add(1), ended_at.max(now))
            }
        };
        let kept_disabled = match (&known, &namesake) {
            (Some(known), _) if same_name || same_hash => known.disabled,
            // whoever is made anew under a name that was disabled stays so
            (_, Some(namesake)) => namesake.disabled,
            (Some(_) | None, None) => false,
        };
        account.disabled |= kept_disabled;
        if let Some(namesake) = &namesake {
            query("UPDATE portcullis_user_state SET name = NULL WHERE user_id = ?")
                .bind(&*namesake.user_id)
                .execute(tx.db())
                .await?;
        }
        let statement = if known.is_some() {
            "UPDATE portcullis_user_state SET name = ?, mark = ?, session_version = ?, sessions_ended_at = ?, \
             disabled = ? WHERE user_id = ?"
        } else {
            "INSERT INTO portcullis_user_state (name, mark, session_version, sessions_ended_at, disabled, user_id) \
             VALUES (?, ?, ?, ?, ?, ?)"
        };
        query(statement)
            .bind(name)
            .bind(mark)
            .bind(account.session_version)
            .bind(account.sessions_ended_at)
            .bind(kept_disabled)
            .bind(id)
            .execute(tx.db())
            .await?;
        if let Some(known) = &known
            && let Some(old) = known.name.as_deref().filter(|old| *old != name)
        {
            let old = Subject { kind: SubjectKind::User, name: old.into() };
            bury(tx, &old, known.session_version, now).await?;
            end_sessions(tx, &old).await?;
            note(tx, &Change::Subject(old), now).await?;
        }
        if known.is_some() || namesake.is_some() {
            end_sessions(tx, subject).await?;
            note(tx, &Change::Subject(subject.clone()), now).await?;
        }
        Ok(Some(account))
    }
}

/// Forgets what is kept of a user who is removed, so that neither their name nor their id, whoever gets it, brings their
/// tokens back.
pub(super) async fn forget(tx: &mut Tx, account: &Account, now: UnixSeconds) -> Result<(), StoreError> {
    query("DELETE FROM portcullis_user_state WHERE user_id = ?").bind(&*account.id).execute(tx.db()).await?;
    bury_as(tx, OF_ID, &account.id, (account.session_version, now)).await
}

impl Inner {
    /// The account of `subject`, in step with what is kept beside it.
    pub(super) async fn account(&self, subject: &Subject) -> Result<Option<Account>, StoreError> {
        let mut reading = self.pool.reading().await?;
        let found = self.relations.find(reading.db(), subject).await?;
        drop(reading);
        self.settled(found).await
    }

    /// An account that was found, brought into step where it was not. It is of the name that was found, which may be another
    /// row's by then.
    pub(super) async fn settled(&self, found: Option<Found>) -> Result<Option<Account>, StoreError> {
        match found {
            None => Ok(None),
            Some(Found { account, settled: true }) => Ok(Some(account)),
            Some(Found { account, settled: false }) => {
                let mut tx = self.begin().await?;
                let account = self.relations.settle(&mut tx, &account.subject, self.clock.unix()).await?;
                tx.commit().await?;
                Ok(account)
            }
        }
    }

    /// The same for one that was found by the id of its row.
    pub(super) async fn settled_row(&self, found: Option<Found>) -> Result<Option<Account>, StoreError> {
        let Some(found) = found else { return Ok(None) };
        let id = found.account.id.clone();
        Ok(self.settled(Some(found)).await?.filter(|account| account.id == id))
    }
}

/// Leaves what is needed of a name, so that its session versions do not come again.
pub(super) async fn bury(
    tx: &mut Tx,
    subject: &Subject,
    session_version: i64,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    bury_as(tx, subject.kind.name(), &subject.name, (session_version, now)).await
}

async fn bury_as(
    tx: &mut Tx,
    kind: &str,
    name: &str,
    (session_version, removed_at): (i64, UnixSeconds),
) -> Result<(), StoreError> {
    let highest = match tx.db().engine() {
        Engine::Sqlite | Engine::Postgres => {
            "ON CONFLICT (kind, name) DO UPDATE SET \
             session_version = GREATEST(portcullis_tombstones.session_version, excluded.session_version), \
             removed_at = GREATEST(portcullis_tombstones.removed_at, excluded.removed_at)"
        }
        Engine::MySql => {
            "ON DUPLICATE KEY UPDATE session_version = GREATEST(session_version, VALUES(session_version)), \
             removed_at = GREATEST(removed_at, VALUES(removed_at))"
        }
    };
    query(format!(
        "INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at) VALUES (?, ?, ?, ?) {highest}"
    ))
    .bind(kind)
    .bind(name)
    .bind(session_version)
    .bind(removed_at)
    .execute(tx.db())
    .await
    .map(drop)
}

async fn tombstone(tx: &mut Tx, kind: &str, name: &str) -> Result<Option<Tombstone>, StoreError> {
    let row = query("SELECT session_version, removed_at FROM portcullis_tombstones WHERE kind = ? AND name = ?")
        .bind(kind)
        .bind(name)
        .row(tx.db())
        .await?;
    row.map(|row| {
        Ok(Tombstone { session_version: row.number("session_version")?, removed_at: row.number("removed_at")? })
    })
    .transpose()
}

/// What is left of whoever had this name, or this id, before; it is used up, since it is in use again.
pub(super) async fn take_tombstone(tx: &mut Tx, kind: &str, name: &str) -> Result<Option<Tombstone>, StoreError> {
    let found = tombstone(tx, kind, name).await?;
    if found.is_some() {
        query("DELETE FROM portcullis_tombstones WHERE kind = ? AND name = ?")
            .bind(kind)
            .bind(name)
            .execute(tx.db())
            .await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hash_with_a_salt_tells_who_it_is_of() {
        for (hash, expected) in [
            ("scrypt:32768:8:1$salt$hash", true),
            ("pbkdf2_sha256$1000000$salt$hash", true),
            ("bcrypt_sha256$$2b$12$salt", true),
            ("$2b$12$salt", true),
            ("$argon2id$v=19$m=19456,t=2,p=1$salt$hash", true),
            ("$apr1$salt$hash", true),
            ("md5$salt$hash", true),
            ("md5$$d41d8cd98f00b204e9800998ecf8427e", false),
            ("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", false),
            ("!", false),
            ("$", false),
            ("", false),
        ] {
            assert_eq!(is_of_one_person(hash), expected, "{hash}");
        }
    }
}
