//! The store in an `SQLite` file.
//!
//! WAL with `synchronous=FULL`: what was answered for survives a killed process and a power loss. One connection writes,
//! a few read. Each operation runs on the background runtime, whoever awaits it, under a deadline; a mutation that was
//! begun is carried out even where nobody awaits it any more. Errors name no value.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, Transaction};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::warn;

use super::rows::{REFRESH, account, change, column, digest_column, failed, json, key, list, listing, unavailable};
use super::statements::{
    end_family, end_sessions, insert_key, insert_refresh, insert_token, last_change, note, revoke_id, standing,
};
use super::{
    Account, Added, Answer, Change, JwtStanding, NewToken, OpaqueToken, RefreshStanding, RefreshToken, Rotation, Store,
    StoreError, StoredKey, TokenDigest, TokenListing, Tombstone, schema,
};
use crate::clock::{Clock, UnixSeconds};
use crate::principal::{Role, Scope, Subject, SubjectKind};
use crate::secret::Secret;

/// How long an operation may take, waiting for a connection and for locks included.
const DEADLINE: Duration = Duration::from_secs(2);

/// The same for listings, which an operator waits for.
const LISTING_DEADLINE: Duration = Duration::from_secs(20);

/// How long opening may take; another process may be changing the tables.
const OPEN_DEADLINE: Duration = Duration::from_secs(6);

/// Between two attempts to open a locked file.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for a connection, and for another process's lock; both below [`DEADLINE`].
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_800);
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Connections that read.
const READERS: u32 = 4;

/// Operations under way or waiting at once; further ones fail at once.
const OPERATIONS_MAX: usize = 4_096;

/// Rows of each kind that one call of `purge` removes.
const PURGE_ROWS: i64 = 5_000;

/// How long changes are kept for other processes to hear, in seconds; they ask every second or so.
const CHANGES_KEPT_SECONDS: i64 = 3_600;

/// How long the sealed answer to a used refresh token is kept, in milliseconds (contract 5: 10 s of grace).
const REPLAY_KEPT_MS: i64 = 10_000;

/// Changes heard in one call.
const CHANGES_MAX: i64 = 10_000;

/// Tokens listed in one call.
const TOKENS_MAX: i64 = 10_000;

/// Accounts listed in one call.
const ACCOUNTS_MAX: i64 = 100_000;

/// For how long a family that an operator revokes stays revoked at least, in seconds: access JWTs may outlive it.
const FAMILY_REVOKED_SECONDS: i64 = 86_400;

/// The columns that [`account`] reads, of the table as `a`.
macro_rules! account_columns {
    () => {
        "a.id AS id, a.kind AS kind, a.name AS name, a.password_hash AS password_hash, a.roles AS roles, \
         a.scopes AS account_scopes, a.disabled AS disabled, a.session_version AS session_version, \
         a.sessions_ended_at AS sessions_ended_at, a.created_at AS created_at"
    };
}

type Observe = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;
type Tx = Transaction<'static, Sqlite>;
type Connection = PoolConnection<Sqlite>;

/// A store in one `SQLite` file, shared by any number of processes.
pub struct SqlStore {
    writer: SqlitePool,
    readers: SqlitePool,
    background: Handle,
    clock: Clock,
    observe: Observe,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqlStore")
    }
}

impl SqlStore {
    /// Opens the file, makes it where it is absent (readable by its owner only) and brings its tables up to date. Blocks;
    /// `background` (with timers) does the work and must not be the runtime of the calling thread alone. `observe` is
    /// told of each operation and how long it took.
    ///
    /// # Errors
    /// `Broken` where the file cannot be a store: no such directory, another format, a newer version, read-only.
    /// `Unavailable` where it stays locked.
    pub fn open(
        path: &Path,
        background: Handle,
        clock: Clock,
        observe: impl Fn(&'static str, Duration) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        create(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .thread_name(|number| format!("store-{number}"))
            .disable_statement_logging();
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .after_release(|connection, _| Box::pin(is_clean(connection)))
        };
        // lazy pools start a task for their upkeep, so they need the runtime at hand
        let (writer, readers) = {
            let _entered = background.enter();
            let reading = options.clone().pragma("query_only", "ON");
            (pool(1).connect_lazy_with(options), pool(READERS).connect_lazy_with(reading))
        };
        let (answer, answered) = sync_channel(1);
        let (opened, time) = (writer.clone(), clock.clone());
        background.spawn(async move {
            // the receiver is gone only where its own, longer deadline passed
            answer.send(prepare(&opened, &time).await).ok();
        });
        match answered.recv_timeout(OPEN_DEADLINE + ACQUIRE_TIMEOUT + DEADLINE) {
            Ok(outcome) => outcome?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(unavailable("the background runtime does not run"));
            }
        }
        let slots = Arc::new(Semaphore::new(OPERATIONS_MAX));
        Ok(Self { writer, readers, background, clock, observe: Arc::new(observe), slots })
    }

    /// Ends every connection once its work is done; later operations fail. The last process to do so leaves one complete
    /// file behind; without it the newest changes are in the `-wal` beside.
    pub fn close(&self) -> Answer<'static, ()> {
        let (writer, readers) = (self.writer.clone(), self.readers.clone());
        self.run("close", LISTING_DEADLINE, async move {
            readers.close().await;
            writer.close().await;
            Ok(())
        })
    }

    /// Runs `work` on the background runtime, from this call on and not from the first poll.
    fn run<T, F>(&self, operation: &'static str, deadline: Duration, work: F) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Box::pin(async { Err(unavailable("too many operations wait for it")) });
        };
        let (clock, observe) = (self.clock.clone(), Arc::clone(&self.observe));
        let task = self.background.spawn(async move {
            let started = clock.now();
            let outcome = tokio::time::timeout(deadline, work).await;
            observe(operation, clock.now().saturating_duration_since(started));
            drop(slot);
            outcome.unwrap_or_else(|_| Err(unavailable("it took too long")))
        });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(unavailable("its runtime has stopped"))) })
    }

    fn read<T, W, F>(&self, operation: &'static str, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.read_within(operation, DEADLINE, work)
    }

    fn read_within<T, W, F>(&self, operation: &'static str, deadline: Duration, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let readers = self.readers.clone();
        self.run(operation, deadline, async move { work(readers.acquire().await.map_err(failed)?).await })
    }

    /// Runs `work` in a transaction that holds the write lock from its beginning, so that what it read stays true. It
    /// commits itself; a transaction that is dropped did not happen.
    fn write<T, W, F>(&self, operation: &'static str, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Tx, UnixSeconds) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (writer, clock) = (self.writer.clone(), self.clock.clone());
        self.run(operation, DEADLINE, async move {
            let tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            work(tx, clock.unix()).await
        })
    }
}

impl Store for SqlStore {
    fn account(&self, subject: Subject) -> Answer<'_, Option<Account>> {
        self.read("account", move |mut connection| async move {
            let row = sqlx::query(concat!(
                "SELECT ",
                account_columns!(),
                " FROM portcullis_accounts a WHERE a.kind = ? AND a.name = ?"
            ))
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
            row.as_ref().map(account).transpose()
        })
    }

    fn token(&self, digest: TokenDigest, now: UnixSeconds) -> Answer<'_, Option<OpaqueToken>> {
        self.read("token", move |mut connection| async move {
            let row = sqlx::query(concat!(
                "SELECT ",
                account_columns!(),
                ", t.scopes AS scopes, t.expires_at AS expires_at, t.family AS family \
                 FROM portcullis_tokens t \
                 JOIN portcullis_accounts a ON a.kind = t.owner_kind AND a.name = t.owner_name \
                 WHERE t.digest = ? AND t.kind = 'token' AND t.revoked = 0 \
                 AND (t.expires_at IS NULL OR t.expires_at > ?) \
                 AND a.disabled = 0 AND a.session_version = t.session_version"
            ))
            .bind(digest.0.as_slice())
            .bind(now)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
            let Some(row) = row else { return Ok(None) };
            Ok(Some(OpaqueToken {
                owner: account(&row)?,
                scopes: list(&row, "scopes")?,
                expires_at: column(&row, "expires_at")?,
                session: column::<Option<String>>(&row, "family")?.map(Arc::from),
            }))
        })
    }

    fn jwt_standing(&self, subject: Subject, ids: Vec<Arc<str>>) -> Answer<'_, JwtStanding> {
        self.read("jwt_standing", move |mut connection| async move {
            // one statement, so that an account that is made or removed meanwhile is seen whole
            let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
            let row = sqlx::query(concat!(
                "SELECT ",
                account_columns!(),
                ", a.id IS NOT NULL AS present, s.session_version AS dead_version, s.removed_at AS removed_at, \
                 EXISTS (SELECT 1 FROM portcullis_revocations r \
                 WHERE r.id IN (SELECT value FROM json_each(?))) AS revoked \
                 FROM (SELECT ? AS kind, ? AS name) q \
                 LEFT JOIN portcullis_accounts a ON a.kind = q.kind AND a.name = q.name \
                 LEFT JOIN portcullis_tombstones s ON s.kind = q.kind AND s.name = q.name"
            ))
            .bind(json(&ids))
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
            let dead: Option<i64> = column(&row, "dead_version")?;
            let removed_at: Option<i64> = column(&row, "removed_at")?;
            Ok(JwtStanding {
                account: column::<bool>(&row, "present")?.then(|| account(&row)).transpose()?,
                revoked: column(&row, "revoked")?,
                removed: dead
                    .zip(removed_at)
                    .map(|(session_version, removed_at)| Tombstone { session_version, removed_at }),
            })
        })
    }

    fn refresh_token(&self, digest: TokenDigest) -> Answer<'_, RefreshStanding> {
        self.read("refresh_token", move |mut connection| async move { standing(&mut connection, digest).await })
    }

    fn add_account(
        &self,
        subject: Subject,
        hash: Secret<String>,
        roles: Vec<Role>,
        scopes: Vec<Scope>,
    ) -> Answer<'_, Added> {
        self.write("add_account", move |mut tx, now| async move {
            let (kind, name) = (subject.kind.name(), &*subject.name);
            let added = sqlx::query(
                "INSERT INTO portcullis_accounts \
                 (kind, name, password_hash, roles, scopes, session_version, sessions_ended_at, created_at) \
                 SELECT q.kind, q.name, ?, ?, ?, coalesce(s.session_version, 0) + 1, coalesce(s.removed_at, 0), ? \
                 FROM (SELECT ? AS kind, ? AS name) q \
                 LEFT JOIN portcullis_tombstones s ON s.kind = q.kind AND s.name = q.name \
                 WHERE NOT EXISTS (SELECT 1 FROM portcullis_accounts a WHERE a.kind = q.kind AND a.name = q.name)",
            )
            .bind(hash.expose().as_str())
            .bind(json(&roles.iter().map(Role::as_str).collect::<Vec<_>>()))
            .bind(json(&scopes.iter().map(Scope::as_str).collect::<Vec<_>>()))
            .bind(now)
            .bind(kind)
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            if added.rows_affected() == 0 {
                return Ok(Added::Taken);
            }
            sqlx::query("DELETE FROM portcullis_tombstones WHERE kind = ? AND name = ?")
                .bind(kind)
                .bind(name)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(Added::Yes)
        })
    }

    fn set_password(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, bool> {
        self.write("set_password", move |mut tx, now| async move {
            let done = sqlx::query(
                "UPDATE portcullis_accounts SET password_hash = ?, session_version = session_version + 1, \
                 sessions_ended_at = max(sessions_ended_at, ?) WHERE kind = ? AND name = ?",
            )
            .bind(hash.expose().as_str())
            .bind(now)
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            end_sessions(&mut tx, &subject).await?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn rehash(&self, subject: Subject, old: Secret<String>, new: Secret<String>) -> Answer<'_, bool> {
        self.write("rehash", move |mut tx, _| async move {
            // nothing that was cached becomes untrue by this, so nobody hears of it
            let done = sqlx::query(
                "UPDATE portcullis_accounts SET password_hash = ? WHERE kind = ? AND name = ? AND password_hash = ?",
            )
            .bind(new.expose().as_str())
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .bind(old.expose().as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            tx.commit().await.map_err(failed)?;
            Ok(done.rows_affected() > 0)
        })
    }

    fn set_roles(&self, subject: Subject, roles: Vec<Role>) -> Answer<'_, bool> {
        self.write("set_roles", move |mut tx, now| async move {
            let done = sqlx::query("UPDATE portcullis_accounts SET roles = ? WHERE kind = ? AND name = ?")
                .bind(json(&roles.iter().map(Role::as_str).collect::<Vec<_>>()))
                .bind(subject.kind.name())
                .bind(&*subject.name)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn set_disabled(&self, subject: Subject, disabled: bool) -> Answer<'_, bool> {
        self.write("set_disabled", move |mut tx, now| async move {
            let done = sqlx::query(
                "UPDATE portcullis_accounts SET disabled = ?1, session_version = session_version + ?1, \
                 sessions_ended_at = iif(?1, max(sessions_ended_at, ?2), sessions_ended_at) \
                 WHERE kind = ?3 AND name = ?4",
            )
            .bind(disabled)
            .bind(now)
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            if disabled {
                end_sessions(&mut tx, &subject).await?;
            }
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn remove_account(&self, subject: Subject) -> Answer<'_, bool> {
        self.write("remove_account", move |mut tx, now| async move {
            let (kind, name) = (subject.kind.name(), &*subject.name);
            let version: Option<i64> = sqlx::query_scalar(
                "DELETE FROM portcullis_accounts WHERE kind = ? AND name = ? RETURNING session_version",
            )
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
            let Some(version) = version else { return Ok(false) };
            sqlx::query(
                "INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at) VALUES (?, ?, ?, ?)",
            )
            .bind(kind)
            .bind(name)
            .bind(version)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
            end_sessions(&mut tx, &subject).await?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn accounts(&self, kind: SubjectKind) -> Answer<'_, Vec<Account>> {
        self.read_within("accounts", LISTING_DEADLINE, move |mut connection| async move {
            let rows = sqlx::query(
                "SELECT id, kind, name, '' AS password_hash, roles, scopes AS account_scopes, disabled, \
                 session_version, sessions_ended_at, created_at \
                 FROM portcullis_accounts WHERE kind = ? ORDER BY name LIMIT ?",
            )
            .bind(kind.name())
            .bind(ACCOUNTS_MAX)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
            rows.iter().map(account).collect()
        })
    }

    fn issue(&self, token: Option<NewToken>, refresh: Option<(TokenDigest, RefreshToken)>) -> Answer<'_, ()> {
        self.write("issue", move |mut tx, now| async move {
            if let Some(token) = token {
                insert_token(&mut tx, &token, now).await?;
            }
            if let Some((digest, refresh)) = refresh {
                insert_refresh(&mut tx, digest, &refresh, now).await?;
            }
            tx.commit().await.map_err(failed)
        })
    }

    fn rotate(&self, rotation: Rotation) -> Answer<'_, RefreshStanding> {
        self.write("rotate", move |mut tx, now| async move {
            let before = standing(&mut tx, rotation.used).await?;
            let RefreshStanding::Live(token) = &before else { return Ok(before) };
            if token.expires_at.saturating_mul(1_000) <= rotation.used_at_ms {
                return Ok(RefreshStanding::Unknown);
            }
            sqlx::query("UPDATE portcullis_tokens SET used_at_ms = ?, replay = ? WHERE digest = ?")
                .bind(rotation.used_at_ms)
                .bind(rotation.replay)
                .bind(rotation.used.0.as_slice())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            let successor =
                RefreshToken { scopes: rotation.scopes, expires_at: rotation.successor_expires_at, ..token.clone() };
            insert_refresh(&mut tx, rotation.successor, &successor, now).await?;
            if let Some(beside) = rotation.token {
                insert_token(&mut tx, &beside, now).await?;
            }
            tx.commit().await.map_err(failed)?;
            Ok(before)
        })
    }

    fn revoke_token(&self, digest: TokenDigest) -> Answer<'_, bool> {
        self.write("revoke_token", move |mut tx, now| async move {
            let done = sqlx::query("DELETE FROM portcullis_tokens WHERE digest = ? AND kind = 'token'")
                .bind(digest.0.as_slice())
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            note(&mut tx, &Change::Token(digest), now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn revoke_family(&self, family: Arc<str>, until: UnixSeconds) -> Answer<'_, ()> {
        self.write("revoke_family", move |mut tx, now| async move {
            end_family(&mut tx, &family, until, now).await?;
            tx.commit().await.map_err(failed)
        })
    }

    fn revoke_jwt(&self, jti: Arc<str>, until: UnixSeconds) -> Answer<'_, ()> {
        self.write("revoke_jwt", move |mut tx, now| async move {
            revoke_id(&mut tx, &jti, until).await?;
            note(&mut tx, &Change::Session(jti), now).await?;
            tx.commit().await.map_err(failed)
        })
    }

    fn revoke_listed(&self, id: i64) -> Answer<'_, bool> {
        self.write("revoke_listed", move |mut tx, now| async move {
            let row = sqlx::query("SELECT kind, digest, family, expires_at FROM portcullis_tokens WHERE id = ?")
                .bind(id)
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?;
            let Some(row) = row else { return Ok(false) };
            if column::<String>(&row, "kind")? == REFRESH {
                let family: String = column(&row, "family")?;
                let expires_at: Option<i64> = column(&row, "expires_at")?;
                let until = expires_at.unwrap_or(i64::MAX).max(now.saturating_add(FAMILY_REVOKED_SECONDS));
                end_family(&mut tx, &family, until, now).await?;
            } else {
                sqlx::query("DELETE FROM portcullis_tokens WHERE id = ?")
                    .bind(id)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                note(&mut tx, &Change::Token(digest_column(&row)?), now).await?;
            }
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn tokens(&self, owner: Option<Subject>, now: UnixSeconds) -> Answer<'_, Vec<TokenListing>> {
        self.read_within("tokens", LISTING_DEADLINE, move |mut connection| async move {
            let (kind, name) = owner.map(|owner| (owner.kind.name(), owner.name)).unzip();
            let rows = sqlx::query(
                "SELECT t.id AS id, t.kind AS token_kind, t.owner_kind AS kind, t.owner_name AS name, \
                 t.issued_at AS issued_at, t.expires_at AS expires_at \
                 FROM portcullis_tokens t \
                 JOIN portcullis_accounts a ON a.kind = t.owner_kind AND a.name = t.owner_name \
                 WHERE (?1 IS NULL OR (t.owner_kind = ?1 AND t.owner_name = ?2)) \
                 AND t.revoked = 0 AND t.used_at_ms IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?3) \
                 AND a.disabled = 0 AND a.session_version = t.session_version \
                 ORDER BY t.id DESC LIMIT ?4",
            )
            .bind(kind)
            .bind(name.as_deref())
            .bind(now)
            .bind(TOKENS_MAX)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
            rows.iter().map(listing).collect()
        })
    }

    fn keys(&self, now: UnixSeconds) -> Answer<'_, Vec<StoredKey>> {
        self.read("keys", move |mut connection| async move {
            let rows = sqlx::query(
                "SELECT id, algorithm, private_key, signs_from, verifies_until FROM portcullis_keys \
                 WHERE verifies_until IS NULL OR verifies_until > ? ORDER BY number",
            )
            .bind(now)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
            rows.iter().map(key).collect()
        })
    }

    fn add_first_key(&self, key: StoredKey) -> Answer<'_, bool> {
        self.write("add_first_key", move |mut tx, now| async move {
            let current: bool =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM portcullis_keys WHERE verifies_until IS NULL)")
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(failed)?;
            if current {
                return Ok(false);
            }
            insert_key(&mut tx, &key).await?;
            note(&mut tx, &Change::Keys, now).await?;
            tx.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn rotate_key(&self, key: StoredKey, verifies_until: UnixSeconds) -> Answer<'_, ()> {
        self.write("rotate_key", move |mut tx, now| async move {
            sqlx::query("UPDATE portcullis_keys SET verifies_until = ? WHERE verifies_until IS NULL")
                .bind(verifies_until)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            insert_key(&mut tx, &key).await?;
            note(&mut tx, &Change::Keys, now).await?;
            tx.commit().await.map_err(failed)
        })
    }

    fn changes(&self, position: Option<i64>) -> Answer<'_, (Vec<Change>, i64)> {
        self.read("changes", move |mut connection| async move {
            let Some(position) = position else { return Ok((Vec::new(), last_change(&mut connection).await?)) };
            let rows =
                sqlx::query("SELECT seq, kind, value FROM portcullis_changes WHERE seq > ? ORDER BY seq LIMIT ?")
                    .bind(position)
                    .bind(CHANGES_MAX)
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(failed)?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
                // a list that ends before what was heard is of another file: one restored from a copy, for instance
                let end = last_change(&mut connection).await?;
                return Ok(if end < position { (vec![Change::All], end) } else { (Vec::new(), position) });
            };
            let end = column(last, "seq")?;
            // numbers have no gaps, so one that is missing was purged
            if column::<i64>(first, "seq")? != position.saturating_add(1) {
                return Ok((vec![Change::All], end));
            }
            Ok((rows.iter().map(change).collect::<Result<_, _>>()?, end))
        })
    }

    fn purge(&self, now: UnixSeconds) -> Answer<'_, ()> {
        self.write("purge", move |mut tx, _| async move {
            for (statement, before) in [
                (
                    "DELETE FROM portcullis_tokens WHERE id IN \
                     (SELECT id FROM portcullis_tokens WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
                    now,
                ),
                (
                    "DELETE FROM portcullis_revocations WHERE id IN \
                     (SELECT id FROM portcullis_revocations WHERE until <= ? ORDER BY until LIMIT ?)",
                    now,
                ),
                (
                    "UPDATE portcullis_tokens SET replay = NULL WHERE id IN \
                     (SELECT id FROM portcullis_tokens WHERE replay IS NOT NULL AND used_at_ms < ? LIMIT ?)",
                    now.saturating_mul(1_000).saturating_sub(REPLAY_KEPT_MS),
                ),
                (
                    // the newest stays, so that the numbers that were given stay known
                    "DELETE FROM portcullis_changes WHERE seq IN (SELECT seq FROM portcullis_changes \
                     WHERE at < ? AND seq < (SELECT max(seq) FROM portcullis_changes) ORDER BY seq LIMIT ?)",
                    now.saturating_sub(CHANGES_KEPT_SECONDS),
                ),
                (
                    "DELETE FROM portcullis_keys WHERE number IN \
                     (SELECT number FROM portcullis_keys WHERE verifies_until <= ? LIMIT ?)",
                    now,
                ),
            ] {
                sqlx::query(statement).bind(before).bind(PURGE_ROWS).execute(&mut *tx).await.map_err(failed)?;
            }
            tx.commit().await.map_err(failed)
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.read("ping", |mut connection| async move {
            sqlx::query("SELECT version FROM portcullis_schema")
                .fetch_one(&mut *connection)
                .await
                .map(drop)
                .map_err(failed)
        })
    }
}

/// Makes the file where it is absent. `SQLite` gives its `-wal` and `-shm` the same mode. A file that is there is not opened:
/// closing it would drop the locks that this process holds on it (sqlite.org/howtocorrupt.html, 2.2).
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Broken(format!("cannot open {}: {error}", path.display()).into());
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            // the name is to survive a power loss too
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            file.sync_all().and_then(|()| File::open(directory)?.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = path.metadata().map_err(failed)?;
            if !found.is_file() {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            if found.permissions().mode() & 0o077 != 0 {
                warn!(path = %path.display(), "the store can be read by others than its owner");
            }
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Brings the tables up to date, waiting for another process that is at it. Turning WAL on does not wait by itself.
async fn prepare(writer: &SqlitePool, clock: &Clock) -> Result<(), StoreError> {
    let started = clock.now();
    loop {
        match schema::migrate(writer).await {
            Err(StoreError::Unavailable(_)) if clock.now() < started + OPEN_DEADLINE => {
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether a connection may be used again. Where `SQLite` ends a transaction by itself, as it does when the disk is full, the
/// driver goes on counting it as begun and would refuse every later one.
async fn is_clean(connection: &mut sqlx::SqliteConnection) -> Result<bool, sqlx::Error> {
    // a rollback is only queued when its transaction is dropped; this waits for it
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(test)]
mod tests;
