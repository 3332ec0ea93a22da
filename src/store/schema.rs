//! Our tables, and how a database gets them.
//!
//! Migrations run at start, under a lock that is taken first: of two processes that start at once one waits and then
//! finds nothing to do. A database that a newer version has changed is left alone.

use super::StoreError;
use super::sql::engine::{Db, Engine, Pool, Reading, query};
use super::sql::errors::unavailable;

/// The steps from an empty database to today's tables; a step is never changed once released.
const SQLITE: [&str; 5] = [
    include_str!("../../migrations/sqlite/0001_start.sql"),
    include_str!("../../migrations/sqlite/0002_users_elsewhere.sql"),
    include_str!("../../migrations/sqlite/0003_audit.sql"),
    include_str!("../../migrations/sqlite/0004_issued_to.sql"),
    include_str!("../../migrations/sqlite/0005_persons.sql"),
];
const POSTGRES: [&str; 5] = [
    include_str!("../../migrations/postgres/0001_start.sql"),
    include_str!("../../migrations/postgres/0002_users_elsewhere.sql"),
    include_str!("../../migrations/postgres/0003_audit.sql"),
    include_str!("../../migrations/postgres/0004_issued_to.sql"),
    include_str!("../../migrations/postgres/0005_persons.sql"),
];
const MYSQL: [&str; 5] = [
    include_str!("../../migrations/mysql/0001_start.sql"),
    include_str!("../../migrations/mysql/0002_users_elsewhere.sql"),
    include_str!("../../migrations/mysql/0003_audit.sql"),
    include_str!("../../migrations/mysql/0004_issued_to.sql"),
    include_str!("../../migrations/mysql/0005_persons.sql"),
];

/// The number of the lock in `PostgreSQL`: any that nobody else takes.
const LOCK_NUMBER: i64 = 0x706f_7274_6375_6c6c;

/// How long to wait for another process's migration in `MySQL`, in seconds.
const LOCK_SECONDS: i64 = 5;

/// Brings the database to today's tables.
///
/// # Errors
/// `Broken` where it is no database, is read-only or was changed by a newer version; `Unavailable` where it is locked.
pub(super) async fn migrate(pool: &Pool) -> Result<(), StoreError> {
    match pool.engine() {
        Engine::Sqlite | Engine::Postgres => {
            let mut tx = pool.begin().await?;
            if pool.engine() == Engine::Postgres {
                // of this database, until the transaction ends
                query("SELECT pg_advisory_xact_lock(?)").bind(LOCK_NUMBER).row(tx.db()).await?;
            }
            let found = version(tx.db()).await?;
            let steps = if pool.engine() == Engine::Sqlite { SQLITE } else { POSTGRES };
            if carry_out(tx.db(), &steps, found).await? { tx.commit().await } else { Ok(()) }
        }
        Engine::MySql => migrate_mysql(pool.reading().await?).await,
    }
}

/// Each step is kept at once, so it can be begun again. The lock is the connection's, which is given up with it.
async fn migrate_mysql(mut reading: Reading) -> Result<(), StoreError> {
    let name = "CONCAT('portcullis.', LEFT(SHA1(DATABASE()), 40))";
    let row = query(format!("SELECT GET_LOCK({name}, ?) AS locked")).bind(LOCK_SECONDS).one(reading.db()).await?;
    if row.maybe_number("locked")? != Some(1) {
        return Err(unavailable("another process is changing its tables"));
    }
    let found = version(reading.db()).await;
    let done = match found {
        Ok(found) => carry_out(reading.db(), &MYSQL, found).await.map(drop),
        Err(error) => Err(error),
    };
    query(format!("SELECT RELEASE_LOCK({name}) AS released")).row(reading.db()).await?;
    done
}

/// Carries out the steps behind `found`; whether there were any.
async fn carry_out(mut db: Db<'_>, all: &[&'static str], found: i64) -> Result<bool, StoreError> {
    let steps = match usize::try_from(found).ok().and_then(|found| all.get(found..)) {
        Some([]) => return Ok(false),
        Some(steps) => steps,
        None => {
            let text = format!("its tables are of version {found}, this program knows up to {}", all.len());
            return Err(StoreError::Broken(text.into()));
        }
    };
    for step in steps {
        db.again().script(step).await?;
    }
    let latest = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let changed = query("UPDATE portcullis_schema SET version = ?").bind(latest).execute(db.again()).await?;
    if changed == 0 {
        query("INSERT INTO portcullis_schema (version) VALUES (?)").bind(latest).execute(db.again()).await?;
    }
    Ok(true)
}

async fn version(mut db: Db<'_>) -> Result<i64, StoreError> {
    let table = match db.engine() {
        Engine::Sqlite => "CREATE TABLE IF NOT EXISTS portcullis_schema (version INTEGER NOT NULL)",
        Engine::Postgres => "CREATE TABLE IF NOT EXISTS portcullis_schema (version BIGINT NOT NULL)",
        Engine::MySql => "CREATE TABLE IF NOT EXISTS portcullis_schema (version BIGINT NOT NULL) ENGINE = InnoDB",
    };
    db.again().script(table).await?;
    let row = query("SELECT max(version) AS version FROM portcullis_schema").one(db.again()).await?;
    Ok(row.maybe_number("version")?.unwrap_or(0))
}
