//! Our tables, and how a database gets them.
//!
//! Migrations run at start, all in one transaction that takes the write lock first: of two processes that start at once
//! one waits and then finds nothing to do. A database that a newer version has changed is left alone.

use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};
use sqlx::{Executor, Transaction};

use super::StoreError;
use super::rows::failed;

/// The steps from an empty database to today's tables; a step is never changed once released.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_start.sql")];

/// Brings the database to today's tables.
///
/// # Errors
/// `Broken` where it is no database, is read-only or was changed by a newer version; `Unavailable` where it is locked.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let found = version(&mut tx).await?;
    let steps = match usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..)) {
        Some([]) => return Ok(()),
        Some(steps) => steps,
        None => {
            let text = format!("its tables are of version {found}, this program knows up to {}", MIGRATIONS.len());
            return Err(StoreError::Broken(text.into()));
        }
    };
    for step in steps {
        tx.execute(sqlx::raw_sql(*step)).await.map_err(failed)?;
    }
    set_version(&mut tx).await?;
    tx.commit().await.map_err(failed)
}

async fn version(tx: &mut Transaction<'static, Sqlite>) -> Result<i64, StoreError> {
    let table = "CREATE TABLE IF NOT EXISTS portcullis_schema (version INTEGER NOT NULL)";
    tx.execute(table).await.map_err(failed)?;
    let connection: &mut SqliteConnection = tx;
    let row: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM portcullis_schema").fetch_one(connection).await.map_err(failed)?;
    Ok(row.unwrap_or(0))
}

async fn set_version(tx: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM portcullis_schema").await.map_err(failed)?;
    let latest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let insert = sqlx::query("INSERT INTO portcullis_schema (version) VALUES (?)").bind(latest);
    tx.execute(insert).await.map_err(failed)?;
    Ok(())
}
