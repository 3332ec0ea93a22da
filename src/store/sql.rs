//! The store in a database: an `SQLite` file, `PostgreSQL`, or `MySQL`/`MariaDB`, each shared by any number of processes.
//!
//! What was answered for survives a killed process and a power loss. Changes are made one after the other, under a lock
//! that every process takes, so that what they read stays true and their numbers have no gaps. Each operation runs on the
//! background runtime, whoever awaits it, under a deadline; a mutation that was begun is carried out even where nobody
//! awaits it any more. Errors name no value.

mod accounts;
mod beside;
mod catalog;
mod entries;
pub(in crate::store) mod engine;
pub(in crate::store) mod errors;
mod open;
mod relations;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use self::open::ServerUrl;

use self::engine::{Engine, Pool, Tx, query};
use self::errors::unavailable;
use self::relations::{Foreign, Relations};
use super::rows::{REFRESH, change, digest_column, issued_to, key, list, listing, subject};
use super::statements::{
    CLIENT_VERSION, RefreshRow, WITH_CLIENT, end_family, end_sessions, insert_key, insert_refresh, insert_token,
    last_change, note, refresh_row, revocation_id, revoke_id,
};
use super::tables::Tables;
use super::{
    Account, Added, Answer, Change, Claimed, Ended, JwtStanding, NewToken, OpaqueToken, RefreshStanding, RefreshToken,
    Rotation, Store, StoreError, StoredKey, TokenDigest, TokenListing, TokenStanding, Tombstone, schema,
};
use crate::clock::{Clock, UnixSeconds};
use crate::principal::{Role, Scope, Subject, SubjectKind};
use crate::secret::Secret;

/// How long an operation may take, waiting for a connection and for locks included.
const DEADLINE: Duration = Duration::from_secs(2);

/// The same for listings, which an operator waits for.
const LISTING_DEADLINE: Duration = Duration::from_secs(20);

/// How long opening may take; another process may be changing the tables, or a server be about to start.
const OPEN_DEADLINE: Duration = Duration::from_secs(6);

/// Between two attempts to open what is locked or not there yet.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for a connection, and for another process's lock; both below [`DEADLINE`].
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_800);
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Operations under way or waiting at once; further ones fail at once.
const OPERATIONS_MAX: usize = 4_096;

/// Rows of each kind that one call of `purge` removes.
const PURGE_ROWS: i64 = 5_000;

/// How long changes are kept for other processes to hear, in seconds; they ask every second or so.
const CHANGES_KEPT_SECONDS: i64 = 3_600;

/// How long the sealed answer to a used refresh token is kept, in milliseconds (contract 5: 10 s of grace).
const REPLAY_KEPT_MS: i64 = 10_000;

/// How far back sealed answers are sought that were kept for long enough, in milliseconds.
const REPLAYS_SOUGHT_MS: i64 = 3_600_000;

/// Changes heard in one call.
const CHANGES_MAX: i64 = 10_000;

/// Tokens listed in one call.
const TOKENS_MAX: i64 = 10_000;

/// Accounts listed in one call.
const ACCOUNTS_MAX: i64 = 100_000;

/// Rows that one token in clear text may find, and hashes from each end of the users' table that are looked at to know of
/// what makes they are.
const ALIKE_MAX: i64 = 64;
const HASHES_SEEN: i64 = 1_000;

type Observe = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An `SQLite` file.
    Sqlite(PathBuf),
    /// A database of a server.
    Server(ServerUrl),
}

/// A store in a database.
pub struct SqlStore {
    inner: Arc<Inner>,
    background: Handle,
    observe: Observe,
    slots: Arc<Semaphore>,
}

/// What operations work with.
struct Inner {
    pool: Pool,
    relations: Relations,
    clock: Clock,
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqlStore")
    }
}

impl SqlStore {
    /// Opens the database, makes the file where it is absent (readable by its owner only), brings our tables up to date and
    /// checks those of others. Blocks; `background` (with timers) does the work and must not be the runtime of the
    /// calling thread alone. `observe` is told of each operation and how long it took.
    ///
    /// # Errors
    /// `Broken` where it cannot be a store: no such directory, another format, a newer version, read-only, no such table or
    /// column. `Unavailable` where it stays locked or does not answer.
    pub fn open(
        location: &Location,
        tables: &Tables,
        background: Handle,
        clock: Clock,
        observe: impl Fn(&'static str, Duration) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let pool = {
            // lazy pools start a task for their upkeep, so they need the runtime at hand
            let _entered = background.enter();
            match location {
                Location::Sqlite(path) => open::file(path)?,
                Location::Server(url) => open::server(url)?,
            }
        };
        let (answer, answered) = sync_channel(1);
        let (opened, time, tables) = (pool.clone(), clock.clone(), tables.clone());
        background.spawn(async move {
            let within = tokio::time::timeout(OPEN_DEADLINE * 2, prepare(&opened, &tables, &time)).await;
            // the receiver is gone only where its own, longer deadline passed
            answer.send(within.unwrap_or_else(|_| Err(unavailable("it took too long")))).ok();
        });
        let relations = match answered.recv_timeout(OPEN_DEADLINE * 2 + DEADLINE) {
            Ok(outcome) => outcome?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(unavailable("the background runtime does not run"));
            }
        };
        let inner = Arc::new(Inner { pool, relations, clock });
        let slots = Arc::new(Semaphore::new(OPERATIONS_MAX));
        Ok(Self { inner, background, observe: Arc::new(observe), slots })
    }

    /// Ends every connection once its work is done; later operations fail. The last process to do so leaves one complete
    /// file behind; without it the newest changes are in the `-wal` beside.
    pub fn close(&self) -> Answer<'static, ()> {
        self.run("close", LISTING_DEADLINE, |inner| async move {
            inner.pool.close().await;
            Ok(())
        })
    }

    /// Hashes that users have: of all of them, or of the oldest and the newest. The oldest first, so that processes on the
    /// same table see the same one there.
    pub fn hashes_in_use(&self) -> Answer<'static, Vec<Secret<String>>> {
        self.run("hashes_in_use", DEADLINE, |inner| async move {
            let mut hashes = Vec::new();
            let mut reading = inner.pool.reading().await?;
            for order in ["ASC", "DESC"] {
                let text = match &inner.relations.foreign {
                    Some(Foreign { password, table, id, .. }) => {
                        format!("SELECT {password} AS password_hash FROM {table} u ORDER BY {id} {order} LIMIT ?")
                    }
                    None => format!(
                        "SELECT password_hash FROM portcullis_accounts WHERE kind = 'user' ORDER BY name {order} LIMIT ?"
                    ),
                };
                let rows = query(text).bind(HASHES_SEEN).rows(reading.db()).await?;
                for row in &rows {
                    hashes.extend(row.legible("password_hash")?.map(Secret::new));
                }
                if (rows.len() as u64) < HASHES_SEEN.unsigned_abs() {
                    break;
                }
            }
            Ok(hashes)
        })
    }

    /// Runs `work` on the background runtime, from this call on and not from the first poll.
    fn run<T, W, F>(&self, operation: &'static str, deadline: Duration, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Inner>) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Box::pin(async { Err(unavailable("too many operations wait for it")) });
        };
        let (inner, observe) = (Arc::clone(&self.inner), Arc::clone(&self.observe));
        let task = self.background.spawn(async move {
            let clock = inner.clock.clone();
            let started = clock.now();
            let outcome = tokio::time::timeout(deadline, work(inner)).await;
            observe(operation, clock.now().saturating_duration_since(started));
            drop(slot);
            outcome.unwrap_or_else(|_| Err(unavailable("it took too long")))
        });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(unavailable("its runtime has stopped"))) })
    }

    fn read<T, W, F>(&self, operation: &'static str, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Inner>) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.run(operation, DEADLINE, work)
    }

    /// Runs `work` in a transaction that holds the lock from its beginning, so that what it read stays true. It commits
    /// itself; a transaction that is dropped did not happen.
    fn write<T, W, F>(&self, operation: &'static str, work: W) -> Answer<'static, T>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Inner>, Tx, UnixSeconds) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.run(operation, DEADLINE, |inner| async move {
            let (tx, now) = (inner.begin().await?, inner.clock.unix());
            work(inner, tx, now).await
        })
    }
}

impl Inner {
    /// A transaction that holds the lock.
    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.pool.begin().await?;
        match self.pool.engine() {
            Engine::Sqlite => {}
            Engine::Postgres | Engine::MySql => {
                query("SELECT version FROM portcullis_schema FOR UPDATE").row(tx.db()).await?;
            }
        }
        Ok(tx)
    }

    /// Where a refresh token stands with its owner.
    fn standing(row: RefreshRow, owner: Option<&Account>) -> RefreshStanding {
        let RefreshRow { token, revoked, used_at_ms, replay } = row;
        let alive = owner.is_some_and(|owner| !owner.disabled && owner.session_version == token.session_version);
        match used_at_ms {
            _ if revoked || !alive => RefreshStanding::Revoked(token),
            Some(used_at_ms) => RefreshStanding::Used { token, used_at_ms, replay },
            None => RefreshStanding::Live(token),
        }
    }
}

impl Store for SqlStore {
    fn claimed(&self, subject: Subject) -> Answer<'_, Option<Claimed>> {
        self.read("claimed", move |inner| async move {
            let found = inner.relations.find(inner.pool.reading().await?.db(), &subject).await?;
            Ok(found.map(Claimed::from))
        })
    }

    fn proven(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, Option<Account>> {
        self.read("proven", move |inner| async move {
            let account = inner.account(&subject).await?;
            Ok(account.filter(|account| hash.matches(account.password_hash.expose().as_bytes())))
        })
    }

    fn account(&self, subject: Subject) -> Answer<'_, Option<Account>> {
        self.read("account", move |inner| async move { inner.account(&subject).await })
    }

    fn account_by_id(&self, id: Arc<str>) -> Answer<'_, Option<Account>> {
        self.read("account_by_id", move |inner| async move {
            let mut reading = inner.pool.reading().await?;
            let found = inner.relations.find_id(reading.db(), &id).await?;
            drop(reading);
            inner.settled_row(found).await
        })
    }

    fn token(&self, digest: TokenDigest, now: UnixSeconds) -> Answer<'_, TokenStanding> {
        self.read("token", move |inner| async move {
            // a row that has ended is read nevertheless: who asks is told whose it was
            let ended = inner.pool.engine().as_number(
                "CASE WHEN t.revoked OR r.id IS NOT NULL OR (t.client_id IS NOT NULL AND c.id IS NULL) THEN 1 ELSE 0 END",
            );
            let row = query(format!(
                "SELECT t.owner_kind AS kind, t.owner_name AS name, t.session_version AS session_version, \
                 t.scopes AS scopes, t.issued_at AS issued_at, t.expires_at AS expires_at, t.family AS family, \
                 t.client_id AS client_id, {CLIENT_VERSION}, {ended} AS ended \
                 FROM portcullis_tokens t LEFT JOIN portcullis_revocations r ON r.id = t.family {WITH_CLIENT} \
                 WHERE t.digest = ? AND t.kind = 'token'"
            ))
            .bind(digest.0.as_slice())
            .row(inner.pool.reading().await?.db())
            .await?;
            let Some(row) = row else { return Ok(TokenStanding::Unknown) };
            let subject = subject(&row)?;
            let expires_at = row.maybe_number("expires_at")?;
            let expired = expires_at.is_some_and(|end| end <= now);
            if expired || row.number("ended")? != 0 {
                return Ok(TokenStanding::Ended { owner: subject, expired });
            }
            // one that was issued while its session ended is dead from the start
            let version = row.number("session_version")?;
            let owner = inner.account(&subject).await?;
            let Some(owner) = owner.filter(|owner| !owner.disabled && owner.session_version == version) else {
                return Ok(TokenStanding::Ended { owner: subject, expired });
            };
            Ok(TokenStanding::Live(Box::new(OpaqueToken {
                owner,
                scopes: list(&row, "scopes")?,
                expires_at,
                session: row.maybe_text("family")?.map(Arc::from),
                client: issued_to(&row)?,
                issued_at: row.maybe_number("issued_at")?,
            })))
        })
    }

    fn clear_token(&self, text: Secret<String>, now: UnixSeconds) -> Answer<'_, Option<OpaqueToken>> {
        self.read("clear_token", move |inner| async move {
            let users = &inner.relations.users;
            let Some((foreign, tokens)) = inner.relations.clear_tokens(&text) else { return Ok(None) };
            let statement = format!(
                "SELECT {}, {} FROM {} t JOIN {} ON u.{} = t.{} WHERE t.{} = ? LIMIT ?",
                tokens.columns, users.columns, tokens.table, users.from, foreign.id, tokens.user, tokens.token
            );
            let mut reading = inner.pool.reading().await?;
            let rows = query(statement).bind(text.expose().as_str()).bind(ALIKE_MAX).rows(reading.db()).await?;
            drop(reading);
            // a collation may take other tokens for the same
            let mut exact = Vec::new();
            for row in rows {
                if text.matches(row.text("clear_token")?.as_bytes()) {
                    exact.push(row);
                }
            }
            let [row] = exact.as_slice() else { return Ok(None) };
            let ends = row.number("ends")? != 0;
            let ends_at = row.maybe_number("ends_at")?;
            // an end that cannot be read has passed
            if ends && ends_at.is_none_or(|end| end <= now) {
                return Ok(None);
            }
            let owner = inner.settled_row(inner.relations.found(users.kind(), row)?).await?;
            Ok(owner.filter(|owner| !owner.disabled).map(|owner| OpaqueToken {
                owner,
                scopes: Arc::default(),
                expires_at: ends_at.filter(|_| ends),
                session: None,
                client: None,
                issued_at: None,
            }))
        })
    }

    fn jwt_standing(&self, subject: Subject, ids: Vec<Arc<str>>) -> Answer<'_, JwtStanding> {
        self.read("jwt_standing", move |inner| async move {
            // one statement, so that an account that is made or removed meanwhile is seen whole
            let (relations, relation) = (&inner.relations, inner.relations.of(subject.kind)?);
            let places = vec!["?"; ids.len().max(1)].join(", ");
            let text = format!(
                "SELECT {}, s.session_version AS dead_version, s.removed_at AS removed_at, \
                 (SELECT count(*) FROM portcullis_revocations r WHERE r.id IN ({places})) AS revoked \
                 FROM (SELECT 1 AS one) q LEFT JOIN {} ON {} \
                 LEFT JOIN portcullis_tombstones s ON s.kind = ? AND s.name = ?",
                relation.columns, relation.from, relation.by_name
            );
            // no database has a row of such a name; one of the nameless would be as good
            let name = if subject.name.contains('\0') { "" } else { &*subject.name };
            let ids: Vec<_> = ids.iter().map(|id| revocation_id(id).into_owned()).collect();
            let none = if ids.is_empty() { Some("") } else { None };
            let bound = ids.iter().map(String::as_str).chain(none).fold(query(text), engine::Query::bind);
            let rows =
                bound.bind(name).bind(subject.kind.name()).bind(name).rows(inner.pool.reading().await?.db()).await?;
            let Some(row) = rows.first() else { return Err(StoreError::Broken("a row is missing".into())) };
            let (dead, removed_at) = (row.maybe_number("dead_version")?, row.maybe_number("removed_at")?);
            let removed =
                dead.zip(removed_at).map(|(session_version, removed_at)| Tombstone { session_version, removed_at });
            let revoked = row.number("revoked")? != 0;
            let account = inner.settled(relations.exactly(&subject, &rows)?).await?;
            Ok(JwtStanding { account, revoked, removed })
        })
    }

    fn jwt_revoked(&self, ids: Vec<Arc<str>>) -> Answer<'_, bool> {
        self.read("jwt_revoked", move |inner| async move {
            if ids.is_empty() {
                return Ok(false);
            }
            let places = vec!["?"; ids.len()].join(", ");
            let text = format!("SELECT count(*) AS revoked FROM portcullis_revocations WHERE id IN ({places})");
            let ids: Vec<_> = ids.iter().map(|id| revocation_id(id).into_owned()).collect();
            let bound = ids.iter().fold(query(text), |query, id| query.bind(id.as_str()));
            let rows = bound.rows(inner.pool.reading().await?.db()).await?;
            let Some(row) = rows.first() else { return Err(StoreError::Broken("a row is missing".into())) };
            Ok(row.number("revoked")? != 0)
        })
    }

    fn refresh_token(&self, digest: TokenDigest) -> Answer<'_, RefreshStanding> {
        self.read("refresh_token", move |inner| async move {
            let row = refresh_row(inner.pool.reading().await?.db(), digest).await?;
            let Some(row) = row else { return Ok(RefreshStanding::Unknown) };
            let owner = inner.account(&row.token.owner).await?;
            Ok(Inner::standing(row, owner.as_ref()))
        })
    }

    fn add_account(
        &self,
        subject: Subject,
        hash: Secret<String>,
        roles: Vec<Role>,
        scopes: Vec<Scope>,
    ) -> Answer<'_, Added> {
        self.write("add_account", move |inner, mut tx, now| async move {
            let lists = (roles.as_slice(), scopes.as_slice());
            let added = accounts::add(&inner.relations, &mut tx, &subject, &hash, lists, now).await?;
            if added == Added::Yes {
                note(&mut tx, &Change::Subject(subject), now).await?;
                tx.commit().await?;
            }
            Ok(added)
        })
    }

    fn set_password(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, bool> {
        self.write("set_password", move |inner, mut tx, now| async move {
            let proven = None;
            if !accounts::set_password(&inner.relations, &mut tx, &subject, (&hash, proven), now).await? {
                return Ok(false);
            }
            end_sessions(&mut tx, &subject).await?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn change_password(
        &self,
        subject: Subject,
        hash: Secret<String>,
        session_version: i64,
    ) -> Answer<'_, Option<Ended>> {
        self.write("change_password", move |inner, mut tx, now| async move {
            let proven = Some(session_version);
            if !accounts::set_password(&inner.relations, &mut tx, &subject, (&hash, proven), now).await? {
                return Ok(None);
            }
            let ended = end_sessions(&mut tx, &subject).await?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await?;
            Ok(Some(ended))
        })
    }

    fn rehash(&self, subject: Subject, old: Secret<String>, new: Secret<String>) -> Answer<'_, bool> {
        self.write("rehash", move |inner, mut tx, now| async move {
            // nothing that was cached becomes untrue by this, so nobody hears of it
            let done = accounts::rehash(&inner.relations, &mut tx, &subject, (&old, &new), now).await?;
            tx.commit().await?;
            Ok(done)
        })
    }

    fn rehashes(&self) -> bool {
        self.inner.relations.rehash
    }

    fn set_roles(&self, subject: Subject, roles: Vec<Role>) -> Answer<'_, bool> {
        self.write("set_roles", move |inner, mut tx, now| async move {
            if !accounts::set_roles(&inner.relations, &mut tx, &subject, &roles, now).await? {
                return Ok(false);
            }
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn set_disabled(&self, subject: Subject, disabled: bool) -> Answer<'_, bool> {
        self.write("set_disabled", move |inner, mut tx, now| async move {
            if !accounts::set_disabled(&inner.relations, &mut tx, &subject, disabled, now).await? {
                return Ok(false);
            }
            if disabled {
                end_sessions(&mut tx, &subject).await?;
            }
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn remove_account(&self, subject: Subject) -> Answer<'_, bool> {
        self.write("remove_account", move |inner, mut tx, now| async move {
            if !accounts::remove(&inner.relations, &mut tx, &subject, now).await? {
                return Ok(false);
            }
            end_sessions(&mut tx, &subject).await?;
            note(&mut tx, &Change::Subject(subject), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn accounts(&self, kind: SubjectKind) -> Answer<'_, Vec<Account>> {
        self.run("accounts", LISTING_DEADLINE, move |inner| async move {
            let relation = inner.relations.of(kind)?;
            let text = format!(
                "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT ?",
                relation.columns, relation.from, relation.all, relation.order
            );
            let rows = query(text).bind(ACCOUNTS_MAX).rows(inner.pool.reading().await?.db()).await?;
            let mut accounts = Vec::with_capacity(rows.len());
            for row in &rows {
                let found = inner.relations.found(kind, row)?.map(|found| found.account);
                accounts.extend(found.map(|account| Account { password_hash: Secret::new(String::new()), ..account }));
            }
            Ok(accounts)
        })
    }

    fn issue(&self, token: Option<NewToken>, refresh: Option<(TokenDigest, RefreshToken)>) -> Answer<'_, ()> {
        self.run("issue", DEADLINE, move |inner| async move {
            // it depends on nothing that it reads, so it need not wait for others
            let (mut tx, now) = (inner.pool.begin().await?, inner.clock.unix());
            if let Some(token) = token {
                insert_token(&mut tx, &token, now).await?;
            }
            if let Some((digest, refresh)) = refresh {
                insert_refresh(&mut tx, digest, &refresh, now).await?;
            }
            tx.commit().await
        })
    }

    fn rotate(&self, rotation: Rotation) -> Answer<'_, RefreshStanding> {
        self.write("rotate", move |inner, mut tx, now| async move {
            let Some(row) = refresh_row(tx.db(), rotation.used).await? else { return Ok(RefreshStanding::Unknown) };
            let owner = match inner.relations.find(tx.db(), &row.token.owner).await? {
                Some(found) if found.settled => Some(found.account),
                Some(_) => inner.relations.settle(&mut tx, &row.token.owner, now).await?,
                None => None,
            };
            let before = Inner::standing(row, owner.as_ref());
            let RefreshStanding::Live(token) = &before else { return Ok(before) };
            if token.expires_at.saturating_mul(1_000) <= rotation.used_at_ms {
                return Ok(RefreshStanding::Unknown);
            }
            query("UPDATE portcullis_tokens SET used_at_ms = ?, replay = ? WHERE digest = ?")
                .bind(rotation.used_at_ms)
                .bind(rotation.replay)
                .bind(rotation.used.0.as_slice())
                .execute(tx.db())
                .await?;
            // it came, so nobody has cause to ask once more for the answer that it came with
            query("UPDATE portcullis_tokens SET replay = NULL WHERE family = ? AND digest <> ? AND replay IS NOT NULL")
                .bind(&*token.family)
                .bind(rotation.used.0.as_slice())
                .execute(tx.db())
                .await?;
            let successor =
                RefreshToken { scopes: rotation.scopes, expires_at: rotation.successor_expires_at, ..token.clone() };
            insert_refresh(&mut tx, rotation.successor, &successor, now).await?;
            if let Some(beside) = rotation.token {
                insert_token(&mut tx, &beside, now).await?;
            }
            tx.commit().await?;
            Ok(before)
        })
    }

    fn revoke_token(&self, digest: TokenDigest) -> Answer<'_, bool> {
        self.write("revoke_token", move |_, mut tx, now| async move {
            let done = query("DELETE FROM portcullis_tokens WHERE digest = ? AND kind = 'token'")
                .bind(digest.0.as_slice())
                .execute(tx.db())
                .await?;
            if done == 0 {
                return Ok(false);
            }
            note(&mut tx, &Change::Token(digest), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn revoke_clear_token(&self, text: Secret<String>) -> Answer<'_, bool> {
        self.write("revoke_clear_token", move |inner, mut tx, now| async move {
            let Some((foreign, tokens)) = inner.relations.clear_tokens(&text) else { return Ok(false) };
            // with the whole text once more, as bytes: a collation may take other tokens for the same
            let exact = match foreign.engine {
                Engine::Sqlite | Engine::Postgres => format!("CAST({} AS TEXT) = ?", tokens.token),
                Engine::MySql => format!("CAST(CONVERT({} USING utf8mb4) AS BINARY) = CAST(? AS BINARY)", tokens.token),
            };
            let done = query(format!("DELETE FROM {} WHERE {} = ? AND {exact}", tokens.table, tokens.token))
                .bind(text.expose().as_str())
                .bind(text.expose().as_str())
                .execute(tx.db())
                .await?;
            if done == 0 {
                return Ok(false);
            }
            note(&mut tx, &Change::Token(super::digest(text.expose())), now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn revoke_family(&self, family: Arc<str>, until: UnixSeconds) -> Answer<'_, ()> {
        self.write("revoke_family", move |_, mut tx, now| async move {
            end_family(&mut tx, &family, until, now).await?;
            tx.commit().await
        })
    }

    fn revoke_refresh_tokens(&self, family: Arc<str>) -> Answer<'_, ()> {
        self.write("revoke_refresh_tokens", move |_, mut tx, _| async move {
            query("UPDATE portcullis_tokens SET revoked = TRUE, replay = NULL WHERE family = ? AND kind = 'refresh'")
                .bind(&*family)
                .execute(tx.db())
                .await?;
            tx.commit().await
        })
    }

    fn revoke_jwt(&self, jti: Arc<str>, until: UnixSeconds) -> Answer<'_, ()> {
        self.write("revoke_jwt", move |_, mut tx, now| async move {
            revoke_id(&mut tx, &jti, until).await?;
            note(&mut tx, &Change::Session(jti), now).await?;
            tx.commit().await
        })
    }

    fn revoke_listed(&self, id: i64, until: UnixSeconds) -> Answer<'_, Option<TokenListing>> {
        self.write("revoke_listed", move |_, mut tx, now| async move {
            let row = query(
                "SELECT id, kind AS token_kind, owner_kind AS kind, owner_name AS name, issued_at, expires_at, digest, \
                 family FROM portcullis_tokens WHERE id = ?",
            )
            .bind(id)
            .row(tx.db())
            .await?;
            let Some(row) = row else { return Ok(None) };
            let token = listing(&row)?;
            if token.kind == REFRESH {
                let family = row.text("family")?;
                let until = token.expires_at.unwrap_or(i64::MAX).max(until);
                end_family(&mut tx, &family, until, now).await?;
            } else {
                query("DELETE FROM portcullis_tokens WHERE id = ?").bind(id).execute(tx.db()).await?;
                note(&mut tx, &Change::Token(digest_column(&row)?), now).await?;
            }
            tx.commit().await?;
            Ok(Some(token))
        })
    }

    fn tokens(&self, owner: Option<Subject>, now: UnixSeconds) -> Answer<'_, Vec<TokenListing>> {
        self.run("tokens", LISTING_DEADLINE, move |inner| async move {
            // of users elsewhere, those whose row was seen since it was changed
            let versions = match inner.relations.foreign {
                None => "SELECT kind, name, session_version FROM portcullis_accounts WHERE NOT disabled",
                Some(_) => {
                    "SELECT kind, name, session_version FROM portcullis_accounts WHERE NOT disabled AND kind = 'client' \
                     UNION ALL SELECT 'user', name, session_version FROM portcullis_user_state WHERE NOT disabled"
                }
            };
            let of_owner = if owner.is_some() { "AND t.owner_kind = ? AND t.owner_name = ? " } else { "" };
            let mut statement = query(format!(
                "SELECT t.id AS id, t.kind AS token_kind, t.owner_kind AS kind, t.owner_name AS name, \
                 t.issued_at AS issued_at, t.expires_at AS expires_at FROM portcullis_tokens t {WITH_CLIENT} \
                 JOIN ({versions}) a ON a.kind = t.owner_kind AND a.name = t.owner_name \
                 WHERE NOT t.revoked AND t.used_at_ms IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?) \
                 AND (t.client_id IS NULL OR c.id IS NOT NULL) \
                 AND a.session_version = t.session_version {of_owner}ORDER BY t.id DESC LIMIT ?"
            ))
            .bind(now);
            if let Some(owner) = &owner {
                statement = statement.bind(owner.kind.name()).bind(&*owner.name);
            }
            let rows = statement.bind(TOKENS_MAX).rows(inner.pool.reading().await?.db()).await?;
            rows.iter().map(listing).collect()
        })
    }

    fn keys(&self, now: UnixSeconds) -> Answer<'_, Vec<StoredKey>> {
        self.read("keys", move |inner| async move {
            let rows = query(
                "SELECT id, algorithm, private_key, signs_from, verifies_until FROM portcullis_keys \
                 WHERE verifies_until IS NULL OR verifies_until > ? ORDER BY number",
            )
            .bind(now)
            .rows(inner.pool.reading().await?.db())
            .await?;
            rows.iter().map(key).collect()
        })
    }

    fn add_first_key(&self, key: StoredKey) -> Answer<'_, bool> {
        self.write("add_first_key", move |_, mut tx, now| async move {
            let current = query("SELECT id FROM portcullis_keys WHERE verifies_until IS NULL").row(tx.db()).await?;
            if current.is_some() {
                return Ok(false);
            }
            insert_key(&mut tx, &key).await?;
            note(&mut tx, &Change::Keys, now).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn rotate_key(&self, key: StoredKey, verifies_until: UnixSeconds) -> Answer<'_, ()> {
        self.write("rotate_key", move |_, mut tx, now| async move {
            query("UPDATE portcullis_keys SET verifies_until = ? WHERE verifies_until IS NULL")
                .bind(verifies_until)
                .execute(tx.db())
                .await?;
            insert_key(&mut tx, &key).await?;
            note(&mut tx, &Change::Keys, now).await?;
            tx.commit().await
        })
    }

    fn changes(&self, position: Option<i64>) -> Answer<'_, (Vec<Change>, i64)> {
        self.read("changes", move |inner| async move {
            let mut reading = inner.pool.reading().await?;
            let Some(position) = position else { return Ok((Vec::new(), last_change(reading.db()).await?)) };
            let rows = query("SELECT seq, kind, value FROM portcullis_changes WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(position)
                .bind(CHANGES_MAX)
                .rows(reading.db())
                .await?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
                // a list that ends before what was heard is of another database: one restored from a copy, for instance
                let end = last_change(reading.db()).await?;
                return Ok(if end < position { (vec![Change::All], end) } else { (Vec::new(), position) });
            };
            let end = last.number("seq")?;
            // numbers have no gaps, so one that is missing was purged
            if first.number("seq")? != position.saturating_add(1) {
                return Ok((vec![Change::All], end));
            }
            Ok((rows.iter().map(change).collect::<Result<_, _>>()?, end))
        })
    }

    fn purge(&self, now: UnixSeconds) -> Answer<'_, bool> {
        self.write("purge", move |_, mut tx, _| async move {
            // the newest change stays, so that the numbers that were given stay known
            let newest = last_change(tx.db()).await?;
            let sealed_before = now.saturating_mul(1_000).saturating_sub(REPLAY_KEPT_MS);
            // those from before were seen to by an earlier call, or go with their rows: not all rows are looked at each time
            let sealed_since = sealed_before.saturating_sub(REPLAYS_SOUGHT_MS);
            let sealed = format!("used_at_ms >= {sealed_since} AND replay IS NOT NULL AND used_at_ms < ?");
            let mut more = false;
            for (table, column, action, condition, before) in [
                ("portcullis_tokens", "id", "DELETE FROM", "expires_at <= ? ORDER BY expires_at".to_owned(), now),
                ("portcullis_revocations", "id", "DELETE FROM", "until <= ? ORDER BY until".to_owned(), now),
                ("portcullis_tokens", "id", "UPDATE", sealed, sealed_before),
                ("portcullis_keys", "number", "DELETE FROM", "verifies_until <= ?".to_owned(), now),
                (
                    "portcullis_changes",
                    "seq",
                    "DELETE FROM",
                    format!("at < ? AND seq < {newest} ORDER BY seq"),
                    now.saturating_sub(CHANGES_KEPT_SECONDS),
                ),
            ] {
                let set = if action == "UPDATE" { " SET replay = NULL" } else { "" };
                let text = match tx.db().engine() {
                    // it looks at every row where another statement says which
                    Engine::MySql => format!("{action} {table}{set} WHERE {condition} LIMIT ?"),
                    Engine::Sqlite | Engine::Postgres => format!(
                        "{action} {table}{set} WHERE {column} IN \
                         (SELECT {column} FROM {table} WHERE {condition} LIMIT ?)"
                    ),
                };
                let gone = query(text).bind(before).bind(PURGE_ROWS).execute(tx.db()).await?;
                more |= gone >= PURGE_ROWS.unsigned_abs();
            }
            tx.commit().await?;
            Ok(more)
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.read("ping", |inner| async move {
            query("SELECT version FROM portcullis_schema").one(inner.pool.reading().await?.db()).await.map(drop)
        })
    }
}

/// Brings our tables up to date and checks those of others, waiting for another process that is at it, or for a server
/// that is about to start. Turning WAL on does not wait by itself.
async fn prepare(pool: &Pool, tables: &Tables, clock: &Clock) -> Result<Relations, StoreError> {
    let started = clock.now();
    loop {
        let outcome = match schema::migrate(pool).await {
            Ok(()) => match pool.reading().await {
                Ok(mut reading) => Relations::check(reading.db(), tables).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Err(StoreError::Unavailable(_)) if clock.now() < started + OPEN_DEADLINE => {
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests;
